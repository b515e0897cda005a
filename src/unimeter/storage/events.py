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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from unimeter import limits
from unimeter.errors import CorruptionError, InvalidInputError, RangeUnavailableError
from unimeter.storage.disk import Disk
from unimeter.storage.outcomes import (
    Bitmaps,
    bitmap_of,
    encode_outcomes,
    is_counted,
    read_outcomes,
)
from unimeter.storage.segments import RESTORE_ADVICE, WINDOW_BYTES
from unimeter.storage.wal import Wal
from unimeter.types import EventRecord, OperationType, from_ns

if TYPE_CHECKING:
    from unimeter.engine.records import EventRow

EVENTS_KIND = 2  # of the log entries that carry events; the engine's number
_SUFFIX = ".out"
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9]{1,9})")
_LOADED_MAX = 8  # outcome files kept in memory for readers


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
        self.noted_index = 0  # of the newest EVENTS entry whose outcomes are known
        self.removed_timestamp_ns = 0  # the latest event timestamp that retention removed
        self._disk, self._directory, self._wal = disk, f"{directory}/outcomes", wal
        self._covered = 0  # outcomes up to this index are in files
        self._files: list[tuple[int, int]] = []  # (after, to) of each file, ascending
        self._recent: Bitmaps = {}  # of entries above _covered
        self._loaded: dict[int, Bitmaps] = {}  # by `to` of the file
        self._lock = threading.Lock()

    # --- outcomes ----------------------------------------------------------------

    def note(self, index: int, outcomes: bytes | memoryview) -> None:
        """Remember the outcomes of an EVENTS entry; call once per entry, in log order."""
        assert index > self.noted_index, "outcomes out of order"
        found = bytes(outcomes)
        if found.count(0) != len(found):
            self._recent[index] = (len(found), bitmap_of(found))
        self.noted_index = index

    def write_outcomes(self, cluster_id: bytes, to_index: int) -> None:
        """Write the outcomes since the last file, durably (before a snapshot at `to_index`)."""
        path = self._path(to_index)
        file = self._disk.open(f"{path}.tmp", create=True)
        try:
            file.write(0, [encode_outcomes(cluster_id, self._covered, to_index, self._recent)])
            file.sync()
        finally:
            file.close()
        self._disk.rename(f"{path}.tmp", path)
        self._disk.sync_directory(self._directory)

    def adopt(self, to_index: int) -> None:
        """The file at `to_index` is in effect: let go of what it holds."""
        with self._lock:
            self._files = [*self._files, (self._covered, to_index)]
            self._covered = to_index
            self._recent = {i: bits for i, bits in self._recent.items() if i > to_index}

    def load(self, cluster_id: bytes, first_index: int) -> tuple[int, list[str]]:
        """Check every outcomes file; return (up to which index they are whole, sentences).

        Stops at the first damaged or missing one: what follows is made again by
        replay from a snapshot at or below the returned index.
        """
        notes: list[str] = []
        until = None
        for to_index in self._indexes():
            try:
                cluster, after, to, _ = read_outcomes(self._disk, self._path(to_index))
                if to != to_index or cluster != cluster_id:
                    raise CorruptionError(
                        self._path(to_index), 16, f"outcomes up to {to_index} of this cluster",
                        f"up to {to} of cluster {cluster.hex()}", RESTORE_ADVICE,
                    )
            except CorruptionError as damage:
                notes.append(f"{damage} It is made anew by replay.")
                break
            is_first = until is None and after < first_index
            if not is_first and after != until:
                notes.append(f"{self._path(to_index)}: starts after entry {after}, not {until}")
                break
            self._files.append((after, to))
            until = to
        return until or 0, notes

    def start_from(self, snapshot_index: int) -> None:
        """Outcomes up to the snapshot come from files, later ones from the coming replay."""
        self._files = [pair for pair in self._files if pair[1] <= snapshot_index]
        self._covered = self.noted_index = snapshot_index
        for to_index in self._indexes():
            if to_index > snapshot_index:
                self._disk.remove(self._path(to_index))

    def remove_before(self, index: int) -> None:
        """Forget the outcomes of entries that are no longer stored."""
        with self._lock:
            gone = [pair for pair in self._files if pair[1] < index]
            self._files = [pair for pair in self._files if pair[1] >= index]
            for _, to_index in gone:
                self._loaded.pop(to_index, None)
                self._disk.remove(self._path(to_index))

    def counted_bits(self, index: int) -> tuple[int, bytes] | None:
        """(number of events, bitmap) of an entry; None where every event counted."""
        with self._lock:
            if index > self._covered:
                return self._recent.get(index)
            for after, to_index in reversed(self._files):
                if after < index <= to_index:
                    return self._load(to_index).get(index)
        raise RangeUnavailableError(f"the outcomes of entry {index} are no longer stored")

    def _load(self, to_index: int) -> Bitmaps:
        found = self._loaded.get(to_index)
        if found is None:
            found = read_outcomes(self._disk, self._path(to_index))[3]
            if len(self._loaded) >= _LOADED_MAX:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[to_index] = found
        return found

    def _path(self, to_index: int) -> str:
        return f"{self._directory}/{to_index:016x}{_SUFFIX}"

    def _indexes(self) -> list[int]:
        names = self._disk.names(self._directory)
        return [int(name.removesuffix(_SUFFIX), 16) for name in names if name.endswith(_SUFFIX)]

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
        could belong to the range. InvalidInputError for a cursor that is none of
        ours.
        """
        if not 1 <= limit <= limits.PAGE_ITEMS_MAX:
            raise InvalidInputError(f"limit {limit} is not in 1..{limits.PAGE_ITEMS_MAX}")
        first, number = self._parse(cursor, from_index)
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

    def _parse(self, cursor: str, from_index: int) -> tuple[int, int]:
        if not cursor:
            return from_index, 0
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            raise InvalidInputError(f"cursor {cursor!r} is not one that a page gave")
        return int(match[1]), int(match[2])

    def _check_range(self, from_index: int, start_ns: int) -> None:
        first = self._wal.first_index
        if 0 < from_index < first and start_ns <= self.removed_timestamp_ns:
            raise RangeUnavailableError(
                f"events of entries {from_index} to {first - 1} were removed by retention; "
                "choose a range of whole buckets, or one that starts later"
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
        from unimeter.engine.records import EventsBody

        noted = self.noted_index
        last = noted if to_index is None else min(to_index, noted)
        first = max(from_index, self._wal.first_index)
        skip = number if first == from_index else 0
        try:
            for entry in self._wal.read(first, last, WINDOW_BYTES if not from_index else 1 << 20):
                if entry.kind != EVENTS_KIND:
                    continue
                body = EventsBody(entry.body)
                found = body.select(account, metric_code, start_ns, end_ns)
                if not found:
                    continue
                counted = self.counted_bits(entry.index)
                for at in found:
                    if entry.index == first and at < skip:
                        continue
                    if counted is None or is_counted(counted[1], at):
                        yield StoredEvent(entry.index, at, body.first_offset + at, body.event(at))
        except FileNotFoundError as error:
            raise RangeUnavailableError("retention removed events while they were read") from error

    def statistics(self) -> dict[str, int]:
        return {
            "outcome_entries": len(self._recent),
            "outcome_bytes": sum(len(bits) for _, bits in list(self._recent.values())),
            "outcome_files": len(self._files),
        }


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
