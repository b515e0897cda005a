"""The load generator: keep `depth` requests in flight on each connection.

A closed loop over epoll and non-blocking sockets, in the one thread of the
process that runs it. Requests come from a `Source` as ready bytes, many per
send where the depth allows; replies are counted, not decoded, many per
receive. So a turn costs two system calls and a few hundred nanoseconds of
Python per connection, however many events it carries.

    take frames ──send──▶ node
         ▲                  │
         └──count replies◀──┘      acknowledged += replies, in flight -= replies

What it refuses to do: reconnect or retry. A closed connection, a reply that is
not a success or a stalled server ends the run with `LoadError`, since figures
from a failing run mean nothing. Sockets are registered once, edge triggered;
a receive that fills its buffer is repeated so that no edge is lost.

The latency sample follows the first connection only, first in first out.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

from unimeter.bench.frames import INGEST_REPLY_BYTES, RESPONSE_HEADER, Tape

RECEIVE_BYTES: Final = 1 << 16
STALL_SECONDS: Final = 30.0  # no reply at all for this long: give up
DRAIN_SECONDS: Final = 30.0


class LoadError(Exception):
    """The server answered with something else than success, or not at all."""


class Source(Protocol):
    """Where requests come from and how their replies are told apart."""

    events_per_request: int

    def take(self, requests: int) -> tuple[memoryview, int]:
        """Bytes of up to `requests` whole requests, and how many; 0 at the end of the source."""
        ...

    def count(self, data: memoryview) -> tuple[int, int]:
        """(whole replies at the start of `data`, their bytes); raise LoadError on a bad one."""
        ...


class IngestSource:
    """v1 ingest frames from a tape; adds up what the replies say was stored."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.events_per_request = tape.batch
        self.stored = 0
        self.duplicates = 0

    def take(self, requests: int) -> tuple[memoryview, int]:
        """Frames of the tape."""
        return self.tape.take(requests)

    def count(self, data: memoryview) -> tuple[int, int]:
        """Check that every reply is status 0 of 16 payload bytes; add its counts."""
        replies = len(data) // INGEST_REPLY_BYTES
        used = replies * INGEST_REPLY_BYTES
        words = data[:used].cast("I")
        # Every status including that of an unfinished reply: a refusal may be short, and last.
        if any(data[0::INGEST_REPLY_BYTES]) or words[2::7].tolist().count(16) != replies:
            raise LoadError(_describe_reply(bytes(data)))
        self.stored += sum(words[3::7])
        self.duplicates += sum(words[4::7])
        return replies, used


def _describe_reply(data: bytes) -> str:
    """The first reply in `data` that is not a plain ingest success, in words."""
    while len(data) >= RESPONSE_HEADER.size:
        status, request_id, length = RESPONSE_HEADER.unpack_from(data)
        if status or length != 16:
            text = data[RESPONSE_HEADER.size :][:length]
            return f"request {request_id} got status {status} and {length} bytes {text[:200]!r}"
        data = data[RESPONSE_HEADER.size + length :]
    return f"got status {data[0]}: {data[:64]!r}" if data else "replies out of step"


@dataclass
class LoadResult:
    """What one run sent, got acknowledged and took."""

    connections: int
    depth: int
    requests: int  # acknowledged inside the measured time
    events: int
    seconds: float
    requests_total: int  # acknowledged with warm-up and drain: what the node must hold
    client_cpu_seconds: float
    latencies: list[float] = field(default_factory=list)  # seconds, of the first connection

    @property
    def events_per_second(self) -> float:
        """Acknowledged events per second of the measured time."""
        return self.events / self.seconds

    @property
    def requests_per_second(self) -> float:
        """Acknowledged requests per second of the measured time."""
        return self.requests / self.seconds

    def percentile(self, share: float) -> float:
        """The latency sample's `share` quantile in seconds; 0 without a sample."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class _Connection:
    """One socket: what is unsent, what is in flight, the head of a reply."""

    __slots__ = ("inflight", "sample", "sock", "tail", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inflight = 0
        self.unsent: memoryview | None = None
        self.tail = b""
        self.sample: deque[float] | None = None


class Load:
    """Drives one source over many connections."""

    def __init__(self, source: Source, addresses: list[socket.socket], depth: int) -> None:
        self.source = source
        self.depth = depth
        self.acknowledged = 0
        self.latencies: list[float] = []
        self._sending = True
        self._receive = memoryview(bytearray(RECEIVE_BYTES))
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        for sock in addresses:
            sock.setblocking(False)
            self._connections[sock.fileno()] = _Connection(sock)
            flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
            self._poll.register(sock.fileno(), flags)
        next(iter(self._connections.values())).sample = deque()

    def run(self, seconds: float, warm_up: float = 0.0, requests_max: int = 0) -> LoadResult:
        """Load for `seconds` after `warm_up`, or until the source ends or `requests_max`."""
        gc.disable()
        try:
            self._turns_until(time.perf_counter() + warm_up, requests_max)
            self.latencies.clear()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            before = self.acknowledged
            self._turns_until(begin + seconds, requests_max)
            if not self._sending:  # the source ended: the time is that of all of it
                self._drain()
            elapsed = time.perf_counter() - begin
            cpu = time.process_time() - begin_cpu
            measured = self.acknowledged - before
            latencies = list(self.latencies)
            self._drain()
        finally:
            gc.enable()
        return LoadResult(
            connections=len(self._connections),
            depth=self.depth,
            requests=measured,
            events=measured * self.source.events_per_request,
            seconds=elapsed,
            requests_total=self.acknowledged,
            client_cpu_seconds=cpu,
            latencies=latencies,
        )

    def _turns_until(self, deadline: float, requests_max: int) -> None:
        while time.perf_counter() < deadline:
            if not self._sending or (requests_max and self.acknowledged >= requests_max):
                return
            self._turn()

    def _drain(self) -> None:
        self._sending = False
        deadline = time.perf_counter() + DRAIN_SECONDS
        while any(c.inflight for c in self._connections.values()):
            if time.perf_counter() > deadline:
                raise LoadError("the server did not answer everything before the deadline")
            self._turn()

    def _turn(self) -> None:
        ready = self._poll.poll(STALL_SECONDS)
        if not ready:
            raise LoadError(f"no reply for {STALL_SECONDS:.0f} s")
        connections = self._connections
        for descriptor, events in ready:
            connection = connections[descriptor]
            if events & (select.EPOLLHUP | select.EPOLLERR):
                raise LoadError("the server closed a connection")
            if events & select.EPOLLIN:
                self._read(connection)
            if connection.unsent is not None:
                self._send(connection, connection.unsent)
            if self._sending:
                self._refill(connection)

    def _read(self, connection: _Connection) -> None:
        while True:
            tail = connection.tail
            room = self._receive[len(tail) :]
            try:
                received = connection.sock.recv_into(room)
            except BlockingIOError:
                return
            if received == 0:
                raise LoadError("the server closed a connection")
            self._receive[: len(tail)] = tail
            filled = len(tail) + received
            replies, used = self.source.count(self._receive[:filled])
            connection.tail = bytes(self._receive[used:filled]) if used < filled else b""
            self.acknowledged += replies
            connection.inflight -= replies
            if connection.sample is not None:
                self._note_latency(connection.sample, replies)
            if received < len(room):
                return

    def _note_latency(self, sample: deque[float], replies: int) -> None:
        now = time.perf_counter()
        for _ in range(replies):
            self.latencies.append(now - sample.popleft())

    def _refill(self, connection: _Connection) -> None:
        while connection.unsent is None and connection.inflight < self.depth:
            data, requests = self.source.take(self.depth - connection.inflight)
            if not requests:
                self._sending = False
                return
            connection.inflight += requests
            if connection.sample is not None:
                connection.sample.extend([time.perf_counter()] * requests)
            self._send(connection, data)

    def _send(self, connection: _Connection, data: memoryview) -> None:
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            connection.unsent = None
        else:
            # The tape rewrites its frames a lap later, so what waits must be a copy.
            connection.unsent = memoryview(bytes(data[sent:]))

    def close(self) -> None:
        """Close every socket."""
        self._poll.close()
        for connection in self._connections.values():
            connection.sock.close()


def connect(address: tuple[str, int], count: int) -> list[socket.socket]:
    """`count` TCP connections that send small frames at once."""
    sockets = []
    for _ in range(count):
        sock = socket.create_connection(address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
    return sockets


def run_load(
    source: Source,
    sockets: list[socket.socket],
    depth: int,
    seconds: float,
    warm_up: float = 0.0,
    requests_max: int = 0,
) -> LoadResult:
    """One whole run: connect before, close after."""
    load = Load(source, sockets, depth)
    try:
        return load.run(seconds, warm_up, requests_max)
    finally:
        load.close()
