"""What open streams cost ingest, and how soon they tell a change.

The same events go to a fresh node without streams and to one with a thousand of them, in rounds:
tables that double make some seconds half as fast as others, and so meet both alike. The median of
the rounds counts, and each is said beside it. Every account of the load changes all the
time, so each stream always has something new. Their readers are a process on this very
machine (`stream_crowd`), which has to share it with the load generator and the node; its share
of the processors is said beside the figure. The node's own processor time for each event is a
figure of its own, which no neighbour disturbs.

The time to tell is from the acknowledgement of one event, with nothing else in flight, to the
event on an open stream that carries its total.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from unimeter.bench.frames import METRICS, Tape
from unimeter.bench.load import IngestSource, LoadError, connect, run_load
from unimeter.bench.node import MeasuredNode
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import (
    NO_SNAPSHOT,
    Settings,
    check_totals,
    fresh_node,
    make_tape,
    quantile,
)

STREAMS: Final = 1000
ROUNDS: Final = 7  # of a node without and one with
REQUESTS_A_SECOND: Final = 3000  # of the time that a figure may take: 1.5 million events
TURN_SECONDS_MAX: Final = 60.0
CONNECTIONS: Final = 8
COST_PERCENT_MAX: Final = 10.0
TELL_SECONDS_MAX: Final = 0.1
PROBE_ACCOUNT: Final = 2**40  # of nobody else
PROBE_ROUNDS: Final = 200


def streams(settings: Settings) -> list[Figure]:
    """Ingest beside a thousand open streams, and the time to tell."""
    count = min(STREAMS, settings.accounts)
    rounds = _Rounds()
    for number in range(ROUNDS):
        for is_beside in (False, True) if number % 2 else (True, False):
            with fresh_node(settings, NO_SNAPSHOT) as node:
                rounds.add(_turn(settings, node, count if is_beside else 0))
    with fresh_node(settings, NO_SNAPSHOT) as node:
        _turn(settings, node, 0)  # accounts that change, for the crowd to watch
        with _crowd(node, count):
            busy = _seconds_to_tell(settings, node)
        quiet = _seconds_to_tell(settings, node)
    name = f"{count:,} open streams"
    return [
        Figure(
            f"{name}: cost in ingest throughput",
            rounds.cost_percent,
            "%",
            COST_PERCENT_MAX,
            False,
            str(rounds),
        ),
        Figure(
            f"{name}: more processor time of the node for each event",
            rounds.cpu_percent,
            "%",
            None,
            False,
        ),
        Figure(
            f"beside {name}: ack to event, p50", quantile(busy, 0.5), "s", TELL_SECONDS_MAX, False
        ),
        Figure(f"beside {name}: ack to event, p99", quantile(busy, 0.99), "s"),
        Figure("1 open stream: ack to event, p50", quantile(quiet, 0.5), "s", None, False),
        Figure("1 open stream: ack to event, p99", quantile(quiet, 0.99), "s", None, False),
    ]


@dataclass(frozen=True)
class _Turn:
    """The load once, from an empty node on."""

    streams: int
    events_per_second: float
    cpu_per_event: float  # the node's processor time
    told_per_second: float = 0.0  # totals, to the streams
    reader_cores: float = 0.0


class _Rounds:
    """Turns without streams and with them, one of each a round."""

    def __init__(self) -> None:
        self.alone: list[_Turn] = []
        self.beside: list[_Turn] = []

    def add(self, turn: _Turn) -> None:
        """One more."""
        (self.beside if turn.streams else self.alone).append(turn)

    @property
    def _costs(self) -> list[float]:
        return [
            100 * (1 - beside.events_per_second / alone.events_per_second)
            for alone, beside in zip(self.alone, self.beside, strict=True)
        ]

    @property
    def cost_percent(self) -> float:
        """Of ingest, in the middle round."""
        return max(0.01, statistics.median(self._costs))

    @property
    def cpu_percent(self) -> float:
        """More of the node's processor time for an event, in the middle round."""
        more = [
            100 * (beside.cpu_per_event / max(alone.cpu_per_event, 1e-12) - 1)
            for alone, beside in zip(self.alone, self.beside, strict=True)
        ]
        return max(0.01, statistics.median(more))

    def __str__(self) -> str:
        costs = ", ".join(f"{cost:.0f}" for cost in sorted(self._costs))
        alone = statistics.median(turn.events_per_second for turn in self.alone)
        told = statistics.median(turn.told_per_second for turn in self.beside)
        cores = statistics.median(turn.reader_cores for turn in self.beside)
        return (
            f"in {len(self.alone)} rounds {costs} %; {alone:,.0f} events/s without; "
            f"{told:,.0f} totals/s told; their readers {cores:.2f} cores"
        )


def _turn(settings: Settings, node: MeasuredNode, streams_open: int) -> _Turn:
    """All events of one turn, beside so many open streams."""
    tape = make_tape(settings, settings.batch)
    source = IngestSource(tape)
    requests = max(CONNECTIONS, int(settings.seconds * REQUESTS_A_SECOND))
    with _crowd(node, streams_open) if streams_open else contextlib.nullcontext() as crowd:
        reader_began = _cpu_seconds(crowd.pid) if crowd else 0.0
        began, began_cpu = time.perf_counter(), node.cpu_seconds()
        sockets = connect(node.place, CONNECTIONS)
        run_load(source, sockets, settings.depth_batches, TURN_SECONDS_MAX, requests_max=requests)
        elapsed, cpu = time.perf_counter() - began, node.cpu_seconds() - began_cpu
        reader_seconds = _cpu_seconds(crowd.pid) - reader_began if crowd else 0.0
        told = _told(crowd) if crowd else 0
    check_totals(node, tape)
    if source.duplicates or not source.stored:
        raise LoadError(f"{source.stored} events counted, {source.duplicates} called duplicates")
    if streams_open and not told:
        raise LoadError("no stream was told of a change")
    return _Turn(
        streams_open,
        source.stored / elapsed,
        cpu / source.stored,
        told / elapsed,
        reader_seconds / elapsed,
    )


# --- readers -----------------------------------------------------------------------------


@contextlib.contextmanager
def _crowd(node: MeasuredNode, count: int) -> Iterator[subprocess.Popen[str]]:
    """So many open streams, read by another process."""
    words = [sys.executable, "-m", "unimeter.bench.stream_crowd"]
    words += ["127.0.0.1", str(node.http_port), str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as crowd:
        try:
            assert crowd.stdout is not None, "its output is a pipe"
            if crowd.stdout.readline() != "open\n":
                raise LoadError("the streams could not be opened")
            yield crowd
        finally:
            crowd.kill()


def _told(crowd: subprocess.Popen[str]) -> int:
    """How many totals the readers were told, once they have been asked to end."""
    assert crowd.stdin is not None and crowd.stdout is not None, "both are pipes"
    crowd.stdin.close()
    return int(json.loads(crowd.stdout.readline())["events"])


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# --- the time to tell -----------------------------------------------------------------------


def _seconds_to_tell(settings: Settings, node: MeasuredNode) -> list[float]:
    """From each acknowledgement of one event to the event of the stream that counts it."""
    code = METRICS[0].code
    tape = Tape([(PROBE_ACCOUNT, 0)], 1, first_ns=time.time_ns())
    source = IngestSource(tape)
    with (
        socket.create_connection(("127.0.0.1", node.http_port), timeout=30) as stream,
        node.connect() as sock,
    ):
        path = f"/v1/stream?account={PROBE_ACCOUNT}&metric={code}&alerts=false"
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        reader: BinaryIO = stream.makefile("rb")
        begun = _next_count(reader)
        seconds = []
        for _ in range(min(PROBE_ROUNDS, settings.latency_rounds)):
            frame, _ = tape.take(1)
            sock.sendall(frame)
            source.count(memoryview(sock.recv(4096)))
            acknowledged = time.perf_counter()
            while _next_count(reader) < begun + source.stored:
                pass
            seconds.append(time.perf_counter() - acknowledged)
            time.sleep(0.003 * (len(seconds) % 11))  # meet every phase of the streams' pace
    return seconds


def _next_count(reader: BinaryIO) -> int:
    """The count in the next total of the stream."""
    for line in reader:
        if line.startswith(b'data: {"account"'):
            return int(json.loads(line[6:])["count"])
    raise LoadError("the node ended the stream")
