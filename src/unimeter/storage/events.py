"""Which stored events counted, and reading them back.

Skeleton of the interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from unimeter.types import EventRecord


class StoredEvent(NamedTuple):
    """One counted event: where it lies and what it says (`row` is engine.records.EventRow)."""

    index: int  # of the log entry
    number: int  # within the entry
    offset: int
    row: object


@dataclass
class EventPage:
    """One page of a listing; `cursor` is empty on the last page."""

    events: list[EventRecord] = field(default_factory=list)
    cursor: str = ""


class EventStore:
    """The counted events of one data directory."""

    def note(self, index: int, outcomes: bytes | memoryview) -> None:
        """Remember the outcomes of an EVENTS entry; call once per entry, in log order."""
        raise NotImplementedError

    def scan(
        self,
        account: int | str | None,
        metric_code: str | None,
        start_ns: int,
        end_ns: int,
        from_index: int = 1,
        to_index: int | None = None,
        cursor: str = "",
        limit: int = 1000,
    ) -> EventPage:
        """One page of counted events with start_ns <= timestamp < end_ns, in log order.

        Callable from any thread. Raises RangeUnavailableError where retention
        removed entries that the answer would need (from_index below the first
        stored one), InvalidInputError for a cursor that is none of ours.
        """
        raise NotImplementedError

    def rows(
        self,
        account: int | str | None,
        metric_code: str | None,
        start_ns: int,
        end_ns: int,
        from_index: int = 1,
        to_index: int | None = None,
    ) -> Iterator[StoredEvent]:
        """The same, all of it and undressed, for answers at the edges of buckets."""
        raise NotImplementedError

    def statistics(self) -> dict[str, int]:
        """outcome_entries, outcome_bytes."""
        raise NotImplementedError
