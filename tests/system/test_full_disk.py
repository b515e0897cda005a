"""A full disk is told as backpressure, loses nothing, and is left when space is freed.

The disk is a small tmpfs, which only root can mount; without that the tests are
skipped with a line that says so. Two ways to run out: the node's own reserve
(`disk_free_bytes_min`) is reached, and space vanishes under a node that keeps
no reserve, so that a write itself fails with ENOSPC.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unimeter.bench.frames import METRICS, Tape, encode_metric_put, encode_query, shuffled_pairs
from unimeter.bench.node import MeasuredNode, request
from unimeter.storage.verify import verify

DISK_BYTES = 48 * 2**20
STATUS_BACKPRESSURE = 6
WAIT_SECONDS = 60.0
DAY_NS = 86_400 * 10**9
START_NS = 20_500 * DAY_NS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of DISK_BYTES; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"can't mount a small tmpfs here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


class OneByOne:
    """Sends one batch at a time and knows exactly what was acknowledged."""

    def __init__(self, node: MeasuredNode) -> None:
        self.node = node
        self.tape = Tape(shuffled_pairs(200, len(METRICS)), 500, first_ns=START_NS)
        self.acknowledged = 0
        self.sock = node.connect()

    def send(self) -> bool:
        """One new batch; False if the node asks to wait."""
        frame, _ = self.tape.take(1)
        status, payload = request(self.sock, bytes(frame))
        if status == STATUS_BACKPRESSURE:
            return False
        assert status == 0, f"status {status}: {payload!r}"
        stored, duplicates, _ = struct.unpack("<IIQ", payload)
        assert (stored, duplicates) == (500, 0)
        self.acknowledged += stored
        return True

    def send_until_refused(self) -> None:
        batches_max = 2 * DISK_BYTES // (500 * 32)
        assert any(not self.send() for _ in range(batches_max)), "the disk never became full"

    def send_until_taken(self) -> None:
        """Repeat until the node takes a batch again; it looks for space a few times a second."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.send():
            assert time.monotonic() < deadline, "space was freed, but nothing is taken"
            time.sleep(0.05)  # the reply asked for it

    def counted(self) -> int:
        """Events in the totals of all accounts."""
        total = 0
        for account in range(1, 201):
            for metric in METRICS:
                frame = encode_query(account, metric.code, START_NS, START_NS + DAY_NS, 9)
                status, payload = request(self.sock, frame)
                assert status == 0
                total += struct.unpack_from("<QQQ", payload)[2]
        return total

    def reconnect(self) -> None:
        self.sock.close()
        self.sock = self.node.connect()


def options(reserve: str) -> dict[str, str]:
    return {"segment_bytes": "2MiB", "disk_free_bytes_min": reserve}


@pytest.fixture(params=["8MiB", "0"], ids=["reserve reached", "write fails"])
def sender(request: pytest.FixtureRequest, small_disk: Path) -> Iterator[OneByOne]:
    with MeasuredNode(small_disk / "data", options(request.param)) as node:
        started = OneByOne(node)
        for metric in METRICS:
            frame = encode_metric_put(metric)
            started.sock.sendall(frame)
            assert started.sock.recv(4096)[0] == 0
        yield started
        started.sock.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_full_disk_asks_to_wait_loses_nothing_and_goes_on(
    sender: OneByOne, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(20 * 2**20))
    sender.send_until_refused()
    assert sender.acknowledged > 0
    assert sender.counted() == sender.acknowledged, "totals stay readable, and refused is refused"

    ballast.unlink()
    before = sender.acknowledged
    sender.send_until_taken()
    for _ in range(20):
        assert sender.send()
    assert sender.acknowledged == before + 21 * 500
    assert sender.counted() == sender.acknowledged


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_node_killed_on_a_full_disk_comes_back_with_everything(
    sender: OneByOne, small_disk: Path
) -> None:
    node, ballast = sender.node, small_disk / "ballast"
    ballast.write_bytes(bytes(20 * 2**20))
    sender.send_until_refused()
    node.kill()
    ballast.unlink()
    node.start()
    sender.reconnect()
    assert sender.counted() == sender.acknowledged
    sender.send_until_taken()
    assert node.terminate() == 0
    report = verify(str(node.directory))
    assert report.problems == []
    assert report.events == sender.acknowledged
