"""From the replies of several batches to one result for the caller.

One `ingest()` may be split over batches and nodes, and some events are refused
before they are sent. The caller sees one list: `Tally` puts every outcome back
at the index its event had, and says in words what to do about each refusal.

The server remembers only a few outcome runs with a reply. When such a reply is
asked for a second time the later outcomes may be unknown, while the counts
stay exact; then `outcomes` ends before the first unknown one. It is never
filled up with a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from unimeter import limits
from unimeter.errors import UnimeterError
from unimeter.types import Event, IngestResult, Outcome, Refusal
from unimeter.wire.messages import IngestReply

_OUTCOMES = {int(outcome): outcome for outcome in Outcome}


def describe(outcome: Outcome, event: Event) -> str:
    """What is wrong with this event, and what to do about it."""
    code = event.metric_code
    match outcome:
        case Outcome.CONFLICT:
            return f"id {event.id!r} was used before for another event of this account and metric"
        case Outcome.BAD_METRIC_CODE:
            return f"metric code {code!r} must have 1 to {limits.METRIC_CODE_BYTES_MAX} bytes"
        case Outcome.BAD_ACCOUNT:
            return (
                f"account {event.account_id!r} must be an integer from 0 to 2**64-1 "
                f"or a string of 1 to {limits.ACCOUNT_BYTES_MAX} bytes"
            )
        case Outcome.BAD_TIMESTAMP:
            return f"timestamp {event.timestamp} is before the year 2000 or from 2100 on"
        case Outcome.BAD_VALUE:
            return f"value {event.value} does not fit a signed 64-bit integer"
        case Outcome.BAD_OPERATION:
            return f"operation {event.operation_type!r} is none of NONE, ADD and REMOVE"
        case Outcome.TOO_MANY_PROPERTIES:
            return (
                f"{len(event.properties)} properties are more than "
                f"{limits.PROPERTIES_PER_EVENT_MAX}"
            )
        case Outcome.BAD_PROPERTY:
            return (
                f"a property's key must have 1 to {limits.PROPERTY_KEY_BYTES_MAX} bytes "
                f"and its value at most {limits.PROPERTY_VALUE_BYTES_MAX}: {event.properties!r}"
            )
        case Outcome.BAD_ID:
            return f"id {event.id!r} must have 1 to {limits.EVENT_ID_BYTES_MAX} bytes"
        case Outcome.UNKNOWN_METRIC:
            return f"metric {code!r} does not exist; create it and send the event again"
        case Outcome.OPERATION_NOT_ALLOWED:
            return f"metric {code!r} does not count members, so it takes no ADD or REMOVE"
        case Outcome.DIMENSION_NOT_ALLOWED:
            return (
                f"metric {code!r} lists the values a dimension may have, "
                f"and one of {event.properties!r} is not among them"
            )
        case Outcome.TOO_MANY_COMBINATIONS:
            return f"metric {code!r} has too many combinations of dimension values"
        case _:
            return outcome.name.lower().replace("_", " ")


class Tally:
    """The result of one `ingest()` while its batches come in."""

    def __init__(self, events: Sequence[Event], refused: dict[int, Outcome]) -> None:
        self._events = events
        self._outcomes: list[Outcome | None] = [None] * len(events)
        self._stored = self._duplicates = self._last_offset = self._position = 0
        self._refused = len(refused)
        self._all_stored = not refused
        for index, outcome in refused.items():
            self._outcomes[index] = outcome

    def add(self, indexes: Sequence[int], reply: IngestReply, position: int) -> None:
        """Take the reply to the batch made of the events at `indexes`."""
        self._stored += reply.stored
        self._duplicates += reply.duplicates
        self._refused += reply.refused
        self._last_offset = max(self._last_offset, reply.last_offset)
        self._position = max(self._position, position)
        self._all_stored &= reply.stored == len(indexes)
        if reply.stored != len(indexes):
            self._spread(indexes, reply)
        else:
            for index in indexes:
                self._outcomes[index] = Outcome.STORED

    def _spread(self, indexes: Sequence[int], reply: IngestReply) -> None:
        """Put the runs of a reply where its events came from."""
        runs = [(_OUTCOMES[outcome], length) for outcome, length in reply.runs]
        missing = len(indexes) - sum(length for _, length in runs)
        if missing > 0:
            runs += _remainder(reply, runs, missing)
        place = iter(indexes)
        for outcome, length in runs:
            for _, index in zip(range(length), place, strict=False):
                self._outcomes[index] = outcome

    def explain(self, error: UnimeterError) -> None:
        """Say in an error which part of a divided `ingest()` was counted before it."""
        counted = self._stored + self._duplicates
        if counted or self._refused:
            error.add_note(
                f"of this call's {len(self._events)} events {counted} are counted and "
                f"{self._refused} were refused; the error concerns the others"
            )

    def result(self) -> IngestResult:
        """The result as it stands: complete once every batch was added."""
        outcomes: list[Outcome] = []
        refusals: list[Refusal] = []
        if self._all_stored and self._stored == len(self._events):
            outcomes = [Outcome.STORED] * len(self._events)
        else:
            for index, outcome in enumerate(self._outcomes):
                if outcome is None:
                    break
                outcomes.append(outcome)
                if not outcome.counted:
                    message = describe(outcome, self._events[index])
                    refusals.append(Refusal(index, outcome, message))
        return IngestResult(
            self._stored,
            self._duplicates,
            self._last_offset,
            self._refused,
            self._position,
            outcomes,
            refusals,
        )


def _remainder(
    reply: IngestReply, runs: list[tuple[Outcome, int]], missing: int
) -> list[tuple[Outcome, int]]:
    """The outcomes a remembered reply left out, where its counts leave only one choice."""
    stored = sum(length for outcome, length in runs if outcome == Outcome.STORED)
    duplicates = sum(length for outcome, length in runs if outcome == Outcome.DUPLICATE)
    if reply.stored - stored == missing:
        return [(Outcome.STORED, missing)]
    if reply.duplicates - duplicates == missing:
        return [(Outcome.DUPLICATE, missing)]
    return []
