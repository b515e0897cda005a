"""The responder behind /health, /ready and /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from unimeter.server.http import HEAD_BYTES_MAX, TEXT, HttpConnection, HttpPages


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


@pytest.fixture
def wire() -> Iterator[tuple[HttpConnection, Wire]]:
    pages = HttpPages({"/health": lambda: (HTTPStatus.OK, TEXT, b"ok\n")})
    loop = asyncio.new_event_loop()
    transport = Wire()

    async def connect() -> HttpConnection:
        connection = pages.connection()
        connection.connection_made(transport)
        return connection

    connection = loop.run_until_complete(connect())
    original = connection.data_received

    def receive(data: bytes) -> None:
        async def inside() -> None:
            original(data)

        loop.run_until_complete(inside())

    connection.data_received = receive  # type: ignore[method-assign]
    yield connection, transport
    connection.connection_lost(None)
    loop.close()


def test_get_is_answered_and_the_connection_kept(wire: tuple[HttpConnection, Wire]) -> None:
    connection, transport = wire
    connection.data_received(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.written.endswith(b"Content-Length: 3\r\nConnection: keep-alive\r\n\r\nok\n")
    assert not transport.closed


def test_a_request_in_pieces_and_two_in_one(wire: tuple[HttpConnection, Wire]) -> None:
    connection, transport = wire
    connection.data_received(b"GET /hea")
    assert transport.written == b""
    connection.data_received(b"lth HTTP/1.1\r\n\r\nHEAD /health?x=1 HTTP/1.1\r\n\r\n")
    assert transport.written.count(b"200 OK") == 2
    assert transport.written.count(b"ok\n") == 1, "HEAD has no body"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /accounts HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"x" * (HEAD_BYTES_MAX + 1), b"431"),
    ],
)
def test_anything_else_has_a_status(
    wire: tuple[HttpConnection, Wire], request_head: bytes, status: bytes
) -> None:
    connection, transport = wire
    connection.data_received(request_head)
    assert transport.written.startswith(b"HTTP/1.1 " + status)


def test_http_1_0_is_closed_after_the_answer(wire: tuple[HttpConnection, Wire]) -> None:
    connection, transport = wire
    connection.data_received(b"GET /health HTTP/1.0\r\n\r\n")
    assert transport.closed
