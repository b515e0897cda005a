"""Opening a data directory: lock, superblock, snapshot, replay.

Skeleton of the interface.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unimeter.storage.disk import Disk
from unimeter.storage.events import EventStore
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.snapshots import Snapshotter
from unimeter.storage.wal import Wal, WalLimits

if TYPE_CHECKING:
    from unimeter.engine.machine import Machine

Progress = Callable[[int, int, int], None]
"""Called now and then with (log bytes replayed, log bytes in all, events replayed)."""


@dataclass
class Opened:
    """An open data directory. Everything in it belongs to the caller until `close`."""

    disk: Disk
    path: str
    cluster_id: bytes
    node_id: int
    machine: Machine
    wal: Wal
    events: EventStore
    snapshots: Snapshotter
    created: bool = False  # this call made the directory
    notes: list[str] = field(default_factory=list)  # sentences for the operator: what was mended
    replayed_entries: int = 0
    replayed_events: int = 0

    def apply_retention(self, policy: RetentionPolicy, now_ns: int) -> int:
        """Remove what the policy lets go; return how many segments went."""
        raise NotImplementedError

    def free_bytes(self) -> int:
        """Bytes left on the directory's file system."""
        raise NotImplementedError

    def statistics(self) -> dict[str, int]:
        """The log's, the event store's and the snapshots' figures together."""
        raise NotImplementedError

    def close(self) -> None:
        """Close everything and give the lock back. Sync first; this does not."""
        raise NotImplementedError


def open_directory(
    disk: Disk,
    path: str,
    *,
    create: bool = True,
    cluster_id: bytes | None = None,
    node_id: int = 1,
    bounds: WalLimits | None = None,
    progress: Progress | None = None,
    machine_class: type[Machine] | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
    now_ns: Callable[[], int] = time.time_ns,
) -> Opened:
    """Open the directory, making it (with its GENESIS entry, synced) where it is new or empty.

    Raises DirectoryInUseError, WrongDirectoryError (another format version,
    cluster or node; or a directory that holds something else), CorruptionError
    (file, offset, expected, found), FatalStorageError. `cluster_id=None` takes
    whatever the directory says.
    """
    raise NotImplementedError
