"""A node in a process of its own, that a program starts, kills and starts again.

The demonstration and the tests use it: the real ``unimeter serve`` on free
ports of the loopback interface, ended by its process id. It waits for the
node's own word (GET /ready) and never for a time to pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

START_SECONDS_MAX: Final = 30.0


class NodeProcess:
    """A ``unimeter serve`` on one directory; killed and started again, it keeps its ports."""

    def __init__(self, directory: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.port, self.http_port = free_port(), free_port()
        self.options = options
        self.env = {**os.environ, **(env or {})}
        self.output = directory.with_name(directory.name + ".output")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when GET /ready says 200; fail with its own words if it ends."""
        assert self.process is None, "already running"
        command = [sys.executable, "-m", "unimeter", "serve", "--data-dir", str(self.directory)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port), *self.options]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.env
            )
        give_up = time.monotonic() + START_SECONDS_MAX
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"the node did not become ready:\n{self.output.read_text()}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it has recovered its directory and takes requests."""
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.http_port}/ready"
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        """SIGKILL: no last words, nothing flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM, the polite way; return the exit status."""
        assert self.process is not None, "not running"
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self.process = None
        return status


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
