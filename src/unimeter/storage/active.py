"""The segment being written: where the next entry goes, and how a group gets there.

Owns one file, open for writing, and the chain's last link. A group is encoded
behind the last entry and written durably in one call. Refuses to know what is
staged, and to start another segment; that is the log's affair (`wal`).

Behind `position` the file is zeros. If a write fails for lack of space, which
only file systems that copy on write do here, its place is made zero again before
the failure is told: what was refused must not be found after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unimeter.storage import layout
from unimeter.storage.disk import Buffer, DiskFullError, FatalStorageError, File
from unimeter.storage.layout import SEGMENT_HEADER_BYTES
from unimeter.storage.segments import Entry, Segment, Walk


def count_that_fits(staged: Sequence[Entry], position: int, limit: int) -> int:
    """How many of the staged entries there is room for from `position` on."""
    for count, entry in enumerate(staged):
        position += layout.entry_bytes(len(entry.body))
        if position > limit:
            return count
    return len(staged)


class ActiveSegment:
    """The last segment of a log."""

    def __init__(self, file: File, segment: Segment) -> None:
        """An empty segment; `take_over_from` puts it behind a walk's last entry."""
        self.file, self.segment = file, segment
        self.limit = segment.head.segment_bytes
        self.position = SEGMENT_HEADER_BYTES  # where the next entry goes; zeros from here
        self.parent_crc = segment.head.parent_crc
        self.timestamp_ns = segment.head.parent_timestamp_ns  # of the last entry
        self.term = segment.head.parent_term  # of the last entry

    def take_over_from(self, walk: Walk) -> None:
        """Go on where the walk through this segment ended."""
        assert walk.parent_crc is not None, "the walk has met an entry"
        self.position, self.parent_crc = walk.position, walk.parent_crc
        self.timestamp_ns, self.term = walk.timestamp_ns, walk.term

    def write(self, group: Sequence[Entry], synced_index: int) -> int:
        """Make a group that fits durable; return its size in the log."""
        buffers, after = self._encode(group, synced_index)
        assert after.position <= self.limit
        try:
            self.file.write_durably(self.position, buffers)
        except DiskFullError:
            self._blank(after.position)
            raise
        return self._advance(group, after)

    def write_first(self, group: Sequence[Entry], synced_index: int) -> _Place:
        """Make the head and a first group durable; `adopt` them once the file has its name."""
        buffers, after = self._encode(group, synced_index)
        self.file.write(0, [layout.encode_segment_head(self.segment.head), *buffers])
        self.file.sync()
        return after

    def adopt(self, group: Sequence[Entry], after: _Place) -> int:
        """The first group counts now; return its size in the log."""
        return self._advance(group, after)

    def close(self) -> None:
        self.file.close()

    def _encode(self, group: Sequence[Entry], synced_index: int) -> tuple[list[Buffer], _Place]:
        seed = self.segment.head.identity.seed
        position, crc = self.position, self.parent_crc
        buffers: list[Buffer] = []
        positions = []
        for entry in group:
            body = entry.body
            header, crc = layout.encode_entry_header(
                seed,
                crc,
                entry.index,
                entry.term,
                synced_index,
                entry.timestamp_ns,
                entry.kind,
                body,
                position,
            )
            buffers += (header, body, layout.entry_tail(crc, len(body)))
            positions.append(position)
            position += layout.entry_bytes(len(body))
        return buffers, _Place(position, crc, positions)

    def _advance(self, group: Sequence[Entry], after: _Place) -> int:
        for entry, position in zip(group, after.positions, strict=True):
            self.segment.mark(entry.index, position)
        written = after.position - self.position
        self.position, self.parent_crc = after.position, after.parent_crc
        self.timestamp_ns, self.term = group[-1].timestamp_ns, group[-1].term
        return written

    def _blank(self, end: int) -> None:
        try:
            self.file.fill_zeros(self.position, end - self.position)
            self.file.sync()
        except DiskFullError as error:
            raise FatalStorageError(
                f"{self.file.path}: the disk is full and the place of a failed write can't be "
                "made blank again; the process stops, a restart cuts it"
            ) from error


class _Place(NamedTuple):
    """Where a group ends."""

    position: int
    parent_crc: int
    positions: list[int]  # of its entries
