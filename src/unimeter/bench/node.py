"""A node in a process of its own, for measurements and crash tests.

Owns exactly one child process: starts it on a free loopback port, waits until
it answers a request (not merely until the port is open: replay comes first),
reads its memory and processor time from /proc, and ends it by its own process
id, politely or with SIGKILL. The node's words go to a file, whose end is part
of every error raised here.

It refuses to inherit the caller's ``UNIMETER_*`` environment, apart from the
choice between compiled and interpreted kernels: a measurement that depends on
a variable somebody exported last week is not one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from unimeter.bench.frames import REQUEST_HEADER, RESPONSE_HEADER, encode_frame

START_SECONDS_MAX: Final = 120.0  # replay of the largest log measured here takes a tenth
STOP_SECONDS_MAX: Final = 30.0
TYPE_CLUSTER_STATUS: Final = 0x40
POLL_SECONDS: Final = 0.005


class NodeError(Exception):
    """The node did not start, ended by itself or did not answer."""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


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
    status, request_id, length = RESPONSE_HEADER.unpack(receive_exactly(sock, RESPONSE_HEADER.size))
    expected = REQUEST_HEADER.unpack_from(frame)[5]
    assert request_id == expected, f"reply to request {request_id}, expected {expected}"
    return status, receive_exactly(sock, length)


class NodeProcess:
    """``unimeter serve`` on a data directory, as a child of this process."""

    def __init__(
        self,
        data_dir: Path,
        options: dict[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "unimeter"),
    ) -> None:
        """Prepare, but don't start; `options` are named as in the server's configuration."""
        self.data_dir = data_dir
        self.port = free_port()
        self.http_port = free_port()
        self.words = data_dir.parent / f"{data_dir.name}.log"
        self._options = options or {}
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port clients connect to."""
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._process is not None, "the node was not started"
        return self._process.pid

    def start(self, wait: bool = True) -> float:
        """Start; return the seconds until the node answered (0.0 without `wait`)."""
        assert self._process is None, "the node runs already"
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        with self.words.open("ab") as words:
            self._process = subprocess.Popen(
                [*self._command, "serve"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )
        if not wait:
            return 0.0
        self.wait_until_ready()
        return time.perf_counter() - begin

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("UNIMETER_") or name == "UNIMETER_PURE"
        }
        options = {
            "data_dir": str(self.data_dir),
            "bind": "127.0.0.1",
            "port": str(self.port),
            "http_port": str(self.http_port),
            **self._options,
        }
        return kept | {f"UNIMETER_{name.upper()}": value for name, value in options.items()}

    def wait_until_ready(self) -> None:
        """Return once a request was answered; NodeError if the node ends or is too slow."""
        deadline = time.perf_counter() + START_SECONDS_MAX
        while not self.answers():
            if self._process is None or self._process.poll() is not None:
                raise NodeError(f"the node ended while starting:\n{self.last_words()}")
            if time.perf_counter() > deadline:
                raise NodeError(f"no answer in {START_SECONDS_MAX} s:\n{self.last_words()}")
            time.sleep(POLL_SECONDS)

    def answers(self) -> bool:
        """Whether a CLUSTER_STATUS request gets an answer now."""
        try:
            with self.connect() as sock:
                request(sock, encode_frame(TYPE_CLUSTER_STATUS, 1, b""))
        except OSError:
            return False
        return True

    def connect(self) -> socket.socket:
        """A new blocking connection."""
        sock = socket.create_connection(self.address, timeout=START_SECONDS_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None, "the node was not started"
        process.send_signal(number)
        try:
            status = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise NodeError(f"still there {STOP_SECONDS_MAX} s after {number.name}") from None
        finally:
            self._process = None
        return status

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    def last_words(self, characters: int = 2000) -> str:
        """The end of what the node printed."""
        return self.words.read_text(errors="replace")[-characters:] if self.words.exists() else ""

    def resident_bytes(self) -> int:
        """Resident memory of the child."""
        return read_resident_bytes(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time of the child's threads so far."""
        return read_cpu_seconds(self.pid)

    def __enter__(self) -> NodeProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:
            self.kill()
        self._process = None


def read_resident_bytes(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise NodeError(f"process {pid} has no VmRSS")


def read_cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
