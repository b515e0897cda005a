"""State at an index, written whole, checked whole.

Skeleton of the interface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Snapshotable(Protocol):
    """What a snapshot needs of the machine."""

    applied: int
    timestamp_ns: int

    def snapshot(self) -> list[bytes | memoryview]: ...


@dataclass(frozen=True)
class SnapshotResult:
    """How a snapshot ended. `error` is empty on success."""

    index: int
    bytes: int
    seconds: float
    error: str = ""


class Snapshotter:
    """Takes the snapshots of one data directory, one at a time."""

    busy: bool
    last_index: int  # of the newest snapshot in effect, 0 = none

    def begin(self, machine: Snapshotable, *, background: bool = True) -> None:
        """Start a snapshot of `machine` at machine.applied (which must be synced).

        In the background a forked child writes; the caller may go on applying at
        once. Then `poll()` (or watch `fileno()` for reading and poll when it is).
        Inline (background=False, or a disk that can't fork) it is written before
        this returns, and the next poll() gives the result.
        """
        raise NotImplementedError

    def fileno(self) -> int:
        """Readable when the background child has finished; -1 when none runs."""
        raise NotImplementedError

    def poll(self) -> SnapshotResult | None:
        """Never blocks: None while running or idle; the result once, when it has ended."""
        raise NotImplementedError

    def wait(self) -> SnapshotResult | None:
        """Block until the running snapshot has ended (at close); None when none runs."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Kill a running child and remove what it wrote."""
        raise NotImplementedError


MachineRestore = Callable[[memoryview], Snapshotable]
