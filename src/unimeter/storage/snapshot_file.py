"""One snapshot in one file: header, chunks, footer.

    header   72   whose, at which index, how large
    chunk    8 + up to 1 MiB   length, checksum, bytes of the state
    ...
    footer   32   blake2b-128 of the whole state

Owns the bytes of a `.snap` file. Nothing in it differs between replicas, so the
files of two nodes at one index are equal. Each byte is under a checksum; reading
checks all of them before the engine sees any.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from unimeter.errors import CorruptionError
from unimeter.storage.disk import Buffer, Disk, File
from unimeter.storage.layout import FORMAT_VERSION
from unimeter.storage.segments import check_version

SNAPSHOT_MAGIC: Final = b"UNIMSNP\n"
FOOTER_MAGIC: Final = b"UNIMEND\n"
CHUNK_BYTES: Final = 1024 * 1024
_HEADER = struct.Struct("<8sII16sQQqQII")  # magic version crc cluster index term ts bytes chunk 0
_CHUNK = struct.Struct("<II")  # length crc
_NUMBER = struct.Struct("<II")  # what a chunk's crc also covers: number, length
_FOOTER = struct.Struct("<8s16sII")  # magic hash crc 0
HEADER_BYTES: Final = _HEADER.size
FOOTER_BYTES: Final = _FOOTER.size
_ADVICE = "An older snapshot and the log can replace it."

assert HEADER_BYTES == 72 and FOOTER_BYTES == 32


@dataclass(frozen=True)
class SnapshotHead:
    """The header of a snapshot."""

    cluster_id: bytes
    index: int
    term: int
    timestamp_ns: int
    state_bytes: int


def write_snapshot(file: File, head: SnapshotHead, buffers: Sequence[Buffer]) -> int:
    """Write a whole snapshot into an empty file and sync it; return its size."""
    file.write(0, [_encode_head(head)])
    offset, written = HEADER_BYTES, 0
    digest = hashlib.blake2b(digest_size=16)
    for number, pieces in enumerate(_chunks(buffers)):
        length = sum(map(len, pieces))
        crc = zlib.crc32(_NUMBER.pack(number, length))
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
        file.write(offset, [_CHUNK.pack(length, crc), *pieces])
        offset += _CHUNK.size + length
        written += length
    assert written == head.state_bytes
    file.write(offset, [_encode_footer(digest.digest())])
    file.sync()
    return offset + FOOTER_BYTES


def read_snapshot(disk: Disk, path: str) -> tuple[SnapshotHead, memoryview, str]:
    """(head, the state, its hash in hex), every byte checked; CorruptionError if not."""
    file = disk.open(path)
    try:
        head = read_head(file, path)
        size = _file_bytes(head.state_bytes)
        if file.size() != size:
            raise CorruptionError(
                path,
                min(size, file.size()),
                f"a file of {size} bytes",
                f"{file.size()} bytes",
                _ADVICE,
            )
        state = memoryview(bytearray(head.state_bytes))
        digest = hashlib.blake2b(digest_size=16)
        offset = HEADER_BYTES
        for number, start in enumerate(range(0, head.state_bytes, CHUNK_BYTES)):
            chunk = state[start : start + CHUNK_BYTES]
            _read_chunk(file, path, offset, number, chunk)
            digest.update(chunk)
            offset += _CHUNK.size + len(chunk)
        footer = file.read(offset, FOOTER_BYTES)
        if footer != _encode_footer(digest.digest()):
            expected = _encode_footer(digest.digest()).hex()
            raise CorruptionError(path, offset, f"footer {expected}", footer.hex(), _ADVICE)
        return head, state, digest.hexdigest()
    finally:
        file.close()


def read_head(file: File, path: str) -> SnapshotHead:
    """The checked header of a snapshot."""
    data = file.read(0, HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        found = f"{len(data)} bytes"
        raise CorruptionError(path, len(data), f"{HEADER_BYTES} bytes of header", found, _ADVICE)
    magic, version, crc, cluster, index, term, timestamp, size, chunk, _ = _HEADER.unpack(data)
    if magic != SNAPSHOT_MAGIC:
        raise CorruptionError(path, 0, f"magic {SNAPSHOT_MAGIC.hex()}", magic.hex(), _ADVICE)
    found = f"{zlib.crc32(data[:12] + bytes(4) + data[16:]):08x}"
    if found != f"{crc:08x}":
        raise CorruptionError(path, 12, f"header checksum {found}", f"{crc:08x}", _ADVICE)
    check_version(path, version)
    assert chunk == CHUNK_BYTES
    return SnapshotHead(cluster, index, term, timestamp, size)


def _read_chunk(file: File, path: str, offset: int, number: int, chunk: memoryview) -> None:
    header = file.read(offset, _CHUNK.size)
    file.read_into(offset + _CHUNK.size, chunk)
    crc = zlib.crc32(chunk, zlib.crc32(_NUMBER.pack(number, len(chunk))))
    if header != _CHUNK.pack(len(chunk), crc):
        length, found = _CHUNK.unpack(header.ljust(_CHUNK.size, b"\0"))
        raise CorruptionError(
            path,
            offset,
            f"chunk {number}: {len(chunk)} bytes with checksum {crc:08x}",
            f"{length} bytes with checksum {found:08x}",
            _ADVICE,
        )


def _file_bytes(state_bytes: int) -> int:
    chunks = -(-state_bytes // CHUNK_BYTES)
    return HEADER_BYTES + chunks * _CHUNK.size + state_bytes + FOOTER_BYTES


def _encode_head(head: SnapshotHead) -> bytes:
    fields = (
        head.cluster_id,
        head.index,
        head.term,
        head.timestamp_ns,
        head.state_bytes,
        CHUNK_BYTES,
        0,
    )
    blank = _HEADER.pack(SNAPSHOT_MAGIC, FORMAT_VERSION, 0, *fields)
    return _HEADER.pack(SNAPSHOT_MAGIC, FORMAT_VERSION, zlib.crc32(blank), *fields)


def _encode_footer(digest: bytes) -> bytes:
    crc = zlib.crc32(_FOOTER.pack(FOOTER_MAGIC, digest, 0, 0))
    return _FOOTER.pack(FOOTER_MAGIC, digest, crc, 0)


def _chunks(buffers: Sequence[Buffer]) -> Iterator[list[memoryview]]:
    """The buffers cut into runs of CHUNK_BYTES (the last may be shorter), without copying."""
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    for buffer in buffers:
        rest = memoryview(buffer).cast("B")
        while len(rest):
            piece, rest = rest[:room], rest[room:]
            pieces.append(piece)
            room -= len(piece)
            if room == 0:
                yield pieces
                pieces, room = [], CHUNK_BYTES
    if pieces:
        yield pieces
