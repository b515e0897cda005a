"""A server that speaks version 2 and fails on command.

Owns a socket, a thread per connection, and a meter that is as small as it can
be: it counts events by (account, metric), remembers the reply of every
(session, sequence), and notes everything that came. It keeps the promise the
SDK relies on (a repeated sequence is answered from memory) and checks the one
the SDK makes (a repeated sequence has the same bytes).

Faults are a list of actions, taken one per matching request:

    "drop"        carry the request out, then close without a reply
    "refuse"      close without carrying it out
    "silent"      carry it out, never reply
    "twice"       reply two times
    ErrorReply    answer with it, carry nothing out
    callable      called with the request, before the reply
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unimeter.types import PARTITION_COUNT, AggValue, Direction, MetricSchema, Outcome
from unimeter.wire import v2
from unimeter.wire.failures import status_of
from unimeter.wire.framer import parse_request_header, push_frame, response_frame
from unimeter.wire.messages import (
    AlertPush,
    AlertPushEnable,
    AlertPushReply,
    AlertRow,
    AlertsList,
    AlertsListReply,
    ClusterStatus,
    ClusterStatusReply,
    Done,
    ErrorCode,
    ErrorReply,
    EventsList,
    EventsListReply,
    Hello,
    HelloReply,
    Ingest,
    IngestReply,
    MetricDelete,
    MetricList,
    MetricListReply,
    MetricPut,
    NodeRole,
    NodeStatus,
    PacketType,
    PartitionMap,
    PartitionMapReply,
    PartitionRoute,
    TransferLeader,
    UsageQuery,
    UsageRealtime,
    UsageReply,
)

INGESTS = (PacketType.INGEST_ASYNC, PacketType.INGEST_SYNC)


@dataclass
class Memory:
    """What outlives a restart of the fake server."""

    totals: dict[tuple[int | str, str], int] = field(default_factory=dict)
    replies: dict[tuple[int, int, int], tuple[bytes, IngestReply]] = field(default_factory=dict)
    metrics: dict[str, MetricSchema] = field(default_factory=dict)
    alerts: list[AlertRow] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    position: int = 0
    faults: list[object] = field(default_factory=list)  # taken by ingests
    read_faults: list[object] = field(default_factory=list)  # taken by all else but greetings
    requests: list[tuple[int, object]] = field(default_factory=list)  # (packet type, request)
    broken: list[str] = field(default_factory=list)  # promises the client broke
    cluster_id: bytes = b"A" * 16
    page: int = 2
    window_seen: int = 0
    hold: threading.Event | None = None  # ingests wait for it
    batch_max: int = 8192
    push_times: int = 1  # 2: a server that repeats itself
    lock: threading.Condition = field(default_factory=threading.Condition)


class FakeServer:
    """The server; use it in a `with`."""

    def __init__(self, memory: Memory | None = None, port: int = 0) -> None:
        self.memory = memory or Memory()
        self.lock = self.memory.lock
        self.leader: str | None = None  # whom this node names; None: a name nobody can resolve
        self.members: list[str] = []  # of its cluster
        self.knows_leader = True  # if not, batches and changes are answered NOT_LEADER
        self.thawed = threading.Event()  # cleared: like a stopped process, all is silence
        self.thawed.set()
        self.map_askers: list[socket.socket] = []
        self.seen: list[object] = []  # requests that came to this node
        self.connections: list[socket.socket] = []
        self.subscribers: list[tuple[socket.socket, AlertPushEnable]] = []
        self.accepted = 0
        self._in_flight: dict[tuple[int, int], set[int]] = {}
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything, as a killed process does."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.thawed.set()
        self.drop_connections()
        self._thread.join()

    def drop_connections(self) -> None:
        with self.lock:
            connections, self.connections = self.connections, []
            self.subscribers = []
            self.map_askers = []
        for connection in connections:
            _shut(connection)

    def total(self, account: int | str = 1, metric: str = "m") -> int:
        return self.memory.totals.get((account, metric), 0)

    def ingests(self) -> list[Ingest]:
        return [r for kind, r in self.memory.requests if kind in INGESTS]  # type: ignore[misc]

    def enabled_after(self) -> list[int | None]:
        """Where each subscription that came asked to begin."""
        found = [r for _, r in self.memory.requests if isinstance(r, AlertPushEnable)]
        return [request.after for request in found]

    def alert(self, account: int | str = 1, metric: str = "m") -> AlertRow:
        """Let an alert happen; subscribers get it pushed."""
        with self.lock:
            position = len(self.memory.alerts) + 1
            row = AlertRow(position * 10, account, metric, "t", 5, 10**18, position,
                           Direction.RISING, 10**18)  # fmt: skip
            self.memory.alerts.append(row)
            for connection, request in list(self.subscribers):
                self._push(connection, request, row)
        return row

    def push_map(self) -> None:
        """Tell everyone who asked for the map what it is now."""
        kind, payload = v2.encode_push(self._map(), self.memory.position)
        with self.lock:
            for connection in list(self.map_askers):
                _send_all(connection, push_frame(2, kind, payload))

    def _map(self) -> PartitionMapReply:
        if self.leader is None:
            return PartitionMapReply([PartitionRoute("node.invalid:7001")] * PARTITION_COUNT)
        leader = self.leader if self.knows_leader else ""
        return PartitionMapReply([PartitionRoute(leader, self.members)] * PARTITION_COUNT)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until something was seen by the server."""
        with self.lock:
            assert self.lock.wait_for(condition, seconds), "the server never saw it"

    # --- sockets -------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.connections.append(connection)
                self.lock.notify_all()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = bytearray()
        workers = []
        try:
            while chunk := connection.recv(1 << 16):
                data += chunk
                while (header := parse_request_header(data)) is not None:
                    if len(data) < 16 + header.length:
                        break
                    payload = bytes(data[16 : 16 + header.length])
                    del data[: 16 + header.length]
                    arguments = (connection, header.packet_type, header.request_id, payload)
                    if self.memory.hold is not None and header.packet_type in INGESTS:
                        worker = threading.Thread(target=self._handle, args=arguments, daemon=True)
                        worker.start()
                        workers.append(worker)
                    else:
                        self._handle(*arguments)
        except OSError:
            pass
        finally:
            for worker in workers:
                worker.join(10)
            connection.close()

    def _handle(
        self, connection: socket.socket, kind: int, request_id: int, payload: bytes
    ) -> None:
        self.thawed.wait()
        request = v2.decode_request(kind, payload)
        fault = self._note(kind, request)
        if isinstance(fault, ErrorReply):
            self._send(connection, kind, request_id, fault)
            return
        if fault == "refuse":
            _shut(connection)
            return
        if self.memory.hold is not None and isinstance(request, Ingest):
            self.memory.hold.wait(10)
        with self.lock:
            response = self._answer(request, payload)
            self.lock.notify_all()
        if callable(fault):
            fault(request)
        if fault == "drop":
            _shut(connection)
        elif fault != "silent":
            for _ in range(2 if fault == "twice" else 1):
                self._send(connection, kind, request_id, response)
        if isinstance(request, AlertPushEnable) and not isinstance(response, ErrorReply):
            self._enable(connection, request, response.after)

    def _note(self, kind: int, request: object) -> object:
        with self.lock:
            self.memory.requests.append((kind, request))
            self.seen.append(request)
            if isinstance(request, Ingest):
                session = (request.session_hi, request.session_lo)
                going = self._in_flight.setdefault(session, set())
                going.add(request.sequence)
                span = max(going) - min(going) + 1
                self.memory.window_seen = max(self.memory.window_seen, span)
            self.lock.notify_all()
            if isinstance(request, Hello | PartitionMap):
                return None
            if not self.knows_leader and isinstance(request, Ingest | MetricPut | MetricDelete):
                return ErrorReply(ErrorCode.NOT_LEADER, "no leader is known", 20)
            faults = self.memory.faults if isinstance(request, Ingest) else self.memory.read_faults
            return faults.pop(0) if faults else None

    def _send(self, connection: socket.socket, kind: int, request_id: int, response: Any) -> None:
        payload = v2.encode_response(kind, response, self.memory.position)
        _send_all(connection, response_frame(2, status_of(response), request_id, payload))
        if isinstance(response, PartitionMapReply) and connection not in self.map_askers:
            self.map_askers.append(connection)

    # --- answers -------------------------------------------------------------

    def _answer(self, request: Any, payload: bytes) -> Any:
        memory = self.memory
        match request:
            case Ingest():
                return self._ingest(request, payload)
            case Hello():
                return HelloReply(2, 1, memory.cluster_id, events_per_batch_max=memory.batch_max)
            case PartitionMap():
                return self._map()
            case MetricPut(schema=schema, mode=mode):
                if mode == 1 and schema.code in memory.metrics:
                    return ErrorReply(ErrorCode.ALREADY_EXISTS, f"metric {schema.code} exists")
                memory.metrics[schema.code] = schema
                return Done()
            case MetricDelete(code=code):
                if memory.metrics.pop(code, None) is None:
                    return ErrorReply(ErrorCode.NOT_FOUND, f"no metric {code}")
                return Done()
            case MetricList(cursor=cursor):
                start = int(cursor or b"0")
                rows = list(memory.metrics.values())
                return MetricListReply(rows[start : start + memory.page], self._next(start, rows))
            case (
                UsageQuery(account=account, metric_code=code)
                | UsageRealtime(account=account, metric_code=code)
            ):
                total = memory.totals.get((account, code), 0)
                return UsageReply(AggValue(sum=total, count=total), 1, 2)
            case EventsList(cursor=cursor):
                start = int(cursor or b"0")
                page = memory.rows[start : start + memory.page]
                return EventsListReply(page, self._next(start, memory.rows))
            case AlertsList(after=after):
                rows = memory.alerts[after : after + memory.page]
                return AlertsListReply(rows, after + memory.page < len(memory.alerts))
            case AlertPushEnable(after=after):
                return AlertPushReply(len(memory.alerts) if after is None else after)
            case ClusterStatus():
                nodes = [
                    NodeStatus(
                        number + 1,
                        address,
                        role=NodeRole.LEADER if address == self.leader else NodeRole.FOLLOWER,
                    )
                    for number, address in enumerate(self.members)
                ]
                return ClusterStatusReply(1, 1, 0, 0, 0, 0, nodes=nodes)
            case TransferLeader():
                return Done()
        return ErrorReply(ErrorCode.UNSUPPORTED, f"{request!r}")

    def _next(self, start: int, rows: list[Any]) -> bytes:
        after = start + self.memory.page
        return str(after).encode() if after < len(rows) else b""

    def _ingest(self, request: Ingest, payload: bytes) -> Any:
        memory = self.memory
        session = (request.session_hi, request.session_lo)
        key = (*session, request.sequence)
        if key in memory.replies:
            known, reply = memory.replies[key]
            if known != payload:
                memory.broken.append(f"sequence {request.sequence} came with other bytes")
            return IngestReply(reply.stored, reply.duplicates, reply.last_offset, reply.refused,
                               reply.runs, is_remembered=True)  # fmt: skip
        reply = self._count(request)
        memory.replies[key] = (payload, reply)
        self._in_flight.get(session, set()).discard(request.sequence)
        return reply

    def _count(self, request: Ingest) -> IngestReply:
        memory = self.memory
        runs: list[tuple[int, int]] = []
        stored = refused = 0
        for row in request.rows:
            outcome = Outcome.STORED
            if row.metric_code == "unknown":
                outcome, refused = Outcome.UNKNOWN_METRIC, refused + 1
            else:
                stored += 1
                key = (row.account, row.metric_code)
                memory.totals[key] = memory.totals.get(key, 0) + row.value
            if runs and runs[-1][0] == outcome:
                runs[-1] = (outcome, runs[-1][1] + 1)
            else:
                runs.append((outcome, 1))
        memory.position += 1
        return IngestReply(stored, 0, memory.position * 100, refused, runs)

    # --- alerts --------------------------------------------------------------

    def _enable(self, connection: socket.socket, request: AlertPushEnable, after: int) -> None:
        with self.lock:
            self.subscribers.append((connection, request))
            for row in self.memory.alerts[after:]:
                self._push(connection, request, row)
            self.lock.notify_all()

    def _push(self, connection: socket.socket, request: AlertPushEnable, row: AlertRow) -> None:
        if request.accounts and row.account not in request.accounts:
            return
        kind, payload = v2.encode_push(AlertPush(row, 1), self.memory.position)
        _send_all(connection, push_frame(2, kind, payload) * self.memory.push_times)


class FakeCluster:
    """Nodes that share one memory, as replicas share a log; use it in a `with`."""

    def __init__(self, count: int = 3) -> None:
        self.memory = Memory()
        self.nodes = [FakeServer(self.memory) for _ in range(count)]
        self.addresses = [node.address for node in self.nodes]
        for node in self.nodes:
            node.members = self.addresses
        self.lead(self.nodes[0])

    def __enter__(self) -> FakeCluster:
        for node in self.nodes:
            node.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()

    def lead(self, leader: FakeServer, *, push: bool = False) -> None:
        """From now on every node that is up names this one."""
        with self.memory.lock:
            for node in self.nodes:
                node.leader, node.knows_leader = leader.address, True
        if push:
            for node in self.nodes:
                node.push_map()

    def maps_asked(self) -> int:
        """How often a map was asked for: by every new connection, and after every failure."""
        return sum(node.seen.count(PartitionMap()) for node in self.nodes)

    def forget_leader(self, *, push: bool = False) -> None:
        """An election begins: nobody knows a leader."""
        with self.memory.lock:
            for node in self.nodes:
                node.knows_leader = False
        if push:
            for node in self.nodes:
                node.push_map()

    def kill(self, node: FakeServer, successor: FakeServer) -> None:
        """One node dies; the others follow another."""
        self.lead(successor)
        threading.Thread(target=node.stop, daemon=True).start()
        node.drop_connections()


def _send_all(connection: socket.socket, frame: bytes) -> None:
    try:
        connection.sendall(frame)
    except OSError:
        pass


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition that nobody announces."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never became true"
        time.sleep(0.002)
