"""A meter in a few dozen lines, for verbs that are tested without a node.

It keeps events by id as a node does (stored, duplicate, conflict), refuses what
it is told to refuse, and can break off after a number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unimeter.errors import AlreadyExistsError, NotFoundError
from unimeter.types import Event, IngestResult, MetricSchema, Outcome, Refusal


@dataclass
class FakeMetrics:
    """The catalog."""

    schemas: list[MetricSchema] = field(default_factory=list)

    def list(self) -> list[MetricSchema]:
        """Every metric."""
        return self.schemas

    def get(self, code: str) -> MetricSchema:
        """One metric."""
        for schema in self.schemas:
            if schema.code == code:
                return schema
        raise NotFoundError(f"no metric {code!r}")

    def create(self, schema: MetricSchema) -> None:
        """Add a metric."""
        if any(known.code == schema.code for known in self.schemas):
            raise AlreadyExistsError(f"there is already a metric {schema.code!r}")
        self.schemas.append(schema)

    put = create


@dataclass
class FakeMeter:
    """What `ingest` talks to."""

    unknown: frozenset[str] = frozenset()  # metric codes to refuse
    batches_left: int | None = None  # then KeyboardInterrupt, before the batch is stored
    loses_reply_of: int | None = None  # this batch is stored, and then KeyboardInterrupt
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    stored: dict[tuple[object, str, str | None], Event] = field(default_factory=dict)
    cluster_id: bytes = b"\1" * 16
    batches: int = 0
    sizes: list[int] = field(default_factory=list)

    def __enter__(self) -> FakeMeter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Store a batch."""
        if self.batches_left is not None:
            if self.batches_left == 0:
                raise KeyboardInterrupt
            self.batches_left -= 1
        self.batches += 1
        self.sizes.append(len(events))
        outcomes = [self._store(event) for event in events]
        if self.batches == self.loses_reply_of:
            raise KeyboardInterrupt
        refusals = [
            Refusal(index, outcome, outcome.name.lower().replace("_", " "))
            for index, outcome in enumerate(outcomes)
            if not outcome.counted
        ]
        return IngestResult(
            outcomes.count(Outcome.STORED),
            outcomes.count(Outcome.DUPLICATE),
            len(self.stored),
            len(refusals),
            outcomes=outcomes,
            refusals=refusals,
        )

    def _store(self, event: Event) -> Outcome:
        if event.metric_code in self.unknown:
            return Outcome.UNKNOWN_METRIC
        key = (event.account_id, event.metric_code, event.id)
        known = self.stored.get(key)
        if known is None:
            self.stored[key] = event
            return Outcome.STORED
        return Outcome.DUPLICATE if known == event else Outcome.CONFLICT

    def total(self, account: object = 1) -> int:
        """The sum of an account's values."""
        return sum(e.value for e in self.stored.values() if e.account_id == account)
