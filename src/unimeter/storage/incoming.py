"""A snapshot file that arrives from another node, piece by piece: `snapshots/<index>.part`.

Owns what may be believed of a part file. Bytes are taken in order; whenever a whole
chunk of the snapshot's own format is there it is read back and checked
(`snapshot_file`), so three offsets describe a part file:

    0 ......... verified ......... received ......... size
      checked              written          not here yet

A connection may be lost at any byte: the next one goes on at `received`. The process may
be lost at any moment: `begin` checks again what is in the file and goes on at `verified`.
A chunk that does not match its checksum is thrown away, and asked for again from its
start.

A finished file keeps its name until the node installs it, because a `.snap` file is one that
the log goes on from. Opening a directory leaves `.part` files alone; `remove_stale_parts` is
to be called when a directory was opened, and after an installation.

Refuses to hold more than one: a newer offer takes the place of the older, and the older's
file goes. Nothing here is durable before `finish`; that costs nothing, since all of it is
checked again.

Rejected: a checksum file beside the part file. The format has checksums already.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Final

from unimeter import limits
from unimeter.errors import CorruptionError, DiskFullError, WrongDirectoryError
from unimeter.storage import snapshot_file
from unimeter.storage.disk import Buffer, Disk, File
from unimeter.storage.snapshot_file import (
    CHUNK_BYTES,
    FOOTER_BYTES,
    HEADER_BYTES,
    SnapshotHead,
    read_head,
)

_SUFFIX: Final = ".part"
_CHUNK_HEAD_BYTES: Final = 8
_ADVICE: Final = "It is asked for again."


class OutgoingFile:
    """A snapshot file that is being sent; it stays readable though its name may go."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._file = disk.open(path)
        self.size = self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; from any thread."""
        return self._file.read(offset, length)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class Incoming:
    """The part file of one data directory. Used by one thread at a time."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self.index = self.term = self.size = 0
        self.received = self.verified = 0
        self.head: SnapshotHead | None = None
        self._disk, self._folder = disk, f"{directory}/snapshots"
        self._file: File | None = None
        self._chunks = 0  # verified ones
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def path(self) -> str:
        """Where the bytes lie."""
        return part_path(self._folder, self.index)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here and checked."""
        return self._file is not None and self.verified == self.size

    def begin(self, index: int, term: int, size: int) -> int:
        """Be ready for a file; return the offset to send it from.

        Goes on where an earlier transfer of the same file stopped. Any other part file
        is removed. Raises DiskFullError where it would not fit.
        """
        if self._file is not None and (index, term, size) == (self.index, self.term, self.size):
            return self.received
        self.close()
        self.index, self.term, self.size = index, term, size
        self._remove_others()
        self._file = self._open()
        self._check_space()
        self._restart()
        try:
            self._verify(min(self._file.size(), size))
        except (CorruptionError, WrongDirectoryError):
            pass  # what is whole before it is used; the rest comes again
        self.received = self.verified
        return self.received

    def write(self, offset: int, data: Buffer) -> int:
        """Take bytes; return how far the file is here.

        Bytes that do not follow on what is here are ignored. Raises CorruptionError when
        they complete a chunk that does not match its checksum: `received` is then the start
        of that chunk.
        """
        assert self._file is not None
        if offset != self.received or offset + len(data) > self.size:
            return self.received
        self._file.write(offset, [data])
        self.received += len(data)
        try:
            self._verify(self.received)
        except WrongDirectoryError as error:
            self.received = self.verified
            raise CorruptionError(self.path, 0, "this format", str(error), _ADVICE) from error
        except CorruptionError:
            self.received = self.verified
            raise
        return self.received

    def finish(self) -> str:
        """Make the whole, checked file durable; return its path."""
        assert self._file is not None and self.is_whole
        self._file.sync()
        self._disk.sync_directory(self._folder)
        path = self.path
        self.close()
        return path

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- checking ----------------------------------------------------------------

    def _restart(self) -> None:
        self.received = self.verified = self._chunks = 0
        self.head = None
        self._digest = hashlib.blake2b(digest_size=16)

    def _verify(self, available: int) -> None:
        """Check every part of the format that lies whole in the first `available` bytes."""
        while self.verified < self.size:
            end = self._next_end()
            if end > available:
                return
            self._check_part()
            self.verified = end

    def _next_end(self) -> int:
        """Where the part that begins at `verified` ends: header, a chunk or the footer."""
        if self.head is None:
            return HEADER_BYTES
        length = min(CHUNK_BYTES, self.head.state_bytes - self._chunks * CHUNK_BYTES)
        return self.verified + (_CHUNK_HEAD_BYTES + length if length > 0 else FOOTER_BYTES)

    def _check_part(self) -> None:
        assert self._file is not None
        if self.head is None:
            self.head = self._check_head(read_head(self._file, self.path))
            return
        length = min(CHUNK_BYTES, self.head.state_bytes - self._chunks * CHUNK_BYTES)
        if length <= 0:
            self._check_footer()
            return
        chunk = memoryview(bytearray(length))
        snapshot_file._read_chunk(self._file, self.path, self.verified, self._chunks, chunk)
        self._digest.update(chunk)
        self._chunks += 1

    def _check_head(self, head: SnapshotHead) -> SnapshotHead:
        found = (head.index, head.term, snapshot_file._file_bytes(head.state_bytes))
        if found != (self.index, self.term, self.size):
            raise CorruptionError(
                self.path,
                0,
                f"a snapshot of entry {self.index}, term {self.term}, in {self.size} bytes",
                f"one of entry {found[0]}, term {found[1]}, in {found[2]} bytes",
                _ADVICE,
            )
        return head

    def _check_footer(self) -> None:
        assert self._file is not None
        expected = snapshot_file._encode_footer(self._digest.digest())
        found = self._file.read(self.verified, FOOTER_BYTES)
        if found != expected:
            at = self.verified
            raise CorruptionError(self.path, at, f"footer {expected.hex()}", found.hex(), _ADVICE)

    # --- files -------------------------------------------------------------------

    def _open(self) -> File:
        """The part file, as it was left; a new one where there is none."""
        if self._disk.exists(self.path):
            file = self._disk.open(self.path, write=True)
            if file.size() <= self.size:
                return file
            file.close()
        return self._disk.open(self.path, create=True)

    def _check_space(self) -> None:
        assert self._file is not None
        missing = self.size - self._file.size()
        free = self._disk.free_bytes(self._folder)
        if free - missing < limits.DISK_FREE_BYTES_MIN:
            self.close()
            raise DiskFullError(
                f"{self._folder}: a snapshot of {self.size} bytes does not fit: {missing} are "
                f"missing, {free} are free, and {limits.DISK_FREE_BYTES_MIN} must stay so"
            )

    def _remove_others(self) -> None:
        for name in self._disk.names(self._folder):
            if name.endswith(_SUFFIX) and f"{self._folder}/{name}" != self.path:
                self._disk.remove(f"{self._folder}/{name}")


def part_path(folder: str, index: int) -> str:
    """The part file of a snapshot at `index`, in the snapshots' folder."""
    return f"{folder}/{index:016x}{_SUFFIX}"


def remove_stale_parts(disk: Disk, directory: str, index: int) -> int:
    """Remove part files of snapshots that a node at `index` has no use for; return how many.

    Call it with the index that a directory's state has reached, after opening it and
    after installing a snapshot. A part file above that index may still be completed.
    """
    folder = f"{directory}/snapshots"
    removed = 0
    for name in disk.names(folder):
        if not name.endswith(_SUFFIX):
            continue
        at = -1
        with suppress(ValueError):
            at = int(name.removesuffix(_SUFFIX), 16)
        if at <= index:
            disk.remove(f"{folder}/{name}")
            removed += 1
    return removed
