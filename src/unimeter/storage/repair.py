"""Put back one entry that rot has damaged, from a peer's copy, where that is proved right.

Rot stops a start, or a read: cutting would lose an entry that was acknowledged. A peer
has the same entry. Owns the question whether what the peer sent is *the* entry that was
here, byte for byte, and the write. Never truncates, never touches another entry.

    header │ body │ trailer      what is left of the entry here, and what it proves

    the header is whole       it says term, kind, time, length and the body's crc;
                              a peer's entry that agrees with all of it is the one
    the header is damaged     it is made again from the peer's entry, the entry before
                              (parent crc), and `synced index`, which is not known: each
                              value that can be is tried, until the header's crc is the one that

                              - the next entry or the next segment's head names as parent, or
                              - the entry's own trailer has, twice, or
                              - is left in the damaged header itself

                              The crc covers every field, so a match proves all of them.
    nothing of it is left     if it is the log's last one and this node knows that its index
                              was committed: a committed entry is the same everywhere

Otherwise the repair is refused, although the peer's entry is committed: here may have
been an entry of a leader that lost, after others of its kind. A committed entry
behind those would make two logs look alike that differ.

The write goes in place and is synced. A crash in the midst of it leaves an entry that is
still damaged, and is repaired again.

Rejected: storing the crc of each entry elsewhere as well. The chain of parents and the
trailer do that already.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.raft.messages import NOOP
from unimeter.storage import layout, tail
from unimeter.storage.disk import Buffer, Disk, File
from unimeter.storage.layout import ENTRY_HEADER_BYTES, TRAILER_BYTES, Identity, SegmentHead
from unimeter.storage.segments import Entry, Segment, Walk, list_segments, split_removed
from unimeter.storage.superblock import read_superblock
from unimeter.storage.witness import read_witness

TRIES_MAX = 1 << 20  # values of `synced index`: a group never had so many entries
REFUSED = (
    "Nothing was changed. What is left here does not prove that it is the entry that was stored; "
    "replace this node's data with `unimeter recover`."
)


def repair_entry(
    disk: Disk, path: str, identity: Identity, entry: Entry, *, lock: bool = True
) -> None:
    """Put `entry`, a committed one of a peer, where the damaged one lies; durable on return.

    For a directory that is not open; `Wal.repair` is the same for one that is. Does
    nothing where the entry is whole. Raises CorruptionError, with nothing changed, where
    the peer's entry is not proved to be the one that was here, and RottenEntryError
    where an entry before it has to be repaired first.
    """
    held = disk.lock(f"{path}/LOCK") if lock else None
    try:
        block, _ = read_superblock(disk, f"{path}/superblock")
        if block.identity != identity:
            raise WrongDirectoryError(f"{path}: belongs to another node or cluster")
        witness = read_witness(disk, f"{path}/synced")
        _, segments = split_removed(list_segments(disk, f"{path}/log", identity), block.kept_index)
        at = segment_of(segments, entry.index)
        if at < 0 or block.is_installing:
            raise CorruptionError(
                f"{path}/log", 0, f"entry {entry.index}", "a log that does not hold it", REFUSED
            )
        file = disk.open(segments[at].path, write=True)
        try:
            after = segments[at + 1].head if at + 1 < len(segments) else None
            committed = max(witness.commit, block.snapshot_index)
            repair_in(file, segments[at], after, entry, committed)
        finally:
            file.close()
    finally:
        if held is not None:
            held.release()


def segment_of(segments: list[Segment], index: int) -> int:
    """The place in the list of the segment that has, or would have, the entry; -1: none."""
    return sum(segment.first_index <= index for segment in segments) - 1


def repair_in(
    file: File, segment: Segment, after: SegmentHead | None, entry: Entry, committed: int
) -> None:
    """Repair one entry of one segment; `committed`: up to here this node knows it."""
    walk = _walk_to(file, segment, entry.index)
    if walk.next_index == entry.index + 1:
        return  # it is whole
    if walk.next_index != entry.index:
        raise tail.rot(file, walk, f"it has to be repaired before entry {entry.index}")
    if entry.kind == NOOP:
        entry = Entry(entry.index, entry.term, NOOP, walk.timestamp_ns, entry.body)
    header = _proved_header(file, walk, after, entry, committed)
    if header is None:
        raise tail.rot(file, walk, REFUSED)
    crc = int(layout.ENTRY.unpack(header)[1])
    pieces: list[Buffer] = [header, entry.body, layout.entry_tail(crc, len(entry.body))]
    file.write(walk.position, pieces)
    file.sync()
    again = _walk_to(file, segment, entry.index)
    if again.next_index != entry.index + 1:
        raise tail.rot(file, again, "it was written anew and is still damaged: the disk fails")


def _walk_to(file: File, segment: Segment, index: int) -> Walk:
    """Walk from the segment's start until behind the entry, or to where that is not possible."""
    walk = Walk(file, segment)
    for entry in walk:
        if entry.index == index:
            break
    return walk


# --- what is proved ----------------------------------------------------------------------


def _proved_header(
    file: File, walk: Walk, after: SegmentHead | None, entry: Entry, committed: int
) -> bytes | None:
    """The header that the entry has here; None where nothing proves it."""
    size = layout.entry_bytes(len(entry.body))
    if walk.position + size > walk.limit or entry.timestamp_ns < walk.timestamp_ns:
        return None
    left = file.read(walk.position, size)
    if _is_whole_header(left, walk):
        return left[:ENTRY_HEADER_BYTES] if _agrees(left, entry) else None
    named = _named_by_next(file, walk, after, walk.position + size)
    wanted = {named} if named is not None else _left_of_crc(left)
    for header, crc in _possible_headers(walk, entry):
        if crc in wanted:
            return header
    is_last = after is None and tail.first_not_blank(file, walk.position + size, walk.limit) < 0
    if named is None and is_last and entry.index <= committed:
        # Everything before it is whole here; any index that was durable does.
        return next(_possible_headers(walk, entry))[0]
    return None


def _is_whole_header(data: bytes, walk: Walk) -> bool:
    magic, crc, _, parent, index, *_ = layout.ENTRY.unpack_from(data)
    is_header = magic == layout.ENTRY_MAGIC and crc == layout.header_crc_of(data, walk.seed)
    return bool(is_header and parent == walk.parent_crc and index == walk.next_index)


def _agrees(header: bytes, entry: Entry) -> bool:
    _, _, body_crc, _, _, term, _, timestamp_ns, length, kind, *_ = layout.ENTRY.unpack_from(header)
    found = (term, kind, timestamp_ns, length, body_crc)
    body = entry.body
    return found == (entry.term, entry.kind, entry.timestamp_ns, len(body), zlib.crc32(body))


def _named_by_next(file: File, walk: Walk, after: SegmentHead | None, end: int) -> int | None:
    """The header crc that whatever follows the entry names as its parent's."""
    if after is not None and after.first_index == walk.next_index + 1:
        return after.parent_crc
    header = file.read(end, ENTRY_HEADER_BYTES)
    if len(header) < ENTRY_HEADER_BYTES:
        return None
    magic, crc, _, parent, index, *_ = layout.ENTRY.unpack(header)
    is_next = magic == layout.ENTRY_MAGIC and index == walk.next_index + 1
    return parent if is_next and crc == layout.header_crc_of(header, walk.seed) else None


def _left_of_crc(data: bytes) -> set[int]:
    """What is left of the entry's own crc: in its trailer if that is whole, in its header."""
    trailer = int.from_bytes(data[-TRAILER_BYTES:], "little")
    found = {int(layout.ENTRY.unpack_from(data)[1])}
    if trailer == layout.trailer_of(trailer >> 32):
        found.add(trailer >> 32)
    return found


def _possible_headers(walk: Walk, entry: Entry) -> Iterator[tuple[bytes, int]]:
    """(header, crc) for each `synced index` the entry can have been written with.

    It is at least that of the entry before and below the entry's own. A first entry of
    a segment was written when all before it was durable.
    """
    assert walk.parent_crc is not None, "the walk began at the segment's start"
    high = entry.index - 1
    low = high if entry.index == walk.first_index else walk.synced_index
    for synced_index in range(high, max(low, high - TRIES_MAX) - 1, -1):
        yield layout.encode_entry_header(
            walk.seed,
            walk.parent_crc,
            entry.index,
            entry.term,
            synced_index,
            entry.timestamp_ns,
            entry.kind,
            entry.body,
            walk.position,
        )
