"""Whatever is sent to the compatible routes: an answer that is documented, never a failure."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.json_values import json_values
from tests.server.web.compatible.conftest import Meter
from tests.server.web.compatible.test_rights import cloud_event, lago, stripe

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON_ROUTES = [
    "/api/v1/events", "/api/v1/events/batch", "/v2/billing/meter_events",
    "/v2/billing/meter_event_stream", "/v1/otlp/v1/metrics", "/v1/otlp/v1/logs",
]  # fmt: skip
KINDS = [
    "application/json", "application/cloudevents+json", "application/cloudevents-batch+json",
    "application/x-protobuf", "application/x-www-form-urlencoded",
]  # fmt: skip
WORDS = st.sampled_from(
    [
        "id",
        "source",
        "specversion",
        "type",
        "subject",
        "time",
        "data",
        "data_base64",
        "datacontenttype",
        "event",
        "events",
        "transaction_id",
        "code",
        "external_subscription_id",
        "timestamp",
        "properties",
        "event_name",
        "payload",
        "identifier",
        "stripe_customer_id",
        "value",
        "tokens",
        "model",
        "operation",
        "resourceMetrics",
        "resource",
        "attributes",
        "key",
        "scopeMetrics",
        "scope",
        "metrics",
        "name",
        "sum",
        "gauge",
        "histogram",
        "summary",
        "dataPoints",
        "asInt",
        "asDouble",
        "timeUnixNano",
        "aggregationTemporality",
        "count",
        "min",
        "max",
        "flags",
        "resourceLogs",
        "scopeLogs",
        "logRecords",
        "body",
        "eventName",
        "stringValue",
        "intValue",
        "doubleValue",
        "arrayValue",
        "kvlistValue",
        "values",
        "bytesValue",
        "boolValue",
        "traceId",
        "severityText",
        "unimeter.account",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(max_size=80),
    st.sampled_from(
        ["1.0", "tokens", "plain", "seats", "calls", "disk", "regions", "2026-11-05T12:00:00Z",
         "1793880000000000000", "1793880000", "0.5", "1e9999", "-1", "", "a" * 300, "NaN", "/w=="]
    ),
)  # fmt: skip
VALUES = json_values(SCALARS, WORDS | st.text(max_size=8))
GOOD: list[Any] = [
    cloud_event("fuzz", "tokens") | {"data": {"tokens": 1}},
    [cloud_event("fuzz", "plain")],
    {"event": lago("fuzz", "calls")},
    {"events": [lago("fuzz", "plain"), stripe("fuzz", "plain")]},
    stripe("fuzz", "plain"),
    {"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "plain", "sum": {"aggregationTemporality": 1, "dataPoints": [
            {"asInt": "5", "timeUnixNano": "1793880000000000000", "attributes": [
                {"key": "unimeter.account", "value": {"stringValue": "fuzz"}}]}]}}]}]}]},
    {"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "5", "eventName": "calls", "body": {"kvlistValue": {"values": [
            {"key": "tokens", "value": {"doubleValue": 0.5}}]}}}]}]}]},
]  # fmt: skip


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A good body in which one thing was replaced, taken out or put in."""
    body = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    holder, at = None, None
    node = body
    while isinstance(node, dict | list) and node and draw(st.integers(0, 4)):
        holder = node
        at = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        node = node[at]
    if holder is None:
        return draw(VALUES)
    match draw(st.integers(0, 2)):
        case 0:
            holder[at] = draw(VALUES)
        case 1:
            del holder[at]
        case _ if isinstance(holder, dict):
            holder[draw(WORDS)] = draw(VALUES)
    return body


def check(meter: Meter, path: str, body: bytes, kind: str) -> None:
    answer = meter.http.post(path, content=body, headers={"content-type": kind})
    assert answer.status_code in (200, 204, 400, 413, 415, 422), answer.text
    assert "Traceback" not in answer.text
    if answer.status_code == 400:
        assert answer.text, "a refusal says why"


@pytest.mark.slow
@FEW
@given(
    path=st.sampled_from([*JSON_ROUTES, "/v1/events", "/v1/billing/meter_events"]),
    body=st.one_of(spoilt().map(encoded), VALUES.map(encoded), st.binary(max_size=200)),
    kind=st.sampled_from(KINDS),
)
def test_any_body_of_any_kind_to_any_route(meter: Meter, path: str, body: bytes, kind: str) -> None:
    check(meter, path, body, kind)


@pytest.mark.slow
@FEW
@given(path=st.sampled_from(JSON_ROUTES), body=spoilt())
def test_bodies_that_are_nearly_right(mapped: Meter, path: str, body: Any) -> None:
    check(mapped, path, encoded(body), "application/json")


@pytest.mark.slow
@FEW
@given(
    st.dictionaries(
        st.sampled_from(["id", "source", "type", "subject", "time", "specversion", "x"]),
        st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40).map(
            str.strip
        ),
    ),
    st.binary(max_size=50) | VALUES.map(encoded),
)
def test_any_binary_cloudevent(meter: Meter, attributes: dict[str, str], body: bytes) -> None:
    headers = {f"ce-{name}": value.encode("latin-1") for name, value in attributes.items()}
    headers["ce-specversion"] = headers.get("ce-specversion", b"1.0")
    headers["content-type"] = b"application/json"
    answer = meter.http.post("/v1/events", content=body, headers=headers)
    assert answer.status_code in (200, 400, 415), answer.text


@pytest.mark.slow
@FEW
@given(st.binary(max_size=300), st.sampled_from(["/v1/otlp/v1/metrics", "/v1/otlp/v1/logs"]))
def test_any_protobuf(meter: Meter, body: bytes, path: str) -> None:
    check(meter, path, body, "application/x-protobuf")


@pytest.mark.parametrize("path", [*JSON_ROUTES, "/v1/events"])
@pytest.mark.parametrize(
    "piece", [b"[", b'{"a":', b'{"event":', b'{"data":[', b'{"properties":{"a":']
)
@pytest.mark.parametrize("times", [100, 500, 900, 50_000])
def test_nests_of_any_depth(meter: Meter, path: str, piece: bytes, times: int) -> None:
    close = piece.replace(b"[", b"]").translate(None, b'"abcdefghijklmnopqrstuvwxyz:')[::-1]
    close = bytes({ord("{"): ord("}"), ord("]"): ord("]")}[one] for one in close)
    check(meter, path, piece * times + b"1" + close * times, "application/cloudevents+json"
          if path == "/v1/events" else "application/json")  # fmt: skip


@pytest.mark.parametrize("depth", [10, 100, 300, 400, 480, 600])
def test_events_whose_data_is_deep_are_stored_or_refused(meter: Meter, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    for path, text in [
        ("/api/v1/events", '{"event":{"transaction_id":"%d","code":"plain",'
         '"external_subscription_id":"deep","properties":{"value":1,"x":%s}}}'),
        ("/api/v1/events", '{"specversion":"1.0","id":"c%d","source":"s","type":"plain",'
         '"subject":"deep","data":{"value":1,"model":%s}}'),
        ("/v2/billing/meter_events", '{"event_name":"plain","identifier":"s%d",'
         '"payload":{"stripe_customer_id":"deep","value":%s}}'),
    ]:  # fmt: skip
        check(meter, path, (text % (depth, deep)).encode(), "application/json")
