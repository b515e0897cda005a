"""The newest events, whatever became of them: stored, sent twice, refused.

Owns the walk from the end of the log backwards, for whoever watches events come in. The log holds
every event that was sent; which of them counted, and of the newest ones why not, the event store
knows. It looks at a bounded number of events and says where to go on, so a filter that nothing
passes costs no more than one that all do.

Reading runs in any thread while the log is written, like all of `events`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from unimeter.engine.records import EventRow, EventsBody
from unimeter.errors import InvalidInputError
from unimeter.storage.events import EventStore

LOOKED_MAX: Final = 20_000  # events of one page that are looked at: 100 ms of a worker
_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,9})")


class SeenEvent(NamedTuple):
    """One event as it was sent, and what became of it; None: not counted, the reason is lost."""

    offset: int
    row: EventRow
    outcome: int | None


@dataclass
class SeenPage:
    """Newest first; `cursor` goes on further back, "" = nothing is stored there."""

    events: list[SeenEvent] = field(default_factory=list)
    cursor: str = ""


def newest_events(
    store: EventStore,
    chooses: Callable[[EventRow, int | None], bool],
    cursor: str = "",
    limit: int = 100,
    looked_max: int = LOOKED_MAX,
) -> SeenPage:
    """A page of events that `chooses` takes, newest first. Any thread.

    A page may hold fewer than `limit`, even none: only an empty cursor is the end.
    """
    before, at = _parsed(cursor)
    page, looked = SeenPage(), 0
    for index, body in store.bodies_back(before + 1 if before else 0):
        number = body.event_count - 1
        if index == before:
            number = min(number, at)
        while number >= 0:
            if looked == looked_max or len(page.events) == limit:
                page.cursor = f"{index}-{number}"
                return page
            looked += 1
            seen = _seen(store, index, body, number)
            if chooses(seen.row, seen.outcome):
                page.events.append(seen)
            number -= 1
    return page


def _seen(store: EventStore, index: int, body: EventsBody, number: int) -> SeenEvent:
    row = body.event(number)
    outcome = row.refused or store.outcome_of(index, number)
    return SeenEvent(body.first_offset + number, row, outcome)


def _parsed(cursor: str) -> tuple[int, int]:
    """(entry, event) to begin with; (0, 0) for the end of the log."""
    if not cursor:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None or not int(match[1]):
        raise InvalidInputError(f"cursor {cursor!r} is not one that a page gave")
    return int(match[1]), int(match[2])
