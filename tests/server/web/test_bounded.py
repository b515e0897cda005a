"""A stream costs what one batch costs, however long it is, and holds up nobody else."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import zstandard

from unimeter.bench.node import MeasuredNode

pytestmark = pytest.mark.slow

NDJSON = "application/x-ndjson"
LINE = b'{"account":%d,"metric":"api_calls","value":1}'
HEAD = b"account,metric,value\n"
ROW = b"%d,api_calls,1"
PADDING = b" " * 8_000 + b"\n"
PIECE_LINES = 100
GROWTH_BYTES_MAX = 16 * 1024 * 1024


def pieces(kind: str, megabytes: int, padding: bytes) -> Iterator[bytes]:
    """A body of that length, never whole in memory."""
    line, head = (LINE, b"") if kind == NDJSON else (ROW, HEAD)
    piece = b"".join(line % (number % 50) + b"\n" + padding for number in range(PIECE_LINES))
    yield head
    for _ in range(megabytes * 1024 * 1024 // len(piece)):
        yield piece


@pytest.fixture
def node(tmp_path: Path) -> Iterator[MeasuredNode]:
    """A node in a process of its own, so that its memory is only its own."""
    with MeasuredNode(tmp_path / "data", {"snapshot_log_bytes": str(2**40)}) as found:
        reply = httpx.post(
            f"http://127.0.0.1:{found.http_port}/v1/metrics",
            json={"code": "api_calls", "type": "sum"},
        )
        assert reply.status_code == 201, reply.text
        yield found


def send(node: MeasuredNode, kind: str, megabytes: int, padding: bytes = b"") -> int:
    """Send a stream; how many events were stored."""
    reply = httpx.post(
        f"http://127.0.0.1:{node.http_port}/v1/events",
        content=pieces(kind, megabytes, padding),
        headers={"Content-Type": kind},
        timeout=120,
    )
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["refused"] == found["duplicates"] == 0
    return int(found["stored"])


@pytest.mark.parametrize("kind", [NDJSON, "text/csv"])
def test_a_long_stream_does_not_grow_memory(node: MeasuredNode, kind: str) -> None:
    """It is mostly blank lines: the log, and what the node keeps of it in memory, stay small,
    so what could grow is the body."""
    send(node, kind, 4, PADDING)
    before = node.resident_bytes()
    peak, ended = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, node.resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        stored = send(node, kind, 96, PADDING)
    finally:
        ended.set()
        watcher.join()
    assert stored > 10_000
    assert peak - before < GROWTH_BYTES_MAX, f"{(peak - before) / 2**20:.0f} MiB for 96 MiB"


@pytest.mark.parametrize("kind", [NDJSON, "text/csv"])
def test_a_line_without_end_is_not_kept(node: MeasuredNode, kind: str) -> None:
    send(node, kind, 4, PADDING)
    before = node.resident_bytes()
    reply = httpx.post(
        f"http://127.0.0.1:{node.http_port}/v1/events",
        content=(b"x" * 2**16 for _ in range(1024)),
        headers={"Content-Type": kind},
        timeout=60,
    )
    assert reply.status_code == 413 and reply.json()["errors"][0]["path"] == "line 1"
    assert node.resident_bytes() - before < GROWTH_BYTES_MAX


def test_others_are_answered_while_a_stream_goes_on(node: MeasuredNode) -> None:
    sender = threading.Thread(target=send, args=(node, NDJSON, 12))
    sender.start()
    slowest, asked = 0.0, 0
    with httpx.Client(base_url=f"http://127.0.0.1:{node.http_port}", timeout=30) as http:
        while sender.is_alive():
            reply = http.get("/v1/totals", params={"account": 1, "metric": "api_calls"})
            assert reply.status_code == 200
            slowest, asked = max(slowest, reply.elapsed.total_seconds()), asked + 1
    sender.join()
    assert asked > 5 and slowest < 1.0, f"{asked} asked, the slowest took {slowest:.3f} s"


@pytest.mark.parametrize("kind", ["application/json", NDJSON])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_costs_what_it_is_allowed_to_become(
    node: MeasuredNode, coding: str, kind: str
) -> None:
    """Half a gigabyte of spaces, in one to five hundred kilobytes."""
    size = 512 * 1024 * 1024
    if coding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(size >> 20)) + packer.flush()
    else:
        bomb = zstandard.ZstdCompressor().compress(bytes(size))
    assert len(bomb) < 600_000
    send(node, NDJSON, 4, PADDING)
    before, peak, ended = node.resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, node.resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        reply = httpx.post(
            f"http://127.0.0.1:{node.http_port}/v1/events",
            content=bomb,
            headers={"Content-Type": kind, "Content-Encoding": coding},
            timeout=60,
        )
    finally:
        ended.set()
        watcher.join()
    assert reply.status_code == 413, reply.text[:300]
    assert peak - before < 96 * 1024 * 1024, f"{(peak - before) >> 20} MiB"
