"""A node in a process of its own, that a program starts, kills and starts again.

The demonstrations, `unimeter dev` and the tests use it: the real ``unimeter serve`` on
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
from typing import IO, Final

START_SECONDS_MAX: Final = 30.0
ASK_SECONDS_MAX: Final = 1.0  # a node that is stopped accepts a connection and says nothing
POLL_SECONDS: Final = 0.02


class NodeProcess:
    """A ``unimeter serve`` on one directory; killed and started again, it keeps its ports."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        env: dict[str, str] | None = None,
        port: int = 0,
        http_port: int = 0,
    ) -> None:
        self.directory = directory
        self.port, self.http_port = port or free_port(), http_port or free_port()
        self.options = options
        self.env = {**os.environ, **(env or {})}
        self.output = directory.with_name(directory.name + ".output")
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is there, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def command(self) -> list[str]:
        """Return the command that runs this node."""
        command = [sys.executable, "-m", "unimeter", "serve", "--data-dir", str(self.directory)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port)]
        return [*command, *self.options]

    def start(self) -> None:
        """Start it and return when GET /ready says 200; fail with its own words if it ends."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it and return at once; its words go to the file `output`."""
        assert self.process is None, "already running"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.env
            )

    def launch_heard(self) -> IO[bytes]:
        """Start it and return what it says, for the caller to read until it ends.

        In a process group of its own: Ctrl-C at a terminal then reaches the caller
        alone, which ends its nodes as it sees fit.
        """
        assert self.process is None, "already running"
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.env, process_group=0,
        )  # fmt: skip
        assert self.process.stdout is not None
        return self.process.stdout

    def wait_ready(self, seconds: float = START_SECONDS_MAX) -> None:
        """Return when GET /ready says 200; kill it and raise with its words if it does not."""
        assert self.process is not None, "not running"
        give_up = time.monotonic() + seconds
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"the node did not become ready:\n{self.output.read_text()}")
            time.sleep(POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether it has recovered its directory and takes requests."""
        with contextlib.suppress(OSError):
            self.page("/ready")
            return True
        return False

    def page(self, path: str) -> str:
        """Return a page of its HTTP port; OSError where it does not answer 200 in a second."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=ASK_SECONDS_MAX) as answer:
            return bytes(answer.read()).decode()

    def figures(self) -> dict[str, float]:
        """Return what its /metrics page says, by name and labels; empty if it does not answer."""
        with contextlib.suppress(OSError):
            lines = [line for line in self.page("/metrics").splitlines() if line[:1] != "#"]
            pairs = (line.rpartition(" ") for line in lines)
            return {name: float(value) for name, _, value in pairs}
        return {}

    def kill(self) -> None:
        """SIGKILL: no last words, nothing flushed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process, self.is_stopped = None, False

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM, the polite way; return the exit status."""
        assert self.process is not None, "not running"
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self.process = None
        return status

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        assert self.process is not None, "not running"
        self.process.send_signal(signal.SIGSTOP)
        self.is_stopped = True

    def cont(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        assert self.process is not None, "not running"
        self.process.send_signal(signal.SIGCONT)
        self.is_stopped = False


def free_port() -> int:
    """Return a loopback port that is free now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free now, all different."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
