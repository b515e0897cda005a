"""The lines of the table by name, in the order they are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unimeter.bench import scenarios
from unimeter.bench.dashboard import first_page
from unimeter.bench.engine import engine_alone
from unimeter.bench.http_load import json_batches
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import Settings
from unimeter.bench.streams import streams

SCENARIOS: Final[dict[str, Callable[[Settings], list[Figure]]]] = {
    "generator": scenarios.measure_ceiling,
    "batch500x8": lambda settings: scenarios.batches(settings, 8, 2e6),
    "batch500x64": lambda settings: scenarios.batches(settings, 64, 3e6),
    "http500x8": json_batches,
    "batch1x64": scenarios.singles,
    "batch1x1": scenarios.latency,
    "streams": streams,
    "query": scenarios.query_round_trip,
    "engine": engine_alone,
    "memory-aggregate": scenarios.memory_per_aggregate_key,
    "memory-event": scenarios.memory_per_event_key,
    "restart": scenarios.restart,
    "dashboard": first_page,
}
