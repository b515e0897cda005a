"""One node: introduces the engine to the replicated log and keeps their order.

Owns the only path by which state changes, and the rule of when to say so:

    feed ──> builder ──seal──> replica.propose ──quorum──> machine.apply ──> replies
             (this turn)       (sent, staged)   (committed)  (log order)      (host)

An entry is applied, and so visible to queries and answered, only after it is
on the disks of a majority (P1, P3). Queries therefore never show an event that a
failure could take back. In a group of one the majority is this disk.

Every node applies what is committed; the one that leads also takes input. Input that was
taken by a node that then lost the lead gets an exact answer: its entry is
applied like any other if the next leader has it, and its clients are told to come
again, with nothing stored, once another entry stands in its place.

Group commit has one rule: while a sync is under way, later batches gather in
the open entry and go into the next sync together; a full entry is proposed at
once so that its successor can be decoded meanwhile (`replica` decides how to sync).

No asyncio and no sockets: whoever hosts the node (`server.clients`, or the
embedded API through `InlineHost`) passes a `Host`. All methods belong to one
thread, the host's; the sync thread and the apply thread (for large entries) run
beside it. Whoever reads the machine holds `lock`, for as long as the read takes.

A full disk is an answer: in a group of one, what could not be written is refused with
"wait", and events are taken again once there is space. Any other error of the disk is
final: `host.failed` is called once, nothing further is acknowledged, and the
process is expected to end. A sync that failed is never tried again, because the
kernel may have dropped the pages.

Rejected: one entry a request. The log would grow by a header for each event and
a sync could not carry what arrived while the last one ran.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.engine import entries
from unimeter.engine.decode import FEED_FULL, FEED_MORE, FEED_TOO_LARGE, EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.replies import render
from unimeter.engine.touched import Touched
from unimeter.errors import BackpressureError
from unimeter.raft.messages import LEADER, Entry, Message, Role
from unimeter.server.hosts import Host, InlineHost
from unimeter.server.platform import REAL, ApplyThread, Platform
from unimeter.server.reads import Reads
from unimeter.server.replica import Replica
from unimeter.server.statistics import Statistics
from unimeter.server.upkeep import Upkeep
from unimeter.server.waiting import (
    NOT_LEADING,
    OUTCOME_UNKNOWN,
    Committed,
    Counted,
    Done,
    Waiting,
    refuse,
)
from unimeter.storage.disk import DiskFullError
from unimeter.storage.recovery import Opened
from unimeter.storage.state_hash import StateHasher
from unimeter.wire.failures import error_of
from unimeter.wire.messages import ErrorCode, ErrorReply, ProtocolError

if TYPE_CHECKING:
    from unimeter.server.tracing import Tracing

APPLY_HERE_BYTES_MAX = 64 * 1024
"""Committed bytes up to which the host's thread applies by itself: half a millisecond's work."""


class Node:
    """The engine and the log of one data directory, in step."""

    def __init__(
        self,
        opened: Opened,
        host: Host,
        *,
        voters: tuple[int, ...] = (),
        inflight_bytes_max: int = limits.INFLIGHT_BYTES_MAX,
        platform: Platform = REAL,
        is_mute: bool = False,
    ) -> None:
        """Take over what recovery opened. `voters` empty: this node is the whole group."""
        self.opened, self.host, self.platform = opened, host, platform
        self.clock = platform.time_ns
        self.machine: Machine = opened.machine
        self.wal, self.events = opened.wal, opened.events
        self.builder = EntryBuilder()
        self.statistics = Statistics()
        self.upkeep = Upkeep(self)
        self.node_id = opened.node_id
        self.started = platform.monotonic()
        self.turn_due = False
        self.refusal = ""  # why no events are taken just now, as a sentence
        self.failure: BaseException | None = None
        self.inflight_bytes = 0  # proposed here, not applied
        self.inflight_bytes_max = inflight_bytes_max
        self.tracing: Tracing | None = None  # nobody looks on
        self.touched: Touched | None = None  # which totals change: nobody wants to know
        self.leads = False  # input is taken here
        self.lead = 0  # who leads, as far as this node knows
        self.send: Callable[[Message], None] = lambda message: None
        self.lock = threading.RLock()  # guards the machine: held to apply, and to read it
        # Proposed here, by index and term, in that order: an index can be proposed again in a
        # later term while it is open what becomes of the first.
        self._waiting: dict[tuple[int, int], Waiting] = {}
        self._next_offset = self.machine.next_offset
        self._timestamp_ns = 0
        self.hash_states = False  # other replicas want to compare
        self._hasher = StateHasher(opened.disk.can_fork)
        self._applying = 0  # entries given to the apply thread and not answered
        self._applier: ApplyThread[Committed] | None = None
        if not host.inline:
            self._applier = platform.apply_thread(
                self._count, self._counted_in_thread, self._failed_in_thread
            )
        self.replica = Replica(
            opened,
            host,
            self,
            self.statistics,
            voters=voters or (opened.node_id,),
            platform=platform,
            is_mute=is_mute,
        )
        self.reads = Reads(self.replica.raft.read_index, platform.monotonic, platform.entropy(8))
        self.reads.applied(self.machine.applied)
        if self.replica.is_sole:
            self._lead_alone()

    def _lead_alone(self) -> None:
        """A group of one elects itself; its log is committed, for nobody else has another."""
        self.replica.campaign()
        self.replica.flush()
        self.replica.carry_out()

    @property
    def is_alone(self) -> bool:
        """Whether this node is the whole group: then a read here is linearizable as it is."""
        return self.replica.is_sole

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
        """Propose the open entry, which reached its target, so that feeding can go on."""
        self._seal()
        self.replica.carry_out()
        if not self.host.inline:
            self.replica.start_next()
        self.request_turn()

    def propose(self, kind: int, body: bytes, done: Done) -> None:
        """Propose an entry after everything fed so far; `done` hears what became of it.

        Raises BackpressureError, with nothing proposed, while the disk is short or another
        node leads.
        """
        assert kind != entries.EVENTS, "events come in through the builder"
        if self.refusal:
            raise BackpressureError(self.refusal, retry_after=0.25)
        if not self.leads:
            raise BackpressureError(NOT_LEADING, retry_after=0.05)
        self._seal()
        self._propose(Waiting(kind, self._now(), body, 0, b"", done))
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

    def receive(self, message: Message) -> None:
        """Take a message of a peer."""
        if self.failure is not None:
            return
        try:
            self.replica.step(message)
        except Exception as error:
            self.fail(error)
            return
        self.request_turn()

    def receive_snapshot(self, message: Message) -> None:
        """Take a peer's snapshot, whole and restored; it is in effect when this returns.

        Unless the log has gone on so far meanwhile that the core does not need it.
        """
        try:
            if self._applier is not None:
                self._applier.wait()  # the state that it works on is about to be replaced
            self.replica.step(message)
            self.replica.carry_out()
            self.replica.flush()
        except Exception as error:
            self.fail(error)

    # --- the turn ----------------------------------------------------------------

    def turn(self) -> None:
        """Propose what was fed, make it durable, apply and answer what is committed."""
        try:
            self._turn()
        except Exception as error:
            self.fail(error)

    def _turn(self) -> None:
        self.turn_due = False
        self.upkeep.review()
        if self.failure is not None:
            return
        if not self.replica.syncing:  # else what is open goes into the sync after this one
            self._seal()
        self.reads.ask()
        self.replica.carry_out()
        self.replica.flush()

    def _now(self) -> int:
        """The clock, but never before the last entry's timestamp."""
        return max(self.clock(), self._timestamp_ns)

    def _seal(self) -> None:
        """Close the open entry, if it has any event, and propose it."""
        timestamp_ns = self._now()
        sealed = self.builder.seal(timestamp_ns, self._next_offset)
        if sealed is None:
            return
        self.statistics.entry_events.observe(sealed.events)
        self._propose(
            Waiting(entries.EVENTS, timestamp_ns, sealed.body, sealed.events, sealed.routes, None)
        )

    def _propose(self, entry: Waiting) -> None:
        """Give the entry its place in the log, and remember who waits for it."""
        if self.failure is not None:
            return
        place = self.replica.propose(entry.kind, entry.timestamp_ns, entry.body)
        if place is None:
            self._send_away(entry)
            return
        entry.index, entry.term = place
        entry.proposed = self.platform.monotonic()
        self._timestamp_ns = entry.timestamp_ns
        self._next_offset += entry.events
        self.inflight_bytes += len(entry.body)
        self._waiting[place] = entry
        if self.inflight_bytes > self.inflight_bytes_max:
            self.refusal = "too many bytes are waiting for the disk"

    # --- what the replica tells -----------------------------------------------------

    def before_group(self) -> None:
        """What is open goes along with the next group."""
        self._seal()

    def role_changed(self, lead: int, role: Role, term: int) -> None:
        """Take input from now on, or no more."""
        self.lead = lead
        self.statistics.elections.note(lead, term, lead == self.node_id)
        if role is LEADER:
            self._go_on_from_log()
        self.leadership_changed()
        self.host.lead_changed(lead)
        self.reads.ask_again()

    def leadership_changed(self) -> None:
        """Look again whether input is taken here; what is open and may not go on is refused."""
        did_lead, self.leads = self.leads, self.replica.leads
        if self.leads and not did_lead:
            self.host.lead_taken()
        if not self.leads and self.builder.size:
            sealed = self.builder.seal(self._now(), self._next_offset)
            if sealed is not None:
                self.statistics.requests_not_leading += 1
                self._deliver_refusal(sealed.routes, _not_leading())

    def _go_on_from_log(self) -> None:
        """Offsets and time go on where the log ends, which may be ahead of what is applied."""
        with self.lock:
            applied, offset = self.machine.applied, self.machine.next_offset
        newest = self.replica.last_events_entry(applied)
        if newest is not None:
            offset = entries.next_offset_of(newest.body)
        self._next_offset = offset
        self._timestamp_ns = max(self.replica.timestamp_ns, self.machine.timestamp_ns)

    def installed(self, machine: Machine) -> None:
        """A peer's snapshot is this node's state now."""
        with self.lock:
            self.machine = machine
        # Whether the snapshot includes what was proposed here, nobody can say any more.
        unknown = ErrorReply(ErrorCode.OUTCOME_UNKNOWN, OUTCOME_UNKNOWN)
        for place in [place for place in self._waiting if place[0] <= machine.applied]:
            entry = self._waiting.pop(place)
            self.inflight_bytes -= len(entry.body)
            if entry.done is not None:
                entry.done(BackpressureError(OUTCOME_UNKNOWN, retry_after=0.05), 0)
            else:
                self._deliver_refusal(entry.routes, unknown)
        self.upkeep.replaced()
        self.host.replaced()
        self.reads.applied(machine.applied)

    def confirmed(self, context: bytes, index: int) -> None:
        """The quorum's word for the reads that wait for it."""
        self.reads.confirmed(context, index)

    def committed(self, batch: Sequence[Entry], done: Callable[[], None]) -> None:
        """Apply, in order, what is committed: a little here, much in the apply thread."""
        size = 0
        committed = []
        for entry in batch:
            size += len(entry.body)
            committed.append(Committed(entry, self._who_waits(entry), None))
        committed[-1] = Committed(committed[-1].entry, committed[-1].waiting, done)
        if self._applier is not None and (self._applying or size > APPLY_HERE_BYTES_MAX):
            self._applying += len(committed)
            self._applier.put(committed)
            return
        for one in committed:
            self._answer(one, self._count(one))

    def _who_waits(self, entry: Entry) -> Waiting | None:
        """Whoever proposed this very entry here; proposals that it displaced are refused."""
        waiting = self._waiting
        if not waiting:
            return None
        # Terms only rise along a log: what was proposed in an older one can't follow.
        while (oldest := next(iter(waiting.values()), None)) and oldest.term < entry.term:
            del waiting[oldest.index, oldest.term]
            self._displaced(oldest)
        return waiting.pop((entry.index, entry.term), None)

    def _displaced(self, entry: Waiting) -> None:
        """Another leader's entry stands in its place: nothing of it was stored."""
        self.inflight_bytes -= len(entry.body)
        self._send_away(entry)

    def _count(self, one: Committed) -> Counted:
        """Apply one entry; on whichever thread, but one entry at a time and in log order."""
        entry = one.entry
        with self.lock:
            began = self.platform.monotonic()
            applied = self.machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
            self.statistics.apply_seconds.observe(self.platform.monotonic() - began)
            if self.platform.watches:
                self.platform.counted(self, entry, applied)
            if self.hash_states and entry.index % limits.STATE_HASH_ENTRIES == 0:
                if not self._hasher.busy:  # else the others compare without this node
                    self._hasher.begin(self.machine)
            if entry.kind != entries.EVENTS:
                return applied, []
            if self.touched is not None and applied.stored:
                self.touched.note(self.machine.counter)
            if applied.duplicates or applied.refused:
                self.events.note(entry.index, applied.outcomes)
                if applied.refused:
                    self.statistics.count_refused(applied.outcomes, applied.refused)
            return applied, render(applied, one.waiting.routes) if one.waiting else []

    def take_state_hash(self) -> tuple[int, bytes] | None:
        """The hash of the state at an entry, if one became ready: for replicas to compare."""
        with self.lock:
            answer = self._hasher.poll()
        return None if answer is None else (answer[0], bytes.fromhex(answer[1]))

    def _counted_in_thread(self, one: Committed, counted: Counted) -> None:
        self.host.post(self._guarded, one, counted)

    def _failed_in_thread(self, error: BaseException) -> None:
        self.host.post(self.fail, error)

    def _guarded(self, one: Committed, counted: Counted) -> None:
        """The apply thread is done with one entry."""
        self._applying -= 1
        assert self._applying >= 0
        if self.failure is not None:
            return
        try:
            self._answer(one, counted)
            self.replica.flush()
        except Exception as error:
            self.fail(error)

    def _answer(self, one: Committed, counted: Counted) -> None:
        """Reply to each request of an entry that was applied, and tell of alerts."""
        applied, replies = counted
        counts = self.statistics
        waiting = one.waiting
        if waiting is not None:
            self.inflight_bytes -= len(waiting.body)
            assert self.inflight_bytes >= 0
            counts.commit_seconds.observe(self.platform.monotonic() - waiting.proposed)
            if self.tracing is not None:
                self.tracing.committed(waiting, applied)
            if waiting.done is not None:
                waiting.done(applied, applied.index)
            else:
                self.host.deliver(replies)
                counts.ingest_replies += len(replies)
        counts.entries_applied += 1
        counts.events_stored += applied.stored
        counts.events_duplicate += applied.duplicates
        counts.events_refused += applied.refused
        if applied.alerts_to > applied.alerts_from:
            counts.alerts_raised += applied.alerts_to - applied.alerts_from
            self.host.alerted(applied.alerts_from, applied.alerts_to)
        if applied.kind == entries.ADMIN:
            self.host.administered()
        if self.touched is not None:
            self.host.changed(applied.kind)
        self.reads.applied(applied.index)
        if one.done is not None:
            one.done()
        if self.refusal:
            self.upkeep.review()

    # --- what is not -------------------------------------------------------------

    def withdrawn(self, from_index: int, error: DiskFullError) -> None:
        """The disk is full; what a group of one could not write is refused."""
        self.refusal = "the disk is full"
        if not from_index:
            return
        for place in [place for place in self._waiting if place[0] >= from_index]:
            entry = self._waiting.pop(place)
            self.inflight_bytes -= len(entry.body)
            self._next_offset -= entry.events
            self._drop(entry, error)

    def _drop(self, entry: Waiting, error: BackpressureError) -> None:
        """Tell whoever sent the entry to come again: nothing of it was stored."""
        if entry.done is not None:
            entry.done(error, 0)
        else:
            self.statistics.requests_backpressure += 1
            self._deliver_refusal(entry.routes, error_of(error))

    def _send_away(self, entry: Waiting) -> None:
        """Tell whoever sent the entry that another node leads: nothing of it was stored."""
        self.statistics.requests_not_leading += 1
        if entry.done is not None:
            entry.done(BackpressureError(NOT_LEADING, retry_after=0.05), 0)
        else:
            self._deliver_refusal(entry.routes, _not_leading())

    def _deliver_refusal(self, routes: bytes, reply: ErrorReply) -> None:
        self.host.deliver(refuse(routes, self.machine.applied, reply))

    def fail(self, error: BaseException) -> None:
        """Acknowledge nothing more; the first error is the one that counts."""
        if self.failure is None:
            self.failure = error
            self.replica.stop()
            self.host.failed(error)

    # --- leadership ------------------------------------------------------------------

    def stand_for_election(self) -> None:
        """Do not wait for the election's timeout: the leader is known to be gone."""
        try:
            self.replica.campaign()
        except Exception as error:  # the vote could not be written: it must not be given
            self.fail(error)
        self.request_turn()

    def hand_over_lead(self, node_id: int) -> None:
        """Bring a follower up to date and let it lead; input is not taken meanwhile."""
        try:
            self._seal()
            self.replica.raft.transfer_leader(node_id)
            self.leadership_changed()
        except Exception as error:
            self.fail(error)
        self.request_turn()

    # --- time ----------------------------------------------------------------------

    def raft_tick(self) -> None:
        """One tick of the elections' clock."""
        if self.failure is not None:
            return
        try:
            self.replica.tick()
            if self.leads != self.replica.leads:
                self.leadership_changed()
            self.reads.tick()
            self.replica.carry_out()
            self.replica.flush()
        except Exception as error:
            self.fail(error)

    def tick(self) -> None:
        """Housekeeping; call about once a second."""
        try:
            self.upkeep.tick()
        except DiskFullError:
            self.refusal = "the disk is full"
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
        return not (self._waiting or self.replica.has_work or self._applying or self.builder.size)

    def queues(self) -> dict[str, int]:
        """What waits here just now: events to be sealed, entries to be applied, reads."""
        return {
            "builder": self.builder.events,
            "sync": self.replica.group.waiting,
            "apply": self._applying,
            "commit": len(self._waiting),
            "reads": len(self.reads),
        }

    def close(self) -> None:
        """Finish what is under way, snapshot if that is cheap, give the directory back."""
        try:
            self._finish()
        finally:
            self._hasher.abandon()
            self.opened.close()

    def _finish(self) -> None:
        """Sync and apply the rest here: the threads end."""
        if self._applier is not None:
            self._applier.close()
            self._applier = None
        if self.failure is None:
            self._seal()
        self.replica.finish()
        if self.failure is None:
            self.upkeep.last_snapshot()


def _not_leading() -> ErrorReply:
    return ErrorReply(ErrorCode.NOT_LEADER, NOT_LEADING, 50)
