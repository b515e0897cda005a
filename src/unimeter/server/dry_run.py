"""What a metric would have made of events that are stored: asked before it is created.

Owns one trial: the newest events of a code are taken from the log, given the proposed metric's
code, and counted by a machine of their own, which is thrown away. So the totals, the refusals and
the alerts are those that the real engine gives, to the unit; nothing is stored and the
node's own state is not touched.

    log, backwards ─ events of `source` ─ relabelled ─ EntryBuilder ─ Machine ─> totals, alerts

Where `source` is a metric, its counted events are taken; where it is a code that nobody
created, those that were refused for it, which is how one looks at what arrives before deciding
how to count it. Bounded by a number of events and by the bytes of log that are searched, and
run in a worker (`host.aside`).

Rejected: counting in Python beside the engine. It would be a second opinion, and the question
is what this engine will do.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.engine import entries, query
from unimeter.engine.alert_log import AlertLine
from unimeter.engine.applied import Applied
from unimeter.engine.catalog import CREATE, put_body
from unimeter.engine.decode import EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.records import EventRow, EventsBody
from unimeter.errors import InvalidInputError, RangeUnavailableError
from unimeter.storage.events import StoredEvent
from unimeter.storage.outcomes import is_counted
from unimeter.types import Account, AccountTotal, AggValue, MetricSchema, Outcome
from unimeter.wire.messages import Ingest, IngestRow
from unimeter.wire.v2_ingest import encode_ingest_request

if TYPE_CHECKING:
    from unimeter.server.node import Node

_STEP_ENTRIES = 256  # looked at first, at the log's end; then twice as many, and so on
_IDENTITY = bytes(16)  # cluster and hash key of a machine that nobody else sees


@dataclass(frozen=True)
class Trial:
    """What is tried: a definition, on the newest events of a code in ``[start_ns, end_ns)``."""

    schema: MetricSchema
    source: str
    events_max: int = 10_000
    start_ns: int = limits.TIMESTAMP_NS_MIN
    end_ns: int = limits.TIMESTAMP_NS_MAX

    def check(self) -> None:
        """Raise InvalidInputError for a definition that would not be taken, or absurd bounds."""
        put_body(self.schema, CREATE)
        if not 1 <= self.events_max <= limits.DRY_RUN_EVENTS_MAX:
            raise InvalidInputError(f"a dry run takes 1 to {limits.DRY_RUN_EVENTS_MAX} events")
        if self.end_ns <= self.start_ns:
            raise InvalidInputError("the range ends before it starts; it is [start, end)")


@dataclass
class Tried:
    """What would have come of it."""

    events: int = 0
    is_all: bool = True  # no older event of the code was left out
    is_known: bool = False  # the source is a metric
    first_ns: int = 0
    last_ns: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[EventRow, Outcome]] = field(default_factory=list)
    accounts: int = 0
    totals: list[AccountTotal] = field(default_factory=list)  # the largest first
    groups: list[tuple[Account, dict[str, str], AggValue]] = field(default_factory=list)
    alert_count: int = 0
    alerts: list[AlertLine] = field(default_factory=list)


def prepare(node: Node, trial: Trial) -> Log:
    """What a worker needs of the node, taken on the node's own thread."""
    trial.check()
    with node.lock:
        number = node.machine.catalog.by_code.get(trial.source.encode("utf-8", "replace"))
        made = node.machine.catalog.metrics[number - 1].created_index if number else 0
        return Log(node, trial, made, node.machine.applied, node.machine.timestamp_ns)


class Log:
    """The part of the log that a trial looks at."""

    def __init__(
        self, node: Node, trial: Trial, created_index: int, applied: int, now_ns: int
    ) -> None:
        self._node, self._trial = node, trial
        self._created, self._applied, self._now_ns = created_index, applied, now_ns
        self._bytes = 0
        self.is_known = created_index > 0

    def run(self) -> Tried:
        """Look for the events and count them. Callable from any thread."""
        rows, is_all = self._newest()
        tried = Tried(len(rows), is_all, self.is_known)
        if rows:
            tried.first_ns = min(row.timestamp_ns for row in rows)
            tried.last_ns = max(row.timestamp_ns for row in rows)
            _Meter(self._trial.schema, self._now_ns).count(rows, tried)
        return tried

    def _newest(self) -> tuple[list[EventRow], bool]:
        """The newest events in the order of the log, and whether there are no older ones."""
        first_of_all = max(self._created, self._node.wal.first_index, 1)
        found: list[list[EventRow]] = []
        count, last, step = 0, self._applied, _STEP_ENTRIES
        while last >= first_of_all and count < self._trial.events_max:
            if self._bytes > limits.DRY_RUN_LOG_BYTES_MAX:
                break
            first = max(first_of_all, last - step + 1)
            part = list(self._rows(first, last))
            found.append(part)
            count, last, step = count + len(part), first - 1, step * 2
        rows = [row for part in reversed(found) for row in part]
        kept = rows[max(0, len(rows) - self._trial.events_max) :]
        return kept, last < first_of_all and len(kept) == len(rows)

    def _rows(self, first: int, last: int) -> Iterator[EventRow]:
        trial, node = self._trial, self._node
        try:
            for entry in node.wal.read(first, last):
                self._bytes += len(entry.body)
                if entry.kind != entries.EVENTS:
                    continue
                body = EventsBody(entry.body)
                numbers = body.select(None, trial.source, trial.start_ns, trial.end_ns)
                bits = node.events.counted_bits(entry.index) if numbers and self.is_known else None
                for number in numbers:
                    if bits is None or is_counted(bits[1], number):
                        yield body.event(number)
        except FileNotFoundError as error:
            raise RangeUnavailableError("retention removed events while they were read") from error


class _Meter:
    """A machine of its own with one metric."""

    def __init__(self, schema: MetricSchema, now_ns: int) -> None:
        self._schema, self._now_ns = schema, now_ns
        self._machine, self._builder = Machine(), EntryBuilder()
        self._builder.now_ns = now_ns
        self._counted: list[StoredEvent] = []
        self._apply(entries.GENESIS, entries.genesis_body(_IDENTITY, _IDENTITY))
        refusal = self._apply(entries.METRIC_PUT, put_body(schema, CREATE)).error
        assert not refusal, f"a checked definition was refused: {refusal}"

    def _apply(self, kind: int, body: bytes | memoryview) -> Applied:
        return self._machine.apply(self._machine.applied + 1, kind, self._now_ns, body)

    def count(self, rows: Sequence[EventRow], tried: Tried) -> None:
        """Count events of another code as this metric's."""
        outcomes: Tally[str] = Tally()
        for start in range(0, len(rows), limits.EVENTS_PER_BATCH_MAX):
            part = rows[start : start + limits.EVENTS_PER_BATCH_MAX]
            self._feed(part)
            first = self._machine.next_offset
            sealed = self._builder.seal(self._now_ns, first)
            assert sealed is not None, "a batch with events seals an entry"
            applied = self._apply(entries.EVENTS, sealed.body)
            for at, (row, number) in enumerate(zip(part, applied.outcomes, strict=True)):
                outcome = Outcome(number)
                outcomes[outcome.name.lower()] += 1
                if outcome is Outcome.STORED:
                    self._counted.append(StoredEvent(applied.index, at, first + at, row))
                elif not outcome.counted and len(tried.refused) < limits.DRY_RUN_ROWS_MAX:
                    tried.refused.append((row, outcome))
        tried.outcomes = dict(sorted(outcomes.items()))
        self._read(tried)

    def _feed(self, part: Sequence[EventRow]) -> None:
        code = self._schema.code
        request = Ingest(
            [
                IngestRow(
                    row.account,
                    code,
                    row.value,
                    row.timestamp_ns,
                    row.operation,
                    tuple(row.properties.items()),
                    row.id,
                )
                for row in part
            ]
        )
        taken = self._builder.feed_payload(2, 1, encode_ingest_request(request), 0)
        assert taken == 0, "events from the log make a batch"

    # --- answers ---------------------------------------------------------------------

    def _read(self, tried: Tried) -> None:
        metric, rows_max = self._machine.catalog.find(self._schema.code), limits.DRY_RUN_ROWS_MAX
        start, end = metric.bucket.bounds(tried.first_ns)[0], metric.bucket.bounds(tried.last_ns)[1]
        totals: list[AccountTotal] = []
        cursor = b""
        while True:
            plan = query.plan_accounts(self._machine, self._schema.code, start, end, cursor)
            page, cursor = plan.finish(self._counted if plan.edges else ())
            totals += page
            if not cursor:
                break
        kind = self._schema.agg_type
        totals.sort(key=lambda one: -abs(one.value.number(kind)))
        tried.accounts, tried.totals = len(totals), totals[:rows_max]
        if self._schema.filters:
            tried.groups = list(self._groups(tried.totals, start, end))[:rows_max]
        tried.alert_count = self._machine.counter.alert_count
        tried.alerts = query.list_alerts(self._machine, limit=rows_max)[0]

    def _groups(
        self, totals: Sequence[AccountTotal], start: int, end: int
    ) -> Iterator[tuple[Account, dict[str, str], AggValue]]:
        keys = [one.key for one in self._schema.filters]
        for total in totals:
            account = total.account_id
            plan = query.plan_breakdown(self._machine, account, self._schema.code, start, end, keys)
            mine = (one for one in self._counted if one.row.account == account)
            for pairs, value in plan.finish(mine if plan.edges else ()):
                yield account, dict(pairs), value
