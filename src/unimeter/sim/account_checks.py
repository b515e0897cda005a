"""One account of a replica's memory against the independent meter.

Owns the questions about an account and a metric, and the comparison of their answers. They are
asked through `engine.query`, the way a server asks, in ranges along buckets, which memory must
answer without a stored event. Expectations are computed once per position and question and
shared by all replicas. Refuses to know which accounts and metrics there are
(`machine_checks`).

Not checked: ranges that cut buckets, which need the stored events (`answer_checks` looks at
them in the answers of nodes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations, pairwise
from typing import Any, Final

from unimeter.engine import query
from unimeter.engine.machine import Machine
from unimeter.limits import PAGE_ITEMS_MAX, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.sim.committed import Committed
from unimeter.sim.failures import CheckFailed
from unimeter.sim.model_answers import Metric
from unimeter.types import Account, AggType

Memo = dict[tuple[object, ...], Any]
"""Expectations by position and question."""

Range = tuple[int, int]

WINDOWS_MAX: Final = 200  # of a timeline that is asked for
PERIODS_MAX: Final = 6  # of which all unions are asked for
SUBSETS_MAX: Final = 16  # breakdowns of one account and range
PAGE: Final = 3  # lines, so that lists take several pages
MEMO_MAX: Final = 50_000  # expectations kept, a few hundred bytes each; then all are let go


class AccountCheck:
    """A replica's machine, as it stands now, and what it says of one account at a time."""

    def __init__(self, log: Committed, who: str, machine: Machine, memo: Memo) -> None:
        self.log, self.who, self.machine, self.memo = log, who, machine, memo
        self.at = machine.applied
        if self.at > log.position:
            sentence = f"{who} applied {self.at}, and {log.position} entries are committed"
            raise CheckFailed("MachineCheck", sentence)

    # --- comparing -----------------------------------------------------------------

    def equal(self, what: str, found: object, right: object) -> None:
        """Raise CheckFailed, with both, unless they are equal."""
        if found != right:
            sentence = f"{self.who} at {self.at}: {what} is {found!r}, expected {right!r}"
            raise CheckFailed("MachineCheck", sentence)

    def expect(self, *question: object, compute: Callable[[], Any]) -> Any:
        """The answer to a question at this position, computed by the first who asks."""
        key = (self.at, *question)
        if key not in self.memo:
            if len(self.memo) >= MEMO_MAX:
                self.memo.clear()
            self.memo[key] = compute()
        return self.memo[key]

    def finished(self, plan: query.Plan[Any], what: str) -> Any:
        """The plan's answer, which memory must have without stored events."""
        self.equal(f"stored events wanted for {what}", plan.edges, [])
        return plan.finish()

    # --- one account -------------------------------------------------------------------

    def account(self, account: Account, metric: Metric) -> None:
        """Every kind of answer about one account and metric."""
        buckets, periods = self.cuts(account, metric)
        whole = self.whole(account, metric)
        ranges = [whole, (TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX), *buckets, *periods]
        ranges += [(first[0], last[1]) for first, last in pairwise(periods)]
        unions = combinations(periods[:PERIODS_MAX], 2)
        ranges += [(first[0], last[1]) for first, last in unions]
        for one in dict.fromkeys(ranges):
            self.total(account, metric, *one)
        for one in dict.fromkeys([whole, *periods[:PERIODS_MAX]]):
            for keys in self.subsets(metric):
                self.breakdown(account, metric, *one, keys)
        for filters in self.filters(account, metric):
            self.total(account, metric, *whole, filters)
        self.timeline(account, metric, *whole)
        if metric.schema.agg_type == AggType.COUNT_UNIQUE:
            for _, end in buckets:
                self.members(account, metric, end - 1)

    def account_in_short(self, account: Account, code: str) -> None:
        """One account of a live metric: its total, its parts, its members."""
        metric = self.log.model.find(code, self.at)
        whole = self.whole(account, metric)
        self.total(account, metric, *whole)
        keys = [dimension.key for dimension in metric.schema.filters]
        if keys:
            self.breakdown(account, metric, *whole, keys)
        if metric.schema.agg_type == AggType.COUNT_UNIQUE:
            self.members(account, metric, whole[1] - 1, PAGE_ITEMS_MAX)

    # --- the questions --------------------------------------------------------------------

    def total(
        self,
        account: Account,
        metric: Metric,
        start: int,
        end: int,
        filters: dict[str, list[str]] | None = None,
    ) -> None:
        """A total."""
        code = metric.schema.code
        what = f"the total of {account!r}, {code!r}, {start} to {end}, {filters}"
        plan = query.plan_total(self.machine, account, code, start, end, filters)
        right = self.expect(
            what,
            compute=lambda: self.log.model.total(account, code, start, end, filters, self.at),
        )
        self.equal(what, self.finished(plan, what), right)

    def breakdown(
        self, account: Account, metric: Metric, start: int, end: int, keys: Sequence[str]
    ) -> None:
        """Totals by some dimensions."""
        code = metric.schema.code
        what = f"the breakdown of {account!r}, {code!r}, {start} to {end}, by {list(keys)}"
        plan = query.plan_breakdown(self.machine, account, code, start, end, keys)
        right = self.expect(
            what,
            compute=lambda: self.log.model.breakdown(
                account, code, start, end, keys, None, self.at
            ),
        )
        self.equal(what, self.finished(plan, what), right)

    def timeline(self, account: Account, metric: Metric, start: int, end: int) -> None:
        """Totals by days and months, where those are made of whole buckets."""
        code, zone = metric.schema.code, metric.schema.zone
        start, end = max(start, TIMESTAMP_NS_MIN), min(end, TIMESTAMP_NS_MAX)
        for window in (1, 3):
            windows = self.log.model.windows(code, window, zone, self.at)
            starts = [first for first, _ in _some(windows.periods(start, end))]
            is_cut = not all(metric.bucket.is_start(one) for one in starts[1:])
            if is_cut or len(starts) > WINDOWS_MAX:
                continue
            what = f"the timeline {window} of {account!r}, {code!r}, {start} to {end}"
            plan = query.plan_series(self.machine, account, code, start, end, window, zone)
            right = self.expect(
                what,
                compute=partial(
                    self.log.model.series, account, code, start, end, window, zone, at=self.at
                ),
            )
            self.equal(what, self.finished(plan, what), right)

    def members(self, account: Account, metric: Metric, at_ns: int, limit: int = PAGE) -> None:
        """All pages of the members at the last instant of a bucket."""
        code = metric.schema.code
        found: list[int] = []
        cursor = b""
        what = f"the members of {account!r}, {code!r} at {at_ns}"
        while True:
            plan = query.plan_members(self.machine, account, code, at_ns, cursor, limit)
            page, cursor = self.finished(plan, what)
            found += page
            if not cursor:
                break
        right = self.expect(
            what, compute=lambda: self.log.model.members(account, code, at_ns, self.at)
        )
        self.equal(what, found, right)

    # --- what to ask ------------------------------------------------------------------------

    def cuts(self, account: Account, metric: Metric) -> tuple[list[Range], list[Range]]:
        """The buckets and the periods in which the account has events, in order of time."""
        stamps = {event.timestamp_ns for event in metric.counted(account, self.at)}
        return (
            sorted({metric.bucket.bounds(stamp) for stamp in stamps}),
            sorted({metric.calendar.bounds(stamp) for stamp in stamps}),
        )

    def whole(self, account: Account, metric: Metric) -> Range:
        """From the first bucket with an event to the end of the last one."""
        stamps = [event.timestamp_ns for event in metric.counted(account, self.at)]
        if not stamps:
            return TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX
        return metric.bucket.bounds(min(stamps))[0], metric.bucket.bounds(max(stamps))[1]

    def subsets(self, metric: Metric) -> list[tuple[str, ...]]:
        """Every choice of dimensions, the larger ones left out where there are many."""
        keys = [dimension.key for dimension in metric.schema.filters]
        found: list[tuple[str, ...]] = []
        for count in range(1, len(keys) + 1):
            found += combinations(keys, count)
        return found[:SUBSETS_MAX]

    def filters(self, account: Account, metric: Metric) -> list[dict[str, list[str]]]:
        """Every value that occurs, of one dimension and of two; and one that does not."""
        keys = [dimension.key for dimension in metric.schema.filters]
        seen = [
            {key: event.properties.get(key, "") for key in keys}
            for event in metric.counted(account, self.at)
        ]
        found: dict[tuple[tuple[str, str], ...], None] = {}
        for key in keys:
            found[((key, "no event has this value"),)] = None
            for values in seen:
                found[((key, values[key]),)] = None
        for one, other in combinations(keys, 2):
            for values in seen:
                found[(one, values[one]), (other, values[other])] = None
        return [{key: [value] for key, value in pairs} for pairs in found]


def _some(periods: Iterable[Range]) -> list[Range]:
    """The first of them, one more than is asked for at most."""
    found = []
    for period in periods:
        found.append(period)
        if len(found) > WINDOWS_MAX:
            break
    return found
