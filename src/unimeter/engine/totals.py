"""Kernel: the totals. Series, cells and members, and how one event changes them.

    series   one per account and metric     5 words
    cell     one per series and bucket      12 words
    member   one per cell and member        4 words (COUNT_UNIQUE only)

        series --head--> newest bucket cell --next--> older bucket cells
        bucket cell --chain--> combination cells (metrics with dimensions)
        cell --chain--> members (COUNT_UNIQUE)

A cell's kind is in its combination field: 0 the bucket's total, 1... one
combination of dimension values, PERIOD the billing period's total where that
is not the bucket itself, ALL the members carried along by a recurring metric.
Rows are appended and never move or go, so a row number is a pointer that a
snapshot may copy. Each kind of row has an `Index`.

Nothing here decides whether an event counts; `count.py` does, and then calls
`bucket`, `add`, `join`.
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import M64, spread
from cython.cimports.unimeter.engine.tables import Index

from unimeter.engine.memory import Words

# Layout, in words from a row's first. Written as numbers below because a module
# constant would be a variable to the C compiler, and this is the innermost loop.
#
#   series (5)   0 account: the integer, or the number of an interned string
#                1 metric number | 1 << 32 for a string account
#                2 newest bucket cell + 1 | period cell last used + 1 << 32
#                3 older series of the metric + 1 | ALL cell + 1 << 32
#                4 number of bucket cells
#   cell (12)    0 series | combination << 32        1 start, ns
#                2 3 sum, 128 bits, low word first   4 count (COUNT_UNIQUE: members present)
#                5 min   6 max   7 last value   8 its timestamp (0: empty)   9 its offset
#               10 first below + 1 | next sibling + 1 << 32
#               11 threshold flags | next older bucket + 1 << 32
#   member (4)   0 member   1 timestamp   2 offset << 1 | removed
#                3 cell | next member of the cell + 1 << 32

PERIOD = cython.declare(cython.ulonglong, 0xFFFFFFFF)
ALL = cython.declare(cython.ulonglong, 0xFFFFFFFE)
STRING = cython.declare(cython.ulonglong, 0x100000000)
_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)

ACC_WORDS = 9  # sum low, sum high, count, min, max, last, last ts, last offset, cells merged


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def to_signed(word: cython.ulonglong) -> cython.longlong:
    """A word read as a signed number."""
    return cython.cast(cython.longlong, word)


@cython.final
@cython.cclass
class Totals:
    """The three arrays and their indexes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.series_index = Index()
        self.cell_index = Index()
        self.member_index = Index()
        self.series_count = 0
        self.cell_count = 0
        self.member_count = 0
        self.series_words = Words(512)
        self.series = self.series_words.view
        self.cell_words = Words(512)
        self.cells = self.cell_words.view
        self.member_words = Words(512)
        self.members = self.member_words.view

    # --- room ------------------------------------------------------------------
    def reserve(self, series: int, cells: int, members: int) -> None:
        """Make room for so many more rows; to be called before the GIL is released."""
        self.series_index.reserve(series)
        self.cell_index.reserve(cells)
        need: int = (self.series_count + series) * 5
        if need > self.series.shape[0]:
            self.series = None
            self.series_words.grow(need * 5 // 4)
            self.series = self.series_words.view
        need = (self.cell_count + cells) * 12
        if need > self.cells.shape[0]:
            self.cells = None
            self.cell_words.grow(need * 5 // 4)
            self.cells = self.cell_words.view
        if members:
            self.member_index.reserve(members)
            need = (self.member_count + members) * 4
            if need > self.members.shape[0]:
                self.members = None
                self.member_words.grow(need * 5 // 4)
                self.members = self.member_words.view

    # --- bringing rows into the cache ------------------------------------------------
    def series_tag(self, account: cython.ulonglong, metric: cython.ulonglong) -> cython.ulonglong:
        return spread(account ^ self.seed, metric) >> 32

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def touch_series(self, slot: cython.ulonglong) -> None:
        """Bring the series that a slot of the index names, if any, into the cache."""
        row: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, slot & _LOW32)
        if cython.compiled:
            if row:
                unimeter_prefetch(cython.address(self.series[5 * row - 5]))  # noqa: F821

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def touch_cell(self, series: cython.Py_ssize_t) -> None:
        """Bring both cache lines of a series' newest cell into the cache."""
        row: cython.Py_ssize_t
        if cython.compiled:
            row = cython.cast(cython.Py_ssize_t, self.series[5 * series + 2] & _LOW32)
            if row:
                unimeter_prefetch(cython.address(self.cells[12 * row - 12]))  # noqa: F821
                unimeter_prefetch(cython.address(self.cells[12 * row - 1]))  # noqa: F821

    # --- rows, found or made -----------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find_series(
        self, account: cython.ulonglong, metric: cython.ulonglong, make: cython.bint
    ) -> cython.Py_ssize_t:
        """The series' row, or -1 (made if asked for). `metric` carries the STRING bit."""
        tag: cython.ulonglong = self.series_tag(account, metric)
        row: cython.Py_ssize_t = self.series_index.first(tag)
        at: cython.Py_ssize_t
        while row >= 0:
            at = row * 5
            if self.series[at] == account and self.series[at + 1] == metric:
                return row
            row = self.series_index.following(tag)
        if not make:
            return -1
        row = self.series_count
        self.series_index.insert(tag, row)
        at = row * 5
        self.series[at] = account
        self.series[at + 1] = metric
        self.series_count += 1
        return row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def find_cell(
        self,
        series: cython.Py_ssize_t,
        combination: cython.ulonglong,
        start: cython.ulonglong,
        make: cython.bint,
    ) -> cython.Py_ssize_t:
        """The cell's row, or -1 (made, in no list yet, if asked for)."""
        key: cython.ulonglong = cython.cast(cython.ulonglong, series) | (combination << 32)
        tag: cython.ulonglong = spread(key ^ self.seed, start) >> 32
        row: cython.Py_ssize_t = self.cell_index.first(tag)
        at: cython.Py_ssize_t
        while row >= 0:
            at = row * 12
            if self.cells[at] == key and self.cells[at + 1] == start:
                return row
            row = self.cell_index.following(tag)
        if not make:
            return -1
        row = self.cell_count
        self.cell_index.insert(tag, row)
        at = row * 12
        self.cells[at] = key
        self.cells[at + 1] = start
        self.cell_count += 1
        return row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def bucket(self, series: cython.Py_ssize_t, start: cython.ulonglong) -> cython.Py_ssize_t:
        """The series' bucket cell that starts at `start`, made and listed if new."""
        at: cython.Py_ssize_t = series * 5
        head: cython.ulonglong = self.series[at + 2] & _LOW32
        row: cython.Py_ssize_t
        count: cython.Py_ssize_t
        if head:
            row = cython.cast(cython.Py_ssize_t, head) - 1
            if self.cells[row * 12 + 1] == start:
                return row
        count = self.cell_count
        row = self.find_cell(series, 0, start, True)
        if row == count:
            # New: it becomes the head; the old head hangs below it.
            self.cells[row * 12 + 11] = head << 32
            self.series[at + 2] = (self.series[at + 2] & (_LOW32 << 32)) | (
                cython.cast(cython.ulonglong, row + 1)
            )
            self.series[at + 4] += 1
        return row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def period(self, series: cython.Py_ssize_t, start: cython.ulonglong) -> cython.Py_ssize_t:
        """The series' period cell that starts at `start`, made if new."""
        at: cython.Py_ssize_t = series * 5 + 2
        last: cython.ulonglong = self.series[at] >> 32
        row: cython.Py_ssize_t
        if last:
            row = cython.cast(cython.Py_ssize_t, last) - 1
            if self.cells[row * 12 + 1] == start:
                return row
        row = self.find_cell(series, PERIOD, start, True)
        self.series[at] = (self.series[at] & _LOW32) | (
            cython.cast(cython.ulonglong, row + 1) << 32
        )
        return row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def all_time(self, series: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The series' ALL cell, made if new."""
        at: cython.Py_ssize_t = series * 5 + 3
        last: cython.ulonglong = self.series[at] >> 32
        row: cython.Py_ssize_t
        if last:
            return cython.cast(cython.Py_ssize_t, last) - 1
        row = self.find_cell(series, ALL, 0, True)
        self.series[at] = (self.series[at] & _LOW32) | (
            cython.cast(cython.ulonglong, row + 1) << 32
        )
        return row

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def combination(
        self, bucket: cython.Py_ssize_t, combination: cython.ulonglong
    ) -> cython.Py_ssize_t:
        """The cell of one combination in a bucket, made and chained if new."""
        at: cython.Py_ssize_t = bucket * 12
        count: cython.Py_ssize_t = self.cell_count
        row: cython.Py_ssize_t = self.find_cell(
            cython.cast(cython.Py_ssize_t, self.cells[at] & _LOW32),
            combination,
            self.cells[at + 1],
            True,
        )
        if row == count:
            self.cells[row * 12 + 10] = (self.cells[at + 10] & _LOW32) << 32
            self.cells[at + 10] = (self.cells[at + 10] & (_LOW32 << 32)) | (
                cython.cast(cython.ulonglong, row + 1)
            )
        return row

    # --- one event ---------------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(
        self,
        cell: cython.Py_ssize_t,
        value: cython.ulonglong,
        ts: cython.ulonglong,
        offset: cython.ulonglong,
    ) -> None:
        """Count one event in one cell: every aggregation at once."""
        at: cython.Py_ssize_t = cell * 12
        low: cython.ulonglong = (self.cells[at + 2] + value) & M64
        carry: cython.ulonglong = 1 if low < value else 0
        if value >> 63:
            carry = (carry + M64) & M64  # sign extension of a negative value
        self.cells[at + 2] = low
        self.cells[at + 3] = (self.cells[at + 3] + carry) & M64
        if self.cells[at + 8] == 0:
            self.cells[at + 5] = value
            self.cells[at + 6] = value
        else:
            if to_signed(value) < to_signed(self.cells[at + 5]):
                self.cells[at + 5] = value
            if to_signed(value) > to_signed(self.cells[at + 6]):
                self.cells[at + 6] = value
        self.cells[at + 4] += 1
        if ts >= self.cells[at + 8]:
            self.cells[at + 7] = value
            self.cells[at + 8] = ts
            self.cells[at + 9] = offset

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def join(
        self,
        cell: cython.Py_ssize_t,
        member: cython.ulonglong,
        ts: cython.ulonglong,
        offset: cython.ulonglong,
        removed: cython.ulonglong,
    ) -> None:
        """Let a member join or leave a cell's set; the latest by timestamp, then log, holds."""
        at: cython.Py_ssize_t = cell * 12
        row: cython.Py_ssize_t
        m: cython.Py_ssize_t
        key: cython.ulonglong = cython.cast(cython.ulonglong, cell)
        tag: cython.ulonglong = spread(member ^ self.seed, key) >> 32
        if ts >= self.cells[at + 8]:
            self.cells[at + 7] = member
            self.cells[at + 8] = ts
            self.cells[at + 9] = offset
        row = self.member_index.first(tag)
        while row >= 0:
            m = row * 4
            if self.members[m] == member and (self.members[m + 3] & _LOW32) == key:
                if ts < self.members[m + 1]:
                    return
                if (self.members[m + 2] & 1) != removed:
                    if removed:
                        self.cells[at + 4] -= 1
                    else:
                        self.cells[at + 4] += 1
                self.members[m + 1] = ts
                self.members[m + 2] = (offset << 1) | removed
                return
            row = self.member_index.following(tag)
        row = self.member_count
        self.member_index.insert(tag, row)
        self.member_count += 1
        m = row * 4
        self.members[m] = member
        self.members[m + 1] = ts
        self.members[m + 2] = (offset << 1) | removed
        self.members[m + 3] = key | ((self.cells[at + 10] & _LOW32) << 32)
        self.cells[at + 10] = (self.cells[at + 10] & (_LOW32 << 32)) | (
            cython.cast(cython.ulonglong, row + 1)
        )
        if not removed:
            self.cells[at + 4] += 1

    # --- reading -------------------------------------------------------------------
    @cython.boundscheck(False)
    @cython.wraparound(False)
    def merge(self, cell: cython.Py_ssize_t, acc: cython.ulonglong[::1]) -> None:
        """Add a cell to an accumulator of ACC_WORDS words. Not for COUNT_UNIQUE."""
        at: cython.Py_ssize_t = cell * 12
        low: cython.ulonglong
        carry: cython.ulonglong
        if self.cells[at + 8] == 0:
            return
        low = (acc[0] + self.cells[at + 2]) & M64
        carry = 1 if low < acc[0] else 0
        acc[0] = low
        acc[1] = (acc[1] + self.cells[at + 3] + carry) & M64
        if acc[8] == 0 or to_signed(self.cells[at + 5]) < to_signed(acc[3]):
            acc[3] = self.cells[at + 5]
        if acc[8] == 0 or to_signed(self.cells[at + 6]) > to_signed(acc[4]):
            acc[4] = self.cells[at + 6]
        acc[2] += self.cells[at + 4]
        # Equal timestamps in two combinations of one bucket: the later offset is LATEST.
        if self.cells[at + 8] > acc[6] or (
            self.cells[at + 8] == acc[6] and self.cells[at + 9] > acc[7]
        ):
            acc[5] = self.cells[at + 7]
            acc[6] = self.cells[at + 8]
            acc[7] = self.cells[at + 9]
        acc[8] += 1

    def series_row(self, account: int, metric: int) -> int:
        """The row of a series, or -1. `metric` carries the STRING bit."""
        return self.find_series(account, metric, False)

    def cell_row(self, series: int, combination: int, start: int) -> int:
        """The row of a cell, or -1."""
        return self.find_cell(series, combination, start, False)

    def merge_cell(self, cell: int, acc: cython.ulonglong[::1]) -> None:
        """`merge`, for Python callers."""
        self.merge(cell, acc)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def merge_buckets(
        self,
        series: cython.Py_ssize_t,
        start: cython.ulonglong,
        end: cython.ulonglong,
        step: cython.ulonglong,
        acc: cython.ulonglong[::1],
    ) -> None:
        """Merge the bucket cells with `start` <= their start < `end`.

        With `step` (ns, buckets of one length) and fewer steps in the range than
        buckets in the series each is looked up; otherwise the list is walked.
        """
        at: cython.Py_ssize_t = series * 5
        row: cython.Py_ssize_t
        link: cython.ulonglong
        begin: cython.ulonglong = start
        if step and (end - start) // step < self.series[at + 4]:
            while begin < end:
                row = self.find_cell(series, 0, begin, False)
                if row >= 0:
                    self.merge(row, acc)
                begin += step
            return
        link = self.series[at + 2] & _LOW32
        while link:
            row = cython.cast(cython.Py_ssize_t, link) - 1
            begin = self.cells[row * 12 + 1]
            if start <= begin and begin < end:
                self.merge(row, acc)
            link = self.cells[row * 12 + 11] >> 32

    def series_at(self, row: int) -> tuple[int, ...]:
        """account, metric | STRING, head + 1, period + 1, next + 1, ALL + 1, buckets."""
        at: int = row * 5
        s = self.series
        return (
            s[at],
            s[at + 1],
            s[at + 2] & 0xFFFFFFFF,
            s[at + 2] >> 32,
            s[at + 3] & 0xFFFFFFFF,
            s[at + 3] >> 32,
            s[at + 4],
        )

    def cell_at(self, row: int) -> tuple[int, ...]:
        """series, combination, start, sum, count, min, max, last, last ts, last offset,
        chain + 1, sibling + 1, flags, next bucket + 1; signed where values are."""
        at: int = row * 12
        c = self.cells
        low: object = int(c[at + 2])
        high: object = int(to_signed(c[at + 3]))
        return (
            c[at] & 0xFFFFFFFF,
            c[at] >> 32,
            c[at + 1],
            (high << 64) + low,
            c[at + 4],
            to_signed(c[at + 5]),
            to_signed(c[at + 6]),
            to_signed(c[at + 7]),
            c[at + 8],
            c[at + 9],
            c[at + 10] & 0xFFFFFFFF,
            c[at + 10] >> 32,
            c[at + 11] & 0xFFFFFFFF,
            c[at + 11] >> 32,
        )

    def member_at(self, row: int) -> tuple[int, int, int, bool, int, int]:
        """member, timestamp, offset, removed, cell, next of the cell + 1."""
        at: int = row * 4
        m = self.members
        return (
            to_signed(m[at]),
            m[at + 1],
            m[at + 2] >> 1,
            bool(m[at + 2] & 1),
            m[at + 3] & 0xFFFFFFFF,
            m[at + 3] >> 32,
        )

    def link_series(self, row: int, older: int) -> None:
        """Hang a new series before `older` (row + 1, 0 = none) in its metric's list."""
        at: int = row * 5 + 3
        self.series[at] = (self.series[at] & (_LOW32 << 32)) | older

    def set_flags(self, cell: int, flags: int) -> None:
        """Set the threshold flags of a cell."""
        at: int = cell * 12 + 11
        self.cells[at] = (self.cells[at] & (_LOW32 << 32)) | flags

    def build_period(self, series: int, bucket: int, start: int) -> None:
        """Add a bucket to the period cell that starts at `start` (a metric got thresholds)."""
        acc: cython.ulonglong[::1] = memoryview(bytearray(72)).cast("Q")
        row: int = self.period(series, start)
        self.merge(row, acc)
        self.merge(bucket, acc)
        at: int = row * 12
        i: int
        for i in range(2):
            self.cells[at + 2 + i] = acc[i]
        self.cells[at + 4] = acc[2]
        for i in range(5):
            self.cells[at + 5 + i] = acc[3 + i]

    # --- snapshot --------------------------------------------------------------------
    def dump(self) -> list[object]:
        """The whole state as buffers, for a snapshot."""
        head = [self.seed, self.series_count, self.cell_count, self.member_count]
        return [
            b"".join(int(v).to_bytes(8, "little") for v in head),
            self.series_words.view[: self.series_count * 5],
            self.cell_words.view[: self.cell_count * 12],
            self.member_words.view[: self.member_count * 4],
            *self.series_index.dump(),
            *self.cell_index.dump(),
            *self.member_index.dump(),
        ]

    def load(self, source: object) -> None:
        """Take the state that `dump` gave."""
        self.seed, self.series_count, self.cell_count, self.member_count = source.words(4)
        self.series_words = source.array(self.series_count * 5, 512)
        self.series = self.series_words.view
        self.cell_words = source.array(self.cell_count * 12, 512)
        self.cells = self.cell_words.view
        self.member_words = source.array(self.member_count * 4, 512)
        self.members = self.member_words.view
        self.series_index.load(source)
        self.cell_index.load(source)
        self.member_index.load(source)

    def nbytes(self) -> tuple[int, int]:
        """Bytes used by series and cells with their indexes, and by members with theirs."""
        cells = self.series_count * 40 + self.cell_count * 96
        cells += self.series_index.nbytes() + self.cell_index.nbytes()
        return cells, self.member_count * 32 + self.member_index.nbytes()

    def check_invariants(self) -> None:
        """Indexes hold as many rows as the arrays."""
        for index in (self.series_index, self.cell_index, self.member_index):
            index.check_invariants()
        assert self.series_index.count == self.series_count, "a series is not indexed once"
        assert self.cell_index.count == self.cell_count, "a cell is not indexed once"
        assert self.member_index.count == self.member_count, "a member is not indexed once"
