"""One node's copy of the log: drives the Raft core over the disk and the peers.

Owns the order of duties between three things that know nothing of each other:

    propose, step, tick ──> raft ──Ready──┬─> messages to peers        (at once)
                             ▲            ├─> entries, term and vote ──> log ──sync──┐
                             │            └─> committed entries ──> the node applies │
                             └────────── responses, once durable or applied <────────┘

The core runs with asynchronous storage writes: an entry goes to the followers while this
node's own sync runs, and what rests on the sync (this node's own vote for the entry, the
answer to a leader) is a response that the core attached and that is delivered only
afterwards. So no line of this module can acknowledge too early; it can only be late.

Most entries are followed by another one at once, whose message carries the commit index of
the first. So a message that carries nothing else is held for COMMIT_HOLD_SECONDS and
dropped where the next entry overtakes it: half of all messages of a busy leader.

A vote or a new term is written before anything else happens. It is rare, so
the loop waits for it.

How entries reach the disk, in groups, and what happens when it is full, is `group_commit`'s.

Rejected: a second path for a group of one. It would be some 60 microseconds faster for a
lone event, and the code that every promise rests on would be the one that is tested less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from unimeter import limits
from unimeter.engine.machine import Machine
from unimeter.errors import DiskFullError
from unimeter.raft.config import Config as RaftConfig
from unimeter.raft.messages import (
    LEADER,
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    MSG_APP,
    MSG_PRE_VOTE,
    MSG_PROP,
    MSG_TIMEOUT_NOW,
    MSG_VOTE,
    NO_NODE,
    Entry,
    Message,
    Role,
    Snapshot,
)
from unimeter.raft.rawnode import ProposalDropped, RawNode
from unimeter.server.group_commit import GroupCommit
from unimeter.server.hosts import Host
from unimeter.server.platform import Platform
from unimeter.server.statistics import Statistics
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.recovery import Opened

COMMIT_HOLD_SECONDS = 0.001
"""How long followers may hear of a commit later than they could; a lone event takes as long."""

_MUTE = (MSG_VOTE, MSG_PRE_VOTE, MSG_TIMEOUT_NOW)  # what a node that may not vote does not hear


class Owner(Protocol):
    """What a replica tells the node it belongs to. All calls are on the host's thread."""

    def before_group(self) -> None:
        """A group is about to be written: propose what is open, so that it goes along."""

    def committed(self, entries: Sequence[Entry], done: Callable[[], None]) -> None:
        """Apply these, in order and after all before them; call `done` once they are."""

    def withdrawn(self, from_index: int, error: DiskFullError) -> None:
        """The entries from this index on are taken back: nobody but this node saw them."""

    def role_changed(self, lead: int, role: Role, term: int) -> None:
        """Another leader is known, or none, or this node's own part has changed."""

    def installed(self, machine: Machine) -> None:
        """A peer's snapshot is in effect: this is the state now."""

    def send(self, message: Message) -> None:
        """Bring a message to the peer it is for; it may get lost."""

    def confirmed(self, context: bytes, index: int) -> None:
        """A majority agreed that nothing committed before the question is above `index`."""

    def fail(self, error: BaseException) -> None:
        """The disk failed or an invariant broke: nothing more may be acknowledged."""


class Replica:
    """The log, the core and the sync thread of one node."""

    def __init__(
        self,
        opened: Opened,
        host: Host,
        owner: Owner,
        statistics: Statistics,
        *,
        voters: tuple[int, ...],
        platform: Platform,
        is_mute: bool = False,
    ) -> None:
        """Take over an open directory; `start` before anything else."""
        self.opened, self.host, self.owner = opened, host, owner
        self.statistics = statistics
        self.wal = opened.wal
        self.voters = voters
        self.is_mute = is_mute  # may not vote or campaign: the directory is being recovered
        self.log = RaftLog(opened, voters, can_mend=len(voters) > 1)
        self.raft = RawNode(
            RaftConfig(
                node_id=opened.node_id,
                voters=voters,
                election_ticks=limits.ELECTION_TICKS,
                heartbeat_ticks=limits.HEARTBEAT_TICKS,
                max_size_per_message=limits.APPEND_BYTES_MAX,
                max_committed_size_per_ready=limits.APPLY_BYTES_MAX,
                max_inflight_messages=limits.APPENDS_INFLIGHT_MAX,
                max_inflight_bytes=limits.APPENDS_INFLIGHT_BYTES_MAX,
                async_storage_writes=True,
                forward_proposals=False,  # an entry's offsets and time are its leader's own
                applied=opened.machine.applied,
                random_ticks=platform.random_ticks,  # spreads elections
            ),
            self.log,
        )
        self.lead, self.role = NO_NODE, self.raft.role
        self.group = GroupCommit(self.wal, self.log, host, self, statistics, platform)
        self._applies: list[Message] = []
        self._held_commits: dict[int, Message] = {}  # appends without entries, by peer
        self._is_carrying_out = False
        self._is_stopped = False

    # --- what is known -----------------------------------------------------------

    @property
    def is_sole(self) -> bool:
        """Whether this node is the whole group."""
        return len(self.voters) == 1

    @property
    def leads(self) -> bool:
        """Whether proposals are taken here."""
        return self.role is LEADER and self.raft.transferee == NO_NODE

    @property
    def term(self) -> int:
        return self.raft.term

    @property
    def leads_others(self) -> bool:
        """Whether this node leads followers."""
        return self.role is LEADER and not self.is_sole

    @property
    def syncing(self) -> bool:
        """Whether the sync thread has work."""
        return self.group.syncing

    @property
    def has_work(self) -> bool:
        """Whether something given is not durable yet."""
        return self.group.has_work

    # --- input -------------------------------------------------------------------

    def campaign(self) -> None:
        """Stand for election now."""
        if not self.is_mute:
            self.raft.campaign()
            self.carry_out()

    def propose(self, kind: int, timestamp_ns: int, body: bytes) -> tuple[int, int] | None:
        """Append an entry to the leader's log: (index, term); None where proposals are not taken.

        Its way is only begun: `carry_out` sends and stages it, `flush` makes it durable.
        """
        # The core's own word counts: a message since its last Ready may have deposed it.
        if not self.leads or self.raft.role is not LEADER:
            return None
        try:
            self.raft.propose([Entry(0, 0, kind, timestamp_ns, body)])
        except ProposalDropped:
            return None
        return self.raft.last_index, self.raft.term

    def step(self, message: Message) -> None:
        """Take a peer's message; what follows from it happens in `carry_out`."""
        if message.type is MSG_PROP or (self.is_mute and message.type in _MUTE):
            return
        self.raft.step(message)

    def tick(self) -> None:
        """Let one tick of the core's clock pass."""
        if not self.is_mute:
            self.raft.tick()
        self.carry_out()
        self.group.retry()

    def forget(self, node: int) -> None:
        """A peer has another log than before, because it lost its disk.

        What was meant for its former self is sent first, when there is no link yet: the new
        one would be told to commit entries that it does not have.
        """
        self.carry_out()
        self.raft.forget_progress(node)

    # --- the core's duties ---------------------------------------------------------

    def carry_out(self) -> None:
        """Do all that the core wants done now, in its order."""
        if self._is_carrying_out or self._is_stopped:
            return
        self._is_carrying_out = True
        try:
            self._work_off_ready()
            while self._applies and not self._is_stopped:
                # The next group is under way before the slower work of counting this one.
                self.group.start_next()
                applies, self._applies = self._applies, []
                for message in applies:
                    self._apply(message)
                self._work_off_ready()
        finally:
            self._is_carrying_out = False

    def _work_off_ready(self) -> None:
        raft = self.raft
        while raft.has_ready():
            ready = raft.ready()
            for message in ready.messages:
                self._dispatch(message)
            # Only now: a new leader goes on where its log ends, and this very Ready may hold
            # entries of the leader before.
            if ready.soft_state is not None:
                self._change_role(ready.soft_state.lead, ready.soft_state.role)
            for state in ready.read_states:
                self.owner.confirmed(state.context, state.index)

    def _dispatch(self, message: Message) -> None:
        if message.to == LOCAL_APPEND_THREAD:
            self._write(message)
        elif message.to == LOCAL_APPLY_THREAD:
            self._applies.append(message)
        elif message.to == self.raft.node_id:
            self.raft.step(message)
        elif message.type is MSG_APP:
            self._send_append(message)
        else:
            self.owner.send(message)

    def _send_append(self, message: Message) -> None:
        if message.entries or message.term != self.raft.term:
            self._held_commits.pop(message.to, None)  # this one says as much, and more
            self.owner.send(message)
            return
        is_first = not self._held_commits
        self._held_commits[message.to] = message
        if is_first:
            self.host.later(COMMIT_HOLD_SECONDS, self._send_held)

    def _send_held(self) -> None:
        held, self._held_commits = self._held_commits, {}
        if not self._is_stopped:
            for message in held.values():
                self.owner.send(message)

    def _change_role(self, lead: int, role: Role) -> None:
        self.lead, self.role = lead, role
        self.owner.role_changed(lead, role, self.raft.term)

    def _apply(self, message: Message) -> None:
        def done() -> None:
            for response in message.responses:
                self.raft.step(response)
            self.carry_out()

        self.owner.committed(message.entries, done)

    # --- writing -------------------------------------------------------------------

    def _write(self, message: Message) -> None:
        """Term and vote at once, entries with the next sync, responses after them."""
        if message.snapshot is not None:
            self._install(message.snapshot)
        if message.term:
            self.log.persist_vote(message.term, message.vote)
            self.wal.note_commit(message.commit)
        self.group.write(message.entries, message.responses)

    def _install(self, snapshot: Snapshot) -> None:
        """A snapshot replaces log and state."""
        self.group.settle()
        self.owner.installed(self.log.install(snapshot))
        self.group.go_on_after_install()

    def flush(self) -> None:
        """Make durable what is staged."""
        self.group.flush()

    def start_next(self) -> None:
        """Hand over what is for the sync thread anyway."""
        self.group.start_next()

    def try_resume(self) -> bool:
        """Whether a full disk has space again."""
        return self.group.try_resume()

    # --- what the group commit tells ---------------------------------------------------

    def before_group(self) -> None:
        """What is open goes along with the next group."""
        self.owner.before_group()

    def respond(self, responses: Sequence[Message]) -> None:
        """Deliver what waited for the disk: to the core, or to a peer."""
        node_id = self.raft.node_id
        for response in responses:
            if response.to == node_id:
                self.raft.step(response)
            else:
                self.owner.send(response)

    def withdraw(self, from_index: int, error: DiskFullError) -> None:
        """The disk is full; a group of one takes back what was not written."""
        if from_index:
            self.raft.withdraw(from_index)
        self.owner.withdrawn(from_index, error)

    def fail(self, error: BaseException) -> None:
        """Nothing more is written or delivered; the owner hears why."""
        self.stop()
        self.owner.fail(error)

    def stop(self) -> None:
        """Carry out no further duty."""
        self._is_stopped = True
        self.group.stop()

    # --- the end -------------------------------------------------------------------

    def finish(self) -> None:
        """End the sync thread, sync the rest here, and do no more."""
        self.group.end_thread()
        self.carry_out()
        self.group.sync_rest()
        self.stop()

    def last_events_entry(self, above: int) -> Entry | None:
        """The newest EVENTS entry above an index, applied or not; None if there is none."""
        return self.group.last_events_entry(above)

    @property
    def timestamp_ns(self) -> int:
        """The time of the newest entry: the next one's is not before it."""
        return self.group.timestamp_ns

    def check_invariants(self) -> None:
        """Slow; for tests and the simulator."""
        self.raft.check_invariants()
        self.group.check_invariants()
