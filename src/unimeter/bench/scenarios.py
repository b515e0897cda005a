"""One function for each line of the table.

Each scenario starts a node of its own on a fresh directory, loads it, checks
that the sums agree, and returns its figures. Nothing is shared, so they can be
run one by one and in any order; a scenario that can't be trusted (a total that
differs, a request refused) raises `LoadError` and prints no figure at all.

Accounts, metrics and timestamps are those of the issue this answers: 10,000
accounts by 5 metrics, every event unique, one batch holding many accounts.
Memory is the node's own resident set, from outside, so that whatever the node
keeps counts. An aggregate key is measured with events without timestamps (v1
remembers no key for those), an event key with many events on few accounts.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unimeter.bench.frames import (
    METRICS,
    QUERY_REPLY_BYTES,
    Tape,
    decode_query,
    encode_metric_put,
    encode_query,
    shuffled_pairs,
)
from unimeter.bench.load import IngestSource, LoadError, LoadResult, connect, run_load
from unimeter.bench.node import MeasuredNode, receive_exactly, request
from unimeter.bench.report import Figure

DAY_NS: Final = 86_400 * 10**9
QUERIES_IN_FLIGHT: Final = 128
ACCOUNTS_CHECKED_MAX: Final = 10_000  # of each metric, so that a check stays within seconds
NO_SNAPSHOT: Final = {"snapshot_log_bytes": str(2**40)}


@dataclass(frozen=True)
class Settings:
    """How much of everything; `tiny()` is for tests of the bench itself."""

    directory: Path  # temporary data directories are made below it
    accounts: int = 10_000
    metrics: int = len(METRICS)
    seconds: float = 5.0
    warm_up: float = 1.0
    depth_batches: int = 2  # requests in flight on each connection at batch 500
    depth_singles: int = 8  # and at batch 1
    latency_rounds: int = 5_000
    query_rounds: int = 20_000
    memory_keys: int = 2_000_000
    memory_samples: int = 8
    restart_events: int = 10_000_000
    batch: int = 500

    def tiny(self) -> Settings:
        """Enough to go through every line of code, in about a second each."""
        return Settings(
            directory=self.directory,
            accounts=40,
            seconds=0.2,
            warm_up=0.05,
            latency_rounds=50,
            query_rounds=200,
            memory_keys=4_000,
            memory_samples=2,
            restart_events=5_000,
            batch=50,
        )


@contextlib.contextmanager
def temporary_directory(settings: Settings) -> Iterator[Path]:
    """A directory on the measured disk, removed afterwards."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=settings.directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def fresh_node(settings: Settings, options: dict[str, str] | None = None) -> Iterator[MeasuredNode]:
    """A running node with the metrics made."""
    with temporary_directory(settings) as path, MeasuredNode(path / "data", options) as node:
        create_metrics(node)
        yield node


def create_metrics(node: MeasuredNode) -> None:
    """Put the five metrics; LoadError with the node's status if one is refused."""
    with node.connect() as sock:
        for metric in METRICS:
            status, text = request(sock, encode_metric_put(metric))
            if status:
                raise LoadError(f"metric {metric.code} refused with status {status}: {text!r}")


def make_tape(settings: Settings, batch: int) -> Tape:
    """The load of the throughput lines: all pairs, shuffled, timestamps from now on."""
    pairs = shuffled_pairs(settings.accounts, settings.metrics)
    return Tape(pairs, batch, first_ns=time.time_ns() // 10**9 * 10**9)


def check_totals(node: MeasuredNode, tape: Tape) -> None:
    """Query the accounts of every metric; LoadError unless the counts are the tape's."""
    start = tape.first_ns // DAY_NS * DAY_NS - DAY_NS if tape.first_ns else 0
    end = (tape.last_ns or time.time_ns()) // DAY_NS * DAY_NS + 3 * DAY_NS
    start = start or end - 7 * DAY_NS
    with node.connect() as sock:
        for number, metric in enumerate(METRICS):
            expected = list(tape.expected_counts(number).items())[:ACCOUNTS_CHECKED_MAX]
            for at in range(0, len(expected), QUERIES_IN_FLIGHT):
                _check_counts(sock, metric.code, expected[at : at + QUERIES_IN_FLIGHT], start, end)


def _check_counts(
    sock: socket.socket, code: str, expected: list[tuple[int, int]], start: int, end: int
) -> None:
    frames = [
        encode_query(account, code, start, end, request_id)
        for request_id, (account, _) in enumerate(expected, 1)
    ]
    sock.sendall(b"".join(frames))
    replies = receive_exactly(sock, QUERY_REPLY_BYTES * len(frames))
    for at in range(0, len(replies), QUERY_REPLY_BYTES):
        status, request_id = struct.unpack_from("<B3xI", replies, at)
        if status:
            raise LoadError(f"query of {code} got status {status}")
        account, count = expected[request_id - 1]
        found = decode_query(replies[at : at + QUERY_REPLY_BYTES])[1]
        if found != count:
            raise LoadError(f"account {account}, {code}: {count} acknowledged, {found} in total")


def check_stored(source: IngestSource, result: LoadResult) -> None:
    """LoadError unless each acknowledged event was stored as new."""
    events = result.requests_total * source.events_per_request
    if source.stored != events or source.duplicates:
        raise LoadError(
            f"{events} events acknowledged, but {source.stored} stored and "
            f"{source.duplicates} called duplicates"
        )


def ingest_throughput(
    settings: Settings, batch: int, connections: int, depth: int
) -> tuple[LoadResult, float]:
    """Load a fresh node; (what came out, the node's processor share in cores)."""
    with fresh_node(settings, NO_SNAPSHOT) as node:
        tape = make_tape(settings, batch)
        source = IngestSource(tape)
        sockets = connect(node.place, connections)
        begin, begin_cpu = time.perf_counter(), node.cpu_seconds()
        result = run_load(source, sockets, depth, settings.seconds, settings.warm_up)
        share = (node.cpu_seconds() - begin_cpu) / (time.perf_counter() - begin)
        check_stored(source, result)
        check_totals(node, tape)
    return result, share


def _load_note(result: LoadResult, node_share: float) -> str:
    client = result.client_cpu_seconds / result.seconds
    return (
        f"p50 {result.percentile(0.5) * 1e3:.2f} ms, "
        f"p99 {result.percentile(0.99) * 1e3:.2f} ms; node {node_share:.2f}, "
        f"generator {client:.2f} cores"
    )


def batches(settings: Settings, connections: int, target: float) -> list[Figure]:
    """Events per second in batches of 500, pipelined and not."""
    figures = []
    for depth, wanted in ((settings.depth_batches, target), (1, None)):
        result, share = ingest_throughput(settings, settings.batch, connections, depth)
        name = f"batch {settings.batch}, {connections} connections, {depth} in flight each"
        note = _load_note(result, share)
        figures.append(Figure(name, result.events_per_second, "events/s", wanted, note=note))
    return figures


def singles(settings: Settings) -> list[Figure]:
    """Requests per second at batch 1 over 64 connections, pipelined and not."""
    figures = []
    for depth, target in ((settings.depth_singles, 80_000.0), (1, None)):
        result, share = ingest_throughput(settings, 1, 64, depth)
        name = f"batch 1, 64 connections, {depth} in flight each"
        note = _load_note(result, share)
        figures.append(Figure(name, result.requests_per_second, "requests/s", target, note=note))
    return figures


def latency(settings: Settings) -> list[Figure]:
    """Round trip of one event on one connection with nothing else in flight."""
    with fresh_node(settings, NO_SNAPSHOT) as node:
        tape = make_tape(settings, 1)
        with node.connect() as sock:
            time_ingests(sock, tape, settings.latency_rounds // 10)
            seconds = time_ingests(sock, tape, settings.latency_rounds)
        check_totals(node, tape)
    half, tail = quantile(seconds, 0.5), quantile(seconds, 0.99)
    name = "batch 1, 1 connection"
    return [
        Figure(f"{name}: p50", half, "s", 0.22e-3, False),
        Figure(f"{name}: p99", tail, "s", 1e-3, False),
    ]


def time_ingests(sock: socket.socket, tape: Tape, rounds: int) -> list[float]:
    """Seconds of each of `rounds` ingests of one event, one after the other."""
    seconds = []
    source = IngestSource(tape)
    for _ in range(rounds):
        frame, _ = tape.take(1)
        begin = time.perf_counter()
        sock.sendall(frame)
        reply = sock.recv(4096)
        seconds.append(time.perf_counter() - begin)
        source.count(memoryview(reply))
    if source.stored != rounds:
        raise LoadError(f"{rounds} events sent one by one, {source.stored} stored")
    return seconds


def quantile(values: list[float], share: float) -> float:
    """The `share` quantile by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def query_round_trip(settings: Settings) -> list[Figure]:
    """Round trip of a total, one query at a time, over accounts in random order."""
    with fresh_node(settings, NO_SNAPSHOT) as node:
        tape = make_tape(settings, settings.batch)
        run_laps(node, tape, 3)
        start = tape.first_ns // DAY_NS * DAY_NS
        frames = [
            encode_query(account, METRICS[metric].code, start, start + 2 * DAY_NS, 1)
            for account, metric in tape.pairs[: settings.query_rounds]
        ]
        seconds = []
        with node.connect() as sock:
            for turn in range(settings.query_rounds):
                frame = frames[turn % len(frames)]
                begin = time.perf_counter()
                sock.sendall(frame)
                reply = sock.recv(4096)
                seconds.append(time.perf_counter() - begin)
                if len(reply) != QUERY_REPLY_BYTES or decode_query(reply)[1] != 3:
                    raise LoadError(f"query answered {reply!r}, expected a count of 3")
    return [
        Figure("query of a total: p50 round trip", quantile(seconds, 0.5), "s", 100e-6, False),
        Figure("query of a total: p99 round trip", quantile(seconds, 0.99), "s"),
    ]


def run_laps(node: MeasuredNode, tape: Tape, laps: int) -> LoadResult:
    """Send the whole tape `laps` times exactly."""
    source = IngestSource(tape)
    source_max = LimitedSource(source, laps * tape.frames)
    result = run_load(source_max, connect(node.place, 4), 2, 600.0)
    check_stored(source, result)
    return result


class LimitedSource:
    """Gives a fixed number of requests, then nothing; the load ends when all are answered."""

    def __init__(self, source: IngestSource, requests: int) -> None:
        self.source = source
        self.events_per_request = source.events_per_request
        self.requests_left = requests

    def take(self, requests: int) -> tuple[memoryview, int]:
        """As many as are left; an empty view and 0 at the end."""
        allowed = min(requests, self.requests_left)
        if not allowed:
            return memoryview(b""), 0
        data, count = self.source.take(allowed)
        self.requests_left -= count
        return data, count

    def count(self, data: memoryview) -> tuple[int, int]:
        """As the source does."""
        return self.source.count(data)


def memory_per_aggregate_key(settings: Settings) -> list[Figure]:
    """Resident bytes per (account, metric, period), one event each."""
    keys = settings.memory_keys
    accounts = keys // settings.metrics
    tape = Tape(shuffled_pairs(accounts, settings.metrics), settings.batch, first_ns=0)
    worst, last = _memory_growth(settings, tape, tape.frames * tape.batch)
    note = f"{keys:,} keys; after growth of a table up to {worst:,.0f}"
    return [Figure("memory per aggregate key", last, "bytes", 200, False, note)]


def memory_per_event_key(settings: Settings) -> list[Figure]:
    """Resident bytes per remembered event key; totals stay few."""
    accounts = max(settings.batch, settings.accounts // 10) // settings.metrics
    pairs = shuffled_pairs(accounts, settings.metrics)
    tape = Tape(pairs, settings.batch, first_ns=time.time_ns() // 10**9 * 10**9)
    worst, last = _memory_growth(settings, tape, settings.memory_keys)
    note = f"{settings.memory_keys:,} keys; after growth of a table up to {worst:,.0f}"
    return [Figure("memory per event key", last, "bytes", 40, False, note)]


def _memory_growth(settings: Settings, tape: Tape, events: int) -> tuple[float, float]:
    """(worst, last) resident bytes per event over samples while `events` are sent."""
    requests = events // tape.batch
    step = max(1, requests // settings.memory_samples)
    with fresh_node(settings, NO_SNAPSHOT) as node:
        source = IngestSource(tape)
        before = node.resident_bytes()
        shares = []
        for sent in range(0, requests, step):
            limited = LimitedSource(source, min(step, requests - sent))
            run_load(limited, connect(node.place, 2), 2, 600.0)
            shares.append((node.resident_bytes() - before) / source.stored)
        if source.stored != requests * tape.batch:
            raise LoadError(f"{requests * tape.batch} events sent, {source.stored} stored")
        check_totals(node, tape)
    late = shares[len(shares) // 4 :]  # the first samples carry the node's fixed buffers
    return max(late), shares[-1]


def restart(settings: Settings) -> list[Figure]:
    """SIGKILL with all events after the last snapshot, then start until GET /ready says 200."""
    with fresh_node(settings, NO_SNAPSHOT) as node:
        tape = make_tape(settings, settings.batch)
        source = IngestSource(tape)
        limited = LimitedSource(source, settings.restart_events // settings.batch)
        result = run_load(limited, connect(node.place, 8), settings.depth_batches, 600.0)
        check_stored(source, result)
        node.kill()
        begin = time.perf_counter()
        node.start()
        seconds = time.perf_counter() - begin
        check_totals(node, tape)
    name = f"restart with {result.requests_total * settings.batch:,} events to replay"
    note = f"{source.stored / seconds:,.0f} events/s; file cache warm"
    return [Figure(name, seconds, "s", 10, False, note)]


def measure_ceiling(settings: Settings) -> list[Figure]:
    """The generator against a sink that only counts bytes: no figure can exceed it."""
    figures = []
    for batch, connections, depth in (
        (settings.batch, 64, settings.depth_batches),
        (1, 64, settings.depth_singles),
        (1, 64, 1),
    ):
        tape = make_tape(settings, batch)
        words = [sys.executable, "-m", "unimeter.bench.sink", str(tape.frame_bytes), str(batch)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as sink:
            try:
                assert sink.stdout is not None, "the sink's output is a pipe"
                address = ("127.0.0.1", int(sink.stdout.readline()))
                sockets = connect(address, connections)
                seconds = min(settings.seconds, 2.0)
                result = run_load(IngestSource(tape), sockets, depth, seconds, settings.warm_up)
            finally:
                sink.kill()
        unit = "events/s" if batch > 1 else "requests/s"
        name = f"generator alone, batch {batch} x 64, depth {depth}"
        figures.append(Figure(name, result.events_per_second, unit))
    return figures
