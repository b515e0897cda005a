"""What a node does beside its work: disk space, snapshots, retention.

Owns the schedule, not the work: `storage` writes snapshots and removes
segments, this module decides when. The host calls `tick` about once a second;
`review` is also called while the node refuses events, so that they are taken
again soon after space was freed.

    log since last snapshot > snapshot_log_bytes ──> fork a writer, go on
    writer has ended                             ──> note it, apply retention
    free space < disk_free_bytes_min             ──> refuse events, answer queries

The bound on free space is lowered on a small volume (a tenth of it), since the
log's own segments are allocated beforehand: what must stay free is room for the
next one and for a snapshot.

Rejected: a thread of its own. Everything here is a few system calls a second,
and a second thread would need the machine to hold still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.server.log import Notice
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.snapshots import SnapshotResult

if TYPE_CHECKING:
    from unimeter.server.node import Node

DISK_REVIEW_SECONDS = 0.2  # how old the knowledge about free space may be
TICK_SECONDS = 1.0
RETENTION_SECONDS = 60.0
SNAPSHOT_SECONDS_MAX = 1800.0  # a writer that takes longer hangs: give it up, try again later
_EVENT_BYTES = 40  # of log, about
LAST_SNAPSHOT_BYTES_MAX = 128 * 1024 * 1024  # at close: less than a second's work


class Upkeep:
    """The schedule of one node's housekeeping."""

    def __init__(self, node: Node) -> None:
        self.node, self._clock = node, node.platform.monotonic
        self.snapshot_log_bytes = limits.SNAPSHOT_LOG_BYTES
        self.disk_free_bytes_min = limits.DISK_FREE_BYTES_MIN
        self.retention = RetentionPolicy()
        self.free_bytes = 0
        self._snapshot_bytes = 0  # bytes_appended when the last snapshot was begun
        self._reviewed = float("-inf")
        self._retained = self._clock()
        self._ticked = float("-inf")
        self._snapshot_began = 0.0
        self._disk_refusal = ""

    def configure(
        self,
        snapshot_log_bytes: int,
        disk_free_bytes_min: int,
        retention: RetentionPolicy,
        volume: int,
    ) -> None:
        """Take the operator's numbers; the bound on free space is fitted to the volume's bytes."""
        self.snapshot_log_bytes = snapshot_log_bytes
        self.retention = retention
        self.disk_free_bytes_min = min(disk_free_bytes_min, volume // 10 if volume else 2**63)
        # An estimate is enough: it only moves the first snapshot.
        self.node.statistics.log_bytes_replayed = _EVENT_BYTES * self.node.opened.replayed_events

    def tick(self) -> None:
        """Look after everything. Call about once a second."""
        if self.node.failure is not None:
            return
        self.review()
        self._look_at_snapshot()
        if self.log_bytes_since_snapshot > self.snapshot_log_bytes:
            self.begin_snapshot()
        if self._clock() - self._retained > RETENTION_SECONDS:
            self._apply_retention()

    def maybe_tick(self) -> None:
        """For a host without a timer: tick if the last one is a second ago."""
        now = self._clock()
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self.node.tick()

    # --- space -------------------------------------------------------------------

    def review(self) -> None:
        """Decide anew whether events are taken; looks at the disk at most every 200 ms."""
        now = self._clock()
        node = self.node
        if now - self._reviewed >= DISK_REVIEW_SECONDS:
            self._reviewed = now
            self.free_bytes = node.opened.free_bytes()
            self._disk_refusal = self._look_at_disk()
        if node.inflight_bytes > node.inflight_bytes_max:
            node.refusal = "too many bytes are waiting for the disk"
        elif node.wal.full:
            node.refusal = "the disk is full"
        else:
            node.refusal = self._disk_refusal

    @property
    def is_short_of_disk(self) -> bool:
        """Whether it is the disk that keeps events out."""
        return self.node.wal.full or bool(self._disk_refusal)

    def _look_at_disk(self) -> str:
        """Why the disk has no room for events, or nothing."""
        if self.free_bytes < self.disk_free_bytes_min:
            return (
                f"the disk has {self.free_bytes >> 20} MiB free and the node keeps "
                f"{self.disk_free_bytes_min >> 20} MiB; events are taken again when there is room"
            )
        if self.node.wal.full and not self.node.replica.try_resume():
            return "the disk is full"
        return ""

    # --- snapshots ---------------------------------------------------------------

    def replaced(self) -> None:
        """The state came as a snapshot: what was in the log before counts no more."""
        self._snapshot_bytes += self.log_bytes_since_snapshot

    @property
    def log_bytes_since_snapshot(self) -> int:
        """How much a restart would have to replay."""
        counts = self.node.statistics
        return counts.log_bytes_replayed + counts.bytes_appended - self._snapshot_bytes

    def begin_snapshot(self, background: bool = True) -> bool:
        """Start a snapshot of what is applied unless one is running; whether it was started."""
        snapshots, machine = self.node.opened.snapshots, self.node.machine
        if snapshots.busy or machine.applied <= snapshots.last_index or self.node.refusal:
            return False
        self._snapshot_bytes += self.log_bytes_since_snapshot
        self._snapshot_began = self._clock()
        with self.node.lock:  # no apply may be under way while the state is copied
            snapshots.begin(machine, background=background)
        return True

    def _look_at_snapshot(self) -> None:
        """Hear of a snapshot that has ended; give up one that never will."""
        snapshots = self.node.opened.snapshots
        with self.node.lock:
            result = snapshots.poll()
        self._after_snapshot(result)
        if snapshots.busy and self._clock() - self._snapshot_began > SNAPSHOT_SECONDS_MAX:
            snapshots.abandon()
            self.node.statistics.snapshots_failed += 1
            text = "a snapshot did not end and was given up"
            self.node.host.notice(Notice(text, event="snapshot_failed", level="warning"))

    def _after_snapshot(self, result: SnapshotResult | None) -> None:
        """Note how a snapshot ended."""
        if result is None:
            return
        counts = self.node.statistics
        counts.snapshot_seconds.observe(result.seconds)
        if result.error:
            counts.snapshots_failed += 1
            text = f"snapshot at {result.index} failed: {result.error}"
            failed = Notice(text, event="snapshot_failed", level="warning", index=result.index)
            self.node.host.notice(failed)
            if result.rotten_index:
                self.node.replica.log.note_rotten(result.rotten_index)
        else:
            counts.snapshots_written += 1
            self._apply_retention()

    def _apply_retention(self) -> None:
        """Let go of what the policy does not keep."""
        self._retained = self._clock()
        if self.retention.age_ns or self.retention.bytes:
            self.node.opened.apply_retention(self.retention, self.node.clock())

    def last_snapshot(self) -> None:
        """At close: snapshot if it is cheap, so that the next start has nothing to replay."""
        if self.node.opened.snapshots.busy:
            self._after_snapshot(self.node.opened.snapshots.wait())
        sizes = self.node.machine.statistics()
        state_bytes = sizes["cell_bytes"] + sizes["member_bytes"] + sizes["key_bytes"]
        if self.log_bytes_since_snapshot and state_bytes <= LAST_SNAPSHOT_BYTES_MAX:
            if self.begin_snapshot(background=False):
                self._after_snapshot(self.node.opened.snapshots.poll())
