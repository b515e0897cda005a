"""Events from a request into the log, and what is said of each.

Owns what every form of ingest shares: the caller's rights are held against each account and
metric before anything is sent; a batch larger than one entry takes is split; the outcomes are
gathered by the event's place in the request.

    columns ─ rights ─ parts of EVENTS_PER_BATCH_MAX ─ gateway.ingest ─ Tally ─> answer

Parts are stored one after the other, each whole. Where a later one fails, the answer is the
failure and says how many events were counted before it; their ids, or those that an
Idempotency-Key gives, make it safe to send all of it again.

A text that is too long for the wire (255 bytes) is cut to one that is still over the meter's own
limit (64), so that the node refuses that event by its outcome and counts the others. What no
outcome exists for (an account beyond 64 bits) is a mistake of the program: 400.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from unimeter import limits
from unimeter.errors import InvalidInputError, UnimeterError
from unimeter.keys import Principal
from unimeter.server.web.call import Call
from unimeter.server.web.problems import Problem, bad, problem_of
from unimeter.types import Outcome
from unimeter.wire import v2
from unimeter.wire.messages import IngestReply

TEXT_BYTES_MAX: Final = 255  # what the wire holds
CUT_BYTES: Final = 200  # over every limit of the meter, and under the wire's
ACCOUNT_MAX: Final = 2**64 - 1
UNKNOWN: Final = "unknown"  # the outcome of a batch that was sent again after a leader was lost

WORDS: Final = {int(outcome): outcome.name.lower() for outcome in Outcome}
REASONS: Final[dict[str, str]] = {
    "duplicate": "this event was counted before",
    "conflict": "another event with this account, metric and id was counted; ids must differ",
    "bad_metric_code": f"a metric code has 1 to {limits.METRIC_CODE_BYTES_MAX} bytes of UTF-8",
    "bad_account": f"an account has 1 to {limits.ACCOUNT_BYTES_MAX} bytes",
    "bad_timestamp": "the time is outside the years 2000 to 2099",
    "bad_value": "the value does not fit a signed 64-bit integer",
    "bad_operation": "an operation is none, add or remove",
    "too_many_properties": f"an event has at most {limits.PROPERTIES_PER_EVENT_MAX} properties",
    "bad_property": (
        f"a property has a key of 1 to {limits.PROPERTY_KEY_BYTES_MAX} bytes and a value of at "
        f"most {limits.PROPERTY_VALUE_BYTES_MAX}"
    ),
    "bad_id": f"an id has at most {limits.EVENT_ID_BYTES_MAX} bytes",
    "unknown_metric": "there is no metric of this code; create it first",
    "operation_not_allowed": "add and remove are for metrics of the type count-unique",
    "dimension_not_allowed": "the value of a dimension is not among those that are allowed",
    "too_many_combinations": "too many different combinations of dimension values",
    UNKNOWN: "the leader was lost meanwhile; it was counted once or refused",
}


@dataclass(slots=True)
class Tally:
    """What became of the events of one request."""

    outcomes: list[str] | None = field(default_factory=list)  # None: a stream, too many to list
    refusals_max: int = 2**63
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    position: int = 0
    events: int = 0  # that were sent and answered
    refusals: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reply: IngestReply, position: int, columns: v2.Columns) -> None:
        """One part was stored."""
        self.stored += reply.stored
        self.duplicates += reply.duplicates
        self.refused += reply.refused
        self.position = max(self.position, position)
        count, done = len(columns.values), 0
        for outcome, length in reply.runs:
            self._note(WORDS.get(outcome, UNKNOWN), done, length, columns)
            done += length
        self._note(UNKNOWN, done, count - done, columns)
        self.events += count

    def _note(self, word: str, start: int, length: int, columns: v2.Columns) -> None:
        if self.outcomes is not None:
            self.outcomes.extend([word] * length)
        if word in ("stored", "duplicate"):
            return
        room = self.refusals_max - len(self.refusals)
        for at in range(start, start + min(length, room)):
            self.refusals.append(
                {
                    "index": self.events + at,
                    "outcome": word,
                    "reason": REASONS[word],
                    "account": columns.accounts[at],
                    "metric": columns.metric_codes[at],
                    "id": columns.ids[at] if columns.ids else None,
                }
            )

    def body(self) -> dict[str, Any]:
        """The members of the answer."""
        found: dict[str, Any] = {
            "stored": self.stored,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "position": self.position,
            "refusals": self.refusals,
        }
        if self.outcomes is not None:
            found["outcomes"] = self.outcomes
        return found

    def failed(self, error: Exception) -> Problem:
        """The problem of a request that failed after some of it was stored."""
        problem = problem_of(error)
        if self.events:
            problem.more |= self.body()
            problem.detail += (
                f" ({self.events} events before it were answered: {self.stored} stored, "
                f"{self.duplicates} duplicates, {self.refused} refused)"
            )
        return problem


def check_rights(principal: Principal, columns: v2.Columns) -> None:
    """ForbiddenError unless the caller may write to every account and metric."""
    if principal.is_restricted:
        for account, code in dict.fromkeys(
            zip(columns.accounts, columns.metric_codes, strict=True)
        ):
            principal.check_sees(account, code)


async def store(call: Call, columns: v2.Columns, tally: Tally | None = None) -> Tally:
    """Have events counted, durably; says what became of each.

    Raises what the node refused with; with a part stored before it, a Problem that says so.
    """
    found = Tally() if tally is None else tally
    try:
        check_rights(call.principal, columns)
        for part in _parts(columns):
            await store_part(call, part, found)
    except (UnimeterError, Problem) as error:
        raise found.failed(error) from error
    if not columns.values:
        found.position = max(found.position, call.site.server.node.machine.applied)
    return found


async def store_part(call: Call, part: v2.Columns, tally: Tally) -> None:
    """Have one batch counted, at most EVENTS_PER_BATCH_MAX events."""
    try:
        reply, position = await call.site.gateway.ingest(part, call.principal)
    except InvalidInputError:
        fitting = _fitting(part, tally.events)
        reply, position = await call.site.gateway.ingest(fitting, call.principal)
    tally.add(reply, position, part)


def _parts(columns: v2.Columns) -> Iterator[v2.Columns]:
    size = limits.EVENTS_PER_BATCH_MAX
    count = len(columns.values)
    if count <= size:
        if count:
            yield columns
        return
    for start in range(0, count, size):
        yield piece(columns, start, start + size)


def piece(columns: v2.Columns, start: int, stop: int) -> v2.Columns:
    """Events ``[start, stop)`` of `columns`."""
    return replace(
        columns,
        accounts=columns.accounts[start:stop],
        metric_codes=columns.metric_codes[start:stop],
        values=columns.values[start:stop],
        timestamps_ns=columns.timestamps_ns[start:stop] if columns.timestamps_ns else None,
        properties=columns.properties[start:stop] if columns.properties else None,
        operations=columns.operations[start:stop] if columns.operations else None,
        ids=columns.ids[start:stop] if columns.ids else None,
    )


# --- what the wire can't hold --------------------------------------------------------


def _fitting(columns: v2.Columns, first: int) -> v2.Columns:
    """`columns` with over-long texts cut; a problem for what can't be sent at all."""
    for at, account in enumerate(columns.accounts):
        if isinstance(account, int) and not 0 <= account <= ACCOUNT_MAX:
            index = first + at
            expected = "an integer from 0 to 2^64-1, or a string"
            raise bad(f"$[{index}].account", f"is {account}", expected, index)
    return replace(
        columns,
        accounts=[_cut(name) if isinstance(name, str) else name for name in columns.accounts],
        metric_codes=[_cut(code) for code in columns.metric_codes],
        properties=columns.properties and [_cut_pairs(pairs) for pairs in columns.properties],
        ids=columns.ids and [ident and _cut(ident) for ident in columns.ids],
    )


def _cut_pairs(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((_cut(key), _cut(value)) for key, value in pairs[:TEXT_BYTES_MAX])


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= TEXT_BYTES_MAX:
        return text
    return encoded[:CUT_BYTES].decode("utf-8", "ignore")
