"""The verbs against a real node: its socket, its log, its restart."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from unimeter import Client, Event
from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.main import cli
from unimeter.demo.process import NodeProcess

NOVEMBER = ("--period", "2026-11")

EVENTS = """account,metric,value,timestamp,model,kind
42,tokens,300,2026-11-01T10:00:00Z,large,in
42,tokens,200,2026-11-02T10:00:00Z,large,out
42,tokens,50,2026-11-02T11:30:00Z,small,in
7,tokens,900,2026-11-03T00:00:00Z,small,in
acme,tokens,1,2026-11-03T00:00:00Z,small,out
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for all tests of this file, with the events above."""
    directory = tmp_path_factory.mktemp("verbs")
    started = NodeProcess(directory / "node")
    started.start()
    try:
        file = directory / "events.csv"
        file.write_text(EVENTS)
        run(
            started, "metric", "create", "tokens", "sum", "--period", "month",
            "--dimension", "model", "--dimension", "kind=in,out",
        )  # fmt: skip
        assert json.loads(run(started, "ingest", str(file), "--json"))[0]["stored"] == 5
        yield started
    finally:
        started.kill()


def run(node: NodeProcess, *arguments: str, code: int = 0) -> str:
    """What a verb prints on stdout; fails unless it ends with `code`."""
    result = CliRunner().invoke(cli, arguments, env={"UNIMETER_SERVER": node.address})
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result.stdout if code == 0 else result.stderr


def test_a_total_is_what_the_file_adds_up_to(node: NodeProcess) -> None:
    found = json.loads(run(node, "query", "42", "tokens", *NOVEMBER, "--json"))
    assert (found["account"], found["sum"], found["events"]) == (42, 550, 3)
    assert found["start"] == "2026-11-01T00:00:00Z"


def test_a_string_account_is_not_the_integer_of_its_digits(node: NodeProcess) -> None:
    found = json.loads(run(node, "query", "str:42", "tokens", *NOVEMBER, "--json"))
    assert (found["account"], found["sum"]) == ("42", 0)
    assert json.loads(run(node, "query", "acme", "tokens", *NOVEMBER, "--json"))["sum"] == 1


def test_filters_and_groups_are_exact(node: NodeProcess) -> None:
    large = run(node, "query", "42", "tokens", *NOVEMBER, "--filter", "model=large", "--ndjson")
    assert json.loads(large)["sum"] == 500
    either = ("--filter", "kind=in", "--filter", "kind=out")
    assert (
        json.loads(run(node, "query", "42", "tokens", *NOVEMBER, *either, "--json"))["sum"] == 550
    )
    grouped = run(node, "query", "42", "tokens", *NOVEMBER, "--group-by", "model", "--csv")
    assert grouped == "model,sum,events\nlarge,500,2\nsmall,50,1\n"


def test_a_range_to_the_hour_is_exact(node: NodeProcess) -> None:
    edges = ("--from", "2026-11-02T10:30", "--to", "2026-11-02T12:00")
    assert json.loads(run(node, "query", "42", "tokens", *edges, "--json"))["sum"] == 50


def test_a_total_is_printed_at_its_scale(node: NodeProcess) -> None:
    found = json.loads(run(node, "query", "42", "tokens", *NOVEMBER, "--scale", "2", "--json"))
    assert found["sum"] == "5.50"


def test_a_series_has_every_window(node: NodeProcess) -> None:
    found = json.loads(run(node, "series", "42", "tokens", *NOVEMBER, "--json"))
    assert len(found) == 30
    assert [point["sum"] for point in found[:3]] == [300, 250, 0]


def test_a_series_of_a_zone_begins_at_its_midnights(node: NodeProcess) -> None:
    zone = ("--zone", "Europe/Berlin", "--window", "month")
    (point,) = json.loads(run(node, "series", "42", "tokens", *NOVEMBER, *zone, "--json"))
    assert (point["start"], point["sum"]) == ("2026-10-31T23:00:00Z", 550)


def test_top_ranks_accounts_and_all_lists_them(node: NodeProcess) -> None:
    assert run(node, "top", "tokens", *NOVEMBER, "--limit", "2", "--csv") == (
        "account,sum,events\n7,900,1\n42,550,3\n"
    )
    every = list(
        csv.DictReader(io.StringIO(run(node, "top", "tokens", *NOVEMBER, "--all", "--csv")))
    )
    assert sum(int(row["sum"]) for row in every) == 1451


def test_events_are_listed_with_every_field(node: NodeProcess) -> None:
    found = json.loads(run(node, "events", "42", *NOVEMBER, "--json"))
    assert [event["value"] for event in found] == [300, 200, 50]
    assert found[0]["timestamp"] == "2026-11-01T10:00:00Z"
    assert found[0]["properties"] == {"model": "large", "kind": "in"}
    assert found[0]["id"].endswith(":2")


def test_listed_events_can_be_ingested_elsewhere(node: NodeProcess, tmp_path: Path) -> None:
    listed = run(node, "events", "42", "--metric", "tokens", *NOVEMBER, "--csv")
    file = tmp_path / "copy.csv"
    file.write_text(listed.replace("\n42,", "\n43,").replace(",42,", ",43,"))
    run(node, "ingest", str(file), "--ignore", "offset")
    grouped = ("tokens", *NOVEMBER, "--group-by", "kind", "--csv")
    assert run(node, "query", "43", *grouped) == run(node, "query", "42", *grouped)


def test_nanoseconds_of_a_file_reach_the_node(node: NodeProcess, tmp_path: Path) -> None:
    file = tmp_path / "precise.ndjson"
    file.write_text(
        '{"account": "ns", "value": 1, "timestamp": "2026-11-04T00:00:00.123456789Z"}\n'
    )
    run(node, "ingest", str(file), "--metric", "tokens")
    (found,) = json.loads(run(node, "events", "ns", *NOVEMBER, "--json"))
    assert found["timestamp"] == "2026-11-04T00:00:00.123456789Z"


def test_members_are_those_who_joined_and_did_not_leave(node: NodeProcess, tmp_path: Path) -> None:
    file = tmp_path / "seats.csv"
    file.write_text(
        "value,operation,timestamp\n1,add,2026-11-01\n2,add,2026-11-02\n1,remove,2026-11-03\n"
    )
    run(node, "metric", "create", "seats", "count-unique", "--recurring", "--period", "month")
    run(node, "ingest", str(file), "--account", "42", "--metric", "seats")
    at = ("--csv", "--at")
    assert run(node, "members", "42", "seats", *at, "2026-11-02T12:00") == "member\n1\n2\n"
    assert run(node, "members", "42", "seats", *at, "2026-11-04") == "member\n2\n"


def test_watch_shows_what_remains_of_credits(node: NodeProcess, tmp_path: Path) -> None:
    run(
        node, "metric", "create", "credits", "sum", "--period", "lifetime",
        "--alert-at-or-below", "low=100",
    )  # fmt: skip
    with Client([node.address]) as client:
        client.ingest([Event("w", "credits", 1_000, id="grant")])
        client.ingest([Event("w", "credits", -950, id="spend")])
    (row,) = json.loads(run(node, "watch", "w", "--once", "--json"))
    assert row == {
        "metric": "credits",
        "what": "remaining",
        "value": 50,
        "change": 0,
        "period": "lifetime",
        "alerts": "low",
    }
    (alert,) = json.loads(run(node, "alerts", "--account", "w", "--json"))
    assert (alert["threshold"], alert["direction"], alert["value"]) == ("low", "falling", 50)
    assert run(node, "alerts", "--after", str(alert["position"]), "--json") == "[]\n"


@pytest.mark.parametrize("verb", ["alerts", "watch"])
def test_a_follower_prints_an_alert_when_it_happens(node: NodeProcess, verb: str) -> None:
    """A child process follows; the alert is made only once it said that it waits."""
    metric = f"live_{verb}"
    run(
        node, "metric", "create", metric, "sum", "--period", "lifetime",
        "--alert-at-or-above", "cap=10",
    )  # fmt: skip
    arguments = {
        "alerts": ["alerts", "--follow", "--metric", metric, "--count", "1"],
        "watch": ["watch", "5", metric, "--interval", "60", "--count", "1"],
    }[verb]
    follower = subprocess.Popen(
        [sys.executable, "-m", "unimeter", *arguments, "--ndjson"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "UNIMETER_SERVER": node.address},
    )
    watchdog = threading.Timer(60, follower.kill)
    watchdog.start()
    try:
        assert follower.stdout is not None and follower.stderr is not None
        first = follower.stderr.readline() if verb == "alerts" else follower.stdout.readline()
        assert first
        with Client([node.address]) as client:
            client.ingest([Event(5, metric, 12)])
        found: dict[str, Any] = json.loads(follower.stdout.readline())
        assert found["value"] == 12
        assert follower.wait(60) == 0
    finally:
        watchdog.cancel()
        follower.kill()
        follower.communicate()


def test_what_a_node_refuses_is_said_in_one_line(node: NodeProcess) -> None:
    refused = run(node, "metric", "create", "tokens", "max", code=ExitCode.REFUSED)
    assert len(refused.splitlines()) == 1 and "tokens" in refused
    run(node, "query", "42", "nope", code=ExitCode.NOT_FOUND)
    run(node, "query", "42", "tokens", "--filter", "colour=red", code=ExitCode.USAGE)
    run(node, "metric", "delete", "nope", "--yes", code=ExitCode.NOT_FOUND)


def test_the_real_trace_is_metered_by_kind_to_the_unit(
    node: NodeProcess, shared_dir: Path, tmp_path: Path
) -> None:
    """Two runs over one file, each of another column; the times have seven decimals."""
    trace = next((shared_dir / "data").glob("*.csv"))
    with trace.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    run(node, "metric", "create", "llm", "sum", "--period", "month", "--dimension", "kind")
    for column in ("ContextTokens", "GeneratedTokens"):
        arguments = (
            "ingest", str(trace), "--account", "9", "--metric", "llm", "--ignore", "*",
            "--column", "timestamp=TIMESTAMP", "--column", f"value={column}",
            "--property", f"kind={column}", "--progress-file", str(tmp_path / "progress"),
        )  # fmt: skip
        assert json.loads(run(node, *arguments, "--json"))[0]["stored"] == len(rows)
        query = ("query", "9", "llm", "--period", "2023", "--filter", f"kind={column}", "--json")
        assert json.loads(run(node, *query))["sum"] == sum(int(row[column]) for row in rows)


def kill_once_some_are_counted(node: NodeProcess) -> None:
    """SIGKILL in the middle of a file: some events are there and many are not."""
    with Client([node.address]) as client:
        for _ in range(10_000):
            if client.query_realtime(1, "tokens").count >= 500:
                break
    node.kill()


@pytest.mark.slow
def test_a_file_is_counted_once_over_a_kill_of_the_node(tmp_path: Path) -> None:
    """The node dies in the middle; the same command goes on; verify agrees."""
    started = NodeProcess(tmp_path / "node")
    started.start()
    try:
        run(started, "metric", "create", "tokens", "sum", "--period", "lifetime")
        file = tmp_path / "usage.csv"
        lines = [f"{n % 7},tokens,{n},2026-11-05T10:00:00Z" for n in range(1, 60_001)]
        file.write_text("account,metric,value,timestamp\n" + "\n".join(lines) + "\n")
        killer = threading.Thread(target=kill_once_some_are_counted, args=(started,))
        killer.start()
        arguments = ("ingest", str(file), "--batch", "500", "--timeout", "1")
        first = CliRunner().invoke(cli, arguments, env={"UNIMETER_SERVER": started.address})
        killer.join()
        assert first.exit_code == ExitCode.UNAVAILABLE, first.stderr
        started.start()
        run(started, "ingest", str(file))
        every = json.loads(run(started, "top", "tokens", *NOVEMBER, "--all", "--json"))
        assert sum(row["sum"] for row in every) == 60_000 * 60_001 // 2
        assert sum(row["events"] for row in every) == 60_000
        assert started.terminate() == 0
        report = json.loads(run(started, "verify", str(tmp_path / "node"), "--json"))
        assert (report["verdict"], report["events"]) == ("ok", 60_000)
        rows = run(started, "inspect", str(tmp_path / "node"), "--ndjson").splitlines()
        assert {"superblock", "segment", "entry"} <= {json.loads(row)["what"] for row in rows}
    finally:
        started.kill()


def test_verify_of_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert result.exit_code in (ExitCode.DATA, ExitCode.DIFFERENT, ExitCode.NOT_FOUND)
    assert "Traceback" not in result.stderr
    assert CliRunner().invoke(cli, ["verify", str(tmp_path / "no")]).exit_code == ExitCode.USAGE
