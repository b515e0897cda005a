"""Several nodes in one process, with the world between them turned by hand.

Each `Member` is what `server.server` builds (node, clients, cluster, connections) with
nothing replaced but the outside: its event loop (`FakeLoop`), what it takes from its machine
(`WorldPlatform`: clocks, chance, and a sync thread that is turned by hand),
its sockets to peers (`FakePeers`, over the world's queues) and to clients (`FakeClient`),
and its disk (a `MemoryDisk` that can lose power).

    world = World(3)
    world.elect(1)
    client = world.client(2)                    # speaks real frames to node 2
    asked = client.ingest(account=7, count=3)   # forwarded to node 1
    world.settle()                              # deliver, sync, apply until nothing moves
    client.reply(asked)

Nothing happens by itself: `settle` moves everything until all is quiet, `tick` lets 50 ms
pass, and the parts of both (`run`, `deliver`, `finish_sync`) can be called one by one.
A partition is silent (`cut`: messages vanish, links stay) or noticed (`unlink`).
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any, TypeVar, cast

from tests.server.rawclient import DAY_NS, START_NS, batch

from unimeter.raft.messages import LEADER, Message, MessageType, Snapshot
from unimeter.server.clients import Clients
from unimeter.server.cluster import Cluster
from unimeter.server.connection import Connection
from unimeter.server.members import Members
from unimeter.server.node import Node
from unimeter.server.opening import open_member
from unimeter.server.peer_codec import decode_message, encode_message
from unimeter.server.platform import Platform
from unimeter.storage.disk import DiskFullError
from unimeter.storage.incoming import part_path
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import make_recovering
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.superblock import Membership
from unimeter.storage.wal import Wal, WalLimits
from unimeter.types import AggType, Event, MetricSchema
from unimeter.wire import v1, v2
from unimeter.wire.framer import VERSION_2, ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import (
    Done,
    IngestReply,
    MetricPut,
    PacketType,
    Request,
    Response,
    UsageQuery,
    UsageReply,
)
from unimeter.wire.peer_hello import refusal_of
from unimeter.wire.v2_ingest import encode_ingest

TICK_SECONDS = 0.05
MOMENT_SECONDS = 0.002  # what a node may hold back, for more to go along
PATH = "data"
BOUNDS = WalLimits(segment_bytes=2**18, segment_bytes_first=2**16, background=False)
RAFT = 0  # the kind of a frame that carries a raft message
SNAPSHOT = -1  # the kind of what stands for the many frames of a snapshot
R = TypeVar("R")
_STEPS_MAX = 20_000  # of one settle; more is a circle


class PowerCut(BaseException):
    """The machine of one node stops here."""


# --- what stands in for the outside -------------------------------------------------


class Handle:
    """A timer that can be cancelled."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """An event loop whose turns and time the world makes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ready: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Handle, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._news = threading.Condition()

    def time(self) -> float:
        return self._world.now

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.ready.append((callback, args))

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        with self._news:
            self.ready.append((callback, args))
            self._news.notify()

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Handle:
        handle = Handle()
        item = (self.time() + delay, next(self._count), handle, callback, args)
        heapq.heappush(self._timers, item)
        return handle

    def is_closed(self) -> bool:
        return False

    def wait_for_thread(self) -> None:
        """Return when a thread has told something."""
        with self._news:
            assert self._news.wait_for(lambda: self.ready, timeout=20)

    def is_due_within(self, seconds: float) -> bool:
        """Whether a timer rings so soon."""
        return bool(self._timers) and self._timers[0][0] <= self.time() + seconds

    def take_due(self) -> list[tuple[Callable[..., None], tuple[Any, ...]]]:
        """What is to be called at this moment of the world's time."""
        due = []
        while self._timers and self._timers[0][0] <= self.time() + 1e-9:
            _, _, handle, callback, args = heapq.heappop(self._timers)
            if not handle.is_cancelled:
                due.append((callback, args))
        return due


class HandSync:
    """Stands in for the sync thread: syncs when told to, and its news waits in the loop."""

    def __init__(
        self,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._wal, self._on_synced, self._on_error = wal, on_synced, on_error
        self.is_asked = False

    def start(self) -> None:
        """Nothing runs by itself."""

    @property
    def busy(self) -> bool:
        return self.is_asked

    def submit(self) -> None:
        assert not self.is_asked, "one sync at a time"
        self.is_asked = True

    def work(self) -> None:
        """Do what the thread does, and leave its news in the loop."""
        assert self.is_asked
        self.is_asked = False
        try:
            synced = self._wal.sync(witness=False)
        except DiskFullError as error:
            self._on_error(error)
        except Exception as error:
            self._on_error(error)
            return
        else:
            self._on_synced(synced)
        self._wal.write_witness()

    def close(self) -> None:
        self.is_asked = False


class HandWorkers:
    """Threads that have done each job by the time `submit` returns."""

    def submit(self, work: Callable[..., R], /, *args: Any) -> Future[R]:
        done: Future[R] = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is left."""


class WorldPlatform(Platform):
    """The machine of one member: the world's time and chance."""

    lingers = False

    def __init__(self, member: Member) -> None:
        self._member, self._world = member, member.world

    def monotonic(self) -> float:
        return self._world.now

    def time_ns(self) -> int:
        return self._world.time_ns(self._member.node_id)

    def random_ticks(self, count: int) -> int:
        return self._world.random.randrange(count)

    def sync_thread(
        self,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> HandSync:
        self._member.sync = HandSync(wal, on_synced, on_error)
        return self._member.sync

    def workers(self, threads: int, name: str) -> HandWorkers:
        return HandWorkers()


class FakePeers:
    """The links of one node: queues of the world."""

    def __init__(self, member: Member) -> None:
        self.member, self.world = member, member.world

    def send(self, message: Message) -> None:
        self.world.post(self.member.node_id, message.to, RAFT, _encoded(message))

    def send_frame(self, to: int, kind: int, payload: bytes) -> bool:
        return self.world.post(self.member.node_id, to, int(kind), bytes(payload))

    def send_snapshot(self, message: Message, reader: Any, done: Callable[[str], None]) -> None:
        assert message.snapshot is not None
        moved = MovedSnapshot(self.member, message, reader.read(0, reader.size), done)
        if not self.world.post(self.member.node_id, message.to, SNAPSHOT, moved):
            moved.end("there is no link")

    def is_up(self, node_id: int) -> bool:
        return (self.member.node_id, node_id) in self.world.links

    def waiting_bytes(self, to: int) -> int:
        return 0

    def statistics(self) -> dict[str, int]:
        return {}

    def peer_statistics(self) -> dict[int, dict[str, Any]]:
        return {}

    async def start(self, listening: None) -> None:
        """Nobody listens: the world makes the links."""


class MovedSnapshot:
    """A snapshot on its way: the file, and who is to hear how it went."""

    def __init__(
        self, sender: Member, message: Message, data: bytes, done: Callable[[str], None]
    ) -> None:
        assert message.snapshot is not None
        self.sender, self.loop, self.data, self.done = sender, sender.loop, data, done
        self.message = replace(message, snapshot=Snapshot(message.snapshot.meta))

    def end(self, reason: str) -> None:
        """Tell the sender, if it is still the same process."""
        if self.sender.is_running and self.sender.loop is self.loop:
            self.loop.call_soon(self.done, reason)

    def arrive(self, to: Member) -> None:
        """The whole file is on the receiver's disk, durable."""
        assert self.message.snapshot is not None
        path = part_path(f"{PATH}/snapshots", self.message.snapshot.meta.index)
        to.disk.put(path, self.data)
        self.end(to.call(to.cluster.on_snapshot, self.message, path) or "")


def _encoded(message: Message) -> bytes:
    return b"".join(bytes(part) for part in encode_message(message))


class FakeTransport:
    """One end of a client's socket."""

    def __init__(self, member: Member, taken: Callable[[bytes], None]) -> None:
        self._member, self._taken = member, taken
        self.is_closed = False
        self.connection: Connection

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self._taken(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._member.loop.call_soon(self.connection.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 7000) if name == "sockname" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class FakeClient:
    """A client's socket to one node, frame by frame."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.framer = ResponseFramer()
        self.frames: dict[int, ResponseFrame] = {}
        self.pushes: list[ResponseFrame] = []
        self.kinds: dict[int, tuple[int, int]] = {}
        self._ids = itertools.count(1)
        self.transport = FakeTransport(member, self._take)
        self.connection = member.clients.connection()
        self.transport.connection = self.connection
        member.call(self.connection.connection_made, cast(Any, self.transport))

    @property
    def is_closed(self) -> bool:
        """Whether the node hung up, or is gone."""
        member = self.member
        is_same = member.is_running and self.connection.clients is member.clients
        return self.transport.is_closed or not is_same

    def _take(self, data: bytes) -> None:
        self.framer.receive_data(data)
        while (frame := self.framer.next_frame()) is not None:
            if frame.is_push:
                self.pushes.append(frame)
                continue
            assert frame.request_id in self.kinds, f"nobody asked {frame.request_id}"
            assert frame.request_id not in self.frames, "a request is answered once"
            self.frames[frame.request_id] = frame

    def send(self, data: bytes) -> None:
        """Give the node these bytes, as one read of its socket."""

        def read() -> None:
            view = self.connection.get_buffer(-1)
            view[: len(data)] = data
            self.connection.buffer_updated(len(data))

        if not self.is_closed:
            self.member.call(read)

    def start(self, kind: int, payload: bytes, version: int = 2) -> int:
        """Send a request; its id."""
        request_id = next(self._ids)
        self.kinds[request_id] = kind, version
        self.send(request_frame(version, kind, request_id, payload))
        return request_id

    def ask(self, request: Request, version: int = 2) -> int:
        """Send any request but ingest; its id."""
        wire: Any = v1 if version == 1 else v2
        return self.start(*wire.encode_request(request), version)

    def ingest(self, account: int, count: int = 1, first: int = 0, **session: int) -> int:
        """Send `count` events with ids of their own from `first` on; the request's id."""
        return self.ingest_events(batch(account, count, first=first), **session)

    def ingest_events(self, events: list[Event], **session: int) -> int:
        """Send these events; the request's id."""
        return self.start(PacketType.INGEST_SYNC, encode_ingest(events, **session))

    def query(self, account: int, code: str = "calls", **consistency: Any) -> int:
        """Ask for the total of a day; the request's id."""
        return self.ask(UsageQuery(account, code, START_NS, START_NS + DAY_NS, **consistency))

    def response(self, request_id: int) -> Response | None:
        """The answer, if it has come; kept."""
        frame = self.frames.get(request_id)
        if frame is None:
            return None
        kind, version = self.kinds[request_id]
        wire: Any = v1 if version == 1 else v2
        return cast(Response, wire.decode_response(kind, frame.status, frame.payload)[1])

    def position(self, request_id: int) -> int:
        """The log position that an answer tells."""
        frame = self.frames[request_id]
        return v2.decode_response(self.kinds[request_id][0], frame.status, frame.payload)[0]

    def stored(self, request_id: int) -> int:
        """How many events of an acknowledged batch were stored."""
        reply = self.response(request_id)
        assert isinstance(reply, IngestReply), reply
        return reply.stored

    def count(self, request_id: int) -> int:
        """The count that a query was answered with."""
        reply = self.response(request_id)
        assert isinstance(reply, UsageReply), reply
        return int(reply.value.count)


# --- one node -----------------------------------------------------------------------


class Member:
    """One node of the world: its disk, and while it runs, everything else."""

    def __init__(self, world: World, node_id: int) -> None:
        self.world, self.node_id = world, node_id
        self.disk = MemoryDisk(faults=True)
        self.platform = WorldPlatform(self)
        self.members = members_for(node_id, world.count, world.secret)
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.is_running = False
        self.loop: FakeLoop
        self.clients: Clients
        self.node: Node
        self.cluster: Cluster
        self.sync: HandSync

    def start(self) -> None:
        """Open the directory and run a node on it."""
        assert not self.is_running
        self.error = None
        self.loop = FakeLoop(self.world)
        loop = cast(Any, self.loop)
        self.clients = Clients(loop, self.platform)
        self.clients.on_failure = self._failed
        self.is_running = True
        self.call(self._open, loop)

    def _open(self, loop: Any) -> None:
        world = self.world
        opened = open_member(
            self.disk, PATH, self.members, world.bounds, None, self.said.append, self.platform
        )
        self.said += opened.notes
        self.node = Node(
            opened,
            self.clients,
            voters=self.members.voters,
            platform=self.platform,
            is_mute=opened.superblock.current.membership is not Membership.VOTER,
        )
        self.node.hash_states = True
        self.node.upkeep.disk_free_bytes_min = 0
        if world.retention is not None:
            self.node.upkeep.retention = world.retention
            self.node.upkeep.snapshot_log_bytes = 0
        self.clients.attach(self.node)
        advertise = f"10.0.0.{self.node_id}:7001"
        self.cluster = Cluster(
            loop, self.members, self.node, self.clients, advertise, self.said.append
        )
        self.cluster.peers = cast(Any, FakePeers(self))
        starting = self.cluster.start(cast(Any, None))
        try:
            starting.send(None)
        except StopIteration:
            pass

    def _failed(self, error: BaseException) -> None:
        self.error = error

    def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run code of this node; a power cut in the midst of it takes the node down."""
        try:
            return work(*args)
        except PowerCut:
            self.world.take_down(self.node_id)
            return None

    def run(self) -> bool:
        """One turn of the loop: what is ready now. Whether there was anything."""
        if not self.is_running:
            return False
        if self.node._applying and not self.loop.ready:
            self.loop.wait_for_thread()
        ready = self.loop.ready
        count = len(ready)
        for _ in range(count):
            callback, args = ready.popleft()
            self.call(callback, *args)
            if not self.is_running:
                break
        return count > 0

    def finish_sync(self) -> bool:
        """Let the sync thread do what it was asked to. Whether it was."""
        if not self.is_running or not self.sync.is_asked:
            return False
        self.call(self.sync.work)
        return True

    def release(self) -> None:
        """End the threads of a node that is gone."""
        self.is_running = False
        if self.node._applier is not None:
            self.node._applier.close()

    @property
    def leads(self) -> bool:
        return self.is_running and self.node.leads

    @property
    def hash(self) -> tuple[int, str]:
        """Which entry was applied last, and the whole state then."""
        return self.node.machine.applied, self.node.machine.state_hash()

    def total(self, account: int, code: str = "calls") -> int:
        """The count that this node's own state has, whatever it may say to others."""
        from unimeter.server import handlers

        query = UsageQuery(account, code, START_NS, START_NS + DAY_NS)
        reply = handlers.answer(self.node, query, lambda *_: None)
        assert isinstance(reply, UsageReply)
        return int(reply.value.count)


def members_for(node_id: int, count: int, secret: bytes = b"s" * 32) -> Members:
    """A cluster of `count` nodes, as node `node_id` is told of it."""
    places = {n: (f"10.0.0.{n}", 7101) for n in range(1, count + 1)}
    return Members(node_id, places, b"c" * 16, "cluster", secret)


# --- the world ----------------------------------------------------------------------


class World:
    """All nodes, the network and the time."""

    def __init__(
        self,
        count: int = 3,
        seed: int = 1,
        *,
        start: bool = True,
        bounds: WalLimits = BOUNDS,
        retention: RetentionPolicy | None = None,
    ) -> None:
        self.count, self.random, self.bounds = count, Random(seed), bounds
        self.retention = retention  # with it, a node's tick takes a snapshot of all there is
        self.secret = b"s" * 32
        self.now = 1000.0
        self.skew_ns: dict[int, int] = {}
        self.queues: dict[tuple[int, int], deque[tuple[int, Any]]] = {}
        self.links: set[tuple[int, int]] = set()  # both ways, once both have accepted
        self.cuts: set[tuple[int, int]] = set()  # messages vanish
        self.leaders: dict[int, int] = {}  # by term
        self.recoveries = 0
        self.may_fail: set[int] = set()
        self.refusals: dict[tuple[int, int], str] = {}  # the newest, by (refused, refused by)
        self.nodes = {n: Member(self, n) for n in range(1, count + 1)}
        self.lost: Callable[[int, int, int, bytes], bool] = lambda *_: False  # drop this frame?
        self.last_words_arrive: Callable[[], bool] = lambda: False  # of a node that crashes
        if start:
            for node in self.nodes:
                self.start(node)
            self.settle()
            assert all(one.cluster.joining.is_active for one in self.nodes.values())

    def close(self) -> None:
        for one in self.nodes.values():
            if one.is_running:
                one.release()

    @property
    def running(self) -> list[Member]:
        return [one for one in self.nodes.values() if one.is_running]

    def time_ns(self, node_id: int) -> int:
        """What a node's clock says: an hour into the day of the events, and its own error."""
        return START_NS + int(self.now * 1e9) + self.skew_ns.get(node_id, 0)

    # --- the network ---------------------------------------------------------------

    def post(self, sender: int, to: int, kind: int, payload: Any) -> bool:
        """Put a frame on its way; False where there is no link."""
        if (sender, to) not in self.links:
            return False
        if (sender, to) not in self.cuts and not self.lost(sender, to, kind, payload):
            self.queues.setdefault((sender, to), deque()).append((kind, payload))
        elif kind == SNAPSHOT:
            payload.end("it was lost")
        return True

    def drop(self, sender: int, to: int) -> None:
        """What is on its way between two nodes is lost."""
        for kind, payload in self.queues.pop((sender, to), ()):
            if kind == SNAPSHOT:
                payload.end("it was lost")

    def deliver(self, sender: int, to: int) -> bool:
        """Deliver the oldest frame between two nodes; whether there was one."""
        queue = self.queues.get((sender, to))
        member = self.nodes[to]
        if not queue or not member.is_running:
            return False
        kind, payload = queue.popleft()
        cluster = member.cluster
        try:
            if kind == RAFT:
                member.call(cluster.on_message, decode_message(memoryview(bytearray(payload))))
            elif kind == SNAPSHOT:
                payload.arrive(member)
            else:
                member.call(cluster.on_frame, sender, kind, payload)
        except Exception as error:  # as a link does
            cluster.on_failure(error)
        return True

    def waiting(self, sender: int, to: int) -> list[MessageType]:
        """The raft messages on their way between two nodes, by type."""
        return [
            decode_message(memoryview(bytearray(payload))).type
            for kind, payload in self.queues.get((sender, to), ())
            if kind == RAFT
        ]

    def cut(self, *pairs: tuple[int, int]) -> None:
        """From now on, messages of these pairs (sender, receiver) vanish."""
        self.cuts.update(pairs)

    def isolate(self, *group: int) -> None:
        """Cut these nodes off from all others, both ways, without a word."""
        for one, other in itertools.product(group, self.nodes):
            if other not in group:
                self.cut((one, other), (other, one))
                self.drop(one, other)
                self.drop(other, one)

    def heal(self) -> None:
        """Messages arrive again, and links that were noticed as lost come back."""
        self.cuts.clear()
        self.link_all()

    def link_all(self) -> None:
        """Let all nodes that run shake hands with all others."""
        for one, other in itertools.combinations(sorted(self.nodes), 2):
            self.link(one, other)

    def link(self, one: int, other: int) -> None:
        """Let two nodes shake hands, unless they are linked."""
        if (one, other) in self.links or (one, other) in self.cuts or (other, one) in self.cuts:
            return
        a, b = self.nodes[one], self.nodes[other]
        if not (a.is_running and b.is_running):
            return
        hello_a, hello_b = a.cluster.hello(), b.cluster.hello()
        by_a = refusal_of(hello_a, hello_b) or a.call(a.cluster.judge, hello_b)
        by_b = refusal_of(hello_b, hello_a) or b.call(b.cluster.judge, hello_a)
        if not (a.is_running and b.is_running):
            return
        if by_a:
            self.refusals[other, one] = by_a
            b.call(b.cluster.on_refused, one, by_a)
        if by_b:
            self.refusals[one, other] = by_b
            a.call(a.cluster.on_refused, other, by_b)
        if not by_a and not by_b:
            self.links |= {(one, other), (other, one)}
            self.drop(one, other)
            self.drop(other, one)
            a.call(a.cluster.on_up, hello_b)
            b.call(b.cluster.on_up, hello_a)

    def unlink(self, one: int, other: int, *, is_gone: bool = False) -> None:
        """Lose the link between two nodes; `other`, and with is_gone only it, hears of it."""
        if (one, other) not in self.links:
            return
        self.links -= {(one, other), (other, one)}
        self.drop(one, other)
        self.drop(other, one)
        for this, that in ((one, other), (other, one)):
            member = self.nodes[this]
            if member.is_running:
                member.call(member.cluster.on_down, that, False)
                if is_gone and member.is_running:
                    member.call(member.cluster.on_down, that, True)

    # --- nodes ---------------------------------------------------------------------

    def start(self, node_id: int) -> Member:
        """Start a node on its disk, and let it meet the others."""
        member = self.nodes[node_id]
        member.start()
        for other in self.nodes:
            if other != node_id:
                self.link(*sorted((node_id, other)))
        return member

    def crash(self, node_id: int, arrival: float = 0.0, *, is_noticed: bool = True) -> None:
        """End a node now. Of what was not synced, each sector is kept with that probability."""
        self.take_down(node_id, arrival, is_noticed=is_noticed)

    def take_down(self, node_id: int, arrival: float = 0.0, *, is_noticed: bool = True) -> None:
        member = self.nodes[node_id]
        member.disk.on_operation = None
        member.release()
        member.disk = member.disk.crash(self.random, arrival)
        if self.last_words_arrive():
            for other in self.nodes:
                while self.deliver(node_id, other):
                    pass
        for other in self.nodes:
            if other != node_id:
                self.unlink(node_id, other, is_gone=is_noticed)

    def wipe(self, node_id: int) -> None:
        """The disk of a node that is down is lost."""
        assert not self.nodes[node_id].is_running
        self.nodes[node_id].disk = MemoryDisk(faults=True)

    def make_recovering(self, node_id: int) -> None:
        """What `unimeter recover` does, on the empty disk of a node that is down."""
        member = self.nodes[node_id]
        identity = Identity(member.members.cluster_id, node_id)
        self.recoveries += 1  # an operator takes a second for each
        make_recovering(
            member.disk,
            PATH,
            identity,
            member.members.genesis_key,
            bounds=self.bounds,
            now_ns=lambda: self.time_ns(node_id) + self.recoveries * 10**9,
        )

    def client(self, node_id: int) -> FakeClient:
        return FakeClient(self.nodes[node_id])

    # --- time ----------------------------------------------------------------------

    def move(
        self, *, syncs: Iterable[int] | None = None, only: Iterable[int] | None = None
    ) -> bool:
        """Every loop one turn, every message one step, every sync; whether anything moved."""
        nodes = sorted(self.nodes if only is None else only)
        moved = False
        for node in nodes:
            moved |= self.nodes[node].run()
        for pair in sorted(self.queues):
            if pair[1] in nodes:
                moved |= self.deliver(*pair)
        for node in nodes if syncs is None else syncs:
            moved |= self.nodes[node].finish_sync()
        self.check()
        return moved

    def settle(
        self, *, syncs: Iterable[int] | None = None, only: Iterable[int] | None = None
    ) -> None:
        """Move until nothing moves any more, and no node of `only` waits for a moment only.

        With `syncs`, the sync threads of other nodes stand still.
        """
        for _ in range(_STEPS_MAX):
            if not self.move(syncs=syncs, only=only) and not self._wait_a_moment(only):
                return
        raise AssertionError("the world does not come to rest")

    def _wait_a_moment(self, only: Iterable[int] | None) -> bool:
        """Let a moment pass if a timer rings within it: whether one did."""
        nodes = [one for one in self.running if only is None or one.node_id in only]
        if not any(one.loop.is_due_within(MOMENT_SECONDS) for one in nodes):
            return False
        self.pass_time(MOMENT_SECONDS, nodes)
        return True

    def pass_time(
        self, seconds: float = TICK_SECONDS, members: Iterable[Member] | None = None
    ) -> None:
        """Time passes; what is due is called, and nothing more."""
        self.now += seconds
        for member in self.running if members is None else members:
            for callback, args in member.loop.take_due():
                if member.is_running:
                    member.call(callback, *args)
        self.check()

    def tick(self, count: int = 1) -> None:
        """Let ticks pass, and everything settle after each."""
        for _ in range(count):
            self.pass_time()
            self.settle()

    def until(self, condition: Callable[[], bool], ticks: int = 400) -> None:
        """Tick until something is so."""
        for _ in range(ticks):
            if condition():
                return
            self.tick()
        raise AssertionError("it did not come about")

    def until_queued(self, sender: int, to: int, *types: MessageType) -> None:
        """Let time pass, and all but these two's messages arrive, until one is on its way."""

        def is_there() -> bool:
            waiting = self.waiting(sender, to)
            return bool(waiting) and (not types or waiting[0] in types)

        for _ in range(_STEPS_MAX):
            if is_there():
                return
            for member in self.running:
                member.run()
                member.finish_sync()
            if is_there():
                return
            moved = [
                self.deliver(*pair)
                for pair in sorted(self.queues)
                if pair != (sender, to) or not is_there()
            ]
            if not any(moved):
                self.pass_time()
        raise AssertionError("no such message")

    # --- leaders -------------------------------------------------------------------

    def elect(self, node_id: int, *, only: Iterable[int] | None = None) -> Member:
        """Have a node stand for election, and win it; the others of `only` move meanwhile."""
        member = self.nodes[node_id]
        for other in self.running:  # whoever still believes in a leader would not vote
            if other.node_id != node_id and other.node.replica.raft.role is not LEADER:
                other.node.replica.raft.forget_leader(other.node.lead)
        member.call(member.node.stand_for_election)
        self.settle(only=only)
        assert member.leads, f"node {node_id} was not elected"
        return member

    def elect_by_transfer(self, node_id: int) -> Member:
        """Have the leader hand over to a node."""
        leader = self.wait_leader()
        leader.call(leader.node.hand_over_lead, node_id)
        self.settle()
        member = self.nodes[node_id]
        assert member.leads, f"node {node_id} did not take over"
        return member

    @property
    def leader(self) -> Member | None:
        """The node that leads in the newest term, if one does."""
        leading = [one for one in self.running if one.node.replica.role is LEADER]
        return max(leading, key=lambda one: one.node.replica.term, default=None)

    def wait_leader(self) -> Member:
        """Tick until some node leads and takes input."""
        self.until(lambda: self.leader is not None and self.leader.leads)
        assert self.leader is not None
        return self.leader

    def make_metric(self, code: str = "calls") -> None:
        """Create a COUNT metric."""
        assert self.leader is not None
        client = self.client(self.leader.node_id)
        asked = client.ask(MetricPut(MetricSchema(code, AggType.COUNT)))
        self.settle()
        assert isinstance(client.response(asked), Done), client.response(asked)

    # --- what must always hold -------------------------------------------------------

    def check(self) -> None:
        """No node failed that may not; no term has two leaders."""
        for member in self.running:
            if member.error is not None and member.node_id not in self.may_fail:
                raise AssertionError(f"node {member.node_id} failed") from member.error
            raft = member.node.replica.raft
            if raft.role is LEADER:
                leader = self.leaders.setdefault(raft.term, member.node_id)
                assert leader == member.node_id, f"two leaders of term {raft.term}"

    def check_same(self) -> None:
        """All nodes that run have applied the same entries and have the same state."""
        hashes = {one.node_id: one.hash for one in self.running}
        assert len(set(hashes.values())) == 1, hashes


@contextmanager
def world(count: int = 3, seed: int = 1, lead: int = 1) -> Iterator[World]:
    """A world with a leader and the metric "calls"; closed afterwards."""
    made = World(count, seed)
    try:
        made.elect(lead)
        made.make_metric()
        yield made
    finally:
        made.close()


__all__ = ["VERSION_2", "FakeClient", "Member", "World", "world"]
