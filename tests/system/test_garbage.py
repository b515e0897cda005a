"""Garbage on the socket: the node stays up, stays small, and nobody else notices.

One node takes all of it in turn, while a witness on a connection of its own stores
and reads the whole time: without retries, so that a single refused or late answer
of its own is seen. After every test the node must live, say nothing like a traceback,
have grown by less than RSS_GROWTH_BYTES_MAX, and the witness must have gone on.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.wire.examples import EXAMPLES

from unimeter import limits
from unimeter.demo.process import NodeProcess
from unimeter.types import AggType, Event, MetricSchema, from_ns
from unimeter.wire import v1, v2
from unimeter.wire.framer import ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import (
    ErrorCode,
    IngestRow,
    MetricDelete,
    MetricList,
    MetricPut,
    PacketType,
    Status,
    UsageQuery,
)

RSS_GROWTH_BYTES_MAX = 128 * 1024 * 1024
ANSWER_SECONDS_MAX = 20.0
WITNESS_SECONDS_MAX = 5.0  # a loaded machine with a slow disk; undisturbed it is milliseconds
CONNECTIONS = 10_000
CONNECTIONS_SECONDS_MAX = 90.0
SENDERS = 8
NOON = 1_772_366_400_000_000_000
DAY = 86_400 * 10**9
MAGIC = b"\x01\xee\xff\xc0"
HEADER = struct.Struct("<IBBHII")


class Line:
    """One connection that speaks bytes: no retries, no manners."""

    def __init__(self, node: NodeProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", node.port), ANSWER_SECONDS_MAX)
        self._framer = ResponseFramer()
        self._number = 0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def ask(self, version: int, kind: int, payload: bytes) -> ResponseFrame:
        """Send one request and wait for its answer."""
        self._number += 1
        self.socket.sendall(request_frame(version, kind, self._number, payload))
        frame = self.receive()
        assert frame is not None, "the node closed the connection"
        assert frame.request_id == self._number
        return frame

    def receive(self) -> ResponseFrame | None:
        """The next answer; None when the node closed the connection."""
        while (frame := self._framer.next_frame()) is None:
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._framer.receive_data(data)
        return frame

    def is_closed(self) -> bool:
        """Whether the node closes it without a word."""
        return self.receive() is None

    def check_usable(self) -> None:
        """Ask something sensible."""
        kind, payload = v1.encode_request(MetricList())
        assert self.ask(1, kind, payload).status == Status.OK


class Witness(threading.Thread):
    """A client that minds its own business and writes down whatever disturbs it."""

    account = 4242

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(daemon=True)
        self.line = Line(node)
        self.sent = 0
        self.slowest = 0.0
        self.trouble = ""
        self.must_stop = threading.Event()
        metric = MetricPut(MetricSchema("witnessed", AggType.COUNT))
        assert self.line.ask(2, *v2.encode_request(metric)).status == Status.OK

    def run(self) -> None:
        try:
            while not self.must_stop.is_set():
                began = time.monotonic()
                self.store()
                if self.sent % 100 == 0:
                    self.compare()
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.must_stop.wait(0.002)
        except Exception as error:
            self.trouble = repr(error)

    def store(self) -> None:
        at = from_ns(NOON)
        batch = [
            Event(self.account, "witnessed", timestamp=at, id=f"w{self.sent + i}")
            for i in range(10)
        ]
        payload = v2.encode_ingest(batch)
        frame = self.line.ask(2, PacketType.INGEST_SYNC, payload)
        reply = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)[1]
        assert reply.stored == 10, reply
        self.sent += 10

    def compare(self) -> None:
        kind, payload = v2.encode_request(
            UsageQuery(self.account, "witnessed", NOON - DAY, NOON + DAY)
        )
        frame = self.line.ask(2, kind, payload)
        reply = v2.decode_response(kind, frame.status, frame.payload)[1]
        assert reply.value.count == self.sent, reply

    def wait_for_progress(self) -> None:
        """Wait until it has stored something that was sent after this call."""
        goal = self.sent + 20
        give_up = time.monotonic() + ANSWER_SECONDS_MAX
        while self.sent < goal and not self.trouble:
            assert time.monotonic() < give_up, "the witness is not answered any more"
            time.sleep(0.005)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The node that takes all of it."""
    started = NodeProcess(tmp_path_factory.mktemp("garbage") / "node")
    started.start()
    yield started
    assert started.terminate() == 0, started.output.read_text()


@pytest.fixture(scope="module")
def witness(node: NodeProcess) -> Iterator[Witness]:
    """The client that must not notice."""
    started = Witness(node)
    started.start()
    yield started
    started.must_stop.set()
    started.join(ANSWER_SECONDS_MAX)
    with started.line:
        assert not started.trouble, started.trouble
        started.compare()
    assert started.slowest < WITNESS_SECONDS_MAX


@pytest.fixture(autouse=True)
def nobody_notices(node: NodeProcess, witness: Witness) -> Iterator[None]:
    """What must hold after every test."""
    witness.wait_for_progress()
    before = rss_bytes(node)
    yield
    witness.wait_for_progress()
    assert not witness.trouble, witness.trouble
    assert node.process is not None
    assert node.process.poll() is None, node.output.read_text()
    assert "Traceback" not in node.output.read_text()
    grown = rss_bytes(node) - before
    assert grown < RSS_GROWTH_BYTES_MAX, f"grew by {grown / 2**20:.0f} MiB"


def rss_bytes(node: NodeProcess) -> int:
    """Resident memory of the node's process."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def header(version: int, kind: int, length: int, request_id: int = 1) -> bytes:
    return HEADER.pack(0xC0FFEE01, version, kind, 0xFFFF, length, request_id)


def code_of(frame: ResponseFrame) -> ErrorCode:
    """Why a request of version 2 was refused."""
    assert frame.status != Status.OK
    return v2.decode_response(PacketType.USAGE_QUERY, frame.status, frame.payload)[1].code


def test_random_bytes_close_the_connection(node):
    draw = random.Random(1)
    for size in [1, 15, 16, 17, 100, 5000, 70_000] * 10:
        data = draw.randbytes(size)
        with Line(node) as line:
            line.socket.sendall(data)
            if size >= 16:
                assert line.is_closed()


def test_random_bytes_behind_the_magic_are_answered_or_closed(node):
    draw = random.Random(2)
    for _ in range(200):
        data = (
            MAGIC
            + bytes([draw.choice([1, 2, 2, 0, 3, 255])])
            + draw.randbytes(draw.randint(0, 300))
        )
        with Line(node) as line:
            line.socket.sendall(data)
            line.socket.shutdown(socket.SHUT_WR)
            while line.receive() is not None:
                pass


def test_frames_cut_anywhere_leave_nothing_behind(node):
    draw = random.Random(3)
    for example in EXAMPLES:
        frame = example.frame()
        for _ in range(4):
            with Line(node) as line:
                line.socket.sendall(frame[: draw.randrange(len(frame))])


def test_a_request_that_arrives_byte_by_byte_is_answered(node):
    kind, payload = v2.encode_request(MetricList())
    with Line(node) as line:
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request_frame(2, kind, 1, payload):
            line.socket.sendall(bytes([byte]))
        assert line.receive().status == Status.OK


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", [PacketType.INGEST_SYNC, PacketType.USAGE_QUERY, 0xEE])
def test_a_length_of_4_gib_reserves_nothing(node, version, kind):
    before = rss_bytes(node)
    lines = [Line(node) for _ in range(20)]
    for line in lines:
        line.socket.sendall(header(version, kind, 2**32 - 1) + bytes(1_000_000))
        assert line.receive().status == Status.ERROR
    assert rss_bytes(node) - before < 64 * 2**20
    for line in lines:
        line.socket.close()


def test_a_frame_over_the_limit_is_drained_and_the_connection_stays_usable(node):
    rows = [IngestRow(1, "witnessed", 1)] * (limits.EVENTS_PER_BATCH_MAX + 1)
    too_many = v1.encode_ingest(rows)
    with Line(node) as line:
        assert line.ask(1, PacketType.INGEST_ASYNC, too_many).status == Status.ERROR
        line.check_usable()
        too_long = bytes(limits.FRAME_BYTES_MAX + 1)
        frame = line.ask(2, PacketType.INGEST_ASYNC, too_long)
        assert code_of(frame) == ErrorCode.TOO_LARGE
        line.check_usable()
        frame = line.ask(2, PacketType.METRIC_PUT, too_long)
        assert code_of(frame) == ErrorCode.TOO_LARGE
        line.check_usable()


def test_counts_that_disagree_with_the_length_are_refused(node):
    payload = v1.encode_ingest([IngestRow(9, "witnessed", 1, NOON, properties=(("k", "v"),))] * 3)
    with Line(node) as line:
        for events, properties in ((2, 3), (4, 3), (3, 2), (3, 4), (0, 0), (2**32 - 1, 2**32 - 1)):
            wrong = struct.pack("<II", events, properties) + payload[8:]
            assert line.ask(1, PacketType.INGEST_SYNC, wrong).status == Status.ERROR
        assert line.ask(1, PacketType.INGEST_SYNC, payload[:-1]).status == Status.ERROR
        assert line.ask(1, PacketType.INGEST_SYNC, payload + b"\0").status == Status.ERROR
        assert line.ask(1, PacketType.INGEST_SYNC, b"").status == Status.ERROR
        kind, query = v2.encode_request(UsageQuery(9, "witnessed", NOON - DAY, NOON + DAY))
        reply = v2.decode_response(kind, 0, line.ask(2, kind, query).payload)[1]
        assert reply.value.count == 0, "nothing of a refused frame is counted"


def test_columns_that_disagree_with_the_length_are_refused(node):
    payload = v2.encode_ingest([Event("a", "witnessed", properties={"k": "v"}, id="i")] * 3)
    draw = random.Random(4)
    with Line(node) as line:
        for cut in range(len(payload)):
            frame = line.ask(2, PacketType.INGEST_SYNC, payload[:cut])
            assert code_of(frame) == ErrorCode.MALFORMED
        for _ in range(300):
            changed = bytearray(payload)
            changed[draw.randrange(24, len(payload))] = draw.randrange(256)
            assert line.ask(2, PacketType.INGEST_SYNC, bytes(changed)).status <= Status.ERROR
        line.check_usable()


def test_text_that_is_not_utf8_is_refused(node):
    bad = b"\xff\xfe"
    with Line(node) as line:
        assert line.ask(1, PacketType.METRIC_DELETE, bad.ljust(64, b"\0")).status == Status.ERROR
        assert code_of(line.ask(2, PacketType.METRIC_DELETE, b"\x02" + bad)) == ErrorCode.MALFORMED
        payload = bytearray(v1.encode_ingest([IngestRow(1, "witnessed", 1)] * 2))
        payload[8:16] = bad * 4
        frame = line.ask(1, PacketType.INGEST_SYNC, bytes(payload))
        assert v1.decode_response(PacketType.INGEST_SYNC, 0, frame.payload)[1].stored == 1
        _, delete = v1.encode_request(MetricDelete("nothing"))
        assert line.ask(1, PacketType.METRIC_DELETE, delete).status == Status.ERROR
        line.check_usable()


def test_every_packet_type_that_there_is_not_is_answered(node):
    known = {int(kind) for kind in PacketType}
    with Line(node) as line:
        for version in (1, 2):
            for kind in range(256):
                if kind in known:
                    continue
                frame = line.ask(version, kind, b"anything")
                assert frame.status == Status.ERROR
                if version == 2:
                    assert code_of(frame) == ErrorCode.UNSUPPORTED
        line.check_usable()


def test_a_version_that_there_is_not_is_answered_or_closed(node):
    for version in (0, 3, 255):
        with Line(node) as line:
            line.socket.sendall(request_frame(1, 0x22, 1, b"")[:4] + bytes([version]) + bytes(11))
            line.socket.shutdown(socket.SHUT_WR)
            frame = line.receive()
            assert frame is None or frame.status == Status.ERROR


def test_damaged_requests_of_every_type_are_answered(node):
    draw = random.Random(5)
    requests = [each for each in EXAMPLES if each.direction == "request" and each.encode()]
    with Line(node) as line:
        for example in requests:
            for _ in range(20):
                payload = bytearray(example.encode())
                payload[draw.randrange(len(payload))] = draw.randrange(256)
                if example.packet_type == PacketType.ALERT_PUSH_ENABLE:
                    payload = payload[:-1]  # a subscription of this line would push in between
                frame = line.ask(example.version, example.packet_type, bytes(payload))
                assert frame.status in list(Status), "BACKPRESSURE: a position far ahead"
        line.check_usable()


@pytest.mark.parametrize("payload", [v1.encode_ingest([]), v2.encode_ingest([])])
def test_an_empty_batch_is_answered(node, payload):
    with Line(node) as line:
        frame = line.ask(1 if len(payload) == 8 else 2, PacketType.INGEST_SYNC, payload)
        assert frame.status == Status.OK


def test_many_announced_frames_that_never_come_take_little_memory(node):
    before = rss_bytes(node)
    lines = [Line(node) for _ in range(60)]
    for line in lines:
        line.socket.sendall(header(2, PacketType.INGEST_SYNC, limits.FRAME_BYTES_MAX))
        line.socket.sendall(bytes(32_768))
    assert rss_bytes(node) - before < 64 * 2**20
    for line in lines:
        line.socket.close()


def test_ten_thousand_connections_opened_and_dropped(node, witness):
    began = time.monotonic()
    half = request_frame(1, PacketType.INGEST_SYNC, 1, v1.encode_ingest([IngestRow(1, "x", 1)]))
    opening = (b"", b"\x01", half[:20], half, b"GET / HTTP/1.1\r\n\r\n", MAGIC + bytes(60))

    def drop(share: int) -> None:
        for number in range(share, CONNECTIONS, SENDERS):
            with socket.create_connection(("127.0.0.1", node.port), ANSWER_SECONDS_MAX) as each:
                data = opening[number % len(opening)]
                if data:
                    each.sendall(data)
                if number % 2:
                    # Close with a reset, as a process that dies does.
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(drop, range(SENDERS)))
    assert time.monotonic() - began < CONNECTIONS_SECONDS_MAX
    with Line(node) as line:
        line.check_usable()


def test_hundreds_of_idle_connections_disturb_nobody(node):
    lines = [Line(node) for _ in range(500)]
    for line in lines[::50]:
        line.check_usable()
    for line in lines:
        line.socket.close()


HTTP_GARBAGE = [
    b"\xff" * 100_000,
    b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
    b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/9.9\r\n\r\n",
    b"POST /health HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 100_000,
    b"\r\n" * 1000,
    MAGIC + bytes(100),
]


def test_garbage_on_the_http_port_is_refused(node):
    waiting = [socket.create_connection(("127.0.0.1", node.http_port)) for _ in range(200)]
    for each in waiting:
        each.sendall(b"GET /hea")
    for data in HTTP_GARBAGE:
        with socket.create_connection(("127.0.0.1", node.http_port), ANSWER_SECONDS_MAX) as line:
            assert not http_answer(line, data).startswith(b"HTTP/1.1 200")
    with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/health", timeout=5) as answer:
        assert answer.status == 200
    for each in waiting:
        each.close()


def http_answer(line: socket.socket, data: bytes) -> bytes:
    """All that comes back; the node may close while it is still being written to."""
    found = b""
    try:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        while piece := line.recv(65_536):
            found += piece
    except (ConnectionResetError, BrokenPipeError):
        pass
    except OSError as error:
        assert error.errno == errno.ENOTCONN, error
    return found
