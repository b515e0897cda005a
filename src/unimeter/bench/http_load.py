"""JSON over HTTP under load: requests made before the clock starts, replies counted by their head.

Owns the HTTP lines of the table. Every event is unique (an id of its own) and says its time, as a
program's would; 500 of them are one request of some 60 KB. The bodies of a whole run are made
before it begins, so that the generator only sends and counts; it is the same closed loop as for the
binary protocol (`load`), with one request in flight on each connection, as HTTP clients do.

What parsing costs is measured beside it, in this process: from the bytes of a body to the columns
that go into the node, and from the columns to the frame.
"""

from __future__ import annotations

import json
import math
import random
import time
import urllib.request
from itertools import pairwise
from typing import Final

from unimeter.bench.frames import METRICS
from unimeter.bench.load import LoadError, LoadResult, connect, run_load
from unimeter.bench.node import MeasuredNode
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import NO_SNAPSHOT, Settings, fresh_node
from unimeter.instants import format_ns
from unimeter.wire import v2

CONNECTIONS: Final = 8
TARGET: Final = 150_000.0
RATE_MAX: Final = 400_000  # events a second that bodies are made for; a faster run ends sooner
PARSE_ROUNDS: Final = 200
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_STORED: Final = b'{"stored":'


class JsonTape:
    """Requests of a run, each used once."""

    def __init__(self, settings: Settings, requests: int) -> None:
        self.batch, self.accounts = settings.batch, settings.accounts
        self._random = random.Random(1)
        self._start_ns = time.time_ns()
        self.requests = [memoryview(self._request(number)) for number in range(requests)]

    def body(self, number: int) -> bytes:
        """One batch as JSON: any account, a metric of its own, a time, an id."""
        codes = [metric.code for metric in METRICS]
        first = number * self.batch
        stamp = format_ns((self._start_ns // 10**9 + number // 600) * 10**9)[:-1]
        draw = self._random.randrange
        events = ",".join(
            f'{{"account":{draw(self.accounts)},"metric":"{codes[at % 5]}","value":{at % 1000},'
            f'"timestamp":"{stamp}.{at % 1000:03d}Z","id":"{at:016x}"}}'
            for at in range(first, first + self.batch)
        )
        return f"[{events}]".encode()

    def _request(self, number: int) -> bytes:
        body = self.body(number)
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class HttpSource:
    """Gives whole requests; finds whole replies, and adds up what they say was stored."""

    def __init__(self, tape: JsonTape) -> None:
        self.events_per_request = tape.batch
        self._left = iter(tape.requests)
        self.stored = 0

    def take(self, requests: int) -> tuple[memoryview, int]:
        """One request, or nothing at the end."""
        found = next(self._left, None)
        return (memoryview(b""), 0) if found is None else (found, 1)

    def count(self, data: memoryview) -> tuple[int, int]:
        """(whole replies, their bytes); LoadError for one that is no success."""
        text, at, replies = bytes(data), 0, 0
        while (end := text.find(_END, at)) >= 0:
            head = text[at:end].lower()
            if not head.startswith(b"http/1.1 200"):
                raise LoadError(f"a request was answered {text[at : at + 400]!r}")
            length = int(head.partition(_LENGTH)[2].partition(b"\r\n")[0])
            body = end + len(_END)
            if len(text) < body + length:
                break
            self.stored += int(text[body + len(_STORED) : body + 40].partition(b",")[0])
            at, replies = body + length, replies + 1
        return replies, at


def json_batches(settings: Settings) -> list[Figure]:
    """Events per second through 8 keep-alive connections, durable, and what parsing costs."""
    seconds = settings.seconds + settings.warm_up
    tape = JsonTape(settings, math.ceil(seconds * RATE_MAX / settings.batch))
    with fresh_node(settings, NO_SNAPSHOT) as node:
        source = HttpSource(tape)
        sockets = connect(("127.0.0.1", node.http_port), CONNECTIONS)
        begin, begin_cpu = time.perf_counter(), node.cpu_seconds()
        result = run_load(source, sockets, 1, settings.seconds, settings.warm_up)
        share = (node.cpu_seconds() - begin_cpu) / (time.perf_counter() - begin)
        _check(node, source, result)
    name = f"HTTP, JSON batch {settings.batch}, {CONNECTIONS} connections"
    note = (
        f"p50 {result.percentile(0.5) * 1e3:.2f} ms, p99 {result.percentile(0.99) * 1e3:.2f} ms; "
        f"node {share:.2f}, generator {result.client_cpu_seconds / result.seconds:.2f} cores"
    )
    figure = Figure(name, result.events_per_second, "events/s", TARGET, note=note)
    return [figure, *parse_cost(tape)]


def _check(node: MeasuredNode, source: HttpSource, result: LoadResult) -> None:
    """LoadError unless every event that was acknowledged is in the totals, once."""
    sent = result.requests_total * source.events_per_request
    url = f"http://127.0.0.1:{node.http_port}/v1/status"
    with urllib.request.urlopen(url, timeout=30) as reply:
        counted = int(json.load(reply)["statistics"]["stored"])
    if not sent == source.stored == counted:
        raise LoadError(f"{sent} events sent, {source.stored} acknowledged, {counted} counted")


def parse_cost(tape: JsonTape) -> list[Figure]:
    """Seconds of this process for one event: its JSON, and its frame."""
    from unimeter.server.web.api.ingest_json import columns_of, decode_events

    body = tape.body(0)

    def parse() -> v2.Columns:
        events, root = decode_events(body)
        return columns_of(events, root)

    columns = parse()
    shape = f"{len(body) // tape.batch} bytes"
    steps = (
        (f"HTTP: JSON of an event ({shape}), to columns", parse),
        ("HTTP: columns of an event, to a frame", lambda: v2.encode_columns(columns)),
    )
    figures = []
    for name, work in steps:
        moments = [time.perf_counter()]
        for _ in range(PARSE_ROUNDS):
            work()
            moments.append(time.perf_counter())
        best = sorted(after - before for before, after in pairwise(moments))[PARSE_ROUNDS // 2]
        figures.append(Figure(name, best / tape.batch, "s"))
    return figures
