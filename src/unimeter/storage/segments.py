"""Reading segments: their heads, and the entries of one, checked one by one.

Owns the walk from entry to entry. Refuses to decide what damage means: it stops
and describes it (`Damage`); `tail` judges the end of the log and everything
before that is rot.

A walk reads large windows (16 MiB) and hands out views into them, so a body is
never copied between the page cache and whoever counts it. mmap was rejected: a
file that shrinks or a read error under it kills the process by a signal instead
of raising.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from unimeter import limits
from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.raft.messages import Entry as Entry
from unimeter.storage import layout
from unimeter.storage.disk import Disk, File
from unimeter.storage.layout import Identity, SegmentHead

WINDOW_BYTES = 16 * 1024 * 1024  # one read of a walk through a whole segment
MARK_BYTES = 256 * 1024  # about so far apart are the places a walk can start from
_SUFFIX = ".seg"
RESTORE_ADVICE = (
    "Nothing was changed. Restore the directory from a copy; a node of a cluster is made anew "
    "from the others with `unimeter recover`."
)


@dataclass(frozen=True)
class Damage:
    """Bytes that are not the entry that should be there."""

    offset: int  # of the first byte known wrong, in the file
    expected: str
    found: str
    position: int  # of the entry
    extent: int  # bytes of the entry that may be looked at for blank sectors
    blank_sectors: int  # natural ones within the extent
    misplaced: bool = False  # whole, but not the entry that belongs here: never a torn write


@dataclass
class Segment:
    """One segment file and what is known of it."""

    path: str
    head: SegmentHead
    marks: list[tuple[int, int]] = field(default_factory=list)  # (index, position), ascending
    mark_bytes: int = MARK_BYTES

    @property
    def first_index(self) -> int:
        return self.head.first_index

    def mark(self, index: int, position: int) -> None:
        """Remember where an entry lies, if none near it is remembered.

        Several threads may do so. The list is replaced, never changed, so each
        version of it is in order, and at worst one of two marks is forgotten. A lock
        would do too, but a forked child could find it held by a thread it has not.
        """
        marks = self.marks
        if not marks or position >= marks[-1][1] + self.mark_bytes:
            self.marks = [*marks, (index, position)]

    def nearest(self, index: int) -> tuple[int, int]:
        """(index, position) of the last remembered entry not after `index`."""
        marks = self.marks
        at = bisect_right(marks, (index, 1 << 62)) - 1
        return marks[at] if at >= 0 else (self.first_index, layout.SEGMENT_HEADER_BYTES)


def segment_path(directory: str, first_index: int) -> str:
    return f"{directory}/{first_index:016x}{_SUFFIX}"


def indexes_of(disk: Disk, directory: str, suffix: str) -> list[int]:
    """The indexes that name the files of a folder, ascending; other files are not ours."""
    pattern = re.compile(rf"[0-9a-f]{{16}}{re.escape(suffix)}")
    return [int(name[:16], 16) for name in disk.names(directory) if pattern.fullmatch(name)]


def list_segments(disk: Disk, directory: str, identity: Identity | None) -> list[Segment]:
    """The segments of a log in order, their heads checked. `identity=None`: anyone's."""
    return [
        open_segment(disk, segment_path(directory, index), identity)
        for index in indexes_of(disk, directory, _SUFFIX)
    ]


def remove_segments(disk: Disk, directory: str) -> None:
    """Remove every segment of a log, newest first, durably."""
    for index in reversed(indexes_of(disk, directory, _SUFFIX)):
        disk.remove(segment_path(directory, index))
    disk.sync_directory(directory)


def split_removed(segments: list[Segment], kept_index: int) -> tuple[list[Segment], list[Segment]]:
    """(segments that retention removed, those that are stored).

    A power cut can bring back any of several names removed just before it, so the
    superblock says first from which entry on the log is kept.
    """
    gone = [before for before, after in pairwise(segments) if after.first_index <= kept_index]
    return gone, segments[len(gone) :]


def open_segment(disk: Disk, path: str, identity: Identity | None) -> Segment:
    """Check one segment's head, owner, name and size."""
    file = disk.open(path)
    try:
        data, size = file.read(0, layout.SEGMENT_HEADER_BYTES), file.size()
    finally:
        file.close()
    decoded = layout.decode_segment_head(data)
    if isinstance(decoded, str):
        raise CorruptionError(path, 0, "a segment header", decoded, RESTORE_ADVICE)
    version, head = decoded
    check_version(path, version)
    if identity is not None and head.identity != identity:
        raise WrongDirectoryError(
            f"{path}: belongs to node {head.identity.node_id} of cluster "
            f"{head.identity.cluster_id.hex()}, the directory to node {identity.node_id} of "
            f"cluster {identity.cluster_id.hex()}; a file was copied in from elsewhere"
        )
    if path != segment_path(path.rpartition("/")[0], head.first_index):
        raise CorruptionError(
            path, 40, "the first index its name says", f"{head.first_index:016x}", RESTORE_ADVICE
        )
    if size != head.segment_bytes:
        # The size was durable before the first entry was written: no crash does this.
        raise CorruptionError(
            path,
            min(size, head.segment_bytes),
            f"a file of {head.segment_bytes} bytes",
            f"{size} bytes",
            RESTORE_ADVICE,
        )
    return Segment(path, head)


def check_version(path: str, version: int) -> None:
    """Refuse a file of another format version."""
    if version != layout.FORMAT_VERSION:
        raise WrongDirectoryError(
            f"{path}: format version {version}, this program reads version "
            f"{layout.FORMAT_VERSION}; use the release that wrote it"
        )


class Walk:
    """The entries of one segment from a known place on.

    Iterate it; it ends at a blank header, at the end of the segment or at damage.
    Then `position`, `next_index`, `parent_crc`, `timestamp_ns` describe the place
    behind the last good entry, and `damage` why it is no entry (None: blank or full).
    """

    def __init__(
        self,
        file: File,
        segment: Segment,
        start: tuple[int, int] | None = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        head = segment.head
        first = layout.SEGMENT_HEADER_BYTES
        self.first_index = head.first_index
        self.next_index, self.position = start or (head.first_index, first)
        at_first = self.position == first
        self.parent_crc = head.parent_crc if at_first else None
        self.timestamp_ns = head.parent_timestamp_ns
        self.term = head.parent_term  # of the last entry met, or of the one before the segment
        self.synced_index = 0  # as the last entry said
        self.entry_position = self.position  # of the entry handed out last
        self.damage: Damage | None = None
        self.limit = head.segment_bytes
        self._file, self._segment, self.seed = file, segment, head.identity.seed
        self._window_bytes = window_bytes
        self._data, self._base = b"", self.position
        self._view = memoryview(self._data)

    def __iter__(self) -> Iterator[Entry]:
        unpack, header_bytes = layout.ENTRY.unpack_from, layout.ENTRY_HEADER_BYTES
        crc32 = zlib.crc32
        while self.position + layout.ENTRY_OVERHEAD_BYTES <= self.limit:
            at = self._reach(header_bytes)
            header = self._data[at : at + header_bytes]
            if header == layout.BLANK_HEADER:
                return
            fields = unpack(header)
            magic, crc, body_crc, parent, index, term, synced, timestamp, length, kind = fields[:10]
            if (
                crc != crc32(header[8:], self.seed)
                or magic != layout.ENTRY_MAGIC
                or index != self.next_index
                or (parent != self.parent_crc and self.parent_crc is not None)
                or length > limits.ENTRY_BYTES_MAX
                or self.position + layout.entry_bytes(length) > self.limit
            ):
                self.damage = self._judge_header(header)
                return
            whole = layout.entry_bytes(length)
            at = self._reach(whole)
            body = self._view[at + header_bytes : at + header_bytes + length]
            tail = self._data[at + header_bytes + length : at + whole]
            if crc32(body) != body_crc or tail != layout.entry_tail(crc, length):
                self.damage = self._describe_body(body, body_crc, crc, tail, fields[11])
                return
            self._segment.mark(index, self.position)
            self.entry_position = self.position
            self.position += whole
            self.next_index = index + 1
            self.parent_crc, self.timestamp_ns = crc, timestamp
            self.term, self.synced_index = term, synced
            yield Entry(index, term, kind, timestamp, body)

    def _reach(self, length: int) -> int:
        """Have `length` bytes from `position` on in the window; return where they start."""
        at = self.position - self._base
        if at + length > len(self._data):
            want = max(length, min(self._window_bytes, self.limit - self.position))
            self._base, at = self.position, 0
            data = self._file.read(self.position, want)
            # A file cut while it is open reads as blank; its size is checked at opening.
            self._data = data if len(data) >= length else data.ljust(length, b"\0")
            self._view = memoryview(self._data)
        return at

    def _judge_header(self, header: bytes) -> Damage:
        magic, crc, _, parent, index, _, _, _, length, _, _, _, end_mark = layout.ENTRY.unpack(
            header
        )
        position, whole = self.position, layout.ENTRY_HEADER_BYTES
        right = layout.header_crc_of(header, self.seed)
        if magic != layout.ENTRY_MAGIC:
            what = (0, f"magic {layout.ENTRY_MAGIC:08x}", f"{magic:08x}")
        elif end_mark != layout.ENTRY_END_MARK:
            what = (60, f"end mark {layout.ENTRY_END_MARK:08x}", f"{end_mark:08x}")
        elif crc != right:
            what = (4, f"header checksum {right:08x} of entry {self.next_index}", f"{crc:08x}")
        elif index != self.next_index:
            what = (16, f"entry {self.next_index}", f"entry {index}")
        elif parent != self.parent_crc and self.parent_crc is not None:
            what = (12, f"parent checksum {self.parent_crc:08x}", f"{parent:08x}")
        else:
            what = (48, "a body that fits its segment", f"{length} bytes")
        offset, expected, found = what
        misplaced = offset not in (0, 4, 60)
        return Damage(position + offset, expected, found, position, whole, 0, misplaced)

    def _describe_body(
        self, body: memoryview, body_crc: int, crc: int, tail: bytes, blank_sectors: int
    ) -> Damage:
        behind = self.position + layout.ENTRY_HEADER_BYTES
        whole = layout.entry_bytes(len(body))
        found = zlib.crc32(body)
        if found != body_crc:
            expected = f"body checksum {body_crc:08x} of entry {self.next_index}"
            what = (behind, expected, f"{found:08x}")
        else:
            right = layout.entry_tail(crc, len(body)).hex()
            what = (behind + len(body), f"trailer {right} of entry {self.next_index}", tail.hex())
        return Damage(*what, self.position, whole, blank_sectors)
