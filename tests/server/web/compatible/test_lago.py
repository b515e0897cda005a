"""Lago's published client, pointed at a node."""

from __future__ import annotations

from typing import Any

import pytest
from lago_python_client.client import Client
from lago_python_client.exceptions import LagoApiError
from lago_python_client.models import BatchEvent, Event
from tests.server.web.compatible.conftest import Meter


def lago(meter: Meter) -> Client:
    return Client(api_key="any", api_url=meter.url)


def event(ident: str, code: str, account: str, **more: Any) -> Event:
    return Event(transaction_id=ident, code=code, external_subscription_id=account, **more)


def test_the_published_client_sends_one_event_and_reads_it_back(meter: Meter) -> None:
    account = meter.account()
    one = event(
        "t1", "tokens", account, timestamp=1793880000, properties={"tokens": "12", "model": "m"}
    )
    for _ in range(2):
        found = lago(meter).events.create(one)
        assert found is not None
        assert (found.transaction_id, found.code) == ("t1", "tokens")
        assert found.external_subscription_id == account
        assert found.timestamp == "2026-11-05T12:00:00Z"
        assert found.properties == {"tokens": "12", "model": "m"}
    total = meter.total(account, "tokens", "m")
    assert (total.sum, total.count) == (12, 1)
    assert total.last_timestamp == 1_793_880_000 * 10**9


def test_the_published_client_sends_batches(meter: Meter) -> None:
    account = meter.account()
    batch = BatchEvent(
        events=[
            event(f"b{at}", "tokens", account, timestamp="1793880000.5", properties={"tokens": at})
            for at in range(100)
        ]
    )
    lago(meter).events.batch_create(batch)
    lago(meter).events.batch_create(batch)
    total = meter.total(account, "tokens")
    assert (total.sum, total.count) == (sum(range(100)), 100)
    assert total.last_timestamp == 1_793_880_000_500_000_000


def test_an_event_without_a_time_is_counted_now_and_once(meter: Meter) -> None:
    account = meter.account()
    first = lago(meter).events.create(event("now", "calls", account))
    second = lago(meter).events.create(event("now", "calls", account))
    assert first is not None and second is not None
    assert first.timestamp.endswith("Z")
    assert meter.total(account, "calls").count == 1


def test_the_published_client_is_told_what_was_refused(meter: Meter) -> None:
    with pytest.raises(LagoApiError) as caught:
        lago(meter).events.create(event("t", "no such", "a"))
    assert caught.value.status_code == 422
    assert "there is no metric 'no such'" in str(caught.value.response)
    assert caught.value.response["code"] == "validation_errors"


def test_of_a_batch_the_refused_are_named_by_index_and_the_others_count(meter: Meter) -> None:
    account = meter.account()
    batch = BatchEvent(
        events=[
            event("g", "tokens", account, properties={"tokens": 5}),
            event("h", "tokens", account, properties={"tokens": 0.5}),
            event("i", "tokens", account, properties={}),
        ]
    )
    with pytest.raises(LagoApiError) as caught:
        lago(meter).events.batch_create(batch)
    found = caught.value.response
    assert set(found["error_details"]) == {"1", "2"}
    assert "'0.5' is not a whole number" in found["error_details"]["1"]["tokens"][0]
    assert found["unimeter"]["outcomes"] == ["stored", "bad_value", "bad_value"]
    assert meter.total(account, "tokens").sum == 5


def test_members_are_added_and_removed_by_operation_type(meter: Meter) -> None:
    account = meter.account()
    for ident, user, operation, seconds in [
        ("1", "7", "add", 1793880000),
        ("2", 8, "add", 1793880001),
        ("3", "7", "remove", 1793880002),
    ]:
        properties = {"value": user, "operation_type": operation}
        lago(meter).events.create(
            event(ident, "seats", account, timestamp=seconds, properties=properties)
        )
    assert meter.client.members(account, "seats") == [8]


def test_members_that_have_names_are_hashed_where_the_mapping_says_so(mapped: Meter) -> None:
    account = mapped.account()
    batch = BatchEvent(
        events=[
            event(str(at), "named_seats", account, properties={"user": name})
            for at, name in enumerate(["ada", "bob", "ada"])
        ]
    )
    lago(mapped).events.batch_create(batch)
    assert len(mapped.client.members(account, "seats")) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"event": {"code": "calls", "external_subscription_id": "a"}},
        {"event": {"transaction_id": "", "code": "calls"}},
        {"event": {"transaction_id": "1", "code": "calls", "properties": []}},
        {"event": 5},
        {"event": None},
    ],
)
def test_what_is_no_event_is_a_422_in_lagos_words(meter: Meter, body: Any) -> None:
    answer = meter.http.post("/api/v1/events", json=body)
    assert answer.status_code == 422
    assert answer.json()["status"] == 422
    assert answer.json()["error_details"]


def test_numbers_are_given_back_as_they_came(meter: Meter) -> None:
    text = '{"event":{"transaction_id":"n","code":"calls","external_customer_id":"old",'
    text += '"properties":{"a":1.10,"b":123456789012345678901234567890}}}'
    answer = meter.http.post(
        "/api/v1/events", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200
    assert '"a":1.10,"b":123456789012345678901234567890' in answer.text
    assert answer.json()["event"]["unimeter"]["outcome"] == "stored"
    assert meter.total("old", "calls").count == 1
