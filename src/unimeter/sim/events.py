"""The events that clients send: good ones, late ones, resent ones and bad ones.

Owns what a batch is made of. Every logical event carries an undeclared property `mark`
with a text that no other one has, so that the checks can follow it into the log: a resend
of an event has its mark, and an event under a used id with another body has a mark of its
own. Times are drawn with the plan, so that a resend says what the first send said.

The run begins at midnight, with a day, a week's day and a year: the events around it fall
into two periods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from unimeter.limits import EVENT_ID_BYTES_MAX
from unimeter.sim.chance import Chance
from unimeter.sim.schemas import ADDED, ALLOWED, DIMENSIONS, LATER, TEMPORARY, UNKNOWN, Catalog
from unimeter.types import (
    Account,
    AggType,
    DeliveryMode,
    Event,
    OperationType,
    from_ns,
)

MARK: Final = "mark"
SECOND_NS: Final = 10**9
HOUR_NS: Final = 3600 * SECOND_NS
DAY_NS: Final = 24 * HOUR_NS
ACCOUNTS: Final[tuple[Account, ...]] = (7, 8, 2**64 - 1, "7", "anna", "österreich-gmbh")
EXTREMES: Final = (2**63 - 1, -(2**63), 2**62, -(10**12))
DAYS_LATE: Final = (1, 1, 2, 7, 30, 31, 45, 89)


class EventSource:
    """What one client has to send."""

    def __init__(
        self,
        chance: Chance,
        name: str,
        accounts: Sequence[Account],
        catalog: Catalog,
        start_ns: int,
        shared: Sequence[Event] = (),
    ) -> None:
        """`start_ns`: the wall-clock time at which the run begins.

        `shared`: events with an id that other clients send, too.
        """
        self._chance, self._name, self._accounts = chance, name, accounts
        self._catalog, self._start_ns, self._shared = catalog, start_ns, shared
        self._marks = self._ids = 0
        self._sent: list[Event] = []  # with an id

    # --- batches ---------------------------------------------------------------------

    def batch(self, size: int, *, all_ids: bool, seconds: float) -> list[Event]:
        """Events of a call that is made about `seconds` after the beginning."""
        chance = self._chance
        events = []
        for _ in range(size):
            event = self._again() if all_ids or chance.hit(0.3) else None
            if event is None:
                event = self._event(seconds, has_id=all_ids or chance.hit(0.3))
            events.append(event)
        if not all_ids and chance.hit(0.15):
            events[chance.below(size)] = self._bad(seconds)
        if chance.hit(0.1):
            events[0] = replace(events[0], delivery_mode=DeliveryMode.SYNC)
        return events

    def old_batch(self, size: int, *, is_timed: bool, seconds: float) -> list[Event]:
        """Events that version 1 can carry; timed ones may be sent again as they are."""
        events = []
        for _ in range(size):
            event = self._event(seconds, has_id=False, is_stable=True)
            account = self._chance.pick([a for a in ACCOUNTS if isinstance(a, int)])
            timestamp = from_ns(self._near(seconds)) if is_timed else None
            events.append(
                replace(event, account_id=account, value=abs(event.value), timestamp=timestamp)
            )
        return events

    def shared(self, count: int) -> list[Event]:
        """Events that several clients will send."""
        return [self._event(2.0, has_id=True, is_stable=True) for _ in range(count)]

    def last(self, seconds: float) -> Event:
        """A plain event that can't be refused."""
        event = self._event(seconds, has_id=True, is_stable=True)
        return replace(event, metric_code="calls", properties={MARK: event.properties[MARK]},
                       operation_type=OperationType.NONE)  # fmt: skip

    # --- one event -------------------------------------------------------------------

    def _event(self, seconds: float, *, has_id: bool, is_stable: bool = False) -> Event:
        chance = self._chance
        stable = list(self._catalog.stable)
        code = chance.pick(stable)
        if not is_stable and chance.hit(0.1):
            code = chance.pick(LATER)
        elif not is_stable and not has_id and chance.hit(0.15):
            code = TEMPORARY
        is_unique = self._catalog.schema(code).agg_type == AggType.COUNT_UNIQUE
        is_unique = is_unique and code != TEMPORARY
        event = Event(
            chance.pick(self._accounts),
            code,
            chance.between(-2, 6),
            operation_type=chance.pick(tuple(OperationType)) if is_unique else OperationType.NONE,
            properties=self._tags(code),
        )
        if not is_stable and chance.hit(0.02):
            event.value = chance.pick(EXTREMES)
        if chance.hit(0.7):
            event.timestamp = from_ns(self._moment(seconds))
        if has_id:
            self._ids += 1
            event.id = f"{self._name}-{self._ids}"
            self._sent.append(event)
        return event

    def _again(self) -> Event | None:
        """An event under an id that was used before: the same, or another."""
        chance = self._chance
        choices = [*self._sent[-20:], *self._shared]
        if not choices or chance.hit(0.75):
            return None
        event = chance.pick(choices)
        if chance.hit(0.7):
            return event
        other = replace(event, properties={**event.properties, MARK: self._mark()})
        if chance.hit(0.5):
            other.value += 1
        return other

    def _bad(self, seconds: float) -> Event:
        """An event that is refused, by the client or by the node."""
        chance = self._chance
        event = self._event(seconds, has_id=False, is_stable=True)
        match chance.below(5):
            case 0:
                return replace(event, metric_code=UNKNOWN)
            case 1:
                return replace(event, properties={**event.properties, "region": "nowhere"})
            case 2:
                return replace(event, id="i" * (EVENT_ID_BYTES_MAX + 1))
            case 3:
                return replace(event, metric_code="calls", operation_type=OperationType.ADD)
            case _:
                return replace(event, value=2**63)

    def _mark(self) -> str:
        self._marks += 1
        return f"{self._name}.{self._marks}"

    def _tags(self, code: str) -> dict[str, str]:
        chance = self._chance
        tags = {}
        for key in chance.sample(DIMENSIONS, chance.pick((0, 1, 2, 3))):
            tags[key] = chance.pick((*ALLOWED, *ALLOWED, *ALLOWED, ADDED[0]))
        tags[MARK] = self._mark()
        return tags

    # --- times -----------------------------------------------------------------------

    def _near(self, seconds: float) -> int:
        """Around the moment of the call, to the microsecond."""
        now = self._start_ns + int(seconds * 1e6) * 1000
        return now + self._chance.between(-2_000_000, 1_000_000) * 1000

    def _moment(self, seconds: float) -> int:
        """About now, some time ago, beside the edge of a period, or in the future."""
        chance = self._chance
        match chance.below(10):
            case 0 | 1 | 2 | 3 | 4:
                return self._near(seconds)
            case 5 | 6:
                return self._near(seconds) - chance.between(1, 72) * HOUR_NS // 3
            case 7:
                return self._near(seconds) - chance.pick(DAYS_LATE) * DAY_NS
            case 8:
                edge = self._start_ns - chance.pick((0, 1, 2, 31)) * DAY_NS
                return edge + chance.pick((-1000, 0, 1000))
            case _:
                return self._near(seconds) + chance.pick((1, 2, 24, 800)) * HOUR_NS
