"""Events by HTTP: each gets an outcome, and what is wrong is said with its place."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from tests.server.web.running import Running, running

from unimeter import limits
from unimeter.errors import BackpressureError
from unimeter.keys import ANYBODY, new_key, record_of
from unimeter.wire.messages import KeyPut

NDJSON = "application/x-ndjson"
_numbers = itertools.count()


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return f"acme-{next(_numbers)}"


def event(account: Any, **more: Any) -> dict[str, Any]:
    return {"account": account, "metric": "api_calls", **more}


# --- forms --------------------------------------------------------------------------


def test_one_event_an_array_and_a_named_array_are_the_same(shared: Running, account: str) -> None:
    for body in (event(account, value=1), [event(account, value=2)]):
        assert shared.send(body)["outcomes"] == ["stored"]
    assert shared.send({"events": [event(account, value=4)]})["stored"] == 1
    assert shared.total(account, "api_calls") == 7


def test_integer_and_string_accounts_of_the_same_digits_are_two(shared: Running) -> None:
    shared.send([event(990, value=1), event("990", value=5)])
    assert shared.total("990", "api_calls") == 1
    assert shared.total("str:990", "api_calls") == 5


def test_every_event_gets_an_outcome_and_the_refused_a_reason(
    shared: Running, account: str
) -> None:
    known = event(account, id="a", timestamp="2026-11-05T10:30:00Z")
    reply = shared.send(
        [
            known,
            known,
            {**known, "value": 9},
            {"account": account, "metric": "nothing"},
            event(account, timestamp="1999-12-31T23:59:59Z"),
            event(account, operation="add"),
            event(account, id="x" * 65),
        ]
    )
    assert reply["outcomes"] == [
        "stored",
        "duplicate",
        "conflict",
        "unknown_metric",
        "bad_timestamp",
        "operation_not_allowed",
        "bad_id",
    ]
    assert (reply["stored"], reply["duplicates"], reply["refused"]) == (1, 1, 5)
    assert [one["index"] for one in reply["refusals"]] == [2, 3, 4, 5, 6]
    assert all(one["reason"] and one["account"] == account for one in reply["refusals"])
    assert reply["refusals"][0]["id"] == "a"


def test_all_nine_decimals_of_a_time_are_kept(shared: Running, account: str) -> None:
    shared.send(
        [
            event(account, timestamp="2026-11-05T12:30:00.123456789+02:00"),
            event(account, timestamp_ns=1_794_000_000_000_000_001),
        ]
    )
    rows = shared.get("/v1/events", account=account)["rows"]
    assert [row["timestamp"] for row in rows] == [
        "2026-11-05T10:30:00.123456789Z",
        "2026-11-06T21:20:00.000000001Z",
    ]


def test_the_largest_values_of_64_bits_pass_and_one_more_does_not(
    shared: Running, account: str
) -> None:
    shared.send([event(account, value=2**63 - 1), event(2**64 - 1, value=-(2**63))])
    assert shared.total(account, "api_calls") == str(2**63 - 1)
    assert shared.total(2**64 - 1, "api_calls") == str(-(2**63))
    fault = shared.send([event(account), event(account, value=2**63)], status=400)["errors"][0]
    assert (fault["path"], fault["index"], fault["field"]) == ("$[1].value", 1, "value")
    fault = shared.send([event(account), event(2**64)], status=400)["errors"][0]
    assert (fault["path"], fault["index"]) == ("$[1].account", 1)


def test_texts_beyond_the_wire_are_refused_event_by_event(shared: Running, account: str) -> None:
    reply = shared.send(
        [
            event("a" * 300),
            event("é" * 64),  # 128 bytes
            event("\U0001f600" * 64),  # 256 bytes: one more than the wire holds
            {"account": account, "metric": "m" * 300},
            event(account, id="i" * 300),
            event(account, properties={"k" * 300: "v"}),
            event(account, properties={"k": "v" * 300}),
            event(account, properties={str(n): "v" for n in range(300)}),
            event(account, value=1),
        ]
    )
    assert reply["outcomes"] == [
        "bad_account",
        "bad_account",
        "bad_account",
        "bad_metric_code",
        "bad_id",
        "bad_property",
        "bad_property",
        "too_many_properties",
        "stored",
    ]
    assert reply["refusals"][0]["account"] == "a" * 300


def test_no_events_are_no_mistake(shared: Running) -> None:
    reply = shared.send([])
    assert reply["outcomes"] == [] and reply["position"] > 0
    assert shared.send(b"", NDJSON)["stored"] == 0


def test_a_batch_of_many_entries_is_stored_in_order(shared: Running, account: str) -> None:
    count = 2 * limits.EVENTS_PER_BATCH_MAX + 7
    body = [event(account, id=str(n)) for n in range(count)]
    body[-1] = {"account": account, "metric": "nothing"}
    reply = shared.send(body)
    assert reply["outcomes"] == ["stored"] * (count - 1) + ["unknown_metric"]
    assert reply["refusals"][0]["index"] == count - 1
    assert shared.send(body[:-1])["duplicates"] == count - 1
    assert shared.total(account, "api_calls") == count - 1


def test_a_bad_event_in_the_last_of_many_parts_stores_nothing(
    shared: Running, account: str
) -> None:
    body = [event(account) for _ in range(limits.EVENTS_PER_BATCH_MAX + 1)]
    for wrong in ({"value": "x"}, {"timestamp": "yesterday"}):
        bad = [*body, event(account, **wrong)]
        fault = shared.send(bad, status=400)["errors"][0]
        assert fault["index"] == len(body)
    assert shared.total(account, "api_calls") == 0


# --- what is wrong ------------------------------------------------------------------

WRONG = [
    ({"value": "1"}, "$[1].value", "value", "integer"),
    ({"value": 1.5}, "$[1].value", "value", "integer"),
    ({"value": None}, "$[1].value", "value", "integer"),
    ({"account": None}, "$[1].account", "account", "string"),
    ({"account": True}, "$[1].account", "account", "string"),
    ({"account": -1}, "$[1].account", "account", "integer"),
    ({"metric": 7}, "$[1].metric", "metric", "string"),
    ({"id": ""}, "$[1].id", "id", "string"),
    ({"id": 5}, "$[1].id", "id", "string"),
    ({"timestamp": "2026-11-05T10:30:00"}, "$[1].timestamp", "timestamp", "zone"),
    ({"timestamp": "2026-13-05T10:30:00Z"}, "$[1].timestamp", "timestamp", "zone"),
    ({"timestamp": 5}, "$[1].timestamp", "timestamp", "zone"),
    ({"timestamp": "2026-11-05T10:30:00Z", "timestamp_ns": 5}, "$[1].timestamp", "timestamp", ""),
    ({"timestamp_ns": -5}, "$[1].timestamp_ns", "timestamp_ns", "nanoseconds"),
    ({"properties": {"a": 1}}, "$[1].properties[...]", "properties", "strings"),
    ({"properties": []}, "$[1].properties", "properties", "object"),
    ({"operation": "ADD"}, "$[1].operation", "operation", "none, add or remove"),
    ({"acount": 1}, "$[1].acount", "acount", "account"),
    ({"account_id": 1}, "$[1].account_id", "account_id", "account"),
    ({"tags": {}}, "$[1].tags", "tags", "properties"),
]


@pytest.mark.parametrize(("wrong", "path", "field", "expected"), WRONG)
def test_a_wrong_field_is_named_with_its_place_and_nothing_is_stored(
    shared: Running, account: str, wrong: dict[str, Any], path: str, field: str, expected: str
) -> None:
    reply = shared.send([event(account), event(account) | wrong], status=400)
    fault = reply["errors"][0]
    assert (fault["path"], fault["index"], fault["field"]) == (path, 1, field)
    assert expected in fault["expected"]
    assert shared.total(account, "api_calls") == 0


@pytest.mark.parametrize("name", ["account", "metric"])
def test_a_missing_field_is_named(shared: Running, name: str) -> None:
    body = {key: value for key, value in event("x").items() if key != name}
    fault = shared.send({"events": [body]}, status=400)["errors"][0]
    assert fault["path"] == f"$.events[0].{name}" and "missing" in fault["reason"]
    fault = shared.send(body, status=400)["errors"][0]
    assert (fault["path"], fault["index"]) == (f"$.{name}", 0)


# --- Idempotency-Key ------------------------------------------------------------------


def test_a_request_sent_again_with_its_key_is_counted_once(shared: Running, account: str) -> None:
    key = str(uuid.uuid4())
    body = [event(account, value=3), event(account, value=3), event(account, id="own")]
    assert shared.send(body, Idempotency_Key=key)["stored"] == 3
    again = shared.send(body, Idempotency_Key=key)
    assert again["outcomes"] == ["duplicate"] * 3
    assert shared.total(account, "api_calls") == 7
    assert shared.send(body[:2], Idempotency_Key=str(uuid.uuid4()))["stored"] == 2


def test_a_key_covers_a_stream_across_its_batches(shared: Running, account: str) -> None:
    count = limits.HTTP_CHUNK_EVENTS + 10
    line = json.dumps(event(account)).encode() + b"\n"
    key = str(uuid.uuid4())
    assert shared.send(line * count, NDJSON, Idempotency_Key=key)["stored"] == count
    assert shared.send(line * count, NDJSON, Idempotency_Key=key)["duplicates"] == count
    csv = b"account,metric\n" + f"{account},api_calls\n".encode() * count
    assert shared.send(csv, "text/csv", Idempotency_Key=key)["duplicates"] == count


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(shared: Running, account: str, key: str) -> None:
    reply = shared.send(event(account), status=400, Idempotency_Key=key)
    assert reply["errors"][0]["path"] == "Idempotency-Key"


# --- streams --------------------------------------------------------------------------


def test_lines_are_counted_and_a_bad_one_is_named_with_its_number(
    shared: Running, account: str
) -> None:
    good = json.dumps(event(account)).encode()
    body = b"\xef\xbb\xbf" + good + b"\r\n\n" + good + b"\n{]\n" + good + b"\n"
    reply = shared.send(body, NDJSON, status=400)
    fault = reply["errors"][0]
    assert (fault["path"], fault["index"]) == ("line 4", 2)
    assert (reply["stored"], reply["lines"]) == (2, 3)
    assert shared.total(account, "api_calls") == 2


def test_refused_events_of_a_stream_are_told_but_not_without_end(
    shared: Running, account: str
) -> None:
    line = json.dumps({"account": account, "metric": "nothing"}).encode() + b"\n"
    reply = shared.send(line * 5_000, NDJSON)
    assert reply["refused"] == 5_000 and reply["lines"] == 5_000
    assert len(reply["refusals"]) == limits.HTTP_REFUSALS_MAX
    assert "outcomes" not in reply


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_stream_may_come_in_any_pieces(shared: Running, account: str, cut: int) -> None:
    lines = [json.dumps(event(account, value=n, id=str(n))) for n in range(40)]
    body = "\n".join(lines).encode()  # the last without a line end
    pieces = (body[at : at + cut] for at in range(0, len(body), cut))
    reply = shared.http.post("/v1/events", content=pieces, headers={"Content-Type": NDJSON})
    assert reply.json()["stored"] == 40, reply.text
    assert shared.total(account, "api_calls") == sum(range(40))


@pytest.mark.parametrize("has_end", [True, False])
@pytest.mark.parametrize("kind", [NDJSON, "text/csv"])
def test_a_line_beyond_the_bound_is_refused_with_its_number(
    shared: Running, account: str, kind: str, has_end: bool
) -> None:
    good = json.dumps(event(account)) if kind == NDJSON else f"{account},api_calls"
    head = "" if kind == NDJSON else "account,metric\n"
    long = "x" * (limits.HTTP_LINE_BYTES_MAX + 1) + "\n" * has_end
    reply = shared.send(f"{head}{good}\n{good}\n{long}".encode(), kind, status=413)
    number = 3 if kind == NDJSON else 4
    assert reply["errors"][0]["path"] == f"line {number}"
    assert reply["stored"] == 2 and shared.total(account, "api_calls") == 2


def test_csv_knows_the_command_lines_names_and_the_rest_are_properties(
    shared: Running, account: str
) -> None:
    body = (
        "account_id,metric_code,value,time,model,id,operation_type\r\n"
        f'{account},api_calls,5,2026-11-05T10:30:00.5Z,"large, ""v2""",one,\r\n'
        f"{account},api_calls,-2,2026-11-05T10:30:00.5Z,,two,none\r\n"
        "\r\n"
        f'{account},api_calls,7,2026-11-05T10:30:00.5Z,"two\nlines",three,none'
    )
    reply = shared.send(body.encode(), "text/csv; charset=utf-8")
    assert (reply["stored"], reply["lines"]) == (3, 6), reply
    rows = shared.get("/v1/events", account=account)["rows"]
    assert [row["properties"] for row in rows] == [
        {"model": 'large, "v2"'},
        {},
        {"model": "two\nlines"},
    ]
    assert [row["value"] for row in rows] == [5, -2, 7]


def test_csv_takes_properties_as_json_and_a_time_in_nanoseconds(
    shared: Running, account: str
) -> None:
    row = f'{account},api_calls,1794000000000000001,"{{""model"":""x""}}"'
    body = f"account,metric,timestamp_ns,tags\n{row}\n"
    assert shared.send(body.encode(), "text/csv")["stored"] == 1
    (row,) = shared.get("/v1/events", account=account)["rows"]
    assert row["properties"] == {"model": "x"}
    assert row["timestamp"] == "2026-11-06T21:20:00.000000001Z"


CSV_WRONG = [
    ("account,metric,value", "a,api_calls,", "value"),
    ("account,metric,value", "a,api_calls,1.5", "value"),
    ("account,metric,value", f"a,api_calls,{2**63}", "value"),
    ("account,metric,value", "a,api_calls", ""),
    ("account,metric,value", 'a,"api"x,1', ""),
    ("account,metric,value", 'a,"api,1', ""),
    ("account,metric,value", "a,\udcff,1", ""),
    ("account,metric,timestamp", "a,api_calls,", "timestamp"),
    ("account,metric,timestamp", "a,api_calls,2026-11-05", "timestamp"),
    ("account,metric,timestamp_ns", "a,api_calls,x", "timestamp_ns"),
    ("account,metric,operation", "a,api_calls,sub", "operation"),
    ("account,metric,properties", "a,api_calls,[]", "properties"),
]


@pytest.mark.parametrize(("head", "row", "field"), CSV_WRONG)
def test_a_wrong_row_is_named_by_its_line_and_the_rows_before_it_count(
    shared: Running, account: str, head: str, row: str, field: str
) -> None:
    cells = {
        "value": "3",
        "timestamp": "2026-11-05T10:30:00Z",
        "timestamp_ns": "1794000000000000001",
    }
    last = head.rpartition(",")[2]
    good = f"{account},api_calls,{cells.get(last, '')}"
    body = f"{head}\n{good}\n{row}\n{good}\n".encode("utf-8", "surrogateescape")
    reply = shared.send(body, "text/csv", status=400)
    fault = reply["errors"][0]
    assert fault["path"] == "line 3" and fault.get("field", "") == field
    assert (reply["stored"], reply["lines"]) == (1, 2)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "account,value",
        "metric",
        "account,metric,account_id",
        "account,metric,,x",
        "account,metric,x,x",
        "account,metric,timestamp,timestamp_ns",
        "account,metric," + ",".join(f"c{n}" for n in range(80)),
    ],
)
def test_a_head_that_can_mean_nothing_is_refused(shared: Running, head: str) -> None:
    reply = shared.send(f"{head}\n1,2\n".encode(), "text/csv", status=400)
    assert reply["errors"][0]["path"] in ("line 1", "line 2") and reply["stored"] == 0


# --- bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bodies_may_be_compressed(shared: Running, account: str, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zstandard.ZstdCompressor().compress
    body = pack(json.dumps([event(account), event(account)]).encode())
    assert shared.send(body, Content_Encoding=coding)["stored"] == 2
    lines = pack(json.dumps(event(account)).encode() + b"\n" + b'{"account":1}')
    assert shared.send(lines, NDJSON, 400, Content_Encoding=coding)["stored"] == 1
    assert "is not" in shared.send(b"no", status=400, Content_Encoding=coding)["detail"]
    cut = shared.send(body[:-4], status=400, Content_Encoding=coding)
    assert cut["errors"][0]["path"] == "body"


def test_an_unknown_coding_or_content_type_is_a_415(shared: Running, account: str) -> None:
    shared.send(event(account), status=415, Content_Encoding="br")
    reply = shared.send(b"account=1", "application/x-www-form-urlencoded", status=415)
    assert "application/json" in reply["detail"]


def test_a_body_beyond_the_bound_is_a_413_also_as_a_bomb() -> None:
    with running(http_body_bytes_max=100_000) as server:
        server.metric("api_calls")
        large = b"[" + b" " * 200_000 + b"]"
        server.send(large, status=413)
        server.send(gzip.compress(large), status=413, Content_Encoding="gzip")
        reply = server.http.post(
            "/v1/events", content=iter([large]), headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == 413 and "Retry-After" in reply.headers
        assert server.server.site is not None
        assert server.server.site.bodies.held_bytes == 0


def test_bodies_of_all_requests_have_one_bound_and_the_rest_come_again() -> None:
    with running() as server:
        server.metric("api_calls")
        assert server.server.site is not None
        bodies = server.server.site.bodies
        bodies.bytes_max = 1_000
        bodies.take(900)
        reply = server.http.post("/v1/events", json=[event("a" * 50) for _ in range(3)])
        assert reply.status_code == 429 and int(reply.headers["Retry-After"]) > 0
        assert bodies.refused == 1
        bodies.give_back(900)
        assert server.send([event("a")])["stored"] == 1
        assert bodies.held_bytes == 0, "every request gave back what it held"


# --- a node that asks to wait ------------------------------------------------------------


class Busy:
    """A gateway that tells some attempts to wait."""

    def __init__(self, server: Running, attempts: set[int]) -> None:
        assert server.server.site is not None
        self._gateway = server.server.site.gateway
        self._real = self._gateway.ingest
        self._gateway.ingest = self.ingest  # type: ignore[method-assign]
        self.attempts, self.asked = attempts, 0

    async def ingest(self, columns: Any, principal: Any) -> Any:
        self.asked += 1
        if self.asked in self.attempts:
            raise BackpressureError("the disk is full", 0.01)
        return await self._real(columns, principal)


@pytest.fixture
def fresh() -> Iterator[Running]:
    """A server of this test's own."""
    with running() as found:
        found.metric("api_calls")
        yield found


def test_a_stream_is_held_while_the_node_asks_to_wait(fresh: Running) -> None:
    busy = Busy(fresh, {1, 2, 4})
    line = json.dumps(event("held")).encode() + b"\n"
    count = limits.HTTP_CHUNK_EVENTS + 5
    assert fresh.send(line * count, NDJSON)["stored"] == count
    assert busy.asked == 5 and fresh.total("held", "api_calls") == count


def test_a_stream_that_is_held_too_long_says_what_was_stored(
    fresh: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_STREAM_WAIT_SECONDS", 0)
    Busy(fresh, set(range(2, 1000)))
    line = json.dumps(event("held")).encode() + b"\n"
    count = limits.HTTP_CHUNK_EVENTS + 5
    reply = fresh.send(line * count, NDJSON, status=503)
    assert reply["stored"] == reply["lines"] == limits.HTTP_CHUNK_EVENTS
    assert "disk is full" in reply["detail"]
    assert fresh.total("held", "api_calls") == limits.HTTP_CHUNK_EVENTS


def test_a_batch_is_told_to_come_again_and_which_parts_of_it_are_there(fresh: Running) -> None:
    Busy(fresh, {1, 3})
    body = [event("part", id=str(n)) for n in range(limits.EVENTS_PER_BATCH_MAX + 5)]
    reply = fresh.http.post("/v1/events", json=body[:5])
    assert reply.status_code == 503 and int(reply.headers["Retry-After"]) > 0
    assert "stored" not in reply.json()
    reply = fresh.http.post("/v1/events", json=body)
    assert reply.status_code == 503 and reply.json()["stored"] == limits.EVENTS_PER_BATCH_MAX
    again = fresh.send(body)
    assert (again["stored"], again["duplicates"]) == (5, limits.EVENTS_PER_BATCH_MAX)


# --- rights ---------------------------------------------------------------------------


def test_a_key_for_one_account_stores_nothing_of_a_batch_that_names_another() -> None:
    with running() as server:
        server.metric("api_calls")
        chance = random.Random(1)
        for name, scopes, account in (("boss", ["admin"], None), ("one", ["ingest"], "acme")):
            key = new_key(chance.randbytes)
            put_key(server, key, name, scopes, account)
            server.http.headers["Authorization"] = f"Bearer {key}"
        assert server.send([event("acme")])["stored"] == 1
        reply = server.send([event("acme"), event("other")], status=403)
        assert "acme" in reply["detail"]
        lines = b"".join(json.dumps(event(name)).encode() + b"\n" for name in ("acme", "other"))
        assert server.send(lines, NDJSON, status=403)["stored"] == 0
        many = [event("acme")] * limits.EVENTS_PER_BATCH_MAX + [event("other")]
        assert "stored" not in server.send(many, status=403)


def put_key(
    server: Running,
    key: str,
    name: str,
    scopes: list[str],
    account: Any,
    metric: str | None = None,
) -> None:
    """Make a key known to the server: in the name of the first one, or of nobody."""
    record = record_of(key, name, scopes, account, metric)
    assert server.server.site is not None
    gateway = server.server.site.gateway
    known = server.server.node.machine.administration.keys

    async def ask() -> None:
        maker = (
            min(known.values(), key=lambda one: one.created_ns).principal() if known else ANYBODY
        )
        await gateway.ask(KeyPut(record), maker)

    server.run(ask())
