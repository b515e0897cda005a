"""Totals, lists and accounts by HTTP are what the binary protocol says, in three forms."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.web.running import Running, running

from unimeter import AsyncClient, Event
from unimeter.instants import format_ns
from unimeter.types import OperationType, from_ns

HOUR = "2026-11-05T10"
_numbers = itertools.count()


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return f"reader-{next(_numbers)}"


@pytest.fixture(scope="module")
def used() -> Iterator[Running]:
    """A server where acme has used something on two days, and others a little."""
    with running() as found:
        found.metric(
            "tokens",
            period="month",
            resolution="hour",
            dimensions=[{"key": "model"}],
            thresholds=[{"code": "high", "value": 20}, {"code": "never", "value": 2**60}],
        )
        found.metric("seats", "count-unique")
        found.metric("delay", "avg")
        lines = [
            ("acme", 5, "large", "2026-11-05T10:30:00Z"),
            ("acme", 7, "small", "2026-11-05T11:30:00Z"),
            ("acme", 11, "large", "2026-11-06T00:00:00Z"),
            ("beta", 100, "large", "2026-11-06T00:00:00Z"),
            (42, 9, "small", "2026-11-06T00:00:00Z"),
            ("=cmd()", 1, "small", "2026-11-06T00:00:00Z"),
        ]
        found.send(
            [
                {
                    "account": name,
                    "metric": "tokens",
                    "value": value,
                    "properties": {"model": model},
                    "timestamp": time,
                }
                for name, value, model, time in lines
            ]
        )
        found.send(
            [
                {"account": "acme", "metric": "seats", "value": 3, "timestamp": lines[0][3]},
                {"account": "acme", "metric": "seats", "value": 1, "timestamp": lines[0][3]},
                {"account": "acme", "metric": "delay", "value": 3, "timestamp": lines[0][3]},
                {"account": "acme", "metric": "delay", "value": 4, "timestamp": lines[0][3]},
            ]
        )
        yield found


def rows(found: Running, path: str, *names: str, **params: Any) -> list[Any]:
    """The rows of an answer, cut to some columns."""
    got = found.get(path, **params)["rows"]
    return [tuple(row[name] for name in names) for row in got]


NOVEMBER = {"start": "2026-11-01", "end": "2026-11-20"}


# --- totals -------------------------------------------------------------------------


def test_a_total_has_every_number_and_its_range(used: Running) -> None:
    got = used.get("/v1/totals", account="acme", metric="tokens", **NOVEMBER)
    assert got == {
        "account": "acme",
        "metric": "tokens",
        "aggregation": "sum",
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-11-20T00:00:00Z",
        "value": 23,
        "count": 3,
        "sum": 23,
        "min": 5,
        "max": 11,
        "last": 11,
        "last_at": "2026-11-06T00:00:00Z",
        "average": 23 / 3,
        "alert_flags": 1,
        "position": got["position"],
    }


def test_a_range_is_exact_to_the_nanosecond_in_each_form_of_an_instant(used: Running) -> None:
    def total(start: str, end: str) -> int:
        return int(used.total("acme", "tokens", start=start, end=end))

    assert total("2026-11-05T10:30:00Z", "2026-11-05T11:30:00Z") == 5
    assert total("2026-11-05T10:30:00.000000001Z", "2026-11-05T11:30:00.000000001Z") == 7
    assert total("2026-11-05T11:30:00+01:00", "2026-11-06T01:00:00 01:00") == 12  # + in a URL
    assert total("1793874600000000000", "1793874600000000001") == 5
    assert total("2026-11-06", "2026-11-07") == 11


def test_no_range_is_the_current_period(used: Running, account: str) -> None:
    used.send({"account": account, "metric": "tokens", "value": 2})
    for params in ({}, {"period": "current"}):
        got = used.get("/v1/totals", account=account, metric="tokens", **params)
        assert got["value"] == 2 and got["start"].endswith("-01T00:00:00Z")
    assert used.total(account, "tokens", filter="model:none") == 0


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"start": "2026-11-01"}, "end"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "end"),
        ({"period": "last"}, "period"),
        ({"period": "current", "start": "2026-11-01"}, "period"),
        ({"start": "2026-11-01T00:00:00", "end": "2026-12-01"}, "start"),
        ({"start": "5", "end": "2026-12-01"}, "start"),
        ({"filter": "model"}, "filter"),
        ({"format": "xml"}, "format"),
        ({"linearizable": "maybe"}, "linearizable"),
        ({"account": ""}, "account"),
        ({"metric": ""}, "metric"),
    ],
)
def test_a_parameter_that_can_mean_nothing_is_named(
    used: Running, params: dict[str, str], path: str
) -> None:
    got = used.get("/v1/totals", 400, **{"account": "acme", "metric": "tokens", **params})
    assert got["errors"][0]["path"] == path


def test_filters_of_one_dimension_are_alternatives(used: Running) -> None:
    def total(*filters: str) -> int:
        return int(used.total("acme", "tokens", filter=list(filters), **NOVEMBER))

    assert total("model:large") == 16
    assert total("model:large", "model:small") == 23
    assert (
        "model"
        in used.get("/v1/totals", 400, account="acme", metric="tokens", filter="color:red")[
            "detail"
        ]
    )


def test_a_series_has_every_window_also_the_empty(used: Running) -> None:
    got = rows(
        used,
        "/v1/series",
        "start",
        "value",
        "min",
        account="acme",
        metric="tokens",
        start="2026-11-04",
        end="2026-11-07",
    )
    assert got == [
        ("2026-11-04T00:00:00Z", 0, None),
        ("2026-11-05T00:00:00Z", 12, 5),
        ("2026-11-06T00:00:00Z", 11, 11),
    ]
    berlin = rows(
        used,
        "/v1/series",
        "start",
        "value",
        account="acme",
        metric="tokens",
        start="2026-11-04T23:00:00Z",
        end="2026-11-06T23:00:00Z",
        zone="Europe/Berlin",
    )
    assert berlin == [("2026-11-04T23:00:00Z", 12), ("2026-11-05T23:00:00Z", 11)]
    used.get("/v1/series", 400, account="acme", metric="tokens", window="year")
    used.get("/v1/series", 400, account="acme", metric="tokens", zone="Mars/Olympus")


def test_a_breakdown_has_a_row_a_combination_and_in_csv_a_column_a_dimension(
    used: Running,
) -> None:
    params = {"account": "acme", "metric": "tokens", "group_by": "model", **NOVEMBER}
    assert rows(used, "/v1/breakdown", "group", "value", **params) == [
        ({"model": "large"}, 16),
        ({"model": "small"}, 7),
    ]
    text = used.http.get("/v1/breakdown", params={**params, "format": "csv"}).text
    assert text.splitlines()[:2] == [
        "model,value,count,sum,min,max,last,last_at,average,alert_flags",
        "large,16,2,16,5,11,11,2026-11-06T00:00:00Z,8.0,1",
    ]
    assert used.get("/v1/breakdown", 400, account="acme", metric="tokens")["errors"]


def test_the_largest_accounts_come_first_and_are_exact(used: Running) -> None:
    got = rows(used, "/v1/top", "account", "value", metric="tokens", limit=2, **NOVEMBER)
    assert got == [("beta", 100), ("acme", 23)]
    used.get("/v1/top", 404, metric="nothing")


def test_the_largest_of_many_accounts_are_found_across_pages() -> None:
    with running() as server:
        server.metric("requests", "sum")
        count = 2_500  # five pages
        server.send(
            [{"account": n, "metric": "requests", "value": n * 7919 % count} for n in range(count)]
        )
        reply = server.get("/v1/top", metric="requests", limit=50)
        assert [row["value"] for row in reply["rows"]] == list(range(count - 1, count - 51, -1))
        assert reply["accounts"] == count


def test_the_invoice_run_gives_every_account_once(used: Running) -> None:
    seen: list[Any] = []
    cursor = None
    while cursor != "":
        params = {"metric": "tokens", "limit": 1, **NOVEMBER}
        got = used.get("/v1/totals/accounts", **params, **({"cursor": cursor} if cursor else {}))
        seen += [(row["account"], row["value"]) for row in got["rows"]]
        cursor = got.get("cursor", "")
    assert sorted(seen, key=str) == [("=cmd()", 1), ("acme", 23), ("beta", 100), (42, 9)]


def test_members_are_those_active_then(used: Running) -> None:
    at = "2026-11-05T10:30:00Z"
    params = {"account": "acme", "metric": "seats"}
    assert rows(used, "/v1/members", "member", at=at, **params) == [(1,), (3,)]
    assert rows(used, "/v1/members", "member", at="2026-11-05T10:29:59Z", **params) == []
    first = used.get("/v1/members", at=at, limit=1, **params)
    assert [row["member"] for row in first["rows"]] == [1]
    rest = used.get("/v1/members", at=at, cursor=first["cursor"], **params)
    assert [row["member"] for row in rest["rows"]] == [3] and "cursor" not in rest
    used.get("/v1/members", 400, account="acme", metric="tokens")


def test_an_average_gives_what_a_bill_is_made_from(used: Running) -> None:
    got = used.get("/v1/totals", account="acme", metric="delay", **NOVEMBER)
    assert (got["value"], got["sum"], got["count"], got["average"]) == (3, 7, 2, 3.5)


# --- forms --------------------------------------------------------------------------


def test_one_list_in_three_forms_is_the_same_list(used: Running) -> None:
    params = {"metric": "tokens", **NOVEMBER}
    listed = used.get("/v1/totals/accounts", **params)["rows"]
    by_lines = used.http.get("/v1/totals/accounts", params={**params, "format": "ndjson"})
    assert [json.loads(line) for line in by_lines.text.splitlines()] == listed
    assert by_lines.headers["Content-Type"] == "application/x-ndjson"
    by_accept = used.http.get(
        "/v1/totals/accounts", params=params, headers={"Accept": "text/csv, */*;q=0.1"}
    )
    table = list(csv.DictReader(io.StringIO(by_accept.text)))
    assert [row["value"] for row in table] == [str(row["value"]) for row in listed]
    assert list(table[0]) == list(listed[0])


def test_a_spreadsheet_sees_no_formula(used: Running) -> None:
    params = {"metric": "tokens", "format": "csv", **NOVEMBER}
    text = used.http.get("/v1/totals/accounts", params=params).text
    cells = [row[0] for row in csv.reader(io.StringIO(text))]
    assert "'=cmd()" in cells and "42" in cells and "acme" in cells


def test_every_answer_says_its_position_and_a_request_may_ask_for_one(used: Running) -> None:
    reply = used.http.get("/v1/totals", params={"account": "acme", "metric": "tokens"})
    position = int(reply.headers["Unimeter-Position"])
    assert position == reply.json()["position"] > 0
    for wanted, status in ((position, 200), (position + 10**6, 412), (-1, 400), ("x", 400)):
        reply = used.http.get(
            "/v1/totals",
            params={"account": "acme", "metric": "tokens", "linearizable": "true"},
            headers={"Unimeter-Position": str(wanted)},
        )
        assert reply.status_code == status, reply.text
        assert ("Retry-After" in reply.headers) == (status == 412)


def test_head_is_get_without_a_body(used: Running) -> None:
    reply = used.http.head("/v1/totals", params={"account": "acme", "metric": "tokens"})
    assert reply.status_code == 200 and reply.content == b""
    assert int(reply.headers["Content-Length"]) > 0


# --- lists --------------------------------------------------------------------------


def test_stored_events_come_page_by_page(used: Running) -> None:
    first = used.get("/v1/events", account="acme", metric="tokens", limit=2)
    assert [row["value"] for row in first["rows"]] == [5, 7]
    rest = used.get("/v1/events", account="acme", metric="tokens", cursor=first["cursor"])
    assert [row["value"] for row in rest["rows"]] == [11] and "cursor" not in rest
    used.get("/v1/events", 400, account="acme", cursor="x!")
    used.get("/v1/events", 400, account="acme", cursor="AAAA")
    used.get("/v1/events", 400, account="acme", period="current")
    assert used.get("/v1/events", account="acme", metric="tokens", period="current")["rows"] == [
        row
        for row in used.get("/v1/events", account="acme", metric="tokens")["rows"]
        if row["timestamp"] >= format_ns(used.server.node.clock())[:8]
    ]


def test_the_tail_has_every_outcome_newest_first_with_its_reason() -> None:
    with running() as server:
        server.metric("tokens")
        known = {"account": "a", "metric": "tokens", "id": "1", "timestamp": f"{HOUR}:00:00Z"}
        server.send([known, {"account": "b", "metric": "tokens", "value": 2}])
        server.send([known, {**known, "value": 3}, {"account": "c", "metric": "none"}])
        server.send([{"account": "d", "metric": "tokens", "timestamp_ns": 5}])
        got = rows(server, "/v1/events/tail", "account", "outcome")
        assert got == [
            ("d", "bad_timestamp"),
            ("c", "unknown_metric"),
            ("a", "conflict"),
            ("a", "duplicate"),
            ("b", "stored"),
            ("a", "stored"),
        ]
        tail = server.get("/v1/events/tail")["rows"]
        assert all((row["reason"] is None) == (row["outcome"] == "stored") for row in tail)
        refused = rows(server, "/v1/events/tail", "account", outcome="refused,duplicate")
        assert refused == [("d",), ("c",), ("a",), ("a",)]
        assert rows(server, "/v1/events/tail", "outcome", account="a", metric="tokens") == [
            ("conflict",),
            ("duplicate",),
            ("stored",),
        ]
        paged, cursor = [], None
        while cursor != "":
            params = {"cursor": cursor} if cursor else {}
            page = server.get("/v1/events/tail", limit=1, **params)
            paged += page["rows"]
            cursor = page.get("cursor", "")
        assert paged == tail
        server.get("/v1/events/tail", 400, outcome="lost")
        server.get("/v1/events/tail", 400, cursor="MC0w")  # 0-0


def test_alerts_are_paged_by_position(used: Running) -> None:
    got = used.get("/v1/alerts", limit=1)
    (first,) = got["rows"]
    assert (first["account"], first["threshold"], first["value"]) == ("acme", "high", 23)
    assert got["more"] is True and got["after"] == 1
    rest = used.get("/v1/alerts", after=1)
    assert [row["account"] for row in rest["rows"]] == ["beta"] and rest["more"] is False
    assert used.get("/v1/alerts", account="beta")["rows"] == rest["rows"]
    used.get("/v1/alerts", 400, after=-1)


def test_an_account_shows_all_that_it_has(used: Running) -> None:
    got = used.get("/v1/accounts/acme")
    assert got["account"] == "acme"
    assert [row["metric"] for row in got["rows"]] == ["tokens", "seats", "delay"]
    assert [(one["code"], one["fired"]) for one in got["rows"][0]["thresholds"]] == [
        ("high", True),
        ("never", False),
    ]
    assert used.get("/v1/accounts/nobody")["rows"] == []
    assert used.get("/v1/accounts/42")["account"] == 42
    assert used.get("/v1/accounts/str:42")["account"] == "42"


def test_accounts_are_found_by_name_and_beginning_once_each() -> None:
    with running() as server:
        for code in ("one", "two"):
            server.metric(code)
        names: list[Any] = [f"acme-{n:04d}" for n in range(30)] + [4, 41, 411, 5, "4", "acme"]
        for code in ("one", "two"):
            server.send([{"account": name, "metric": code} for name in names])
        found = [row["account"] for row in server.get("/v1/accounts", q="acme")["rows"]]
        assert found[0] == "acme" and len(found) == 31 and len(set(found)) == 31
        assert rows(server, "/v1/accounts", "account", "text", q="4") == [
            (4, "4"),
            ("4", "str:4"),
            (411, "411"),
            (41, "41"),
        ]
        assert rows(server, "/v1/accounts", "account", q="str:4") == [("4",)]
        assert len(server.get("/v1/accounts")["rows"]) == len(names)
        assert server.get("/v1/accounts", q="zzz")["rows"] == []
        server.http.delete("/v1/metrics/one")
        server.http.delete("/v1/metrics/two")
        assert server.get("/v1/accounts")["rows"] == []


def test_a_search_goes_on_where_the_page_before_it_ended(monkeypatch: Any) -> None:
    monkeypatch.setattr("unimeter.engine.search.SERIES_PER_STEP", 7)
    monkeypatch.setattr("unimeter.server.web.api.accounts.SCANNED_MAX", 14)
    with running() as server:
        server.metric("one")
        server.send([{"account": n, "metric": "one"} for n in range(100)])
        seen: list[int] = []
        cursor = None
        while cursor != "":
            params = {"cursor": cursor} if cursor else {}
            page = server.get("/v1/accounts", q="5", **params)
            seen += [row["account"] for row in page["rows"]]
            cursor = page.get("cursor", "")
        assert seen == [5, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50]


def test_status_tells_of_the_node_and_its_cluster(used: Running) -> None:
    got = used.get("/v1/status")
    assert got["node"] == got["leader"] == got["nodes"][0]["node"] == 1
    assert got["statistics"]["metrics"] == 3
    text = used.http.get("/v1/status", params={"format": "csv"}).text
    assert text.splitlines()[1].startswith("1,leader,voter,")


# --- metrics ------------------------------------------------------------------------


def test_a_metric_reads_back_as_it_was_written(used: Running) -> None:
    body = {
        "code": "a/b c",
        "type": "count-unique",
        "period": "month",
        "cycle_day": 5,
        "zone": "Europe/Berlin",
        "dimensions": [{"key": "model", "values": ["x", "y"]}, {"key": "kind", "values": []}],
        "thresholds": [{"code": "low", "value": -5, "when": "at-or-below", "again": True}],
        "recurring": True,
        "resolution": "hour",
        "field": "user",
    }
    reply = used.http.post("/v1/metrics", json=body)
    assert (reply.status_code, reply.json()) == (201, body)
    place = reply.headers["Location"]
    assert used.get(place) == body
    assert used.http.post("/v1/metrics", json=body).status_code == 200
    other = used.http.post("/v1/metrics", json={**body, "type": "count", "recurring": False})
    assert other.status_code == 409
    wider = {**body, "field": "seat"}
    assert used.http.put(place, json=wider).json() == wider
    refused = used.http.put(place, json={**body, "zone": "UTC"})
    assert refused.status_code == 409 and "zone" in refused.json()["detail"]
    assert used.http.put("/v1/metrics/other", json=body).status_code == 400
    assert used.http.delete(place).status_code == 204
    assert used.http.delete(place).status_code == 404
    used.get(place, 404)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"type": "median"}, "$.type"),
        ({"period": "fortnight"}, "$.period"),
        ({"thresholds": [{"code": "x", "value": "y"}]}, "$.thresholds[0].value"),
        ({"thresholds": [{"code": "x", "value": "9" * 19}]}, "$.thresholds[0].value"),
        ({"kind": "sum"}, "$"),
        ({"cycle_day": "1"}, "$.cycle_day"),
    ],
)
def test_a_wrong_definition_is_named(used: Running, wrong: dict[str, Any], path: str) -> None:
    reply = used.http.post("/v1/metrics", json={"code": "x", "type": "sum", **wrong})
    assert reply.status_code == 400
    assert path in reply.json()["detail"], reply.text


# --- both ports ------------------------------------------------------------------------

NAMES = ("m_sum", "m_count", "m_avg", "m_min", "m_max", "m_latest", "m_unique")
KINDS = ("sum", "count", "avg", "min", "max", "latest", "count-unique")


@pytest.fixture(scope="module")
def twin() -> Iterator[Running]:
    """A server with a metric of each kind."""
    with running() as found:
        for code, kind in zip(NAMES, KINDS, strict=True):
            found.metric(code, kind, dimensions=[{"key": "k"}])
        yield found


FIRST_NS, DAY_NS = 1_790_000_000_000_000_000, 86_400 * 10**9
moments = st.integers(FIRST_NS, FIRST_NS + 3 * DAY_NS)
sent = st.lists(
    st.tuples(
        st.sampled_from(range(len(NAMES))),
        st.integers(-(2**62), 2**62),
        moments.map(lambda ns: ns // 1000 * 1000),
        st.sampled_from(["", "x", "ü"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@given(sent)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_json_adds_up_to_is_what_the_binary_protocol_adds_up_to(
    twin: Running, lines: list[tuple[int, int, int, str, bool]]
) -> None:
    number = next(_numbers)
    by_json, by_wire = f"json-{number}", f"wire-{number}"
    body: list[dict[str, Any]] = []
    events: list[Event] = []
    for metric, value, ns, tag, removes in lines:
        operation = OperationType.REMOVE if removes and metric == 6 else OperationType.NONE
        tags = {"k": tag} if tag else {}
        body.append(
            {
                "account": by_json,
                "metric": NAMES[metric],
                "value": value,
                "timestamp": format_ns(ns),
                "properties": tags,
                "operation": operation.name.lower(),
            }
        )
        event = Event(by_wire, NAMES[metric], value, from_ns(ns), operation, properties=tags)
        events.append(event)

    reply = twin.send(body)
    assert reply["stored"] == len(body)
    totals: dict[tuple[str, str], Any] = {}
    twin.run(_ingest(twin, events))
    for each in (by_json, by_wire):
        for code in NAMES:
            totals[each, code] = twin.get(
                "/v1/totals",
                account=each,
                metric=code,
                start=str(FIRST_NS),
                end=str(FIRST_NS + 4 * DAY_NS),
            )
    for code in NAMES:
        one, other = totals[by_json, code], totals[by_wire, code]
        for name in ("value", "count", "sum", "min", "max", "last", "last_at"):
            assert one[name] == other[name], (code, name)


async def _ingest(twin: Running, events: list[Event]) -> None:
    async with AsyncClient([twin.server.address]) as client:
        result = await client.ingest(events)
        assert result.n_stored == len(events)
