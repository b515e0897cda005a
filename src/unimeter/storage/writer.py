"""One dedicated thread that syncs the log for everything queued since the last sync.

    host thread   append, append, submit        append, submit
    this thread             └──> sync, on_synced ──> sync, on_synced

Owns the hand-over, which costs 25 microseconds for the round trip (an executor
130): a queue that carries nothing but the wish to sync. Wishes that gather
while a sync runs become one: group commit. Refuses to know what an entry is and to
choose between itself and `wal.sync()` on the caller's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from unimeter.storage.disk import DiskFullError, FatalStorageError
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
    ) -> None:
        self._wal, self._on_synced, self._on_error = wal, on_synced, on_error
        self._wishes: SimpleQueue[bool] = SimpleQueue()  # True: sync; False: end
        self._thread = threading.Thread(target=self._run, name="unimeter-sync", daemon=True)
        self._running = False

    def start(self) -> None:
        self._thread.start()

    def submit(self) -> None:
        """Ask for a sync of everything appended so far. Never blocks."""
        self._wishes.put(True)

    @property
    def busy(self) -> bool:
        """Whether a sync is under way or asked for (if not, wal.sync() inline is faster)."""
        return self._running or not self._wishes.empty()

    def close(self) -> None:
        """Sync what was submitted, then end the thread; returns when it has ended."""
        if self._thread.is_alive():
            self._wishes.put(False)
            self._thread.join()

    def _run(self) -> None:
        while self._next():
            self._running = True
            try:
                synced = self._wal.sync(witness=False)
            except DiskFullError as error:
                self._running = False
                self._on_error(error)
                self._write_witness()
            except BaseException as error:  # told to the host, which stops the process
                self._on_error(error)
                return
            else:
                self._running = False
                self._on_synced(synced)
                self._write_witness()

    def _write_witness(self) -> None:
        """After the news of the sync, which the clients wait for."""
        try:
            self._wal.write_witness()
        except FatalStorageError as error:
            self._on_error(error)

    def _next(self) -> bool:
        """Wait for a wish, take all that are there; whether to sync."""
        wish = self._wishes.get()
        while wish and not self._wishes.empty():
            wish = self._wishes.get()
            if not wish:
                self._wishes.put(False)  # sync once more, end afterwards
                return True
        return wish
