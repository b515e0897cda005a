"""Which term the entries of a log have, remembered as runs.

    index   1 ......... 40 | 41 .... 90 |  ?  | 120 .. 130
    term    1              | 3          |     | 7

Owns what is known without reading the disk. Terms never decrease along a log, so an
index between two known ones of the same term has that term too, and a log of a
million entries and three elections is three runs. Refuses to guess: an index in a
gap is unknown, and the log reads that entry and notes it.

Rejected: a term for every index (8 bytes each, and a walk through the whole log at
each start), and reading the entry each time (an append from a leader asks twice).
"""

from __future__ import annotations

from bisect import bisect_left


class Terms:
    """Known runs (first index, last index, term), ascending in all three."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._terms: list[int] = []

    def __len__(self) -> int:
        return len(self._terms)

    def note(self, index: int, term: int) -> None:
        """The entry at `index` has this term."""
        at = bisect_left(self._terms, term)
        if at < len(self._terms) and self._terms[at] == term:
            self._firsts[at] = min(self._firsts[at], index)
            self._lasts[at] = max(self._lasts[at], index)
        else:
            self._firsts.insert(at, index)
            self._lasts.insert(at, index)
            self._terms.insert(at, term)
        is_after = at == 0 or self._lasts[at - 1] < self._firsts[at]
        is_before = at + 1 == len(self._terms) or self._lasts[at] < self._firsts[at + 1]
        assert is_after and is_before, "terms went back"

    def find(self, index: int) -> int | None:
        """The term of the entry at `index`, None where that is not known."""
        at = bisect_left(self._lasts, index)
        if at < len(self._lasts) and self._firsts[at] <= index:
            return self._terms[at]
        return None

    def forget_after(self, index: int) -> None:
        """Entries above `index` are gone from the log."""
        while self._firsts and self._firsts[-1] > index:
            self._firsts.pop(), self._lasts.pop(), self._terms.pop()
        if self._lasts:
            self._lasts[-1] = min(self._lasts[-1], index)

    def forget_before(self, index: int) -> None:
        """Entries below `index` are no longer asked for."""
        at = bisect_left(self._lasts, index)
        del self._firsts[:at], self._lasts[:at], self._terms[:at]
        if self._firsts:
            self._firsts[0] = max(self._firsts[0], index)
