"""What a stranger may cost on the HTTP port: heads, bodies, silence, bytes that mean nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.json_values import json_values
from tests.server.web.running import Running, running

from unimeter.server.server import Server
from unimeter.server.web import protocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def serve(body: Callable[[Server], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with Server(":memory:", port=0, http_port=0) as server:
            await asyncio.wait_for(body(server), 30)

    asyncio.run(inside())


async def connect(server: Server) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.http_port)


async def rest(streams: Streams) -> bytes:
    """All that comes until the node hangs up."""
    try:
        return await asyncio.wait_for(streams[0].read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        streams[1].close()


# --- heads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000,
        b"G" * 40_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /health HTTP/1.1\r\n" + b"a: b\r\n" * 8_000 + b"content-length: 1\r\n\r\nx",
    ],
    ids=["a header", "a method", "a whole path", "many headers"],
)
def test_a_head_that_is_too_long_is_refused(data: bytes) -> None:
    async def body(server: Server) -> None:
        streams = await connect(server)
        streams[1].write(data)
        assert (await rest(streams))[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400")

    serve(body)


@pytest.mark.parametrize("begun", [b"", b"GET / HTT", b"GET /ready HTTP/1.1\r\nhost: a\r\n"])
def test_a_head_that_does_not_come_ends_the_connection(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)

    async def body(server: Server) -> None:
        streams = await connect(server)
        streams[1].write(begun)
        assert (await rest(streams))[:12] == (b"HTTP/1.1 408" if begun else b"")

    serve(body)


def test_a_slow_head_behind_a_request_that_is_answered_for_long_cuts_nothing_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)

    async def body(server: Server) -> None:
        reader, writer = await connect(server)
        writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: a\r\n\r\nGET /rea")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.15)  # three times the patience for a head
        assert not reader.at_eof()
        writer.close()

    serve(body)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"nonsense\r\n\r\n", 400, "RFC 9112"),
        (b"GET /health HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431, "32 KiB"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 405, "proxy"),
        (b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "Host"),
    ],
    ids=["nonsense", "long", "proxy", "hostless"],
)
def test_what_is_refused_before_a_route_is_a_problem_as_well(
    sent: bytes, status: int, words: str
) -> None:
    async def body(server: Server) -> None:
        streams = await connect(server)
        streams[1].write(sent)
        head, _, told = (await rest(streams)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert b"application/problem+json" in head.lower()
        found = json.loads(told)
        assert found["status"] == status and words in found["detail"]

    serve(body)


# --- bodies -----------------------------------------------------------------------------

POST = b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


def test_a_body_that_nobody_reads_any_more_does_not_hold_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.05)

    async def body(server: Server) -> None:
        streams = await connect(server)
        head = b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"
        streams[1].write(head + b"x" * 1000)
        assert (await rest(streams)).startswith(b"HTTP/1.1 404")
        # One that comes whole after its answer is no reason to hang up.
        reader, writer = await connect(server)
        writer.write(head.replace(b"1000000", b"2000") + b"x" * 1000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.write(b"x" * 1000 + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"HTTP/1.1 200" in await rest((reader, writer))

    serve(body)


def test_a_body_that_trickles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.0)

    async def body(server: Server) -> None:
        streams = await connect(server)
        streams[1].write(POST + b"content-length: 100000\r\n\r\n[")
        assert (await rest(streams)).startswith(b"HTTP/1.1 408")

    serve(body)


def test_a_client_that_does_not_read_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.0)

    async def body(server: Server) -> None:
        assert server.site is not None
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.http_port))
        sock.setblocking(False)
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, ask * 200)
        while not server.site.statistics()["http_connections"]:
            await asyncio.sleep(0.005)
        while server.site.statistics()["http_connections"]:
            await asyncio.sleep(0.005)  # until it is cut off
        sock.close()

    serve(body)


# --- failed logins ------------------------------------------------------------------------

ADMIN = {"name": "root", "scopes": ["admin"]}


def test_guessing_is_slowed_down_and_locks_nobody_out() -> None:
    with running() as found:
        key = found.http.post("/v1/keys", json=ADMIN).json()["key"]
        wrong = {"Authorization": f"Bearer {key[:-4]}aaaa"}
        seen = [found.http.get("/v1/session", headers=wrong) for _ in range(30)]
        assert [one.status_code for one in seen] == [401] * 20 + [429] * 10
        assert 0 < int(seen[-1].headers["retry-after"]) <= 61
        posted = found.http.post("/v1/session", json={"key": "um_wrong"})
        assert posted.status_code == 429
        right = {"Authorization": f"Bearer {key}"}
        assert found.http.get("/v1/session", headers=right).status_code == 200
        assert found.http.post("/v1/session", json={"key": key}).status_code == 200
        # No token at all is no guess: whoever asks is told what is missing.
        assert httpx.get(found.url + "/v1/session").status_code == 401


def test_a_browser_logs_in_asks_changes_and_logs_out() -> None:
    with running() as found:
        key = found.http.post("/v1/keys", json=ADMIN).json()["key"]
        with httpx.Client(base_url=found.url) as browser:
            assert browser.get("/v1/session").status_code == 401
            answer = browser.post("/v1/session", json={"key": key})
            cookie = answer.headers["set-cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and key not in cookie
            assert key not in answer.text
            assert browser.get("/v1/session").json()["name"] == "root"
            made = {"name": "other", "scopes": ["read"]}
            assert browser.post("/v1/keys", json=made).status_code == 403, "forged by a page"
            own = {"X-Unimeter-Request": "1"}
            assert browser.post("/v1/keys", json=made, headers=own).status_code == 201
            assert browser.delete("/v1/session").status_code == 204
            assert browser.get("/v1/session").status_code == 401


def test_a_key_may_be_the_user_of_basic_authorization() -> None:
    with running() as found:
        key = found.http.post("/v1/keys", json=ADMIN).json()["key"]
        assert httpx.get(found.url + "/v1/session", auth=(key, "")).status_code == 200
        assert httpx.get(found.url + "/v1/session", auth=("um_no", "")).status_code == 401


# --- anything at all ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """A server with a key, and nobody logged in."""
    with running() as found:
        found.metric("calls", "count")
        key = found.http.post("/v1/keys", json=ADMIN).json()["key"]
        found.http.headers["Authorization"] = f"Bearer {key}"
        yield found


@contextmanager
def still_alive(found: Running) -> Iterator[None]:
    """Afterwards the node answers, and at once."""
    yield
    assert found.http.get("/ready", timeout=5).status_code == 200


def exchange(found: Running, data: bytes) -> bytes:
    """Send raw bytes; all that comes back until there is nothing more for a moment."""
    host, port = found.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        pieces = []
        try:
            sock.sendall(data)
            sock.settimeout(QUIET_SECONDS)
            while piece := sock.recv(65536):
                pieces.append(piece)
        except (ConnectionError, TimeoutError):
            pass  # it waits for more, or has hung up
    return b"".join(pieces)


QUIET_SECONDS = 0.06
TOKENS = [
    b"GET ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"BREW ", b"PRI * HTTP/2.0\r\n\r\n",
    b"/v1/events", b"/v1/totals?account=1&metric=calls", b"/", b"*", b"/v1/../../etc", b"/%ff%00",
    b"/v1/metrics/%2e%2e", b"?token=ump_", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n",
    b"host: a\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n",
    b"content-length: 5, 6\r\n", b"content-type: application/json\r\n",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n",
    b"content-encoding: gzip\r\n", b"expect: 100-continue\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\n", b"authorization: Bearer \xff\xfe\r\n",
    b"authorization: Basic ====\r\n", b"cookie: unimeter_session=ums_.\xe9.\r\n", b": empty\r\n",
    b" folded\r\n", b"x: \0\r\n", b"\r\n", b"\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"\x16\x03\x01\x02\x00", b"[1,2]", b"{", b"\xff" * 7, b"hello",
]  # fmt: skip
BYTES = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=30), max_size=14).map(b"".join)
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(data=BYTES)
@example(data=b"GET / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
@example(data=b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 50)
@example(data=b"GET /v1/session HTTP/1.1\r\nhost: a\r\nauthorization: Basic ====\r\n\r\n")
@example(data=b"GET /%ff%00 HTTP/1.1\r\nhost: a\r\n\r\n")
@example(data=b"CONNECT a:1 HTTP/1.1\r\n\r\n")
def test_no_bytes_make_the_http_port_fail_or_hang(locked: Running, data: bytes) -> None:
    with still_alive(locked):
        answer = exchange(locked, data)
        statuses = [
            line.split(b" ")[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")
        ]
        assert all(status[:1] != b"5" for status in statuses), answer
        assert b"Traceback" not in answer


JSON = json_values(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8))
NAMES = st.sampled_from(["name", "scopes", "account", "metric", "key", "extra"])


@FUZZ
@given(
    route=st.sampled_from([("POST", "/v1/keys"), ("POST", "/v1/session")]),
    body=st.dictionaries(NAMES, JSON) | JSON,
)
def test_no_json_makes_the_routes_of_keys_fail(
    locked: Running, route: tuple[str, str], body: Any
) -> None:
    with still_alive(locked):
        answer = locked.http.request(*route, content=_dumped(body))
        assert answer.status_code in (201, 400, 401, 429), answer.text
        if answer.status_code == 201:
            locked.http.delete(answer.headers["location"])


def _dumped(body: Any) -> bytes:
    import json

    return json.dumps(body).encode("utf-8", "replace")


@FUZZ
@given(
    scheme=st.sampled_from(["Bearer ", "bearer\t", "Basic ", "Digest ", ""]),
    token=st.sampled_from(["um_", "ump_", "ums_", "."]).flatmap(
        lambda head: st.text(max_size=40).map(lambda tail: head + tail)
    )
    | st.text(max_size=60),
    where=st.sampled_from(["header", "query", "cookie"]),
)
def test_no_token_makes_a_login_fail_or_succeed(
    locked: Running, scheme: str, token: str, where: str
) -> None:
    with still_alive(locked), httpx.Client(base_url=locked.url) as stranger:
        raw = token.encode("utf-8", "replace").translate(None, b"\r\n\0")
        params, headers = {}, {}
        if where == "header":
            headers = {b"authorization": scheme.encode() + raw}
        elif where == "cookie":
            headers = {b"cookie": b"unimeter_session=" + raw}
        else:
            params = {"token": raw}
        try:
            answer = stranger.get("/v1/session", headers=headers, params=params)
        except httpx.LocalProtocolError:
            return  # this client does not send it
        assert answer.status_code in (400, 401, 429), answer.text
