"""The bytes of a log: segment header, entry header, trailer, and the witness file.

Owns every number and struct of these; nothing else in the package packs or
unpacks them. Pure: buffers in, values out. Pictures are in
docs/internals/formats.md.

    segment file  = header 4096 | entry | entry | ... | zeros
    entry         = header 64 | body | zeros to a multiple of 8 | trailer 8
    entry header  = magic crc body_crc parent_crc index term synced_index
                    timestamp_ns length kind flags blank_sectors end_mark

Why each field of the entry header that is not obvious:

crc            over the rest of the header, seeded with the identity of the
               directory: an entry of another directory, or bytes of an event that
               happen to look like a header, do not pass.
parent_crc     the crc field of the entry before: entries form a chain.
synced_index   the highest index durable when this one was written. A valid entry
               that says 9 proves that 9 was whole once: if 9 is damaged now, that
               is rot and not a write that a crash cut short.
blank_sectors  how many 512-byte sectors of this entry are zero by nature. A sector
               that never reached the disk is zero too (the file was filled with
               zeros); more blank sectors than this number tell a torn write from rot.
end_mark       the last 4 bytes, never zero, so that each sector that holds a part
               of the header has a byte that is not zero. The trailer does the same
               for the last sector.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from unimeter.storage.disk import SECTOR_BYTES, Buffer

FORMAT_VERSION: Final = 1

SEGMENT_MAGIC: Final = b"UNIMLOG\n"
SEGMENT_HEADER_BYTES: Final = 4096
# magic version crc cluster node first parent 0 ts bytes parent_term
_SEGMENT = struct.Struct("<8sII16sQQIIqQQ")

ENTRY_MAGIC: Final = 0xE5FF1A7C  # 0xFF: no UTF-8 text contains these bytes
ENTRY_END_MARK: Final = 0xA91DE27F
ENTRY_HEADER_BYTES: Final = 64
TRAILER_BYTES: Final = 8
ENTRY_OVERHEAD_BYTES: Final = ENTRY_HEADER_BYTES + TRAILER_BYTES
ENTRY = struct.Struct("<IIIIQQQqIHHII")
_CRC = struct.Struct("<I")
_U64 = struct.Struct("<Q")

WITNESS_MAGIC: Final = b"UNIMSYN\n"
WITNESS_BYTES: Final = 32
_WITNESS = struct.Struct("<8sIIQQ")  # magic crc cutting index commit

BLANK_HEADER: Final = bytes(ENTRY_HEADER_BYTES)
_NEARLY_BLANK_SECTOR = bytes(SECTOR_BYTES - 7)

assert ENTRY.size == ENTRY_HEADER_BYTES
assert _WITNESS.size == WITNESS_BYTES


@dataclass(frozen=True)
class Identity:
    """Whose log this is."""

    cluster_id: bytes  # 16
    node_id: int

    @property
    def seed(self) -> int:
        """The start value of every entry header's checksum in this directory."""
        return zlib.crc32(self.cluster_id + _U64.pack(self.node_id))


@dataclass(frozen=True)
class SegmentHead:
    """The first 4096 bytes of a segment."""

    identity: Identity
    first_index: int
    parent_crc: int  # crc field of the entry before the first; 0 where this log has none
    parent_timestamp_ns: int  # timestamp of that entry: when the segment before ended
    segment_bytes: int  # of the whole file, fixed when it was made
    parent_term: int = 0  # term of that entry


@dataclass(frozen=True)
class Witnessed:
    """What a witness file says. All of it was true when it was written."""

    index: int = 0  # this entry was durable; while cutting: nothing above it belongs to the log
    commit: int = 0  # entries up to here are committed; never above `index`
    is_cutting: bool = False  # entries above `index` are being removed


def entry_bytes(body_bytes: int) -> int:
    """The space an entry with a body of that size takes in the log."""
    return ENTRY_OVERHEAD_BYTES + ((body_bytes + 7) & ~7)


def trailer_of(header_crc: int) -> int:
    """Never zero: the two halves can't both be."""
    return header_crc << 32 | (header_crc ^ 0xFFFFFFFF)


def encode_segment_head(head: SegmentHead) -> bytes:
    fields = (
        head.identity.cluster_id,
        head.identity.node_id,
        head.first_index,
        head.parent_crc,
        0,
        head.parent_timestamp_ns,
        head.segment_bytes,
        head.parent_term,
    )
    blank = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, *fields)
    crc = zlib.crc32(blank.ljust(SEGMENT_HEADER_BYTES, b"\0"))
    whole = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, crc, *fields)
    return whole.ljust(SEGMENT_HEADER_BYTES, b"\0")


def decode_segment_head(data: bytes) -> tuple[int, SegmentHead] | str:
    """(format version, head), or a phrase saying what is wrong with the bytes."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return f"{len(data)} bytes"
    magic, version, crc, cluster, *rest = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        return f"magic {magic.hex()}"
    found = zlib.crc32(data[:12] + bytes(4) + data[16:SEGMENT_HEADER_BYTES])
    if found != crc:
        return f"checksum {found:08x} over bytes that say {crc:08x}"
    node, first, parent, _, timestamp, size, term = rest
    if term == 0 and first > 1:
        term = 1  # written before there were elections: every entry was of term 1
    return version, SegmentHead(Identity(cluster, node), first, parent, timestamp, size, term)


def encode_entry_header(
    seed: int,
    parent_crc: int,
    index: int,
    term: int,
    synced_index: int,
    timestamp_ns: int,
    kind: int,
    body: Buffer,
    position: int,
) -> tuple[bytes, int]:
    """(64 bytes, header crc) of an entry that will lie at `position` of its file."""
    body_crc = zlib.crc32(body)
    blank = blank_sectors_of_body(body, position + ENTRY_HEADER_BYTES)
    fields = (body_crc, parent_crc, index, term, synced_index, timestamp_ns, len(body))
    header = ENTRY.pack(ENTRY_MAGIC, 0, *fields, kind, 0, blank, ENTRY_END_MARK)
    crc = zlib.crc32(header[8:], seed)
    return header[:4] + _CRC.pack(crc) + header[8:], crc


def entry_tail(header_crc: int, body_bytes: int) -> bytes:
    """The padding and trailer that follow a body."""
    return bytes(-body_bytes & 7) + _U64.pack(trailer_of(header_crc))


def header_crc_of(header: Buffer, seed: int) -> int:
    """What the crc field of these 64 bytes should be."""
    return zlib.crc32(memoryview(header)[8:ENTRY_HEADER_BYTES], seed)


def blank_sectors_of_body(body: Buffer, position: int) -> int:
    """How many whole sectors inside a body (padding included) lying at `position` are zero.

    Sectors shared with the header or the trailer never are. Padding is not part of
    `body`, so a run of a whole sector less 7 bytes is what to look for; usually there
    is none, and one search (10 microseconds for 256 KiB) settles it.
    """
    data = body if isinstance(body, bytes) else bytes(body)
    if data.find(_NEARLY_BLANK_SECTOR) < 0:
        return 0
    padded = len(data) + 7 & ~7
    starts = range(-position % SECTOR_BYTES, padded - SECTOR_BYTES + 1, SECTOR_BYTES)
    return sum(not any(data[start : start + SECTOR_BYTES]) for start in starts)


def encode_witness(index: int, commit: int = 0, is_cutting: bool = False) -> bytes:
    """The witness file: this index was durable once, that one is committed."""
    assert commit <= index
    blank = _WITNESS.pack(WITNESS_MAGIC, 0, is_cutting, index, commit)
    return blank[:8] + _CRC.pack(zlib.crc32(blank)) + blank[12:]


def decode_witness(data: bytes) -> Witnessed | str:
    """What it says, or a phrase saying what is wrong with the bytes."""
    if len(data) != WITNESS_BYTES:
        return f"{len(data)} bytes"
    magic, crc, cutting, index, commit = _WITNESS.unpack_from(data)
    found = zlib.crc32(data[:8] + bytes(4) + data[12:])
    if magic != WITNESS_MAGIC or found != crc:
        return f"magic {magic.hex()}, checksum {found:08x} over bytes that say {crc:08x}"
    return Witnessed(index, commit, bool(cutting))
