"""Reading the tables for a query: series, buckets, and the cells that hang below them.

Owns the way from an account, a metric and a range to the cells that answer for it,
while the machine stands still. `query` says what is asked, `answers` adds up,
`fold` does the adding where cells are many; this module finds them, and finds
out which cut buckets need no stored event after all.

    series --> buckets in the range --whole--> added up
                        └── cut --> empty, or all inside, or an edge for the store

It refuses to change anything. The machine is any object with `counter`, `catalog`
and `applied`: reading does not import what it reads.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from unimeter.engine.answers import COUNT_UNIQUE, Chooser, Group, Reading
from unimeter.engine.catalog import Metric
from unimeter.engine.fold import MemberSet, Tallies, chains
from unimeter.errors import InvalidInputError
from unimeter.limits import COMBINATION_TEXTS_MAX, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import Calendar
from unimeter.types import Account, AggValue

Window = tuple[int, int]

STRING = 1 << 32  # in a series' metric word: the account is the number of a string
PERIOD = 0xFFFFFFFF  # a cell's combination: the billing period's total
ACCOUNT_MAX = 2**64 - 1
ACCUMULATOR = struct.Struct("<QqQqqqQQQ")  # as Totals.merge fills it
ZEROS = bytes(ACCUMULATOR.size)


# --- finding things -------------------------------------------------------------


def clamp(start_ns: int, end_ns: int) -> Window:
    """The part of the range where events can be; InvalidInputError if it is no range."""
    if end_ns <= start_ns:
        raise InvalidInputError(
            f"the range ends at {end_ns} ns, not after its start at {start_ns} ns; "
            "ranges are [start, end)"
        )
    low = min(max(start_ns, TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
    return low, max(min(end_ns, TIMESTAMP_NS_MAX), low + 1)


def is_outside(start_ns: int, end_ns: int) -> bool:
    """Whether no event can lie in the range, which `clamp` would move to where some can."""
    return end_ns <= TIMESTAMP_NS_MIN or start_ns >= TIMESTAMP_NS_MAX


def series_of(machine: Any, account: Account, metric: Metric) -> int:
    """The row of the series, or -1 if nothing of the account was counted."""
    counter = machine.counter
    if isinstance(account, str):
        number = counter.accounts.number(account.encode("utf-8", "surrogatepass"))
        if number == 0:
            return -1
        return int(counter.totals.series_row(number, metric.number | STRING))
    if not 0 <= account <= ACCOUNT_MAX:
        raise InvalidInputError(f"account {account} does not fit an unsigned 64-bit integer")
    return int(counter.totals.series_row(account, metric.number))


def account_of(machine: Any, account: int, metric_word: int) -> Account:
    if metric_word & STRING:
        return bytes(machine.counter.accounts.text(account)).decode()
    return account


def texts_of(machine: Any, metric: Metric) -> Callable[[int], tuple[str, ...]]:
    """A function from a combination's number to the values of the metric's dimensions."""
    counter = machine.counter
    known = metric.combination_texts

    def texts(number: int) -> tuple[str, ...]:
        found = known.get(number)
        if found is None:
            words = memoryview(counter.combinations.text(number)).cast("I")
            assert len(words) == 1 + len(metric.dimensions), "a combination has a value per key"
            found = tuple(
                bytes(counter.values.text(value)).decode() if value else "" for value in words[1:]
            )
            if len(known) < COMBINATION_TEXTS_MAX:
                known[number] = found
        return found

    return texts


def flags_of(machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int) -> int:
    """Bit i: threshold i fired in a billing period that shares an instant with the range."""
    if not metric.thresholds or series < 0:
        return 0
    totals = machine.counter.totals
    combination = period_combination(metric)
    bits = 0
    for first in _periods_used(machine, metric, series, start_ns, end_ns):
        row = totals.cell_row(series, combination, first)
        if row >= 0:
            bits |= totals.cell_at(row)[12] & 0xFF
    return bits


def period_combination(metric: Metric) -> int:
    """What marks the cells that hold a billing period's total.

    The bucket itself where it is the period, but not where it only hangs its
    combinations together, as the members of a metric with dimensions do.
    """
    is_hanger = metric.agg == COUNT_UNIQUE and bool(metric.dimensions)
    return 0 if metric.buckets_are_periods and not is_hanger else PERIOD


def _periods_used(
    machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int
) -> Iterable[int]:
    """Starts of the range's periods: all of them, or those with buckets if these are fewer."""
    buckets = machine.counter.totals.series_at(series)[6]
    starts = []
    for first, _ in metric.period.periods(start_ns, end_ns):
        starts.append(first)
        if len(starts) > buckets:
            break
    else:
        return starts
    first, after = metric.period.bounds(start_ns)[0], metric.period.bounds(end_ns - 1)[1]
    cells = buckets_of(machine, metric, series, first, after)
    return sorted({metric.period.bounds(cell[2])[0] for cell in cells})


# --- reading cells ----------------------------------------------------------------

Cell = tuple[int, ...]
"""totals.cell_at: series, combination, start, sum, count, min, max, last, last timestamp,
last offset, chain + 1, sibling + 1, flags, next bucket + 1."""


def buckets_of(
    machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int
) -> Iterator[Cell]:
    """The series' bucket cells that start in the range, in no order."""
    totals = machine.counter.totals
    head = totals.series_at(series)
    starts = metric.bucket.starts(start_ns, end_ns)
    if len(starts) < head[6]:
        for start in starts:
            row = totals.cell_row(series, 0, start)
            if row >= 0:
                yield totals.cell_at(row)
        return
    link = head[2]
    while link:
        cell = totals.cell_at(link - 1)
        if start_ns <= cell[2] < end_ns:
            yield cell
        link = cell[13]


def step_of(calendar: Calendar) -> int:
    return 0 if calendar.arithmetic is None else calendar.arithmetic[1]


def pieces_of(bucket: Calendar, start_ns: int, end_ns: int) -> tuple[Window, list[Window]]:
    """The whole buckets of a range, and the pieces of it that cut one."""
    first, last = bucket.inner(start_ns, end_ns)
    if first > last:
        return (start_ns, start_ns), [(start_ns, end_ns)]
    pieces = [(start_ns, first), (last, end_ns)]
    return (first, last), [piece for piece in pieces if piece[0] < piece[1]]


class Cut(enum.Enum):
    """What memory knows of a bucket that a range cuts, besides its row if it is all inside."""

    EMPTY = 0  # no event of it is in the piece
    UNKNOWN = 1  # only the stored events can tell


def settle(machine: Any, metric: Metric, series: int, piece: Window) -> int | Cut:
    """The row of a bucket whose events all lie in the piece after all, or why there is none."""
    totals = machine.counter.totals
    first = metric.bucket.bounds(piece[0])[0]
    row = totals.cell_row(series, 0, first)
    if row < 0:
        return Cut.EMPTY
    newest = totals.cell_at(row)[8]
    if newest < piece[0]:
        return Cut.EMPTY
    starts_inside = first >= piece[0] or piece[0] == TIMESTAMP_NS_MIN  # nothing is older
    return row if starts_inside and newest < piece[1] else Cut.UNKNOWN


def read(
    machine: Any,
    metric: Metric,
    series: int,
    windows: Sequence[Window],
    chooser: Chooser,
    wants_members: bool = False,
) -> Reading:
    """Read one account's cells for windows that are in order and do not overlap."""
    reading = Reading(metric.agg, metric.recurring, metric.period, windows, chooser)
    if series < 0:
        return reading
    if metric.agg == COUNT_UNIQUE:
        cells = _member_cells(machine, metric, series, reading, chooser)
        if reading.edges:
            _collect(machine.counter.totals, reading, cells)
        else:
            for group, chosen in cells.items():
                values, members = _sweep(machine.counter.totals, metric, windows, chosen)
                reading.settle(group, values, members.present() if wants_members else [])
        return reading
    for number, window in enumerate(windows):
        if chooser.is_plain:
            _sum_plain(machine, metric, series, reading, number, window)
        else:
            _sum_chosen(machine, metric, series, reading, number, window, chooser)
    return reading


def _settled(
    machine: Any, metric: Metric, series: int, reading: Reading, pieces: Iterable[Window]
) -> Iterator[int]:
    """Rows of the cut buckets that count whole; the other pieces become edges."""
    for piece in pieces:
        settled = settle(machine, metric, series, piece)
        if settled is Cut.UNKNOWN:
            reading.edges.append(piece)
        elif isinstance(settled, int):
            yield settled


def _sum_plain(
    machine: Any, metric: Metric, series: int, reading: Reading, number: int, window: Window
) -> None:
    """Add all events of a window's whole buckets to its tally."""
    words = bytearray(ZEROS)
    accumulator = memoryview(words).cast("Q")
    totals = machine.counter.totals
    (first, last), pieces = pieces_of(metric.bucket, *window)
    if first < last:
        totals.merge_buckets(series, first, last, step_of(metric.bucket), accumulator)
    for row in _settled(machine, metric, series, reading, pieces):
        totals.merge_cell(row, accumulator)
    low, high, count, least, most, latest, timestamp_ns, offset, _ = ACCUMULATOR.unpack(words)
    if count:
        tally = reading.tally(number, ())
        tally.merge((high << 64) + low, count, least, most, latest, timestamp_ns, offset)


def _sum_chosen(
    machine: Any,
    metric: Metric,
    series: int,
    reading: Reading,
    number: int,
    window: Window,
    chooser: Chooser,
) -> None:
    """Add the combinations of a window's whole buckets to the tallies of their groups."""
    totals = machine.counter.totals
    (first, last), pieces = pieces_of(metric.bucket, *window)
    links = chains(totals, series, first, last, step_of(metric.bucket)) if first < last else []
    rows = _settled(machine, metric, series, reading, pieces)
    links += [totals.cell_at(row)[10] for row in rows]
    tallies = Tallies()
    for link in links:
        while link:
            link = tallies.take_chain(totals, link, chooser.numbers)
            if link:
                chooser.number(totals.cell_at(link - 1)[1])
    for group, values in zip(chooser.groups, map(tallies.values, range(tallies.count))):
        if values[1]:
            reading.tally(number, group).merge(*values)


# --- reading members -----------------------------------------------------------------


def _member_cells(
    machine: Any, metric: Metric, series: int, reading: Reading, chooser: Chooser
) -> dict[Group, list[Cell]]:
    """The cells whose members are in question, by group; pieces of cut ones become edges."""
    totals = machine.counter.totals
    windows = list(reading.windows)
    if metric.recurring:
        # Who is active depends on everything before; the first window's start cuts nothing.
        windows[0] = (TIMESTAMP_NS_MIN, windows[0][1])
    found: dict[Group, list[Cell]] = {}
    for window in windows:
        (first, last), pieces = pieces_of(metric.bucket, *window)
        buckets = list(buckets_of(machine, metric, series, first, last))
        rows = _settled(machine, metric, series, reading, pieces)
        buckets += [totals.cell_at(row) for row in rows]
        for bucket in buckets:
            for cell in _below(totals, bucket) if metric.dimensions else (bucket,):
                group = chooser.of_combination(cell[1]) if metric.dimensions else ()
                if group is not None:
                    found.setdefault(group, []).append(cell)
    return found


def _below(totals: Any, bucket: Cell) -> Iterator[Cell]:
    """The combination cells of a bucket."""
    link = bucket[10]
    while link:
        cell: Cell = totals.cell_at(link - 1)
        yield cell
        link = cell[11]


def _collect(totals: Any, reading: Reading, cells: dict[Group, list[Cell]]) -> None:
    """Copy the operations of all cells: stored events will come between them."""
    for group, chosen in cells.items():
        operations = reading.operations(group)
        for cell in chosen:
            link = cell[10]
            while link:
                member, timestamp_ns, offset, removed, _, link = totals.member_at(link - 1)
                operations.append((timestamp_ns, offset, member, removed))


def _sweep(
    totals: Any, metric: Metric, windows: Sequence[Window], cells: list[Cell]
) -> tuple[list[AggValue], MemberSet]:
    """As `answers.sweep`, from whole cells: one value per window, and the members at the end.

    A bucket lies in one period, so bucket starts stand for the operations' times.
    """
    cells.sort(key=lambda cell: cell[2])
    # A period may start before 2000, where ranges are cut off.
    starts = [max(cell[2], TIMESTAMP_NS_MIN) for cell in cells]
    members = MemberSet()
    position, count = 0, len(cells)
    values = []
    for start_ns, end_ns in windows:
        members.start_window()
        newest = (0, 0, 0)
        while position < count and starts[position] < start_ns:
            newest = max(newest, _newest(cells[position]))
            members.take_chain(totals, cells[position][10])
            position += 1
        if metric.recurring:
            first_end = min(metric.period.bounds(start_ns)[1], end_ns)
            if position == count or starts[position] >= first_end:
                members.end_period()
        while position < count and starts[position] < end_ns:
            period_end = min(metric.period.bounds(starts[position])[1], end_ns)
            if not metric.recurring:
                members.start_period()
            while position < count and starts[position] < period_end:
                newest = max(newest, _newest(cells[position]))
                members.take_chain(totals, cells[position][10])
                position += 1
            members.end_period()
        value = AggValue(count=members.found, unique=members.found)
        if newest[0] >= start_ns:
            value.last_timestamp, _, value.last_value = newest
        values.append(value)
    return values, members


def _newest(cell: Cell) -> tuple[int, int, int]:
    """Timestamp, offset and member of a cell's newest operation."""
    return cell[8], cell[9], cell[7]


# --- without reading members or events -------------------------------------------------


def known_total(
    machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int
) -> AggValue | None:
    """The unfiltered total where memory tells it without looking at members or events."""
    if series < 0:
        return AggValue()
    if metric.agg == COUNT_UNIQUE:
        return _known_members(machine, metric, series, start_ns, end_ns)
    words = bytearray(ZEROS)
    accumulator = memoryview(words).cast("Q")
    totals, bucket = machine.counter.totals, metric.bucket
    if not (bucket.is_start(start_ns) and bucket.is_start(end_ns)):
        (first, last), pieces = pieces_of(bucket, start_ns, end_ns)
        for piece in pieces:
            settled = settle(machine, metric, series, piece)
            if settled is Cut.UNKNOWN:
                return None
            if isinstance(settled, int):
                totals.merge_cell(settled, accumulator)
        start_ns, end_ns = first, last
    if start_ns < end_ns:
        totals.merge_buckets(series, start_ns, end_ns, step_of(bucket), accumulator)
    low, high, count, least, most, last, timestamp_ns, _, _ = ACCUMULATOR.unpack(words)
    return AggValue((high << 64) + low, count, most, last, timestamp_ns, 0, least)


def _known_members(
    machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int
) -> AggValue | None:
    """The number of members where one cell's count says it: ALL, a period or a bucket.

    A cell holds the members after all its events, so it answers a range of one
    period that has all of them.
    """
    totals = machine.counter.totals
    first, after = metric.period.bounds(start_ns)
    if end_ns > after:
        return None
    row: int = -1
    if metric.recurring:
        row = totals.series_at(series)[5] - 1
    elif start_ns == first:
        row = totals.cell_row(series, period_combination(metric), first)
    if row < 0:
        return None
    cell: Cell = totals.cell_at(row)
    if cell[8] >= end_ns:
        return None
    value = AggValue(count=cell[4], unique=cell[4])
    if cell[8] >= start_ns:
        value.last_value, value.last_timestamp = cell[7], cell[8]
    return value
