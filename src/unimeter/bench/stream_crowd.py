"""Many open streams in a process of their own: it reads everything and counts it.

    python -m unimeter.bench.stream_crowd HOST PORT STREAMS

Says ``open`` when every stream has begun, reads until its standard input is closed, and then
says ``{"events": ..., "bytes": ...}``. Stream n is about account n, all its metrics. What it
reads it only counts: a thousand browsers have a thousand processors, and here they share one
with the node.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from typing import Final

RECEIVE_BYTES: Final = 1 << 16
EVENT: Final = b"event: total"
HELLO: Final = b"event: hello"


def open_stream(host: str, port: int, account: int) -> socket.socket:
    """A stream whose first bytes have come."""
    sock = socket.create_connection((host, port), timeout=30)
    path = f"/v1/stream?account={account}&alerts=false"
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    data = b""
    while HELLO not in data:
        part = sock.recv(RECEIVE_BYTES)
        if not part or not data.startswith(b"HTTP/1.1 200"[: len(data)]):
            raise SystemExit(f"stream of account {account} was refused: {data!r}")
        data += part
    sock.setblocking(False)
    return sock


def main(host: str, port: int, streams: int) -> None:
    """Open, read, count."""
    poll = select.epoll()
    sockets = {}
    for account in range(1, streams + 1):
        sock = open_stream(host, port, account)
        sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    print("open", flush=True)
    room = bytearray(RECEIVE_BYTES)
    events = total = 0
    while True:
        for descriptor, _ in poll.poll():
            sock_at = sockets.get(descriptor)
            if sock_at is None:
                print(json.dumps({"events": events, "bytes": total}), flush=True)
                return
            size = sock_at.recv_into(room)
            if not size:
                raise SystemExit("the node ended a stream")
            total += size
            events += room.count(EVENT, 0, size)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
