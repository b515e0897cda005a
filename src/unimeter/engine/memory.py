"""Large zeroed arrays of 64-bit words that cost nothing until touched.

Tables grow by asking for a new private anonymous mapping (zero pages, given
back page by page with `release`), arrays that only append grow in place with
`mremap`, so growth never copies and never stops ingest for long. Private on
purpose: Python's default is a shared mapping, which a forked snapshot writer
would see changing under it.
"""

from __future__ import annotations

import contextlib
import mmap
import sys

WORD = 8
_POPULATE_WRITE = 23  # Linux 5.14; where it is refused the pages come one by one
_PAGE_WORDS = mmap.PAGESIZE // WORD


class Words:
    """A growable array of u64 words; `view` is a writable memoryview of all of it."""

    def __init__(self, words: int) -> None:
        self._map: mmap.mmap | bytearray = _allocate(words * WORD)
        self.view = memoryview(self._map).cast("Q")

    def grow(self, words: int) -> None:
        """Make room for `words` in all. Every other view must have been dropped."""
        self.view.release()
        size = -(-words * WORD // mmap.PAGESIZE) * mmap.PAGESIZE
        if isinstance(self._map, mmap.mmap) and sys.platform.startswith("linux"):
            self._map.resize(size)
        else:
            larger = _allocate(size)
            larger[: len(self._map)] = self._map[:]
            self._map = larger
        self.view = memoryview(self._map).cast("Q")

    def populate(self, start: int, end: int) -> None:
        """Back the pages of words [start, end) now, in one call instead of two faults a page."""
        first = start * WORD // mmap.PAGESIZE * mmap.PAGESIZE
        last = min(-(-end * WORD // mmap.PAGESIZE) * mmap.PAGESIZE, len(self._map))
        if last > first and isinstance(self._map, mmap.mmap):
            with contextlib.suppress(OSError):
                self._map.madvise(_POPULATE_WRITE, first, last - first)

    def give_back(self, start: int, end: int) -> None:
        """Let the system take the whole pages inside words [start, end)."""
        first = -(-start // _PAGE_WORDS) * mmap.PAGESIZE
        length = end * WORD // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, length)


def _allocate(size: int) -> mmap.mmap | bytearray:
    if size < mmap.PAGESIZE or not hasattr(mmap, "MAP_PRIVATE"):
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
