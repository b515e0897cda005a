"""``unimeter dev``: what it refuses, what it does when a node ends, and once the real thing."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console
from tests.cli.conftest import Run

from unimeter.cli import dev_run
from unimeter.cli.dev import again, check_same_count, places_from
from unimeter.cli.dev_run import DevRun, What, ending
from unimeter.cli.exit_codes import ExitCode
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.demo.process import NodeProcess
from unimeter.errors import InvalidInputError

# --- what is asked for ----------------------------------------------------------------


def test_each_node_has_three_ports_counted_up() -> None:
    assert places_from(7001, 9090, 3) == [
        (7001, 9090, 7101), (7002, 9091, 7102), (7003, 9092, 7103)
    ]  # fmt: skip


def test_ports_that_collide_are_refused_with_their_ranges() -> None:
    with pytest.raises(InvalidInputError, match=r"port 7003 is needed twice: .* 7001 to 7003"):
        places_from(7001, 7003, 3)
    with pytest.raises(InvalidInputError, match="there are 65535"):
        places_from(65_000, 65_534, 3)


def test_a_folder_made_for_another_number_of_nodes_is_refused(run: Run, tmp_path: Path) -> None:
    for node in (1, 2, 3):
        (tmp_path / f"node-{node}").mkdir()
        (tmp_path / f"node-{node}" / "superblock").touch()
    check_same_count(tmp_path, 3)
    result = run("dev", "--nodes", "5", "--data-dir", str(tmp_path))
    assert result.exit_code == ExitCode.USAGE and "use --nodes 3" in result.stderr


def test_a_temporary_folder_has_no_name(run: Run, tmp_path: Path) -> None:
    result = run("dev", "--no-keep", "--data-dir", str(tmp_path / "named"))
    assert result.exit_code == ExitCode.USAGE and not (tmp_path / "named").exists()


def test_the_command_to_go_on_names_what_is_not_usual() -> None:
    assert again(Path("unimeter-dev"), 3, 7001, 9090) == "unimeter dev --nodes 3"
    assert again(Path("x y"), 1, 8001, 9090) == (
        "unimeter dev --nodes 1 --data-dir 'x y' --port 8001"
    )


def test_how_a_process_ended_in_words() -> None:
    assert ending(-signal.SIGKILL) == "was ended by SIGKILL"
    assert ending(7) == "ended with code 7"


# --- what happens to the nodes --------------------------------------------------------

WAITS = "import signal,sys; print('unimeter: serving', flush=True); signal.pause()"
REFUSES = "import sys; print('unimeter: the port is taken', flush=True); sys.exit(9)"


class ScriptedNode(NodeProcess):
    """A process that does what a line of Python says, and is ready while it waits."""

    script = WAITS

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script]

    def is_ready(self) -> bool:
        return self.is_running and self.script == WAITS

    def figures(self) -> dict[str, float]:
        return {}


def scripted(folder: Path, *scripts: str, restarts: bool = False) -> tuple[DevRun, io.StringIO]:
    """A run of one process for each script, and what it prints."""
    cluster = ClusterProcess(folder, count=len(scripts))
    for number, script in enumerate(scripts, 1):
        node = cluster.nodes[number] = ScriptedNode(folder / f"node-{number}", port=1, http_port=1)
        node.script = script
    printed = io.StringIO()
    console = Console(file=printed, width=200, soft_wrap=True)
    return DevRun(cluster, restarts=restarts, again="unimeter dev", console=console), printed


def end_when(printed: io.StringIO, words: str, do: object) -> threading.Thread:
    """Do something once the words were printed."""

    def wait() -> None:
        while words not in printed.getvalue():
            threading.Event().wait(0.02)
        do()  # type: ignore[operator]

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_all_end_politely_when_asked_and_their_lines_carry_their_names(tmp_path: Path) -> None:
    run, printed = scripted(tmp_path, WAITS, WAITS, WAITS)
    end_when(printed, "is ready", lambda: run.queue.put((What.SIGNAL, signal.SIGINT, "")))
    assert run.run() == 0
    assert "node 3 │ serving" in printed.getvalue()
    assert "unimeter status --watch" in printed.getvalue()
    assert "the data stays: unimeter dev goes on with it" in printed.getvalue()
    assert not any(node.is_running for node in run.cluster.nodes.values())


def test_a_node_that_refuses_to_start_ends_the_rest_with_its_code(tmp_path: Path) -> None:
    run, printed = scripted(tmp_path, WAITS, REFUSES, WAITS)
    run._look_ready = lambda now: None  # type: ignore[method-assign]  # never ready
    assert run.run() == 9
    assert "node 2 │ the port is taken" in printed.getvalue()
    assert "node 2 ended with code 9 before the cluster was ready" in printed.getvalue()


def test_a_node_that_dies_is_reported_with_how_to_start_it(tmp_path: Path) -> None:
    run, printed = scripted(tmp_path, WAITS, WAITS, WAITS)
    end_when(printed, "is ready", lambda: kill(run, 2))
    end_when(
        printed, "Start it again with", lambda: run.queue.put((What.SIGNAL, signal.SIGTERM, ""))
    )
    assert run.run() == 0
    assert "node 2 was ended by SIGKILL. Start it again with:" in printed.getvalue()


def test_a_node_that_dies_is_started_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_run, "RESTART_SECONDS", 0.0)
    run, printed = scripted(tmp_path, WAITS, WAITS, WAITS, restarts=True)
    end_when(printed, "is ready", lambda: kill(run, 2))

    def is_back() -> bool:
        return printed.getvalue().count("node 2 │ serving") == 2

    def end() -> None:
        while not is_back():
            threading.Event().wait(0.02)
        run.queue.put((What.SIGNAL, signal.SIGINT, ""))

    end_when(printed, "starting it again", end)
    assert run.run() == 0 and is_back()


def test_a_node_that_never_gets_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_run, "RESTART_SECONDS", 0.0)
    run, printed = scripted(tmp_path, REFUSES, restarts=True)
    assert run.run() == 1
    assert printed.getvalue().count("starting it again") == dev_run.RESTARTS_MAX - 1
    assert "no node is left" in printed.getvalue()


def kill(run: DevRun, node: int) -> None:
    process = run.cluster.nodes[node].process
    assert process is not None
    process.kill()


# --- the real thing -------------------------------------------------------------------


def free_base() -> int:
    """A port with the others that three nodes need free above it."""
    for base in range(20_000 + os.getpid() % 20_000, 60_000, 211):
        try:
            for port in [base + n for n in (0, 1, 2, 10, 11, 12, 100, 101, 102)]:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    pytest.skip("no free ports")


def read_until(stream: IO[str], pattern: str) -> tuple[re.Match[str], str]:
    """Read lines until one fits."""
    seen = ""
    for line in stream:
        seen += line
        found = re.search(pattern, line)
        if found:
            return found, seen
    pytest.fail(f"ended without {pattern!r}:\n{seen}")


@pytest.mark.slow
def test_three_nodes_start_lose_one_end_and_are_the_same_cluster_again(tmp_path: Path) -> None:
    base = free_base()
    command = [sys.executable, "-m", "unimeter", "dev", "--port", str(base)]
    command += ["--http-port", str(base + 10), "--data-dir", str(tmp_path / "dev")]
    met = []
    for _ in range(2):
        run = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            process_group=0,
        )  # fmt: skip
        assert run.stderr is not None
        try:
            _, seen = read_until(run.stderr, "cluster of 3 nodes is ready")
            met.append("node 1 │ all nodes have met" in seen)
            found, _ = read_until(run.stderr, r"kill -9 (\d+)")
            os.kill(int(found[1]), signal.SIGKILL)  # one of the nodes, as its lines invite to
            read_until(run.stderr, r"was ended by SIGKILL\. Start it again with")
            run.send_signal(signal.SIGINT)
            read_until(run.stderr, "the data stays")
            assert run.wait(30) == 0
        finally:
            run.kill()
            run.wait()
            run.stderr.close()
    assert (tmp_path / "dev" / "cluster-secret").stat().st_mode & 0o777 == 0o600
    assert met == [True, False], "the second time they know each other"
