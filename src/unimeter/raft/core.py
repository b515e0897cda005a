"""The state of one node in its group, and its changes of role.

Owns every field that the rules of Raft read and write, and the four transitions.
The rules themselves are functions over it, each in the module of its subject, and
data flows one way:

    raft (terms, dispatch, ticks)
     ├── election      campaign, vote
     ├── leader        answers of followers, proposals, reads, transfer
     └── follower      appends, heartbeats, snapshots
          replication  what to send to whom
           core        this: state, transitions, the two outboxes

Refuses to send: a message goes to one of two outboxes, and `rawnode` hands them out.
`messages` may leave at once. `after_append` holds what claims something durable
(an acknowledged append, a vote) and must wait for everything written before it.

One class with all of the state, because the rules of Raft do not come apart by
field: a vote reads the log, a commit reads the progress of everybody. Sub-objects
own what does come apart (`log`, `progress`, `read_index`).
"""

from __future__ import annotations

from collections.abc import Sequence

from unimeter.errors import InvalidInputError
from unimeter.raft.config import Config, Trace
from unimeter.raft.log import RaftLog
from unimeter.raft.messages import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    MSG_APP_RESP,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_VOTE,
    MSG_VOTE_RESP,
    NO_NODE,
    NOOP,
    PRE_CANDIDATE,
    Entry,
    HardState,
    Message,
    Role,
    SoftState,
    payload_size,
)
from unimeter.raft.progress import Inflights, Progress
from unimeter.raft.read_index import ReadIndex, ReadState
from unimeter.raft.storage import Storage

_BOUND_TO_NO_TERM = (MSG_PROP, MSG_READ_INDEX)
_VOTES = (MSG_VOTE, MSG_VOTE_RESP, MSG_PRE_VOTE, MSG_PRE_VOTE_RESP)
_CLAIMS_DURABLE = (MSG_APP_RESP, MSG_VOTE_RESP, MSG_PRE_VOTE_RESP)


class Core:
    """One node's state."""

    __slots__ = (
        "after_append",
        "config",
        "election_elapsed",
        "heartbeat_elapsed",
        "id",
        "lead",
        "log",
        "messages",
        "peers",
        "progress",
        "read_states",
        "reads",
        "role",
        "term",
        "term_leader",
        "timeout_ticks",
        "trace",
        "transferee",
        "uncommitted_size",
        "vote",
        "voters",
        "votes",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        config.check()
        hard_state, conf_state = storage.initial_state()
        self.config = config
        self.trace: Trace | None = config.trace
        self.id = config.node_id
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role: Role = FOLLOWER
        self.lead = NO_NODE
        # Who was seen to lead in this term, even if it does no more: there can't be another.
        self.term_leader = NO_NODE
        self.log = RaftLog(storage, config.committed_size_limit, config.entry_size)
        self.log.load(hard_state, config.applied)
        if self.log.last_term > self.term and self.log.has_entries():
            # A crash after the write of entries and before that of their term. No vote of
            # that term was durable here, so none was sent.
            self.term, self.vote = self.log.last_term, NO_NODE
        self.progress: dict[int, Progress] = {}  # of every voter, ascending; ours too
        self.peers: tuple[tuple[int, Progress], ...] = ()  # the same without ours
        self.voters: tuple[int, ...] = ()
        self.votes: dict[int, bool] = {}
        self.transferee = NO_NODE  # to whom leadership is being transferred
        self.election_elapsed = 0  # ticks since an election, or since the leader was heard
        self.heartbeat_elapsed = 0
        self.timeout_ticks = 0  # drawn anew for every election
        self.uncommitted_size = 0  # bodies this leader appended and has not applied
        self.reads = ReadIndex()
        self.read_states: list[ReadState] = []
        self.messages: list[Message] = []
        self.after_append: list[Message] = []
        self.use_voters(_agreed_voters(config.voters, conf_state.voters))
        self.become_follower(self.term, NO_NODE)

    # State as the host sees it

    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)

    def soft_state(self) -> SoftState:
        return SoftState(self.lead, self.role)

    def is_promotable(self) -> bool:
        """Whether this node may lead: it votes, and has no snapshot that is not stored yet."""
        return self.id in self.progress and self.log.unstable.snapshot is None

    def is_alone(self) -> bool:
        return self.voters == (self.id,)

    def committed_in_term(self) -> bool:
        """Whether an entry of the current term is committed; only then is `committed` all."""
        return self.log.term_or_zero(self.log.committed) == self.term

    # Outboxes

    def send(self, message: Message) -> None:
        """Put a message into the outbox where it belongs, signed, with the term it is bound to."""
        kind = message.type
        message.sender = message.sender or self.id
        if kind in _VOTES:
            assert message.term > 0, f"{kind} without the term of the election"
        elif kind not in _BOUND_TO_NO_TERM:
            assert message.term == 0
            message.term = self.term
        if kind in _CLAIMS_DURABLE:
            self.after_append.append(message)
            return
        assert message.to != self.id, f"{kind} to oneself"
        if kind is MSG_VOTE and self.config.votes_wait_for_sync:
            self.after_append.append(message)
        else:
            self.messages.append(message)

    # Log

    def append_entries(self, entries: Sequence[Entry]) -> bool:
        """Append proposed entries in this term; False when too much is uncommitted already.

        This node's own copy is counted when the answer it sends to itself comes back,
        which is after the entries are durable here.
        """
        assert self.role is LEADER
        size = payload_size(entries)
        uncommitted = self.uncommitted_size
        limit = self.config.uncommitted_size_limit
        # A single entry of any size goes in when nothing waits; an empty one always does.
        if uncommitted and size and uncommitted + size > limit:
            return False
        self.uncommitted_size = uncommitted + size
        log, term = self.log, self.term
        index = log.last_index
        own = []
        for entry in entries:
            index += 1
            own.append(Entry(index, term, entry.kind, entry.timestamp_ns, entry.body))
        log.append(own)
        self.send(Message(MSG_APP_RESP, self.id, self.id, index=index))
        return True

    def applied_to(self, entries: Sequence[Entry]) -> None:
        """Note that the host has applied entries."""
        self.log.applied_to(max(entries[-1].index, self.log.applied), self.log.size(entries))
        self.uncommitted_size = max(self.uncommitted_size - payload_size(entries), 0)

    def withdraw(self, index: int) -> None:
        """End the log before an entry that this only member of the group could not write."""
        assert self.role is LEADER
        self.uncommitted_size -= payload_size(self.log.withdraw(index))
        progress = self.progress[self.id]
        progress.next = min(progress.next, index)
        self.after_append = [one for one in self.after_append if one.index < index]

    def forget_progress(self, node: int) -> None:
        """Know nothing of a node's log."""
        fresh = self._fresh_progress(0)
        self.progress[node] = fresh
        self.peers = tuple((n, progress) for n, progress in self.progress.items() if n != self.id)

    # Transitions

    def become_follower(self, term: int, lead: int) -> None:
        self._reset(term)
        self.role = FOLLOWER
        self.follow(lead)
        if self.trace is not None:
            self.trace("INFO", f"{self.id:x} became follower at term {self.term}")

    def become_candidate(self) -> None:
        assert self.role is not LEADER
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = CANDIDATE
        if self.trace is not None:
            self.trace("INFO", f"{self.id:x} became candidate at term {self.term}")

    def become_pre_candidate(self) -> None:
        """Ask whether an election could be won; neither term nor vote changes, §9.6."""
        assert self.role is not LEADER
        self.votes = {}
        self.lead = NO_NODE
        self.role = PRE_CANDIDATE
        if self.trace is not None:
            self.trace("INFO", f"{self.id:x} became pre-candidate at term {self.term}")

    def become_leader(self) -> None:
        """Lead, and append the empty entry that commits what earlier terms left, §5.4.2."""
        assert self.role is CANDIDATE
        self._reset(self.term)
        self.role = LEADER
        self.follow(self.id)
        own = self.progress[self.id]
        own.become_replicate()
        own.recent_active = True
        accepted = self.append_entries((Entry(0, 0, NOOP, 0, b""),))
        assert accepted
        if self.trace is not None:
            self.trace("INFO", f"{self.id:x} became leader at term {self.term}")

    def follow(self, lead: int) -> None:
        """Take a node as this term's leader. A second one in a term is the end: stop here.

        Election safety (§5.2) has failed, by a bug or by a node that lost its vote; every
        further entry could be acknowledged twice with different contents.
        """
        if lead != NO_NODE:
            assert self.term_leader in (NO_NODE, lead), (
                f"two leaders of term {self.term}: {self.term_leader:x} and {lead:x}"
            )
            self.term_leader = lead
        self.lead = lead

    def _reset(self, term: int) -> None:
        """Begin a role: nothing of the one before is kept but the log, the term and the vote."""
        assert term >= self.term, f"term went back from {self.term} to {term}"
        if term != self.term:
            self.term = term
            self.vote = NO_NODE
            self.term_leader = NO_NODE
        self.lead = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        config = self.config
        spread = config.random_ticks(config.election_ticks)
        assert 0 <= spread < config.election_ticks
        self.timeout_ticks = config.election_ticks + spread
        self.transferee = NO_NODE
        self.votes = {}
        self.uncommitted_size = 0
        self.reads = ReadIndex()
        self._reset_progress()

    def _reset_progress(self) -> None:
        last = self.log.last_index
        self.progress = {
            node: self._fresh_progress(last if node == self.id else 0) for node in self.voters
        }
        self.peers = tuple((n, progress) for n, progress in self.progress.items() if n != self.id)

    def _fresh_progress(self, match: int) -> Progress:
        config = self.config
        inflights = Inflights(config.max_inflight_messages, config.inflight_bytes_limit)
        return Progress(match, self.log.last_index + 1, inflights)

    def use_voters(self, voters: tuple[int, ...]) -> None:
        """Take the members of the group, from the configuration or from a snapshot."""
        assert self.role is not LEADER, "a leader's group is fixed"
        self.voters = tuple(sorted(voters))
        self._reset_progress()

    def check_invariants(self) -> None:
        self.log.check_invariants()
        assert (self.role is LEADER) == (self.lead == self.id)
        assert self.lead in (NO_NODE, self.term_leader)
        assert self.role is not CANDIDATE or self.vote == self.id
        assert self.election_elapsed >= 0
        if self.role is LEADER:
            for progress in self.progress.values():
                progress.check_invariants()
                assert progress.match <= self.log.last_index


def _agreed_voters(configured: tuple[int, ...], stored: tuple[int, ...]) -> tuple[int, ...]:
    if configured and stored and sorted(configured) != sorted(stored):
        raise InvalidInputError(
            f"raft: configured with the voters {configured}, and the stored state has {stored}: "
            "membership is fixed; start with the stored voters"
        )
    return configured or stored
