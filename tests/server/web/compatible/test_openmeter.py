"""OpenMeter's route, by its documented payloads. Its published client: tests/conformance."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.web.compatible.conftest import Meter

URL = "/api/v1/events"


def event(ident: str, kind: str, subject: str, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "type": kind, "id": ident, "time": "2026-11-05T12:00:00.001Z",
        "source": "my-service", "subject": subject, "data": data,
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json",
    ],
)
def test_an_event_is_a_204_and_counted_once(meter: Meter, kind: str) -> None:
    account = meter.account()
    for _ in range(2):
        answer = meter.http.post(
            URL,
            json=event("1", "tokens", account, tokens="20", model="gpt"),
            headers={"content-type": kind},
        )
        assert (answer.status_code, answer.content) == (204, b"")
        assert int(answer.headers["unimeter-position"]) > 0
    assert meter.total(account, "tokens", "gpt").sum == 20


@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents-batch+json"])
def test_a_batch_is_a_204_and_counted_once(meter: Meter, kind: str) -> None:
    account = meter.account()
    batch = [event(str(at), "tokens", account, tokens=at) for at in range(50)]
    for _ in range(2):
        answer = meter.http.post(URL, json=batch, headers={"content-type": kind})
        assert answer.status_code == 204
    assert meter.total(account, "tokens").sum == sum(range(50))


def test_an_empty_batch_is_a_204(meter: Meter) -> None:
    assert meter.http.post(URL, json=[]).status_code == 204


def test_refused_events_of_a_batch_are_a_400_that_says_what_is_stored(meter: Meter) -> None:
    account = meter.account()
    batch = [
        event("0", "tokens", account, tokens=1),
        event("1", "tokens", account, tokens="many"),
        event("2", "nothing", account),
    ]
    answer = meter.http.post(URL, json=batch)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"].startswith("2 of 3 were refused; 1 were stored")
    assert [(fault["path"], fault["index"]) for fault in problem["errors"]] == [
        ("$[1]", 1),
        ("$[2]", 2),
    ]
    assert "'many' is not a number" in problem["errors"][0]["reason"]
    assert problem["outcomes"] == ["stored", "bad_value", "unknown_metric"]
    assert meter.http.post(URL, json=batch).json()["outcomes"][0] == "duplicate"
    assert meter.total(account, "tokens").sum == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"5", b"null", b'"x"', b"{}", b"[5]", b"[[]]", b"[null]", b'{"event":', b"\xff"],
)
def test_what_is_no_event_is_a_400(meter: Meter, body: bytes) -> None:
    answer = meter.http.post(URL, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_another_content_type_is_a_415_that_names_those_that_are_read(meter: Meter) -> None:
    answer = meter.http.post(URL, content=b"x", headers={"content-type": "text/csv"})
    assert answer.status_code == 415
    assert "application/cloudevents-batch+json" in answer.json()["detail"]
