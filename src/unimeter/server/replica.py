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

Group commit: while a sync is under way, later entries are staged and go into the
next one together. A small group is synced right here, on the host's thread, once the
messages to the followers have been written to their sockets; a large one is handed over.

Most entries are followed by another one at once, whose message carries the commit index of
the first. So a message that carries nothing else is held for COMMIT_HOLD_SECONDS and
dropped where the next entry overtakes it: half of all messages of a busy leader.

A vote or a new term is written before anything else happens. It is rare, so
the loop waits for it.

A full disk: in a group of one, nobody has seen what was not written, so it is taken back
(`withdrawn`) and the client asked to come again. In a larger group followers may
hold the entry already: it is kept in memory and written once there is space.

Rejected: a second path for a group of one. It would be some 60 microseconds faster for a
lone event, and the code that every promise rests on would be the one that is tested less.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from unimeter import limits
from unimeter.engine.entries import EVENTS
from unimeter.engine.machine import Machine
from unimeter.errors import DiskFullError, FatalStorageError
from unimeter.raft.config import Config as RaftConfig
from unimeter.raft.messages import (
    LEADER,
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    MSG_APP,
    MSG_APP_RESP,
    MSG_PRE_VOTE,
    MSG_PROP,
    MSG_TIMEOUT_NOW,
    MSG_VOTE,
    NO_NODE,
    Entry,
    Message,
    Role,
)
from unimeter.raft.rawnode import ProposalDropped, RawNode
from unimeter.server.hosts import Host
from unimeter.server.statistics import Statistics
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.recovery import Opened
from unimeter.storage.writer import Writer

INLINE_SYNC_BYTES_MAX = 96 * 1024
"""Staged bytes up to which the host's thread syncs by itself: measured in docs/internals."""

INLINE_SYNC_SECONDS_MAX = 0.0005
"""Recent syncs up to which a leader with followers syncs on its loop; a hand-over costs less."""

WITNESS_SECONDS = 0.002
"""How long the witness may lag behind a sync: an older one is as true as a newer one."""

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
        random_ticks: Callable[[int], int],
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
                random_ticks=random_ticks,
            ),
            self.log,
        )
        self.lead, self.role = NO_NODE, self.raft.role
        self.syncing = False  # the sync thread has work
        self._to_stage: deque[Entry] = deque()  # given by the core, not taken by the log yet
        self._unsynced: deque[Entry] = deque()  # staged, not durable
        self._last_given = self.wal.last_index  # of what the core gave
        self._unsynced_bytes = 0  # staged since the last sync began
        # Responses by the index whose sync they wait for.
        self._pending: deque[tuple[int, Sequence[Message]]] = deque()
        self._applies: list[Message] = []
        self._held_commits: dict[int, Message] = {}  # appends without entries, by peer
        self._is_carrying_out = False
        self._is_witness_due = False
        self._gathers = False  # what is staged came while a sync ran
        self._sync_began = 0.0
        self._sync_seconds = 0.0  # a moving average of the last ones
        self._is_stopped = False
        self.writer: Writer | None = None
        if not host.inline:
            self.writer = Writer(self.wal, self._synced_in_thread, self._failed_in_thread)
            self.writer.start()

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
    def has_work(self) -> bool:
        """Whether something given is not durable yet."""
        return bool(self.syncing or self._unsynced or self._to_stage)

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
        if self._to_stage:
            self.retry()

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
                self.start_next()
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
            self._install(message)
        if message.term:
            self.log.persist_vote(message.term, message.vote)
            self.wal.note_commit(message.commit)
        if message.entries:
            first = message.entries[0].index
            if first <= self._last_given:
                self._settle_before(first)
            self._to_stage.extend(message.entries)
            self._last_given = message.entries[-1].index
            self._stage()
            if self._last_given < message.entries[-1].index:  # some were withdrawn
                message.responses = self._lowered(message.responses)
        if message.responses:
            if not self._pending and self.wal.synced_index >= self._last_given:
                self._respond(message.responses)
            else:
                self._pending.append((self._last_given, message.responses))

    def _settle_before(self, first: int) -> None:
        """Another leader's entries replace ours from `first` on: finish what is under way.

        A response of the log's that waits for a replaced entry is still delivered: it names the
        entry by index and term, and the core knows that the place has another entry by now.
        An acknowledgement to a leader is not, if the disk was too full for its entries: the
        leader would count a copy that never was.
        """
        if self._unsynced:
            self._sync_now()
        for held in (self._to_stage, self._unsynced):  # a full disk may have kept them
            while held and held[-1].index >= first:
                held.pop()
        self._release(self.wal.synced_index)
        self._pending = deque(
            (min(at, first - 1), [one for one in held if not _claims(one, first)])
            for at, held in self._pending
        )

    def _stage(self) -> None:
        """Give the log what it takes; on a full disk the rest waits here."""
        while self._to_stage:
            entry = self._to_stage[0]
            try:
                self.log.stage((entry,))
            except DiskFullError as error:
                self._on_full(error, entry.index)
                return
            self._to_stage.popleft()
            self._unsynced.append(entry)
            size = len(entry.body)
            self._unsynced_bytes += size
            self.statistics.entries_appended += 1
            self.statistics.bytes_appended += size

    def _install(self, message: Message) -> None:
        """A snapshot replaces log and state."""
        assert message.snapshot is not None
        if self._unsynced:
            self._sync_now()
        self._to_stage.clear()
        self._release(self.wal.synced_index)
        self.owner.installed(self.log.install(message.snapshot))
        last = self._last_given = self.wal.last_index
        # What the disk was too full for is in the snapshot, or is gone and was never here.
        self._pending = deque(
            (min(at, last), [one for one in held if not _claims(one, last + 1)])
            for at, held in self._pending
        )
        self._release(last)

    # --- syncing -------------------------------------------------------------------

    def flush(self) -> None:
        """Make durable what is staged: here if it is small, else in the sync thread."""
        if self.syncing or not self._unsynced or self._is_stopped:
            return
        if self._is_for_thread():
            self.hand_over()
        else:
            self._sync_here()

    def hand_over(self) -> None:
        """Let the sync thread take everything staged."""
        assert not self.syncing and self.writer is not None, "one sync at a time"
        self.syncing = True
        self._unsynced_bytes = 0
        self._sync_began = time.perf_counter()
        self.writer.submit()

    def _sync_here(self) -> None:
        self._unsynced_bytes = 0
        began = time.perf_counter()
        try:
            synced = self.wal.sync(witness=False)
        except (DiskFullError, FatalStorageError) as error:
            self._sync_failed(error)
            return
        elapsed = time.perf_counter() - began
        self._durable(synced)
        # What nobody waits for comes after the replies, here and from the followers.
        if not self._is_witness_due:
            self._is_witness_due = True
            self.host.later(WITNESS_SECONDS, self._write_witness)
        self._note_sync(elapsed)
        self.statistics.syncs_inline += 1

    def _write_witness(self) -> None:
        self._is_witness_due = False
        if self._is_stopped:
            return
        try:
            self.wal.write_witness()
        except FatalStorageError as error:
            self.fail(error)

    def _sync_now(self) -> None:
        """Sync whatever is staged, on this thread, even while the sync thread has work."""
        try:
            synced = self.wal.sync(witness=False)
        except DiskFullError:
            self._take_back()
            return
        self._forget_synced(synced)

    def _synced_in_thread(self, synced: int) -> None:
        self.host.post(self._guarded, self._on_synced, synced)

    def _failed_in_thread(self, error: BaseException) -> None:
        self.host.post(self._guarded, self._on_failed, error)

    def _guarded(self, callback: Callable[[Any], None], news: Any) -> None:
        """Take news of the sync thread; an exception here means that state can't be trusted."""
        try:
            callback(news)
        except Exception as error:
            self.fail(error)

    def _on_synced(self, synced: int) -> None:
        """The sync thread is done: start the next group first, then tell of this one.

        What it synced may have been replaced since, by entries that are not durable yet; the
        log knows up to where it is durable now.
        """
        self.syncing = False
        if self._is_stopped:
            return
        synced = min(synced, self.wal.synced_index)
        self._note_sync(time.perf_counter() - self._sync_began)
        self.statistics.syncs_handed += 1
        self._forget_synced(synced)
        self.owner.before_group()
        self._release(synced)
        self._gathers = True
        self.carry_out()
        self.start_next()
        self._gathers = False

    def _note_sync(self, seconds: float) -> None:
        self._sync_seconds += (seconds - self._sync_seconds) / 8
        self.statistics.sync_seconds.observe(seconds)

    def start_next(self) -> None:
        """Hand over what gathered during a sync, or is for the thread anyway."""
        if self._unsynced and not self.syncing and self._is_for_thread():
            self.hand_over()

    def _is_for_thread(self) -> bool:
        if self.writer is None:
            return False
        if self._gathers or self._unsynced_bytes > INLINE_SYNC_BYTES_MAX:
            return True
        # With a slow disk a leader's loop would stand still while a faster follower answers.
        leads_others = self.role is LEADER and not self.is_sole
        return leads_others and self._sync_seconds > INLINE_SYNC_SECONDS_MAX

    def _durable(self, synced: int) -> None:
        self._forget_synced(synced)
        self._release(synced)
        self.carry_out()

    def _forget_synced(self, synced: int) -> None:
        unsynced = self._unsynced
        while unsynced and unsynced[0].index <= synced:
            unsynced.popleft()

    def _release(self, synced: int) -> None:
        """Deliver the responses that waited for a sync up to here."""
        pending = self._pending
        while pending and pending[0][0] <= synced:
            self._respond(pending.popleft()[1])

    def _respond(self, responses: Sequence[Message]) -> None:
        node_id = self.raft.node_id
        for response in responses:
            if response.to == node_id:
                self.raft.step(response)
            else:
                self.owner.send(response)

    # --- a full disk, a failed one ---------------------------------------------------

    def retry(self) -> None:
        """Write what waits for space, if there is some."""
        if self._to_stage and self.try_resume():
            self._stage()
            self.flush()

    def _on_failed(self, error: BaseException) -> None:
        self.syncing = False
        self._sync_failed(error)

    def _sync_failed(self, error: BaseException) -> None:
        """No space: keep or take back what was dropped. Anything else: stop."""
        if not isinstance(error, DiskFullError):
            self.fail(error)
            return
        self._release(self.wal.synced_index)
        self._take_back()
        self._on_full(error, self.wal.last_index + 1)
        self.carry_out()

    def _take_back(self) -> None:
        """What the log dropped waits for space again."""
        self._forget_synced(self.wal.synced_index)
        while self._unsynced and self._unsynced[-1].index > self.wal.last_index:
            self._to_stage.appendleft(self._unsynced.pop())
        self._unsynced_bytes = sum(len(entry.body) for entry in self._unsynced)

    def try_resume(self) -> bool:
        """Whether a full disk has space again; not before its error was heard here."""
        return not self.syncing and self.wal.try_resume()

    def _on_full(self, error: DiskFullError, from_index: int) -> None:
        if self.is_sole:
            self._withdraw(error, from_index)
        else:
            self.owner.withdrawn(0, error)

    def _withdraw(self, error: DiskFullError, from_index: int) -> None:
        """Nobody has seen these entries: the log ends before them again."""
        self.raft.withdraw(from_index)
        self._to_stage.clear()
        while self._unsynced and self._unsynced[-1].index >= from_index:
            self._unsynced.pop()
        self._last_given = min(self._last_given, from_index - 1)
        self._pending = deque(
            (at, held) if at < from_index else (from_index - 1, self._lowered(held))
            for at, held in self._pending
        )
        self._release(self.wal.synced_index)
        self.owner.withdrawn(from_index, error)

    def _lowered(self, responses: Sequence[Message]) -> list[Message]:
        """Responses that claim no more than what was not withdrawn.

        An append's responses name its last entry. In a group of one all entries that are not
        durable are of one term, so the entry before has the same one; if it has not, it is
        durable already, and the core passes such a response over.
        """
        for response in responses:
            response.index = min(response.index, self._last_given)
        return list(responses)

    def fail(self, error: BaseException) -> None:
        """Nothing more is written or delivered; the owner hears why."""
        self.stop()
        self.owner.fail(error)

    def stop(self) -> None:
        """Carry out no further duty."""
        self._is_stopped = True

    # --- the end -------------------------------------------------------------------

    def finish(self) -> None:
        """End the sync thread, sync the rest here, and do no more."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self.syncing = False
        self.carry_out()
        while self._unsynced and not self._is_stopped:
            self._sync_here()
        self.stop()

    def last_events_entry(self, above: int) -> Entry | None:
        """The newest EVENTS entry above an index, applied or not; None if there is none."""
        for held in (self._to_stage, self._unsynced):
            for entry in reversed(held):
                if entry.index <= above:
                    return None
                if entry.kind == EVENTS:
                    return entry
        for index in range(self.wal.synced_index, above, -1):
            (entry,) = self.log.entries(index, index + 1, 0)
            if entry.kind == EVENTS:
                return entry
        return None

    @property
    def timestamp_ns(self) -> int:
        """The time of the newest entry: the next one's is not before it."""
        waiting = (entry.timestamp_ns for entry in self._to_stage)
        return max(self.wal.last_timestamp_ns, *waiting, 0)

    def check_invariants(self) -> None:
        """Slow; for tests and the simulator."""
        indexes = [entry.index for entry in (*self._unsynced, *self._to_stage)]
        assert indexes == list(range(indexes[0], indexes[0] + len(indexes))) if indexes else True
        assert not indexes or indexes[-1] == self._last_given
        assert [at for at, _ in self._pending] == sorted(at for at, _ in self._pending)


def _claims(response: Message, first: int) -> bool:
    """Whether a response acknowledges entries from `first` on."""
    return response.type is MSG_APP_RESP and not response.reject and response.index >= first
