"""Which events of an entry counted, as bitmaps, and the files that keep them.

    header  72   whose, from which index (exclusive) to which (inclusive), latest timestamp
    record  16 + bitmap   index, number of events, bytes of bitmap; bit i set = event i counted
    ...

The log holds every event that was sent, also those refused and those sent twice.
Whether an event counted is known when its entry is applied, and would be lost
with a snapshot that replaces the applying. So, for each entry with at least one
event that did not count, a bitmap is kept: one bit an event, nothing for the usual
entry. Each snapshot writes the bitmaps since the one before, before it takes
effect; what is newer is found again by replay.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from unimeter.errors import CorruptionError
from unimeter.storage.disk import Disk
from unimeter.storage.layout import FORMAT_VERSION
from unimeter.storage.segments import check_version

OUTCOMES_MAGIC: Final = b"UNIMOUT\n"
# magic version crc cluster after to records payload_crc payload_bytes latest_ns
_HEADER = struct.Struct("<8sII16sQQIIQq")
_RECORD = struct.Struct("<QII")
HEADER_BYTES: Final = _HEADER.size
_ADVICE = "Replaying the log from an older snapshot makes it anew."

assert HEADER_BYTES == 72

Bitmaps = dict[int, tuple[int, bytes]]
"""By entry index: how many events the entry has, and the bits of those that counted."""

# "1" for STORED (0), "0" for every other outcome: digits of a number in base two.
_DIGITS = bytes([ord("1")]) + bytes([ord("0")]) * 255


def bitmap_of(outcomes: bytes) -> bytes:
    """One bit an event, least significant first, set where the outcome is STORED."""
    number = int(outcomes[::-1].translate(_DIGITS), 2)
    return number.to_bytes((len(outcomes) + 7) // 8, "little")


def is_counted(bitmap: bytes, number: int) -> bool:
    """Whether event `number` of the entry counted."""
    return bool(bitmap[number >> 3] >> (number & 7) & 1)


@dataclass(frozen=True)
class Outcomes:
    """What one file says of the entries after < index <= to_index."""

    cluster_id: bytes
    after: int
    to_index: int
    latest_ns: int  # no event of these entries has a later timestamp
    bitmaps: Bitmaps


def encode_outcomes(outcomes: Outcomes) -> bytes:
    """A whole file; bitmaps of other entries are left out."""
    parts = []
    for index in sorted(outcomes.bitmaps):
        if outcomes.after < index <= outcomes.to_index:
            count, bits = outcomes.bitmaps[index]
            parts.append(_RECORD.pack(index, count, len(bits)) + bits)
    payload = b"".join(parts)
    fields = (
        outcomes.cluster_id,
        outcomes.after,
        outcomes.to_index,
        len(parts),
        zlib.crc32(payload),
        len(payload),
        outcomes.latest_ns,
    )
    blank = _HEADER.pack(OUTCOMES_MAGIC, FORMAT_VERSION, 0, *fields)
    return _HEADER.pack(OUTCOMES_MAGIC, FORMAT_VERSION, zlib.crc32(blank), *fields) + payload


def read_outcomes(disk: Disk, path: str) -> Outcomes:
    """A file, every byte checked."""
    file = disk.open(path)
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    if len(data) < HEADER_BYTES:
        found = f"{len(data)} bytes"
        raise CorruptionError(path, len(data), f"{HEADER_BYTES} bytes of header", found, _ADVICE)
    magic, version, crc, cluster, after, to_index, *rest = _HEADER.unpack_from(data)
    records, payload_crc, size, latest_ns = rest
    if magic != OUTCOMES_MAGIC:
        raise CorruptionError(path, 0, f"magic {OUTCOMES_MAGIC.hex()}", magic.hex(), _ADVICE)
    right = zlib.crc32(data[:12] + bytes(4) + data[16:HEADER_BYTES])
    if right != crc:
        raise CorruptionError(path, 12, f"header checksum {right:08x}", f"{crc:08x}", _ADVICE)
    check_version(path, version)
    payload = data[HEADER_BYTES:]
    if len(payload) != size:
        raise CorruptionError(
            path, len(data), f"{size} bytes of records", f"{len(payload)} bytes", _ADVICE
        )
    if zlib.crc32(payload) != payload_crc:
        raise CorruptionError(
            path,
            HEADER_BYTES,
            f"records with checksum {payload_crc:08x}",
            f"{zlib.crc32(payload):08x}",
            _ADVICE,
        )
    bitmaps: Bitmaps = {}
    at = 0
    for _ in range(records):
        index, count, length = _RECORD.unpack_from(payload, at)
        at += _RECORD.size
        bitmaps[index] = (count, payload[at : at + length])
        at += length
    return Outcomes(cluster, after, to_index, latest_ns, bitmaps)
