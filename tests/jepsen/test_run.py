"""The whole harness against one real node; clusters are what `make jepsen` is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conformance.linearizability.history import load
from tests.jepsen.__main__ import main
from tests.jepsen.cluster import Cluster
from tests.jepsen.networks import Loopback
from tests.jepsen.report import Promise, Report
from tests.jepsen.run import Options, run

SEED = 44  # a kill, a pause and clients that lose the node, within nine seconds


@pytest.mark.slow
def test_one_real_node_keeps_every_promise_under_faults(tmp_path: Path) -> None:
    options = Options(SEED, 9, nodes=1, clients=2, keys=2)
    report = run(options, tmp_path / "run")
    report.show(tmp_path / "run")
    assert report.is_passed
    begun = [entry["begins"]["kind"] for entry in report.faults if "begins" in entry]
    assert {"kill", "pause"} <= set(begun)
    assert json.loads((tmp_path / "run" / "report.json").read_text())["passed"]
    assert len(load(tmp_path / "run" / "history.jsonl")) > 100
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "history.jsonl",
        "node-1.output",
        "report.json",
    ]


def test_node_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    cluster = Cluster(Loopback(), tmp_path, 1, "--no-such-option")
    try:
        with pytest.raises(RuntimeError, match="no-such-option"):
            cluster.start_all()
        assert "ended by itself" in cluster.ended[0]
    finally:
        cluster.close()
    assert cluster.processes == {}


def test_report_of_a_broken_promise_is_failed_and_says_how_to_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("the command", "abc", 5, ["a note"], [])
    assert not report.is_passed
    report.promises = [Promise("one", []), Promise("two", [f"sign {n}" for n in range(9)])]
    assert not report.is_passed
    report.show(tmp_path)
    shown = capsys.readouterr().out
    assert "and 4 more" in shown
    assert shown.endswith("FAILED seed 5 commit abc: the command\n")
    report.promises.pop()
    report.show(tmp_path)
    assert capsys.readouterr().out.endswith("PASSED seed 5 commit abc: the command\n")


def test_options_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--nodes", "2"])
    assert "--nodes" in capsys.readouterr().err
