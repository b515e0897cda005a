"""`unimeter verify --at`: the state of one node at an index that another one has too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.storage.meter import CALLS, NOW, Meter

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.main import cli
from unimeter.storage.disk import OsDisk
from unimeter.types import Event


@pytest.fixture
def directory(tmp_path: Path) -> tuple[str, list[str]]:
    """A data directory, and the hash of its state at each index."""
    path = str(tmp_path / "data")
    meter = Meter(OsDisk(), path)
    states = ["", meter.machine.state_hash()]
    meter.create(CALLS)
    states.append(meter.machine.state_hash())
    for number in range(5):
        meter.ingest([Event(1, "calls", number, NOW)])
        states.append(meter.machine.state_hash())
    meter.close()
    return path, states


def verify(path: str, *options: str) -> dict[str, object]:
    result = CliRunner().invoke(cli, ["verify", path, "--json", *options])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_without_an_index_the_whole_log_is_counted(directory: tuple[str, list[str]]) -> None:
    path, states = directory
    found = verify(path)
    assert (found["index"], found["last_index"], found["term"]) == (7, 7, 1)
    assert found["state_hash"] == states[7]


@pytest.mark.parametrize("index", [1, 2, 5, 7])
def test_the_state_at_an_index_is_shown(directory: tuple[str, list[str]], index: int) -> None:
    path, states = directory
    found = verify(path, "--at", str(index))
    assert (found["index"], found["last_index"]) == (index, 7)
    assert found["state_hash"] == states[index]


def test_an_index_that_is_not_there_is_refused(directory: tuple[str, list[str]]) -> None:
    result = CliRunner().invoke(cli, ["verify", directory[0], "--at", "8"])
    assert result.exit_code == ExitCode.USAGE
    assert "the log ends with entry 7" in result.stderr
