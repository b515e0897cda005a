"""``unimeter serve`` as a process: signals, exit codes, idle cost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unimeter.bench.frames import METRICS, encode_ingest, encode_metric_put, encode_query
from unimeter.bench.node import MeasuredNode, receive_exactly, request
from unimeter.demo.process import free_port
from unimeter.server import process
from unimeter.server.config import Config
from unimeter.server.process import on_exception
from unimeter.server.server import Server
from unimeter.storage.disk import FatalStorageError

START_NS = 1_767_225_600 * 10**9
DAY_NS = 86_400 * 10**9
ROOT = Path(__file__).parents[2]


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[MeasuredNode]:
    with MeasuredNode(tmp_path / "data") as node:
        yield node


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    """`unimeter serve` that is expected to refuse."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("UNIMETER_")}
    command = [sys.executable, "-m", "unimeter", "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def ingest_frames(count: int, batch: int, account: int = 1) -> list[bytes]:
    return [
        encode_ingest(
            [(account, METRICS[0].code, START_NS + n * batch + i, 1) for i in range(batch)], n + 1
        )
        for n in range(count)
    ]


def test_sigterm_answers_what_was_taken_and_exits_0_within_seconds(
    measured: MeasuredNode,
) -> None:
    sock = measured.connect()
    assert request(sock, encode_metric_put(METRICS[0]))[0] == 0
    sock.sendall(b"".join(ingest_frames(200, 50)))
    receive_exactly(sock, 28)
    began = time.monotonic()
    assert measured.terminate() == 0
    assert time.monotonic() - began < 5
    acknowledged = 1
    try:
        while True:
            assert receive_exactly(sock, 28)[0] == 0
            acknowledged += 1
    except ConnectionError:
        sock.close()
    measured.start()
    sock = measured.connect()
    _, payload = request(sock, encode_query(1, METRICS[0].code, START_NS, START_NS + DAY_NS, 1))
    assert int.from_bytes(payload[16:24], "little") == 50 * acknowledged
    sock.close()


def test_sigint_is_as_good(measured: MeasuredNode) -> None:
    os.kill(measured.pid, signal.SIGINT)
    assert measured.process is not None and measured.process.wait(10) == 0


def test_an_idle_node_uses_under_one_percent_of_a_core(measured: MeasuredNode) -> None:
    socks = [measured.connect() for _ in range(10)]
    assert request(socks[0], encode_metric_put(METRICS[0]))[0] == 0
    before, began = measured.cpu_seconds(), time.monotonic()
    time.sleep(3)  # the thing measured is doing nothing
    share = (measured.cpu_seconds() - before) / (time.monotonic() - began)
    assert share < 0.01, f"{share:.1%} of a core"
    for sock in socks:
        sock.close()


def test_a_port_in_use_is_one_sentence_and_code_9(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_serve("--data-dir", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 9
    assert done.stderr.count("\n") == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr


def test_a_bad_option_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    done = run_serve("--data-dir", str(tmp_path / "data"), "--segment-bytes", "1KiB")
    assert done.returncode == 2
    assert "segment_bytes must be between 1MiB and 1GiB" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_in_use_is_one_sentence_and_code_7(measured: MeasuredNode) -> None:
    ports = ("--port", str(free_port()), "--http-port", str(free_port()))
    done = run_serve("--data-dir", str(measured.directory), *ports)
    assert done.returncode == 7
    assert str(measured.pid) in done.stderr and done.stderr.count("\n") == 1


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear customer")
    done = run_serve("--data-dir", str(tmp_path), "--port", "0", "--http-port", "0")
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


PLANTED = """
import sys, os
from unimeter.storage import wal
calls = 0
real = wal.Wal.sync
def sync(self, **options):
    global calls
    calls += 1
    if calls > {after}:
        from unimeter.storage.disk import FatalStorageError
        raise FatalStorageError("fdatasync failed (planted)")
    return real(self, **options)
wal.Wal.sync = sync
from unimeter.server.config import load_config
from unimeter.server.process import serve
sys.exit(serve(load_config({{"data_dir": sys.argv[1], "port": sys.argv[2], "http_port": 0}})))
"""


def test_a_failed_sync_ends_the_process_without_an_acknowledgement(tmp_path: Path) -> None:
    port = free_port()
    program = [sys.executable, "-c", PLANTED.format(after=3), str(tmp_path / "data"), str(port)]
    child = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert "serving" in child.stderr.readline()
    answered = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        assert request(sock, encode_metric_put(METRICS[0]))[0] == 0
        try:
            for frame in ingest_frames(10, 1):
                assert request(sock, frame)[0] == 0
                answered += 1
        except ConnectionError:
            pass
    assert child.wait(10) == 1
    words = child.stderr.read()
    child.stderr.close()
    assert "stopped: FatalStorageError: fdatasync failed (planted)" in words
    assert "Traceback" not in words
    assert answered < 3
    with MeasuredNode(tmp_path / "data") as node:
        sock = node.connect()
        query = encode_query(1, METRICS[0].code, START_NS, START_NS + DAY_NS, 1)
        count = int.from_bytes(request(sock, query)[1][16:24], "little")
        assert count == answered, "what was not synced was not acknowledged"
        sock.close()


@pytest.mark.parametrize(
    ("error", "is_final"),
    [(FatalStorageError("fdatasync failed"), True), (AssertionError(), True), (KeyError(1), False)],
)
def test_a_failed_disk_or_a_broken_invariant_in_any_callback_stops_the_node(
    tmp_path: Path, error: Exception, is_final: bool
) -> None:
    """A process that goes on after a failed sync would acknowledge what it does not have."""
    told: list[str] = []

    def broken() -> None:
        raise error

    async def inside() -> BaseException | None:
        async with Server(tmp_path / "data", port=0, http_port=0) as server:
            loop = asyncio.get_running_loop()
            loop.default_exception_handler = (  # type: ignore[method-assign]
                lambda context: told.append(context["message"])
            )
            loop.set_exception_handler(lambda _, context: on_exception(server, context))
            loop.call_soon(broken)
            await asyncio.sleep(0.05)
            found, server.failure = server.failure, None
        return found

    assert asyncio.run(inside()) is (error if is_final else None)
    assert len(told) == 1, "it is told in any case"


def test_a_disk_that_fails_in_the_last_snapshot_is_a_failure_and_no_damaged_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A supervisor that does not start a damaged directory again must start this one."""
    start, stop = Server.start, Server.stop

    async def started(server: Server) -> None:
        await start(server)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    async def stopped(server: Server) -> None:
        await stop(server)
        raise FatalStorageError("superblock: fdatasync failed")

    def exits(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(Server, "start", started)
    monkeypatch.setattr(Server, "stop", stopped)
    monkeypatch.setattr(process, "_settle_collector", lambda: None)
    monkeypatch.setattr(os, "_exit", exits)
    with pytest.raises(SystemExit) as caught:
        process.serve(Config(data_dir=str(tmp_path / "data"), port=0, http_port=0))
    assert caught.value.code == process.EXIT_FAILED
    assert "stopped: FatalStorageError: superblock: fdatasync failed" in capsys.readouterr().err
