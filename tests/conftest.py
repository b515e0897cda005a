"""Fixtures that tests of several folders share: the real input, and a real node.

Kept small on purpose. What only one folder needs stands in that folder's own
conftest. A node here is the real ``unimeter serve`` in a process of its own,
on free ports of the loopback interface, ended by its process id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 30.0

# Tests are the same every time; `make sim` asks for inputs that nobody has seen before.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("fresh", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_report_header() -> list[str]:
    """Say what is tested: with which kernels, and whether the real input is there."""
    from unimeter.engine import COMPILED

    found = shared_folder()
    real = str(found) if found else "absent (tests that need it are skipped)"
    return [
        f"unimeter kernels: {'compiled' if COMPILED else 'interpreted'}",
        f"real input (../shared): {real}",
    ]


def shared_folder() -> Path | None:
    """Return the folder of real input that lies beside the repository, if it does."""
    named = os.environ.get("UNIMETER_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real input; a test that needs it is skipped where it is absent.

    Naming it with UNIMETER_SHARED promises that it is there: then its absence
    is a failure, so that a CI which has the input can't lose it unnoticed.
    """
    folder = shared_folder()
    if folder is None:
        if os.environ.get("UNIMETER_SHARED"):
            pytest.fail("UNIMETER_SHARED names a folder that has no data/ in it")
        pytest.skip("needs ../shared beside the repository, or UNIMETER_SHARED=its path")
    return folder


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NodeProcess:
    """A ``unimeter serve`` on a directory; may be killed and started again on the same ports."""

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
        """Start it and return when it answers /ready; fail with its words if it does not."""
        assert self.process is None, "already running"
        command = [sys.executable, "-m", "unimeter", "serve", "--data-dir", str(self.directory)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port), *self.options]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.env
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once GET /ready says 200."""
        assert self.process is not None
        give_up = time.monotonic() + START_SECONDS_MAX
        while self.process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError, urllib.error.URLError):
                url = f"http://127.0.0.1:{self.http_port}/ready"
                with urllib.request.urlopen(url, timeout=1) as answer:
                    if answer.status == 200:
                        return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the node did not become ready:\n{self.output.read_text()}")

    def kill(self) -> None:
        """SIGKILL: no last words."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self, seconds: float = 20.0) -> int:
        """SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self.process = None
        return status


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A running node on a directory of its own."""
    started = NodeProcess(tmp_path / "node")
    started.start()
    try:
        yield started
    finally:
        started.kill()
