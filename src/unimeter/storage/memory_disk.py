"""A disk in memory: for ``:memory:``, and for tests that break things.

Owns the difference between *written* and *durable*. With ``faults=True`` every
file keeps what was durable at its last sync and the writes since, and the tree
keeps the names that were durable at the last directory sync. `crash` then makes
the disk a machine finds after a power cut: of the unsynced writes any sectors may
have arrived and any not, in any order; of the unsynced names, new or old ones.

Refuses to know what the bytes mean. Without faults it is plain and fast.

    disk = MemoryDisk(faults=True)
    ...                              # use it
    survivor = disk.crash(Random(7)) # what is left; `disk` itself is unchanged
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from random import Random

from unimeter.errors import DirectoryInUseError
from unimeter.storage.disk import (
    SECTOR_BYTES,
    Buffer,
    DiskFullError,
    FatalStorageError,
    sorted_errors,
)


class _Content:
    """The bytes of one file: as read now, as durable, and the writes in between."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0  # bytes behind len(data) are zeros that were never stored
        self.durable = b""
        self.durable_size = 0
        self.pending: list[tuple[int, bytes]] = []

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        found = bytes(self.data[offset : offset + length])
        return found.ljust(length, b"\0")

    def store(self, offset: int, piece: bytes) -> None:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(piece)] = piece
        self.size = max(self.size, offset + len(piece))

    def settle(self) -> None:
        """All that was written is durable."""
        self.durable, self.durable_size = bytes(self.data), self.size
        self.pending.clear()

    def survivor(self, random: Random, arrival: float) -> _Content:
        """What a power cut leaves: each unsynced sector arrived with that probability."""
        left = _Content()
        left.data, left.size = bytearray(self.durable), self.durable_size
        for offset, piece in self.pending:
            start = 0
            while start < len(piece):
                stop = min(len(piece), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
                if random.random() < arrival:
                    left.store(offset + start, piece[start:stop])
                start = stop
        left.settle()
        return left


class MemoryFile:
    """One open file of a MemoryDisk."""

    def __init__(self, disk: MemoryDisk, path: str, content: _Content) -> None:
        self.path = path
        self._disk, self._content = disk, content

    def size(self) -> int:
        return self._content.size

    def read(self, offset: int, length: int) -> bytes:
        self._disk.operate("read", self.path)
        return self._content.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        found = self.read(offset, len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._disk.operate("write", self.path)
        piece = b"".join(buffers)
        self._disk.claim(self.path, self._content, offset + len(piece))
        self._content.store(offset, piece)
        if self._disk.faults:
            self._content.pending.append((offset, piece))

    def write_durably(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.write(offset, buffers)
        self.sync()

    def fill_zeros(self, offset: int, length: int) -> None:
        self._disk.operate("fill_zeros", self.path)
        self._disk.claim(self.path, self._content, offset + length)
        stored = min(length, max(0, len(self._content.data) - offset))
        if stored:
            self._content.store(offset, bytes(stored))
        self._content.size = max(self._content.size, offset + length)
        if self._disk.faults:
            self._content.pending.append((offset, bytes(length)))

    def sync(self) -> None:
        try:
            self._disk.operate("sync", self.path)
        except DiskFullError as error:
            raise FatalStorageError(f"{self.path}: fdatasync failed") from error
        if self._disk.faults:
            self._content.settle()

    def close(self) -> None:
        return


class MemoryLock:
    """Ownership of a path of a MemoryDisk."""

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk, self._path = disk, path

    def release(self) -> None:
        self._disk.locked.discard(self._path)


class MemoryDisk:
    """A file system in memory.

    `capacity` bounds the sum of all file sizes. `on_operation(operation, path)` is
    called before each operation and may raise OSError, to fail the n-th sync or
    to stop the world at any step.
    """

    can_fork = False

    def __init__(self, *, faults: bool = False, capacity: int | None = None) -> None:
        self.faults, self.capacity = faults, capacity
        self.on_operation: Callable[[str, str], None] | None = None
        self.locked: set[str] = set()
        self._files: dict[str, _Content] = {}
        self._durable_names: dict[str, _Content] = {}
        self._directories: set[str] = set()

    # --- the interface -----------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> MemoryFile:
        self.operate("open", path)
        if create:
            self._files[path] = _Content()
        elif path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return MemoryFile(self, path, self._files[path])

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._directories

    def names(self, directory: str) -> list[str]:
        start = directory.rstrip("/") + "/"
        paths = [*self._files, *self._directories]
        below = [path[len(start) :] for path in paths if path.startswith(start)]
        return sorted({path.split("/")[0] for path in below})

    def make_directory(self, path: str) -> None:
        self.operate("make_directory", path)
        self._directories.add(path)

    def sync_directory(self, path: str) -> None:
        self.operate("sync_directory", path)
        if self.faults:
            kept = {p: c for p, c in self._durable_names.items() if os.path.dirname(p) != path}
            now = {p: c for p, c in self._files.items() if os.path.dirname(p) == path}
            self._durable_names = kept | now

    def rename(self, old: str, new: str) -> None:
        self.operate("rename", old)
        self._files[new] = self._files.pop(old)

    def remove(self, path: str) -> None:
        self.operate("remove", path)
        del self._files[path]

    def free_bytes(self, path: str) -> int:
        return 1 << 62 if self.capacity is None else max(0, self.capacity - self.used_bytes())

    def lock(self, path: str) -> MemoryLock:
        if path in self.locked:
            raise DirectoryInUseError(f"{path}: in use by the process with pid {os.getpid()}")
        self.locked.add(path)
        return MemoryLock(self, path)

    # --- for files ---------------------------------------------------------------

    def operate(self, operation: str, path: str) -> None:
        if self.on_operation is not None:
            with sorted_errors(f"{path}: {operation}"):
                self.on_operation(operation, path)

    def claim(self, path: str, content: _Content, end: int) -> None:
        """Refuse a write that would make the disk fuller than it is large."""
        growth = end - content.size
        if growth > 0 and self.capacity is not None and growth > self.free_bytes(path):
            raise DiskFullError(f"{path}: {os.strerror(errno.ENOSPC)}")

    # --- for tests ---------------------------------------------------------------

    def used_bytes(self) -> int:
        return sum(content.size for content in self._files.values())

    def paths(self) -> list[str]:
        return sorted(self._files)

    def contents(self, path: str) -> bytes:
        content = self._files[path]
        return content.read(0, content.size)

    def put(self, path: str, data: bytes) -> None:
        """Make `path` hold exactly these bytes, durably."""
        content = _Content()
        content.store(0, data)
        content.settle()
        self._files[path] = self._durable_names[path] = content

    def clone(self) -> MemoryDisk:
        """An independent copy of what is written now, unlocked and without faults."""
        copy = MemoryDisk(capacity=self.capacity)
        copy._directories = set(self._directories)
        for path in self._files:
            copy.put(path, self.contents(path))
        return copy

    def crash(self, random: Random, arrival: float = 0.5) -> MemoryDisk:
        """The disk after a power cut now. `arrival` 0 loses all that was not synced."""
        assert self.faults
        left = MemoryDisk(faults=True, capacity=self.capacity)
        left._directories = set(self._directories)
        names = dict(self._durable_names)
        for path in sorted(set(names) | set(self._files)):
            if names.get(path) is not self._files.get(path) and random.random() < arrival:
                now = self._files.get(path)
                names.pop(path, None)
                if now is not None:
                    names[path] = now
        for path in sorted(names):
            content = names[path].survivor(random, arrival)
            left._files[path] = left._durable_names[path] = content
        return left
