"""The disk as the rest of the package may use it: a small interface and the real one.

Owns every system call that touches the data directory. Refuses to be clever:
no caching, no retry of a failed sync, no path outside what it is given.

Everything above this module works on the two protocols `Disk` and `File`, so
that a simulated disk (`memory_disk`) can stand in their place, lose what was
not synced, tear a write, flip a bit or fill up.

Errors are sorted here, once:

    no space left, quota   DiskFullError       an answer: wait, free space, go on
    failed fdatasync       FatalStorageError   the process must stop: after a failed
                                               sync the kernel may have dropped the
                                               dirty pages and a second sync would
                                               succeed without having written them
    any other OSError      FatalStorageError   on writing; on reading too, because a
                                               read error is not a torn tail

The alternative, raising OSError and deciding in each caller, was rejected: one
forgotten `except` would turn a lost page into an acknowledgement.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from unimeter.errors import DirectoryInUseError, WrongDirectoryError
from unimeter.errors import DiskFullError as DiskFullError
from unimeter.errors import FatalStorageError as FatalStorageError
from unimeter.storage.direct import DirectWriter, fill_zeros_directly

Buffer = bytes | bytearray | memoryview

SECTOR_BYTES = 512  # the unit a disk writes whole or not at all
ZEROS = bytes(1024 * 1024)
_IOV_MAX = 1024  # Linux: buffers one pwritev accepts
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class File(Protocol):
    """One open file. Offsets and lengths are in bytes."""

    path: str

    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only where the file ends."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer`; return how many bytes there were before the end of the file."""

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write all of `buffers` one after the other. Not durable before `sync`."""

    def write_durably(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """`write` and `sync` in one, for the log: what was written before is durable too."""

    def fill_zeros(self, offset: int, length: int) -> None:
        """Write `length` zero bytes (really written, so that no later write allocates)."""

    def sync(self) -> None:
        """Make every earlier write of this file durable (fdatasync)."""

    def close(self) -> None: ...


class Lock(Protocol):
    """Exclusive ownership of a data directory, until `release` or the process ends."""

    def release(self) -> None: ...


class Disk(Protocol):
    """A file system."""

    can_fork: bool  # whether a forked child sees the same files

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file; `create` makes a new empty one (an existing one is emptied)."""

    def exists(self, path: str) -> bool: ...

    def names(self, directory: str) -> list[str]:
        """The names in `directory`, sorted; empty when there is no such directory."""

    def make_directory(self, path: str) -> None:
        """Make `path` and its parents, durably; no error where it exists."""

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in `path` durable."""

    def rename(self, old: str, new: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def free_bytes(self, path: str) -> int:
        """Bytes this process may still write on the file system of `path`."""

    def lock(self, path: str) -> Lock:
        """Own `path` (a lock file) or raise DirectoryInUseError naming the owner."""


@contextmanager
def sorted_errors(what: str) -> Iterator[None]:
    """Turn OSError into the two errors of this package (see the module's table)."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFullError(f"{what}: {error.strerror}") from error
        raise FatalStorageError(f"{what}: {error.strerror or error}") from error


class OsFile:
    """A file of the operating system."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._direct: DirectWriter | None = None
        self._can_direct = True

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        with sorted_errors(f"{self.path}: read at byte {offset}"):
            first = os.pread(self._descriptor, length, offset)
            if len(first) == length or not first:
                return first
            parts = [first]  # a signal or 2 GiB limit cut the read short, or the file ends
            have = len(first)
            while have < length:
                part = os.pread(self._descriptor, length - have, offset + have)
                if not part:
                    break
                parts.append(part)
                have += len(part)
            return b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        have = 0
        with sorted_errors(f"{self.path}: read at byte {offset}"):
            while have < len(buffer):
                got = os.preadv(self._descriptor, [buffer[have:]], offset + have)
                if got == 0:
                    break
                have += got
        return have

    def write_durably(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self._can_direct and self._write_directly(offset, buffers):
            return
        self.write(offset, buffers)
        self.sync()

    def _write_directly(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """Try it past the page cache; False where the file system has no such way."""
        try:
            if self._direct is None:
                self._direct = DirectWriter(self.path)
            return self._direct.write(self._descriptor, offset, buffers)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                self._can_direct = False
                return False
            if error.errno in _NO_SPACE:
                raise DiskFullError(f"{self.path}: {error.strerror}") from error
            raise FatalStorageError(
                f"{self.path}: a durable write failed ({error.strerror}); what was written may be "
                "lost, so the process stops instead of trying again"
            ) from error

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self._direct is not None:
            self._direct.forget()
        with sorted_errors(f"{self.path}: write at byte {offset}"):
            for start in range(0, len(buffers), _IOV_MAX):
                offset = self._write_some(offset, buffers[start : start + _IOV_MAX])

    def _write_some(self, offset: int, buffers: Sequence[Buffer]) -> int:
        total = sum(map(len, buffers))
        written = os.pwritev(self._descriptor, buffers, offset)
        if written < total:  # rare: a signal, or the disk is nearly full
            rest = memoryview(b"".join(buffers))
            while written < total:
                written += os.pwrite(self._descriptor, rest[written:], offset + written)
        return offset + total

    def fill_zeros(self, offset: int, length: int) -> None:
        if self._direct is not None:
            self._direct.forget()
        with sorted_errors(f"{self.path}: fill with zeros"):
            if self._can_direct and fill_zeros_directly(self.path, offset, length):
                return
            while length > 0:
                piece = ZEROS if length >= len(ZEROS) else ZEROS[:length]
                done = os.pwrite(self._descriptor, piece, offset)
                offset += done
                length -= done

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise FatalStorageError(
                f"{self.path}: fdatasync failed ({error.strerror}); what was written may be lost, "
                "so the process stops instead of trying again"
            ) from error

    def close(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OsLock:
    """flock on a file that names the owner's pid."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OsDisk:
    """The operating system's file system."""

    can_fork = hasattr(os, "fork")

    def open(self, path: str, *, write: bool = False, create: bool = False) -> OsFile:
        flags = (os.O_RDWR if write or create else os.O_RDONLY) | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_TRUNC
        try:
            return OsFile(path, os.open(path, flags, 0o640))
        except FileNotFoundError:
            raise
        except OSError as error:
            with sorted_errors(f"{path}: open"):
                raise error

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise WrongDirectoryError(f"{directory}: is a file, not a directory") from None
        except OSError as error:
            raise FatalStorageError(f"{directory}: can't be read: {error.strerror}") from error

    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(os.path.abspath(path))
        self.make_directory(parent)
        with sorted_errors(f"{path}: make directory"):
            os.mkdir(path, 0o750)
        self.sync_directory(parent)

    def sync_directory(self, path: str) -> None:
        with sorted_errors(f"{path}: open directory"):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise FatalStorageError(f"{path}: fsync failed: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        with sorted_errors(f"{old}: rename to {new}"):
            os.rename(old, new)

    def remove(self, path: str) -> None:
        with sorted_errors(f"{path}: remove"):
            os.unlink(path)

    def free_bytes(self, path: str) -> int:
        usage = os.statvfs(path)
        return usage.f_bavail * usage.f_frsize

    def lock(self, path: str) -> OsLock:
        with sorted_errors(f"{path}: open lock file"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            directory = os.path.dirname(path)
            raise DirectoryInUseError(
                f"{directory}: in use by the process with pid {owner}; "
                "stop it first, or choose another data directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return OsLock(descriptor)
