"""The questions that clients ask: every kind of read, over ranges that cut and that fit.

Owns requests, not answers. Pages are small, so that lists have several. Ranges begin and
end beside the edges of buckets and periods as often as inside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from unimeter.sim.chance import Chance
from unimeter.sim.events import DAY_NS, HOUR_NS, SECOND_NS
from unimeter.sim.schemas import ALLOWED, LATER, TEMPORARY, UNKNOWN, ZONES, Catalog
from unimeter.types import Account, AggType, Event
from unimeter.wire.messages import (
    Accounts,
    AlertsList,
    Breakdown,
    EventsList,
    Members,
    MetricList,
    Read,
    Series,
    UsageQuery,
    UsageRealtime,
    Window,
)

KINDS: Final = {
    "total": 4.0,
    "realtime": 2.0,
    "breakdown": 2.0,
    "series": 1.5,
    "accounts": 1.5,
    "members": 1.5,
    "events": 1.5,
    "alerts": 1.5,
    "metrics": 1.0,
}
WINDOW_DAYS_MAX: Final = {Window.HOUR: 3, Window.DAY: 40, Window.WEEK: 400, Window.MONTH: 400}


class QuestionSource:
    """What one client wants to know."""

    def __init__(
        self, chance: Chance, accounts: Sequence[Account], catalog: Catalog, start_ns: int
    ) -> None:
        self._chance, self._accounts, self._catalog = chance, accounts, catalog
        self._start_ns = start_ns

    def draw(self, seconds: float) -> Read:
        """Any question, asked about `seconds` after the beginning."""
        chance = self._chance
        code = chance.pick(list(self._catalog.stable))
        if chance.hit(0.15):
            code = chance.pick((*LATER, TEMPORARY, TEMPORARY, UNKNOWN))
        request = self._of_kind(chance.weighted(KINDS), code, chance.pick(self._accounts), seconds)
        request.linearizable = chance.hit(0.3)
        return request

    def about(self, event: Event, seconds: float) -> Read:
        """The total that an event just sent went into."""
        start = self._start_ns - 100 * DAY_NS
        end = self._start_ns + 100 * DAY_NS
        if self._chance.hit(0.3):
            return UsageRealtime(event.account_id, event.metric_code)
        return UsageQuery(event.account_id, event.metric_code, start, end)

    def draw_old(self, seconds: float) -> Read:
        """A question that version 1 has words for."""
        chance = self._chance
        account = chance.pick([a for a in (7, 8, *self._accounts) if isinstance(a, int)])
        code = chance.pick(list(self._catalog.stable))
        start, end = self._range(seconds)
        choices: list[Read] = [
            UsageQuery(account, code, start, end),
            UsageRealtime(account, code),
            EventsList(account, None, start, end),
            MetricList(),
        ]
        return chance.pick(choices)

    def _of_kind(self, kind: str, code: str, account: Account, seconds: float) -> Read:
        chance = self._chance
        start, end = self._range(seconds)
        limit = chance.pick((1, 3, 5, 1000))
        match kind:
            case "total":
                return UsageQuery(account, code, start, end, self._filters(code))
            case "realtime":
                return UsageRealtime(account, code)
            case "breakdown":
                keys = self._keys(code) or ["model"]
                return Breakdown(account, code, start, end, keys, self._filters(code))
            case "series":
                return self._series(account, code, start, end)
            case "accounts":
                return Accounts(code, start, end, limit=limit)
            case "members":
                unique = [c for c in self._catalog.stable if self._counts_members(c)]
                at_ns = self._moment(seconds)
                return Members(account, chance.pick(unique), at_ns, limit=limit)
            case "events":
                only = code if chance.hit(0.5) else None
                return EventsList(account, only, start, end, limit=max(3, limit))
            case "alerts":
                one = account if chance.hit(0.4) else None
                only = code if chance.hit(0.3) else None
                return AlertsList(one, only, chance.pick((0, 0, 3, 10)), max(3, limit))
            case _:
                return MetricList(limit=max(3, limit))

    def _series(self, account: Account, code: str, start: int, end: int) -> Series:
        chance = self._chance
        window = chance.pick(tuple(Window))
        end = min(end, start + WINDOW_DAYS_MAX[window] * DAY_NS)
        zone = chance.pick(("", *ZONES))
        return Series(account, code, start, end, window, zone, self._filters(code))

    def _counts_members(self, code: str) -> bool:
        return self._catalog.schema(code).agg_type == AggType.COUNT_UNIQUE

    def _keys(self, code: str) -> list[str]:
        if code == UNKNOWN:
            return []
        declared = [dimension.key for dimension in self._catalog.schema(code).filters]
        return self._chance.sample(declared, self._chance.between(0, len(declared)))

    def _filters(self, code: str) -> dict[str, list[str]]:
        if self._chance.hit(0.5):
            return {}
        choices = ([ALLOWED[0]], [ALLOWED[1]], list(ALLOWED), ["", "z"])
        return {key: list(self._chance.pick(choices)) for key in self._keys(code)}

    # --- times -----------------------------------------------------------------------

    def _moment(self, seconds: float) -> int:
        chance = self._chance
        now = self._start_ns + int(seconds * 1e6) * 1000
        days = chance.pick((0, 0, 0, 1, 2, 31, 90))
        back = days * DAY_NS + chance.pick((0, 0, 1, 5)) * HOUR_NS
        edge = self._start_ns if chance.hit(0.5) else now
        return edge - back + chance.pick((-1, 0, 1, 1)) * chance.pick((1, SECOND_NS))

    def _range(self, seconds: float) -> tuple[int, int]:
        chance = self._chance
        start = self._moment(seconds)
        length = chance.pick((1, HOUR_NS, DAY_NS, 2 * DAY_NS, 31 * DAY_NS, 100 * DAY_NS))
        return start, start + length


def asked(request: Read) -> Read:
    """The request to send now: a list's pages change theirs as they go on."""
    return replace(request)
