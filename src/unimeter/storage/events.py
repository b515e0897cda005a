"""Which stored events counted, and reading them back.

Owns the listing of raw events and the rows that a query needs where a range cuts
through a bucket. The log itself holds the events; this module knows which of them
counted (`outcomes`), where retention has cut the log, and how to page through it.

A cursor is "<entry index>-<event number>" of the next event to look at; it means
the same on every replica and stays valid across restarts.

Reading runs in any thread while the log is written: it opens files of its own and
looks only at entries that were noted (applied) before it began. Per entry the
kernel selects the events; Python sees only those that match.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from unimeter import limits
from unimeter.engine import entries
from unimeter.engine.records import EventRow, EventsBody
from unimeter.errors import CorruptionError, InvalidInputError, RangeUnavailableError
from unimeter.storage.disk import Disk
from unimeter.storage.outcomes import (
    Bitmaps,
    Outcomes,
    bitmap_of,
    encode_outcomes,
    is_counted,
    read_outcomes,
)
from unimeter.storage.segments import RESTORE_ADVICE, WINDOW_BYTES, indexes_of
from unimeter.storage.wal import Wal
from unimeter.types import EventRecord, OperationType, from_ns

_SUFFIX = ".out"
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9]{1,9})")
_PART_WINDOW_BYTES = 1024 * 1024  # one read where only a part of a segment is wanted
_LOADED_MAX = 8  # outcome files kept in memory for readers
_BACK_ENTRIES_MAX = 32  # read at once, backwards: they are all in memory then
REASON_BYTES_MAX = 4 * 1024 * 1024  # one byte an event, of entries with refusals or duplicates


class StoredEvent(NamedTuple):
    """One counted event: where it lies and what it says."""

    entry_index: int
    number: int  # within the entry
    offset: int
    row: EventRow


@dataclass
class EventPage:
    """One page of a listing; `cursor` is empty on the last page."""

    events: list[EventRecord] = field(default_factory=list)
    cursor: str = ""


class EventStore:
    """The counted events of one data directory."""

    def __init__(self, disk: Disk, directory: str, wal: Wal) -> None:
        self.noted_index = 0  # of the newest entry that `note` was called for
        self.removed_timestamp_ns = 0  # the latest event timestamp that retention removed
        # Where the machine stands; what is above is durable at most, and may be replaced.
        self.applied_index: Callable[[], int] = lambda: wal.synced_index
        self._disk, self._directory, self._wal = disk, f"{directory}/outcomes", wal
        self._covered = 0  # outcomes up to this index are in files
        self._files: list[tuple[int, int, int]] = []  # (after, to, latest ns), ascending
        self._recent: Bitmaps = {}  # of entries above _covered
        self._loaded: dict[int, Bitmaps] = {}  # by `to` of the file
        self._reasons: dict[int, bytes] = {}  # outcomes of the newest entries that have others
        self._reason_bytes = 0
        self._ranges: dict[tuple[int, int], tuple[int, int]] = {}  # timestamps, by segment
        self._lock = threading.Lock()

    # --- outcomes ----------------------------------------------------------------

    def note(self, index: int, outcomes: bytes | memoryview) -> None:
        """Remember the outcomes of an EVENTS entry, in log order.

        May be left out for an entry whose events were all stored.
        """
        assert index > self.noted_index, "outcomes out of order"
        found = bytes(outcomes)
        if found.count(0) != len(found):
            self._recent[index] = (len(found), bitmap_of(found))
            self._keep_reasons(index, found)
        self.noted_index = index

    def _keep_reasons(self, index: int, outcomes: bytes) -> None:
        """Which refusal it was, for whoever looks at the newest events; bitmaps do not say."""
        self._reasons[index] = outcomes
        self._reason_bytes += len(outcomes)
        while self._reason_bytes > REASON_BYTES_MAX:
            self._reason_bytes -= len(self._reasons.pop(next(iter(self._reasons))))

    def write_outcomes(self, cluster_id: bytes, to_index: int) -> None:
        """Write the outcomes since the last file, durably (before a snapshot at `to_index`).

        The latest timestamp is looked up here, in the log, because this runs in a
        forked child; when retention removes segments, nothing has to be read.
        """
        latest_ns = latest_timestamp(self._wal, self._covered + 1, to_index)
        whole = Outcomes(cluster_id, self._covered, to_index, latest_ns, self._recent)
        path = self._path(to_index)
        file = self._disk.open(f"{path}.tmp", create=True)
        try:
            file.write(0, [encode_outcomes(whole)])
            file.sync()
        finally:
            file.close()
        self._disk.rename(f"{path}.tmp", path)
        self._disk.sync_directory(self._directory)

    def adopt(self, to_index: int) -> None:
        """The file at `to_index` is in effect: let go of what it holds."""
        found = read_outcomes(self._disk, self._path(to_index))
        with self._lock:
            self._files = [*self._files, (found.after, to_index, found.latest_ns)]
            self._covered = to_index
            self._recent = {i: bits for i, bits in self._recent.items() if i > to_index}

    def discard_unadopted(self) -> None:
        """The snapshot that a file of outcomes was for has failed: the next file begins earlier."""
        late = [to_index for to_index in self._indexes() if to_index > self._covered]
        for to_index in late:
            self._disk.remove(self._path(to_index))
        if late:
            self._disk.sync_directory(self._directory)

    def load(self, cluster_id: bytes, first_index: int) -> tuple[int, list[str]]:
        """Check every outcomes file; return (up to which index they are whole, sentences).

        Stops at the first damaged or missing one: what follows is made again by
        replay from a snapshot at or below the returned index.
        """
        notes: list[str] = []
        until: int | None = None
        for to_index in self._indexes():
            if to_index < first_index:
                # Retention removed the file and a power cut brought its name back.
                self._disk.remove(self._path(to_index))
                continue
            try:
                found = read_outcomes(self._disk, self._path(to_index))
                if found.to_index != to_index or found.cluster_id != cluster_id:
                    raise CorruptionError(
                        self._path(to_index),
                        16,
                        f"outcomes up to {to_index} of this cluster",
                        f"up to {found.to_index} of cluster {found.cluster_id.hex()}",
                        RESTORE_ADVICE,
                    )
            except CorruptionError as damage:
                notes.append(f"{damage} It is made anew by replay.")
                break
            is_first = until is None and found.after < first_index
            if not is_first and found.after != until:
                notes.append(f"{self._path(to_index)}: starts after {found.after}, not {until}")
                break
            self._files.append((found.after, to_index, found.latest_ns))
            until = to_index
        return max(until or 0, first_index - 1), notes

    def start_from(self, snapshot_index: int) -> None:
        """Outcomes up to the snapshot come from files, later ones from the coming replay."""
        self._files = [file for file in self._files if file[1] <= snapshot_index]
        self._covered = self.noted_index = snapshot_index
        for to_index in self._indexes():
            if to_index > snapshot_index:
                self._disk.remove(self._path(to_index))

    def restart_after(self, index: int, removed_timestamp_ns: int) -> None:
        """Nothing up to `index` is stored any more: a peer's snapshot took its place."""
        with self._lock:
            self._files, self._recent = [], {}
            self._reasons, self._reason_bytes = {}, 0
            self._loaded, self._ranges = {}, {}
            self._covered = self.noted_index = index
            self.removed_timestamp_ns = removed_timestamp_ns

    def remove_before(self, index: int) -> None:
        """Forget the outcomes of entries that are no longer stored."""
        with self._lock:
            gone = [file for file in self._files if file[1] < index]
            self._files = [file for file in self._files if file[1] >= index]
            for _, to_index, _ in gone:
                self._loaded.pop(to_index, None)
                self._disk.remove(self._path(to_index))

    def forget_after(self, index: int) -> None:
        """Entries above `index` are replaced by others (none of them was applied)."""
        assert self._covered <= index and self.noted_index <= index, "an applied entry went"
        self._ranges = {key: known for key, known in self._ranges.items() if key[1] <= index}

    def latest_before(self, index: int) -> int:
        """A timestamp that no event of the entries below `index` is later than."""
        return max([latest for after, _, latest in self._files if after + 1 < index], default=0)

    def counted_bits(self, index: int) -> tuple[int, bytes] | None:
        """(number of events, bitmap) of an entry; None where every event counted."""
        with self._lock:
            if index > self._covered:
                return self._recent.get(index)
            for after, to_index, _ in reversed(self._files):
                if after < index <= to_index:
                    return self._load(to_index).get(index)
        raise RangeUnavailableError(f"the outcomes of entry {index} are no longer stored")

    def _load(self, to_index: int) -> Bitmaps:
        found = self._loaded.get(to_index)
        if found is None:
            found = read_outcomes(self._disk, self._path(to_index)).bitmaps
            if len(self._loaded) >= _LOADED_MAX:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[to_index] = found
        return found

    def _path(self, to_index: int) -> str:
        return f"{self._directory}/{to_index:016x}{_SUFFIX}"

    def _indexes(self) -> list[int]:
        return indexes_of(self._disk, self._directory, _SUFFIX)

    # --- reading -----------------------------------------------------------------

    def scan(
        self,
        account: int | str | None,
        metric_code: str | None,
        start_ns: int = limits.TIMESTAMP_NS_MIN,
        end_ns: int = limits.TIMESTAMP_NS_MAX,
        from_index: int = 0,
        to_index: int | None = None,
        cursor: str = "",
        limit: int = 1000,
    ) -> EventPage:
        """One page of counted events with start_ns <= timestamp < end_ns, in log order.

        Callable from any thread. `from_index=0` starts with the oldest stored
        entry; another one below it raises RangeUnavailableError when removed events
        could belong to the range. `to_index` must be applied (None: everything that
        is). InvalidInputError for a cursor that is none of ours.
        """
        if limit < 1:
            raise InvalidInputError(f"limit {limit} must be at least 1")
        self._check_range(from_index, start_ns)
        first, number = _parse_cursor(cursor, from_index)
        page = EventPage()
        for event in self._select(account, metric_code, start_ns, end_ns, first, to_index, number):
            if len(page.events) == limit:
                page.cursor = f"{event.entry_index}-{event.number}"
                return page
            page.events.append(_record(event))
        return page

    def rows(
        self,
        account: int | str | None,
        metric_code: str | None,
        start_ns: int,
        end_ns: int,
        from_index: int = 0,
        to_index: int | None = None,
    ) -> Iterator[StoredEvent]:
        """The same, all of it and undressed, for answers at the edges of buckets."""
        self._check_range(from_index, start_ns)
        return self._select(account, metric_code, start_ns, end_ns, from_index, to_index, 0)

    def outcome_of(self, index: int, number: int) -> int | None:
        """What became of event `number` of an applied entry; None: it did not count, and why
        is not kept that far back."""
        reasons = self._reasons.get(index)
        if reasons is not None:
            return reasons[number]
        counted = self.counted_bits(index)
        return 0 if counted is None or is_counted(counted[1], number) else None

    def bodies_back(self, before: int) -> Iterator[tuple[int, EventsBody]]:
        """The applied EVENTS entries below index `before` (0: all of them), newest first."""
        stop = min(self.applied_index(), self._wal.synced_index)
        stop = min(stop, before - 1) if before else stop
        step = 2
        try:
            while stop >= self._wal.first_index:
                start = max(stop - step + 1, self._wal.first_index)
                read = list(self._wal.read(start, stop, _PART_WINDOW_BYTES))
                for entry in reversed(read):
                    if entry.kind == entries.EVENTS:
                        yield entry.index, EventsBody(entry.body)
                stop, step = start - 1, min(2 * step, _BACK_ENTRIES_MAX)
        except FileNotFoundError as error:
            raise RangeUnavailableError("retention removed events while they were read") from error

    def _check_range(self, from_index: int, start_ns: int) -> None:
        first = self._wal.first_index
        if 0 < from_index < first and start_ns <= self.removed_timestamp_ns:
            raise RangeUnavailableError(
                f"events of entries {from_index} to {first - 1} are not stored: retention removed "
                "them, or this node began with a peer's snapshot; choose a range of whole "
                "buckets, or one that starts later"
            )

    def _select(
        self,
        account: int | str | None,
        metric_code: str | None,
        start_ns: int,
        end_ns: int,
        from_index: int,
        to_index: int | None,
        number: int,
    ) -> Iterator[StoredEvent]:
        """Counted events that fit, from event `number` of entry `from_index` on."""
        applied = min(self.applied_index(), self._wal.synced_index)
        last = applied if to_index is None else min(to_index, applied)
        try:
            for index, body in self._bodies(max(1, from_index), last, start_ns, end_ns):
                found = body.select(account, metric_code, start_ns, end_ns)
                if not found:
                    continue
                counted = self.counted_bits(index)
                for at in found:
                    if index == from_index and at < number:
                        continue
                    if counted is None or is_counted(counted[1], at):
                        yield StoredEvent(index, at, body.first_offset + at, body.event(at))
        except FileNotFoundError as error:
            raise RangeUnavailableError("retention removed events while they were read") from error

    def _bodies(
        self, first: int, last: int, start_ns: int, end_ns: int
    ) -> Iterator[tuple[int, EventsBody]]:
        """EVENTS entries first..last, leaving out segments known to have no event of the range.

        The range of timestamps of a segment that is written full is measured when
        it is first read whole, and remembered: reading is rare, and this keeps
        the path of an acknowledgement free of it.
        """
        rows = self._wal.segments()
        for at, (segment_first, segment_last, _, _) in enumerate(rows):
            if segment_last < first or segment_first > last:
                continue
            key = (segment_first, segment_last)
            known = self._ranges.get(key)
            if known is not None and (known[1] < start_ns or known[0] >= end_ns):
                continue
            is_whole = first <= segment_first and segment_last <= last and at + 1 < len(rows)
            measure = is_whole and known is None
            low, high = limits.TIMESTAMP_NS_MAX, 0
            window = WINDOW_BYTES if is_whole else _PART_WINDOW_BYTES
            start, stop = max(first, segment_first), min(last, segment_last)
            for entry in self._wal.read(start, stop, window):
                if entry.kind == entries.EVENTS:
                    body = EventsBody(entry.body)
                    if measure:
                        stamps = body.timestamps().tolist()
                        low, high = min(low, *stamps), max(high, *stamps)
                    yield entry.index, body
            if measure:
                self._ranges[key] = (low, high)

    def statistics(self) -> dict[str, int]:
        return {
            "outcome_entries": len(self._recent),
            "outcome_bytes": sum(len(bits) for _, bits in list(self._recent.values())),
            "outcome_files": len(self._files),
        }


def latest_timestamp(wal: Wal, first: int, last: int) -> int:
    """A timestamp that no event of entries first..last is later than.

    The last entry's own, or that of an event that was sent with a later one.
    """
    latest = 0
    for entry in wal.read(first, last, WINDOW_BYTES):
        latest = max(latest, entry.timestamp_ns)
        if entry.kind == entries.EVENTS:
            body = EventsBody(entry.body)
            later = body.select(None, None, latest + 1, limits.TIMESTAMP_NS_MAX)
            latest = max([latest, *(body.event(number).timestamp_ns for number in later)])
    return latest


def _parse_cursor(cursor: str, from_index: int) -> tuple[int, int]:
    if not cursor:
        return from_index, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInputError(f"cursor {cursor!r} is not one that a page gave")
    return int(match[1]), int(match[2])


def _record(event: StoredEvent) -> EventRecord:
    row = event.row
    return EventRecord(
        row.account,
        row.metric_code,
        row.value,
        OperationType(row.operation),
        from_ns(row.timestamp_ns),
        event.offset,
        row.properties,
        row.id,
        row.timestamp_ns,
    )
