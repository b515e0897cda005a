"""A real node with metrics, and what asks it: HTTP as other products do, totals by the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest

from unimeter import (
    AggType,
    AggValue,
    Client,
    DimensionFilter,
    MetricSchema,
    Period,
    PeriodType,
)
from unimeter.demo.process import NodeProcess
from unimeter.types import Account

EVER = Period(
    datetime(2020, 1, 1, tzinfo=timezone.utc),
    datetime(2090, 1, 1, tzinfo=timezone.utc),
)
MODEL = [DimensionFilter("model")]
METRICS = [
    MetricSchema("calls", AggType.COUNT, filters=MODEL),
    MetricSchema("tokens", AggType.SUM, field_name="tokens", filters=MODEL),
    MetricSchema("plain", AggType.SUM, filters=MODEL),
    MetricSchema("cents", AggType.SUM),
    MetricSchema("disk", AggType.LATEST),
    MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.CALENDAR),
    MetricSchema("regions", AggType.SUM, filters=[DimensionFilter("region", ["eu", "us"])]),
    MetricSchema("gen_ai.usage.input_tokens", AggType.SUM),
    MetricSchema("gen_ai.usage.output_tokens", AggType.SUM),
    MetricSchema(
        "gen_ai.client.token.usage", AggType.SUM, filters=[DimensionFilter("gen_ai.token.type")]
    ),
]
MAPPING = """
[[cloudevents]]
match = "llm.completion"
metric = "tokens"
value = "data.usage.total"
tags = { model = "data.engine" }

[[cloudevents]]
match = "llm.completion"
metric = "cents"
value = "data.usage.cost"
scale = 2
optional = true

[[cloudevents]]
match = "batch.*"
metric = "plain"
account = ["tenant", "data.customer.id"]
id = ["source", "id"]
time = "data.at"
where = { "data.status" = "done" }

[[cloudevents]]
match = "regions then plain"
metric = "regions"

[[cloudevents]]
match = "regions then plain"
metric = "plain"

[[cloudevents]]
match = "plain then regions"
metric = "plain"

[[cloudevents]]
match = "plain then regions"
metric = "regions"

[[lago]]
match = "named_seats"
metric = "seats"
value = "properties.user"
hash_members = true

[[stripe]]
match = "costs"
metric = "cents"
scale = 2

[[otlp_metrics]]
match = "gen_ai.client.token.usage"
metric = "gen_ai.usage.input_tokens"
where = { "attributes.gen_ai.token.type" = "input" }

[[otlp_metrics]]
match = "runtime.*"
metric = "none such"
where = { "attributes.never" = true }
"""


class Meter:
    """The node, and how it is asked."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.url = f"http://127.0.0.1:{node.http_port}"
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self.client = Client([node.address])
        self._accounts = 0

    def total(self, account: Account, metric: str, model: str = "") -> AggValue:
        """What the node counted, in all periods."""
        filters = {"model": model} if model else None
        return self.client.query(account, metric, EVER, filters=filters).value

    def account(self) -> str:
        """An account that no test has used yet."""
        self._accounts += 1
        return f"account {self._accounts}"

    def close(self) -> None:
        """End it all."""
        self.http.close()
        self.client.close()
        self.node.kill()


def started(folder: Path, **env: str) -> Meter:
    """A node with the metrics above."""
    node = NodeProcess(folder / "node", env=env)
    node.start()
    meter = Meter(node)
    for schema in METRICS:
        meter.client.metrics.create(schema)
    return meter


@pytest.fixture(scope="session")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """A node without a mapping file."""
    found = started(tmp_path_factory.mktemp("compatible"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """A node with one."""
    folder = tmp_path_factory.mktemp("mapped")
    file = folder / "mapping.toml"
    file.write_text(MAPPING)
    found = started(folder, UNIMETER_MAPPING_FILE=str(file))
    yield found
    found.close()
