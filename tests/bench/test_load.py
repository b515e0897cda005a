"""The load generator counts what was acknowledged and stops at anything else."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from unimeter.bench.frames import RESPONSE_HEADER, Tape, shuffled_pairs
from unimeter.bench.load import IngestSource, LoadError, connect, run_load

Reply = Callable[[int, int], bytes]


@contextmanager
def server(frame_bytes: int, reply: Reply) -> Iterator[tuple[str, int]]:
    """Answers frame number n of a connection with ``reply(n, request_id)``, in two pieces."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(sock: socket.socket) -> None:
        with sock:
            number = 0
            while frame := receive(sock, frame_bytes):
                number += 1
                data = reply(number, struct.unpack_from("<I", frame, 12)[0])
                if not data:
                    return
                sock.sendall(data[:5])
                sock.sendall(data[5:])

    def receive(sock: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = sock.recv(count - len(data))
            except OSError:
                return b""
            if not part:
                return b""
            data += part
        return data

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=answer, args=(sock,))
            thread.start()
            threads.append(thread)

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def success(batch: int) -> Reply:
    return lambda number, request_id: (
        RESPONSE_HEADER.pack(0, request_id, 16) + struct.pack("<IIQ", batch, 0, number)
    )


@pytest.mark.parametrize(("batch", "connections", "depth"), [(10, 2, 3), (1, 3, 1), (1, 2, 7)])
def test_everything_sent_is_acknowledged(batch: int, connections: int, depth: int) -> None:
    tape = Tape(shuffled_pairs(8, 5), batch, first_ns=1)
    source = IngestSource(tape)
    with server(tape.frame_bytes, success(batch)) as address:
        sockets = connect(address, connections)
        result = run_load(source, sockets, depth, 30.0, requests_max=200)
    assert result.requests_total >= 200
    assert source.stored == tape.events_taken == result.requests_total * batch
    assert 0 < result.requests <= result.requests_total
    assert len(result.latencies) >= 1
    assert result.percentile(0.5) <= result.percentile(0.99)


def test_a_refusal_stops_the_run() -> None:
    def reply(number: int, request_id: int) -> bytes:
        if number == 3:
            return RESPONSE_HEADER.pack(6, request_id, 0)
        return success(1)(number, request_id)

    tape = Tape(shuffled_pairs(8, 5), 1, first_ns=1)
    with server(tape.frame_bytes, reply) as address, pytest.raises(LoadError, match="status 6"):
        run_load(IngestSource(tape), connect(address, 1), 1, 30.0)


def test_a_closed_connection_stops_the_run() -> None:
    def reply(number: int, request_id: int) -> bytes:
        return b"" if number == 3 else success(1)(number, request_id)

    tape = Tape(shuffled_pairs(8, 5), 1, first_ns=1)
    lost = pytest.raises((LoadError, ConnectionError))
    with server(tape.frame_bytes, reply) as address, lost:
        run_load(IngestSource(tape), connect(address, 1), 1, 30.0)
