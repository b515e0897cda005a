"""A server that answers ingest frames without looking into them.

It proves that the load generator is not what a figure measures: run a scenario
against the sink and the rate is the generator's own ceiling on this machine.
It counts bytes, so it must be told the frame size, and answers each frame as
stored with the reply a node would send. Started as a child process by
`scenarios.measure_ceiling`; it ends when its parent kills it.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Final

from unimeter.bench.frames import RESPONSE_HEADER

READ_BYTES: Final = 1 << 20
REPLIES_MAX: Final = 16_384  # prebuilt; one read holds fewer batch-1 frames than this


def serve(listener: socket.socket, frame_bytes: int, batch: int) -> None:
    """Answer every `frame_bytes` received on any connection, for ever."""
    reply = RESPONSE_HEADER.pack(0, 1, 16) + struct.pack("<IIQ", batch, 0, 0)
    replies = memoryview(reply * REPLIES_MAX)
    buffer = bytearray(READ_BYTES)
    poll = select.epoll()
    listener.setblocking(False)
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    partial: dict[int, int] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[accepted.fileno()] = accepted
                partial[accepted.fileno()] = 0
                poll.register(accepted.fileno(), select.EPOLLIN)
                continue
            received = connections[descriptor].recv_into(buffer)
            if received == 0:
                poll.unregister(descriptor)
                connections.pop(descriptor).close()
                continue
            frames, partial[descriptor] = divmod(partial[descriptor] + received, frame_bytes)
            if frames:
                connections[descriptor].sendall(replies[: frames * len(reply)])


def main(argv: list[str]) -> None:
    """``python -m unimeter.bench.sink FRAME_BYTES BATCH``: print the port, then serve."""
    frame_bytes, batch = int(argv[0]), int(argv[1])
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener, frame_bytes, batch)


if __name__ == "__main__":
    main(sys.argv[1:])
