"""Whether a change of the catalog is accepted: the documented rules, in plain Python.

Owns the second opinion on METRIC_PUT and METRIC_DELETE (docs/concepts/metrics.md, docs/
internals/entries.md): which code answers, given the metric that is live under that name. A
definition may grow (thresholds, values of a dimension that lists them, the field's name) and
nothing else. Refuses to judge a definition by itself, which no honest node proposes in bad
shape (`entry_reading` checks its form), and knows no words: refusals are compared by code.
"""

from __future__ import annotations

from typing import Final

from unimeter.limits import METRIC_NUMBERS_MAX, METRICS_MAX
from unimeter.periods import FIXED_PERIOD_NS_DEFAULT
from unimeter.types import MetricSchema, PeriodType

OK: Final = 0
INVALID_INPUT: Final = 4
NOT_FOUND: Final = 5
ALREADY_EXISTS: Final = 6

CREATE: Final = 1
UPDATE: Final = 2


def put_refusal(
    mode: int, new: MetricSchema, old: MetricSchema | None, live: int, ever: int
) -> int:
    """The error code of a METRIC_PUT, 0 if it is accepted.

    `old` is the live definition of that code, `live` and `ever` how many metrics there are
    and were.
    """
    if old is None:
        if mode == UPDATE:
            return NOT_FOUND
        is_full = live >= METRICS_MAX or ever >= METRIC_NUMBERS_MAX
        return INVALID_INPUT if is_full else OK
    if mode == CREATE:
        return OK if new == old else ALREADY_EXISTS
    return OK if is_growth(old, new) else ALREADY_EXISTS


def is_growth(old: MetricSchema, new: MetricSchema) -> bool:
    """Whether everything that was promised still holds."""
    if length_ns(old) != length_ns(new):
        return False
    for name in ("agg_type", "recurring", "period_type", "billing_cycle_day", "zone", "resolution"):
        if getattr(old, name) != getattr(new, name):
            return False
    allowed = {dimension.key: dimension.values for dimension in new.filters}
    if set(allowed) != {dimension.key for dimension in old.filters}:
        return False
    for dimension in old.filters:
        # No list means "any value", so a list can't appear or go.
        if bool(dimension.values) != bool(allowed[dimension.key]):
            return False
        if not set(dimension.values) <= set(allowed[dimension.key]):
            return False
    thresholds = {threshold.code: threshold for threshold in new.thresholds}
    return all(thresholds.get(threshold.code) == threshold for threshold in old.thresholds)


def length_ns(schema: MetricSchema) -> int:
    """How long a FIXED period is; 0 for others."""
    if schema.period_type != PeriodType.FIXED:
        return 0
    if schema.period is None:
        return FIXED_PERIOD_NS_DEFAULT
    seconds = schema.period.days * 86_400 + schema.period.seconds
    return (seconds * 1_000_000 + schema.period.microseconds) * 1_000
