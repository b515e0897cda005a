"""Every line of the table runs on a real node, tiny, and its numbers add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unimeter.bench.__main__ import main
from unimeter.bench.lines import SCENARIOS
from unimeter.bench.load import LoadError
from unimeter.bench.scenarios import (
    Settings,
    check_totals,
    fresh_node,
    make_tape,
    run_laps,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(directory=tmp_path).tiny()


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_yields_figures_whose_sums_agree(name: str, settings: Settings) -> None:
    figures = SCENARIOS[name](settings)
    assert figures
    for figure in figures:
        assert figure.value > 0, figure
    assert [path.name for path in settings.directory.iterdir()] == [], "data was left behind"


def test_a_total_that_differs_is_found(settings: Settings) -> None:
    with fresh_node(settings) as node:
        tape = make_tape(settings, settings.batch)
        run_laps(node, tape, 2)
        check_totals(node, tape)
        tape.take(1)  # frames that the node never saw
        with pytest.raises(LoadError, match=r"1?\d+ acknowledged, \d+ in total"):
            check_totals(node, tape)


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["--tiny", "--only", "batch1x1", "--output", str(tmp_path)])
    assert status == 0
    assert "batch 1, 1 connection: p50" in capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    names = [figure["name"] for figure in json.loads(written.read_text())["figures"]]
    assert names == ["batch 1, 1 connection: p50", "batch 1, 1 connection: p99"]
