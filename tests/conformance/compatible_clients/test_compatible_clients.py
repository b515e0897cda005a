"""Changing the engine is changing a URL: published clients, unchanged, and right totals."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from tests.conformance.compatible_clients.conftest import Installed, Session

from unimeter import AggValue, Client, Period
from unimeter.demo.process import NodeProcess

EVER = Period(
    datetime(2020, 1, 1, tzinfo=timezone.utc),
    datetime(2090, 1, 1, tzinfo=timezone.utc),
)


def total(node: NodeProcess, account: str, metric: str, model: str = "") -> AggValue:
    filters = {"model": model} if model else None
    with Client([node.address]) as client:
        return client.query(account, metric, EVER, filters=filters).value


def test_openmeter(installed: Installed, session: Session, metered: NodeProcess) -> None:
    folder = installed("openmeter==1.0.0b236", options=("--pre",))
    seen = session("openmeter_session.py", folder)
    assert (seen["one"], seen["json"], seen["batch"]) == (None, None, None)
    assert seen["status"] == 400
    assert seen["detail"].startswith("1 of 2 were refused; 1 were stored")
    assert seen["model"] == ["Refused", 400, seen["detail"]], "the client read the problem"
    found = total(metered, "openmeter", "tokens", "gpt")
    assert (found.sum, found.count) == (10 + 3 + sum(range(100)) + 1000, 104)


def test_stripe(installed: Installed, session: Session, metered: NodeProcess) -> None:
    seen = session("stripe_session.py", installed("stripe>=13"))
    assert seen["v1"] == ["billing.meter_event", "requests", "v1", 1793880000]
    assert seen["v2"][:3] == ["v2.billing.meter_event", "requests", "v2"]
    for status, message, code in seen["refusals"]:
        assert (status, code) == (400, "refused")
        assert "'2.5' is not a whole number" in message
    assert len(seen["refusals"]) == 2
    assert total(metered, "cus_1", "requests", "v1").sum == 25
    assert total(metered, "cus_1", "requests", "v2").sum == 3
    assert total(metered, "cus_1", "requests", "stream").sum == 100


def test_opentelemetry(installed: Installed, session: Session, metered: NodeProcess) -> None:
    pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    folder = installed("opentelemetry-sdk>=1.34", "opentelemetry-exporter-otlp-proto-http>=1.34")
    assert session("otlp_session.py", folder) == {"exported": True}
    assert total(metered, "otel", "requests", "otel").sum == 1 + 2 + 3
    assert total(metered, "otel", "memory").last_value == 300
    tokens = total(metered, "otel", "gen_ai.client.token.usage")
    assert (tokens.sum, tokens.count) == (60, 3)
    assert total(metered, "otel", "gen_ai.usage.input_tokens").sum == 500
    assert total(metered, "otel", "gen_ai.usage.output_tokens").sum == 35
