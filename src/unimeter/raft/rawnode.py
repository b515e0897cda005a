"""The face of the core: inputs in, `Ready` out.

Owns the order of handing out: what of the state was seen by the host and what is new,
and with it that every duty is handed out once. Refuses locks, threads and callbacks:
one caller, in turn. The loop of a host is

    node.tick() / node.step(message) / node.propose(entries)      any of these, many times
    while node.has_ready():
        ready = node.ready()
        ...carry it out, as `ready` says...
        node.advance()                                            only without async writes

`step` answers False and never raises for a message that a peer could have sent: what
arrives late, twice or from a stranger is no reason to stop. It does raise
AssertionError when the protocol itself is broken, and then the process has to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unimeter.errors import UnimeterError
from unimeter.raft import raft
from unimeter.raft.config import Config
from unimeter.raft.core import Core
from unimeter.raft.messages import (
    FOLLOWER,
    LEADER,
    LOCAL_TARGETS,
    LOCAL_TYPES,
    MSG_HUP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP_STATUS,
    MSG_TRANSFER_LEADER,
    MSG_UNREACHABLE,
    NO_NODE,
    RESPONSE_TYPES,
    Entry,
    HardState,
    Message,
    Role,
    SoftState,
)
from unimeter.raft.progress import Progress
from unimeter.raft.ready import (
    Ready,
    needs_append_response,
    storage_append,
    storage_append_response,
    storage_apply,
    storage_apply_response,
)
from unimeter.raft.storage import Storage


class ProposalDropped(UnimeterError):
    """Nothing was appended: no leader is known, or it can't take more now. Try again later."""

    retryable = True


@dataclass(slots=True)
class Status:
    """A node and, if it leads, what it knows of the others."""

    node_id: int
    hard_state: HardState
    soft_state: SoftState
    applied: int
    transferee: int
    progress: dict[int, Progress]  # live objects, to be read at once; empty unless it leads


class RawNode:
    """One node of a group, without any I/O."""

    __slots__ = (
        "_async_writes",
        "_core",
        "_on_advance",
        "_seen_hard",
        "_seen_soft",
        "messages_dropped",
        "messages_stepped",
        "proposals_dropped",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        self._core = Core(config, storage)
        self._async_writes = config.async_storage_writes
        self._seen_soft = self._core.soft_state()
        # A term that was raised from the log's is still to be written.
        term, vote, _ = storage.initial_state()[0]
        self._seen_hard = HardState(term, vote, self._core.log.committed)
        self._on_advance: list[Message] = []
        self.messages_stepped = 0
        self.messages_dropped = 0  # late, from a stranger, or for another role
        self.proposals_dropped = 0

    # For who watches from outside

    def term_of(self, index: int) -> int:
        """The term of an entry, on disk or not yet; raises Compacted or Unavailable."""
        return self._core.log.term(index)

    # Inputs

    def tick(self) -> None:
        """Let one tick pass; elections and heartbeats come from here."""
        raft.tick(self._core)

    def campaign(self) -> None:
        """Begin an election now."""
        raft.step(self._core, Message(MSG_HUP, sender=self._core.id))

    def propose(self, entries: Sequence[Entry]) -> int:
        """Append entries if this node leads, else send them on; ProposalDropped if neither.

        Index and term of the given entries are not looked at. Returns the index of the last
        one, 0 when they were sent on. Nothing is acknowledged by this: an entry is stored
        when one with this index **and this term** comes out of `committed_entries`.
        """
        core = self._core
        if not raft.step(core, Message(MSG_PROP, sender=core.id, entries=entries)):
            self.proposals_dropped += 1
            raise ProposalDropped("no leader is known, or it takes no proposals now")
        return core.log.last_index if core.role is LEADER else 0

    def step(self, message: Message) -> bool:
        """Handle a message of a peer, or a completion of this node's own storage.

        False when it was dropped: of an older term, from a stranger, of a type that only a
        node itself may make.
        """
        self.messages_stepped += 1
        core = self._core
        handled = self._is_acceptable(message) and raft.step(core, message)
        if not handled:
            self.messages_dropped += 1
        return handled

    def _is_acceptable(self, message: Message) -> bool:
        kind, sender = message.type, message.sender
        if sender in self._core.progress:
            return kind not in LOCAL_TYPES
        if sender in LOCAL_TARGETS:
            return True
        return kind not in LOCAL_TYPES and kind not in RESPONSE_TYPES

    def read_index(self, context: bytes) -> bool:
        """Ask for an index that makes a read linearizable; the answer is in `read_states`.

        False when no leader is known. There may be no answer: ask again after a while.
        """
        return raft.step(self._core, Message(MSG_READ_INDEX, sender=self._core.id, context=context))

    def transfer_leader(self, to: int) -> None:
        """Hand leadership to a node; on a follower, ask the leader to. Proposals pause."""
        raft.step(self._core, Message(MSG_TRANSFER_LEADER, sender=to))

    def report_unreachable(self, node: int) -> None:
        """Say that messages to a node were lost, so that it is probed and not flooded."""
        raft.step(self._core, Message(MSG_UNREACHABLE, sender=node))

    def report_snapshot(self, node: int, succeeded: bool) -> None:
        """Say how the sending of a snapshot ended; needed after a MsgSnap that failed."""
        raft.step(self._core, Message(MSG_SNAP_STATUS, sender=node, reject=not succeeded))

    def forget_leader(self, node: int) -> None:
        """Take the word of the host that a leader's process is gone.

        A follower then grants votes and may campaign without waiting for its timeout. Only
        the time of an election depends on it, so a wrong word costs an election and no more.
        """
        core = self._core
        if core.role is FOLLOWER and core.lead == node:
            core.become_follower(core.term, NO_NODE)

    def vote_for_leader(self) -> None:
        """Give a vote that is not cast to the leader of this term, which needs it no more.

        For a node whose earlier votes are not known: it can't vote for another then, not even
        after a restart.
        """
        core = self._core
        if core.vote == NO_NODE and core.lead != NO_NODE:
            core.vote = core.lead

    def forget_progress(self, node: int) -> None:
        """Take the word of the host that a node has another log than before: it lost its disk.

        What it once acknowledged counts no more; it is probed from the end of the log.
        """
        core = self._core
        if core.role is LEADER and node in core.progress and node != core.id:
            core.forget_progress(node)

    def withdraw(self, index: int) -> None:
        """Take back the entries from an index on, which the host could not write.

        Only in a group of one: nobody else has seen them, so it is as if the process had
        stopped before they were proposed. Their completions must not be delivered.
        """
        core = self._core
        assert core.is_alone(), "what others may have seen can't be taken back"
        assert index > core.log.committed, "what is committed can't be taken back"
        core.withdraw(index)

    # Outputs

    def has_ready(self) -> bool:
        """Whether `ready` has anything to say."""
        core = self._core
        if core.messages or core.after_append or core.read_states:
            return True
        log = core.log
        unstable = log.unstable
        return (
            unstable.has_next_entries()
            or log.has_next_committed(not self._async_writes)
            or (unstable.snapshot is not None and not unstable.snapshot_in_progress)
            or self._hard_changed()
            or self._soft_changed()
        )

    # Compared field by field: the hot path asks far more often than there is news.

    def _hard_changed(self) -> bool:
        core, seen = self._core, self._seen_hard
        return core.log.committed != seen.commit or core.term != seen.term or core.vote != seen.vote

    def _soft_changed(self) -> bool:
        core, seen = self._core, self._seen_soft
        return core.role is not seen.role or core.lead != seen.lead

    def ready(self) -> Ready:
        """Hand out what the host has to do; nothing of it is handed out again."""
        assert self._async_writes or not self._on_advance, "ready() again without advance()"
        core = self._core
        log = core.log
        entries = log.unstable.next_entries()
        seen = self._seen_hard
        ready = Ready(
            soft_state=core.soft_state() if self._soft_changed() else None,
            hard_state=core.hard_state() if self._hard_changed() else None,
            read_states=core.read_states,
            entries=entries,
            snapshot=log.unstable.next_snapshot(),
            committed_entries=log.next_committed(not self._async_writes),
            messages=core.messages,
            must_sync=bool(entries) or core.term != seen.term or core.vote != seen.vote,
        )
        if self._async_writes:
            self._add_storage_messages(ready)
        else:
            self._prepare_advance(ready)
        self._accept(ready)
        return ready

    def _add_storage_messages(self, ready: Ready) -> None:
        core = self._core
        messages = core.messages
        append = storage_append(core, ready)
        if append is not None:
            messages.append(append)
        if ready.committed_entries:
            messages.append(storage_apply(core, ready.committed_entries))

    def _prepare_advance(self, ready: Ready) -> None:
        """Split what waits for the write: answers to peers go along, our own wait for advance."""
        core = self._core
        own = self._on_advance
        for message in core.after_append:
            (own if message.to == core.id else core.messages).append(message)
        if needs_append_response(core, ready.snapshot):
            own.append(storage_append_response(core, ready.snapshot))
        if ready.committed_entries:
            own.append(storage_apply_response(core, ready.committed_entries))

    def _accept(self, ready: Ready) -> None:
        core = self._core
        self._seen_hard = ready.hard_state or self._seen_hard
        self._seen_soft = ready.soft_state or self._seen_soft
        core.messages = []
        core.after_append = []
        if core.read_states:
            core.read_states = []
        core.log.unstable.accept_in_progress()
        if ready.committed_entries:
            core.log.accept_applying(ready.committed_entries, not self._async_writes)

    def advance(self) -> None:
        """Say that the last Ready was carried out. Not with asynchronous storage writes."""
        assert not self._async_writes, "with asynchronous writes, completions are stepped instead"
        done, self._on_advance = self._on_advance, []
        for message in done:
            raft.step(self._core, message)

    # State

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def lead(self) -> int:
        """The leader as far as this node knows, or NO_NODE."""
        return self._core.lead

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def commit(self) -> int:
        return self._core.log.committed

    @property
    def applied(self) -> int:
        return self._core.log.applied

    @property
    def last_index(self) -> int:
        return self._core.log.last_index

    @property
    def node_id(self) -> int:
        return self._core.id

    @property
    def transferee(self) -> int:
        """To whom leadership is being handed, or NO_NODE; proposals are dropped meanwhile."""
        return self._core.transferee

    @property
    def voters(self) -> tuple[int, ...]:
        return self._core.voters

    def status(self) -> Status:
        core = self._core
        return Status(
            core.id,
            core.hard_state(),
            core.soft_state(),
            core.log.applied,
            core.transferee,
            dict(core.progress) if core.role is LEADER else {},
        )

    def statistics(self) -> dict[str, int]:
        """Numbers for metrics and dashboards."""
        core = self._core
        log = core.log
        return {
            "term": core.term,
            "lead": core.lead,
            "role": int(core.role),
            "commit": log.committed,
            "applied": log.applied,
            "last_index": log.last_index,
            "unstable_entries": len(log.unstable.entries),
            "uncommitted_bytes": core.uncommitted_size,
            "reads_waiting": len(core.reads),
            "messages_stepped": self.messages_stepped,
            "messages_dropped": self.messages_dropped,
            "proposals_dropped": self.proposals_dropped,
        }

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls. Reads the whole unstable log."""
        self._core.check_invariants()
