"""The demonstration's input, made from one seed, and its totals by plain arithmetic.

`make_events` gives the same events every time: the four uses, mixed, in the
order of their timestamps. `Expected` knows nothing of the engine: dictionaries,
sets and ``+=`` on the events as they were made, which is what the node's
answers are compared with.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final

from unimeter.types import (
    LIFETIME,
    Account,
    AggType,
    DimensionFilter,
    Event,
    MetricSchema,
    OperationType,
    Period,
    PeriodType,
)

SEED: Final = 20250601
MONTH: Final = Period(
    datetime(2025, 6, 1, tzinfo=timezone.utc), datetime(2025, 7, 1, tzinfo=timezone.utc)
)
API_REQUESTS: Final = 40_000  # three events each: a call, its prompt tokens, its completion tokens
COMPUTE_EVENTS: Final = 40_000
SEAT_EVENTS: Final = 20_000
CREDIT_EVENTS: Final = 20_000
ACCOUNTS: Final = 25  # per use

MODELS: Final = ["large", "small", "embedding"]
REGIONS: Final = [("aws", "us-east-1"), ("aws", "eu-west-1"), ("gcp", "europe-west4")]

METRICS: Final = [
    MetricSchema("requests", AggType.COUNT, filters=[DimensionFilter("model")]),
    MetricSchema(
        "tokens", AggType.SUM, filters=[DimensionFilter("model"), DimensionFilter("kind")]
    ),
    MetricSchema(
        "cpu_seconds",
        AggType.SUM,
        period_type=PeriodType.CALENDAR,
        filters=[DimensionFilter("provider"), DimensionFilter("region")],
    ),
    MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.CALENDAR),
    MetricSchema("credits", AggType.SUM, period=LIFETIME),
]

Tags = frozenset[tuple[str, str]]
Cell = tuple[str, Account, Tags]


@dataclass
class Expected:
    """The totals by plain arithmetic on the events as they were made."""

    sums: defaultdict[Cell, int] = field(default_factory=lambda: defaultdict(int))
    members: defaultdict[Account, set[int]] = field(default_factory=lambda: defaultdict(set))

    def add(self, event: Event) -> None:
        """Count one event; events come in the order of their timestamps."""
        if event.metric_code == "seats":
            change = set.discard if event.operation_type == OperationType.REMOVE else set.add
            change(self.members[event.account_id], event.value)
            return
        step = 1 if event.metric_code == "requests" else event.value
        cell = (event.metric_code, event.account_id, frozenset(event.properties.items()))
        self.sums[cell] += step

    def totals(self) -> dict[Cell, int]:
        """Return every total that the node must have."""
        seats = {("seats", who, Tags()): len(people) for who, people in self.members.items()}
        return {**self.sums, **seats}


def make_events() -> list[Event]:
    """Make the same events every time, in the order of their timestamps."""
    chance = random.Random(SEED)
    kinds = ["api"] * API_REQUESTS + ["compute"] * COMPUTE_EVENTS
    kinds += ["seat"] * SEAT_EVENTS + ["credit"] * CREDIT_EVENTS
    chance.shuffle(kinds)
    step = (MONTH.end - MONTH.start) / (len(kinds) + 1)
    makers = {
        "api": api_events,
        "compute": compute_event,
        "seat": seat_event,
        "credit": credit_event,
    }
    events: list[Event] = []
    for number, kind in enumerate(kinds):
        events.extend(makers[kind](chance, number, MONTH.start + step * number))
    return events


def api_events(chance: random.Random, number: int, at: datetime) -> Iterator[Event]:
    """One request to a model: a call, and the tokens of its two kinds."""
    account, model = 1000 + chance.randrange(ACCOUNTS), chance.choice(MODELS)
    yield Event(account, "requests", 1, at, properties={"model": model})
    for kind, mean in (("prompt", 1155), ("completion", 211)):
        tokens = max(1, int(chance.expovariate(1 / mean)))
        yield Event(account, "tokens", tokens, at, properties={"model": model, "kind": kind})


def compute_event(chance: random.Random, number: int, at: datetime) -> Iterator[Event]:
    """Some seconds of a machine somewhere."""
    account, (provider, region) = 2000 + chance.randrange(ACCOUNTS), chance.choice(REGIONS)
    where = {"provider": provider, "region": region}
    yield Event(account, "cpu_seconds", chance.randrange(1, 3600), at, properties=where)


def seat_event(chance: random.Random, number: int, at: datetime) -> Iterator[Event]:
    """Somebody joins a team, or leaves it; leaving is rarer."""
    team, person = f"team-{chance.randrange(ACCOUNTS):02}", chance.randrange(200)
    operation = OperationType.REMOVE if chance.random() < 0.4 else OperationType.ADD
    yield Event(team, "seats", person, at, operation)


def credit_event(chance: random.Random, number: int, at: datetime) -> Iterator[Event]:
    """Credits granted now and then, spent all the time; payments carry an id, as they should."""
    account = 3000 + chance.randrange(ACCOUNTS)
    amount = 5_000 if chance.random() < 0.02 else -chance.randrange(1, 200)
    yield Event(account, "credits", amount, at, id=f"payment-{number}")
