"""CloudEvents made by the official package, in the three HTTP forms."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from tests.server.web.compatible.conftest import Meter

NOON = datetime(2026, 11, 5, 12, tzinfo=timezone.utc)
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def event(
    name: str, kind: str, account: str, data: dict[str, Any] | None, **more: Any
) -> CloudEvent:
    attributes = {"id": name, "source": "/tests", "type": kind, "time": NOON}
    if account:
        attributes["subject"] = account
    return CloudEvent({**attributes, **more}, data)


def sent(meter: Meter, message: http.HTTPMessage) -> dict[str, Any]:
    answer = meter.http.post("/v1/events", content=message.body, headers=message.headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def batch(*events: CloudEvent) -> http.HTTPMessage:
    body = b"[" + b",".join(JSONFormat().write(one) for one in events) + b"]"
    return http.HTTPMessage(BATCH, body)


def raw(name: str, kind: str, account: str, **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": name, "source": "/tests", "type": kind, "subject": account,
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("form", [http.to_binary_event, http.to_structured_event, batch])
def test_an_event_of_the_official_package_is_counted_once_however_often_it_is_sent(
    meter: Meter, form: Callable[[CloudEvent], http.HTTPMessage]
) -> None:
    account = meter.account()
    message = form(event("e1", "tokens", account, {"tokens": 12, "model": "ä b", "other": 3}))
    first, second = sent(meter, message), sent(meter, message)
    assert (first["stored"], first["outcomes"]) == (1, ["stored"])
    assert (second["duplicates"], second["outcomes"]) == (1, ["duplicate"])
    total = meter.total(account, "tokens", "ä b")
    assert (total.sum, total.count) == (12, 1)
    assert total.last_timestamp == 1_793_880_000 * 10**9


def test_the_three_forms_are_the_same_event(meter: Meter) -> None:
    account = meter.account()
    one = event("same", "tokens", account, {"tokens": 7})
    forms = (http.to_structured_event, batch, http.to_binary_event)
    outcomes = [sent(meter, form(one))["outcomes"] for form in forms]
    assert outcomes == [["stored"], ["duplicate"], ["duplicate"]]
    assert meter.total(account, "tokens").sum == 7


def test_headers_are_percent_decoded_and_may_be_quoted(meter: Meter) -> None:
    account = meter.account()
    headers = {
        "ce-specversion": "1.0", "ce-id": '"q\\"1"', "ce-source": "/s", "ce-type": "%74okens",
        "ce-subject": account.replace(" ", "%20"), "content-type": "application/json",
    }  # fmt: skip
    for name in ('"q\\"1"', "q%221"):
        answer = meter.http.post(
            "/v1/events", content=b'{"tokens": 4}', headers={**headers, "ce-id": name}
        )
        assert answer.status_code == 200, answer.text
    assert answer.json()["outcomes"] == ["duplicate"]
    assert meter.total(account, "tokens").sum == 4


def test_without_data_or_value_an_event_is_one(meter: Meter) -> None:
    account = meter.account()
    sent(meter, http.to_binary_event(event("1", "plain", account, None)))
    sent(meter, http.to_structured_event(event("2", "plain", account, {"model": "m"})))
    sent(meter, http.to_structured_event(event("3", "plain", account, {"value": "40"})))
    assert meter.total(account, "plain").sum == 42


def test_a_count_counts_events_whatever_their_value_is(meter: Meter) -> None:
    account = meter.account()
    values: list[Any] = [5, 0.5, "many", [1], None]
    answer = sent(
        meter,
        batch(*(event(str(at), "calls", account, {"value": one}) for at, one in enumerate(values))),
    )
    assert answer["outcomes"] == ["stored"] * 5
    assert meter.total(account, "calls").count == 5


def test_a_large_batch_is_split_and_counted_once(meter: Meter) -> None:
    account = meter.account()
    message = batch(*(event(str(at), "tokens", account, {"tokens": at}) for at in range(9000)))
    first = sent(meter, message)
    assert (first["stored"], len(first["outcomes"])) == (9000, 9000)
    assert sent(meter, message)["duplicates"] == 9000
    assert meter.total(account, "tokens").sum == sum(range(9000))


def test_refused_events_are_named_and_the_others_count(meter: Meter) -> None:
    account = meter.account()
    answer = sent(
        meter,
        batch(
            event("0", "tokens", account, {"tokens": 1}),
            event("1", "tokens", account, {"tokens": 1.5}),
            event("2", "no such", account, {}),
            event("3", "tokens", account, {}),
            event("4", "regions", account, {"region": "mars"}),
            event("5", "tokens", "", {"tokens": 1}),
            event("6", "seats", account, {"value": "user_7"}),
            event("7", "tokens", account, {"tokens": 1, "model": {"name": "m"}}),
            event("8", "tokens", "x" * 300, {"tokens": 1}),
            event("9", "tokens", account, {"tokens": 2}),
        ),
    )
    assert answer["outcomes"] == [
        "stored", "bad_value", "unknown_metric", "bad_value", "dimension_not_allowed",
        "bad_account", "bad_value", "bad_property", "bad_account", "stored",
    ]  # fmt: skip
    assert [refusal["index"] for refusal in answer["refusals"]] == list(range(1, 9))
    reasons = {one["index"]: one["reason"] for one in answer["refusals"]}
    assert "'1.5' is not a whole number" in reasons[1]
    assert "nothing at data.tokens" in reasons[3]
    assert (answer["stored"], answer["refused"]) == (2, 8)
    assert meter.total(account, "tokens").sum == 3


@pytest.mark.parametrize("form", [http.to_binary_event, http.to_structured_event])
def test_an_event_that_is_refused_alone_is_a_400_for_those_who_look_at_the_status_only(
    meter: Meter, form: Callable[[CloudEvent], http.HTTPMessage]
) -> None:
    message = form(event("1", "tokens", meter.account(), {"tokens": "1.5"}))
    answer = meter.http.post("/v1/events", content=message.body, headers=message.headers)
    assert answer.status_code == 400
    assert answer.json()["outcomes"] == ["bad_value"]
    assert answer.json()["errors"][0]["field"] == "data.tokens"


def test_the_same_id_with_another_body_is_a_conflict_and_counts_once(meter: Meter) -> None:
    account = meter.account()
    sent(meter, http.to_structured_event(event("x", "tokens", account, {"tokens": 1})))
    answer = sent(meter, batch(event("x", "tokens", account, {"tokens": 2})))
    assert answer["outcomes"] == ["conflict"]
    assert meter.total(account, "tokens").sum == 1


def test_digits_are_an_integer_account_and_a_prefix_makes_them_text(meter: Meter) -> None:
    sent(meter, http.to_binary_event(event("i", "tokens", "4711", {"tokens": 1})))
    sent(meter, http.to_binary_event(event("s", "tokens", "str:4711", {"tokens": 2})))
    assert meter.total(4711, "tokens").sum == 1
    assert meter.total("4711", "tokens").sum == 2


def test_members_are_added_and_removed(meter: Meter) -> None:
    account = meter.account()
    sent(
        meter,
        batch(
            event("1", "seats", account, {"value": 1}),
            event("2", "seats", account, {"value": "2", "operation": "add"}),
            event(
                "3",
                "seats",
                account,
                {"value": 1, "operation": "remove"},
                time=datetime.now(timezone.utc),
            ),
        ),
    )
    assert meter.client.members(account, "seats") == [2]


def test_data_in_base_64_is_read_as_the_json_that_it_is(meter: Meter) -> None:
    account = meter.account()
    data = base64.b64encode(b'{"tokens": 9}').decode()
    body = json.dumps(raw("b", "tokens", account, data_base64=data)).encode()
    assert sent(meter, http.HTTPMessage(STRUCTURED, body))["outcomes"] == ["stored"]
    assert meter.total(account, "tokens").sum == 9


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"id": ""}, "$[1].id"),
        ({"id": None}, "$[1].id"),
        ({"id": 5}, "$[1].id"),
        ({"type": ""}, "$[1].type"),
        ({"source": None}, "$[1].source"),
        ({"specversion": "0.3"}, "$[1].specversion"),
        ({"subject": 5}, "$[1].subject"),
        ({"data_base64": "%"}, "$[1].data_base64"),
        ({"data_base64": "AA==", "datacontenttype": "image/png"}, "$[1].data_base64"),
    ],
)
def test_what_is_no_cloudevent_is_a_400_with_its_place_and_nothing_is_stored(
    meter: Meter, changes: dict[str, Any], path: str
) -> None:
    account = meter.account()
    good = raw("good", "tokens", account, data={"tokens": 1})
    answer = meter.http.post(
        "/v1/events", content=json.dumps([good, {**good, **changes}]), headers=BATCH
    )
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path
    assert answer.json()["errors"][0]["index"] == 1
    assert meter.total(account, "tokens").count == 0


def test_forms_that_are_not_json_are_a_415(meter: Meter) -> None:
    avro = {"content-type": "application/cloudevents+avro"}
    assert meter.http.post("/v1/events", content=b"x", headers=avro).status_code == 415
    message = http.to_binary_event(event("t", "tokens", "a", None))
    text = {**message.headers, "content-type": "text/plain"}
    assert meter.http.post("/v1/events", content=b"x", headers=text).status_code == 415
    assert meter.http.post("/v1/events", content=b"{}", headers=BATCH).status_code == 400


def test_a_mapping_feeds_several_metrics_with_exact_decimals(mapped: Meter) -> None:
    account = mapped.account()
    data = {"usage": {"total": 100, "cost": 0.29}, "engine": "m"}
    first = event("1", "llm.completion", account, data)
    second = event("2", "llm.completion", account, {"usage": {"total": "1", "cost": "1.10"}})
    free = event("3", "llm.completion", account, {"usage": {"total": 5}})
    too_fine = event("4", "llm.completion", account, {"usage": {"total": 7, "cost": "0.001"}})
    answer = sent(mapped, batch(first, second, free, too_fine))
    assert answer["outcomes"] == ["stored", "stored", "stored", "bad_value"]
    assert mapped.total(account, "cents").sum == 29 + 110
    assert mapped.total(account, "tokens").sum == 106, "a refused item feeds no metric at all"
    assert mapped.total(account, "tokens", "m").sum == 100
    again = sent(mapped, batch(first, second, free))
    assert again["outcomes"] == ["duplicate"] * 3


def test_a_mapping_says_where_account_id_and_time_are(mapped: Meter) -> None:
    account = mapped.account()

    def one(source: str, **data: Any) -> CloudEvent:
        data = {"customer": {"id": account}, "at": "2026-11-05T12:00:00Z", "value": 3, **data}
        return event("1", "batch.nightly", "somebody else", data, source=source)

    answer = sent(mapped, batch(one("/a", status="done"), one("/b", status="done")))
    assert answer["outcomes"] == ["stored", "stored"], "the id is source and id"
    assert sent(mapped, batch(one("/a", status="done")))["outcomes"] == ["duplicate"]
    answer = sent(mapped, batch(one("/c", status="begun")))
    assert (answer["outcomes"], answer["ignored"]) == (["ignored"], 1)
    assert mapped.total(account, "plain").sum == 6
    assert mapped.total("somebody else", "plain").sum == 0
    extended = event(
        "2", "batch.nightly", "x", {"at": 1793880000, "status": "done"}, tenant=account
    )
    assert sent(mapped, batch(extended))["outcomes"] == ["stored"]
    assert mapped.total(account, "plain").sum == 7


@pytest.mark.parametrize("kind", ["regions then plain", "plain then regions"])
def test_an_item_that_feeds_two_metrics_has_the_outcome_that_needs_attention(
    mapped: Meter, kind: str
) -> None:
    account = mapped.account()
    answer = sent(mapped, batch(event("1", kind, account, {"region": "mars", "value": 5})))
    assert answer["outcomes"] == ["dimension_not_allowed"]
    assert [(one["index"], one["metric"]) for one in answer["refusals"]] == [(0, "regions")]
    assert (answer["stored"], answer["refused"]) == (0, 1)
    assert mapped.total(account, "plain").sum == 5, (
        "what the meter itself refuses is for one metric"
    )
    sent(mapped, batch(event("2", "plain", account, {"value": 7})))
    again = batch(event("2", kind, account, {"region": "eu", "value": 7}))
    assert sent(mapped, again)["outcomes"] == ["stored"], "new to one of them"
    assert sent(mapped, again)["outcomes"] == ["duplicate"]
    assert mapped.total(account, "plain").sum == 12
    assert mapped.total(account, "regions").sum == 7
