"""A node under measurement: the demo's node process, with readings and raw sockets.

Adds to `demo.process.NodeProcess` what measurements and crash tests need: raw
v1 connections, the child's memory and processor time from /proc, and a clean
environment. The last matters most: a figure that depends on a ``UNIMETER_*``
variable somebody exported last week is not one, so only the choice between
compiled and interpreted kernels is inherited.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Final

from unimeter.bench.frames import REQUEST_HEADER, RESPONSE_HEADER
from unimeter.demo.process import NodeProcess

CONNECT_SECONDS_MAX: Final = 60.0


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Read `count` bytes; raise ConnectionResetError if the peer closes before."""
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionResetError(f"closed after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def request(sock: socket.socket, frame: bytes) -> tuple[int, bytes]:
    """Send one v1 frame and wait for its (status, payload)."""
    sock.sendall(frame)
    head = receive_exactly(sock, RESPONSE_HEADER.size)
    status, request_id, length = RESPONSE_HEADER.unpack(head)
    expected = REQUEST_HEADER.unpack_from(frame)[5]
    assert request_id == expected, f"reply to request {request_id}, expected {expected}"
    return status, receive_exactly(sock, length)


class MeasuredNode(NodeProcess):
    """``unimeter serve`` on a data directory, with figures read from outside."""

    def __init__(self, directory: Path, options: dict[str, str] | None = None) -> None:
        """Prepare, but don't start; `options` are named as in the server's configuration."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in (options or {}).items()]
        super().__init__(directory, *flags)
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("UNIMETER_") or name == "UNIMETER_PURE"
        }

    @property
    def place(self) -> tuple[str, int]:
        """Host and port, as sockets want them."""
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self.process is not None, "the node was not started"
        return self.process.pid

    def connect(self) -> socket.socket:
        """A new blocking connection."""
        sock = socket.create_connection(self.place, timeout=CONNECT_SECONDS_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def resident_bytes(self) -> int:
        """Resident memory of the child."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.pid} has no VmRSS")

    def cpu_seconds(self) -> float:
        """User and system time of the child's threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> MeasuredNode:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
