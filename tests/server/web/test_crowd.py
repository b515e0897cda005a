"""Crowds of strangers on the HTTP port: who makes room, and what nobody can use up."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.web.running import running

from unimeter.demo.process import NodeProcess
from unimeter.server.platform import ACCEPTS_MAX, REAL
from unimeter.server.server import Server
from unimeter.server.shares import HANDSHAKES_MAX, HTTP_MAX, share_out
from unimeter.server.web import protocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ADMIN = {"name": "root", "scopes": ["admin"]}
HEALTH = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200"


class Place:
    """A server with a key, and raw connections to it."""

    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        assert server.site is not None
        self.server, self.site, self.http = server, server.site, http

    async def key(self, *scopes: str) -> tuple[str, str]:
        """A new key, and its id."""
        made = await self.http.post("/v1/keys", json={"name": "one", "scopes": scopes})
        assert made.status_code == 201, made.text
        return made.json()["key"], made.headers["location"].rpartition("/")[2]

    async def connect(self, data: bytes = b"") -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", self.server.http_port)
        streams[1].write(data)
        return streams

    def connection(self, streams: Streams) -> protocol.HttpProtocol | None:
        """The node's side of it."""
        own = streams[1].get_extra_info("sockname")
        for one in self.site._state.connections:
            if isinstance(one, protocol.HttpProtocol) and one.client == own:
                return one
        return None

    async def begun(self, data: bytes) -> tuple[Streams, protocol.HttpProtocol]:
        """A connection on which a request is under way, and the node's side of it."""
        streams = await self.connect(data)
        while (found := self.connection(streams)) is None or not found._is_busy:
            await asyncio.sleep(0.002)
        return streams, found

    async def asked(self, head: bytes) -> Streams:
        """A connection on which this was answered by 200."""
        streams = await self.connect(head)
        answer = await streams[0].readuntil(b"\r\n\r\n")
        assert answer.startswith(OK), answer
        return streams


def serve(body: Callable[[Place], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with Server(":memory:", port=0, http_port=0) as server:
            url = f"http://127.0.0.1:{server.http_port}"
            async with httpx.AsyncClient(base_url=url) as http:
                key = (await http.post("/v1/keys", json=ADMIN)).json()["key"]
                http.headers["Authorization"] = f"Bearer {key}"
                await asyncio.wait_for(body(Place(server, http)), 30)

    asyncio.run(inside())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def end_of(streams: Streams) -> bytes:
    """What comes until the node hangs up."""
    try:
        return await asyncio.wait_for(streams[0].read(), 15)
    except ConnectionResetError:
        return b""
    finally:
        streams[1].close()


def get(path: bytes, key: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n\r\n" % (path, key.encode())


# --- who makes room ------------------------------------------------------------------------


def test_the_oldest_stranger_makes_room_and_whoever_has_a_key_stays() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        known = await place.asked(get(b"/v1/metrics", key))
        stream = await place.asked(get(b"/v1/stream", key))
        place.site.crowd.connections_max = len(place.site.crowd) + 3
        crowd = [await place.asked(HEALTH) for _ in range(9)]
        for streams in crowd[:6]:
            await end_of(streams)
        assert len(place.site.crowd) <= place.site.crowd.connections_max
        assert place.site.crowd.turned_out == 6
        known[1].write(get(b"/v1/metrics", key))
        crowd[-1][1].write(HEALTH)
        await known[0].readuntil(OK)
        await crowd[-1][0].readuntil(OK)
        assert not stream[0].at_eof()
        for streams in (*crowd, known, stream):
            streams[1].close()

    serve(body)


def test_without_strangers_the_known_one_that_is_idle_longest_makes_room() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        stream = await place.asked(get(b"/v1/stream", key))
        known = [await place.asked(get(b"/v1/metrics", key)) for _ in range(3)]
        known[0][1].write(get(b"/v1/metrics", key))  # it was idle longest, and is not any more
        await known[0][0].readuntil(OK)
        place.site.crowd.connections_max = len(place.site.crowd)
        await place.http.get("/health")  # that client's connection is a stranger's now
        first = await place.asked(get(b"/v1/metrics", key))
        assert place.site.crowd.turned_out == 1
        second = await place.asked(get(b"/v1/metrics", key))
        assert place.site.crowd.turned_out == 2
        await end_of(known[1])
        for streams in (first, second, known[0], known[2]):
            streams[1].write(get(b"/v1/metrics", key))
            await streams[0].readuntil(OK)
            streams[1].close()
        assert not stream[0].at_eof()
        stream[1].close()

    serve(body)


def test_where_everybody_is_being_answered_the_newcomer_is_told_to_come_again() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        await place.http.aclose()
        await until(lambda: not len(place.site.crowd))
        place.site.crowd.connections_max = 2
        held = [await place.asked(get(b"/v1/stream", key)) for _ in range(2)]
        assert (await end_of(await place.connect(HEALTH))).startswith(b"HTTP/1.1 503")
        assert place.site.crowd.refused == 1
        for _, writer in held:
            writer.close()

    serve(body)


def test_without_a_key_a_connection_is_kept_for_a_short_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "STRANGER_SECONDS", 0.02)

    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        known = await place.asked(get(b"/v1/metrics", key))
        await end_of(await place.asked(HEALTH))
        refused = await place.connect(get(b"/v1/metrics", "um_no"))
        assert (await end_of(refused)).startswith(b"HTTP/1.1 401")
        known[1].write(get(b"/v1/metrics", key))
        await known[0].readuntil(OK)
        known[1].close()

    serve(body)


def test_a_connection_that_is_being_closed_does_not_wait_for_its_reader_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "CLOSE_SECONDS", 0.0)

    async def body(place: Place) -> None:
        await place.http.aclose()
        await until(lambda: not len(place.site.crowd))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", place.server.http_port))
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
        sock.sendall(ask * 200)
        await until(lambda: len(place.site.crowd) == 1)
        (connection,) = place.site._state.connections
        assert isinstance(connection, protocol.HttpProtocol)
        await until(lambda: connection._stalled_since is not None)
        connection.transport.close()
        await until(lambda: not len(place.site.crowd))
        sock.close()

    serve(body)


# --- what nobody can use up ----------------------------------------------------------------

CHUNKED = b"POST /v1/session HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"


@pytest.mark.parametrize(
    ("begun", "data"),
    [(b"0\r\n", b"a: b\r\n" * 6_000), (b"0\r\nx: ", b"y" * 33_000), (b"5;", b"e" * 33_000)],
    ids=["trailers", "a trailer", "an extension of a chunk"],
)
def test_what_follows_a_chunk_is_bounded_as_a_head_is(begun: bytes, data: bytes) -> None:
    async def body(place: Place) -> None:
        streams, connection = await place.begun(CHUNKED + begun)
        before = len(connection.headers)
        streams[1].write(data)
        assert (await end_of(streams))[:12] in (b"HTTP/1.1 431", b"")
        assert len(connection.headers) == before, "trailers are kept nowhere"

    serve(body)


def test_a_body_with_trailers_is_taken_and_they_mean_nothing() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        text = b'{"key":"%b"}' % key.encode()
        streams = await place.connect(CHUNKED[:-6])
        for byte in text:
            streams[1].write(b"1;a=b\r\n%c\r\n" % byte)
        streams[1].write(b"0\r\nauthorization: Bearer no\r\n\r\n")
        await streams[0].readuntil(OK)
        streams[1].close()

    serve(body)


def test_announcing_bodies_takes_no_place_from_those_that_come() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("ingest")
        text = b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        text += b"authorization: Bearer %b\r\ncontent-length: 16777216\r\n\r\n[" % key.encode()
        announced = [await place.connect(text) for _ in range(6)]
        await until(lambda: place.site.statistics()["http_requests_waiting"] >= 6)
        await until(lambda: place.site.bodies.held_bytes == 6)
        sent = await place.http.post("/v1/metrics", json={"code": "calls", "type": "count"})
        assert sent.status_code == 201, sent.text
        for _, writer in announced:
            writer.close()
        await until(lambda: place.site.bodies.held_bytes == 0)

    serve(body)


def test_a_body_that_would_not_fit_is_refused_before_it_comes() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("ingest")
        text = b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        text += b"authorization: Bearer %b\r\ncontent-length: 9000\r\n\r\n[" % key.encode()
        held = place.site.bodies.bytes_max - 8_000
        place.site.bodies.take(held)
        streams = await place.connect(text)
        await asyncio.wait_for(streams[0].readuntil(b"HTTP/1.1 429"), 10)
        streams[1].close()
        place.site.bodies.give_back(held)

    serve(body)


def test_a_login_is_short_not_compressed_and_holds_nothing_that_others_need() -> None:
    async def body(place: Place) -> None:
        async with httpx.AsyncClient(base_url=place.http.base_url) as stranger:
            long = await stranger.post("/v1/session", content=b" " * 9_000)
            assert long.status_code == 413
            packed = {"Content-Encoding": "gzip"}
            bomb = await stranger.post("/v1/session", content=gzip.compress(b"{}"), headers=packed)
            assert bomb.status_code == 415
        half, _ = await place.begun(CHUNKED)
        assert place.site.bodies.held_bytes == 0
        half[1].write(b"2329\r\n" + b" " * 9_001 + b"\r\n")
        await half[0].readuntil(b"HTTP/1.1 413")
        half[1].close()

    serve(body)


def test_a_bomb_of_blank_lines_holds_up_nobody_else() -> None:
    with running() as found:
        bomb = gzip.compress(b"\n" * 2**26)
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        sender = threading.Thread(
            target=lambda: found.http.post("/v1/events", content=bomb, headers=headers)
        )
        sender.start()
        answered = 0
        with httpx.Client(base_url=found.url) as http:
            while sender.is_alive():
                assert http.get("/health").status_code == 200
                answered += 1
        sender.join()
        assert answered >= 20


def test_requests_before_their_turn_are_bounded() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        streams = await place.asked(get(b"/v1/stream", key))
        streams[1].write(HEALTH * (protocol.PIPELINED_MAX + 1))
        assert OK not in await end_of(streams)

    serve(body)


def test_an_offer_of_another_protocol_is_no_reason_to_lose_a_body() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        text = b'{"key":"%b"}' % key.encode()
        head = b"POST /v1/session HTTP/1.1\r\nhost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        head += b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\ncontent-length: %d\r\n\r\n" % len(
            text
        )
        for cut in (0, 10, len(head) - 1, len(head), len(head) + 5):
            streams = await place.connect()
            whole = (head + text) * 2 + HEALTH
            streams[1].write(whole[:cut])
            await asyncio.sleep(0)  # so that the rest is likely to come by itself
            streams[1].write(whole[cut:])
            for _ in range(3):
                await asyncio.wait_for(streams[0].readuntil(OK), 5)
            streams[1].close()
        proxied = await end_of(await place.connect(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n"))
        assert proxied.startswith(b"HTTP/1.1 405")

    serve(body)


# --- one request behind another -------------------------------------------------------------


def test_a_stream_ends_with_its_key_whatever_was_asked_behind_it() -> None:
    async def body(place: Place) -> None:
        key, key_id = await place.key("read")
        streams = await place.asked(get(b"/v1/stream", key))
        streams[1].write(HEALTH)
        connection = place.connection(streams)
        assert connection is not None
        await until(lambda: len(connection.pipeline) == 1)
        assert (await place.http.delete(f"/v1/keys/{key_id}")).status_code == 204
        assert OK not in await end_of(streams)

    serve(body)


def test_a_body_under_way_ends_with_its_key() -> None:
    async def body(place: Place) -> None:
        key, key_id = await place.key("ingest")
        head = b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-ndjson\r\n"
        head += b"authorization: Bearer %b\r\ncontent-length: 100000\r\n\r\n" % key.encode()
        streams, _ = await place.begun(head)
        assert (await place.http.delete(f"/v1/keys/{key_id}")).status_code == 204
        await end_of(streams)
        # A request that came whole gets its answer, also if it is what ended the key.
        last, last_id = await place.key("admin")
        asked = await place.http.delete(
            f"/v1/keys/{last_id}", headers={"Authorization": f"Bearer {last}"}
        )
        assert asked.status_code == 204

    serve(body)


def test_a_reader_that_hangs_up_is_forgotten_whatever_was_asked_behind_its_stream() -> None:
    async def body(place: Place) -> None:
        key, _ = await place.key("read")
        await place.http.post("/v1/metrics", json=METRIC)
        streams = await place.asked(get(b"/v1/stream", key))
        connection = place.connection(streams)
        assert connection is not None
        streams[1].write(HEALTH)
        await until(lambda: len(connection.pipeline) == 1)
        pumps = place.server.clients.pumps
        assert pumps.statistics()["live_streams"] == 1
        streams[1].close()
        while pumps.statistics()["live_streams"]:  # it is not read from: writing shows it
            await place.http.post("/v1/events", json=events(0)[:1])

    serve(body)


# --- descriptors ----------------------------------------------------------------------------


@pytest.mark.parametrize("sockets", [16, 64, 832, 10_000, 2**31])
def test_the_ports_share_what_there_is(sockets: int) -> None:
    shares = share_out(sockets)
    assert 2 * shares.handshakes + shares.http + shares.binary == sockets
    assert 1 <= shares.handshakes <= HANDSHAKES_MAX and shares.handshakes <= shares.http
    assert 4 <= shares.http <= HTTP_MAX and shares.http <= shares.binary


def test_a_crowd_in_the_queue_is_accepted_few_at_a_time() -> None:
    """uvloop takes one at a time by itself; asyncio takes as many as its backlog."""
    made: list[asyncio.Protocol] = []
    seen: list[int] = []

    class Door(asyncio.Protocol):
        def __init__(self) -> None:
            made.append(self)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(len(made))
            transport.close()

    async def body() -> None:
        bound = REAL.take_port("127.0.0.1", 0, "port")
        listener = await REAL.listen(asyncio.get_running_loop(), bound, Door)
        crowd = [socket.create_connection(bound.getsockname(), timeout=5) for _ in range(200)]
        await until(lambda: len(seen) == 200)
        for sock in crowd:
            sock.close()
        listener.close()

    asyncio.run(body())
    assert seen[0] <= 3 * ACCEPTS_MAX


class PoorNode(NodeProcess):
    """A node that may have 256 descriptors."""

    def command(self) -> list[str]:
        return ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *super().command()]


@pytest.mark.slow
def test_strangers_do_not_take_the_descriptors_that_the_node_stores_with(tmp_path: Path) -> None:
    node = PoorNode(tmp_path / "data", "--segment-bytes=1MiB")
    node.start()
    url = f"http://127.0.0.1:{node.http_port}"
    crowd: list[socket.socket] = []
    try:
        assert httpx.post(f"{url}/v1/metrics", json=METRIC).status_code == 201
        node.stop()  # so that all of them stand in the kernel's queue at once
        for port in (node.http_port, node.port):
            for _ in range(400):
                crowd.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                if port == node.http_port:
                    crowd[-1].sendall(HEALTH)
        node.cont()
        for number in range(8):  # each fills more than a segment
            reply = httpx.post(f"{url}/v1/events", json=events(number), timeout=20)
            assert reply.status_code == 200, reply.text
        assert node.is_running, node.output.read_text()
        assert "Too many open files" not in node.output.read_text()
    finally:
        for sock in crowd:
            sock.close()
        node.kill()


METRIC = {"code": "calls", "type": "sum"}


def events(number: int) -> list[dict[str, Any]]:
    return [
        {"account": place % 50, "metric": "calls", "value": 1, "id": f"{number}-{place}-{'z' * 40}"}
        for place in range(8_000)
    ]
