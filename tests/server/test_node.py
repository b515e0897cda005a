"""The node without a socket: order, durability, a disk that is full or fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest
from tests.server.rawclient import DAY_NS, START_NS, batch

from unimeter import limits
from unimeter.errors import BackpressureError
from unimeter.server import handlers, upkeep
from unimeter.server.hosts import InlineHost
from unimeter.server.node import Node
from unimeter.storage.disk import DiskFullError, FatalStorageError
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import open_directory
from unimeter.storage.wal import WalLimits
from unimeter.types import AggType, Event, MetricSchema, from_ns
from unimeter.wire import v2
from unimeter.wire.framer import ResponseFramer
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    ErrorReply,
    IngestReply,
    MetricDelete,
    MetricPut,
    PacketType,
    ProtocolError,
    Response,
    UsageQuery,
    UsageReply,
)
from unimeter.wire.v2_ingest import encode_ingest


class LoopHost(InlineHost):
    """A host whose loop and sync thread the test turns by hand."""

    inline = False

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], None]] = []
        self.posts: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.error: BaseException | None = None

    def soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        self.posts.put((callback, *args))

    def failed(self, error: BaseException) -> None:
        self.error = error

    def run_posts(self, node: Node) -> None:
        """What the threads have told, until the apply thread has nothing left to tell."""
        while node._applying or not self.posts.empty():
            callback, *args = self.posts.get(timeout=20)
            callback(*args)

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class HandWriter:
    """Stands in for the sync thread: syncs when told to."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked = 0

    def submit(self) -> None:
        self.asked += 1

    def finish(self) -> None:
        """Do what the thread would do: sync, and tell the node."""
        assert self.asked == 1, "one sync at a time"
        self.asked = 0
        try:
            synced = self.node.wal.sync()
        except DiskFullError as error:
            self.node.replica.group._failed_in_thread(error)
        else:
            self.node.replica.group._synced_in_thread(synced)
        assert isinstance(self.node.host, LoopHost)
        self.node.host.run_posts(self.node)

    def close(self) -> None:
        self.asked = 0


def open_node(host: InlineHost, disk: MemoryDisk | None = None) -> Node:
    bounds = WalLimits(segment_bytes=2**20, segment_bytes_first=2**20, background=False)
    node = Node(open_directory(disk or MemoryDisk(), "data", bounds=bounds), host)
    node.upkeep.disk_free_bytes_min = 0
    return node


def open_by_hand() -> tuple[Node, LoopHost, HandWriter]:
    host = LoopHost()
    node = open_node(host)
    assert node.replica.group.writer is not None
    node.replica.group.writer.close()
    writer = HandWriter(node)
    node.replica.group.writer = writer  # type: ignore[assignment]
    return node, host, writer


def put(node: Node, code: str = "calls") -> Response:
    return handlers.call(node, MetricPut(MetricSchema(code, AggType.COUNT)))[0]


def ingest(node: Node, account: int, count: int = 1, first: int = 0) -> Response:
    return decoded(node.ingest_payload(payload_of(account, count, first)))


def decoded(data: bytes) -> Response:
    framer = ResponseFramer()
    framer.receive_data(data)
    frame = framer.next_frame()
    assert frame is not None
    return v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)[1]


def count(node: Node, account: int) -> int:
    query = UsageQuery(account, "calls", START_NS, START_NS + DAY_NS)
    reply = handlers.answer(node, query, lambda *_: None)
    assert isinstance(reply, UsageReply)
    return reply.value.count


def feed(node: Node, slot: int, payload: bytes) -> None:
    """As a connection does: feed, then ask for a turn."""
    node.begin_turn()
    assert node.builder.feed_payload(2, slot, payload, slot) == 0
    node.request_turn()


def payload_of(account: int, events: int, first: int = 0) -> bytes:
    return encode_ingest(batch(account, events, first=first))


# --- order ------------------------------------------------------------------------


def test_inline_calls_return_what_is_durable_and_visible() -> None:
    disk = MemoryDisk()
    node = open_node(InlineHost(), disk)
    assert isinstance(put(node), Done)
    reply = ingest(node, 1, 3)
    assert isinstance(reply, IngestReply) and reply.stored == 3
    assert count(node, 1) == 3
    # GENESIS, the leader's first entry, the metric, the batch.
    assert node.wal.synced_index == node.machine.applied == 4
    node.close()
    again = open_node(InlineHost(), disk)
    assert count(again, 1) == 3
    again.close()


def test_nothing_is_visible_or_answered_before_its_sync() -> None:
    node, host, writer = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    feed(node, 5, payload_of(1, limits.EVENTS_PER_BATCH_MAX))  # too large for an inline sync
    host.turn()
    assert writer.asked == 1
    assert (count(node, 1), host.replies) == (0, [])
    writer.finish()
    assert count(node, 1) == limits.EVENTS_PER_BATCH_MAX
    assert [slot for slot, _ in host.take_replies()] == [5]
    node.close()


def metric_body() -> bytes:
    from unimeter.engine.catalog import put_body

    return put_body(MetricSchema("calls", AggType.COUNT))


def test_what_comes_during_a_sync_shares_the_next_one() -> None:
    node, host, writer = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    feed(node, 1, payload_of(1, limits.EVENTS_PER_BATCH_MAX))
    host.turn()
    for slot in range(2, 12):
        feed(node, slot, payload_of(slot, 1))
        host.turn()
    entries_before = node.statistics.entries_appended
    writer.finish()
    assert node.statistics.entries_appended == entries_before + 1, "ten batches, one entry"
    assert len(host.take_replies()) == 1
    writer.finish()
    assert [slot for slot, _ in host.take_replies()] == list(range(2, 12))
    node.close()


def test_a_change_of_the_catalog_keeps_its_place_among_the_batches() -> None:
    node, host, _ = open_by_hand()
    feed(node, 1, payload_of(1, 1))
    node.propose(3, metric_body(), lambda *_: None)
    feed(node, 2, payload_of(2, 1))
    host.turn()
    first, second = (decoded(data) for _, data in host.take_replies())
    assert isinstance(first, IngestReply) and first.refused == 1
    assert isinstance(second, IngestReply) and second.stored == 1
    assert (count(node, 1), count(node, 2)) == (0, 1)
    node.close()


def test_offsets_follow_one_another_over_entries_in_flight() -> None:
    node, host, writer = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    for n in range(3):
        feed(node, n, payload_of(n, 8000))
        node.full()
    writer.finish()
    replies = [decoded(data) for _, data in host.take_replies()]
    assert [reply.last_offset for reply in replies] == [8000, 16000, 24000]  # type: ignore[union-attr]
    node.close()


def test_close_finishes_what_was_fed() -> None:
    disk = MemoryDisk()
    node = open_node(InlineHost(), disk)
    put(node)
    feed(node, 1, payload_of(1, 4))
    node.close()
    again = open_node(InlineHost(), disk)
    assert count(again, 1) == 4
    again.close()


# --- refusals ---------------------------------------------------------------------


def test_a_batch_that_contradicts_itself_is_refused_and_leaves_nothing() -> None:
    node = open_node(InlineHost())
    put(node)
    with pytest.raises(ProtocolError):
        node.ingest_payload(payload_of(1, 3)[:-1])
    assert (count(node, 1), node.machine.next_offset) == (0, 1)
    node.close()


def test_in_flight_bytes_are_bounded() -> None:
    node, host, writer = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    node.inflight_bytes_max = 100_000
    feed(node, 1, payload_of(1, 8000))
    node.full()
    assert "waiting for the disk" in node.refusal
    with pytest.raises(BackpressureError):
        node.propose(3, metric_body(), lambda *_: None)
    writer.finish()
    assert node.refusal == ""
    node.close()


@pytest.mark.parametrize("where", ["append_all", "sync"])
def test_a_full_disk_refuses_what_was_dropped_and_goes_on(where: str) -> None:
    node, host, writer = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    answers: list[Any] = []
    wal, real = node.wal, getattr(node.wal, where)

    def full(*given: Any, **_: bool) -> int:
        setattr(wal, where, real)
        wal.full = True
        if where == "sync":
            wal._drop_staged()
            raise DiskFullError("no space", wal.synced_index + 1)
        raise DiskFullError("no space")

    setattr(wal, where, full)
    feed(node, 1, payload_of(1, 8000))
    host.turn()
    if where == "sync":
        node.propose(3, metric_body(), lambda *given: answers.append(given))
        writer.asked = 0
        with pytest.raises(DiskFullError):
            wal.sync()
        node.replica.group._failed_in_thread(DiskFullError("no space", wal.synced_index + 1))
        host.run_posts(node)
        assert len(answers) == 1 and isinstance(answers[0][0], BackpressureError)
    ((slot, data),) = host.take_replies()
    refused = decoded(data)
    assert slot == 1
    assert isinstance(refused, ErrorReply) and refused.code == ErrorCode.BACKPRESSURE
    assert node.refusal == "the disk is full"
    assert (count(node, 1), node.machine.next_offset, node.inflight_bytes) == (0, 1, 0)
    node.upkeep._reviewed = float("-inf")
    node.upkeep.review()
    assert node.refusal == ""
    feed(node, 2, payload_of(1, 8000))
    host.turn()
    writer.finish()
    assert count(node, 1) == 8000
    node.close()


def test_a_failed_sync_is_final() -> None:
    node = open_node(host := LoopHost())
    handlers_done: list[Any] = []
    calls = 0

    def broken(**_: bool) -> int:
        nonlocal calls
        calls += 1
        raise FatalStorageError("fdatasync failed")

    node.wal.sync = broken  # type: ignore[method-assign]
    node.propose(3, metric_body(), lambda *given: handlers_done.append(given))
    host.turn()
    assert isinstance(host.error, FatalStorageError)
    feed(node, 1, payload_of(1, 1))
    host.turn()
    node.tick()
    node.close()
    assert (calls, handlers_done, host.replies) == (1, [], [])


# --- upkeep -----------------------------------------------------------------------


def test_a_snapshot_is_taken_after_so_much_log_and_shortens_the_next_start() -> None:
    disk = MemoryDisk()
    node = open_node(InlineHost(), disk)
    put(node)
    node.upkeep.snapshot_log_bytes = 100_000
    for n in range(20):
        ingest(node, 1, 500, first=500 * n)
        node.tick()
    assert node.statistics.snapshots_written >= 2
    index = node.opened.snapshots.last_index
    assert index > 0
    node.close()
    again = open_node(InlineHost(), disk)
    assert again.opened.replayed_events < 10_000
    assert count(again, 1) == 10_000
    again.close()


def test_free_space_is_looked_at_at_most_five_times_a_second() -> None:
    node = open_node(InlineHost())
    looks = 0

    def free_bytes() -> int:
        nonlocal looks
        looks += 1
        return 2**40

    node.opened.free_bytes = free_bytes  # type: ignore[method-assign]
    put(node)
    for n in range(50):
        ingest(node, 1, first=n)
    assert looks <= 2
    node.close()


def test_a_snapshot_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    node = open_node(InlineHost())
    put(node)
    abandoned = []

    class Hanging:
        busy, last_index = True, 0

        def poll(self) -> None:
            return None

        def abandon(self) -> None:
            abandoned.append(True)
            self.busy = False

    node.upkeep._snapshot_began = time.monotonic()
    real, node.opened.snapshots = node.opened.snapshots, Hanging()  # type: ignore[assignment]
    node.tick()
    assert not abandoned
    monkeypatch.setattr(upkeep, "SNAPSHOT_SECONDS_MAX", 0.0)
    with pytest.warns(RuntimeWarning, match="given up"):
        node.tick()
    assert abandoned and node.statistics.snapshots_failed == 1
    node.opened.snapshots = real
    node.close()


# --- what the simulator found -----------------------------------------------------


def spoil_log(disk: MemoryDisk, mark: bytes) -> None:
    """Flip a bit of the newest place in the log that has these bytes."""
    for path in disk.paths():
        place = disk.contents(path).rfind(mark)
        if path.endswith(".seg") and place >= 0:
            disk._files[path].data[place] ^= 1


def node_with_damage(disk: MemoryDisk) -> tuple[Node, int]:
    """A node that goes on above an entry that rotted on the disk; the entry's index."""
    node = open_node(InlineHost(), disk)
    put(node)
    noon = from_ns(START_NS + DAY_NS // 2)
    node.ingest_payload(encode_ingest([Event(1, "calls", 1, noon, id="spoilt-event")]))
    index = node.machine.applied
    ingest(node, 1, 3)
    spoil_log(disk, b"spoilt-event")
    return node, index


def test_a_damaged_entry_that_a_snapshot_met_is_noted_for_repair() -> None:
    disk = MemoryDisk()
    node, index = node_with_damage(disk)
    node.upkeep.snapshot_log_bytes = 0
    with pytest.warns(RuntimeWarning, match=f"failed: .*entry {index}"):
        node.tick()
        node.tick()
    assert node.failure is None and node.opened.snapshots.last_index == 0
    assert node.replica.log.rotten == {index}
    assert disk.exists("data/rotten"), "the next start looks as well"
    node.close()


def test_a_damaged_entry_met_by_the_last_snapshot_lets_the_node_close() -> None:
    node, index = node_with_damage(disk := MemoryDisk())
    with pytest.warns(RuntimeWarning, match=f"failed: .*entry {index}"):
        node.close()
    assert node.failure is None and not disk.locked


def test_a_node_that_is_alone_tells_of_damage_and_does_not_ask_to_come_again() -> None:
    disk = MemoryDisk()
    node, index = node_with_damage(disk)
    inside = UsageQuery(1, "calls", START_NS, START_NS + 10**9)  # cuts a bucket: events are read
    answers: list[Response] = []
    handlers.answer(node, inside, lambda response, _: answers.append(response))
    (told,) = answers
    assert isinstance(told, ErrorReply) and told.code is ErrorCode.INTERNAL
    assert node.replica.log.rotten == {index}
    with pytest.warns(RuntimeWarning, match="failed"):
        node.close()


def test_whether_a_metric_is_there_to_be_deleted_the_log_decides() -> None:
    """A new leader has metrics in its log that it has not applied yet."""
    node, host, writer = open_by_hand()
    heard: list[Any] = []
    put_request = MetricPut(MetricSchema("calls", AggType.COUNT))
    for request in (put_request, MetricDelete("calls"), MetricDelete("calls")):
        assert handlers.answer(node, request, lambda response, _: heard.append(response)) is None
    while host.due or writer.asked:
        host.turn()
        if writer.asked:
            writer.finish()
    host.run_posts(node)
    assert heard[:2] == [Done(), Done()]
    assert isinstance(heard[2], ErrorReply) and heard[2].code is ErrorCode.NOT_FOUND
    node.close()


@pytest.mark.parametrize("ask", ["stand", "hand over"])
def test_a_vote_that_can_not_be_written_stops_the_node(ask: str) -> None:
    """Both are called from timers and requests, where nobody else would take the error."""
    node = open_node(host := LoopHost())

    def broken(*_: Any) -> None:
        raise FatalStorageError("fdatasync failed")

    if ask == "stand":
        node.replica.campaign = broken  # type: ignore[method-assign]
        node.stand_for_election()
    else:
        node.leadership_changed = broken  # type: ignore[method-assign]
        node.hand_over_lead(1)
    assert isinstance(node.failure, FatalStorageError) and host.error is node.failure
    node.close()


def test_damage_that_can_not_be_noted_stops_the_node() -> None:
    """The note is written while a query is answered, where an error would be the client's."""
    node, _ = node_with_damage(disk := MemoryDisk())
    noted: list[int] = []

    def broken(index: int) -> None:
        noted.append(index)
        raise FatalStorageError("fdatasync failed")

    node.opened.note_rotten = broken  # type: ignore[method-assign]
    inside = UsageQuery(1, "calls", START_NS, START_NS + 10**9)
    with pytest.raises(FatalStorageError):  # how an inline host hears of a failed node
        handlers.answer(node, inside, lambda *_: None)
    assert noted and isinstance(node.failure, FatalStorageError)
    node.close()
    assert not disk.locked
