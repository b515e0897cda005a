"""Put back an entry that rot has damaged, from a peer's copy, where that is proved right.

Rot stops a start, or a read: cutting would lose an entry that was acknowledged. A peer
has the same entry. Owns the question whether what the peer sent is *the* entry that was
here, byte for byte, and the write. Never truncates, never touches an entry that is whole.

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
    the next one's is, too    one bad sector can hold several entries. Then the peer's next
                              entry is wanted as well (`RottenEntryError.wants`), until the
                              first header that is whole proves the run of them by its parent
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.raft.messages import NOOP
from unimeter.storage import layout, tail
from unimeter.storage.disk import Buffer, Disk, File
from unimeter.storage.layout import ENTRY_HEADER_BYTES, TRAILER_BYTES, Identity, SegmentHead
from unimeter.storage.segments import Entry, Segment, Walk, list_segments, split_removed
from unimeter.storage.superblock import read_superblock
from unimeter.storage.witness import read_witness

TRIES_MAX = 1 << 20  # values of `synced index`: a group never had so many entries
RUN_MAX = 64  # damaged neighbours: a sector of 4 KiB holds no more entries than this
RUN_TRIES_MAX = 1 << 18  # headers made for a run: a second
REFUSED = (
    "Nothing was changed. What is left here does not prove that it is the entry that was stored; "
    "replace this node's data with `unimeter recover`."
)


def repair_entry(
    disk: Disk,
    path: str,
    identity: Identity,
    entry: Entry,
    *following: Entry,
    lock: bool = True,
) -> None:
    """Put `entry`, a committed one of a peer, where the damaged one lies; durable on return.

    For a directory that is not open; `Wal.repair` is the same for one that is. Does
    nothing where the entry is whole. Raises CorruptionError, with nothing changed, where
    the peer's entry is not proved to be the one that was here, and RottenEntryError
    where an entry before it has to be repaired first. Where `wants` of that is not 0, the
    peer's entry at that index may prove it: call again with all from `entry` to there.
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
            repair_in(file, segments[at], after, (entry, *following), committed)
        finally:
            file.close()
    finally:
        if held is not None:
            held.release()


def segment_of(segments: list[Segment], index: int) -> int:
    """The place in the list of the segment that has, or would have, the entry; -1: none."""
    return sum(segment.first_index <= index for segment in segments) - 1


def repair_in(
    file: File,
    segment: Segment,
    after: SegmentHead | None,
    run: Sequence[Entry],
    committed: int,
) -> None:
    """Repair the first of `run`, or all of it, in one segment.

    `committed`: up to here this node knows it.
    """
    first = run[0].index
    assert [entry.index for entry in run] == list(range(first, first + len(run)))
    walk = _walk_to(file, segment, first)
    if walk.next_index == first + 1:
        return  # it is whole
    if walk.next_index != first:
        raise tail.rot(file, walk, f"it has to be repaired before entry {first}")
    proof = _prove(file, walk, after, _timed(run, walk), committed)
    if not proof.pieces:
        error = tail.rot(file, walk, REFUSED)
        error.wants = proof.wants
        raise error
    file.write(walk.position, proof.pieces)
    file.sync()
    again = _walk_to(file, segment, first + proof.count - 1)
    if again.next_index != first + proof.count:
        raise tail.rot(file, again, "it was written anew and is still damaged: the disk fails")


def _timed(run: Sequence[Entry], walk: Walk) -> list[Entry]:
    """The run as it was written: a NOOP has the time of the entry before it."""
    timed: list[Entry] = []
    for entry in run:
        if entry.kind == NOOP:
            before = timed[-1].timestamp_ns if timed else walk.timestamp_ns
            entry = Entry(entry.index, entry.term, NOOP, before, entry.body)
        timed.append(entry)
    return timed


def _walk_to(file: File, segment: Segment, index: int) -> Walk:
    """Walk from the segment's start until behind the entry, or to where that is not possible."""
    walk = Walk(file, segment)
    for entry in walk:
        if entry.index == index:
            break
    return walk


# --- what is proved ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Proof:
    """The bytes that `count` entries have here; without any, the entry that may prove them."""

    pieces: Sequence[Buffer] = ()
    count: int = 0
    wants: int = 0


def _prove(
    file: File, walk: Walk, after: SegmentHead | None, run: Sequence[Entry], committed: int
) -> _Proof:
    """What stands in the first entry's place, alone or with those behind it."""
    entry, timestamp_ns, end = run[0], walk.timestamp_ns, walk.position
    for one in run:
        end += layout.entry_bytes(len(one.body))
        if end > walk.limit or one.timestamp_ns < timestamp_ns:
            return _Proof()
        timestamp_ns = one.timestamp_ns
    left = file.read(walk.position, layout.entry_bytes(len(entry.body)))
    if _is_whole_header(left, walk):
        header = left[:ENTRY_HEADER_BYTES]
        return _proof([header], run) if _agrees(header, entry) else _Proof()
    last = run[-1]
    named = _named_by_next(file, walk, after, end, last.index)
    if named is not None:
        crc, synced = named
        return _proof(_find_headers(walk, run, {crc}, synced), run)
    is_end = after is None and tail.first_not_blank(file, end, walk.limit) < 0
    if after is not None:
        is_end = after.first_index <= last.index + 1
    if len(run) == 1 or is_end:  # in a run, what the entries behind say is looked for first
        size = layout.entry_bytes(len(last.body))
        wanted = _left_of_crc(file.read(end - size, size))
        found = _find_headers(walk, run, wanted, last.index - 1)
        if found:
            return _proof(found, run)
    if not is_end:
        return _Proof(wants=last.index + 1 if len(run) < RUN_MAX else 0)
    if after is not None or last.index > committed:
        return _Proof()
    # Everything before it is whole here; any index that was durable does.
    return _proof(next(_chains(walk, run, last.index - 1)), run)


def _proof(headers: Sequence[bytes], run: Sequence[Entry]) -> _Proof:
    pieces: list[Buffer] = []
    for header, entry in zip(headers, run, strict=False):
        crc = int(layout.ENTRY.unpack(header)[1])
        pieces += [header, entry.body, layout.entry_tail(crc, len(entry.body))]
    return _Proof(pieces, len(headers))


def _is_whole_header(data: bytes, walk: Walk) -> bool:
    magic, crc, _, parent, index, *_ = layout.ENTRY.unpack_from(data)
    is_header = magic == layout.ENTRY_MAGIC and crc == layout.header_crc_of(data, walk.seed)
    return bool(is_header and parent == walk.parent_crc and index == walk.next_index)


def _agrees(header: bytes, entry: Entry) -> bool:
    _, _, body_crc, _, _, term, _, timestamp_ns, length, kind, *_ = layout.ENTRY.unpack_from(header)
    found = (term, kind, timestamp_ns, length, body_crc)
    body = entry.body
    return found == (entry.term, entry.kind, entry.timestamp_ns, len(body), zlib.crc32(body))


def _named_by_next(
    file: File, walk: Walk, after: SegmentHead | None, end: int, index: int
) -> tuple[int, int] | None:
    """Whatever follows entry `index`: its parent's crc, and the index synced by then at most."""
    if after is not None and after.first_index == index + 1:
        return after.parent_crc, index - 1
    header = file.read(end, ENTRY_HEADER_BYTES)
    if len(header) < ENTRY_HEADER_BYTES:
        return None
    magic, crc, _, parent, found, _, synced, *_ = layout.ENTRY.unpack(header)
    is_next = magic == layout.ENTRY_MAGIC and found == index + 1
    if not is_next or crc != layout.header_crc_of(header, walk.seed):
        return None
    return parent, min(synced, index - 1)


def _left_of_crc(data: bytes) -> set[int]:
    """What is left of the entry's own crc: in its trailer if that is whole, in its header."""
    trailer = int.from_bytes(data[-TRAILER_BYTES:], "little")
    found = {int(layout.ENTRY.unpack_from(data)[1])}
    if trailer == layout.trailer_of(trailer >> 32):
        found.add(trailer >> 32)
    return found


def _find_headers(
    walk: Walk, run: Sequence[Entry], wanted: set[int], synced_max: int
) -> Sequence[bytes]:
    """The headers of the run of which the last has a crc that is wanted; none if no such are."""
    for headers in _chains(walk, run, synced_max):
        if layout.ENTRY.unpack(headers[-1])[1] in wanted:
            return headers
    return ()


def _chains(walk: Walk, run: Sequence[Entry], synced_max: int) -> Iterator[list[bytes]]:
    """Each row of headers that the run can have been written with, up to a number of tries.

    The `synced index` of an entry is at least that of the entry before and below its own.
    A first entry of a segment was written when all before it was durable.
    """
    assert walk.parent_crc is not None, "the walk began at the segment's start"
    seed, slots, position = walk.seed, [], walk.position
    for entry in run:
        header, _ = layout.encode_entry_header(
            seed,
            0,  # this and the next zero are what is looked for
            entry.index,
            entry.term,
            0,
            entry.timestamp_ns,
            entry.kind,
            entry.body,
            position,
        )
        slots.append(layout.ENTRY.unpack(header))
        position += layout.entry_bytes(len(entry.body))
    tries = iter(range(TRIES_MAX if len(run) == 1 else RUN_TRIES_MAX))

    def from_slot(at: int, parent_crc: int, synced_min: int) -> Iterator[list[bytes]]:
        magic, _, body_crc, _, index, term, _, *rest = slots[at]
        for synced in range(min(index - 1, synced_max), synced_min - 1, -1):
            if next(tries, None) is None:
                return
            fields = (body_crc, parent_crc, index, term, synced, *rest)
            blank = layout.ENTRY.pack(magic, 0, *fields)
            crc = layout.header_crc_of(blank, seed)
            header = layout.ENTRY.pack(magic, crc, *fields)
            if at + 1 == len(slots):
                yield [header]
                continue
            for headers in from_slot(at + 1, crc, synced):
                yield [header, *headers]

    first = walk.next_index
    low = first - 1 if first == walk.first_index else walk.synced_index
    return from_slot(0, walk.parent_crc, low)
