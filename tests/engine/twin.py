"""The engine and the independent meter, fed the same log and asked the same questions.

A `Twin` keeps both, the log itself and the stored events that were counted,
so that a test can compare outcomes, alerts and every kind of answer, replay the
log from the start, or restore from a snapshot in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from unimeter.engine import entries, query
from unimeter.engine.applied import Applied
from unimeter.engine.catalog import PUT, put_body
from unimeter.engine.decode import EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.records import EventsBody
from unimeter.periods import zone_transitions
from unimeter.sim.counting import Row
from unimeter.sim.model import Model
from unimeter.types import Account, AggType, AggValue, MetricSchema, Outcome
from unimeter.wire import messages
from unimeter.wire.v1_requests import encode_ingest
from unimeter.wire.v2_ingest import encode_ingest_request

CLUSTER = b"cluster of tests"
HASH_KEY = b"a key for hashes"
Filters = dict[str, Any] | None


@dataclass(frozen=True)
class Batch:
    """One ingest request."""

    rows: tuple[messages.IngestRow, ...]
    version: int = 2
    session: int = 0
    sequence: int = 0

    def payload(self) -> bytes:
        """As the client of that version sends it."""
        if self.version == 1:
            return encode_ingest(self.rows)
        return encode_ingest_request(
            messages.Ingest(list(self.rows), self.session, self.session and 1, self.sequence)
        )


class Twin:
    """Both meters, in step."""

    def __init__(self, timestamp_ns: int) -> None:
        self.machine = Machine()
        self.model = Model()
        self.builder = EntryBuilder()
        self.log: list[tuple[int, int, int, bytes]] = []
        self.stored: list[tuple[int, int, Any]] = []  # (entry index, offset, row) of counted ones
        self.now = timestamp_ns
        self._apply(entries.GENESIS, entries.genesis_body(CLUSTER, HASH_KEY))

    def _apply(self, kind: int, body: bytes) -> Applied:
        index = len(self.log) + 1
        self.log.append((index, kind, self.now, body))
        return self.machine.apply(index, kind, self.now, body)

    def put(self, schema: MetricSchema, mode: int = PUT) -> str:
        """Create or change a metric in both; the machine's refusal, if any."""
        applied = self._apply(entries.METRIC_PUT, put_body(schema, mode))
        if not applied.error_code:
            self.model.put(schema, zone_transitions(schema.zone), applied.index)
        return applied.error

    def delete(self, code: str) -> None:
        """Delete a metric in both."""
        assert self._apply(entries.METRIC_DELETE, code.encode()).error == ""
        self.model.delete(code, len(self.log))

    def ingest(self, *batches: Batch, at: int | None = None) -> list[list[Outcome]]:
        """Feed batches as one entry; both must find the same outcomes."""
        self.now = max(self.now, at or 0)
        self.builder.now_ns = self.now
        for number, batch in enumerate(batches):
            assert self.builder.feed_payload(batch.version, number + 1, batch.payload(), 0) == 0
        sealed = self.builder.seal(self.now, self.machine.next_offset)
        assert sealed is not None
        applied = self._apply(entries.EVENTS, sealed.body)
        outcomes = [Outcome(outcome) for outcome in applied.outcomes]
        body = EventsBody(sealed.body)
        rows = [
            self._row(body.event(number), batch.version) for batch, number in _numbered(batches)
        ]
        self._store(applied, body, outcomes)
        expected = self.model.ingest(self.now, rows, applied.index)
        assert outcomes == expected
        assert len(self.model.alerts) == self.machine.counter.alert_count == applied.alerts_to - 1
        parts, first = [], 0
        for batch in batches:
            parts.append(outcomes[first : first + len(batch.rows)])
            first += len(batch.rows)
        return parts

    def _row(self, event: Any, version: int) -> Row:
        return Row(
            event.account,
            event.metric_code,
            event.value,
            event.timestamp_ns,
            event.timestamp_given,
            event.operation,
            tuple(event.properties.items()),
            event.id,
            version == 1,
            event.refused,
        )

    def _store(self, applied: Applied, body: EventsBody, outcomes: Sequence[Outcome]) -> None:
        for number, outcome in enumerate(outcomes):
            if outcome == Outcome.STORED:
                event = body.event(number)
                self.stored.append((applied.index, applied.first_offset + number, event))

    # --- asking -----------------------------------------------------------------

    def answer(self, plan: query.Plan[Any]) -> Any:
        """Finish a plan with the stored events of its edges."""
        rows = []
        for edge in plan.edges:
            for index, offset, event in self.stored:
                if (
                    plan.from_index <= index <= plan.position
                    and edge.account in (None, event.account)
                    and edge.metric_code == event.metric_code
                    and edge.start_ns <= event.timestamp_ns < edge.end_ns
                ):
                    rows.append(SimpleNamespace(offset=offset, row=event))
        assert len({id(row.row) for row in rows}) == len(rows), "edges overlap"
        return plan.finish(rows)

    def check_total(
        self, account: Account, code: str, start: int, end: int, filters: Filters = None
    ) -> AggValue:
        """The machine's total, which must be the meter's."""
        plan = query.plan_total(self.machine, account, code, start, end, filters)
        total = self.answer(plan)
        assert total == self.model.total(account, code, start, end, filters)
        return total  # type: ignore[no-any-return]

    def check_everything(
        self,
        account: Account,
        code: str,
        start: int,
        end: int,
        keys: Sequence[str] = (),
        filters: Filters = None,
        window: int = 1,
        zone: str = "",
    ) -> None:
        """Every kind of answer for one range."""
        self.check_total(account, code, start, end)
        self.check_total(account, code, start, end, filters)
        if keys:
            lines = self.answer(
                query.plan_breakdown(self.machine, account, code, start, end, keys, filters)
            )
            assert lines == self.model.breakdown(account, code, start, end, keys, filters)
        series = query.plan_series(self.machine, account, code, start, end, window, zone, filters)
        expected = self.model.series(account, code, start, end, window, zone, filters)
        assert self.answer(series) == expected
        self.check_accounts(code, start, end)
        if self.model.find(code).schema.agg_type == AggType.COUNT_UNIQUE:
            self.check_members(account, code, start)

    def check_accounts(self, code: str, start: int, end: int, limit: int = 2) -> None:
        """All pages of the accounts of a metric."""
        found, cursor = {}, b""
        while True:
            page, cursor = self.answer(
                query.plan_accounts(self.machine, code, start, end, cursor, limit)
            )
            assert len(page) <= limit
            for line in page:
                assert line.account_id not in found
                found[line.account_id] = line.value
            if not cursor:
                break
        assert found == self.model.accounts(code, start, end)

    def check_members(self, account: Account, code: str, at: int, limit: int = 2) -> None:
        """All pages of the members active at an instant."""
        found: list[int] = []
        cursor = b""
        while True:
            page, cursor = self.answer(
                query.plan_members(self.machine, account, code, at, cursor, limit)
            )
            found += page
            if not cursor:
                break
        assert found == self.model.members(account, code, at)

    def check_alerts(self) -> None:
        """Every alert, in order."""
        lines, more = query.list_alerts(self.machine)
        assert not more
        expected = [vars(replace(alert, index=0)) for alert in self.model.alerts]
        assert [{**vars_of(line), "index": 0} for line in lines] == expected

    def check_replay(self) -> None:
        """The same log gives the same bytes, from the start and from any snapshot of it."""
        fresh = Machine()
        for entry in self.log:
            fresh.apply(*entry)
        assert state(fresh) == state(self.machine)
        assert state(Machine.restore(state(fresh))) == state(self.machine)
        fresh.check_invariants()


def _numbered(batches: Sequence[Batch]) -> list[tuple[Batch, int]]:
    flat = [batch for batch in batches for _ in batch.rows]
    return list(zip(flat, range(len(flat)), strict=True))


def vars_of(line: query.AlertLine) -> dict[str, Any]:
    """A slotted dataclass as the dict of its fields."""
    return {name: getattr(line, name) for name in line.__slots__}


def state(machine: Machine) -> bytes:
    """A snapshot as one byte string."""
    return b"".join(bytes(buffer) for buffer in machine.snapshot())


def event(
    account: Account = 7,
    code: str = "m",
    value: int = 1,
    at: int = 0,
    operation: int = 0,
    id: str | None = None,  # noqa: A002
    **properties: str,
) -> messages.IngestRow:
    """One event of a batch."""
    return messages.IngestRow(account, code, value, at, operation, tuple(properties.items()), id)


__all__ = ["Batch", "Twin", "event", "replace", "state"]
