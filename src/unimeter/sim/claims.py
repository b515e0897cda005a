"""What a node claims to be on its disk, looked at in the moment in which it says so.

Everything that Raft promises rests on claims: *this entry is on my disk*, *I vote for you in
this term*, *this is committed*. A disk's work takes effect at once in this world, so a claim
that is made a line too early would nearly always be true by the time of the next fault. So
each message is read as its bytes are given to the socket, and compared with what a power
cut at that very moment would leave.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from unimeter.errors import DataError
from unimeter.raft.messages import LEADER, MSG_APP_RESP, MSG_VOTE, MSG_VOTE_RESP, Entry, Message
from unimeter.raft.storage import Compacted, Unavailable
from unimeter.server.peer_codec import decode_message
from unimeter.sim.platform import DATA_DIR
from unimeter.sim.replica_checks import LogMatching, ReplicaCheck
from unimeter.storage.superblock import COPIES, COPY_BYTES, decode_copy
from unimeter.wire.peer import HEADER_BYTES, RAFT

if TYPE_CHECKING:
    from unimeter.sim.machines import Machine

_PLACE = struct.Struct("<QQ")  # index and term, as they stand side by side in an entry's header
_KIND_AT = 4  # in a frame between nodes


class ClaimsAreDurable(ReplicaCheck):
    """What an answer to a leader or a candidate claims is synced before it is sent (P1).

        MsgAppResp     the entry that it acknowledges
        MsgVote        the candidate's term and its vote for itself
        MsgVoteResp    the term, and the vote where it is granted
        a commit       the newest committed entry is on a majority of the disks
        an apply       the entry is on this very disk: a start must find what it counted

    Looks for an entry by its index and term in the durable bytes of the log, not at its
    body. A disk that the simulator damaged or took away is not looked at.
    """

    def __init__(self, machines: dict[int, Machine]) -> None:
        self._machines = machines
        self._durable: dict[str, tuple[int, int]] = {}  # the newest place found on each disk
        self._commits: dict[str, int] = {}
        self.looked = 0

    # --- what is sent ------------------------------------------------------------------

    def sent(self, machine: Machine, data: bytes) -> None:
        """A node gives these bytes to a socket towards a peer."""
        if len(data) <= _KIND_AT or data[_KIND_AT] != RAFT or not machine.is_ready:
            return
        message = decode_message(memoryview(data)[HEADER_BYTES:])
        if machine.damage:
            return
        if message.type is MSG_APP_RESP and not message.reject:
            self._check_entry(machine, message)
        elif message.type is MSG_VOTE_RESP or message.type is MSG_VOTE:
            self._check_vote(machine, message)

    def _check_entry(self, machine: Machine, message: Message) -> None:
        index = message.index
        try:
            term = machine.node.replica.raft.term_of(index)
        except (Compacted, Unavailable, DataError):
            return  # below what is kept: a snapshot has it; above: replaced since, and sent late
        self.looked += 1
        if not self._has(machine, index, term):
            self.fail(
                f"{machine.name} acknowledges entry {index} of term {term} to n{message.to}, and a "
                "power cut now would take it away"
            )

    def _check_vote(self, machine: Machine, message: Message) -> None:
        self.looked += 1
        term, vote = self._promised(machine)
        wanted = machine.node_id if message.type is MSG_VOTE else message.to
        is_granted = message.type is MSG_VOTE or not message.reject
        if term < message.term or (is_granted and term == message.term and vote != wanted):
            self.fail(
                f"{machine.name} sends {message.type} of term {message.term} to n{message.to}, and "
                f"its disk says term {term}, vote {vote}"
            )

    def _promised(self, machine: Machine) -> tuple[int, int]:
        """Term and vote, as the newest whole copy on the durable disk says."""
        data = machine.disk.durable_bytes(f"{DATA_DIR}/superblock")
        newest, found = -1, (0, 0)
        for copy in range(COPIES):
            decoded = decode_copy(data[copy * COPY_BYTES : (copy + 1) * COPY_BYTES], copy)
            if not isinstance(decoded, str) and decoded[1].sequence > newest:
                newest, found = decoded[1].sequence, (decoded[1].term, decoded[1].vote)
        return found

    # --- what is on disks ----------------------------------------------------------------

    def _has(self, machine: Machine, index: int, term: int) -> bool:
        """Whether an entry, or a snapshot that has it, is durable."""
        place = index, term
        if self._durable.get(machine.name) == place:
            return True
        if machine.disk.durable_contains(_PLACE.pack(*place), f"{DATA_DIR}/log"):
            self._durable[machine.name] = place
            return True
        names = machine.disk.durable_names(f"{DATA_DIR}/snapshots")
        return any(n.endswith(".snap") and int(n[:16], 16) >= index for n in names)

    def turn(self, machine: Machine) -> None:
        """A leader that has committed something new has it on a majority of the disks."""
        raft = machine.node.replica.raft
        if raft.role is not LEADER or self._commits.get(machine.name) == raft.commit:
            return
        self._commits[machine.name] = index = raft.commit
        try:
            term = raft.term_of(index)
        except (Compacted, Unavailable, DataError):
            return
        holders = [
            one.name
            for one in self._machines.values()
            if one.is_recovering or one.damage or self._has(one, index, term)
        ]
        if 2 * len(holders) <= len(self._machines):
            self.fail(
                f"{machine.name} counts entry {index} of term {term} as committed; it is durable "
                f"on {holders or 'no disk'} of {len(self._machines)}"
            )

    def applied(self, machine: Machine, entry: Entry) -> None:
        """What a node counts it has itself."""
        if machine.damage or self._has(machine, entry.index, entry.term):
            return
        self.fail(
            f"{machine.name} counts entry {entry.index} of term {entry.term}, and a power cut now "
            "would take it away from this node"
        )

    def gone(self, machine: Machine) -> None:
        self._commits.pop(machine.name, None)
        self._durable.pop(machine.name, None)


class CommitsAreRight(ReplicaCheck):
    """A commit index moves for a reason (Raft, sections 5.3 and 5.4.2).

    A leader's own moves only to an entry of its own term: counting copies of an older one is
    the paper's figure 8. A follower's moves only over entries that it shares with the leader:
    what its append did not cover may be another leader's. The harm of either comes much
    later, if ever, so the move itself is looked at.

    Does not see a commit that moved in the turn in which a node took the lead.
    """

    def __init__(self, log: LogMatching, machines: dict[int, Machine]) -> None:
        self._log, self._machines = log, machines
        self._known: dict[str, tuple[int, int, bool]] = {}  # term, commit, whether it leads

    def turn(self, machine: Machine) -> None:
        raft = machine.node.replica.raft
        now = raft.term, raft.commit, raft.role is LEADER
        before, self._known[machine.name] = self._known.get(machine.name), now
        if before is None or raft.commit == before[1]:
            return
        try:
            term = raft.term_of(raft.commit)
        except (Compacted, Unavailable, DataError):
            return
        if now[2]:
            if before[2] and before[0] == raft.term and term != raft.term:
                self.fail(
                    f"{machine.name} leads in term {raft.term} and committed entry {raft.commit} "
                    f"of term {term} by counting"
                )
            return
        right = self._right_term(raft.commit, raft.term)
        if right and term != right:
            self.fail(
                f"{machine.name} takes entry {raft.commit} for committed and has one of term "
                f"{term} there; it is of term {right}"
            )

    def _right_term(self, index: int, term: int) -> int:
        """Of the committed entry, or of the leader's; 0 where nobody can say."""
        known = self._log.committed.get(index)
        if known is not None:
            return known.term
        for other in self._machines.values():
            if other.is_ready:
                raft = other.node.replica.raft
                if raft.role is LEADER and raft.term == term and index <= raft.last_index:
                    try:
                        return int(raft.term_of(index))
                    except (Compacted, Unavailable, DataError):
                        return 0
        return 0

    def gone(self, machine: Machine) -> None:
        self._known.pop(machine.name, None)
