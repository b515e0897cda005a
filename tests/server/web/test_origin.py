"""A node without a key and the pages that are open in a browser beside it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.server.web.running import Running, running

PLAIN = {"content-type": "text/plain;charset=UTF-8"}  # what a page may send without asking first
METRIC = json.dumps({"code": "calls", "type": "sum"}).encode()
CHANGES = {
    "/v1/metrics": {"code": "evil", "type": "sum"},
    "/v1/webhooks": {"url": "https://evil.example/take", "after": 0},
    "/v1/keys": {"name": "evil", "scopes": ["admin"]},
    "/v1/events": {"account": "acme", "metric": "calls"},
    "/v1/session": {"key": "um_aaaaaaaaaaaa_wrong"},
}
FOREIGN = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},  # a browser that says no more
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},  # another port of this host
    {"Origin": "http://127.0.0.1:1"},
]


@pytest.fixture(scope="module")
def open_node() -> Iterator[Running]:
    """A node without a key, with one metric."""
    with running() as found:
        found.metric("calls")
        yield found


def ask(node: Running, method: str, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
    return node.http.request(method, path, content=body, headers=headers)


@pytest.mark.parametrize("page", FOREIGN, ids=str)
@pytest.mark.parametrize("path", CHANGES)
def test_a_page_of_another_site_changes_nothing(
    open_node: Running, path: str, page: dict[str, str]
) -> None:
    before = open_node.server.node.machine.applied
    body = json.dumps(CHANGES[path]).encode()
    reply = ask(open_node, "POST", path, body, **PLAIN, **page)
    assert reply.status_code == 403 and "another site" in reply.json()["detail"]
    assert open_node.server.node.machine.applied == before


def test_every_route_that_changes_something_refuses_a_page_of_another_site(
    open_node: Running,
) -> None:
    assert open_node.server.site is not None
    before = open_node.server.node.machine.applied
    asked = [one for one in open_node.server.site.endpoints if one.method not in ("GET", "HEAD")]
    assert len(asked) > 12
    for one in asked:
        path = one.path.replace("{code:path}", "calls").replace("{id}", "a" * 12)
        reply = ask(open_node, one.method, path, b"{}", **FOREIGN[0])
        assert reply.status_code == 403, (one.method, path, reply.text)
    assert open_node.server.node.machine.applied == before


def test_pages_of_the_node_and_programs_go_on(open_node: Running) -> None:
    origin = open_node.url
    behind_a_proxy = {"Origin": "https://meter.example.com", "Sec-Fetch-Site": "same-origin"}
    for page in (
        {},
        {"Origin": origin},
        {"Origin": origin, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        behind_a_proxy,
    ):
        assert ask(open_node, "POST", "/v1/metrics", METRIC, **page).status_code == 200, page
    reply = ask(open_node, "GET", "/v1/metrics", **FOREIGN[0])  # a link; no page can read it
    assert reply.status_code == 200 and "access-control-allow-origin" not in reply.headers


# --- names ------------------------------------------------------------------------------

OWN = [
    "127.0.0.1",
    "127.0.0.1:7002",
    "[::1]:7002",
    "localhost",
    "LocalHost:80",
    "10.1.2.3",
    "meter",
]
FOREIGN_NAMES = [
    "rebind.evil.example",
    "rebind.evil.example:7002",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "ai.",
]


@pytest.mark.parametrize("host", FOREIGN_NAMES)
@pytest.mark.parametrize("token", [{}, {"Authorization": "Bearer nonsense"}], ids=["", "token"])
def test_under_a_name_of_somebody_else_an_open_node_tells_nothing(
    open_node: Running, host: str, token: dict[str, str]
) -> None:
    assert open_node.server.site is not None
    own_page = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for one in open_node.server.site.endpoints:
        if one.scope is None:
            continue
        path = one.path.replace("{code:path}", "calls").replace("{id}", "a" * 12)
        path = path.replace("{account:path}", "acme").replace("{account}", "acme")
        assert "{" not in path
        reply = ask(open_node, one.method, path, Host=host, **own_page, **token)
        assert reply.status_code == 403 and "calls" not in reply.text, (one.method, path)


@pytest.mark.parametrize("host", OWN)
def test_an_open_node_answers_under_its_own_names(open_node: Running, host: str) -> None:
    assert ask(open_node, "GET", "/v1/metrics", Host=host).status_code == 200


def test_probes_and_programs_without_a_name_are_answered(open_node: Running) -> None:
    assert ask(open_node, "GET", "/ready", Host="node.example").status_code == 200
    with socket.create_connection(("127.0.0.1", open_node.server.http_port or 0), 10) as sock:
        sock.sendall(b"GET /v1/metrics HTTP/1.0\r\n\r\n")
        assert sock.recv(4096).split(b"\r\n")[0] == b"HTTP/1.1 200 OK"


def test_the_name_that_a_node_is_known_by_is_its_own() -> None:
    with running(advertise="Meter.Example.com:7001", insecure=True) as node:
        for host, status in (("meter.example.com:80", 200), ("other.example.com", 403)):
            assert ask(node, "GET", "/v1/metrics", Host=host).status_code == status


# --- with a key ---------------------------------------------------------------------------


def test_with_a_key_every_name_is_answered_and_a_session_changes_nothing_for_another_site() -> None:
    with running() as node:
        made: dict[str, Any] = node.http.post(
            "/v1/keys", json={"name": "root", "scopes": ["admin"]}
        ).json()
        bearer = {"Authorization": f"Bearer {made['key']}", "Host": "meter.example.com"}
        assert ask(node, "POST", "/v1/metrics", METRIC, **bearer, **FOREIGN[0]).status_code == 201
        body = json.dumps({"key": made["key"]}).encode()
        assert ask(node, "POST", "/v1/session", body, **FOREIGN[0]).status_code == 403
        cookie = ask(node, "POST", "/v1/session", body).headers["set-cookie"].partition(";")[0]
        node.http.cookies.clear()
        browser = {"Cookie": cookie, "X-Unimeter-Request": "1"}
        assert ask(node, "POST", "/v1/metrics", METRIC, **browser).status_code == 200
        for page in FOREIGN:
            reply = ask(node, "POST", "/v1/metrics", METRIC, **browser, **page)
            assert reply.status_code == 403, page
