"""A node with events of every kind, and the browser that looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.web import browser as browsers
from tests.web.browser import Browser

from unimeter import (
    AggType,
    AlertThreshold,
    Client,
    DimensionFilter,
    Direction,
    Event,
    MetricSchema,
)
from unimeter.demo.process import NodeProcess
from unimeter.types import LIFETIME, OperationType, PeriodType, Resolution

ACCOUNT = "acme"
LARGE = 10**18 + 7  # beyond what a float holds


@dataclass
class Meter:
    """A running node and a client of it."""

    process: NodeProcess
    client: Client

    @property
    def base(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.process.http_port}"


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept: UNIMETER_SHOTS, or a temporary folder."""
    named = os.environ.get("UNIMETER_SHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("shots")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One Chromium for all tests. It may be missing, but not in CI."""
    if not browsers.is_installed():
        text = "no Chromium: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    found = Browser()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """A node without keys, with metrics of every kind and some days of events."""
    process = NodeProcess(tmp_path_factory.mktemp("meter") / "node")
    process.start()
    try:
        with Client([process.address]) as client:
            fill(client)
            yield Meter(process, client)
    finally:
        process.kill()


@pytest.fixture
def browser(chromium: Browser, meter: Meter) -> Iterator[Browser]:
    """The browser, at a plain desktop; after the test, nothing bad may have happened."""
    chromium.base = meter.base
    chromium.look()
    yield chromium
    assert chromium.misdeeds() == []


def fill(client: Client) -> None:
    """Metrics as teams have them, and two accounts' events of the last days."""
    for schema in SCHEMAS:
        client.metrics.create(schema)
    now = datetime.now(timezone.utc)
    for account in (ACCOUNT, 42):
        client.ingest(events_of(account, now))


SCHEMAS = (
    MetricSchema(
        "api_calls",
        AggType.COUNT,
        period_type=PeriodType.CALENDAR,
        resolution=Resolution.HOUR,
        filters=[DimensionFilter("endpoint"), DimensionFilter("region", ["eu", "us"])],
        thresholds=[AlertThreshold("plan_limit", 100)],
    ),
    MetricSchema("tokens", AggType.SUM, filters=[DimensionFilter("model")]),
    MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True),
    MetricSchema("storage", AggType.MAX),
    MetricSchema(
        "credits",
        AggType.SUM,
        period=LIFETIME,
        resolution=Resolution.HOUR,
        thresholds=[
            AlertThreshold("low", 200, recurring=True, direction=Direction.FALLING),
            AlertThreshold("last_call", 50, recurring=True, direction=Direction.FALLING),
        ],
    ),
)


def events_of(account: int | str, now: datetime) -> list[Event]:
    """120 calls, their tokens, five seats, a large number, a balance, and two refused events."""
    found = [Event(account, "credits", 1000, now - timedelta(days=3))]
    for number in range(120):
        at = now - timedelta(minutes=20 * number)
        where = {"endpoint": f"/v1/{'chat' if number % 3 else 'files'}", "region": "eu"}
        found.append(Event(account, "api_calls", 1, at, properties=where))
        found.append(Event(account, "tokens", number, at, properties={"model": "large"}))
    for seat in range(5):
        found.append(Event(account, "seats", 100 + seat, operation_type=OperationType.ADD))
    found.append(Event(account, "storage", LARGE))
    found.append(Event(account, "unheard_of", 7, properties={"gpu": "a100"}))
    found.append(Event(account, "api_calls", 1, properties={"region": "mars"}))
    return found
