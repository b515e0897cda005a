"""Read-only answers: totals, breakdowns, series, accounts, members, alerts.

    plan = plan_total(machine, account, code, start_ns, end_ns, filters)
    if plan.edges:                      # an edge of the range cuts a bucket
        rows = chain of stored, counted events of every edge   (may run in a thread)
    answer = plan.finish(rows)          # rows = () without edges

Totals are kept in buckets. Whole buckets of a range are read at once, while
the machine stands still; where an edge of the range cuts a bucket, the events
of that piece must come from the store, so the plan lists it. For each edge the
host passes `EventStore.rows(edge.account, edge.metric_code, edge.start_ns,
edge.end_ns, plan.from_index, plan.position)`; anything that has `.offset` and
`.row` (engine.records.EventRow) will do. A plan holds copies, so the machine may
go on applying entries before `finish`, and both answer for `plan.position`.

    range     |-----------------------------|
    buckets  |    |    |    |    |    |    |    |
              edge  whole buckets ...  edge

An edge is not listed where memory already knows: the bucket has no events, all
of them are before the piece, or it starts the piece and its newest event is
before the piece's end. The last is the commonest question of all: from the start
of the month until now.

`alert_flags` tell which thresholds fired in any billing period that shares an
instant with the range; they are the account's, whatever the filters.

It refuses to change anything, and to round a range to buckets.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unimeter.engine.answers import COUNT_UNIQUE, Chooser, Filters, Group, Reading
from unimeter.engine.catalog import Metric
from unimeter.engine.fold import MemberSet, Tallies, chains
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.limits import (
    COMBINATION_TEXTS_MAX,
    PAGE_ITEMS_MAX,
    TIMESTAMP_NS_MAX,
    TIMESTAMP_NS_MIN,
)
from unimeter.periods import Calendar, make_calendar, zone_transitions
from unimeter.types import Account, AccountTotal, AggType, AggValue, PeriodType

T = TypeVar("T")
Window = tuple[int, int]

STRING = 1 << 32  # in a series' metric word: the account is the number of a string
PERIOD = 0xFFFFFFFF  # a cell's combination: the billing period's total
ACCOUNTS_PER_PAGE_MAX = 1_000  # read on the thread that counts: 10 ms of it
ACCOUNT_MAX = 2**64 - 1
_ACCUMULATOR = struct.Struct("<QqQqqqQQQ")
_ZEROS = bytes(_ACCUMULATOR.size)
_WINDOW_KINDS = (PeriodType.HOUR, PeriodType.DAY, PeriodType.WEEK, PeriodType.CALENDAR)


@dataclass(frozen=True, slots=True)
class Edge:
    """A range inside a bucket, to be answered from stored events; account None = of all."""

    account: Account | None
    metric_code: str
    start_ns: int
    end_ns: int


class Plan(Generic[T]):
    """What was read from memory, and what stored events are still needed."""

    __slots__ = ("_finish", "edges", "end_ns", "from_index", "position", "start_ns")

    def __init__(
        self,
        machine: Any,
        metric: Metric,
        start_ns: int,
        end_ns: int,
        edges: list[Edge],
        finish: Callable[[Iterable[Any]], T],
    ) -> None:
        self.position: int = machine.applied  # the log index the answer reflects
        self.from_index = metric.created_index  # earlier ones: a deleted metric of that code
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.edges = edges
        self._finish = finish

    def finish(self, rows: Iterable[Any] = ()) -> T:
        """The answer, from what was read and the edges' events."""
        return self._finish(rows)


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One crossing, as the machine keeps it."""

    position: int
    offset: int
    account: Account
    metric_code: str
    threshold_code: str
    value: int
    timestamp_ns: int
    direction: int
    period_start_ns: int


# --- finding things -------------------------------------------------------------


def _clamp(start_ns: int, end_ns: int) -> Window:
    """The part of the range where events can be; InvalidInputError if it is no range."""
    if end_ns <= start_ns:
        raise InvalidInputError(
            f"the range ends at {end_ns} ns, not after its start at {start_ns} ns; "
            "ranges are [start, end)"
        )
    low = min(max(start_ns, TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
    return low, max(min(end_ns, TIMESTAMP_NS_MAX), low + 1)


def _is_outside(start_ns: int, end_ns: int) -> bool:
    """Whether no event can lie in the range, which `_clamp` would move to where some can."""
    return end_ns <= TIMESTAMP_NS_MIN or start_ns >= TIMESTAMP_NS_MAX


def _series_of(machine: Any, account: Account, metric: Metric) -> int:
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


def _account_of(machine: Any, account: int, metric_word: int) -> Account:
    if metric_word & STRING:
        return bytes(machine.counter.accounts.text(account)).decode()
    return account


def _texts_of(machine: Any, metric: Metric) -> Callable[[int], tuple[str, ...]]:
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


def _flags(machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int) -> int:
    """Bit i: threshold i fired in a billing period that shares an instant with the range."""
    if not metric.thresholds or series < 0:
        return 0
    totals = machine.counter.totals
    combination = _period_combination(metric)
    bits = 0
    for first in _periods_used(machine, metric, series, start_ns, end_ns):
        row = totals.cell_row(series, combination, first)
        if row >= 0:
            bits |= totals.cell_at(row)[12] & 0xFF
    return bits


def _period_combination(metric: Metric) -> int:
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
    cells = _buckets(machine, metric, series, first, after)
    return sorted({metric.period.bounds(cell[2])[0] for cell in cells})


# --- reading cells ----------------------------------------------------------------

Cell = tuple[int, ...]
"""totals.cell_at: series, combination, start, sum, count, min, max, last, last timestamp,
last offset, chain + 1, sibling + 1, flags, next bucket + 1."""


def _buckets(
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


def _step(calendar: Calendar) -> int:
    return 0 if calendar.arithmetic is None else calendar.arithmetic[1]


def _pieces(bucket: Calendar, start_ns: int, end_ns: int) -> tuple[Window, list[Window]]:
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


def _settle(machine: Any, metric: Metric, series: int, piece: Window) -> int | Cut:
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


def _read(
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
        settled = _settle(machine, metric, series, piece)
        if settled is Cut.UNKNOWN:
            reading.edges.append(piece)
        elif isinstance(settled, int):
            yield settled


def _sum_plain(
    machine: Any, metric: Metric, series: int, reading: Reading, number: int, window: Window
) -> None:
    """Add all events of a window's whole buckets to its tally."""
    words = bytearray(_ZEROS)
    accumulator = memoryview(words).cast("Q")
    totals = machine.counter.totals
    (first, last), pieces = _pieces(metric.bucket, *window)
    if first < last:
        totals.merge_buckets(series, first, last, _step(metric.bucket), accumulator)
    for row in _settled(machine, metric, series, reading, pieces):
        totals.merge_cell(row, accumulator)
    low, high, count, least, most, latest, timestamp_ns, offset, _ = _ACCUMULATOR.unpack(words)
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
    (first, last), pieces = _pieces(metric.bucket, *window)
    links = chains(totals, series, first, last, _step(metric.bucket)) if first < last else []
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
        (first, last), pieces = _pieces(metric.bucket, *window)
        buckets = list(_buckets(machine, metric, series, first, last))
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


# --- edges ---------------------------------------------------------------------------


def _joined(pieces: Iterable[Window]) -> list[Window]:
    """The pieces in order, those that touch made one."""
    joined: list[Window] = []
    for start, end in sorted(pieces):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _edges(account: Account | None, metric: Metric, pieces: Iterable[Window]) -> list[Edge]:
    return [Edge(account, metric.code, start, end) for start, end in _joined(pieces)]


def _add_rows(reading: Reading, rows: Iterable[Any]) -> None:
    for stored in rows:
        row = stored.row
        reading.add_event(row.timestamp_ns, stored.offset, row.value, row.operation, row.properties)


# --- the questions ------------------------------------------------------------------


def plan_total(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    filters: Filters | None = None,
) -> Plan[AggValue]:
    """A total over any range. Unknown accounts have zeros; unknown metrics NotFoundError."""
    metric: Metric = machine.catalog.find(metric_code)
    window = _clamp(start_ns, end_ns)
    series = -1 if _is_outside(start_ns, end_ns) else _series_of(machine, account, metric)
    flags = _flags(machine, metric, series, *window)
    if not filters:
        value = _known(machine, metric, series, *window)
        if value is not None:
            value.alert_flags = flags
            return Plan(machine, metric, start_ns, end_ns, [], lambda rows: value)
    chooser = Chooser(metric.schema, filters, (), _texts_of(machine, metric))
    reading = _read(machine, metric, series, [window], chooser)

    def finish(rows: Iterable[Any]) -> AggValue:
        _add_rows(reading, rows)
        total = reading.value(0)
        total.alert_flags = flags
        return total

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def _known(
    machine: Any, metric: Metric, series: int, start_ns: int, end_ns: int
) -> AggValue | None:
    """The unfiltered total where memory tells it without looking at members or events."""
    if series < 0:
        return AggValue()
    if metric.agg == COUNT_UNIQUE:
        return _known_members(machine, metric, series, start_ns, end_ns)
    words = bytearray(_ZEROS)
    accumulator = memoryview(words).cast("Q")
    totals, bucket = machine.counter.totals, metric.bucket
    if not (bucket.is_start(start_ns) and bucket.is_start(end_ns)):
        (first, last), pieces = _pieces(bucket, start_ns, end_ns)
        for piece in pieces:
            settled = _settle(machine, metric, series, piece)
            if settled is Cut.UNKNOWN:
                return None
            if isinstance(settled, int):
                totals.merge_cell(settled, accumulator)
        start_ns, end_ns = first, last
    if start_ns < end_ns:
        totals.merge_buckets(series, start_ns, end_ns, _step(bucket), accumulator)
    low, high, count, least, most, last, timestamp_ns, _, _ = _ACCUMULATOR.unpack(words)
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
        row = totals.cell_row(series, _period_combination(metric), first)
    if row < 0:
        return None
    cell: Cell = totals.cell_at(row)
    if cell[8] >= end_ns:
        return None
    value = AggValue(count=cell[4], unique=cell[4])
    if cell[8] >= start_ns:
        value.last_value, value.last_timestamp = cell[7], cell[8]
    return value


def plan_realtime(machine: Any, account: Account, metric_code: str, now_ns: int) -> Plan[AggValue]:
    """The total of the billing period that holds `now_ns`; its bounds are the plan's."""
    metric: Metric = machine.catalog.find(metric_code)
    now = min(max(now_ns, TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
    start_ns, end_ns = metric.period.bounds(now)
    return plan_total(machine, account, metric_code, start_ns, end_ns)


Breakdown = list[tuple[list[tuple[str, str]], AggValue]]


def plan_breakdown(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    keys: Sequence[str],
    filters: Filters | None = None,
) -> Plan[Breakdown]:
    """One ([(key, value), ...], total) per combination that has events, sorted by values."""
    metric: Metric = machine.catalog.find(metric_code)
    if not keys:
        raise InvalidInputError("a breakdown needs at least one dimension to group by")
    window = _clamp(start_ns, end_ns)
    series = -1 if _is_outside(start_ns, end_ns) else _series_of(machine, account, metric)
    chooser = Chooser(metric.schema, filters, keys, _texts_of(machine, metric))
    reading = _read(machine, metric, series, [window], chooser)
    flags = _flags(machine, metric, series, *window)

    def finish(rows: Iterable[Any]) -> Breakdown:
        _add_rows(reading, rows)
        lines = []
        for group in reading.groups():
            total = reading.value(0, group)
            total.alert_flags = flags
            if total.count or total.last_timestamp:
                lines.append((list(zip(keys, group, strict=True)), total))
        return lines

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def plan_series(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    window: int,
    zone: str = "",
    filters: Filters | None = None,
) -> Plan[list[tuple[int, int, AggValue]]]:
    """(start, end, total) of every window of the range, cut to the range.

    `window` 0 hour, 1 day, 2 week, 3 month; `zone` an IANA name, "" = UTC. A zone
    that is not the metric's own is read from this host's database: it shapes
    this answer and nothing that is kept.
    """
    metric: Metric = machine.catalog.find(metric_code)
    windows = _windows(metric, _clamp(start_ns, end_ns), window, zone)
    if _is_outside(start_ns, end_ns):
        return Plan(machine, metric, start_ns, end_ns, [], lambda rows: [])
    series = _series_of(machine, account, metric)
    chooser = Chooser(metric.schema, filters, (), _texts_of(machine, metric))
    reading = _read(machine, metric, series, windows, chooser)
    flags = [_flags(machine, metric, series, *each) for each in windows]

    def finish(rows: Iterable[Any]) -> list[tuple[int, int, AggValue]]:
        _add_rows(reading, rows)
        lines = []
        for number, (first, last) in enumerate(windows):
            total = reading.value(number)
            total.alert_flags = flags[number]
            lines.append((first, last, total))
        return lines

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def _windows(metric: Metric, within: Window, window: int, zone: str) -> list[Window]:
    if window not in range(len(_WINDOW_KINDS)):
        raise InvalidInputError(f"window {window!r} is not 0 hour, 1 day, 2 week or 3 month")
    own = zone == metric.schema.zone
    transitions = metric.transitions if own else zone_transitions(zone or "UTC")
    calendar = make_calendar(_WINDOW_KINDS[window], 1, 0, transitions)
    windows: list[Window] = []
    for first, last in calendar.periods(*within):
        if len(windows) == PAGE_ITEMS_MAX:
            raise InvalidInputError(
                f"the range has more than {PAGE_ITEMS_MAX} windows; ask for a shorter range "
                "or a longer window"
            )
        windows.append((max(first, within[0]), min(last, within[1])))
    return windows


def plan_accounts(
    machine: Any,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    cursor: bytes = b"",
    limit: int = ACCOUNTS_PER_PAGE_MAX,
) -> Plan[tuple[list[AccountTotal], bytes]]:
    """A page of accounts with their totals, newest account first, and the next cursor.

    Accounts with events in the range, or members carried into it. A page may
    hold fewer than `limit`, even none; only an empty cursor means the end.
    """
    metric: Metric = machine.catalog.find(metric_code)
    window = _clamp(start_ns, end_ns)
    chooser = Chooser(metric.schema, None, (), _texts_of(machine, metric))
    link = 0 if _is_outside(start_ns, end_ns) else _first_link(machine, metric, cursor)
    known: list[tuple[Account, AggValue]] = []
    readings: dict[Account, Reading] = {}
    for _ in range(min(_check_limit(limit), ACCOUNTS_PER_PAGE_MAX)):
        if not link:
            break
        head = machine.counter.totals.series_at(link - 1)
        account = _account_of(machine, head[0], head[1])
        value = _known(machine, metric, link - 1, *window)
        if value is None:
            readings[account] = _read(machine, metric, link - 1, [window], chooser)
            value = AggValue()
        value.alert_flags = _flags(machine, metric, link - 1, *window)
        known.append((account, value))
        link = head[4]
    after = link.to_bytes(8, "little") if link else b""

    def finish(rows: Iterable[Any]) -> tuple[list[AccountTotal], bytes]:
        _add_rows_by_account(readings, rows)
        lines = []
        for account, value in known:
            if account in readings:
                flags, value = value.alert_flags, readings[account].value(0)
                value.alert_flags = flags
            if value.count or value.last_timestamp:
                lines.append(AccountTotal(account, value))
        return lines, after

    pieces = [piece for reading in readings.values() for piece in reading.edges]
    return Plan(machine, metric, start_ns, end_ns, _edges(None, metric, pieces), finish)


def _add_rows_by_account(readings: dict[Account, Reading], rows: Iterable[Any]) -> None:
    for stored in rows:
        reading = readings.get(stored.row.account)
        if reading is not None:
            _add_rows(reading, (stored,))


def _first_link(machine: Any, metric: Metric, cursor: bytes) -> int:
    """The series (row + 1) a page starts at; a cursor must name one of the metric's."""
    if not cursor:
        return int(machine.counter.head_of(metric.number))
    link = int.from_bytes(cursor, "little")
    totals = machine.counter.totals
    if len(cursor) == 8 and 0 < link <= totals.series_count:
        if totals.series_at(link - 1)[1] & ~STRING == metric.number:
            return link
    raise InvalidInputError("this cursor is not one of a list of this metric's accounts")


def _check_limit(limit: int) -> int:
    if limit < 1:
        raise InvalidInputError(f"limit {limit} must be at least 1")
    return min(limit, PAGE_ITEMS_MAX)


def plan_members(
    machine: Any,
    account: Account,
    metric_code: str,
    at_ns: int,
    cursor: bytes = b"",
    limit: int = PAGE_ITEMS_MAX,
) -> Plan[tuple[list[int], bytes]]:
    """A page of the members active at `at_ns`, ascending, and the next cursor.

    An operation at that very instant has happened. Members of a metric that
    is not recurring are those of the billing period that holds the instant.
    """
    metric: Metric = machine.catalog.find(metric_code)
    if metric.agg != COUNT_UNIQUE:
        raise InvalidInputError(
            f"metric {metric_code!r} is {AggType(metric.agg).name}; only COUNT_UNIQUE has members"
        )
    page = _check_limit(limit)
    above = _member_cursor(cursor)
    instant, after = _clamp(at_ns, at_ns + 1)
    window = max(metric.period.bounds(instant)[0], TIMESTAMP_NS_MIN), after
    chooser = Chooser(metric.schema, None, (), _texts_of(machine, metric))
    series = -1 if at_ns < TIMESTAMP_NS_MIN else _series_of(machine, account, metric)
    reading = _read(machine, metric, series, [window], chooser, True)

    def finish(rows: Iterable[Any]) -> tuple[list[int], bytes]:
        _add_rows(reading, rows)
        members = [member for member in reading.members() if above is None or member > above]
        if len(members) <= page:
            return members, b""
        return members[:page], members[page - 1].to_bytes(8, "little", signed=True)

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, *window, edges, finish)


def _member_cursor(cursor: bytes) -> int | None:
    if len(cursor) not in (0, 8):
        raise InvalidInputError("this cursor is not one of a list of members")
    return int.from_bytes(cursor, "little", signed=True) if cursor else None


# --- alerts -------------------------------------------------------------------------


def alert_at(machine: Any, position: int) -> AlertLine:
    """The alert of that position, from 1 to the number of alerts."""
    assert 1 <= position <= machine.counter.alert_count
    offset, account, metric_word, threshold, value, count, timestamp_ns, period = (
        machine.counter.alert_at(position - 1)
    )
    metric: Metric = machine.catalog.metrics[(metric_word & ~STRING) - 1]
    code, _, _, direction = metric.thresholds[threshold]
    return AlertLine(
        position=position,
        offset=offset,
        account=_account_of(machine, account, metric_word),
        metric_code=metric.code,
        threshold_code=code,
        value=value // count if metric.agg == AggType.AVG else value,
        timestamp_ns=timestamp_ns,
        direction=direction,
        period_start_ns=period,
    )


def list_alerts(
    machine: Any,
    after: int = 0,
    account: Account | None = None,
    metric_code: str | None = None,
    limit: int = PAGE_ITEMS_MAX,
    since_offset: int = 0,
) -> tuple[list[AlertLine], bool]:
    """Alerts with positions above `after`, in order, and whether more follow.

    `since_offset` leaves out those of earlier events. A deleted metric's alerts
    are still found by its code.
    """
    page = _check_limit(limit)
    if metric_code is not None and not any(
        metric.code == metric_code for metric in machine.catalog.metrics
    ):
        raise NotFoundError(f"there never was a metric {metric_code!r}")
    position = max(after, _alerts_before(machine, since_offset))
    lines: list[AlertLine] = []
    while position < machine.counter.alert_count:
        position += 1
        line = alert_at(machine, position)
        if account is not None and line.account != account:
            continue
        if metric_code is not None and line.metric_code != metric_code:
            continue
        if len(lines) == page:
            return lines, True
        lines.append(line)
    return lines, False


def _alerts_before(machine: Any, offset: int) -> int:
    """How many alerts are of events before `offset`; offsets grow with positions."""
    low, high = 0, int(machine.counter.alert_count)
    while low < high:
        middle = (low + high) // 2
        if machine.counter.alert_at(middle)[0] < offset:
            low = middle + 1
        else:
            high = middle
    return low
