"""What open streams cost ingest, and how soon they tell a change.

Ingest is measured in turns on one node, without streams and with a thousand of them, so that
what the machine does meanwhile meets both alike. Every account of the load changes all the
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
PAIRS: Final = 4  # of turns, without and with
CONNECTIONS: Final = 8
COST_PERCENT_MAX: Final = 10.0
TELL_SECONDS_MAX: Final = 0.1
PROBE_ACCOUNT: Final = 2**40  # of nobody else
PROBE_ROUNDS: Final = 200


def streams(settings: Settings) -> list[Figure]:
    """Ingest beside a thousand open streams, and the time to tell."""
    count = min(STREAMS, settings.accounts)
    with fresh_node(settings, NO_SNAPSHOT) as node:
        alone, beside, note = _ingest(settings, node, count)
        with _crowd(node, count):
            busy = _seconds_to_tell(settings, node)
        quiet = _seconds_to_tell(settings, node)
    name = f"{count:,} open streams"
    return [
        Figure(
            f"{name}: cost in ingest throughput",
            100
            - 100 / (1 + _percent_more(beside.seconds_per_event, alone.seconds_per_event) / 100),
            "%",
            COST_PERCENT_MAX,
            False,
            note,
        ),
        Figure(
            f"{name}: more processor time of the node for each event",
            _percent_more(beside.cpu_per_event, alone.cpu_per_event),
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


@dataclass
class Turns:
    """What came out of the turns of one kind."""

    events: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the node

    @property
    def seconds_per_event(self) -> float:
        """Of the clock."""
        return self.seconds / max(1, self.events)

    @property
    def cpu_per_event(self) -> float:
        """Of the node's processor time."""
        return self.cpu_seconds / max(1, self.events)


def _percent_more(with_streams: float, without: float) -> float:
    return max(0.01, 100 * (with_streams / max(without, 1e-12) - 1))


def _ingest(settings: Settings, node: MeasuredNode, count: int) -> tuple[Turns, Turns, str]:
    """(turns without streams, turns with them, what else was seen)."""
    tape = make_tape(settings, settings.batch)
    source = IngestSource(tape)
    seconds = max(settings.seconds / 2, 0.1)
    _turn(settings, node, source, settings.warm_up, Turns())
    alone, beside = Turns(), Turns()
    told, reader_seconds = 0, 0.0
    for turn in range(2 * PAIRS):
        if turn % 4 in (0, 3):  # without, with, with, without: a drift meets both
            _turn(settings, node, source, seconds, alone)
            continue
        with _crowd(node, count) as crowd:
            began = _cpu_seconds(crowd.pid)
            _turn(settings, node, source, seconds, beside)
            reader_seconds += _cpu_seconds(crowd.pid) - began
            told += _told(crowd)
    check_totals(node, tape)
    if not told:
        raise LoadError("no stream was told of a change")
    note = (
        f"{1 / alone.seconds_per_event:,.0f} events/s without, {1 / beside.seconds_per_event:,.0f} "
        f"with; {told / beside.seconds:,.0f} totals/s told; "
        f"their readers {reader_seconds / beside.seconds:.2f} cores"
    )
    return alone, beside, note


def _turn(
    settings: Settings, node: MeasuredNode, source: IngestSource, seconds: float, turns: Turns
) -> None:
    """Load for a while and add what came out, warm-up and all."""
    sockets = connect(node.place, CONNECTIONS)
    began, began_cpu = time.perf_counter(), node.cpu_seconds()
    result = run_load(source, sockets, settings.depth_batches, seconds)
    turns.seconds += time.perf_counter() - began
    turns.cpu_seconds += node.cpu_seconds() - began_cpu
    turns.events += result.requests_total * source.events_per_request
    if source.duplicates:
        raise LoadError(f"{source.duplicates} events were called duplicates")


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
