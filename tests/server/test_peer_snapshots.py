"""Snapshot files between nodes: whole, resumed, damaged, replaced; and raft is not held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from tests.server.peernet import QUICK, Net, Node, loops, on_net, until

from unimeter import limits
from unimeter.errors import FatalStorageError
from unimeter.raft.messages import MSG_HEARTBEAT, MSG_SNAP, Message, Snapshot, SnapshotMeta
from unimeter.server.peer_sending import Sending
from unimeter.storage.incoming import Incoming
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.snapshot_file import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SnapshotHead,
    read_snapshot,
    write_snapshot,
)
from unimeter.wire.peer_snapshot import Resume, Step, decode_chunk

STATE = Random(2).randbytes(5_000_000)
TERM = 7


def snapshot_bytes(index: int = 50) -> bytes:
    file = MemoryDisk().open("s", create=True)
    write_snapshot(file, SnapshotHead(bytes(16), index, 6, 5, len(STATE)), [STATE])
    return file.read(0, file.size())


WHOLE = snapshot_bytes()


class Reader:
    """A snapshot file in memory that can misbehave."""

    def __init__(self, data: bytes = WHOLE) -> None:
        self.data, self.size = data, len(data)
        self.reads: list[int] = []
        self.on_read: Callable[[int], object] = lambda offset: None
        self.flip_at = -1
        self.flips = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append(offset)
        self.on_read(offset)
        piece = bytearray(self.data[offset : offset + length])
        if self.flips and offset <= self.flip_at < offset + length:
            self.flips -= 1
            piece[self.flip_at - offset] ^= 1
        return bytes(piece)


class Receiver:
    """A node that takes snapshots onto a disk in memory."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.disk.make_directory("d/snapshots")

    async def start(self, made: Net, **changes: object) -> Node:
        incoming = Incoming(self.disk, "d")
        return await made.start(2, incoming=incoming, **changes)

    def state(self, node: Node) -> bytes:
        return bytes(read_snapshot(self.disk, node.handler.snapshots[-1][1])[1])


def snap(index: int = 50, term: int = TERM, to: int = 2, sender: int = 1) -> Message:
    return Message(MSG_SNAP, to, sender, term, snapshot=Snapshot(SnapshotMeta(index, 6, (1, 2, 3))))


async def pair(made: Net, receiver: Receiver, **options: object) -> tuple[Node, Node, list[str]]:
    one, two = await made.start(1, **options), await receiver.start(made)
    await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
    return one, two, []


@pytest.mark.parametrize("loop", loops())
def test_a_snapshot_arrives_whole_with_the_message_that_announced_it(loop: str) -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == [""]
        message, path = two.handler.snapshots[0]
        assert message == snap() and path.endswith("0000000000000032.part")
        assert receiver.state(two) == STATE
        assert one.count["snapshots_sent"] == two.count["snapshots_received"] == 1
        assert one.count["snapshot_bytes_sent"] == len(WHOLE)
        assert two.count["snapshot_bytes_received"] == len(WHOLE)
        assert one.count["snapshots_sending"] == two.count["snapshots_receiving"] == 0

    on_net(body, loop)


@pytest.mark.parametrize("cut", [1, 100_000, 262_144, 1_000_000, 2_500_000, 4_900_000])
@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_cut_link_costs_only_what_was_on_its_way(cut: int, end: str) -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        # A lost answer is found by its silence, a lost link at once.
        still = QUICK.transfer_still_ticks if end == "receiver" else 1_000_000
        timing = replace(QUICK, transfer_still_ticks=still)
        one, two, verdicts = await pair(made, receiver, timing=timing)
        links = one.peers._out if end == "sender" else two.peers._out
        reader = Reader()
        cuts = 0

        def abort() -> None:
            nonlocal cuts
            cuts += 1
            for link in list(links.values()):
                link.transport.abort()

        def on_read(offset: int) -> None:
            if offset + limits.SNAPSHOT_CHUNK_BYTES >= cut and not cuts:
                one.peers.loop.call_soon_threadsafe(abort)

        reader.on_read = on_read
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == [""] and receiver.state(two) == STATE and cuts >= 1
        assert len(reader.reads) * limits.SNAPSHOT_CHUNK_BYTES < len(WHOLE) + 2 * cut + (
            4 * limits.SNAPSHOT_WINDOW_BYTES
        )

    on_net(body)


@pytest.mark.parametrize("cut", [300_000, 1_100_000, 2_200_000, 4_000_000])
def test_a_receiver_that_is_restarted_goes_on_from_its_last_whole_chunk(cut: int) -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        reader = Reader()
        gate = threading.Event()
        reader.on_read = lambda offset: offset >= cut and gate.wait(20)
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: reader.reads and reader.reads[-1] >= cut)
        waits_at = reader.reads[-1]
        await until(lambda: one.peers.peer_statistics()[2]["snapshot_bytes"][0] == waits_at)
        await made.stop(two)
        seen = len(reader.reads)
        two = await receiver.start(made)
        gate.set()
        await until(lambda: verdicts)
        assert verdicts == [""] and receiver.state(two) == STATE
        first = min(reader.reads[seen:])
        whole = (waits_at - HEADER_BYTES) // (CHUNK_BYTES + 8) * (CHUNK_BYTES + 8)
        assert first == HEADER_BYTES + whole, "from the last whole chunk, and not from the start"

    on_net(body)


def test_a_byte_flipped_once_is_asked_for_again() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        reader = Reader()
        reader.flip_at, reader.flips = 3_000_000, 1
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == [""] and receiver.state(two) == STATE
        assert two.count["snapshot_chunks_refused"] == 1

    on_net(body)


def test_a_file_that_is_damaged_at_the_sender_is_given_up_with_the_reason() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        reader = Reader()
        reader.flip_at, reader.flips = 3_000_000, 10**9
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: verdicts)
        assert f"refused {limits.SNAPSHOT_RESENDS_MAX + 1} times" in verdicts[0]
        assert "chunk 2" in verdicts[0] and "checksum" in verdicts[0]
        assert two.handler.snapshots == []
        assert one.count["snapshots_failed"] == 1
        # A whole one afterwards goes on behind the chunks that were good.
        whole = Reader()
        one.peers.send_snapshot(snap(), whole, verdicts.append)
        await until(lambda: len(verdicts) == 2)
        assert verdicts[1] == "" and min(whole.reads) > 2_000_000

    on_net(body)


def test_a_chunk_that_was_changed_on_its_way_is_refused_by_its_own_checksum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unimeter.server import peer_sending
    from unimeter.wire import peer_snapshot

    spoilt = []

    def spoil(transfer: int, offset: int, data: bytes) -> list[object]:
        frame = peer_snapshot.chunk_frame(transfer, offset, data)
        if offset >= 2_000_000 and len(spoilt) < 2:
            spoilt.append(offset)
            wrong = peer_snapshot._CHUNK.pack(transfer, offset, 12345)
            return peer_snapshot.frame_buffers(peer_snapshot.SNAPSHOT_CHUNK, [wrong, data])
        return frame

    monkeypatch.setattr(peer_sending, "chunk_frame", spoil)

    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == [""] and receiver.state(two) == STATE
        assert 1 <= two.count["snapshot_chunks_refused"] <= 2 and len(spoilt) == 2

    on_net(body)


def test_a_file_that_can_not_be_read_ends_the_transfer() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        reader = Reader(WHOLE[:1_000_000])
        reader.size = len(WHOLE)
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: verdicts)
        assert "can't be read: the snapshot ends at byte 1000000" in verdicts[0]
        assert two.handler.failures == []

    on_net(body)


def test_a_newer_snapshot_takes_the_place_of_the_one_on_its_way() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        one.peers.send_snapshot(snap(), Reader(), lambda reason: verdicts.append(f"50 {reason}"))
        await until(lambda: one.peers.peer_statistics()[2]["snapshot_bytes"][0] > 500_000)
        newer = Reader(snapshot_bytes(60))
        one.peers.send_snapshot(snap(60), newer, lambda reason: verdicts.append(f"60 {reason}"))
        await until(lambda: len(verdicts) == 2)
        assert sorted(verdicts) == ["50 another snapshot takes its place", "60 "]
        assert [message.snapshot.meta.index for message, _ in two.handler.snapshots] == [60]
        assert receiver.disk.names("d/snapshots") == ["000000000000003c.part"]

    on_net(body)


def test_an_offer_of_an_older_term_does_not_take_the_place_of_a_newer() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        three = await made.start(3)
        await until(lambda: three.peers.is_up(2) and two.peers.is_up(3))
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: one.peers.peer_statistics()[2]["snapshot_bytes"][0] > 500_000)
        late: list[str] = []
        old = snap(40, term=TERM - 1, sender=3)
        three.peers.send_snapshot(old, Reader(snapshot_bytes(40)), late.append)
        await until(lambda: late and verdicts)
        assert late == [f"one of term {TERM} is being received"]
        assert verdicts == [""] and len(two.handler.snapshots) == 1

    on_net(body)


def test_the_nodes_refusal_reaches_the_sender() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        two.handler.snapshot_verdict = "this node has entry 99 already"
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == ["this node has entry 99 already"]
        assert two.count["snapshots_refused"] == 1

    on_net(body)


def test_a_node_that_takes_no_snapshots_says_so() -> None:
    async def body(made: Net) -> None:
        one, two = await made.start(1), await made.start(2)
        await until(lambda: one.peers.is_up(2) and two.peers.is_up(1))
        verdicts: list[str] = []
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == ["this node takes no snapshots"]

    on_net(body)


def test_a_full_disk_is_a_verdict_and_a_failed_sync_stops_the_node() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        receiver.disk.capacity = limits.DISK_FREE_BYTES_MIN
        one, two, verdicts = await pair(made, receiver)
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert "does not fit" in verdicts[0] and two.handler.failures == []
        receiver.disk.capacity = None

        def fail(operation: str, path: str) -> None:
            if operation == "sync":
                raise FatalStorageError("fdatasync failed")

        receiver.disk.on_operation = fail
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: two.handler.failures)
        assert isinstance(two.handler.failures.pop(), FatalStorageError)
        assert len(verdicts) == 1, "nothing is acknowledged"

    on_net(body)


def test_a_receiver_that_never_answers_is_given_up() -> None:
    async def body(made: Net) -> None:
        impatient = replace(QUICK, transfer_give_up_ticks=5)
        one = await made.start(1, timing=impatient)
        verdicts: list[str] = []
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)  # nobody is there
        await until(lambda: verdicts)
        assert verdicts == ["the receiver has not answered for too long"]

    on_net(body)


def test_a_lost_verdict_is_asked_for_again() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        real = two.handler.on_snapshot

        def cut(message: Message, path: str) -> str:
            two.peers._out[1].close("planted", is_abrupt=True)  # before the verdict is written
            return real(message, path)

        two.handler.on_snapshot = cut  # type: ignore[method-assign]
        one.peers.send_snapshot(snap(), Reader(), verdicts.append)
        await until(lambda: verdicts)
        assert verdicts == [""]
        assert len(two.handler.snapshots) == 1, "it is installed once"

    on_net(body)


def test_a_cancelled_transfer_lets_go_of_its_reader() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, _, verdicts = await pair(made, receiver)
        reader = Reader()
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: len(reader.reads) > 2)
        one.peers.cancel_snapshot(2)
        await until(lambda: verdicts)
        seen = len(reader.reads)
        one.peers.cancel_snapshot(2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(reader.reads) == seen and verdicts == ["cancelled"]

    on_net(body)


def test_raft_messages_pass_a_snapshot_on_the_same_link() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        sent = 0
        waited: list[int] = []
        reader = Reader()

        def beat() -> None:
            nonlocal sent
            sent += 1
            waited.append(one.peers.waiting_bytes(2))
            one.peers.send(Message(MSG_HEARTBEAT, 2, 1, TERM, context=b"%d" % sent))

        reader.on_read = lambda offset: one.peers.loop.call_soon_threadsafe(beat)
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        await until(lambda: verdicts)
        assert len(two.handler.messages) >= sent - 1 > 15
        assert max(waited) <= limits.SNAPSHOT_WINDOW_BYTES + limits.SNAPSHOT_CHUNK_BYTES

    on_net(body)


def test_a_receiver_that_does_not_keep_up_is_sent_a_window_and_no_more() -> None:
    async def body(made: Net) -> None:
        receiver = Receiver()
        one, two, verdicts = await pair(made, receiver)
        gate = threading.Event()
        receiver.disk.on_operation = lambda operation, path: operation == "write" and gate.wait(20)
        reader = Reader()
        one.peers.send_snapshot(snap(), reader, verdicts.append)
        chunks = limits.SNAPSHOT_WINDOW_BYTES // limits.SNAPSHOT_CHUNK_BYTES
        await until(lambda: len(reader.reads) >= chunks)
        link = one.peers._out[2]
        age = link.age_ticks
        await until(lambda: link.age_ticks > age + 5)
        assert len(reader.reads) == chunks
        gate.set()
        await until(lambda: verdicts)
        assert verdicts == [""] and receiver.state(two) == STATE

    on_net(body)


# --- the sender by itself ----------------------------------------------------------------


class Bench:
    """What a `Sending` needs of its surroundings, done by hand."""

    def __init__(self) -> None:
        self.worker = self
        self.jobs: list[tuple[Callable[[], object], Callable[[object], None]]] = []
        self.written: list[list[bytes]] = []
        self.bytes_sent = 0
        self.ended: list[str] = []

    def do(self, work: Callable[[], object], then: Callable[[object], None]) -> None:
        self.jobs.append((work, then))

    def step(self) -> None:
        work, then = self.jobs.pop(0)
        then(work())

    def write(self, to: int, buffers: list[bytes]) -> bool:
        self.written.append(buffers)
        return True

    def is_up(self, node_id: int) -> bool:
        return True

    def sent(self, sending: Sending, reason: str, done: Callable[[str], None]) -> None:
        done(reason)

    def offsets(self) -> list[int]:
        """Where the chunks began that were written."""
        chunks = [each for each in self.written if len(each[1:2] and each[1]) == 20]
        return [decode_chunk(memoryview(each[1] + each[2])).offset for each in chunks]


def sending(bench: Bench) -> Sending:
    made = Sending(bench, 9, snap(), Reader(), bench.ended.append)  # type: ignore[arg-type]
    made.offer()
    return made


def test_a_read_that_was_under_way_when_the_sender_was_set_back_is_not_sent() -> None:
    bench = Bench()
    sender = sending(bench)
    sender.resume(Resume(9, 1000, Step.START))
    bench.step()
    sender.resume(Resume(9, 1000, Step.AGAIN, "damaged"))
    bench.step()  # the read that began before
    bench.step()
    assert bench.offsets() == [1000, 1000]
    bench.step()
    assert bench.offsets() == [1000, 1000, 1000 + limits.SNAPSHOT_CHUNK_BYTES]


def test_the_readers_owner_hears_of_the_end_only_when_no_read_is_under_way() -> None:
    bench = Bench()
    sender = sending(bench)
    sender.resume(Resume(9, 0, Step.START))
    sender.end("cancelled")
    assert bench.ended == []
    bench.step()
    sender.end("again")
    assert bench.ended == ["cancelled"] and bench.offsets() == []


def test_a_receiver_that_says_it_is_behind_the_end_is_not_believed() -> None:
    bench = Bench()
    sender = sending(bench)
    sender.resume(Resume(9, len(WHOLE) + 1, Step.START))
    assert bench.ended == [f"the receiver is at byte {len(WHOLE) + 1} of {len(WHOLE)}"]


def test_patience_lasts_while_the_receiver_says_that_it_is_busy() -> None:
    bench = Bench()
    sender = sending(bench)
    for _ in range(100):
        sender.tick(3, 5)
        sender.resume(Resume(9, 0, Step.BUSY))
    assert len(bench.written) == 1 and bench.ended == []
    for _ in range(3):
        sender.tick(3, 5)
    assert len(bench.written) == 2, "nothing moves: offered again"
    for _ in range(2):
        sender.tick(3, 5)
    assert bench.ended == ["the receiver has not answered for too long"]
