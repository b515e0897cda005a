"""The metrics of a run: every aggregation and kind of period, with thresholds that fire often.

Owns what a run's catalog looks like and how it changes while events arrive. Everything is
small, so that accounts, members, tags and thresholds meet.

    stable      made at the start; may grow: thresholds and allowed values are added
    later       made in the midst of the run, when some clients have asked for it already
    temporary   deleted and made anew, with another definition

Events of a temporary metric carry no id: an id is forgotten with its metric, so a resend
could rightly be counted again under the next one of that code, and nobody could tell that
from an error.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from unimeter.sim.chance import Chance
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)

ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe")
LENGTHS: Final = (
    None,
    timedelta(minutes=90),
    timedelta(hours=36),
    timedelta(days=1),
    timedelta(days=73_000),
)
DIMENSIONS: Final = ("model", "region", "tier")
ALLOWED: Final = ("x", "y")
ADDED: Final = ("z", "w", "v")  # values that a list may grow by
THRESHOLDS_MAX: Final = 7
STABLE: Final = {
    "calls": AggType.COUNT,
    "bytes": AggType.SUM,
    "peak": AggType.MAX,
    "floor": AggType.MIN,
    "level": AggType.LATEST,
    "users": AggType.COUNT_UNIQUE,
    "seats": AggType.COUNT_UNIQUE,
    "mean": AggType.AVG,
}
LATER: Final = ("later1", "later2")
TEMPORARY: Final = "temp"
UNKNOWN: Final = "nobody"  # never made

ZONED_HOURS = 0.05  # of the metrics with hours in a zone


@dataclass
class Catalog:
    """The metrics that a run is about, as its clients mean them to be."""

    stable: dict[str, MetricSchema] = field(default_factory=dict)
    later: dict[str, MetricSchema] = field(default_factory=dict)
    temporary: MetricSchema = field(default_factory=lambda: MetricSchema(TEMPORARY, AggType.SUM))

    def schema(self, code: str) -> MetricSchema:
        """The definition that a code begins with."""
        if code == TEMPORARY:
            return self.temporary
        return self.stable[code] if code in self.stable else self.later[code]

    def codes(self) -> list[str]:
        """All codes that are a metric at some time."""
        return [*self.stable, *self.later, TEMPORARY]


def draw_catalog(chance: Chance) -> Catalog:
    """The metrics of a run."""
    catalog = Catalog()
    kinds = list(PeriodType) * 2
    chance.shuffle(kinds)
    for code, agg in STABLE.items():
        catalog.stable[code] = draw_schema(chance, code, agg, kinds.pop())
    for code in LATER:
        catalog.later[code] = draw_schema(chance, code, chance.pick(tuple(AggType)), kinds.pop())
    catalog.temporary = draw_temporary(chance)
    return catalog


def draw_temporary(chance: Chance) -> MetricSchema:
    """The temporary metric anew: another definition under the same code."""
    agg, kind = chance.pick(tuple(AggType)), chance.pick(tuple(PeriodType))
    return draw_schema(chance, TEMPORARY, agg, kind)


def draw_schema(chance: Chance, code: str, agg: AggType, kind: PeriodType) -> MetricSchema:
    """A definition that the rules allow."""
    keys = chance.sample(DIMENSIONS, chance.pick((0, 1, 1, 2, 3)))
    is_unique = agg == AggType.COUNT_UNIQUE
    resolution = chance.pick(tuple(Resolution))
    has_zone = kind != PeriodType.FIXED and chance.hit(0.5)
    zone = chance.pick(ZONES) if has_zone else "UTC"
    if kind == PeriodType.HOUR or resolution == Resolution.HOUR:
        # The hours of a zone are a table of a century, megabytes that every start copies.
        zone = zone if chance.hit(ZONED_HOURS) else "UTC"
    return MetricSchema(
        code,
        agg,
        recurring=is_unique and (code == "seats" or (code != "users" and chance.hit(0.5))),
        period_type=kind,
        billing_cycle_day=chance.pick((1, 15, 28)) if kind == PeriodType.CALENDAR else 1,
        filters=[DimensionFilter(key, list(chance.pick(((), ALLOWED)))) for key in keys],
        thresholds=[draw_threshold(chance, f"t{n}") for n in range(chance.pick((0, 1, 2, 3)))],
        period=chance.pick(LENGTHS) if kind == PeriodType.FIXED else None,
        zone=zone,
        resolution=resolution,
    )


def draw_threshold(chance: Chance, code: str) -> AlertThreshold:
    """A threshold low enough to be crossed."""
    return AlertThreshold(
        code, chance.between(-3, 12), chance.hit(0.5), chance.pick(tuple(Direction))
    )


def draw_growth(chance: Chance, schema: MetricSchema, name: str) -> MetricSchema:
    """The metric with a threshold or an allowed value more."""
    grown = copy.deepcopy(schema)
    lists = [dimension for dimension in grown.filters if dimension.values]
    missing = [v for v in ADDED if lists and v not in lists[0].values]
    if missing and (chance.hit(0.5) or len(grown.thresholds) >= THRESHOLDS_MAX):
        lists[0].values.append(missing[0])
    elif len(grown.thresholds) < THRESHOLDS_MAX:
        grown.thresholds.append(draw_threshold(chance, name))
    return grown


def draw_refusal(chance: Chance, schema: MetricSchema) -> MetricSchema:
    """A change of the metric that is refused, as its history would lose its meaning."""
    other = copy.deepcopy(schema)
    if other.thresholds and chance.hit(0.5):
        other.thresholds[0].value += 1
    else:
        others: Sequence[Resolution] = [r for r in Resolution if r != other.resolution]
        other.resolution = chance.pick(others)
    return other
