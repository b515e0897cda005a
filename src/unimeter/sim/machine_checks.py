"""A replica's memory against the independent meter.

Owns the comparison of an engine's `Machine` with `Committed`, at the position where the
machine stands:

    everything   catalog, counts, sessions, administration, alerts, accounts; per metric and
                 account every bucket, period, union of periods, breakdown, filter, member
    touched      what one entry touched, in a few questions

Not checked: ranges that cut buckets (`account_checks`); event keys, of which a wrong one shows
in a later outcome; sizes, and the layout in memory, which replicas compare by hash among
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unimeter.engine import query
from unimeter.errors import NotFoundError
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.sim.account_checks import PAGE, AccountCheck, Range
from unimeter.sim.admin_model import told
from unimeter.sim.committed import EVENTS, GENESIS, NOOP, Expected
from unimeter.sim.counting import Alert
from unimeter.sim.failures import CheckFailed
from unimeter.sim.model_answers import Metric
from unimeter.sim.session_model import read_sessions
from unimeter.types import Account


class MachineCheck(AccountCheck):
    """One replica's machine, as it stands now, against the log up to there."""

    # --- everything ------------------------------------------------------------------

    def everything(self) -> None:
        """All that the machine's memory can say."""
        self.counts()
        self.catalog()
        self.sessions()
        self.administration()
        self.alerts(self.log.model.alerts_at(self.at))
        for metric in self.log.model.live(self.at):
            self.accounts(metric)
            for account in self.log.model.accounts_of(metric, self.at):
                self.account(account, metric)
            self.account("nobody was ever called this", metric)

    def counts(self) -> None:
        """How many events of each kind, the next offset, the log's time and names."""
        applied = [self.log.expected(index) for index in range(1, self.at + 1)]
        stored, duplicates, refused = (
            sum(getattr(one, name) for one in applied)
            for name in ("stored", "duplicates", "refused")
        )
        events = stored + duplicates + refused
        machine = self.machine
        found = machine.events, machine.stored, machine.duplicates, machine.refused
        self.equal("its counts", found, (events, stored, duplicates, refused))
        self.equal("the next offset", machine.next_offset, events + 1)
        times = [one.timestamp_ns for one in applied if one.kind != 0]
        self.equal("its time", machine.timestamp_ns, times[-1] if times else 0)
        if self.at:
            names = machine.cluster_id, machine.hash_key
            self.equal("cluster id and key", names, (self.log.cluster_id, self.log.hash_key))

    def catalog(self) -> None:
        """All metrics ever made, with their definitions; deleted ones are not found."""
        right = [
            (metric.number, metric.created_index, metric.deleted_at(self.at) or 0)
            for metric in self.log.model.metrics
            if metric.created_index <= self.at
        ]
        metrics = self.machine.catalog.metrics
        found = [(one.number, one.created_index, one.deleted_index) for one in metrics]
        self.equal("its metrics (number, created, deleted)", found, right)
        schemas = [metric.schema_at(self.at) for metric in self.log.model.live(self.at)]
        live = [metric.schema for metric in self.machine.catalog.live()]
        self.equal("its definitions", live, schemas)
        codes = [schema.code for schema in schemas]
        for code in {metric.schema.code: None for metric in self.log.model.metrics}:
            if code not in codes:
                self.absent(code)

    def absent(self, code: str) -> None:
        """A metric that is not, or no more, is not found."""
        try:
            query.plan_total(self.machine, 1, code, TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX)
        except NotFoundError:
            return
        raise CheckFailed("MachineCheck", f"{self.who} at {self.at}: {code!r} is still there")

    def sessions(self) -> None:
        """Every session: remembered replies, the highest number, the order of last use."""
        found = read_sessions(self.machine.sessions.encode())
        right = self.log.sessions.state_at(self.at)
        self.equal("its sessions", list(found.items()), list(right.items()))

    def administration(self) -> None:
        """Keys, webhooks, deliveries and the trail, but for the words of refusals."""
        found = told(self.machine.administration.encode())
        self.equal("its administration", found, self.log.administration.state_at(self.at))

    def alerts(self, right: Sequence[Alert]) -> None:
        """These alerts, which follow one another, and how many there are in all."""
        count = len(self.log.model.alerts_at(self.at))
        self.equal("the number of alerts", self.machine.counter.alert_count, count)
        if right:
            after = right[0].position - 1
            lines, more = query.list_alerts(self.machine, after, limit=len(right))
            self.equal("its alerts", [_words(line) for line in lines], [*map(_words, right)])
            self.equal(f"whether alerts follow {right[-1]}", more, right[-1].position < count)

    def accounts(self, metric: Metric) -> None:
        """All pages of the metric's accounts, newest first, with their totals."""
        code = metric.schema.code
        found: list[tuple[Account, object]] = []
        cursor = b""
        while True:
            plan = query.plan_accounts(
                self.machine, code, TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX, cursor, PAGE
            )
            page, cursor = self.finished(plan, f"the accounts of {code!r}")
            found += [(line.account_id, line.value) for line in page]
            if not cursor:
                break
        right = self.expect(
            "accounts",
            code,
            compute=lambda: self.log.model.accounts(
                code, TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX, self.at
            ),
        )
        self.equal(f"the accounts of {code!r}", found, list(right.items()))

    def touched(self, expected: Expected) -> None:
        """What an entry changed: its accounts and their buckets and periods, alerts, catalog.

        The machine may have applied more; then it is held to what came of all of it.
        """
        if expected.kind not in (NOOP, GENESIS, EVENTS):
            self.administration()
            if expected.code:
                self.catalog()
        if expected.kind != EVENTS:
            return
        asked: dict[tuple[Account, str, Range], None] = {}
        live = {metric.schema.code: metric for metric in self.log.model.live(self.at)}
        for request in expected.requests:
            for row in request.request.rows:
                metric = live.get(row.metric_code)
                if metric is not None and not row.refused:
                    for calendar in (metric.bucket, metric.calendar):
                        period = calendar.bounds(row.timestamp_ns)
                        asked[row.account, row.metric_code, period] = None
        for account, code, (start, end) in asked:
            self.total(account, live[code], start, end)
        for account, code in dict.fromkeys((account, code) for account, code, _ in asked):
            self.account_in_short(account, code)
        alerts = self.log.model.alerts[expected.alerts_from - 1 : expected.alerts_to - 1]
        self.alerts(alerts)


def _words(alert: Any) -> tuple[object, ...]:
    """An alert of either meter as its fields."""
    return (
        alert.position,
        alert.offset,
        alert.account,
        alert.metric_code,
        alert.threshold_code,
        alert.value,
        alert.timestamp_ns,
        alert.direction,
        alert.period_start_ns,
    )
