"""What must hold for the replicas after every step, one class per promise.

Each looks at the nodes as they are, from outside, and remembers what it needs; none asks a
node whether it is right. They see only nodes that run: what a node did and forgot
before it was looked at, they can't see.

    turn(machine)               after every turn of a node's loop
    applied(machine, ...)       after every entry that a node counted
    ready(machine)              a node has opened its directory
    gone(machine)               a process has ended
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unimeter.engine.entries import NOOP
from unimeter.errors import DataError
from unimeter.raft.messages import LEADER, Entry
from unimeter.raft.storage import Compacted
from unimeter.sim.failures import CheckFailed
from unimeter.sim.platform import DATA_DIR

if TYPE_CHECKING:
    from unimeter.sim.machines import Machine


@dataclass(frozen=True)
class Committed:
    """An entry as the first replica that counted it had it."""

    term: int
    kind: int
    timestamp_ns: int
    crc: int
    body: bytes
    at_ns: int  # virtual time of the first count


class ReplicaCheck:
    """One promise."""

    def turn(self, machine: Machine) -> None:
        """A node's loop has turned."""

    def applied(self, machine: Machine, entry: Entry) -> None:
        """A node has counted an entry."""

    def ready(self, machine: Machine) -> None:
        """A node is open."""

    def gone(self, machine: Machine) -> None:
        """A process has ended."""

    def acknowledged(self, position: int) -> None:
        """A client has been told that its batch, in this entry or before, is stored."""

    def fail(self, sentence: str) -> None:
        """The promise is broken."""
        raise CheckFailed(type(self).__name__, sentence)


class OneLeaderPerTerm(ReplicaCheck):
    """No term has two leaders (Raft, section 5.2).

    Does not see a leader that was elected and deposed within one turn of its loop.
    """

    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}

    def turn(self, machine: Machine) -> None:
        raft = machine.node.replica.raft
        if raft.role is LEADER:
            if raft.term not in self.leaders:
                machine.world.story.tell("lead", machine.name, raft.term)
            leader = self.leaders.setdefault(raft.term, machine.name)
            if leader != machine.name:
                self.fail(f"{leader} and {machine.name} both lead in term {raft.term}")


class CommitNeverMovesBack(ReplicaCheck):
    """Within one life of a process neither commit, applied nor term moves back.

    Across lives only the term is looked at: a node finds out anew what is committed.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}
        self._terms: dict[str, int] = {}

    def turn(self, machine: Machine) -> None:
        raft, applied = machine.node.replica.raft, machine.node.machine.applied
        commit, before = self._known.get(machine.name, (0, 0))
        if raft.commit < commit or applied < before:
            self.fail(
                f"{machine.name}: commit {commit} to {raft.commit}, applied {before} to {applied}"
            )
        self._known[machine.name] = raft.commit, applied
        if machine.node.failure is None:
            term = machine.node.opened.superblock.current.term
            self._terms[machine.name] = 0 if machine.is_recovering else term

    def ready(self, machine: Machine) -> None:
        term = machine.node.replica.raft.term
        known = self._terms.get(machine.name, 0)
        if term < known and not machine.is_recovering:
            self.fail(f"{machine.name} knew term {known} and came back in term {term}")

    def gone(self, machine: Machine) -> None:
        self._known.pop(machine.name, None)


class LogMatching(ReplicaCheck):
    """Replicas count the same entries, and one index and term is one entry (section 5.3).

    Of entries that are not committed it looks at the newest of a log after each turn.
    """

    def __init__(self) -> None:
        self.committed: dict[int, Committed] = {}
        self._by_place: dict[tuple[int, int], tuple[int, int]] = {}
        self._newest: dict[str, tuple[int, int]] = {}

    def applied(self, machine: Machine, entry: Entry) -> None:
        known = self.committed.get(entry.index)
        # A NOOP says no time of its own: on disk it has that of the entry before.
        timestamp_ns = 0 if entry.kind == NOOP else entry.timestamp_ns
        found = Committed(
            entry.term, entry.kind, timestamp_ns, zlib.crc32(entry.body), bytes(entry.body),
            machine.world.scheduler.now_ns,
        )  # fmt: skip
        if known is None:
            self.committed[entry.index] = found
        elif (known.term, known.kind, known.timestamp_ns, known.crc) != (
            found.term, found.kind, found.timestamp_ns, found.crc,
        ):  # fmt: skip
            self.fail(
                f"entry {entry.index} of {machine.name} has term {found.term}, kind {found.kind}, "
                f"crc {found.crc:08x}; the first replica that counted it had term {known.term}, "
                f"kind {known.kind}, crc {known.crc:08x}"
            )

    def turn(self, machine: Machine) -> None:
        replica = machine.node.replica
        place = replica.raft.last_index, replica.raft.term
        if self._newest.get(machine.name) == place:
            return
        self._newest[machine.name] = place
        index = place[0]
        if index <= machine.node.machine.applied:
            return
        # From memory only: reading the disk could find damage, and a checker must change nothing.
        entry = replica.log.maybe_recent(index)
        if entry is None or replica.is_sole:  # who is alone may take back what nobody saw
            return
        found = zlib.crc32(entry.body), entry.kind
        known = self._by_place.setdefault((index, entry.term), found)
        if known != found:
            self.fail(f"{machine.name}: another entry {index} of term {entry.term} exists")

    def gone(self, machine: Machine) -> None:
        self._newest.pop(machine.name, None)


class LeaderCompleteness(ReplicaCheck):
    """Whoever leads has every committed entry (section 5.4).

    Looked at when a node is first seen leading in a term, at the newest committed entry;
    log matching makes the rest follow.
    """

    def __init__(self, log: LogMatching) -> None:
        self._log = log
        self._seen: set[tuple[int, str]] = set()

    def turn(self, machine: Machine) -> None:
        raft = machine.node.replica.raft
        if raft.role is not LEADER or (raft.term, machine.name) in self._seen:
            return
        self._seen.add((raft.term, machine.name))
        newest = max(self._log.committed, default=0)
        if not newest or self._log.committed[newest].term > raft.term:
            return  # a newer leader's: this one has only not heard of it
        if raft.last_index < newest:
            self.fail(
                f"{machine.name} leads in term {raft.term} with entries up to "
                f"{raft.last_index}; entry {newest} is committed"
            )
        try:
            term = machine.node.replica.log.term(newest)
        except (Compacted, DataError):  # damaged: whoever needs it finds out
            return
        if term != self._log.committed[newest].term:
            self.fail(
                f"{machine.name} leads in term {raft.term} and has entry {newest} of term {term}; "
                f"the committed one is of term {self._log.committed[newest].term}"
            )


class ReplicasEqual(ReplicaCheck):
    """Replicas at one index have one state: the hashes that they compute are equal (P4).

    Sees the entries at which states are hashed, every `state_hash_entries`, and the end.
    """

    def __init__(self) -> None:
        self.hashes: dict[int, tuple[str, str]] = {}
        self.compared = 0

    def turn(self, machine: Machine) -> None:
        cluster = machine.server.cluster if machine.server is not None else None
        if cluster is not None and cluster.hashes.newest[0]:
            index, state = cluster.hashes.newest
            self.note(machine.name, index, state.hex())

    def note(self, name: str, index: int, state: str) -> None:
        """A replica's state at an index."""
        first, known = self.hashes.setdefault(index, (name, state))
        if known != state:
            self.fail(f"at entry {index} the state of {first} is {known}, that of {name} {state}")
        self.compared += first != name


class SnapshotsEqual(ReplicaCheck):
    """Snapshots of one index are the same bytes on every replica (P4).

    Damaged ones are passed over: those are found by their checksums.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, bytes]] = {}
        self._newest: dict[str, int] = {}
        self.compared = 0

    def turn(self, machine: Machine) -> None:
        newest = machine.node.opened.snapshots.last_index
        if newest and self._newest.get(machine.name) != newest:
            self._newest[machine.name] = newest
            path = f"{DATA_DIR}/snapshots/{newest:016x}.snap"
            if machine.disk.exists(path) and not machine.damage:
                self._compare(machine.name, newest, machine.disk.contents(path))

    def _compare(self, name: str, index: int, data: bytes) -> None:
        first, known = self._known.setdefault(index, (name, data))
        if known != data:
            self.fail(f"the snapshots {index} of {first} and {name} differ")
        self.compared += first != name


class AcknowledgedIsDurable(ReplicaCheck):
    """An acknowledged entry is on the disks of a majority, synced, at that moment (P1).

    Looks for the entry's own bytes in what a power cut now would leave; a snapshot that
    covers it counts as well. A disk that the simulator damaged or took away is not
    counted against the cluster.
    """

    def __init__(self, log: LogMatching, machines: dict[int, Machine]) -> None:
        self._log, self._machines = log, machines
        self.looked = 0

    def acknowledged(self, position: int) -> None:
        """A client has been told that its batch, in this entry or before, is stored."""
        entry = self._log.committed.get(position)
        if entry is None:
            self.fail(f"entry {position} was acknowledged and no replica has counted it")
            return
        if len(entry.body) < 64:
            return  # too short to be told from others
        self.looked += 1
        holders = [m.name for m in self._machines.values() if self._has(m, position, entry.body)]
        if len(holders) * 2 <= len(self._machines):
            self.fail(
                f"entry {position} is acknowledged and durable on {holders or 'no disk'} "
                f"of {len(self._machines)}"
            )

    def _has(self, machine: Machine, index: int, body: bytes) -> bool:
        if machine.damage or machine.is_recovering:
            return True
        if machine.disk.durable_contains(body, f"{DATA_DIR}/log"):
            return True
        names = machine.disk.durable_names(f"{DATA_DIR}/snapshots")
        return any(n.endswith(".snap") and int(n[:16], 16) >= index for n in names)
