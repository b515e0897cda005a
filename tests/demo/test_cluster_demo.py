"""The cluster's demonstration can fail, and the processes it plays with do what they are told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from unimeter import AggType, Client, Event, MetricSchema, current_month
from unimeter.demo import cluster
from unimeter.demo.cluster import Verdict, check_clients
from unimeter.demo.cluster_load import Load, Sender
from unimeter.demo.cluster_process import ClusterProcess, write_secret
from unimeter.demo.cluster_view import View
from unimeter.demo.process import free_ports
from unimeter.demo.workload import Expected

# --- what is compared -----------------------------------------------------------------


def quiet_load() -> Load:
    """Clients that have sent something, all of it well."""
    load = Load(["127.0.0.1:1"], 1, 2)
    for sender in load.senders:
        sender.counts.events, sender.counts.checks = 100, 5
        sender.calls = [(10.0, 10.5), (11.0, 11.1)]
    return load


def judged(load: Load) -> tuple[bool, list[str]]:
    lines: list[str] = []
    verdict = Verdict(lines.append)
    check_clients(load, verdict)
    return verdict.is_good, [line for line in lines if line.startswith("BAD")]


def test_clients_without_a_failure_are_good() -> None:
    assert judged(quiet_load()) == (True, [])


def test_one_failed_call_is_enough_to_fail() -> None:
    load = quiet_load()
    load.senders[1].counts.failures.append("client-1: DeadlineExceededError")
    is_good, lines = judged(load)
    assert not is_good and "1 failed" in lines[0]


def test_a_payment_that_was_counted_twice_fails() -> None:
    load = quiet_load()
    load.senders[0].counts.resent = 3
    load.senders[0].counts.duplicates = 2
    assert not judged(load)[0]


def test_a_balance_without_something_acknowledged_fails() -> None:
    load = quiet_load()
    load.senders[0].counts.wrong.append("3001-of-0: credits 5, acknowledged 6")
    assert not judged(load)[0]


def test_nothing_sent_is_no_success() -> None:
    assert not judged(Load(["127.0.0.1:1"], 1, 2))[0]


def test_the_longest_call_counts_where_it_overlaps() -> None:
    load = quiet_load()
    load.senders[0].calls.append((20.0, 23.0))
    assert load.longest_call(10.2, 10.3) == pytest.approx(0.5)
    assert load.longest_call(22.0, 40.0) == pytest.approx(3.0)
    assert load.longest_call(30.0, 40.0) == 0.0
    load.senders[1].call_began = 25.0  # and has not come back
    assert load.longest_call(30.0, 40.0) > 0.0


def test_events_of_a_seed_are_the_same_every_time_and_of_accounts_of_their_own() -> None:
    def events(number: int, seed: int) -> list[Event]:
        return list(Sender(number, [], seed, threading.Event())._make_events())

    assert events(0, 7) == events(0, 7) != events(0, 8)
    accounts = [{event.account_id for event in events(number, 7)} for number in (0, 1)]
    assert not accounts[0] & accounts[1]


def test_totals_of_all_clients_are_one() -> None:
    load = quiet_load()
    for sender in load.senders:
        for event in sender._make_events():
            sender.expected.add(event)
    alone = [sender.expected.totals() for sender in load.senders]
    assert load.expected().totals() == {**alone[0], **alone[1]}
    assert isinstance(load.expected(), Expected)


def states_compared(monkeypatch: pytest.MonkeyPatch, folder: Path, *found: object) -> bool:
    """Check three directories of which ``unimeter verify`` would say this."""
    answers = iter(found)

    def say(directory: Path, index: int) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            "import sys; print(sys.argv[1])",
            json.dumps(next(answers)),
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    monkeypatch.setattr(cluster, "start_verify", say)
    verdict = Verdict(lambda line: None)
    cluster.check_directories(ClusterProcess(folder), 9, verdict)
    return verdict.is_good


def test_one_state_that_differs_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    same, odd = {"index": 9, "state_hash": "aa"}, {"index": 9, "state_hash": "ab"}
    early = {"index": 8, "state_hash": "aa"}
    assert states_compared(monkeypatch, tmp_path, same, same, same)
    assert not states_compared(monkeypatch, tmp_path, same, same, odd)
    assert not states_compared(monkeypatch, tmp_path, early, early, early)
    assert not states_compared(monkeypatch, tmp_path, {}, {}, {})


def test_the_live_picture_has_nodes_traffic_and_faults(tmp_path: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=120, force_terminal=True)
    view = View(ClusterProcess(tmp_path), console)
    view.load = quiet_load()
    view.begin("three nodes, undisturbed")
    view.begin("SIGKILL of node 1, the leader").note = "node 2 leads after 0.1 s"
    view._look()
    view._look()
    console.print(view.picture())
    words = printed.getvalue()
    assert words.count("killed") == 3 and "200 events acknowledged" in words
    assert "SIGKILL of node 1, the leader" in words and "node 2 leads after 0.1 s" in words


# --- the processes --------------------------------------------------------------------


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path)
    first = path.read_text()
    write_secret(path)
    assert path.read_text() == first and len(first.strip()) == 64
    assert path.stat().st_mode & 0o777 == 0o600


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(50))) == 50


def test_a_cluster_of_one_is_a_node_without_peers(tmp_path: Path) -> None:
    alone = ClusterProcess(tmp_path, count=1)
    assert "--peers" not in alone.nodes[1].command()
    three = ClusterProcess(tmp_path, count=3)
    assert three.nodes[2].command().count("--peers") == 1
    assert three.peers.count("127.0.0.1:") == 3


@pytest.fixture
def three(tmp_path: Path) -> Iterator[ClusterProcess]:
    """Three nodes that are ready."""
    with ClusterProcess(tmp_path / "three") as found:
        yield found


@pytest.mark.slow
def test_nodes_are_killed_stopped_and_started_again(three: ClusterProcess) -> None:
    month = current_month()
    with Client(three.addresses, timeout=30) as client:
        client.metrics.create(MetricSchema("calls", AggType.COUNT))
        first = three.wait_leader()
        three.kill(first)
        assert three.running == [node for node in (1, 2, 3) if node != first]
        client.ingest([Event(1, "calls")])
        second = three.wait_leader(other_than=first)
        three.restart(first)
        three.stop(second)
        assert second not in three.applied() and second not in three.running
        client.ingest([Event(1, "calls")])
        three.wait_leader(other_than=second)
        three.cont(second)
        index = three.wait_same_index()
        assert three.applied() == {1: index, 2: index, 3: index}
        assert client.query(1, "calls", month).value.count == 2
    assert three.terminate() == {1: 0, 2: 0, 3: 0}
    assert three.leader() is None and three.tail(1)


@pytest.mark.slow
def test_a_short_run_of_the_demonstration_ends_with_all_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = cluster.run(tmp_path / "demo", 7, calm_seconds=0.5, stopped_seconds=2.0)
    printed = capsys.readouterr().out
    assert good, printed
    assert "ALL EQUAL" in printed and "BAD" not in printed
    assert printed.count("SIGKILL of node") >= 2 and "SIGSTOP of node" in printed
