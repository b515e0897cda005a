"""``unimeter status`` and ``unimeter transfer-leader`` against a cluster that is made up."""

from __future__ import annotations

import csv
import io
import json

import pytest
from tests.cli.conftest import Run
from tests.cli.fakes import FakeCluster, cluster_status, node_status

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.status import COLUMNS, heard_words, size_words, states_of
from unimeter.errors import ConnectionError, InvalidInputError
from unimeter.wire.messages import HEARD_NEVER, ClusterStatusReply, Membership, NodeRole

OTHER = b"\6" * 16


def of(*answers: ClusterStatusReply | Exception) -> FakeCluster:
    return FakeCluster(list(answers))


# --- status ---------------------------------------------------------------------------


def test_a_cluster_that_is_well_ends_with_zero_and_a_row_for_each_node(run: Run) -> None:
    result = run("status", client=FakeCluster())
    lines = result.stdout.splitlines()
    assert result.exit_code == ExitCode.OK and len(lines) == 4
    assert lines[0].split()[:4] == ["NODE", "ROLE", "MEMBERSHIP", "TERM"]
    assert "leader" in lines[2] and "itself" in lines[2] and "4.0 MiB" in lines[2]
    assert "equal at 896" in lines[1]
    assert "node 2 leads in term 4, committed to 900; 3 of 3 nodes heard" in result.stderr


def test_json_is_one_object_with_bytes_and_milliseconds(run: Run) -> None:
    found = json.loads(run("status", "--json", client=FakeCluster()).stdout)
    assert (found["leader"], found["answered_by"], found["ok"]) == (2, 2, True)
    assert found["position"] == 900 and found["problems"] == []
    assert tuple(found["nodes"][0]) == COLUMNS
    assert found["nodes"][0]["disk_used_bytes"] == 4 * 2**20


def test_csv_and_ndjson_have_a_line_for_each_node(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("status", "--csv", client=FakeCluster()).stdout)))
    lines = run("status", "--ndjson", client=FakeCluster()).stdout.splitlines()
    assert [row["node"] for row in rows] == ["1", "2", "3"]
    assert [json.loads(line)["role"] for line in lines] == ["follower", "leader", "follower"]


def test_a_missing_node_is_named_and_ends_with_degraded(run: Run) -> None:
    silent = node_status(3, role=NodeRole.UNREACHABLE, heard_ms=12_000)
    result = run("status", client=of(cluster_status(node_status(1), node_status(2), silent)))
    assert result.exit_code == ExitCode.DEGRADED
    assert "node 3 (10.0.0.3:7001) is unreachable, last heard 12.0 s ago" in result.stderr
    assert "2 of 3 nodes heard" in result.stderr and "unreachable" in result.stdout


@pytest.mark.parametrize(
    ("version", "words"),
    [("0.1.0", "its process has ended"), ("", "not heard since this node started")],
)
def test_a_node_that_is_gone_is_told_from_one_never_met(run: Run, version: str, words: str) -> None:
    gone = node_status(1, role=NodeRole.UNREACHABLE, heard_ms=HEARD_NEVER, version=version)
    result = run("status", client=of(cluster_status(gone, node_status(2), node_status(3))))
    assert words in result.stderr and "never" in result.stdout


def test_no_leader_ends_with_degraded_and_says_what_is_needed(run: Run) -> None:
    nodes = [node_status(node, role=NodeRole.CANDIDATE) for node in (1, 2, 3)]
    result = run("status", client=of(cluster_status(*nodes, leader=0)))
    assert result.exit_code == ExitCode.DEGRADED
    assert "a majority of the nodes has to reach each other" in result.stderr


@pytest.mark.parametrize("membership", [Membership.FRESH, Membership.RECOVERING])
def test_a_node_without_a_vote_is_named(run: Run, membership: Membership) -> None:
    nodes = [node_status(1), node_status(2), node_status(3, membership=membership)]
    result = run("status", client=of(cluster_status(*nodes)))
    assert result.exit_code == ExitCode.DEGRADED
    assert "node 3 is" in result.stderr and "no vote until" in result.stderr


def test_states_that_differ_end_with_the_code_for_different_data(run: Run) -> None:
    odd = node_status(3, state_hash=OTHER)
    result = run("status", client=of(cluster_status(node_status(1), node_status(2), odd)))
    assert result.exit_code == ExitCode.DIFFERENT
    assert "look at node 3" in result.stderr


def test_nobody_answers_is_unavailable(run: Run) -> None:
    result = run("status", client=of(ConnectionError("no node took the request")))
    assert result.exit_code == ExitCode.UNAVAILABLE


def test_a_state_is_compared_only_at_the_same_index() -> None:
    apart = [node_status(1, hash_index=448, state_hash=OTHER), node_status(2), node_status(3)]
    assert states_of(apart) == {1: "", 2: "equal", 3: "equal"}
    # With two there is no majority to say which of them is wrong.
    pair = [node_status(1, state_hash=OTHER), node_status(2)]
    assert states_of(pair) == {1: "differs", 2: "differs"}
    new = [node_status(node, hash_index=0, state_hash=bytes(16)) for node in (1, 2)]
    assert states_of(new) == {1: "", 2: ""}


def test_a_single_node_is_a_cluster_of_one(run: Run) -> None:
    alone = node_status(2, hash_index=0, client_address="", peer_address="")
    result = run("status", client=of(cluster_status(alone)))
    assert result.exit_code == ExitCode.OK and "1 of 1 node heard" in result.stderr


def test_watch_prints_again_only_what_changed_and_outlasts_silence(run: Run) -> None:
    silent = node_status(1, role=NodeRole.UNREACHABLE)
    changed = cluster_status(silent, node_status(2), node_status(3))
    answers = of(cluster_status(), cluster_status(), ConnectionError("nobody"), changed)
    result = run("status", "--watch", "--count", "4", "--interval", "0.1", client=answers)
    assert result.exit_code == ExitCode.OK
    assert result.stdout.count("NODE") == 2 and "no node answers" in result.stderr


def test_watch_as_ndjson_is_an_object_for_each_look(run: Run) -> None:
    options = ("--watch", "--count", "2", "--interval", "0.1")
    lines = run("status", *options, "--ndjson", client=FakeCluster()).stdout.splitlines()
    assert [json.loads(line)["leader"] for line in lines] == [2, 2]
    rows = run("status", *options, "--csv", client=FakeCluster()).stdout.splitlines()
    assert len(rows) == 1 + 2 * 3


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 * 2**30, "200 GiB"), (None, None)],
)
def test_sizes_in_words(count: int | None, words: str | None) -> None:
    assert size_words(count) == words


def test_ages_in_words() -> None:
    assert heard_words(0, True) == "itself" and heard_words(None, False) == "never"
    ages = [heard_words(ms, False) for ms in (300, 90_000, 3 * 3_600_000)]
    assert ages == ["0.3 s ago", "1 min ago", "3 h ago"]


# --- transfer-leader ------------------------------------------------------------------


def test_leadership_goes_to_the_node_that_is_named(run: Run) -> None:
    cluster = FakeCluster()
    found = json.loads(run("transfer-leader", "3", "--json", client=cluster).stdout)
    assert cluster.transfers == [3] and (found["before"], found["leader"]) == (2, 3)


def test_without_a_node_the_cluster_chooses(run: Run) -> None:
    cluster = FakeCluster()
    assert run("transfer-leader", client=cluster).exit_code == ExitCode.OK
    assert cluster.transfers == [0]


def test_the_node_that_leads_is_left_alone(run: Run) -> None:
    cluster = FakeCluster()
    result = run("transfer-leader", "2", client=cluster)
    assert result.exit_code == ExitCode.OK and cluster.transfers == []
    assert "node 2 leads already" in result.stderr


def test_what_cannot_be_is_refused_in_a_sentence(run: Run) -> None:
    unknown = run("transfer-leader", "9", client=FakeCluster())
    assert unknown.exit_code == ExitCode.USAGE and "the cluster has 1, 2, 3" in unknown.stderr
    alone = run("transfer-leader", client=of(cluster_status(node_status(2))))
    assert alone.exit_code == ExitCode.USAGE and "this node is alone" in alone.stderr
    leaderless = run("transfer-leader", "1", client=of(cluster_status(leader=0)))
    assert leaderless.exit_code == ExitCode.UNAVAILABLE and "no node leads" in leaderless.stderr
    away = FakeCluster(refusal=InvalidInputError("node 1 is not connected"))
    refused = run("transfer-leader", "1", client=away)
    assert refused.exit_code == ExitCode.USAGE and "not connected" in refused.stderr
