"""Large zeroed arrays of 64-bit words that cost nothing until touched.

Tables grow by asking for a new private anonymous mapping (zero pages, given
back page by page with `release`), arrays that only append grow in place with
`mremap`, so growth never copies and never stops ingest for long. Private on
purpose: Python's default is a shared mapping, which a forked snapshot writer
would see changing under it.
"""

from __future__ import annotations

import mmap
import sys

WORD = 8
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
