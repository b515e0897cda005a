"""The end of the log: a write that a crash cut short, or rot.

Owns one decision. The last segment's entries were walked up to index i - 1; at
the place where entry i would start there is something that is not entry i. Either
entry i was never acknowledged (a torn tail: cut it, go on) or it was (rot: refuse,
change nothing). Cutting an acknowledged entry loses an invoice; refusing a torn
tail keeps a node down for nothing. Evidence, strongest first:

1. *It was durable once.* The witness file says an index >= i was synced, or a
   whole entry header further on was written when i was already synced, or i is the
   segment's first entry (a segment gets its name only when that one is durable),
   or there is a later segment (made when the one before was durable whole). -> rot
2. *It never arrived.* The file was filled with zeros before use, and a disk writes
   a sector whole or not at all, so a sector that did not arrive is zero. Headers
   and trailers have no zero sector, and a header says how many sectors of its
   body are zero by nature. More zero sectors than that. -> torn
3. Every sector arrived and the bytes are still wrong, or they are a whole entry
   that does not belong here. No crash does that. -> rot

A blank header is the clean end of the log, unless 1 says otherwise. Sectors
behind it that did arrive (the disk may reorder the sectors of one write) are part
of the torn write and cut with it.

Worked examples are in docs/internals/formats.md. The alternative, cutting at the
first bad checksum as most logs do, was rejected: it turns one flipped bit in an
old entry into the silent loss of everything after it.
"""

from __future__ import annotations

from unimeter.errors import CorruptionError, RottenEntryError
from unimeter.storage import layout
from unimeter.storage.disk import SECTOR_BYTES, ZEROS, File
from unimeter.storage.layout import SegmentHead
from unimeter.storage.segments import RESTORE_ADVICE, Damage, Walk

_MAGIC = layout.ENTRY_MAGIC.to_bytes(4, "little")


def check_tail(file: File, walk: Walk, witness: int, witness_path: str) -> bool:
    """Judge the end of the last segment after `walk` has ended.

    Return whether there are bytes behind walk.position that must be cut; raise
    CorruptionError where the missing entry was durable once or the damage is rot.
    """
    index, damage = walk.next_index, walk.damage
    if damage is not None and damage.misplaced:
        raise rot(file, walk, "this entry is whole but does not belong here")
    is_dirty = damage is not None or first_not_blank(file, walk.position, walk.limit) >= 0
    if witness >= index:
        raise rot(file, walk, f"{witness_path} says that entry {witness} was durable")
    if index == walk.first_index:
        raise rot(file, walk, "a segment is named only when its first entry is durable")
    if not is_dirty:
        return False
    later = _later_witness(file, walk)
    if later is not None:
        raise rot(file, walk, f"the entry at byte {later} proves that it was durable")
    if damage is not None and not _has_missing_sector(file, damage):
        raise rot(file, walk, "every sector of it was written, so it is not a torn write")
    return True


def check_sealed(path: str, walk: Walk, after: SegmentHead) -> None:
    """Check that a segment before the last ended where the next one goes on.

    The next segment was made after this one was durable whole, so there is
    nothing to judge: whatever is missing is rot.
    """
    if walk.next_index != after.first_index or walk.damage is not None:
        advice = f"Entry {after.first_index} in the next segment was written after it."
        raise rotten(path, walk, f"{advice} {RESTORE_ADVICE}")
    if walk.parent_crc is not None and walk.parent_crc != after.parent_crc:
        raise CorruptionError(
            path,
            walk.entry_position + 4,
            f"the checksum {after.parent_crc:08x} that the next segment names",
            f"{walk.parent_crc:08x}",
            RESTORE_ADVICE,
        )


def cut(file: File, position: int, limit: int) -> int:
    """Make everything from `position` on blank again and durable; return bytes cleaned."""
    cleaned = 0
    while position < limit:
        piece = file.read(position, min(len(ZEROS), limit - position))
        if any_set(piece):
            file.fill_zeros(position, len(piece))
            cleaned += len(piece)
        position += max(1, len(piece))
    if cleaned:
        file.sync()
    return cleaned


def write_again(file: File, position: int, end: int) -> None:
    """Write the same bytes in the same place, so that the next sync has something to do."""
    while position < end:
        piece = file.read(position, min(len(ZEROS), end - position))
        file.write(position, [piece])
        position += len(piece)


def any_set(data: bytes) -> bool:
    """Whether a byte is not zero (one memcmp)."""
    return data != (ZEROS if len(data) == len(ZEROS) else ZEROS[: len(data)])


def first_not_blank(file: File, position: int, limit: int) -> int:
    """Offset of the first byte that is not zero, or -1."""
    while position < limit:
        piece = file.read(position, min(len(ZEROS), limit - position))
        if not piece:
            return -1
        if any_set(piece):
            return position + len(piece) - len(piece.lstrip(b"\0"))
        position += len(piece)
    return -1


def rot(file: File, walk: Walk, reason: str) -> RottenEntryError:
    """The refusal of what the walk met, and why."""
    reason = reason if reason.endswith(".") else f"{reason}. {RESTORE_ADVICE}"
    return rotten(file.path, walk, f"It is not the torn end of a crash: {reason}")


def rotten(path: str, walk: Walk, advice: str) -> RottenEntryError:
    """What the walk met in the place of the entry that should follow."""
    damage = walk.damage
    if damage is None:
        expected, found, offset = f"entry {walk.next_index}", "zeros", walk.position
    else:
        expected, found, offset = damage.expected, damage.found, damage.offset
    return RottenEntryError(
        path,
        offset,
        expected,
        found,
        advice,
        index=walk.next_index,
        position=walk.position,
    )


def _later_witness(file: File, walk: Walk) -> int | None:
    """Offset of a later entry header that was written when the missing entry was durable."""
    seed, index = walk.seed, walk.next_index
    overlap = layout.ENTRY_HEADER_BYTES
    position = walk.position + 8
    while position < walk.limit:
        piece = file.read(position, len(ZEROS) + overlap)
        at = piece.find(_MAGIC)
        while 0 <= at <= len(piece) - layout.ENTRY_HEADER_BYTES:
            header = piece[at : at + layout.ENTRY_HEADER_BYTES]
            if (position + at) % 8 == 0 and _proves(header, seed, index):
                return position + at
            at = piece.find(_MAGIC, at + 4)
        position += len(ZEROS)
    return None


def _proves(header: bytes, seed: int, index: int) -> bool:
    fields = layout.ENTRY.unpack(header)
    later, synced = int(fields[4]), int(fields[6])
    return fields[1] == layout.header_crc_of(header, seed) and later > index and synced >= index


def _has_missing_sector(file: File, damage: Damage) -> bool:
    """Whether more sectors of the entry are blank than are so by nature."""
    start, end = damage.position, damage.position + damage.extent
    blank = 0
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        blank += not any(file.read(start, stop - start))
        start = stop
    return blank > damage.blank_sectors
