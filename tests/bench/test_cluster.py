"""Every line of the cluster's table runs on three real nodes, tiny, and its sums agree."""

from __future__ import annotations

import json
import threading
from argparse import Namespace
from pathlib import Path

import pytest

from unimeter.bench.cluster import COMMAND, LINES, main, make_parser, make_settings
from unimeter.bench.cluster_failover import Crowd, Payer, check_payers
from unimeter.bench.cluster_nodes import running_group
from unimeter.bench.load import LoadError
from unimeter.bench.scenarios import Settings, check_totals, make_tape, run_laps


@pytest.fixture
def options(tmp_path: Path) -> Namespace:
    return make_parser().parse_args(["--tiny", "--output", str(tmp_path)])


@pytest.mark.parametrize("name", LINES)
def test_line_yields_figures_whose_sums_agree(name: str, options: Namespace) -> None:
    settings = make_settings(options)
    figures = LINES[name](settings, options)
    assert figures
    for figure in figures:
        assert figure.value > 0, figure
    assert list(settings.directory.iterdir()) == [], "data was left behind"


def test_totals_that_differ_are_found_on_every_node(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path).tiny()
    with running_group(settings, 3) as group:
        assert len(group.followers) == 2
        tape = make_tape(settings, settings.batch)
        run_laps(group.leader, tape, 2)
        group.check_totals(tape)
        tape.take(1)  # frames that no node ever saw
        for node in group.nodes:
            with pytest.raises(LoadError, match="acknowledged"):
                check_totals(node, tape)
        with pytest.raises(LoadError, match="acknowledged"):
            group.check_totals(tape)
        crowd = Crowd(group, 1)
        crowd.payers[0].acknowledged.append(0.0)
        with pytest.raises(LoadError, match=r"account 1: 1 acknowledged, \d+ in total"):
            check_payers(group.nodes[0], crowd)
    assert list(tmp_path.iterdir()) == [], "data was left behind"


def test_nodes_are_ended_when_a_line_fails(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path).tiny()
    with pytest.raises(LoadError, match="planted"), running_group(settings, 3) as group:
        processes = [node.process for node in group.nodes]
        raise LoadError("planted")
    assert all(process is not None and process.poll() is not None for process in processes)


def test_a_pause_counts_when_it_ends_after_the_kill() -> None:
    payer = Payer(1, [], threading.Event(), acknowledged=[1.0, 3.0, 3.5, 4.5, 4.6])
    assert payer.longest_pause(since=0.0) == 2.0
    assert payer.longest_pause(since=3.2) == 1.0
    assert payer.longest_pause(since=2.0) == 2.0, "it began before the kill and ended after it"
    assert payer.longest_pause(since=5.0) == 0.0


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tiny", "--only", "batch1x1", "--output", str(tmp_path)]) == 0
    assert "durable on a quorum: one event" in capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    report = json.loads(written.read_text())
    assert report["command"].startswith(COMMAND)
    assert len(report["figures"]) == 4
    assert "sums are checked on all three" in report["remarks"][0]


def test_a_line_that_fails_is_remarked_and_prints_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: Settings, options: Namespace) -> list[object]:
        raise LoadError("totals differ")

    monkeypatch.setitem(LINES, "reads", fail)
    assert main(["--tiny", "--only", "reads", "--output", str(tmp_path)]) == 1
    (written,) = tmp_path.glob("*.json")
    report = json.loads(written.read_text())
    assert report["figures"] == []
    assert report["remarks"][-1] == "reads: FAILED: totals differ"
