"""Three real cores over three real logs, on disks that lose power and rot.

Each seed is one history: proposals, elections, messages that are lost, late or out of
order, power cuts at any operation of a disk, flipped bytes in committed entries,
snapshots, retention, and followers so far behind that they get a snapshot. Checked
all along: whatever index is applied, every node applies the same entry there and has
the same state after it. At the end the world is healed and all three agree on
everything that was ever applied anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from tests.storage.test_raft_log import CLUSTER, KEY, PATH

from unimeter.engine import entries as kinds
from unimeter.engine.machine import Machine
from unimeter.errors import RottenEntryError, UnimeterError
from unimeter.raft import Config, ProposalDropped, RawNode
from unimeter.raft.messages import (
    LEADER,
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    MSG_SNAP,
    Entry,
    Message,
    Snapshot,
)
from unimeter.storage import layout, wal
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.repair import repair_entry
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.verify import verify
from unimeter.storage.wal import WalLimits
from unimeter.storage.witness import read_witness

VOTERS = (1, 2, 3)
BOUNDS = WalLimits(segment_bytes=8192, segment_bytes_first=8192, background=False)
ARRIVED = f"{PATH}/snapshots/arrived.part"


class PowerCut(BaseException):
    """The world stops here, for one node."""


@dataclass
class World:
    """What all nodes share: the network, what was applied, chance."""

    random: Random
    messages: list[Message] = field(default_factory=list)
    applied: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, entry: Entry, machine: Machine) -> None:
        """State machine safety: one entry and one state for each index, everywhere."""
        what = (entry.term, entry.kind, bytes(entry.body))
        assert self.applied.setdefault(entry.index, what) == what, f"entry {entry.index} differs"
        state = machine.state_hash()
        assert self.states.setdefault(entry.index, state) == state, f"state {entry.index} differs"


class Node:
    """One node over all its lives. Duties are carried out at once, but for syncs."""

    def __init__(self, world: World, node_id: int) -> None:
        self.world, self.node_id = world, node_id
        self.who = Identity(CLUSTER, node_id)
        self.disk = MemoryDisk(faults=True)
        self.is_up = False
        self.rotten: set[int] = set()  # entries with a flipped byte, not repaired yet

    # --- lives ---------------------------------------------------------------------

    def start(self) -> None:
        self.opened: Opened = self._open()
        self.log = RaftLog(self.opened, VOTERS, self.world.random.choice((0, 3000, 1 << 20)))
        self.raft = RawNode(
            Config(
                node_id=self.node_id,
                voters=VOTERS,
                max_size_per_message=4000,
                async_storage_writes=True,
                applied=self.opened.machine.applied,
                random_ticks=self.world.random.randrange,
            ),
            self.log,
        )
        self.pending: list[tuple[int, Sequence[Message]]] = []
        self.is_up = True

    def _open(self) -> Opened:
        for _ in range(9):
            try:
                return open_directory(
                    self.disk,
                    PATH,
                    cluster_id=CLUSTER,
                    node_id=self.node_id,
                    genesis_key=KEY,
                    sole_voter=False,
                    bounds=BOUNDS,
                )
            except RottenEntryError as error:
                self._repair(error.index)
        raise AssertionError("repairs without end")

    def _repair(self, index: int) -> None:
        entry = self.peers_entry(index)
        repair_entry(self.disk, PATH, self.who, entry)
        self.rotten.discard(index)
        self.world.counts["repaired"] += 1

    def peers_entry(self, index: int) -> Entry:
        """A committed entry, as a peer would send it."""
        assert index in self.rotten, f"entry {index} looks rotten and was left alone"
        term, kind, body = self.world.applied[index]
        is_timed = kind not in (kinds.NOOP, kinds.GENESIS)
        return Entry(index, term, kind, index * 10 if is_timed else 0, body)

    def crash(self) -> None:
        """A power cut; now and then a byte of a committed entry rots meanwhile."""
        world = self.world
        self.is_up = False
        self.disk.on_operation = None
        self.disk = self.disk.crash(world.random, world.random.choice((0.0, 0.3, 0.7, 1.0)))
        world.counts["crashes"] += 1
        if world.random.random() < 0.3:
            self._rot()

    def _rot(self) -> None:
        commit = read_witness(self.disk, f"{PATH}/synced").commit
        paths = [path for path in self.disk.paths() if path.endswith(".seg")]
        if not paths:
            return
        path = self.world.random.choice(paths)
        data = bytearray(self.disk.contents(path))
        position = layout.SEGMENT_HEADER_BYTES
        places = []
        while position + 64 <= len(data):
            fields = layout.ENTRY.unpack_from(data, position)
            if fields[1] != layout.header_crc_of(data[position : position + 64], self.who.seed):
                break  # the end, or one that is rotten already
            if fields[4] > min(commit, max(self.world.applied)):
                break
            size = layout.entry_bytes(fields[8])
            places.append((fields[4], position, size))
            position += size
        if places:
            index, position, size = self.world.random.choice(places)
            data[position + self.world.random.randrange(size)] ^= 4
            self.disk.put(path, bytes(data))
            self.rotten.add(index)

    # --- duties ----------------------------------------------------------------------

    def guarded(self, duty: Callable[[], object]) -> None:
        """Do it, with a power cut in the middle now and then."""
        if not self.is_up:
            return
        random = self.world.random
        left = [random.randrange(1, 7) if random.random() < 0.06 else 1 << 60]

        def on_operation(operation: str, path: str) -> None:
            left[0] -= operation != "read"
            if left[0] < 0:
                raise PowerCut

        self.disk.on_operation = on_operation
        try:
            duty()
            self.carry_out()
        except PowerCut:
            self.crash()
        except RottenEntryError as error:  # met while it was read for a follower
            self.disk.on_operation = None
            if self.opened.wal.statistics()["failed"]:
                self.world.counts["met while a suffix went"] += 1
            else:
                self.opened.wal.repair(self.peers_entry(error.index))
                self.rotten.discard(error.index)
                self.world.counts["repaired while it ran"] += 1
            self.crash()  # the duty was half done; a real node stops as well
        self.disk.on_operation = None

    def carry_out(self) -> None:
        raft = self.raft
        while raft.has_ready():
            for message in raft.ready().messages:
                if message.to == LOCAL_APPEND_THREAD:
                    self._write(message)
                elif message.to == LOCAL_APPLY_THREAD:
                    self._apply(message)
                else:
                    self._send(message)

    def _send(self, message: Message) -> None:
        if message.to == self.node_id:
            self.raft.step(message)
            return
        if message.type is MSG_SNAP:
            assert message.snapshot is not None
            path = message.snapshot.data
            assert isinstance(path, str)
            message.context = self.disk.contents(path)  # the file travels beside it
            self.raft.report_snapshot(message.to, True)
        self.world.messages.append(message)

    def _write(self, message: Message) -> None:
        log, storage = self.log, self.opened.wal
        if message.snapshot is not None:
            self.sync()
            log.install(message.snapshot)
            self.world.counts["installed"] += 1
        if message.term:
            log.persist_vote(message.term, message.vote)
            storage.note_commit(message.commit)
        if message.entries:
            first = message.entries[0].index
            if first <= storage.last_index:
                self.sync()
                self.world.counts["replaced"] += 1
            log.stage(message.entries)
        self.pending.append((storage.last_index, message.responses))
        if self.world.random.random() < 0.7:
            self.sync()

    def sync(self) -> None:
        """Make durable what is staged and deliver what waited for it."""
        synced = self.opened.wal.sync()
        pending, self.pending = self.pending, []
        for index, responses in pending:
            assert index <= synced
            for response in responses:
                self._send(response)

    def _apply(self, message: Message) -> None:
        machine = self.opened.machine
        for entry in message.entries:
            machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
            self.world.note(entry, machine)
        for response in message.responses:
            self.raft.step(response)

    def receive(self, message: Message) -> None:
        if message.type is MSG_SNAP:
            assert message.snapshot is not None
            if message.snapshot.meta.index <= self.opened.machine.applied:
                return
            file = self.disk.open(ARRIVED, create=True)
            file.write(0, [message.context])
            file.sync()
            self.disk.sync_directory(f"{PATH}/snapshots")
            received = self.opened.restore_snapshot(ARRIVED)
            snapshot = Snapshot(message.snapshot.meta, received)
            message = Message(MSG_SNAP, message.to, message.sender, message.term, snapshot=snapshot)
        self.raft.step(message)

    def propose(self) -> None:
        if not self.is_up or self.raft.role is not LEADER:
            return
        index = self.raft.last_index + 1
        body = b"%d." % self.raft.term * self.world.random.choice((1, 20, 400))
        try:
            self.raft.propose([Entry(0, 0, kinds.METRIC_DELETE, index * 10, body)])
        except ProposalDropped:
            return

    def look_after(self) -> None:
        """A snapshot, and retention."""
        opened, machine = self.opened, self.opened.machine
        if machine.applied > opened.snapshots.last_index + 4:
            opened.snapshots.begin(machine, background=False)
            result = opened.snapshots.poll()
            assert result is None or not result.error
        opened.apply_retention(RetentionPolicy(bytes=1), 0)
        opened.wal.write_witness()


class History:
    """One seed: chaos, then healing."""

    def __init__(self, seed: int) -> None:
        self.world = World(Random(seed))
        self.nodes = {node_id: Node(self.world, node_id) for node_id in VOTERS}
        for node in self.nodes.values():
            node.start()
        self.world.applied[1] = (1, kinds.GENESIS, CLUSTER + KEY)

    def run(self, steps: int = 2500) -> Counter[str]:
        cut_off = 0
        for step in range(steps):
            if step % 300 == 0:
                cut_off = self.world.random.choice((0, 0, 1, 2, 3))
            self.step(cut_off)
        self.heal()
        return self.world.counts

    def step(self, cut_off: int) -> None:
        random = self.world.random
        node = self.nodes[random.choice(VOTERS)]
        if not node.is_up:
            if random.random() < 0.3:
                self.start(node)
            return
        draw = random.random()
        if draw < 0.35:
            node.guarded(node.raft.tick)
        elif draw < 0.55:
            leader = self.nodes[self.leader()]
            leader.guarded(leader.propose)
        elif draw < 0.62:
            node.guarded(node.look_after)
        elif draw < 0.67:
            node.guarded(node.sync)
        for _ in range(3):
            self.deliver(cut_off, 0.1)

    def leader(self) -> int:
        """One that believes to lead, if any does."""
        ups = [one for one in VOTERS if self.nodes[one].is_up]
        leaders = [one for one in ups if self.nodes[one].raft.role is LEADER]
        return self.world.random.choice(leaders or list(VOTERS))

    def start(self, node: Node) -> None:
        random = self.world.random
        left = [random.randrange(1, 12) if random.random() < 0.2 else 1 << 60]

        def on_operation(operation: str, path: str) -> None:
            left[0] -= operation != "read"
            if left[0] < 0:
                raise PowerCut

        node.disk.on_operation = on_operation
        try:
            node.start()
        except PowerCut:
            node.crash()
        node.disk.on_operation = None

    def deliver(self, cut_off: int, loss: float) -> None:
        world = self.world
        if not world.messages:
            return
        place = world.random.randrange(len(world.messages))
        message = world.messages.pop(place if world.random.random() < 0.3 else 0)
        if world.random.random() < loss or cut_off in (message.to, message.sender):
            return
        node = self.nodes[message.to]
        node.guarded(lambda: node.receive(message))

    def heal(self) -> None:
        """Nothing fails any more: all nodes must reach all that was ever applied."""
        world = self.world
        world.messages.clear()
        wanted = max(world.applied)
        for node in self.nodes.values():
            node.guarded = self._calm(node)  # type: ignore[method-assign]
            if node.is_up:
                node.sync()
            else:
                node.start()
        for step in range(4000):
            for node in self.nodes.values():
                node.guarded(node.raft.tick)
                if step % 10 == 0:
                    node.guarded(node.propose)
            while world.messages:
                self.deliver(0, 0.0)
            reached = [node.opened.machine.applied for node in self.nodes.values()]
            if min(reached) > wanted and len(set(reached)) == 1:
                break
        else:
            raise AssertionError(f"they do not agree: {reached} of {wanted}")
        for node in self.nodes.values():
            node.log.check_invariants()
            node.opened.wal.check_invariants()
            for index in sorted(node.rotten):
                if index >= node.log.first_index():
                    node.opened.wal.repair(node.peers_entry(index))
            node.opened.close()
            report = verify(PATH, disk=node.disk, at_index=reached[0])
            assert report.ok and report.state_hash == world.states[reached[0]], report.problems

    @staticmethod
    def _calm(node: Node) -> Callable[[Callable[[], object]], None]:
        def duty_done(duty: Callable[[], object]) -> None:
            for _ in range(9):
                try:
                    duty()
                    node.carry_out()
                    if node.pending:
                        node.sync()
                        node.carry_out()
                    return
                except RottenEntryError as error:
                    if node.opened.wal.statistics()["failed"]:
                        node.opened.close()
                        node.start()
                        continue
                    node.opened.wal.repair(node.peers_entry(error.index))
                    node.rotten.discard(error.index)

        return duty_done


@pytest.mark.parametrize("seed", range(25))
def test_three_nodes_agree_whatever_their_disks_do(seed: int) -> None:
    History(seed).run()


def test_the_histories_reach_the_rare_places() -> None:
    total: Counter[str] = Counter()
    for seed in range(100, 115):
        total += History(seed).run()
    assert total["crashes"] > 100 and total["replaced"] > 8
    assert total["installed"] > 10 and total["repaired"] > 10


def is_caught() -> bool:
    for seed in range(40):
        try:
            History(seed).run()
        except (AssertionError, UnimeterError, FileNotFoundError, KeyError):
            return True
    return False


def test_a_sync_that_does_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from unimeter.storage.memory_disk import MemoryFile

    original = MemoryFile.sync

    def sync(self: MemoryFile) -> None:
        if not self.path.endswith(".seg"):
            original(self)

    monkeypatch.setattr(MemoryFile, "sync", sync)
    assert is_caught()


def test_a_commit_believed_of_other_entries_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal.Wal, "commit_hint", property(lambda self: self._noted_commit))
    assert is_caught()
