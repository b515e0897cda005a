"""Code written for the published client runs unchanged against three nodes, one of which dies.

One session (``cluster_session.py``) does it all; each test here judges one part of what it saw.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.published_client.conftest import SESSION_SECONDS_MAX

from unimeter.demo.cluster_process import ClusterProcess

SESSION = Path(__file__).with_name("cluster_session.py")
SOFT_1000, HARD_1000 = [1000, "soft", 120], [1000, "hard", 210]


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    """Three nodes with the default settings."""
    with ClusterProcess(tmp_path_factory.mktemp("published") / "cluster") as cluster:
        cluster.wait_leader()
        yield cluster


def do(cluster: ClusterProcess, what: str) -> str:
    """Carry out what the session asked for; the address of the node that it hit."""
    if what == "kill the leader":
        node = cluster.wait_leader()
        cluster.kill(node)
        cluster.wait_leader(other_than=node)
    else:
        node = cluster.running[0]
        cluster.kill(node)
    return cluster.addresses[node - 1]


@pytest.fixture(scope="session")
def seen(client_folder: Path, three: ClusterProcess) -> dict[str, Any]:
    """What the published client saw."""
    command = [sys.executable, "-I", "-S", str(SESSION), str(client_folder)]
    with subprocess.Popen(
        [*command, ",".join(three.addresses)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdin and session.stdout and session.stderr
        limit = threading.Timer(SESSION_SECONDS_MAX, session.kill)
        limit.start()
        with contextlib.closing(session.stdout):
            for line in session.stdout:
                words = json.loads(line)
                if "seen" in words:
                    limit.cancel()
                    return dict(words["seen"])
                session.stdin.write(json.dumps(do(three, words["do"])) + "\n")
                session.stdin.flush()
        limit.cancel()
        pytest.fail(f"the session ended early:\n{session.stderr.read()}")


def test_every_node_names_the_same_leader_and_all_nodes(seen, three):
    leaders = {tuple(look["leaders"]) for look in seen["looks"]}
    assert len(leaders) == 1
    for look in seen["looks"]:
        assert look["nodes"] == sorted(three.addresses)
        assert len(look["leaders"]) == 1 and "" not in look["leaders"]


def test_a_write_is_read_at_once_at_whatever_replica(seen):
    assert seen["use"]["wrong"] == []
    assert seen["use"]["breakdown"] == [
        ["large", sum(10 + i for i in range(0, 10, 2))],
        ["small", sum(10 + i for i in range(1, 10, 2))],
    ]
    assert seen["use"]["metrics"] == ["calls", "spend", "tokens"]


def test_a_batch_sent_twice_is_counted_once(seen):
    assert seen["use"]["again"] == [0, 10]


def test_an_alert_is_pushed_once_though_the_client_listens_to_every_node(seen):
    live = seen["alerts"]["live"]
    others = [[1001, "soft", 500], [1001, "hard", 500]]
    assert [each[:3] for each in live] == [SOFT_1000, HARD_1000, *others]
    assert [each[3] for each in live] == sorted(each[3] for each in live)


def test_past_alerts_are_caught_up_with_once_though_every_node_is_asked(seen):
    assert seen["alerts"]["caught_up"] == sorted(seen["alerts"]["live"])
    assert [each[:3] for each in seen["alerts"]["listed"]] == [SOFT_1000, HARD_1000]


def test_a_call_after_the_leader_died_fails_or_is_counted_and_never_only_seems_to_be(seen):
    assert seen["killed"]["at_once"] in ("ConnectionError", "ConnectionRefusedError", 1)
    for stored, duplicates, total in seen["killed"]["after"]:
        assert (stored, duplicates, total) == (1, 1, 1)


def test_a_live_subscription_gets_the_new_leaders_alerts_once(seen):
    (alert,) = seen["killed"]["live"]
    assert alert[:3] == [1002, "soft", 150]
    assert seen["killed"]["listed"] == seen["alerts"]["listed"], "offsets are the same everywhere"


def test_a_node_without_a_majority_lets_nothing_seem_done(seen):
    """The client takes status 5 for success: a batch stored, a metric made, a total of zero."""
    for name, answer in seen["minority"].items():
        assert answer in ("BackpressureError", "ConnectionError", "ConnectionRefusedError"), name
