"""A node without a loop: one directory, real engine and storage, for the storage tests.

`Meter.ingest` is the order that matters: seal, append, sync, apply, note.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timezone

from unimeter.engine import catalog, entries, query
from unimeter.engine.decode import FEED_MORE, EntryBuilder
from unimeter.storage.disk import Disk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.wal import WalLimits
from unimeter.types import AggType, Event, MetricSchema
from unimeter.wire.v2_ingest import encode_ingest

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
NOW_NS = int(NOW.timestamp()) * 10**9
START_NS = NOW_NS - 12 * 3600 * 10**9
END_NS = START_NS + 31 * 86_400 * 10**9
PATH = "data"
TINY = WalLimits(segment_bytes=8192, segment_bytes_first=8192, background=False)


def fixed_entropy() -> itertools.count[int]:
    return itertools.count(7)


class Meter:
    """One open directory and a clock that ticks by hand."""

    def __init__(
        self,
        disk: Disk,
        path: str = PATH,
        bounds: WalLimits = TINY,
        **options: object,
    ) -> None:
        seeds = itertools.count(7)
        self.clock_ns = NOW_NS
        self.opened: Opened = open_directory(
            disk,
            path,
            bounds=bounds,
            entropy=lambda count: bytes([next(seeds)]) * count,
            now_ns=lambda: NOW_NS,
            **options,  # type: ignore[arg-type]
        )
        self.machine, self.wal = self.opened.machine, self.opened.wal
        self.clock_ns = max(self.clock_ns, self.machine.timestamp_ns)
        self.builder = EntryBuilder()
        self.requests = itertools.count(1)

    def create(self, *schemas: MetricSchema) -> None:
        for schema in schemas:
            self._commit(entries.METRIC_PUT, catalog.put_body(schema))

    def stage(self, events: Sequence[Event]) -> int:
        """Append without syncing; the entry's index."""
        self.clock_ns += 10**9
        self.builder.now_ns = self.clock_ns
        payload = encode_ingest(events)
        assert self.builder.feed_payload(2, next(self.requests), payload, 0) == FEED_MORE
        offset = self.machine.next_offset
        sealed = self.builder.seal(self.clock_ns, offset)
        assert sealed is not None
        return self._append(entries.EVENTS, sealed.body)

    def ingest(self, events: Sequence[Event]) -> int:
        """Count events; the entry's index. Returns after the sync: acknowledged."""
        self.stage(events)
        return self.commit()

    def commit(self) -> int:
        """Sync what is staged, then apply it."""
        synced = self.wal.sync()
        for entry in self.wal.read(self.machine.applied + 1, synced):
            applied = self.machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
            if applied.duplicates or applied.refused:
                self.opened.events.note(entry.index, applied.outcomes)
        return synced

    def snapshot(self, background: bool = False) -> None:
        self.opened.snapshots.begin(self.machine, background=background)
        result = self.opened.snapshots.wait()
        assert result is not None and not result.error, result

    def total(self, account: int | str, code: str = "calls") -> int:
        """The SUM of March."""
        plan = query.plan_total(self.machine, account, code, START_NS, END_NS)
        rows = itertools.chain.from_iterable(
            self.opened.events.rows(
                edge.account,
                edge.metric_code,
                edge.start_ns,
                edge.end_ns,
                plan.from_index,
                plan.position,
            )
            for edge in plan.edges
        )
        return plan.finish(rows).sum

    def close(self) -> None:
        self.opened.close()

    def _append(self, kind: int, body: bytes) -> int:
        index = self.wal.last_index + 1
        self.wal.append(index, 1, kind, self.clock_ns, body)
        return index

    def _commit(self, kind: int, body: bytes) -> None:
        self._append(kind, body)
        self.commit()


CALLS = MetricSchema("calls", AggType.SUM)


def small_meter(disk: Disk | None = None, batches: int = 6) -> Meter:
    """A directory with a metric and a few entries; account 1's total is the batches' sum."""
    meter = Meter(disk or MemoryDisk())
    meter.create(CALLS)
    for number in range(1, batches + 1):
        meter.ingest(
            [
                Event(1, "calls", number, NOW, id=f"a{number}"),
                Event(2, "calls", 1, NOW, id=f"b{number % 3}"),
                Event(3, "nothing", 1, NOW),
            ]
        )
    return meter
