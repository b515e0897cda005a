"""Putting a definition again must not cost memory, however often it is done."""

from __future__ import annotations

from dataclasses import replace

from unimeter.types import AggType, AlertThreshold, DimensionFilter, MetricSchema, PeriodType

from .twin import Twin

NOW = 1_700_000_000_000_000_000


def test_the_same_definition_again_and_changed_takes_no_more_room() -> None:
    twin = Twin(NOW)
    schema = MetricSchema(
        "m",
        AggType.SUM,
        period_type=PeriodType.DAY,
        zone="Europe/Berlin",
        filters=[DimensionFilter("region", ["eu", "us"])],
    )
    twin.put(schema)
    size = twin.machine.counter.boundary_count
    assert size > 36_000, "days of a zone are kept as boundaries"
    for number in range(5):
        twin.put(schema)
        schema = replace(
            schema, thresholds=[*schema.thresholds, AlertThreshold(f"t{number}", number)]
        )
        twin.put(schema)
    twin.put(replace(schema, code="other"))
    assert twin.machine.counter.boundary_count == size
