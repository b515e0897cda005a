"""Entries on their way to this node's disk, and what waits for them to be there.

Owns the group commit: while a sync is under way, later entries are staged and go into the
next one together. A small group is synced right here, on the host's thread, once the messages
to the followers have been written to their sockets; a large one, or one of a leader whose disk
is slow, is handed to the sync thread.

    write(entries, responses)
        to_stage ──log.stage──> unsynced ──sync──> durable ──> responses, in order
           ^  the disk is full      │
           └────────────────────────╯

Responses are opaque here: they were attached to a write because they claim that it is durable,
and are released by the index whose sync they wait for, never before.

A full disk: in a group of one, nobody has seen what was not written, so it is taken back
(`withdrawn`) and the client asked to come again. In a larger group followers may
hold the entry already: it is kept in memory and written once there is space.

Refuses to know why an entry is written and who leads; `replica` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from unimeter.engine.entries import EVENTS
from unimeter.errors import DiskFullError, FatalStorageError
from unimeter.raft.messages import MSG_APP_RESP, Entry, Message
from unimeter.server.hosts import Host
from unimeter.server.platform import Platform, SyncThread
from unimeter.server.statistics import Statistics
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.wal import Wal

INLINE_SYNC_BYTES_MAX = 96 * 1024
"""Staged bytes up to which the host's thread syncs by itself: measured in docs/internals."""

INLINE_SYNC_SECONDS_MAX = 0.001
"""Recent syncs up to which a leader with followers syncs on its loop; a hand-over costs less."""

WITNESS_SECONDS = 0.002
"""How long the witness may lag behind a sync: an older one is as true as a newer one."""


class Writes(Protocol):
    """What the group commit tells the replica. All calls are on the host's thread."""

    @property
    def is_sole(self) -> bool:
        """Whether nobody else can have seen what is written here."""

    @property
    def leads_others(self) -> bool:
        """Whether followers may answer sooner than this node's disk."""

    def before_group(self) -> None:
        """A group is about to be written: propose what is open, so that it goes along."""

    def respond(self, responses: Sequence[Message]) -> None:
        """What these claim is durable now: deliver them."""

    def carry_out(self) -> None:
        """Responses were delivered: see what follows from them."""

    def withdraw(self, from_index: int, error: DiskFullError) -> None:
        """The entries from this index on are taken back; 0: none is, but the disk is full."""

    def fail(self, error: BaseException) -> None:
        """The disk failed or an invariant broke."""


class GroupCommit:
    """The staging, the sync thread and the waiting responses of one node."""

    def __init__(
        self,
        wal: Wal,
        log: RaftLog,
        host: Host,
        replica: Writes,
        statistics: Statistics,
        platform: Platform,
    ) -> None:
        """Write to an open log."""
        self.wal, self.log, self.host, self.replica = wal, log, host, replica
        self.statistics = statistics
        self._clock = platform.monotonic
        self.syncing = False  # the sync thread has work
        self._to_stage: deque[Entry] = deque()  # given by the core, not taken by the log yet
        self._unsynced: deque[Entry] = deque()  # staged, not durable
        self._last_given = wal.last_index  # of what the core gave
        self._unsynced_bytes = 0  # staged since the last sync began
        # Responses by the index whose sync they wait for.
        self._pending: deque[tuple[int, Sequence[Message]]] = deque()
        self._is_witness_due = False
        self._gathers = False  # what is staged came while a sync ran
        self._sync_began = 0.0
        self._sync_seconds = 0.0  # a moving average of the last ones
        self._is_stopped = False
        self.writer: SyncThread | None = None
        if not host.inline:
            self.writer = platform.sync_thread(wal, self._synced_in_thread, self._failed_in_thread)
            self.writer.start()

    @property
    def has_work(self) -> bool:
        """Whether something given is not durable yet."""
        return bool(self.syncing or self._unsynced or self._to_stage)

    @property
    def waiting(self) -> int:
        """Entries that are given and not durable yet."""
        return len(self._to_stage) + len(self._unsynced)

    # --- writing -------------------------------------------------------------------

    def write(self, entries: Sequence[Entry], responses: Sequence[Message]) -> None:
        """Stage entries, replacing what they overlap; deliver the responses once all is durable."""
        if entries:
            first = entries[0].index
            if first <= self._last_given:
                self._settle_before(first)
            self._to_stage.extend(entries)
            self._last_given = entries[-1].index
            self._stage()
            if self._last_given < entries[-1].index:  # some were withdrawn
                responses = self._lowered(responses)
        if responses:
            if not self._pending and self.wal.synced_index >= self._last_given:
                self.replica.respond(responses)
            else:
                self._pending.append((self._last_given, responses))

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

    def settle(self) -> None:
        """A snapshot is about to replace the log: finish what is under way, forget the rest."""
        if self._unsynced:
            self._sync_now()
        self._to_stage.clear()
        self._release(self.wal.synced_index)

    def go_on_after_install(self) -> None:
        """A snapshot has replaced the log."""
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
        self._sync_began = self._clock()
        self.writer.submit()

    def _sync_here(self) -> None:
        self._unsynced_bytes = 0
        began = self._clock()
        try:
            synced = self.wal.sync(witness=False)
        except (DiskFullError, FatalStorageError) as error:
            self._sync_failed(error)
            return
        elapsed = self._clock() - began
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
            self.replica.fail(error)

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
            self.replica.fail(error)

    def _on_synced(self, synced: int) -> None:
        """The sync thread is done: start the next group first, then tell of this one.

        What it synced may have been replaced since, by entries that are not durable yet; the
        log knows up to where it is durable now.
        """
        self.syncing = False
        if self._is_stopped:
            return
        synced = min(synced, self.wal.synced_index)
        self._note_sync(self._clock() - self._sync_began)
        self.statistics.syncs_handed += 1
        self._forget_synced(synced)
        self.replica.before_group()
        self._release(synced)
        self._gathers = True
        self.replica.carry_out()
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
        return self._sync_seconds > INLINE_SYNC_SECONDS_MAX and self.replica.leads_others

    def _durable(self, synced: int) -> None:
        self._forget_synced(synced)
        self._release(synced)
        self.replica.carry_out()

    def _forget_synced(self, synced: int) -> None:
        unsynced = self._unsynced
        while unsynced and unsynced[0].index <= synced:
            unsynced.popleft()

    def _release(self, synced: int) -> None:
        """Deliver the responses that waited for a sync up to here."""
        pending = self._pending
        while pending and pending[0][0] <= synced:
            self.replica.respond(pending.popleft()[1])

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
            self.replica.fail(error)
            return
        self._release(self.wal.synced_index)
        self._take_back()
        self._on_full(error, self.wal.last_index + 1)
        self.replica.carry_out()

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
        if self.replica.is_sole:
            self._withdraw(error, from_index)
        else:
            self.replica.withdraw(0, error)

    def _withdraw(self, error: DiskFullError, from_index: int) -> None:
        """Nobody has seen these entries: the log ends before them again."""
        self._to_stage.clear()
        while self._unsynced and self._unsynced[-1].index >= from_index:
            self._unsynced.pop()
        self._last_given = min(self._last_given, from_index - 1)
        self._pending = deque(
            (at, held) if at < from_index else (from_index - 1, self._lowered(held))
            for at, held in self._pending
        )
        self.replica.withdraw(from_index, error)
        self._release(self.wal.synced_index)

    def _lowered(self, responses: Sequence[Message]) -> list[Message]:
        """Responses that claim no more than what was not withdrawn.

        An append's responses name its last entry. In a group of one all entries that are not
        durable are of one term, so the entry before has the same one; if it has not, it is
        durable already, and the core passes such a response over.
        """
        for response in responses:
            response.index = min(response.index, self._last_given)
        return list(responses)

    def stop(self) -> None:
        """Write and deliver nothing more."""
        self._is_stopped = True

    # --- the end -------------------------------------------------------------------

    def end_thread(self) -> None:
        """End the sync thread; what it had is synced."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self.syncing = False

    def sync_rest(self) -> None:
        """Sync here what is left, with what follows from it."""
        while self._unsynced and not self._is_stopped:
            self._sync_here()

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
