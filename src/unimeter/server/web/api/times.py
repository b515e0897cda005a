"""Instants and ranges of a request, and how an answer writes a time.

Owns which parameters name a range: ``start`` and ``end`` (half-open), or ``period=current``,
which is also what no range at all means. An instant is RFC 3339 with its zone, a day
(``2026-11-05``, midnight UTC), or nanoseconds since 1970 in digits.

Refuses to guess a zone, and half a range.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from unimeter.errors import InvalidInputError
from unimeter.instants import EXPECTED, format_ns, parse_ns
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.server.web.call import Call
from unimeter.server.web.problems import bad

CURRENT: Final = "current"
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COUNT: Final = re.compile(r"[0-9]{1,19}")


class Span(NamedTuple):
    """A half-open range in nanoseconds."""

    start_ns: int
    end_ns: int


def time_text(ns: int) -> str | None:
    """RFC 3339 in UTC; None for 0, which stands for no time at all."""
    return format_ns(ns) if ns else None


def instant_of(text: str, name: str) -> int:
    """Nanoseconds of an instant as a parameter gives it."""
    try:
        if _COUNT.fullmatch(text):
            found = int(text)
        else:
            found = parse_ns(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except InvalidInputError as error:
        raise bad(name, str(error), EXPECTED) from None
    if not TIMESTAMP_NS_MIN <= found <= TIMESTAMP_NS_MAX:
        raise bad(name, f"{text[:40]!r} is outside the years 2000 to 2099", EXPECTED)
    return found


def instant(call: Call, name: str, default: int | None = None) -> int:
    """A parameter that is an instant."""
    text = call.text(name, "" if default is not None else None)
    if not text:
        assert default is not None
        return default
    return instant_of(text, name)


def given_span(call: Call) -> Span | None:
    """The range that a request names; None where it is the current period."""
    period = call.text("period", "")
    start, end = call.text("start", ""), call.text("end", "")
    if period:
        if period != CURRENT:
            raise bad("period", f"is {period[:40]!r}", "current, or start and end instead")
        if start or end:
            raise bad("period", "stands beside start or end", "one or the other")
        return None
    if not start and not end:
        return None
    found = Span(instant(call, "start"), instant(call, "end"))
    if found.end_ns <= found.start_ns:
        raise bad("end", "is not after start", "a range [start, end)")
    return found


def current_span(call: Call, metric_code: str) -> Span:
    """The billing period of a metric that holds now; NotFoundError if there is no such metric."""
    node = call.site.server.node
    now = min(max(node.clock(), TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
    with node.lock:
        return Span(*node.machine.catalog.find(metric_code).period.bounds(now))


def span(call: Call, metric_code: str) -> Span:
    """The range that a request names, or the current period of the metric."""
    return given_span(call) or current_span(call, metric_code)
