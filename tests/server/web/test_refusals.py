"""What a refusal by HTTP says: the place, the reason, and what would be right there."""

from __future__ import annotations

import asyncio
import gzip
import json
from types import SimpleNamespace
from typing import Any

import pytest
from tests.server.web.running import Running

from unimeter.errors import BackpressureError
from unimeter.keys import ANYBODY
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.gateway import Gateway
from unimeter.server.web.openapi import document, shown_path
from unimeter.server.web.problems import CONTENT_TYPE, POSITION, Problem, bad
from unimeter.server.web.shapes import expected_at
from unimeter.server.web.site import api_endpoints
from unimeter.wire.messages import MetricList

LISTED = [one for one in api_endpoints() if one.is_listed]
READS = [one for one in LISTED if any(param.name == POSITION for param in one.params)]
STRICT = [one for one in api_endpoints() if one.is_strict]
SAMPLE = {"account": "acme", "metric": "api_calls", "code": "api_calls", "group_by": "model"}


def path_of(one: Endpoint) -> str:
    return shown_path(one).format(code="api_calls", account="acme", id="wh_aaaaaaaaaaaa")


def name_of(one: Endpoint) -> str:
    return f"{one.method} {one.path}"


def query_of(one: Endpoint) -> dict[str, str]:
    return {
        param.name: SAMPLE[param.name]
        for param in one.params
        if param.required and param.where == "query"
    }


def refused(server: Running, method: str, path: str, status: int = 400, **given: Any) -> Any:
    """The first fault of a refusal, all of which say what and where."""
    reply = server.http.request(method, path, **given)
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == CONTENT_TYPE
    for fault in reply.json()["errors"]:
        assert fault["path"] and fault["reason"] and fault["expected"], fault
        assert fault["field"] or fault["path"] == "$", fault
    return reply.json()["errors"][0]


# --- positions ---------------------------------------------------------------------


@pytest.mark.parametrize("one", READS, ids=name_of)
def test_a_position_that_nobody_has_is_refused_at_once(shared: Running, one: Endpoint) -> None:
    shared.send([{"account": "acme", "metric": "api_calls"}])
    for wanted in (10**6, 2**63 - 1):
        headers = {POSITION: str(wanted)}
        reply = shared.http.request(one.method, path_of(one), params=query_of(one), headers=headers)
        assert reply.status_code == 412, reply.text
        assert reply.json()["type"] == "urn:unimeter:problem:position-ahead"
        assert int(reply.headers["Retry-After"]) > 0
    refused(shared, one.method, path_of(one), params=query_of(one), headers={POSITION: str(2**63)})


def test_every_read_takes_a_position_and_describes_the_refusal() -> None:
    paths = document(LISTED)["paths"]
    assert len(READS) > 12
    for one in READS:
        found = paths[shown_path(one)][one.method.lower()]
        assert CONTENT_TYPE in found["responses"]["412"]["content"]
        position = next(param for param in found["parameters"] if param["name"] == POSITION)
        assert position["schema"] == {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def gateway(applied: int, last: int, *, leads: bool) -> tuple[Gateway, list[int]]:
    """A gateway to a node of a cluster that never catches up; and what it was asked."""
    found = Gateway.__new__(Gateway)
    node = SimpleNamespace(
        machine=SimpleNamespace(applied=applied),
        replica=SimpleNamespace(raft=SimpleNamespace(last_index=last)),
        is_alone=False,
        leads=leads,
    )
    asked: list[int] = []

    async def late(kind: int, payload: bytes) -> Any:
        asked.append(kind)
        raise BackpressureError("this node could not catch up in time", 0.05)

    found.clients = SimpleNamespace(node=node, auth=None)  # type: ignore[assignment]
    found._send = late  # type: ignore[method-assign, assignment]
    return found, asked


@pytest.mark.parametrize(
    ("leads", "wanted", "is_asked", "raised"),
    [(True, 12, False, Problem), (True, 11, True, Problem), (False, 12, True, Problem),
     (True, 10, True, BackpressureError), (False, 10, True, BackpressureError)],
)  # fmt: skip
def test_who_leads_knows_and_who_follows_waits(
    leads: bool, wanted: int, is_asked: bool, raised: type[Exception]
) -> None:
    found, asked = gateway(10, 11, leads=leads)
    with pytest.raises(raised) as refusal:
        asyncio.run(found.ask(MetricList(limit=1, min_position=wanted), ANYBODY))
    assert bool(asked) == is_asked
    if isinstance(refusal.value, Problem):
        assert (refusal.value.status, refusal.value.kind) == (412, "position-ahead")


# --- methods, parameters -----------------------------------------------------------


@pytest.mark.parametrize("path", sorted({path_of(one) for one in LISTED}))
def test_allow_names_every_method_of_the_path(shared: Running, path: str) -> None:
    wanted = {one.method for one in LISTED if path_of(one) == path}
    for method in {"OPTIONS", "PATCH", "PUT"} - wanted:
        reply = shared.http.request(method, path)
        if reply.status_code != 405:
            continue  # PUT of a metric that is called dry-run
        allowed = set(reply.headers["Allow"].split(", "))
        assert allowed >= wanted and "OPTIONS" not in allowed
        assert ("HEAD" in allowed) == ("GET" in allowed)
        for one in allowed:
            assert shared.http.request(one, path, params={"zzz": "1"}).status_code != 405
    assert shared.http.options(path).status_code == 405


@pytest.mark.parametrize("one", STRICT, ids=name_of)
def test_a_parameter_that_is_not_described_is_refused(shared: Running, one: Endpoint) -> None:
    given = {**query_of(one), "zzz": "1"}
    fault = refused(shared, one.method, path_of(one), params=given)
    assert (fault["path"], fault["reason"]) == ("zzz", "is no parameter of this route")


def test_a_parameter_without_a_name_and_a_position_without_a_number(shared: Running) -> None:
    assert refused(shared, "GET", "/v1/metrics?=1")["path"] == "query"
    assert refused(shared, "GET", "/v1/metrics", headers={POSITION: ""})["path"] == POSITION


def test_the_nearest_parameter_is_named(shared: Running) -> None:
    known = {"account": "acme", "metric": "api_calls"}
    for wrong, right in (("from", "start"), ("to", "end"), ("filtr", "filter"), ("Start", "start")):
        fault = refused(shared, "GET", "/v1/totals", params={**known, wrong: "2026-11-01"})
        assert fault["expected"].startswith(f"{right}, if that is meant; one of account, metric")


def test_pages_and_routes_of_other_products_pass_theirs_over(shared: Running) -> None:
    assert shared.http.get("/ui/metrics", params={"utm_source": "x"}).status_code == 200
    assert shared.http.head("/v1/metrics", params={"format": "csv"}).status_code == 200
    reply = shared.http.post("/api/v1/events/batch", params={"x": "1"}, json={"events": []})
    assert reply.status_code == 200


# --- faults ------------------------------------------------------------------------


def definition(**more: Any) -> dict[str, Any]:
    return {"code": "made", "type": "sum", **more}


def threshold(**more: Any) -> dict[str, Any]:
    return {"code": "high", "value": 1, **more}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (definition(code=""), "$.code"),
        (definition(code="é" * 40), "$.code"),
        (definition(code="a\x00b"), "$.code"),
        (definition(type="median"), "$.type"),
        (definition(tpye="sum"), "$.tpye"),
        ({"code": "made"}, "$.type"),
        (definition(period="3 parsecs"), "$.period"),
        (definition(cycle_day=40), "$.cycle_day"),
        (definition(cycle_day=3), "$.cycle_day"),
        (definition(zone="Mars/Olympus", period="month"), "$.zone"),
        (definition(zone="Europe/Berlin"), "$.zone"),
        (definition(recurring=True), "$.recurring"),
        (definition(field="x" * 65), "$.field"),
        (definition(dimensions=[{"key": "k" * 40}]), "$.dimensions[0].key"),
        (definition(dimensions=[{"key": "a"}, {"key": "é" * 20}]), "$.dimensions[1].key"),
        (definition(dimensions=[{"key": "a"}, {"key": "a"}]), "$.dimensions"),
        (
            definition(dimensions=[{"key": "a", "values": ["x", "é" * 60]}]),
            "$.dimensions[0].values[1]",
        ),
        (definition(dimensions=[{"key": "a", "values": ["x", "x"]}]), "$.dimensions[0].values"),
        (definition(thresholds=[threshold(), threshold()]), "$.thresholds"),
        (definition(thresholds=[threshold(code=str(at)) for at in range(299)]), "$.thresholds"),
        (definition(thresholds=[threshold(code="é" * 30)]), "$.thresholds[0].code"),
        (definition(thresholds=[threshold(value=2**63)]), "$.thresholds[0].value"),
        (definition(thresholds=[threshold(value=str(2**63))]), "$.thresholds[0].value"),
    ],
)
def test_a_definition_is_refused_at_the_member(
    shared: Running, body: dict[str, Any], path: str
) -> None:
    fault = refused(shared, "POST", "/v1/metrics", content=json.dumps(body).encode())
    assert fault["path"] == path, fault
    tried = refused(shared, "POST", "/v1/metrics/dry-run", content=json.dumps({"metric": body}))
    assert tried["path"] == "$.metric" + path.removeprefix("$")


def test_a_word_that_is_none_of_several_names_them(shared: Running) -> None:
    fault = refused(shared, "POST", "/v1/metrics", json=definition(type="median"))
    assert fault["expected"] == "one of: avg, count, count-unique, latest, max, min, sum"


OF = {"account": "acme", "metric": "api_calls"}
LONG = {"start": "2000-01-01", "end": "2099-01-01", "window": "hour"}


@pytest.mark.parametrize(
    ("path", "query", "place"),
    [
        ("/v1/totals", {**OF, "filter": "nothing:x"}, "filter"),
        ("/v1/totals", {**OF, "filter": "model"}, "filter"),
        ("/v1/totals", {"metric": "api_calls"}, "account"),
        ("/v1/totals", {**OF, "start": "yesterday", "end": "2026-01-01"}, "start"),
        ("/v1/breakdown", {**OF, "group_by": "nothing"}, "group_by"),
        ("/v1/breakdown", {**OF, "group_by": "model,model"}, "group_by"),
        ("/v1/breakdown", OF, "group_by"),
        ("/v1/series", {**OF, **LONG}, "window"),
        ("/v1/series", {**OF, "window": "year"}, "window"),
        ("/v1/series", {**OF, "zone": "Mars/Olympus"}, "zone"),
        ("/v1/members", OF, "metric"),
        ("/v1/members", {**OF, "metric": "seats", "cursor": "AAAA"}, "cursor"),
        ("/v1/metrics", {"cursor": "AAAA"}, "cursor"),
        ("/v1/metrics", {"cursor": "!"}, "cursor"),
        ("/v1/accounts", {"cursor": "AAAA"}, "cursor"),
        ("/v1/events", {"account": "acme", "cursor": "AAAA"}, "cursor"),
        ("/v1/events/tail", {"cursor": "AAAA"}, "cursor"),
        ("/v1/events/tail", {"outcome": "lost"}, "outcome"),
        ("/v1/totals/accounts", {"metric": "api_calls", "cursor": "AAAA"}, "cursor"),
        ("/v1/alerts", {"after": "-1"}, "after"),
        ("/v1/audit", {"limit": "0"}, "limit"),
        ("/v1/metrics", {"linearizable": "maybe"}, "linearizable"),
    ],
)
def test_a_read_is_refused_at_the_parameter(
    shared: Running, path: str, query: dict[str, str], place: str
) -> None:
    shared.send([{"account": "acme", "metric": "api_calls"}])
    assert refused(shared, "GET", path, params=query)["path"] == place


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/webhooks", {"url": "gopher://x"}, "$.url"),
        ("/v1/webhooks", {"url": "https://user@example.com/"}, "$.url"),
        ("/v1/webhooks", {"url": "https://example.com", "secret": "whsec_AAAA"}, "$.secret"),
        ("/v1/webhooks", {"url": "https://example.com", "accounts": [""]}, "$.accounts[0]"),
        ("/v1/webhooks", {"url": "https://example.com", "accounts": ["é" * 60]}, "$.accounts"),
        ("/v1/webhooks", {"url": "https://example.com", "after": 10**6}, "$.after"),
        ("/v1/webhooks/wh_aaaaaaaaaaaa/replay", {"after": 2.5}, "$.after"),
        ("/v1/webhooks/wh_aaaaaaaaaaaa/replay", {}, "$.after"),
        ("/v1/keys", {"name": "x", "scopes": ["boss"]}, "$.scopes[0]"),
        ("/v1/keys", {"name": "\n", "scopes": ["read"]}, "$.name"),
        ("/v1/keys", {"name": "x", "scopes": ["admin"], "account": "acme"}, "$.scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["read"], "account": 2**64}, "$.account"),
    ],
)
def test_administration_is_refused_at_the_member(
    shared: Running, path: str, body: dict[str, Any], place: str
) -> None:
    found = refused(shared, "POST", path, content=json.dumps(body).encode())["path"]
    assert found == place


def test_an_event_is_refused_with_index_and_field(shared: Running) -> None:
    good = {"account": "acme", "metric": "api_calls"}
    for wrong, field in (({"account": 2**64}, "account"), ({"value": 1.5}, "value")):
        body = json.dumps([good, {**good, **wrong}]).encode()
        fault = refused(shared, "POST", "/v1/events", content=body)
        assert (fault["index"], fault["field"], fault["path"]) == (1, field, f"$[1].{field}")


def test_a_body_that_is_not_what_it_says_is_told_what_would_be(shared: Running) -> None:
    for coding in ("gzip", "zstd"):
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        for content in (b"neither", gzip.compress(b"[]")[:-4]):
            fault = refused(shared, "POST", "/v1/events", content=content, headers=headers)
            assert coding in fault["expected"]
    refused(shared, "POST", "/v1/metrics", content=b"{")


def test_a_cloud_event_that_lacks_a_member_is_told_which(shared: Running) -> None:
    for kind, body, place in (
        ("application/cloudevents-batch+json", [{"id": "1"}], "$[0].source"),
        ("application/cloudevents+json", {"id": "1"}, "$.source"),
    ):
        content = json.dumps(body).encode()
        headers = {"Content-Type": kind}
        fault = refused(shared, "POST", "/v1/events", content=content, headers=headers)
        assert (fault["path"], fault["field"]) == (place, "source")


def test_a_cloud_event_whose_data_is_none_is_named(shared: Running) -> None:
    event = {"id": "1", "source": "s", "specversion": "1.0", "type": "api_calls", "subject": "a"}
    empty = {**event, "data_base64": ""}
    for kind, body, place in (
        ("application/cloudevents-batch+json", [event, empty], "$[1].data_base64"),
        ("application/cloudevents+json", empty, "$.data_base64"),
    ):
        headers = {"Content-Type": kind}
        content = json.dumps(body).encode()
        fault = refused(shared, "POST", "/v1/events", content=content, headers=headers)
        assert (fault["path"], fault["field"]) == (place, "data_base64")
        assert fault["index"] == (1 if isinstance(body, list) else 0)


@pytest.mark.parametrize(
    ("path", "index", "field"),
    [("$[3].value", 3, "value"), ("$.events[2].account", 2, "account"), ("limit", None, "limit"),
     ("$.dimensions[0].key", None, "key"), ("$.scopes[0]", None, "scopes"), ("$", None, "")],
)  # fmt: skip
def test_a_fault_knows_index_and_field_by_its_path(
    path: str, index: int | None, field: str
) -> None:
    fault = bad(path, "is wrong").faults[0]
    assert (fault.index, fault.field) == (index, field)


def test_a_place_that_no_type_describes_has_words_all_the_same() -> None:
    assert expected_at(dict[str, int], "$[...]") == "an integer"
    assert expected_at(Any, "$.x") == "another value"


# --- numbers, waiting --------------------------------------------------------------


def test_a_whole_number_may_have_a_point(shared: Running) -> None:
    sent = b'[{"account": "whole", "metric": "api_calls", "value": 3.0}]'
    assert shared.send(sent)["stored"] == 1
    assert shared.send(sent[1:-1] + b"\n", "application/x-ndjson")["stored"] == 1
    assert shared.total("whole", "api_calls") == 6
    large = (
        b'{"code": "whole", "type": "sum", '
        b'"thresholds": [{"code": "a", "value": 9.007199254740993e15}]}'
    )
    reply = shared.http.post("/v1/metrics", content=large)
    assert reply.status_code == 201, reply.text
    assert reply.json()["thresholds"][0]["value"] == str(2**53 + 1)
    refused(shared, "POST", "/v1/metrics", content=large.replace(b"e15", b"e150"))


def test_what_is_too_large_says_when_to_come_again(shared: Running) -> None:
    size = shared.server.config.http_body_bytes_max + 1
    reply = shared.http.post("/v1/metrics", content=b" " * size)
    assert reply.status_code == 413
    assert int(reply.headers["Retry-After"]) > 0


# --- the description ---------------------------------------------------------------


def test_each_kind_of_failure_is_described_as_it_is_told(shared: Running) -> None:
    paths = shared.get("/openapi.json")["paths"]
    for one in LISTED:
        answers = paths[shown_path(one)][one.method.lower()]["responses"]
        told = one.failure(Problem(429, "too-many", "wait")).headers["Content-Type"]
        assert list(answers["429" if one.scope else "400"]["content"]) == [told], name_of(one)
    stream = paths["/v1/stream"]["get"]["responses"]["200"]["content"]
    assert list(stream) == ["text/event-stream"]


def test_the_description_says_what_is_refused(shared: Running) -> None:
    whole = shared.get("/openapi.json")
    schemas = whole["components"]["schemas"]
    assert schemas["MetricBody"]["properties"]["code"]["minLength"] == 1
    assert schemas["MetricBody"]["properties"]["cycle_day"]["maximum"] == 28
    assert schemas["WebhookBody"]["properties"]["url"]["pattern"].startswith("^https?://")
    for path in ("/v1/webhooks/{id}", "/v1/keys/{id}"):
        ident = whole["paths"][path]["delete"]["parameters"][0]
        assert ident["schema"]["pattern"] and ident["example"]
    for name in ("account", "metric"):
        described = whole["paths"]["/v1/totals"]["get"]["parameters"]
        found = next(one for one in described if one["name"] == name)
        assert found["schema"]["minLength"] == 1
