"""64 connections, SIGKILL, restart: every acknowledged event is there, once.

Two senders are tried. Raw v1 frames have neither ids nor sessions, so here the
test itself is the careful client: it keeps what was acknowledged, and sends
everything again after the restart. The SDK gets no help at all: events without
ids, and calls that are under way when the node dies must still count once.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from unimeter import AggType, Client, Event, MetricSchema, Period
from unimeter.bench.frames import (
    INGEST_REPLY_BYTES,
    METRICS,
    encode_ingest,
    encode_metric_put,
    encode_query,
)
from unimeter.bench.node import MeasuredNode, receive_exactly, request
from unimeter.storage.verify import verify

CONNECTIONS = 64
KILLS = 3
DEPTH = 4  # frames in flight on each connection
BATCH = 10
START = datetime(2026, 3, 1, tzinfo=timezone.utc)
START_NS = int(START.timestamp()) * 10**9
DAY_NS = 86_400 * 10**9
MONTH = Period(START, START + timedelta(days=30))


class Progress:
    """Counts acknowledgements of all threads; waits for a number, never for a time."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def add(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, timeout=100), self.count


@pytest.fixture
def node(tmp_path: Path) -> Iterator[MeasuredNode]:
    with MeasuredNode(tmp_path / "data", {"segment_bytes": "1MiB"}) as started:
        yield started


# --- raw v1 frames -------------------------------------------------------------------------


@dataclass
class RawSender:
    """One connection with an account of its own; frame n holds the events of batch n."""

    account: int
    sent: int = 0
    acknowledged: int = 0
    frames: dict[int, bytes] = field(default_factory=dict)

    def frame(self, number: int) -> bytes:
        events = [
            (self.account, METRICS[1].code, START_NS + (number * BATCH + place) * 1000, 3)
            for place in range(BATCH)
        ]
        return self.frames.setdefault(number, encode_ingest(events, request_id=number + 1))

    def send_until_cut(self, node: MeasuredNode, progress: Progress) -> None:
        """Keep DEPTH frames in flight until the node dies."""
        with node.connect() as sock:
            try:
                self.sent = self.acknowledged  # what was in flight is sent again first
                while True:
                    while self.sent - self.acknowledged < DEPTH:
                        frame = self.frame(self.sent)
                        self.sent += 1
                        sock.sendall(frame)
                    self._receive(sock)
                    progress.add()
            except OSError:
                return

    def _receive(self, sock: socket.socket) -> None:
        reply = receive_exactly(sock, INGEST_REPLY_BYTES)
        status, request_id, _, stored, duplicates, _ = struct.unpack("<B3xIIIIQ", reply)
        assert request_id == self.acknowledged + 1, "replies on one connection come in order here"
        assert status in (0, 1), f"status {status}"
        assert stored + duplicates == BATCH
        self.acknowledged += 1

    def send_again(self, sock: socket.socket) -> None:
        """Send every frame ever made; what was acknowledged must be a duplicate."""
        frames = [frame for _, frame in sorted(self.frames.items())]
        sock.sendall(b"".join(frames))
        for number in range(len(frames)):
            reply = receive_exactly(sock, INGEST_REPLY_BYTES)
            status, request_id, _, stored, duplicates, _ = struct.unpack("<B3xIIIIQ", reply)
            assert request_id == number + 1
            assert stored + duplicates == BATCH
            assert status == (0 if stored else 1)
            if number < self.acknowledged:
                assert stored == 0, f"batch {number} was acknowledged and lost"

    def total(self, sock: socket.socket) -> tuple[int, int]:
        frame = encode_query(self.account, METRICS[1].code, START_NS, START_NS + 30 * DAY_NS, 1)
        status, payload = request(sock, frame)
        assert status == 0
        low, high, count = struct.unpack_from("<QQQ", payload)
        return low | high << 64, count


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_raw_frames_acknowledged_before_a_kill_are_counted_once(node: MeasuredNode) -> None:
    with node.connect() as sock:
        assert request(sock, encode_metric_put(METRICS[1]))[0] == 0
    senders = [RawSender(account) for account in range(1, CONNECTIONS + 1)]
    pace = random.Random(11)
    for _ in range(KILLS):
        run_until_killed(node, senders, acknowledgements=pace.randrange(500, 3000))
        node.start()
        with node.connect() as sock:
            for sender in senders:
                check_between(sender, *sender.total(sock))
    with node.connect() as sock:
        for sender in senders:
            sender.send_again(sock)
            assert sender.total(sock) == (
                3 * BATCH * len(sender.frames),
                BATCH * len(sender.frames),
            )
    assert sum(sender.acknowledged for sender in senders) > CONNECTIONS
    assert node.terminate() == 0
    report = verify(str(node.directory))
    assert report.problems == []
    assert report.events == sum(BATCH * len(sender.frames) for sender in senders)


def run_until_killed(node: MeasuredNode, senders: list[RawSender], acknowledgements: int) -> None:
    """All connections send at once; SIGKILL after so many acknowledgements."""
    progress = Progress()
    threads = [
        threading.Thread(target=sender.send_until_cut, args=(node, progress)) for sender in senders
    ]
    for thread in threads:
        thread.start()
    try:
        progress.wait_for(acknowledgements)
    finally:
        node.kill()
        for thread in threads:
            thread.join()


def check_between(sender: RawSender, total: int, count: int) -> None:
    """Acknowledged events are all there; of those in flight any number, each once."""
    assert total == 3 * count
    assert BATCH * sender.acknowledged <= count <= BATCH * len(sender.frames)


# --- the SDK -------------------------------------------------------------------------------

SDK_BATCHES = 40


class SdkSender(threading.Thread):
    """A client with an account of its own that is told nothing of the kills."""

    def __init__(
        self, address: str, account: str, progress: Progress, connected: threading.Barrier
    ) -> None:
        super().__init__()
        self.connected = connected
        self.address, self.account, self.progress = address, account, progress
        self.acknowledged = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client([self.address]) as client:
                self.connected.wait(60.0)
                for _ in range(SDK_BATCHES):
                    # No ids, and all events of an account alike: only the session tells a resend.
                    result = client.ingest(
                        [Event(self.account, "credits", 7, START) for _ in range(BATCH)],
                        timeout=90.0,
                    )
                    assert result.n_refused == 0, result.refusals
                    self.acknowledged += result.n_stored + result.n_duplicates
                    self.progress.add()
        except BaseException as error:
            self.failure = error


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sdk_calls_under_way_at_a_kill_count_once(node: MeasuredNode) -> None:
    with Client([node.address]) as client:
        client.metrics.create(MetricSchema("credits", AggType.SUM))
    progress = Progress()
    connected = threading.Barrier(CONNECTIONS)
    senders = [
        SdkSender(node.address, f"team-{n}", progress, connected) for n in range(CONNECTIONS)
    ]
    for sender in senders:
        sender.start()
    try:
        for kill in range(1, KILLS + 1):
            progress.wait_for(CONNECTIONS * SDK_BATCHES * kill // (KILLS + 1))
            node.kill()
            node.start()
    finally:
        for sender in senders:
            sender.join()
    assert [sender.failure for sender in senders if sender.failure] == []
    with Client([node.address]) as client:
        for sender in senders:
            assert sender.acknowledged == SDK_BATCHES * BATCH
            value = client.query(sender.account, "credits", MONTH).value
            assert (value.count, value.sum) == (SDK_BATCHES * BATCH, 7 * SDK_BATCHES * BATCH)
    assert node.terminate() == 0
    report = verify(str(node.directory))
    assert report.problems == []
    assert report.events == CONNECTIONS * SDK_BATCHES * BATCH
