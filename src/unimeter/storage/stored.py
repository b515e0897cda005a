"""The segments of a log as a whole: which entries they hold, and reading them.

Owns the list of segments. A reader opens files of its own, so it may run in any
thread while the log is written, rolled and trimmed: it holds the list of the moment
it began, and lists are replaced, never shortened in place. It looks only at
entries up to the index it is given, which must be durable.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from unimeter.storage import tail
from unimeter.storage.disk import Disk
from unimeter.storage.segments import RESTORE_ADVICE, Entry, Segment, Walk


class StoredSegments:
    """The segments of one log, oldest first; the last one is being written."""

    def __init__(self, disk: Disk, segments: list[Segment], base_index: int = 0) -> None:
        self._disk, self.all = disk, segments
        self._base_index = base_index  # an empty log goes on after this entry

    def __len__(self) -> int:
        return len(self.all)

    @property
    def first_index(self) -> int:
        """Of the oldest entry stored; in an empty log, of the one that comes first."""
        return self.all[0].first_index if self.all else self._base_index + 1

    @property
    def size_bytes(self) -> int:
        return sum(segment.head.segment_bytes for segment in self.all)

    def add(self, segment: Segment) -> None:
        assert not self.all or segment.first_index > self.all[-1].first_index
        self.all = [*self.all, segment]

    def remove_before(self, index: int) -> int:
        """Remove segments whose entries are all below `index`, but the last; return how many."""
        count = 0
        while len(self.all) > 1 and self.all[1].first_index <= index:
            self._disk.remove(self.all[0].path)
            self.all = self.all[1:]
            count += 1
        return count

    def remove_last(self) -> None:
        self._disk.remove(self.all[-1].path)
        self.all = self.all[:-1]

    def rows(self, last_index: int, timestamp_ns: int) -> list[tuple[int, int, int, int]]:
        """(first index, last index, bytes, timestamp of the last entry) of each.

        Of the last one the caller knows where it ends.
        """
        rows = [
            (
                one.first_index,
                after.first_index - 1,
                one.head.segment_bytes,
                after.head.parent_timestamp_ns,
            )
            for one, after in pairwise(self.all)
        ]
        if self.all:
            last = self.all[-1]
            rows.append((last.first_index, last_index, last.head.segment_bytes, timestamp_ns))
        return rows

    def bytes_after(self, index: int, position: int) -> int:
        """About how many bytes the entries above `index` take; the log ends at `position`."""
        total = 0
        for segment, after in pairwise(self.all):
            if after.first_index > index + 1:
                total += segment.head.segment_bytes - segment.nearest(index + 1)[1]
        if self.all:
            total += position - self.all[-1].nearest(index + 1)[1]
        return max(0, total)

    def start_of_walk(self, index: int) -> int:
        """The nearest entry not after `index` whose place is remembered."""
        holders = [segment for segment in self.all if segment.first_index <= index]
        assert holders, f"entry {index} is not stored"
        return holders[-1].nearest(index)[0]

    def read(self, first: int, last: int, window_bytes: int) -> Iterator[Entry]:
        """Entries first..last, checked, in order, none if last < first; all must be durable."""
        if last < first:  # the walk below stops at `last`, and must not begin behind it
            return
        segments = self.all
        for at, segment in enumerate(segments):
            after = segments[at + 1] if at + 1 < len(segments) else None
            if segment.first_index > last:
                return
            if after is not None and after.first_index <= first:
                continue
            yield from self._read_segment(segment, after, first, last, window_bytes)

    def _read_segment(
        self, segment: Segment, after: Segment | None, first: int, last: int, window_bytes: int
    ) -> Iterator[Entry]:
        # Not one entry further: what follows may be a suffix that is about to be cut.
        stop = last if after is None or last < after.first_index - 1 else -1
        file = self._disk.open(segment.path)
        try:
            walk = Walk(file, segment, segment.nearest(first), window_bytes)
            for entry in walk:
                if entry.index >= first:
                    yield entry
                if entry.index == stop:
                    return
            if after is not None:
                tail.check_sealed(segment.path, walk, after.head)
            elif walk.next_index <= last:
                raise tail.rotten(segment.path, walk, RESTORE_ADVICE)
        finally:
            file.close()
