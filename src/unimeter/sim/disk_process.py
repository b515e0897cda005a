"""The fake disk as one process has it: its open files, its locks, its whole view.

Owns the end of a process on its disk: everything here carries the epoch in which it was
made, and raises `DeadProcess` once the disk has gone on to another. Closing and releasing
stay possible, and do nothing, because the kernel has done both: a `finally` that runs
while the end unwinds the stack must not hide why.

Refuses to decide what happens to bytes: see `disk` and `disk_content`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unimeter.sim.disk_content import Content
from unimeter.storage.disk import Buffer, DiskFullError, FatalStorageError

if TYPE_CHECKING:
    from unimeter.sim.disk import SimDisk


class DeadProcess(BaseException):
    """Code of a process that was killed reached for the disk. No `except Exception` may stop it."""


class SimFile:
    """One open file of a SimDisk."""

    __slots__ = ("_content", "_disk", "_epoch", "_may_write", "path")

    def __init__(self, disk: SimDisk, path: str, content: Content, may_write: bool) -> None:
        self.path = path
        self._disk, self._content, self._may_write = disk, content, may_write
        self._epoch = disk.epoch

    def size(self) -> int:
        self._disk.check_alive(self._epoch)
        return len(self._content.data)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only where the file ends."""
        disk, data = self._disk, self._content.data
        disk.check_alive(self._epoch)
        disk.operate("read", self.path, max(0, min(length, len(data) - offset)))
        return bytes(data[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        found = self.read(offset, len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Readable at once, durable after `sync`."""
        self._write("write", offset, b"".join(buffers))

    def write_durably(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """`write` and `sync`; the world can stop between them."""
        self._write("write", offset, b"".join(buffers))
        self.sync()

    def fill_zeros(self, offset: int, length: int) -> None:
        self._write("fill_zeros", offset, bytes(length))

    def _write(self, operation: str, offset: int, piece: bytes) -> None:
        disk, content = self._disk, self._content
        disk.check_alive(self._epoch)
        assert self._may_write, "a file opened for reading"
        try:
            disk.begin_write(operation, self.path, content, offset + len(piece), len(piece))
        except BaseException:
            disk.tear_write(content, offset, piece)
            raise
        content.store(offset, piece)

    def sync(self) -> None:
        """Make every earlier write of this file durable."""
        disk, content = self._disk, self._content
        disk.check_alive(self._epoch)
        try:
            disk.operate("sync", self.path, content.pending_bytes())
        except DiskFullError as error:
            raise FatalStorageError(f"{self.path}: fdatasync failed") from error
        disk.end_sync(self.path, content)

    def close(self) -> None:
        """Nothing to do, and no error: the kernel closes the files of a process that ended."""


class SimLock:
    """Ownership of a path, until released or the process ends."""

    def __init__(self, disk: SimDisk, path: str) -> None:
        self._disk, self._path, self._epoch = disk, path, disk.epoch

    def release(self) -> None:
        self._disk.unlock(self._path, self._epoch)


class ProcessDisk:
    """The disk of one process: every call raises DeadProcess once that has ended."""

    can_fork = False

    def __init__(self, disk: SimDisk) -> None:
        self._disk, self._epoch = disk, disk.epoch

    def _alive(self) -> SimDisk:
        self._disk.check_alive(self._epoch)
        return self._disk

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        return self._alive().open(path, write=write, create=create)

    def exists(self, path: str) -> bool:
        return self._alive().exists(path)

    def names(self, directory: str) -> list[str]:
        return self._alive().names(directory)

    def make_directory(self, path: str) -> None:
        self._alive().make_directory(path)

    def sync_directory(self, path: str) -> None:
        self._alive().sync_directory(path)

    def rename(self, old: str, new: str) -> None:
        self._alive().rename(old, new)

    def remove(self, path: str) -> None:
        self._alive().remove(path)

    def free_bytes(self, path: str) -> int:
        return self._alive().free_bytes(path)

    def lock(self, path: str) -> SimLock:
        return self._alive().lock(path)
