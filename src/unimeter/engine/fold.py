"""Kernel: folding many cells into few numbers, for queries.

`Tallies` adds up the combination cells of buckets by group: a filter or a
`group_by` maps each combination to a group, once, and the kernel walks chains of
cells with that map. `MemberSet` unites sets of members: within one billing period
the last operation of a member decides, and what is present at the end of any
period of a window is counted once.

    tallies   9 words a group   as the accumulator of `Totals.merge`
    members   4 words a row     member | timestamp | offset << 1 | removed |
                                period it was last touched in << 32, window it was counted in

Both read the tables and change nothing in them. They live for one query.

Doing this in Python costs 2 microseconds a cell or member, on the thread that
counts; a year of a metric with a hundred combinations, or a month of a hundred
thousand members, would stand in the way of ingest for longer than a batch takes.
"""

from __future__ import annotations

import cython
from cython.cimports.unimeter.engine.hashing import M64, spread
from cython.cimports.unimeter.engine.tables import Index
from cython.cimports.unimeter.engine.totals import Totals, to_signed

from unimeter.engine.memory import Words

_LOW32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
_ROOM = 256  # members made room for at a time
NOT_CHOSEN = -1


@cython.boundscheck(False)
@cython.wraparound(False)
def chains(
    totals: Totals,
    series: cython.Py_ssize_t,
    start: cython.ulonglong,
    end: cython.ulonglong,
    step: cython.ulonglong,
) -> list[int]:
    """Links of what hangs below the buckets that start in [start, end), as `merge_buckets` goes."""
    links: list[int] = []
    row: cython.Py_ssize_t
    at: cython.ulonglong = start
    if step and (end - start) // step < totals.series[5 * series + 4]:
        while at < end:
            row = totals.find_cell(series, 0, at, False)
            if row >= 0:
                links.append(totals.cells[12 * row + 10] & _LOW32)
            at += step
        return links
    row = cython.cast(cython.Py_ssize_t, totals.series[5 * series + 2] & _LOW32) - 1
    while row >= 0:
        at = totals.cells[12 * row + 1]
        if start <= at and at < end:
            links.append(totals.cells[12 * row + 10] & _LOW32)
        row = cython.cast(cython.Py_ssize_t, totals.cells[12 * row + 11] >> 32) - 1
    return links


@cython.final
@cython.cclass
class Tallies:
    """Aggregations by group number, from 0."""

    def __init__(self) -> None:
        self.count = 0
        self.words = Words(9 * 16)
        self.acc = self.words.view

    def take_chain(self, totals: Totals, link: int, groups: dict[int, int]) -> int:
        """Add the cells from `link` (row + 1) on to the groups of their combinations.

        Returns 0 at the chain's end, or the link of a cell whose combination is
        not in `groups`: put it there and call again from that link.
        """
        row: cython.Py_ssize_t = link - 1
        group: object
        while row >= 0:
            group = groups.get(totals.cells[12 * row] >> 32)
            if group is None:
                return row + 1
            if group >= 0:
                self.reach(group + 1)
                self.merge(totals.cells, 12 * row, 9 * cython.cast(cython.Py_ssize_t, group))
            row = cython.cast(cython.Py_ssize_t, totals.cells[12 * row + 10] >> 32) - 1
        return 0

    def reach(self, count: int) -> None:
        """Have at least `count` groups."""
        if count > self.count:
            if 9 * count > self.acc.shape[0]:
                self.acc = None
                self.words.grow(18 * count)
                self.acc = self.words.view
            self.count = count

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def merge(
        self, cells: cython.ulonglong[::1], at: cython.Py_ssize_t, to: cython.Py_ssize_t
    ) -> None:
        """Add the cell at word `at` to the accumulator at word `to`."""
        low: cython.ulonglong
        carry: cython.ulonglong
        if cells[at + 8] == 0:
            return
        low = (self.acc[to] + cells[at + 2]) & M64
        carry = 1 if low < cells[at + 2] else 0
        self.acc[to] = low
        self.acc[to + 1] = (self.acc[to + 1] + cells[at + 3] + carry) & M64
        self.acc[to + 2] += cells[at + 4]
        if self.acc[to + 8] == 0 or to_signed(cells[at + 5]) < to_signed(self.acc[to + 3]):
            self.acc[to + 3] = cells[at + 5]
        if self.acc[to + 8] == 0 or to_signed(cells[at + 6]) > to_signed(self.acc[to + 4]):
            self.acc[to + 4] = cells[at + 6]
        if cells[at + 8] > self.acc[to + 6] or (
            cells[at + 8] == self.acc[to + 6] and cells[at + 9] > self.acc[to + 7]
        ):
            self.acc[to + 5] = cells[at + 7]
            self.acc[to + 6] = cells[at + 8]
            self.acc[to + 7] = cells[at + 9]
        self.acc[to + 8] += 1

    def values(self, group: int) -> tuple[int, ...]:
        """sum, count, min, max, last, its timestamp and offset; zeros if nothing came."""
        at: int = 9 * group
        a = self.acc
        low: object = int(a[at])
        high: object = int(to_signed(a[at + 1]))
        return (
            (high << 64) + low,
            a[at + 2],
            to_signed(a[at + 3]),
            to_signed(a[at + 4]),
            to_signed(a[at + 5]),
            a[at + 6],
            a[at + 7],
        )


@cython.final
@cython.cclass
class MemberSet:
    """The members present, period by period, and how many were in any of a window's."""

    def __init__(self) -> None:
        self.count = 0
        self.found = 0
        self.period = 0
        self.window = 0
        self.index = Index()
        self.words = Words(4 * 512)
        self.rows = self.words.view

    def start_period(self) -> None:
        """Forget who is present: every period of a metric that is not recurring starts empty."""
        self.period += 1

    def start_window(self) -> None:
        """Start counting from zero; who is present stays."""
        self.window += 1
        self.found = 0

    def take_chain(self, totals: Totals, link: int) -> None:
        """Let the members from `link` (row + 1) on join or leave."""
        row: cython.Py_ssize_t = link - 1
        room: cython.Py_ssize_t = 0
        while row >= 0:
            if room == 0:
                room = _ROOM
                self.make_room()
            room -= 1
            self.take(
                totals.members[4 * row], totals.members[4 * row + 1], totals.members[4 * row + 2]
            )
            row = cython.cast(cython.Py_ssize_t, totals.members[4 * row + 3] >> 32) - 1

    def make_room(self) -> None:
        self.index.reserve(_ROOM)
        if 4 * (self.count + _ROOM) > self.rows.shape[0]:
            self.rows = None
            self.words.grow(4 * (self.count + _ROOM) * 3 // 2)
            self.rows = self.words.view

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def take(self, member: cython.ulonglong, ts: cython.ulonglong, state: cython.ulonglong) -> None:
        """One operation; within a period the latest by timestamp, then log order, holds."""
        tag: cython.ulonglong = spread(member, 0) >> 32
        row: cython.Py_ssize_t = self.index.first(tag)
        at: cython.Py_ssize_t
        while row >= 0 and self.rows[4 * row] != member:
            row = self.index.following(tag)
        if row < 0:
            row = self.count
            self.index.insert(tag, row)
            self.count += 1
            self.rows[4 * row] = member
            self.rows[4 * row + 3] = 0
            at = 4 * row
        else:
            at = 4 * row
            if (self.rows[at + 3] >> 32) == self.period and (
                self.rows[at + 1] > ts or (self.rows[at + 1] == ts and self.rows[at + 2] > state)
            ):
                return
        self.rows[at + 1] = ts
        self.rows[at + 2] = state
        self.rows[at + 3] = (self.rows[at + 3] & _LOW32) | (self.period << 32)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def end_period(self) -> None:
        """Count those present now who were not counted in this window yet."""
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t
        for i in range(self.count):
            at = 4 * i
            if (
                (self.rows[at + 2] & 1) == 0
                and (self.rows[at + 3] >> 32) == self.period
                and (self.rows[at + 3] & _LOW32) != self.window
            ):
                self.rows[at + 3] = (self.period << 32) | self.window
                self.found += 1

    def present(self) -> list[int]:
        """The members present now, ascending."""
        members = []
        for i in range(self.count):
            if (self.rows[4 * i + 2] & 1) == 0 and (self.rows[4 * i + 3] >> 32) == self.period:
                members.append(to_signed(self.rows[4 * i]))
        return sorted(members)
