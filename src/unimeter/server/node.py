"""One node: introduces the engine to the storage and keeps their order.

Owns the only path by which state changes, and the rule of when to say so:

    feed ──> builder ──seal──> wal.append ──sync──> machine.apply ──> replies
             (this turn)       (staged)     (durable)  (log order)     (host)

An entry is applied, and so visible to queries and answered, only after the
sync that covers it has returned (P1, P3). Queries therefore never show an event
that a crash could take back.

Group commit has one rule: while a sync is under way, later batches gather in
the open entry and go into the next sync together; a full entry is appended at
once so that its successor can be decoded meanwhile. When nothing is under way
and the group is small, the sync happens right here instead of in the sync
thread: the hand-over costs more than it saves.

No asyncio and no sockets: whoever hosts the node (`server.clients`, or the
embedded API through `InlineHost`) passes a `Host`. All methods belong to one
thread, the host's; the sync thread and the apply thread (for large entries) run
beside it. Whoever reads the machine holds `lock`, for as long as the read takes.

A full disk is an answer: what could not be written is refused with "wait", and
events are taken again once there is space. Any other error of the disk is
final: `host.failed` is called once, nothing further is acknowledged, and the
process is expected to end. A sync that failed is never tried again, because the
kernel may have dropped the pages.

Rejected: one entry a request. The log would grow by a header for each event and
a sync could not carry what arrived while the last one ran.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from unimeter import limits
from unimeter.engine import entries
from unimeter.engine.decode import FEED_FULL, FEED_MORE, FEED_TOO_LARGE, EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.replies import render
from unimeter.errors import BackpressureError
from unimeter.server.applier import Applier
from unimeter.server.hosts import Host, InlineHost
from unimeter.server.statistics import Statistics
from unimeter.server.upkeep import Upkeep
from unimeter.server.waiting import Counted, Done, Waiting, refuse
from unimeter.storage.disk import DiskFullError, FatalStorageError
from unimeter.storage.recovery import Opened
from unimeter.storage.writer import Writer
from unimeter.wire.failures import error_of
from unimeter.wire.messages import ErrorCode, ProtocolError

TERM = 1  # until replication brings elections
INLINE_SYNC_BYTES_MAX = 96 * 1024
"""Staged bytes up to which the host's thread syncs by itself: measured in docs/internals."""

APPLY_HERE_BYTES_MAX = 64 * 1024
"""Durable bytes up to which the host's thread applies by itself: half a millisecond's work."""


class Node:
    """The engine and the log of one data directory, in step."""

    def __init__(
        self,
        opened: Opened,
        host: Host,
        *,
        inflight_bytes_max: int = limits.INFLIGHT_BYTES_MAX,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take over what recovery opened."""
        self.opened, self.host, self.clock = opened, host, clock
        self.machine: Machine = opened.machine
        self.wal, self.events = opened.wal, opened.events
        self.builder = EntryBuilder()
        self.statistics = Statistics()
        self.upkeep = Upkeep(self)
        self.node_id = opened.node_id
        self.started = time.monotonic()
        self.turn_due = False
        self.refusal = ""  # why no events are taken just now, as a sentence
        self.failure: BaseException | None = None
        self.inflight_bytes = 0  # appended, not applied
        self.inflight_bytes_max = inflight_bytes_max
        self._waiting: deque[Waiting] = deque()
        self._syncing = False  # the sync thread has work
        self._staged_bytes = 0  # appended, not yet given to a sync
        self._last_index = self.wal.last_index
        self._next_offset = self.machine.next_offset
        self._timestamp_ns = self.machine.timestamp_ns
        self._sync_began = 0.0
        self._writer: Writer | None = None
        self.lock = threading.Lock()  # guards the machine: held to apply, and to read it
        self._applying = 0  # entries given to the apply thread and not answered
        self._applier: Applier[Waiting, Counted] | None = None
        if not host.inline:
            self._writer = Writer(self.wal, self._synced_in_thread, self._failed_in_thread)
            self._writer.start()
            self._applier = Applier(self._count, self._counted_in_thread, self._failed_in_thread)
        assert self.machine.applied == self._last_index, "recovery applied the whole log"

    # --- input -------------------------------------------------------------------

    def begin_turn(self) -> None:
        """Note the time that events without one get. Call before the first feed of a turn."""
        self.builder.now_ns = self._now()

    def request_turn(self) -> None:
        """Have what was fed made durable at the end of this loop turn. Cheap to repeat."""
        if not self.turn_due:
            self.turn_due = True
            self.host.soon(self.turn)

    def full(self) -> None:
        """Append the open entry, which reached its target, so that feeding can go on."""
        self._seal()
        if self._staged_bytes and not self._syncing and not self.host.inline:
            self._hand_over()
        self.request_turn()

    def propose(self, kind: int, body: bytes, done: Done) -> None:
        """Append an entry after everything fed so far; `done` hears what became of it."""
        assert kind != entries.EVENTS, "events come in through the builder"
        if self.refusal:
            raise BackpressureError(self.refusal, retry_after=0.25)
        self._seal()
        self._append(Waiting(kind, self._now(), body, 0, None, done))
        self.request_turn()

    def ingest_payload(self, payload: bytes, version: int = 2, request_id: int = 1) -> bytes:
        """Ingest one payload and return its whole response frame. For an inline host only.

        Raises BackpressureError, with nothing stored, while the disk is short.
        """
        assert isinstance(self.host, InlineHost), "with a loop, frames come through connections"
        self.upkeep.maybe_tick()
        if self.refusal:
            raise BackpressureError(self.refusal, retry_after=0.25)
        self.begin_turn()
        stop = self.builder.feed_payload(version, request_id, payload, 0)
        if stop == FEED_FULL:
            self.turn()
            stop = self.builder.feed_payload(version, request_id, payload, 0)
        if stop != FEED_MORE:
            code = ErrorCode.TOO_LARGE if stop == FEED_TOO_LARGE else ErrorCode.MALFORMED
            raise ProtocolError(f"the batch was refused: {code.name.lower()}", code)
        self.turn()
        ((_, reply),) = self.host.take_replies()
        return reply

    # --- the turn ----------------------------------------------------------------

    def turn(self) -> None:
        """Make durable what was fed, then apply and answer it."""
        try:
            self._turn()
        except Exception as error:
            self.fail(error)

    def _turn(self) -> None:
        self.turn_due = False
        self.upkeep.review()
        if self.failure is not None or self._syncing:
            return  # what is open goes into the sync after this one
        self._seal()
        if not self._staged_bytes:
            return
        if self.host.inline or self._staged_bytes <= INLINE_SYNC_BYTES_MAX:
            self._sync_here()
        else:
            self._hand_over()

    def _now(self) -> int:
        """The clock, but never before the last entry's timestamp."""
        return max(self.clock(), self._timestamp_ns)

    def _seal(self) -> None:
        """Close the open entry, if it has any event, and stage it."""
        timestamp_ns = self._now()
        sealed = self.builder.seal(timestamp_ns, self._next_offset)
        if sealed is not None:
            self.statistics.entry_events.observe(sealed.events)
            self._append(
                Waiting(
                    entries.EVENTS, timestamp_ns, sealed.body, sealed.events, sealed.routes, None
                )
            )

    def _append(self, entry: Waiting) -> None:
        """Give the entry its index and stage it for the next sync."""
        if self.failure is not None:
            return
        index = entry.index = self._last_index + 1
        try:
            self.wal.append(index, TERM, entry.kind, entry.timestamp_ns, entry.body)
        except DiskFullError as error:
            self._disk_is_full()
            self._drop(entry, error)
            return
        except FatalStorageError as error:
            self.fail(error)
            return
        self._last_index = index
        self._timestamp_ns = entry.timestamp_ns
        self._next_offset += entry.events
        size = len(entry.body)
        self._staged_bytes += size
        self.inflight_bytes += size
        self.statistics.entries_appended += 1
        self.statistics.bytes_appended += size
        self._waiting.append(entry)
        if self.inflight_bytes > self.inflight_bytes_max:
            self.refusal = "too many bytes are waiting for the disk"

    def _sync_here(self) -> None:
        """Sync on this thread: nothing else is under way and the group is small."""
        self._staged_bytes = 0
        began = time.perf_counter()
        try:
            synced = self.wal.sync(witness=False)
        except (DiskFullError, FatalStorageError) as error:
            self._sync_failed(error)
            return
        elapsed = time.perf_counter() - began
        self._apply_through(synced)
        # What nobody waits for comes after the replies.
        self.wal.write_witness()
        self.statistics.sync_seconds.observe(elapsed)
        self.statistics.syncs_inline += 1

    def _hand_over(self) -> None:
        """Let the sync thread take everything staged."""
        assert not self._syncing, "one sync at a time"
        assert self._writer is not None
        self._syncing = True
        self._staged_bytes = 0
        self._sync_began = time.perf_counter()
        self._writer.submit()

    def _synced_in_thread(self, synced: int) -> None:
        self.host.post(self._guarded, self._on_synced, synced)

    def _failed_in_thread(self, error: BaseException) -> None:
        self.host.post(self._guarded, self._sync_failed, error)

    def _guarded(self, callback: Callable[[Any], None], news: Any) -> None:
        """Take news of the sync thread; an exception here means that state can't be trusted."""
        try:
            callback(news)
        except Exception as error:
            self.fail(error)

    def _on_synced(self, synced: int) -> None:
        """The sync thread is done: start the next group first, then answer this one."""
        self._syncing = False
        if self.failure is not None:
            return
        self.statistics.sync_seconds.observe(time.perf_counter() - self._sync_began)
        self.statistics.syncs_handed += 1
        self._seal()
        if self._staged_bytes:
            self._hand_over()
        self._apply_through(synced)

    # --- what is durable ---------------------------------------------------------

    def _apply_through(self, synced: int) -> None:
        """Apply, in order, every entry that is durable: small ones here, large ones aside."""
        waiting = self._waiting
        durable: list[Waiting] = []
        size = 0
        while waiting and waiting[0].index <= synced:
            durable.append(waiting.popleft())
            size += len(durable[-1].body)
        if (
            self._applier is not None
            and durable
            and (self._applying or size > APPLY_HERE_BYTES_MAX)
        ):
            self._applying += len(durable)
            self._applier.put(durable)
            return
        for entry in durable:
            self._answer(entry, self._count(entry))
        assert waiting or self._applying or self.machine.next_offset == self._next_offset

    def _count(self, entry: Waiting) -> Counted:
        """Apply one entry; on whichever thread, but one entry at a time and in log order."""
        with self.lock:
            applied = self.machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
            if entry.kind != entries.EVENTS:
                return applied, []
            if applied.duplicates or applied.refused:
                self.events.note(entry.index, applied.outcomes)
            return applied, render(applied, entry.routes)

    def _counted_in_thread(self, entry: Waiting, counted: Counted) -> None:
        self.host.post(self._guarded, self._on_counted, (entry, counted))

    def _on_counted(self, news: tuple[Waiting, Counted]) -> None:
        """The apply thread is done with one entry."""
        self._applying -= 1
        assert self._applying >= 0
        if self.failure is None:
            self._answer(*news)

    def _answer(self, entry: Waiting, counted: Counted) -> None:
        """Reply to each request of an entry that was applied, and tell of alerts."""
        applied, replies = counted
        counts = self.statistics
        self.inflight_bytes -= len(entry.body)
        assert self.inflight_bytes >= 0
        if entry.done is not None:
            entry.done(applied, entry.index)
        else:
            self.host.deliver(replies)
            counts.events_stored += applied.stored
            counts.events_duplicate += applied.duplicates
            counts.events_refused += applied.refused
            counts.ingest_replies += len(replies)
        if applied.alerts_to > applied.alerts_from:
            counts.alerts_raised += applied.alerts_to - applied.alerts_from
            self.host.alerted(applied.alerts_from, applied.alerts_to)
        if self.refusal:
            self.upkeep.review()

    # --- what is not -------------------------------------------------------------

    def _sync_failed(self, error: BaseException) -> None:
        """No space: refuse what was dropped, go on. Anything else: stop."""
        self._syncing = False
        if not isinstance(error, DiskFullError):
            self.fail(error)
            return
        assert error.from_index > self.machine.applied, "only what is not durable is dropped"
        self._disk_is_full()
        self._apply_through(error.from_index - 1)
        dropped = list(self._waiting)
        self._waiting.clear()
        self._staged_bytes = 0
        self._last_index = self.wal.last_index
        for entry in dropped:
            self.inflight_bytes -= len(entry.body)
            self._next_offset -= entry.events
            self._drop(entry, error)

    def _disk_is_full(self) -> None:
        self.refusal = "the disk is full"

    def _drop(self, entry: Waiting, error: DiskFullError) -> None:
        """Tell whoever sent the entry to come again: nothing of it was stored."""
        if entry.done is not None:
            entry.done(error, 0)
        else:
            self.statistics.requests_backpressure += 1
            self.host.deliver(refuse(entry.routes, self.machine.applied, error_of(error)))

    def fail(self, error: BaseException) -> None:
        """Acknowledge nothing more; the first error is the one that counts."""
        if self.failure is None:
            self.failure = error
            self.host.failed(error)

    def tick(self) -> None:
        """Housekeeping; call about once a second."""
        try:
            self.upkeep.tick()
        except DiskFullError:
            self._disk_is_full()
        except Exception as error:
            self.fail(error)

    # --- the end -----------------------------------------------------------------

    @property
    def last_alert(self) -> int:
        """The position of the newest alert; they count from 1 without gaps."""
        count: int = self.machine.counter.alert_count
        return count

    @property
    def idle(self) -> bool:
        """Whether everything fed has been answered."""
        return not (self._waiting or self._syncing or self._applying or self.builder.size)

    def close(self) -> None:
        """Finish what is under way, snapshot if that is cheap, give the directory back."""
        try:
            if self._writer is not None:
                self._writer.close()
            if self._applier is not None:
                self._applier.close()
                self._applier = None
            if self.failure is None:
                self._finish()
        finally:
            self.opened.close()

    def _finish(self) -> None:
        """Sync and apply the rest here: the sync thread has ended."""
        self._seal()
        if self._waiting:
            self._sync_here()
        if self.failure is None:
            self.upkeep.last_snapshot()
