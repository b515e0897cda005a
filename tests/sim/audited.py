"""The real engine and the auditor, fed the same log: every apply checked, every answer asked.

An `Audited` makes a log as a leader does (`EntryBuilder`, `put_body`), applies it to a real
`Machine`, shows it to an `Auditor`, and answers requests as `server.handlers` does, from the
machine and the stored events of its own log. `thrown` makes one from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from tests.engine.dice import JAN, Dice
from tests.engine.twin import CLUSTER, HASH_KEY, Batch

from unimeter.engine import entries
from unimeter.engine.applied import Applied
from unimeter.engine.catalog import PUT, put_body
from unimeter.engine.decode import EntryBuilder
from unimeter.engine.machine import Machine
from unimeter.engine.records import EventsBody
from unimeter.errors import UnimeterError
from unimeter.periods import DAY_NS, HOUR_NS
from unimeter.server import handlers
from unimeter.sim.auditor import Auditor
from unimeter.storage.events import EventPage, StoredEvent, _parse_cursor, _record
from unimeter.types import MetricSchema, Outcome
from unimeter.wire import messages as m
from unimeter.wire.failures import error_of


class Audited:
    """One machine, its log and its auditor. It is the `node` that handlers need for reads."""

    def __init__(self, timestamp_ns: int = JAN) -> None:
        self.machine = Machine()
        self.auditor = Auditor()
        self.builder = EntryBuilder()
        self.log: list[tuple[int, int, int, bytes]] = []
        self.outcomes: dict[int, bytes] = {}
        self.now = timestamp_ns
        self.apply(entries.GENESIS, entries.genesis_body(CLUSTER, HASH_KEY))

    # --- the log -----------------------------------------------------------------

    def apply(self, kind: int, body: bytes) -> Applied:
        """One more entry, in both, checked."""
        index = len(self.log) + 1
        self.log.append((index, kind, self.now, body))
        self.auditor.committed(index, 1, kind, self.now, body)
        applied = self.machine.apply(index, kind, self.now, body)
        self.outcomes[index] = bytes(applied.outcomes)
        self.auditor.check_applied("n1", applied, index)
        self.auditor.check_touched("n1", self.machine, index)
        return applied

    def put(self, schema: MetricSchema, mode: int = PUT) -> int:
        """Create or change a metric; the code of its refusal."""
        return self.apply(entries.METRIC_PUT, put_body(schema, mode)).error_code

    def delete(self, code: str) -> int:
        """Delete a metric; the code of the refusal."""
        return self.apply(entries.METRIC_DELETE, code.encode()).error_code

    def ingest(self, *batches: Batch, at: int = 0) -> Applied:
        """Batches as one entry."""
        self.now = max(self.now, at)
        self.builder.now_ns = self.now
        for number, batch in enumerate(batches):
            assert self.builder.feed_payload(batch.version, number + 1, batch.payload(), 0) == 0
        sealed = self.builder.seal(self.now, self.machine.next_offset)
        assert sealed is not None
        return self.apply(entries.EVENTS, sealed.body)

    # --- what handlers ask of a node ------------------------------------------------

    def ask(self, request: m.Request) -> m.Response:
        """The response of a node with this machine, by the real handlers."""
        answers: list[m.Response] = []
        try:
            response = handlers.answer(
                cast(Any, self), request, lambda response, position: answers.append(response)
            )
        except UnimeterError as error:
            return error_of(error)
        return response if response is not None else answers[0]

    @property
    def host(self) -> Any:
        """Runs scans at once."""
        return SimpleNamespace(aside=lambda scan, then: then(_tried(scan)))

    @property
    def statistics(self) -> Any:
        """Counts nothing that is looked at."""
        return SimpleNamespace(edge_scans=0)

    @property
    def wal(self) -> Any:
        """A log of which nothing was removed."""
        return SimpleNamespace(first_index=1)

    def clock(self) -> int:
        """The time of the last entry."""
        return self.now

    @property
    def events(self) -> Any:
        """The stored events, without a disk."""
        return SimpleNamespace(rows=self._rows, scan=self._scan)

    def _rows(
        self, account: Any, code: Any, start: int, end: int, first: int, last: int
    ) -> Iterator[StoredEvent]:
        for index, kind, _, body in self.log[: self.machine.applied]:
            if kind == entries.EVENTS and first <= index <= last:
                read = EventsBody(body)
                for number in read.select(account, code, start, end):
                    if self.outcomes[index][number] == Outcome.STORED:
                        offset = read.first_offset + number
                        yield StoredEvent(index, number, offset, read.event(number))

    def _scan(
        self,
        account: Any,
        code: Any,
        start: int,
        end: int,
        first: int,
        last: int,
        cursor: str,
        limit: int,
    ) -> EventPage:
        begin = _parse_cursor(cursor, first)
        page = EventPage()
        for event in self._rows(account, code, start, end, first, last):
            if (event.entry_index, event.number) < begin:
                continue
            if len(page.events) == limit:
                page.cursor = f"{event.entry_index}-{event.number}"
                break
            page.events.append(_record(event))
        return page


def _tried(scan: Any) -> Any:
    try:
        return scan()
    except UnimeterError as error:
        return error


class Questions:
    """Throws requests of every kind."""

    def __init__(self, dice: Dice, codes: list[str]) -> None:
        self.dice, self.codes = dice, codes

    def span(self, audited: Audited, code: str) -> tuple[int, int]:
        """A range, half of the times along periods or buckets, seldom nonsense."""
        one = self.dice.one
        start = self.dice.instant()
        end = start + one(-1, 1, HOUR_NS, DAY_NS, 2 * DAY_NS, 31 * DAY_NS, 100 * DAY_NS)
        metrics = [one for one in audited.auditor.model.metrics if one.schema.code == code]
        if metrics and self.dice.chance(60):
            calendar = one(metrics[-1].calendar, metrics[-1].bucket)
            first = calendar.bounds(start)
            return first[0], max(first[1], calendar.bounds(max(start, end))[1])
        return start, end

    def throw(self, audited: Audited) -> m.Request:
        """A request; its answer is often long, seldom a refusal."""
        one = self.dice.one
        code = one(*self.codes, *self.codes, "unknown")
        account = one(7, 8, "7", "anna", 5)
        start, end = self.span(audited, code)
        metrics = [one for one in audited.auditor.model.metrics if one.schema.code == code]
        declared = [each.key for each in metrics[-1].schema.filters] if metrics else []
        keys = self.dice.random.sample(declared, self.dice.random.randrange(len(declared) + 1))
        if self.dice.chance(5):
            keys = [*keys, "d"]
        filters = {key: [one("", "x", "y", "z")] for key in keys} if self.dice.chance(40) else {}
        limit = one(1, 2, 3, 100)
        window = one(*m.Window) if end - start < 8 * DAY_NS else one(m.Window.WEEK, m.Window.MONTH)
        zone = one("", "Europe/Berlin", "Asia/Kathmandu", "Nowhere/Town")
        return one(  # type: ignore[no-any-return]
            m.UsageQuery(account, code, start, end, filters),
            m.UsageRealtime(account, code),
            m.Breakdown(account, code, start, end, keys, filters),
            m.Series(account, code, start, end, window, zone, filters),
            m.Accounts(code, start, end, limit=limit),
            m.Members(account, code, start, limit=limit),
            m.AlertsList(one(None, account), one(None, code), one(0, 1, 5), limit, one(0, 0, 9)),
            m.EventsList(account, one(None, code), start, end, limit=limit),
            m.MetricList(limit=limit),
            m.MetricList(limit=0),
            m.UsageQuery(account, code, start, end, min_position=10**6),
        )

    def pages(self, audited: Audited, request: m.Request) -> Iterator[tuple[m.Request, m.Response]]:
        """The request and the response, and so on for each further page."""
        for _ in range(50):
            response = audited.ask(request)
            yield request, response
            cursor = getattr(response, "cursor", b"")
            if not cursor:
                return
            request.cursor = cursor  # type: ignore[union-attr]


def thrown(seed: int) -> tuple[Audited, Dice]:
    """A log with all kinds of metrics, changes, late events, duplicates and sessions."""
    dice = Dice(seed)
    audited = Audited()
    codes = ["m", "n"]
    schemas = {code: dice.schema(code) for code in codes}
    for schema in schemas.values():
        assert audited.put(schema) == 0
    sent: list[Batch] = []
    sequences = [0, 0, 0]
    for step in range(dice.one(4, 8, 14)):
        entry = []
        for _ in range(dice.one(1, 1, 3)):
            batch = dice.batch([*codes, "n", "unknown"])
            session = dice.one(0, 1, 2)
            if batch.version == 2 and session:
                sequences[session] += dice.one(1, 1, 1, 2, 9)
                batch = Batch(batch.rows, 2, session, sequences[session])
            entry.append(batch)
        if sent and dice.chance(60):
            again = dice.one(*sent)
            entry.append(again if again.session else dice.resent(again))
        if dice.chance(20):
            entry.append(entry[-1])
        sent += entry
        pause = dice.one(0, 1, HOUR_NS, DAY_NS, 35 * DAY_NS, 36 * DAY_NS)
        audited.ingest(*entry, at=audited.now + pause)
        if dice.chance(15):
            schema = schemas["n"]
            schema.thresholds = [*schema.thresholds, *dice.thresholds(1, f"n{step}")][:8]
            assert audited.put(schema) == 0
        if dice.chance(10):
            assert audited.put(dice.schema(dice.one(*codes)), dice.one(0, 1, 2)) in (0, 6)
            dice.uniques = {each.code for each in schemas.values() if each.agg_type == 4}
        if dice.chance(8):
            assert audited.delete("n") == 0
            assert audited.delete("n") == 5
            schemas["n"] = dice.schema("n")
            assert audited.put(schemas["n"], 2) == 5
            assert audited.put(schemas["n"], 1) == 0
        if dice.chance(10):
            audited.apply(entries.NOOP, b"")
    return audited, dice
