"""One dedicated thread that syncs the log for everything queued since the last sync.

Skeleton of the interface.
"""

from __future__ import annotations

from collections.abc import Callable

from unimeter.storage.wal import Wal


class Writer:
    """The sync thread.

    `on_synced(index)` and `on_error(error)` are called FROM THE THREAD; a server
    wraps them with call_soon_threadsafe. After a DiskFullError (entries from
    error.from_index on were dropped) the thread goes on; after anything else
    (FatalStorageError) it ends and the process must stop.
    """

    def __init__(
        self,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> None: ...

    def start(self) -> None: ...

    def submit(self) -> None:
        """Ask for a sync of everything appended so far. Never blocks."""

    @property
    def busy(self) -> bool:
        """Whether a sync is under way or asked for (if not, wal.sync() inline is faster)."""
        raise NotImplementedError

    def close(self) -> None:
        """Sync what was submitted, then end the thread; returns when it has ended."""
