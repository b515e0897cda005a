"""Hundreds of malformed requests: each is told what is wrong, none breaks anything.

What must hold for every one of them: a status of 4xx, problem+json with its members, no traceback,
no word of our code; and the node still counts. Some speak HTTP as no client library would.
"""

from __future__ import annotations

import json
import random
import socket
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.server.web.running import Running, running

from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.openapi import parameters, shown_path
from unimeter.server.web.site import api_endpoints

JSON = "application/json"
ENDLESS = "/v1/stream"


@pytest.fixture(scope="module")
def node() -> Iterator[Running]:
    """A server whose failures to handle something are failures of the test."""
    with running() as found:
        found.metric("api_calls", dimensions=[{"key": "model"}])
        yield found


def check(reply: Any, statuses: range = range(400, 500)) -> None:
    """A refusal as every refusal must be."""
    text = reply.text
    assert reply.status_code in statuses, f"{reply.status_code}: {text[:500]}"
    assert "Traceback" not in text and ".py" not in text and "0x" not in text
    assert reply.headers["Content-Type"] == "application/problem+json", text
    body = reply.json()
    assert body["status"] == reply.status_code
    assert body["type"].startswith("urn:unimeter:problem:") and body["detail"]


@pytest.fixture(autouse=True)
def quiet(node: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request makes the server print a traceback, whatever it is answered."""
    printed: list[str] = []
    monkeypatch.setattr(traceback, "print_exc", lambda **_: printed.append(traceback.format_exc()))
    yield
    assert not printed, printed[0]
    assert node.send({"account": "well", "metric": "api_calls"})["stored"] == 1


# --- bodies -------------------------------------------------------------------------

GOOD = json.dumps({"account": "acme", "metric": "api_calls", "value": 1}).encode()


def broken_json() -> list[bytes]:
    """Bodies that are no events: cut, mixed up, nested, of other types."""
    chance = random.Random(5)
    found = [GOOD[:at] for at in range(len(GOOD))]
    for _ in range(150):
        body = bytearray(GOOD)
        body[chance.randrange(len(body))] = chance.choice(b'{}[]",:\x00\xff\\0e-')
        found.append(bytes(body))
    values = [b"null", b"1", b'"x"', b"true", b"[1]", b"[null]", b'{"events":1}', b'{"events":[1]}']
    deep = [b"[" * 5_000, b'{"events":' * 5_000, b'{"properties":' * 2_000, b'[{"account":' * 999]
    odd = [
        b"NaN",
        b"[Infinity]",
        b"\xff\xfe[]",
        b"{}{}",
        b"[]x",
        b"'a'",
        b"//",
        b"1e999",
        b"\x1f\x8b",
    ]
    return [*found, *values, *deep, *odd, b'{"account":"\\ud800","metric":"api_calls"}']


@pytest.mark.parametrize("kind", [JSON, "application/x-ndjson", "text/csv"])
def test_bodies_that_are_no_events(node: Running, kind: str) -> None:
    for body in broken_json():
        reply = node.http.post("/v1/events", content=body, headers={"Content-Type": kind})
        if reply.status_code != 200:
            check(reply)
            continue
        counts = reply.json()  # a changed letter of a name, or a blank line
        assert counts["stored"] + counts["duplicates"] + counts["refused"] <= 1


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/events"])
def test_numbers_and_texts_at_the_edges_of_every_field(node: Running, path: str) -> None:
    values = [
        None, True, 0, -1, 1.5, 2**63, -(2**63) - 1, 2**64, 10**40, "", "x" * 100_000, "\x00",
        "\U0001f600", [], [[]], {}, {"": ""}, {"a": None}, ["x"] * 100,
    ]  # fmt: skip
    good = {
        "/v1/events": {"account": "acme", "metric": "api_calls"},
        "/v1/metrics": {"code": "new", "type": "sum"},
    }[path]
    fields = {
        "/v1/events": ("account", "metric", "value", "timestamp", "timestamp_ns", "properties",
                       "operation", "id", "unknown"),
        "/v1/metrics": ("code", "type", "period", "cycle_day", "zone", "dimensions", "thresholds",
                        "recurring", "resolution", "field", "unknown"),
    }[path]  # fmt: skip
    for field in fields:
        for value in values:
            reply = node.http.post(path, json={**good, field: value})
            if reply.status_code not in (200, 201):
                check(reply)


# --- parameters -----------------------------------------------------------------------

ODD = ["", " ", "\x00", "%", "-1", "1e3", "9" * 400, "١", "null", "[]", "../..", "a" * 5_000,
       "'\"<script>", "\xed\xa0\x80", "2026-11-05T10:30:00Z", "str:"]  # fmt: skip
READS = [one for one in api_endpoints() if one.method == "GET" and one.path != ENDLESS]


@pytest.mark.parametrize("route", READS, ids=lambda one: one.path)
def test_every_parameter_of_every_read_takes_or_refuses_anything(
    node: Running, route: Endpoint
) -> None:
    named = parameters(route)
    usual = {"account": "acme", "metric": "api_calls", "group_by": "model"}
    path = shown_path(route)
    for one in named:
        for text in ODD:
            params: Any = {name: value for name, value in usual.items() if one.name != name}
            place, headers = path, {}
            if one.where == "query":
                params[one.name] = text
            elif one.where == "header":
                headers[one.name] = text.encode().translate(None, b" \x00")
            else:
                place = path.replace(f"{{{one.name}}}", quote(text or "x", safe=""))
            place = place.replace("{", "%7B").replace("}", "%7D")
            reply = node.http.get(place, params=params, headers=headers)
            if reply.status_code >= 400:
                check(reply, range(400, 504))
                assert reply.status_code in (400, 401, 403, 404, 410, 503), (one, text)


# --- HTTP itself ------------------------------------------------------------------------

RAW = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"GET /v1/totals\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x:99999999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/totals?%%%=%zz&=&&a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%00/../..%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW /v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 9_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xff\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + b"A" * 9_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nCookie: unimeter_session=\xfe;;;=;\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE /v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x00" * 100,
]


@pytest.mark.parametrize("sent", RAW, ids=lambda sent: repr(sent[:40]))
def test_what_no_client_library_would_say(node: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.server.http_port), timeout=10) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass  # it closed while we still sent
    assert b"Traceback" not in got and b".py" not in got
    if got:
        assert got.startswith(b"HTTP/1.1 "), got[:80]
        assert not got.startswith(b"HTTP/1.1 5"), got[:400]
