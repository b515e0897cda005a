"""Stripe's meter events, by its documented payloads. Its published client: tests/conformance."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.web.compatible.conftest import Meter

V1 = "/v1/billing/meter_events"
V2 = "/v2/billing/meter_events"
STREAM = "/v2/billing/meter_event_stream"


def form(account: str, **more: str) -> dict[str, str]:
    found = {"event_name": "plain", "payload[stripe_customer_id]": account, "payload[value]": "25"}
    return found | more


def test_an_event_of_version_1_is_given_back_and_counted_once(meter: Meter) -> None:
    account = meter.account()
    sent = form(account, identifier="i1", timestamp="1793880000", **{"payload[model]": "ä&b"})
    for _ in range(2):
        answer = meter.http.post(V1, data=sent)
        assert answer.status_code == 200
        found = answer.json()
        created = found.pop("created")
        assert isinstance(created, int)
        assert found == {
            "object": "billing.meter_event",
            "event_name": "plain",
            "identifier": "i1",
            "livemode": True,
            "payload": {"stripe_customer_id": account, "value": "25", "model": "ä&b"},
            "timestamp": 1793880000,
        }
    total = meter.total(account, "plain", "ä&b")
    assert (total.sum, total.count) == (25, 1)
    assert total.last_timestamp == 1_793_880_000 * 10**9


def test_an_idempotency_key_stands_for_the_identifier(meter: Meter) -> None:
    account = meter.account()
    headers = {"Idempotency-Key": "a" * 200}
    found = [meter.http.post(V1, data=form(account), headers=headers).json() for _ in range(2)]
    assert found[0]["identifier"] == found[1]["identifier"]
    assert meter.total(account, "plain").count == 1


def test_without_both_each_request_is_an_event_of_its_own(meter: Meter) -> None:
    account = meter.account()
    found = {meter.http.post(V1, data=form(account)).json()["identifier"] for _ in range(2)}
    assert len(found) == 2
    assert meter.total(account, "plain").count == 2


def test_an_event_of_version_2_is_given_back_and_counted_once(meter: Meter) -> None:
    account = meter.account()
    sent = {
        "event_name": "plain",
        "identifier": "i2",
        "timestamp": "2026-11-05T12:00:00.000Z",
        "payload": {"stripe_customer_id": account, "value": "25"},
    }
    for _ in range(2):
        answer = meter.http.post(V2, json=sent)
        assert answer.status_code == 200
        found = answer.json()
        assert found["object"] == "v2.billing.meter_event"
        assert found["timestamp"] == "2026-11-05T12:00:00Z"
        assert found["identifier"] == "i2"
    assert meter.total(account, "plain").sum == 25


def test_the_stream_answers_an_empty_object(meter: Meter) -> None:
    account = meter.account()
    payload = {"stripe_customer_id": account, "value": "2"}
    events = [
        {"event_name": "plain", "identifier": f"s{at}", "payload": payload} for at in range(100)
    ]
    for _ in range(2):
        answer = meter.http.post(STREAM, json={"events": events})
        assert (answer.status_code, answer.json()) == (200, {})
    assert meter.total(account, "plain").sum == 200


def test_refused_events_of_the_stream_are_an_error_that_says_what_is_stored(meter: Meter) -> None:
    account = meter.account()
    good = {"event_name": "plain", "payload": {"stripe_customer_id": account, "value": "2"}}
    bad = {"event_name": "plain", "payload": {"stripe_customer_id": account, "value": "2.5"}}
    answer = meter.http.post(STREAM, json={"events": [good, bad]})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("1 of 2 were refused; 1 were stored")
    assert error["unimeter"]["outcomes"] == ["stored", "bad_value"]
    assert meter.total(account, "plain").sum == 2


def test_cents_are_exact_where_the_mapping_keeps_decimals(mapped: Meter) -> None:
    account = mapped.account()
    for value in ("0.10", "0.20", "1e-2"):
        sent = form(account, event_name="costs", **{"payload[value]": value})
        assert mapped.http.post(V1, data=sent).status_code == 200
    assert mapped.total(account, "cents").sum == 31


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"event_name": ""}, "event_name"),
        ({"identifier": ""}, "identifier"),
        ({"event_name": "no such"}, "$"),
        ({"payload[value]": "2.5"}, "payload.value"),
        ({"payload[value]": "x"}, "payload.value"),
        ({"payload[stripe_customer_id]": ""}, "payload.stripe_customer_id"),
        ({"timestamp": "yesterday"}, "timestamp"),
    ],
)
def test_a_refusal_is_an_error_in_stripes_words(
    meter: Meter, changes: dict[str, str], param: str
) -> None:
    answer = meter.http.post(V1, data=form("a") | changes)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"a=%ff", b"&" * 500, b"a=1&" * 500, b"{}", b"payload[value]=1"]
)
def test_what_is_no_form_is_an_error_in_stripes_words(meter: Meter, body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = meter.http.post(V1, content=body, headers=kind)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [5, None, {}, {"events": 5}, {"events": [{}]}, []])
def test_what_is_no_stream_is_an_error_in_stripes_words(meter: Meter, body: Any) -> None:
    answer = meter.http.post(STREAM, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_an_open_node_gives_a_session_that_opens_what_is_open(meter: Meter) -> None:
    found = meter.http.post("/v2/billing/meter_event_session").json()
    headers = {"Authorization": f"Bearer {found['authentication_token']}"}
    answer = meter.http.post(STREAM, json={"events": []}, headers=headers)
    assert answer.status_code == 200
