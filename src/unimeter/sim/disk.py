"""The simulator's disk: what is written, what is durable, and everything that can go wrong.

Owns the names of one machine's files and the two moments at which they matter: the end of
a process (`kill`: the page cache stays) and the end of the power (`power_cut`: of what was
not synced, any part stays). Bytes of one file stand in `disk_content`, faults at rest in
`disk_faults`. Stands in the place of `storage.disk.OsDisk` under the real storage code.

    disk = SimDisk(chance, on_operation=world_hook)
    node = Server(disk=disk.process())     # dies with `kill` and `power_cut`
    disk.power_cut(arrival=0.5)            # in place; then a new `disk.process()`

`on_operation(operation, path, size)` is called before each operation: open, read, write,
sync, fill_zeros, make_directory, sync_directory, rename, remove. It may raise OSError (sorted
as the real disk sorts it) or any BaseException of the world that is no Exception: then
the process ends there, as by `kill`, and nothing was done; but a write that is stopped
leaves a drawn beginning of itself, as often as `tear` says.

A file's name is durable by `sync_directory`. A power cut draws for each unsynced creation,
rename and removal whether it happened; a rename happens whole or not at all.

Refuses to lie unasked: what a sync has returned for stays, until a fault at rest is ordered.
Code of a process that has ended and still runs (a `finally`, a job of a thread) meets
`DeadProcess` and changes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence

from unimeter.errors import DirectoryInUseError
from unimeter.sim.chance import Chance
from unimeter.sim.disk_content import Content
from unimeter.sim.disk_faults import KINDS, Chosen, Damage, Damages, PathFilter, kind_of
from unimeter.sim.disk_names import Names, in_order, shown
from unimeter.sim.disk_process import DeadProcess, ProcessDisk, SimFile, SimLock
from unimeter.storage.disk import SECTOR_BYTES, DiskFullError, FatalStorageError, sorted_errors
from unimeter.storage.memory_disk import MemoryDisk

__all__ = ["DeadProcess", "ProcessDisk", "SimDisk", "SimFile", "SimLock", "kind_of", "shown"]

OperationHook = Callable[[str, str, int], None]  # operation, path, bytes


class SimDisk:
    """One machine's file system. Also a `Disk` itself, of whatever process runs now."""

    can_fork = False

    def __init__(
        self,
        chance: Chance,
        *,
        on_operation: OperationHook | None = None,
        capacity: int | None = None,
    ) -> None:
        """An empty disk; `capacity` bounds the sum of all file sizes, in bytes."""
        self.on_operation, self.capacity = on_operation, capacity
        self.fail_sync: Callable[[str], bool] | None = None  # asked for each sync of a file
        self.fail_write: Callable[[str], bool] | None = None  # asked for each write
        self.tear = 0.0  # how often a write that is stopped leaves a beginning of itself
        self.epoch = 1  # of the process that runs now
        self.faults: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self._damages = Damages()
        self._chance = chance
        self._locked: dict[str, int] = {}  # lock file -> epoch of the owner
        self._names = Names()

    # --- the interface of a disk -----------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        """Open a file; `create` makes a new empty one."""
        self.operate("open", path, 0)
        content = self._names.create(path) if create else self._names.find(path)
        return SimFile(self, path, content, write or create)

    def exists(self, path: str) -> bool:
        return path in self._names.now or path in self._names.directories

    def names(self, directory: str) -> list[str]:
        """The names in `directory`, sorted."""
        return self._names.below(directory)

    def make_directory(self, path: str) -> None:
        """Make `path` and its parents, durably."""
        if path not in self._names.directories:
            self.operate("make_directory", path, 0)
            self._names.add_directory(path)

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in `path` durable."""
        self.operate("sync_directory", path, 0)
        self._names.sync(path)

    def rename(self, old: str, new: str) -> None:
        self.operate("rename", old, 0)
        self._names.rename(old, new)

    def remove(self, path: str) -> None:
        self.operate("remove", path, 0)
        self._names.remove(path)

    def free_bytes(self, path: str) -> int:
        return 1 << 62 if self.capacity is None else max(0, self.capacity - self.used_bytes())

    def lock(self, path: str) -> SimLock:
        if path in self._locked:
            raise DirectoryInUseError(f"{path}: in use by the process with pid 1")
        self._locked[path] = self.epoch
        return SimLock(self, path)

    # --- processes and power ------------------------------------------------------------

    def process(self) -> ProcessDisk:
        """The disk for a process that starts now: unusable once that has ended."""
        return ProcessDisk(self)

    def kill(self) -> None:
        """The process ends, by SIGKILL or otherwise: what it wrote stays readable."""
        self.epoch += 1
        self._locked.clear()

    def power_cut(self, arrival: float) -> None:
        """The power fails, now or during the operation that was stopped.

        Each sector of each unsynced write, and each unsynced change of a name, arrived with
        that probability. What is left is durable.
        """
        self.kill()
        self.faults["power_cut"] += 1
        self._names.survive(self._chance, arrival)
        for content in self._names.now.values():
            content.survive(self._chance, arrival)

    def lose(self) -> str:
        """The disk is empty: another one was put into the machine."""
        self.kill()
        self.faults["lose"] += 1
        files = len(self._names.now)
        self._names.lose()
        return f"lost a disk of {files} files"

    # --- faults at rest --------------------------------------------------------------------

    def rot(
        self,
        path_filter: PathFilter | None = None,
        chance: Chance | None = None,
        *,
        kinds: Sequence[str] = KINDS,
        but_newest: bool = True,
        but_heads: bool = False,
    ) -> str:
        """Damage one used place of one file; what was done, or "" where nothing was suitable.

        See `disk_faults`: `but_newest` never blanks the last group of a log, `but_heads`
        leaves the heads of segments whole, which no peer can repair.
        """
        files = self._chosen(path_filter, kinds)
        told = self._damages.rot(files, chance or self._chance, but_newest, but_heads)
        self.faults["rot"] += bool(told)
        return told

    def misdirect(
        self,
        path_filter: PathFilter | None = None,
        chance: Chance | None = None,
        *,
        but_newest: bool = True,
        but_heads: bool = False,
    ) -> str:
        """Have one synced write of a log segment gone elsewhere; what was done, or ""."""
        files = self._chosen(path_filter, ("log",))
        told = self._damages.misdirect(files, chance or self._chance, but_newest, but_heads)
        self.faults["misdirect"] += bool(told)
        return told

    def standing_damage(self) -> list[Damage]:
        """The damage that is neither undone nor written over, in files that still have a name."""
        files = list(self._names.now.values())
        return [
            damage
            for damage in self._damages.standing()
            if any(content is found for content, _ in damage.standing() for found in files)
        ]

    def damaged_paths(self) -> list[str]:
        """The files that hold damage now."""
        return [path for path in self.paths() if self._names.now[path].patches]

    def undo_damage(self, number: int) -> bool:
        """Put the right bytes back for one damage (by its number); whether any was left."""
        return self._damages.undo(number)

    def heal(self, path: str | None = None) -> int:
        """Put the right bytes back in that file, or in all; how many places were mended."""
        paths = self.paths() if path is None else [path] if path in self._names.now else []
        return sum(self._damages.heal(self._names.now[path]) for path in paths)

    def _chosen(self, path_filter: PathFilter | None, kinds: Sequence[str]) -> Chosen:
        """Durably named files that a fault may hit. (A new name may still be taken back.)"""
        now, durable = self._names.now, self._names.durable
        return [
            (path, now[path])
            for path in self.paths()
            if kind_of(path) in kinds
            and durable.get(path) is now[path]
            and (path_filter is None or path_filter(path))
        ]

    # --- for files and locks ----------------------------------------------------------------

    def operate(self, operation: str, path: str, size: int) -> None:
        """Something is about to be done: ask the world."""
        self.operations[operation] += 1
        if self.on_operation is None:
            return
        try:
            self.on_operation(operation, path, size)
        except OSError as error:
            with sorted_errors(f"{path}: {operation}"):
                raise error
        except Exception:
            raise
        except BaseException:
            self.kill()
            raise

    def claim(self, path: str, growth: int) -> None:
        """Refuse a write that would make the disk fuller than it is large."""
        if growth > 0 and self.capacity is not None and growth > self.free_bytes(path):
            self.faults["full"] += 1
            raise DiskFullError(f"{path}: {os.strerror(errno.ENOSPC)}")

    def tear_write(self, content: Content, offset: int, piece: bytes) -> None:
        """A write was stopped: maybe a beginning of it, up to a sector's end, is there."""
        if not self.tear or not self._chance.hit(self.tear):
            return
        end = min(offset + len(piece), len(content.data))  # a stopped write makes nothing longer
        ends = range((offset // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES)
        if len(ends):
            self.faults["torn_write"] += 1
            content.store(offset, piece[: self._chance.pick(ends) - offset])

    def end_sync(self, path: str, content: Content) -> None:
        """Make the file durable, or fail as a kernel does."""
        if self.fail_sync is None or not self.fail_sync(path):
            content.settle()
            return
        self.faults["failed_sync"] += 1
        content.fail_sync(self._chance)
        raise FatalStorageError(
            f"{path}: fdatasync failed ({os.strerror(errno.EIO)}); what was written may be lost, "
            "so the process stops instead of trying again"
        )

    def begin_write(self, operation: str, path: str, content: Content, end: int, size: int) -> None:
        """All that can stop a write."""
        self.operate(operation, path, size)
        if self.fail_write is not None and self.fail_write(path):
            self.faults["failed_write"] += 1
            raise FatalStorageError(f"{path}: {operation}: {os.strerror(errno.EIO)}")
        self.claim(path, end - len(content.data))

    def unlock(self, path: str, epoch: int) -> None:
        """Give up a lock, if it is still this process's."""
        if self._locked.get(path) == epoch == self.epoch:
            del self._locked[path]

    def check_alive(self, epoch: int) -> None:
        """Raise DeadProcess for code of a process that has ended."""
        if epoch != self.epoch:
            raise DeadProcess("this process was killed and still reaches for its disk")

    # --- for the world and its checkers -------------------------------------------------------

    def used_bytes(self) -> int:
        return sum(len(content.data) for content in self._names.now.values())

    def paths(self) -> list[str]:
        """Every file, in the order of the shown names."""
        return sorted(self._names.now, key=in_order)

    def contents(self, path: str) -> bytes:
        """What a read of the whole file returns now."""
        return bytes(self._names.now[path].data)

    def put(self, path: str, data: bytes) -> None:
        """Make `path` hold exactly these bytes, durably, whatever it was."""
        self._names.put(path, Content(data))

    def durable_names(self, directory: str) -> list[str]:
        """The durably named files anywhere under `directory`, by their names below it."""
        start = len(directory.rstrip("/")) + 1
        return [path[start:] for path in self._names.durable_below(directory)]

    def durable_bytes(self, path: str) -> bytes:
        """What is durable now of the file that durably has this name."""
        return bytes(self._names.durable[path].durable)

    def durable_contains(self, data: bytes, directory: str) -> bool:
        """Whether these bytes stand, durably, in some durably named file under `directory`."""
        paths = reversed(self._names.durable_below(directory))
        return any(data in self._names.durable[path].durable for path in paths)

    def durable_copy(self) -> MemoryDisk:
        """What a power cut with arrival 0 would leave now, for real recovery to open."""
        names = self._names.durable
        return self._copy({path: content.durable for path, content in names.items()})

    def clone(self) -> MemoryDisk:
        """An independent copy of what is readable now, unlocked."""
        return self._copy({path: content.data for path, content in self._names.now.items()})

    def _copy(self, files: dict[str, bytearray]) -> MemoryDisk:
        copy = MemoryDisk(capacity=self.capacity)
        for path in self._names.directories:
            copy.make_directory(path)
        for path in sorted(files, key=in_order):
            copy.put(path, bytes(files[path]))
        return copy

    def digest(self) -> bytes:
        """16 bytes over all that is readable now, the same in every process."""
        found = hashlib.blake2b(digest_size=16)
        for path in self.paths():
            data = self._names.now[path].data
            found.update(f"{shown(path)}\0{len(data)}\0".encode())
            found.update(data)
        return found.digest()

    def statistics(self) -> dict[str, int]:
        """Counts of operations and, as `fault_...`, of faults."""
        faults = {f"fault_{name}": self.faults[name] for name in sorted(self.faults)}
        return {name: self.operations[name] for name in sorted(self.operations)} | faults
