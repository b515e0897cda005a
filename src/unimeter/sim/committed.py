"""The committed log as an independent meter reads it: what each entry must have led to.

Owns the way from an entry's bytes to its consequences. The world gives each committed entry
once, in order; its body is read (`entry_reading`), a change of the catalog is accepted or
not (`metric_rules`), one of keys and webhooks too (`admin_model`), requests are counted or known
(`session_model`), and counted (`model`). Everything is kept: what came of an entry, what each
request is to be told, which events count.

Nothing of the engine's code is used on the way, except calendars and the catalogue of nouns.
Not modelled: TOO_MANY_COMBINATIONS, which a run would need four million combinations to
see. Refuses to know nodes and clients; `auditor` holds these to what is found here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from unimeter.limits import SESSION_KEEP_SECONDS, SESSION_WINDOW, SESSIONS_MAX
from unimeter.sim import entry_reading
from unimeter.sim.admin_model import UNAUTHENTICATED, AdminModel, Json, read_admin, read_on_behalf
from unimeter.sim.counting import Request, Row
from unimeter.sim.failures import CheckFailed
from unimeter.sim.likeness import Likeness
from unimeter.sim.metric_rules import NOT_FOUND, put_refusal
from unimeter.sim.model import Model
from unimeter.sim.session_model import NEW, Answered, SessionModel
from unimeter.types import Outcome

NOOP: Final = 0
GENESIS: Final = 1
EVENTS: Final = 2
METRIC_PUT: Final = 3
METRIC_DELETE: Final = 4
ADMIN: Final = 5
ON_BEHALF: Final = 6

WHO: Final = "committed log"


@dataclass(frozen=True)
class Expected:
    """What applying one entry must give."""

    index: int
    term: int
    kind: int
    timestamp_ns: int
    error_code: int = 0  # of a metric change that is refused
    first_offset: int = 0  # of EVENTS
    requests: tuple[Answered, ...] = ()
    alerts_from: int = 1  # positions of the alerts it raises: from here ...
    alerts_to: int = 1  # ... up to, not including, here
    code: str = ""  # of the metric that is put or deleted, by whoever

    @property
    def outcomes(self) -> bytes:
        """One byte an event, in the order of offsets."""
        return b"".join(request.outcomes for request in self.requests)

    @property
    def stored(self) -> int:
        """Events that count from here on."""
        return sum(request.stored for request in self.requests)

    @property
    def duplicates(self) -> int:
        """Events that counted before."""
        return sum(request.duplicates for request in self.requests)

    @property
    def refused(self) -> int:
        """Events that don't count."""
        return sum(request.refused for request in self.requests)


@dataclass(frozen=True)
class Stored:
    """One counted event, and where it stands in the log."""

    index: int
    number: int  # within the entry, from 0
    offset: int
    row: Row


class Committed:
    """Fed with the committed log; knows what must have come of it, then and now."""

    def __init__(
        self,
        sessions_max: int = SESSIONS_MAX,
        session_window: int = SESSION_WINDOW,
        session_keep_seconds: int = SESSION_KEEP_SECONDS,
    ) -> None:
        """The limits are the engine's own; a world that made those smaller says so here."""
        self.position = 0
        self.timestamp_ns = 0
        self.cluster_id = self.hash_key = b""
        self.model = Model()
        self.administration = AdminModel()
        self.sessions = SessionModel(sessions_max, session_window, session_keep_seconds)
        self.stored: list[Stored] = []
        self._expected: list[Expected] = []
        self._sent: dict[tuple[int, int, int], list[Answered]] = {}
        self._by_last_offset: dict[int, list[Answered]] = {}

    # --- the log -----------------------------------------------------------------

    def committed(
        self, index: int, term: int, kind: int, timestamp_ns: int, body: bytes | memoryview
    ) -> Expected:
        """Take the next committed entry; say what applying it must give.

        Checks the form of the body, and that index, offsets and time go on from the entry
        before. Does not check the term, nor a NOOP's time, which means nothing.
        """
        self._check(index == self.position + 1, index, f"follows on {self.position}")
        self._check((kind == GENESIS) == (index == 1), index, f"is of kind {kind}")
        if kind != NOOP:
            self._check(timestamp_ns >= self.timestamp_ns, index, "is older than the one before")
            self.timestamp_ns = timestamp_ns
        data = bytes(body)
        first_alert = len(self.model.alerts) + 1
        expected = Expected(index, term, kind, timestamp_ns)
        if kind == NOOP:
            entry_reading.read_noop(data)
        elif kind == GENESIS:
            self.cluster_id, self.hash_key = entry_reading.read_genesis(data)
            self.model.are_alike = Likeness(self.hash_key).are_alike
        elif kind in (METRIC_PUT, METRIC_DELETE):
            expected = self._change(expected, {}, kind, data)
        elif kind == ON_BEHALF:
            expected = self._change(expected, *read_on_behalf(data))
        elif kind == ADMIN:
            code = self.administration.admin(
                index, timestamp_ns, read_admin(data), len(self.model.alerts)
            )
            expected = replace(expected, error_code=code)
        elif kind == EVENTS:
            expected = self._events(expected, data)
        else:
            raise CheckFailed(WHO, f"entry {index} is of unknown kind {kind}")
        last_alert = len(self.model.alerts) + 1
        expected = replace(expected, alerts_from=first_alert, alerts_to=last_alert)
        self._expected.append(expected)
        self.position = index
        return expected

    def _check(self, holds: bool, index: int, sentence: str) -> None:
        if not holds:
            raise CheckFailed(WHO, f"entry {index} {sentence}")

    def _change(self, expected: Expected, actor: Json, kind: int, body: bytes) -> Expected:
        """A change of the catalog, and its line of the trail; the same again leaves none."""
        put, is_same = kind == METRIC_PUT, False
        if self.administration.is_closed_to(actor):
            code = entry_reading.read_metric_put(body).schema.code if put else body.decode()
            expected = replace(expected, error_code=UNAUTHENTICATED, code=code)
        elif put:
            expected, is_same = self._put(expected, body)
        else:
            expected = self._delete(expected, body)
        if not is_same:
            action = "metric.put" if put else "metric.delete"
            index, timestamp_ns = expected.index, expected.timestamp_ns
            self.administration.metric(
                index, timestamp_ns, actor, action, expected.code, expected.error_code
            )
        return expected

    def _put(self, expected: Expected, body: bytes) -> tuple[Expected, bool]:
        """What a METRIC_PUT must give, and whether the metric was so before."""
        put = entry_reading.read_metric_put(body)
        live = self.model.live()
        old = [metric.schema for metric in live if metric.schema.code == put.schema.code]
        code = put_refusal(
            put.mode, put.schema, old[0] if old else None, len(live), len(self.model.metrics)
        )
        is_same = not code and bool(old) and put.schema == old[0]
        if not code and not is_same:
            self.model.put(put.schema, put.transitions, expected.index)
        return replace(expected, error_code=code, code=put.schema.code), is_same

    def _delete(self, expected: Expected, body: bytes) -> Expected:
        code = entry_reading.read_metric_delete(body)
        if code not in [metric.schema.code for metric in self.model.live()]:
            return replace(expected, error_code=NOT_FOUND, code=code)
        self.model.delete(code, expected.index)
        return replace(expected, code=code)

    def _events(self, expected: Expected, body: bytes) -> Expected:
        entry = entry_reading.read_events(body)
        index, first_offset = expected.index, self.model.next_offset
        self._check(
            entry.first_offset == first_offset,
            index,
            f"begins with offset {entry.first_offset}, not {first_offset}",
        )
        self._check(
            entry.timestamp_ns == expected.timestamp_ns,
            index,
            f"is of {expected.timestamp_ns} ns, its body of {entry.timestamp_ns} ns",
        )
        self.model.go_to(index)
        requests = tuple(
            self._request(request, index, entry.timestamp_ns) for request in entry.requests
        )
        self.sessions.end_entry(index)
        self._note_stored(requests, index, first_offset)
        return replace(expected, first_offset=first_offset, requests=requests)

    def _request(self, request: Request, index: int, now_ns: int) -> Answered:
        """Count one request, unless it was counted before or can't be."""
        is_new, error_code, repeats = True, 0, None
        if request.has_session:
            verdict = self.sessions.begin(request, now_ns)
            is_new = verdict == NEW
            if isinstance(verdict, Answered):
                repeats = verdict
            else:
                error_code = verdict
        rows = request.rows
        if not is_new:
            rows = tuple(replace(row, refused=int(Outcome.DUPLICATE)) for row in rows)
        outcomes = bytes(self.model.count(now_ns, rows))
        last_offset = self.model.next_offset - 1
        answered = Answered(request, index, last_offset, outcomes, error_code, repeats)
        if request.has_session:
            if is_new:
                self.sessions.finish(request, answered)
            self._sent.setdefault((*request.session, request.sequence), []).append(answered)
        if is_new:
            self._by_last_offset.setdefault(last_offset, []).append(answered)
        return answered

    def _note_stored(self, requests: tuple[Answered, ...], index: int, first_offset: int) -> None:
        number = 0
        for answered in requests:
            for row, outcome in zip(answered.request.rows, answered.outcomes, strict=True):
                if outcome == Outcome.STORED:
                    self.stored.append(Stored(index, number, first_offset + number, row))
                number += 1

    # --- what was expected ----------------------------------------------------------

    def expected(self, index: int) -> Expected:
        """What applying entry `index` must give."""
        return self._expected[index - 1]

    def requests_at(self, index: int) -> tuple[Answered, ...]:
        """The requests of an entry in their order; none where it is not of EVENTS."""
        return self.expected(index).requests

    def sent(self, session_hi: int, session_lo: int, sequence: int) -> list[Answered]:
        """Every time that a request stands in the log, in order."""
        return self._sent.get((session_hi, session_lo, sequence), [])

    def reply_of(self, session_hi: int, session_lo: int, sequence: int) -> Answered | None:
        """The one time that it was counted; None if it never was."""
        for answered in self.sent(session_hi, session_lo, sequence):
            if not answered.error_code and answered.repeats is None:
                return answered
        return None

    def answered_at(self, last_offset: int) -> list[Answered]:
        """The counted requests whose last event has this offset: one, beside empty ones."""
        return self._by_last_offset.get(last_offset, [])

    def index_of_offset(self, offset: int) -> int:
        """The entry that has the event of this offset; 0 if none has."""
        for expected in self._expected:
            first = expected.first_offset
            if expected.kind == EVENTS and first <= offset < first + len(expected.outcomes):
                return expected.index
        return 0

    def counted(self, at: int | None = None) -> Iterator[Stored]:
        """Every event in the totals at a position, in log order, of deleted metrics too."""
        return (one for one in self.stored if at is None or one.index <= at)

    def mistaken_marks(self, key: str = "mark") -> set[str]:
        """Marks of events that were taken for others of their id (`likeness`)."""
        rows = self.model.look_alikes
        return {value for row in rows for name, value in row.properties if name == key}

    def counted_marks(self, at: int | None = None, key: str = "mark") -> Counter[str]:
        """How often each value of a property was counted; each must be once, if unique."""
        marks: Counter[str] = Counter()
        for one in self.counted(at):
            marks.update(value for name, value in one.row.properties if name == key)
        return marks
