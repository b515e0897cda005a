"""Logs thrown from one seed: denser than hypothesis makes them, and much faster.

Everything is small on purpose, so that accounts, members, ids, tags and instants
meet, and so that thresholds are crossed again and again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.engine.twin import Batch, Twin, event

from unimeter.periods import DAY_NS, HOUR_NS
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
    to_ns,
)

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
ACCOUNTS: list[int | str] = [7, 8, 2**64 - 1, "7", "anna"]
TAGS = ["", "x", "y", "z"]
EXTREMES = [2**63 - 1, -(2**63), 2**62, -(10**12)]
LENGTHS = [None, timedelta(minutes=90), timedelta(hours=36), timedelta(days=1), timedelta(73_000)]


@dataclass
class Dice:
    """Throws schemas, batches, ranges and questions."""

    seed: int

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.uniques: set[str] = set()

    def one(self, *items: Any) -> Any:
        return self.random.choice(items)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def instant(self) -> int:
        """On and beside the edges of buckets, within a few months."""
        day = self.one(0, 0, 0, 1, 1, 2, 29, 30, 31, 45, 60, 89, 90)
        hour = self.one(0, 0, 1, 5, 18, 23)
        return int(JAN + day * DAY_NS + hour * HOUR_NS + self.one(-1, 0, 1, 900 * 10**9, 10**12))

    def thresholds(self, count: int, name: str = "t") -> list[AlertThreshold]:
        return [
            AlertThreshold(
                f"{name}{number}",
                self.random.randrange(-3, 7),
                self.chance(50),
                self.one(*Direction),
            )
            for number in range(count)
        ]

    def schema(self, code: str = "m") -> MetricSchema:
        agg = self.one(*AggType, AggType.COUNT_UNIQUE, AggType.COUNT_UNIQUE)
        self.uniques.discard(code)
        if agg == AggType.COUNT_UNIQUE:
            self.uniques.add(code)
        kind = self.one(*PeriodType)
        keys = self.random.sample(["a", "b", "c"], self.one(0, 0, 1, 2, 3))
        return MetricSchema(
            code,
            agg,
            recurring=agg == AggType.COUNT_UNIQUE and self.chance(50),
            period_type=kind,
            billing_cycle_day=self.one(1, 15, 28) if kind == PeriodType.CALENDAR else 1,
            filters=[DimensionFilter(key, self.one([], ["x", "y"])) for key in keys],
            thresholds=self.thresholds(self.one(0, 1, 3)),
            period=self.one(*LENGTHS) if kind == PeriodType.FIXED else None,
            zone="UTC" if kind == PeriodType.FIXED else self.one(*ZONES),
            resolution=self.one(*Resolution),
        )

    def row(self, codes: list[str], version: int) -> Any:
        keys = self.random.sample(["a", "b", "d"], self.one(0, 1, 2))
        tags = {key: self.one(*TAGS[version == 1 :]) for key in keys}
        code = self.one(*codes)
        is_unique = code in self.uniques
        value = self.random.randrange(0 if version == 1 else -2, 6)
        if version == 2 and self.chance(3):
            value = self.one(*EXTREMES)
        return event(
            self.one(*ACCOUNTS[: 2 if version == 1 else 5]),
            code,
            value,
            self.instant() if self.chance(80) else 0,
            self.one(0, 1, 2, 2) if is_unique else self.one(*[0] * 15, 1),
            self.one("i", "j", "k", "l") if version == 2 and self.chance(30) else None,
            **tags,
        )

    def resent(self, batch: Batch) -> Batch:
        """The batch again, or with one thing of some rows changed."""
        if self.chance(30):
            return batch
        rows = list(batch.rows)
        for place in range(len(rows)):
            name = self.one("", "value", "timestamp_ns", "operation", "properties")
            if name:
                other = self.row([rows[place].metric_code], batch.version)
                rows[place] = replace(rows[place], **{name: getattr(other, name)})
        return replace(batch, rows=tuple(rows))

    def batch(self, codes: list[str], rows: int = 12) -> Batch:
        version = self.one(1, 2, 2)
        count = self.random.randrange(1, rows)
        return Batch(tuple(self.row(codes, version) for _ in range(count)), version)

    def ask(self, twin: Twin, codes: list[str]) -> None:
        """Ask both meters everything about some range."""
        code = self.one(*codes)
        start = self.instant()
        end = start + self.one(1, HOUR_NS, DAY_NS, 2 * DAY_NS, 31 * DAY_NS, 100 * DAY_NS)
        if self.chance(40):
            start, end = sorted((start, self.instant()))
        if self.chance(20):
            start, end = twin.model.find(code).calendar.bounds(start)
        if end <= start:
            return
        declared = [dimension.key for dimension in twin.model.find(code).schema.filters]
        keys = self.random.sample(declared, self.random.randrange(len(declared) + 1))
        chosen = self.random.sample(declared, self.random.randrange(len(declared) + 1))
        filters = {
            key: self.one(*TAGS, ["x", "z"], []) if self.chance(90) else ["", "y"] for key in chosen
        }
        window = self.one(0, 1, 2, 3) if end - start < 40 * DAY_NS else self.one(2, 3)
        zone = self.one("", "Europe/Berlin", "Asia/Kathmandu")
        account = self.one(*ACCOUNTS)
        twin.check_everything(account, code, start, end, keys, filters, window, zone)


def throw(seed: int) -> Twin:
    """One log with questions in between."""
    dice = Dice(seed)
    twin = Twin(JAN)
    codes = ["m", "n"]
    schemas = {code: dice.schema(code) for code in codes}
    for schema in schemas.values():
        assert twin.put(schema) == ""
    sent: list[Batch] = []
    for step in range(dice.one(3, 6, 12)):
        entry = [dice.batch([*codes, "n", "unknown"]) for _ in range(dice.one(1, 1, 3))]
        if sent and dice.chance(50):
            entry.append(dice.resent(dice.one(*sent)))
        sent += entry
        twin.ingest(*entry, at=twin.now + dice.one(0, 1, HOUR_NS, DAY_NS, 35 * DAY_NS, 36 * DAY_NS))
        if dice.chance(15):
            schema = schemas["n"]
            schema.thresholds = [*schema.thresholds, *dice.thresholds(1, f"n{step}")][:8]
            assert twin.put(schema) == ""
        if dice.chance(5):
            twin.delete("n")
            schemas["n"] = dice.schema("n")
            assert twin.put(schemas["n"]) == ""
        if dice.chance(50):
            dice.ask(twin, codes)
    dice.ask(twin, codes)
    dice.ask(twin, codes)
    twin.check_alerts()
    twin.check_replay()
    return twin
