"""Kernel: which totals have changed since somebody last asked.

Owns one byte for each series (an account's metric) and a list of those that counted an event
since the last `take`. The counting kernel has found the series of every event, so after an
entry one pass over what it left behind is enough: no string is compared and no key is hashed.

    marks   1 watched by name, 2 in the list, 4 taken and not looked at since
    list    named series (each once, so as many as are watched), and up to `any_max` others
            of metrics that somebody watches for all accounts; past that, `missed`

A named series that was taken is not listed again until `arm` says that its total was read:
until then whoever was told of it will read all that happened meanwhile. So a series that
changes all the time costs one line for each time that somebody looks.

It is made when the first watcher comes and dropped with the last: without one nothing here
runs. What it holds is no part of the replicated state, and refuses to know who watches.

Rejected: reading the entry's body again. It would hash every string once more, and could not
tell an event that was counted from a duplicate.
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.count import Counter

from unimeter.engine.memory import Words
from unimeter.limits import METRIC_NUMBERS_MAX


@cython.final
@cython.cclass
class Touched:
    """The series that changed."""

    def __init__(self, any_max: int) -> None:
        self.any_max = any_max
        self.mark_array = bytearray(4096)
        self.marks = memoryview(self.mark_array)
        self.metric_array = bytearray(METRIC_NUMBERS_MAX + 1)
        self.metrics = memoryview(self.metric_array)
        self.metrics_wanted = 0
        self.row_words = Words(any_max + 1024)
        self.rows = self.row_words.view
        self.named = 0
        self.leaving = 0
        self.count = 0
        self.any_count = 0
        self.missed = False

    # --- who is watched ------------------------------------------------------------------
    def watch(self, row: int) -> None:
        """List the series `row` whenever it changes, however much else does."""
        self._room(row + 1)
        assert not self.mark_array[row] & 1, "it was not watched"
        self.mark_array[row] |= 1
        self.named += 1
        if self.any_max + self.named > self.rows.shape[0]:
            self.rows = None
            self.row_words.grow(2 * (self.any_max + self.named))
            self.rows = self.row_words.view

    def unwatch(self, row: int) -> None:
        """The opposite."""
        assert self.mark_array[row] & 1, "it was watched"
        self.mark_array[row] &= 2
        if self.mark_array[row]:
            self.leaving += 1  # it has its place in the list until that is taken
        else:
            self.named -= 1

    def arm(self, row: int) -> None:
        """List a watched series again from its next change on: its total is read now."""
        self.mark_array[row] &= 3

    def want_metric(self, number: int, wanted: bool) -> None:
        """List every account's series of a metric, up to the bound; or no longer."""
        self.metrics_wanted += bool(wanted) - self.metric_array[number]
        self.metric_array[number] = bool(wanted)

    def _room(self, count: int) -> None:
        if count > self.marks.shape[0]:
            self.marks = None
            self.mark_array = self.mark_array + bytearray(count)
            self.marks = memoryview(self.mark_array)

    # --- one entry -----------------------------------------------------------------------
    def note(self, counter: Counter) -> None:
        """Look at the entry that `counter` has just counted."""
        self._room(counter.totals.series_count)
        if counter.n_events > 64:
            with cython.nogil:
                self.look(counter)
        else:
            self.look(counter)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def look(self, counter: Counter) -> None:
        """List the series of its counted events."""
        i: cython.Py_ssize_t
        row: cython.Py_ssize_t
        mark: cython.uchar
        for i in range(counter.n_events):
            if counter.outcomes[i]:
                continue
            row = cython.cast(cython.Py_ssize_t, counter.scratch[8 * i + 7])
            mark = self.marks[row]
            if mark & 6:
                continue
            if not mark & 1:
                if self.metrics_wanted == 0:
                    continue
                if (
                    self.metrics[cython.cast(cython.Py_ssize_t, counter.scratch[8 * i] & 0xFFFF)]
                    == 0
                ):
                    continue
                if self.any_count == self.any_max:
                    self.missed = True
                    continue
                self.any_count += 1
            self.marks[row] = mark | 2
            self.rows[self.count] = cython.cast(cython.ulonglong, row)
            self.count += 1

    def take(self) -> tuple[list[int], bool]:
        """The series listed since the last call, and whether some others were left out."""
        rows = self.row_words.view[: self.count].tolist()
        marks = self.mark_array
        for row in rows:
            marks[row] = 5 if marks[row] & 1 else 0
        missed = bool(self.missed)
        self.named -= self.leaving
        self.leaving = 0
        self.count = 0
        self.any_count = 0
        self.missed = False
        return rows, missed
