"""The write-ahead log: numbered entries in zero-filled segments, synced in groups.

Skeleton of the interface; see the methods' docstrings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unimeter import limits
from unimeter.storage.disk import Disk


class Entry(NamedTuple):
    """One entry of the log. `body` is valid as long as someone holds it."""

    index: int
    term: int
    kind: int
    timestamp_ns: int
    body: memoryview


@dataclass(frozen=True)
class Identity:
    """Whose log this is."""

    cluster_id: bytes  # 16
    node_id: int


@dataclass(frozen=True)
class WalLimits:
    """Bounds of a log, injectable so that tests reach the edges soon."""

    segment_bytes: int = limits.SEGMENT_BYTES
    background: bool = True  # prepare segments in a thread (False: on the spot)


class Wal:
    """The log of one data directory.

    `append` and `sync` may be called from different threads. Order of an
    entry's life: append (staged, nothing durable), sync (durable, may be
    acknowledged), read.
    """

    first_index: int  # of the oldest entry stored; last_index + 1 when there is none
    last_index: int  # of the newest staged or synced entry
    synced_index: int  # everything up to here is durable
    last_timestamp_ns: int  # of the newest staged or synced entry
    full: bool  # the disk is full; appends are refused until `try_resume` is True

    @classmethod
    def open(cls, disk: Disk, path: str, identity: Identity, bounds: WalLimits) -> Wal:
        """Open the log in directory `path`; cut a torn tail, refuse a rotten one."""
        raise NotImplementedError

    @property
    def staged_bytes(self) -> int:
        """Bytes appended and not yet synced."""
        raise NotImplementedError

    def append(
        self, index: int, term: int, kind: int, timestamp_ns: int, body: bytes | memoryview
    ) -> None:
        """Stage one entry (index must be last_index + 1). Keeps a reference to `body`.

        Raises DiskFullError, with nothing staged, where the entry would need
        space that can't be had; and always while `full`.
        """
        raise NotImplementedError

    def sync(self) -> int:
        """Write and sync everything staged; return synced_index. Thread-safe, callable inline.

        Raises DiskFullError when there was no space: every entry staged from
        `error.from_index` on is dropped (none is durable, none comes back after a
        crash), last_index is from_index - 1 again, and `full` is set. Raises
        FatalStorageError when the process must stop.
        """
        raise NotImplementedError

    def try_resume(self) -> bool:
        """After a DiskFullError: whether there is space again. Cheap; call it now and then."""
        raise NotImplementedError

    def read(self, from_index: int, to_index: int | None = None) -> Iterator[Entry]:
        """Synced entries from_index..to_index (inclusive), checked, in order. Any thread."""
        raise NotImplementedError

    def remove_before(self, index: int) -> int:
        """Remove whole segments whose entries are all below `index`; return how many."""
        raise NotImplementedError

    def truncate_after(self, index: int) -> None:
        """Remove every entry above `index`, durably, newest first (for replication)."""
        raise NotImplementedError

    def statistics(self) -> dict[str, int]:
        """segments, bytes, first_index, last_index, synced_index, syncs, synced_bytes, sync_ns."""
        raise NotImplementedError

    def close(self) -> None:
        """Close files. Staged entries are not written."""
        raise NotImplementedError
