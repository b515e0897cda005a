"""OTLP over HTTP, in JSON and protobuf: what is counted, and what is refused and why."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.web.compatible.conftest import Meter

from unimeter.server.web.compatible.otlp import LOGS_SIGNAL, METRICS_SIGNAL, classes
from unimeter.server.web.problems import Problem

METRICS, LOGS = "/v1/otlp/v1/metrics", "/v1/otlp/v1/logs"
NOON = 1_793_880_000 * 10**9
DELTA, CUMULATIVE = 1, 2
JSON = {"content-type": "application/json"}
PROTOBUF = {"content-type": "application/x-protobuf"}


def value(given: Any) -> dict[str, Any]:
    match given:
        case bool():
            return {"boolValue": given}
        case int():
            return {"intValue": str(given)}
        case float():
            return {"doubleValue": given}
        case dict():
            return {"kvlistValue": {"values": attributes(given)}}
        case _:
            return {"stringValue": given}


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value(one)} for name, one in given.items()]


def point(number: float | str, at: int = NOON, **tags: Any) -> dict[str, Any]:
    kind = "asDouble" if isinstance(number, float) else "asInt"
    return {kind: number, "timeUnixNano": str(at), "attributes": attributes(tags)}


def total(name: str, *points: dict[str, Any], temporality: int = DELTA) -> dict[str, Any]:
    data = {"dataPoints": points, "aggregationTemporality": temporality, "isMonotonic": True}
    return {"name": name, "sum": data}


def gauge(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "gauge": {"dataPoints": points}}


def histogram(
    name: str, summed: float, at: int = NOON, temporality: int = DELTA, **tags: Any
) -> dict[str, Any]:
    one = {
        "timeUnixNano": str(at), "count": "3", "sum": summed, "bucketCounts": ["1", "2"],
        "explicitBounds": [5.0], "attributes": attributes(tags),
    }  # fmt: skip
    return {"name": name, "histogram": {"dataPoints": [one], "aggregationTemporality": temporality}}


def request(account: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes({"unimeter.account": account, "service.name": "s"})}
    scopes = [{"scope": {"name": "tests", "version": "1"}, "metrics": metrics}]
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": scopes}]}


def record(at: int = NOON, name: str = "", body: Any = None, **tags: Any) -> dict[str, Any]:
    found = {"timeUnixNano": str(at), "eventName": name, "attributes": attributes(tags)}
    return found | ({"body": value(body)} if body is not None else {})


def logs(account: str, *records: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes({"unimeter.account": account})}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}


def in_json(meter: Meter, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """(rejected, message) of a request in JSON."""
    packed = gzip.compress(json.dumps(body).encode())
    answer = meter.http.post(path, content=packed, headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    partial = answer.json().get("partialSuccess", {})
    word = "rejectedDataPoints" if path == METRICS else "rejectedLogRecords"
    return int(partial.get(word, 0)), partial.get("errorMessage", "")


def in_protobuf(meter: Meter, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """The same of one in protobuf."""
    from google.protobuf import json_format

    signal = METRICS_SIGNAL if path == METRICS else LOGS_SIGNAL
    messages = classes(signal)
    sent = json_format.ParseDict(body, getattr(messages, signal.request_class)())
    packed = gzip.compress(sent.SerializeToString())
    answer = meter.http.post(path, content=packed, headers={**PROTOBUF, "content-encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-protobuf"
    found = getattr(messages, signal.response_class)()
    found.ParseFromString(answer.content)
    return getattr(found.partial_success, signal.rejected), found.partial_success.error_message


Send = Callable[[Meter, str, dict[str, Any]], tuple[int, str]]


@pytest.fixture(params=["json", "protobuf"])
def send(request: pytest.FixtureRequest) -> Send:
    """Both encodings."""
    if request.param == "json":
        return in_json
    pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    return in_protobuf


def test_deltas_are_added_and_a_resend_is_a_duplicate(meter: Meter, send: Send) -> None:
    account = meter.account()
    body = request(
        account,
        total("plain", point("5", model="m"), point(2.0, model="n"), point("7", NOON + 1)),
    )
    assert send(meter, METRICS, body) == (0, "")
    assert send(meter, METRICS, body) == (0, "")
    found = meter.total(account, "plain")
    assert (found.sum, found.count) == (14, 3)
    assert meter.total(account, "plain", "m").sum == 5


def test_a_point_sent_again_with_another_number_is_told(meter: Meter, send: Send) -> None:
    account = meter.account()
    assert send(meter, METRICS, request(account, total("plain", point("5")))) == (0, "")
    rejected, message = send(meter, METRICS, request(account, total("plain", point("6"))))
    assert rejected == 1
    assert "ids must differ" in message
    assert meter.total(account, "plain").sum == 5


def test_a_gauge_is_a_level(meter: Meter, send: Send) -> None:
    account = meter.account()
    body = request(account, gauge("disk", point("5"), point("3", NOON + 10)))
    assert send(meter, METRICS, body) == (0, "")
    assert meter.total(account, "disk").last_value == 3


def test_a_cumulative_sum_is_a_level_too(meter: Meter, send: Send) -> None:
    account = meter.account()
    body = request(account, total("disk", point("5"), temporality=CUMULATIVE))
    assert send(meter, METRICS, body) == (0, "")
    assert meter.total(account, "disk").last_value == 5


def test_of_a_histogram_the_sum_is_added(meter: Meter, send: Send) -> None:
    account = meter.account()
    name = "gen_ai.client.token.usage"
    body = request(account, histogram(name, 120.0, **{"gen_ai.token.type": "input"}))
    assert send(meter, METRICS, body) == (0, "")
    assert meter.total(account, name).sum == 120


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (total("plain", point("5"), temporality=CUMULATIVE), "TEMPORALITY_PREFERENCE=delta"),
        (total("plain", point("5"), temporality=0), "needs its temporality"),
        (total("calls", point("5")), "a sum is added, and 'calls' is COUNT"),
        (total("disk", point("5")), "a sum is added, and 'disk' is LATEST"),
        (gauge("plain", point("5")), "a gauge is a level, and 'plain' is SUM"),
        (histogram("plain", 5.0, temporality=CUMULATIVE), "a cumulative histogram"),
        (histogram("disk", 5.0), "of a histogram the sum is added, and 'disk' is LATEST"),
        (total("plain", point(0.5)), "'0.5' is not a whole number"),
        (total("plain", point("5", 0)), "no time"),
        (gauge("no such", point("5")), "there is no metric 'no such'"),
        ({"name": "plain", "summary": {"dataPoints": [{"timeUnixNano": "5"}]}}, "a summary"),
    ],
)
def test_what_can_not_be_counted_exactly_is_refused_with_the_reason(
    meter: Meter, send: Send, metric: dict[str, Any], reason: str
) -> None:
    account = meter.account()
    good = total("plain", point("1", NOON + 5))
    rejected, message = send(meter, METRICS, request(account, metric, good))
    assert rejected == 1
    assert reason in message
    assert meter.total(account, "plain").sum == 1, "the others of the request count"


def test_without_an_account_a_point_is_refused(meter: Meter, send: Send) -> None:
    body = request("", total("plain", point("5")))
    rejected, message = send(meter, METRICS, body)
    assert rejected == 1
    assert "is no account" in message
    del body["resourceMetrics"][0]["resource"]
    rejected, message = send(meter, METRICS, body)
    assert "attributes.unimeter.account or resource.unimeter.account" in message


def test_the_account_of_a_point_wins_over_that_of_its_resource(meter: Meter, send: Send) -> None:
    account = meter.account()
    body = request("somebody", total("plain", point("5", **{"unimeter.account": account})))
    assert send(meter, METRICS, body) == (0, "")
    assert meter.total(account, "plain").sum == 5


def test_points_that_say_that_there_is_nothing_are_nothing(meter: Meter, send: Send) -> None:
    account = meter.account()
    empty = {**point("5"), "flags": 1}
    assert send(meter, METRICS, request(account, total("plain", empty))) == (0, "")
    assert meter.total(account, "plain").count == 0


def test_token_counts_of_log_records_feed_the_metrics_of_their_names(
    meter: Meter, send: Send
) -> None:
    account = meter.account()
    tokens = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7}
    body = logs(
        account,
        record(name="gen_ai.client.inference.operation.details", **tokens),
        record(NOON + 1, **{"gen_ai.usage.input_tokens": 1}),
    )
    for _ in range(2):
        assert send(meter, LOGS, body) == (0, "")
    assert meter.total(account, "gen_ai.usage.input_tokens").sum == 101
    assert meter.total(account, "gen_ai.usage.output_tokens").sum == 7


def test_log_records_are_events_of_their_name(meter: Meter, send: Send) -> None:
    account = meter.account()
    body = logs(
        account,
        record(name="calls", model="m"),
        record(name="calls", model="n"),
        record(NOON + 1, name="tokens", body={"tokens": 5, "model": "m"}),
        record(NOON + 2, **{"event.name": "calls", "log.record.uid": "u1"}),
        record(NOON + 2, body="again, said otherwise", **{"event.name": "calls"}),
    )
    assert send(meter, LOGS, body) == (0, "")
    assert send(meter, LOGS, body) == (0, "")
    assert meter.total(account, "calls").count == 4
    assert meter.total(account, "calls", "m").count == 1
    assert meter.total(account, "tokens").sum == 5


def test_a_record_without_a_name_or_a_time_is_refused(meter: Meter, send: Send) -> None:
    rejected, message = send(meter, LOGS, logs("a", record(body="hello"), record(0, name="calls")))
    assert rejected == 2
    assert "it has no name" in message
    assert "no time" in message


def test_many_refusals_are_counted_and_the_first_are_told(meter: Meter, send: Send) -> None:
    rejected, message = send(meter, LOGS, logs("a", *(record(NOON + at) for at in range(20))))
    assert rejected == 20
    assert message.endswith("and 15 more")


def test_a_mapping_sends_points_elsewhere_and_says_what_it_ignores(
    mapped: Meter, send: Send
) -> None:
    account = mapped.account()
    name = "gen_ai.client.token.usage"
    body = request(
        account,
        histogram(name, 10.0, **{"gen_ai.token.type": "input"}),
        histogram(name, 99.0, **{"gen_ai.token.type": "output"}),
        gauge("runtime.heap", point("5")),
    )
    rejected, message = send(mapped, METRICS, body)
    assert (rejected, message) == (0, "2 data points are ignored by the mapping")
    assert mapped.total(account, "gen_ai.usage.input_tokens").sum == 10


@pytest.mark.parametrize("path", [METRICS, LOGS])
@pytest.mark.parametrize("headers", [JSON, PROTOBUF])
def test_garbage_is_a_400(meter: Meter, path: str, headers: dict[str, str]) -> None:
    answer = meter.http.post(path, content=b"\xff\xff garbage", headers=headers)
    assert answer.status_code == 400


def test_a_number_that_is_none_is_a_400_with_its_place(meter: Meter) -> None:
    for wrong in ("5x", 1.5, True, "9" * 30):
        body = request("a", {"name": "plain", "gauge": {"dataPoints": [{"asInt": wrong}]}})
        assert meter.http.post(METRICS, json=body).status_code == 400


def test_values_nested_too_deeply_are_a_400(meter: Meter) -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = {"a": deep}
    body = logs("a", record(name="calls", deep=deep))
    assert meter.http.post(LOGS, json=body).status_code == 400


def test_another_content_type_is_a_415(meter: Meter) -> None:
    assert meter.http.post(LOGS, content=b"x", headers={"content-type": "x/y"}).status_code == 415


def test_without_the_extra_protobuf_is_a_415_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, METRICS_SIGNAL.messages, None)
    with pytest.raises(Problem) as caught:
        classes(METRICS_SIGNAL)
    assert caught.value.status == 415
    assert "pip install 'unimeter[otlp]'" in caught.value.detail
