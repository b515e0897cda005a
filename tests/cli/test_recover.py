"""``unimeter recover``: what it makes, and everything it refuses first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from unimeter.cli.exit_codes import ExitCode
from unimeter.storage.disk import OsDisk
from unimeter.storage.reading import find_superblock
from unimeter.storage.superblock import RECOVERED, Membership

PEERS = "1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Who the node is, as serve is told."""
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    named = ["--node-id", "2", "--cluster-id", "billing", "--peers", PEERS]
    return [*named, "--data-dir", str(tmp_path / "data"), "--cluster-secret-file", str(secret)]


def test_the_directory_says_that_it_is_recovering(
    run: Run, tmp_path: Path, options: list[str]
) -> None:
    result = run("recover", *options, "--yes", "--json")
    assert result.exit_code == ExitCode.OK, result.stderr
    assert json.loads(result.stdout)["node"] == 2
    assert "`unimeter serve`" in result.stderr and "Once all others have answered" in result.stderr
    block, _ = find_superblock(OsDisk(), str(tmp_path / "data"))
    assert block.membership is Membership.RECOVERING and block.identity.node_id == 2
    assert block.incarnation & RECOVERED


def test_a_directory_with_data_is_never_touched(
    run: Run, tmp_path: Path, options: list[str]
) -> None:
    run("recover", *options, "--yes")
    before = (tmp_path / "data" / "superblock").read_bytes()
    again = run("recover", *options, "--yes")
    assert again.exit_code == ExitCode.DATA and "recovering already" in again.stderr
    assert (tmp_path / "data" / "superblock").read_bytes() == before


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_made(
    run: Run, tmp_path: Path, options: list[str], answer: str
) -> None:
    result = run("recover", *options, stdin=answer)
    assert result.exit_code == ExitCode.USAGE and "nothing was changed" in result.stderr
    assert "only if its old data is lost for good" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_yes_at_the_question_is_enough(run: Run, tmp_path: Path, options: list[str]) -> None:
    assert run("recover", *options, stdin="y\n").exit_code == ExitCode.OK
    assert (tmp_path / "data" / "superblock").exists()


def test_a_node_that_is_alone_has_nobody_to_copy_from(run: Run, tmp_path: Path) -> None:
    result = run("recover", "--data-dir", str(tmp_path / "data"), "--yes")
    assert result.exit_code == ExitCode.USAGE and "restore a copy" in result.stderr
    assert not (tmp_path / "data").exists()


def test_an_id_that_is_not_among_the_peers_is_refused(run: Run, options: list[str]) -> None:
    result = run("recover", *options, "--node-id", "5", "--yes")
    assert result.exit_code == ExitCode.USAGE and "peers names only 1, 2, 3" in result.stderr
