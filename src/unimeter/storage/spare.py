"""The next segment, filled with zeros before it is needed.

Owns one temporary file. Zeros are really written and synced, because an append
into such a file changes no metadata: a sync of 4 KiB costs 127 microseconds there,
200 in a file that is only allocated or grows. Filling takes 0.1 s, so it happens
in a thread of its own while the segment before still has room; only a log that
outruns the thread, or has none (tests, memory), waits for it.

The file carries no name of the log yet: a crash leaves a temporary file, which
opening removes.
"""

from __future__ import annotations

import threading

from unimeter.storage.disk import Disk, DiskFullError, FatalStorageError, File

_FILL_BYTES = 4 * 1024 * 1024  # between two syncs: a long queue of dirty pages stalls the log's
_MARGIN_BYTES = 1024 * 1024  # left for the file system's own records


class Spare:
    """At most one prepared file; `take` hands it over."""

    def __init__(self, disk: Disk, path: str, *, background: bool) -> None:
        self.path = path
        self.error: BaseException | None = None  # why the last preparation failed
        self._disk, self._background = disk, background
        self._file: File | None = None
        self._size = 0
        self._thread: threading.Thread | None = None

    @property
    def is_ready(self) -> bool:
        return self._file is not None and not self._is_running

    @property
    def is_idle(self) -> bool:
        """Whether nothing is prepared and nothing under way."""
        return self._file is None and not self._is_running

    @property
    def has_failed(self) -> bool:
        return self.error is not None

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, size: int) -> None:
        """Begin to prepare a file of `size` bytes, unless one is prepared or under way."""
        if self._file is not None or self._is_running or not self._background:
            return
        self.error = None
        self._thread = threading.Thread(
            target=self._prepare, args=(size,), name="unimeter-segment", daemon=True
        )
        self._thread.start()

    def take(self, size: int) -> tuple[File, int]:
        """The prepared file and its size, at least `size`; prepare it now if there is none."""
        self._join()
        if isinstance(self.error, FatalStorageError):
            raise self.error
        if self._file is None or self._size < size:
            self._drop()
            self._prepare(size)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        file, self._file = self._file, None
        assert file is not None and self._size >= size
        return file, self._size

    def try_prepare(self, size: int) -> bool:
        """Whether a file is ready; if not, begin (or do it now where there is no thread)."""
        if self._is_running:
            return False
        if self._file is None:
            self.error = None
            if self._background:
                self.start(size)
            else:
                self._prepare(size)
        return self.is_ready

    def close(self) -> None:
        """Remove what was prepared."""
        self._join()
        self._drop()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._disk.remove(self.path)

    def _prepare(self, size: int) -> None:
        file: File | None = None
        self.error = None
        try:
            directory = self.path.rpartition("/")[0]
            if self._disk.free_bytes(directory) < size + _MARGIN_BYTES:
                raise DiskFullError(f"{directory}: no room for a segment of {size} bytes")
            file = self._disk.open(self.path, create=True)
            for offset in range(0, size, _FILL_BYTES):
                file.fill_zeros(offset, min(_FILL_BYTES, size - offset))
                file.sync()
            self._size, self._file = size, file
        except Exception as error:  # kept, and raised by take() in the thread that needs the file
            self.error = error
            if file is not None:
                file.close()
                self._remove_partial()

    def _remove_partial(self) -> None:
        try:
            self._disk.remove(self.path)
        except Exception:  # the error that is already kept says more
            return
