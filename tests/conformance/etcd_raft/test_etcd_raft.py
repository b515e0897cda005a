"""etcd's own transcripts run against the core; and the runner can tell right from wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.etcd_raft.__main__ import main, run_file
from tests.conformance.etcd_raft.interaction import protobuf_size
from tests.conformance.etcd_raft.transcript import comparable, parse

from unimeter.raft import Entry

_SINGLE_NODE = """\
# A comment.
log-level info
----
ok

add-nodes 1 voters=(1) index=3
----
INFO whatever

campaign 1
----
ok

stabilize
----
> 1 handling Ready
  Ready MustSync=true:
  Lead:0 State:StateCandidate
  HardState Term:1 Vote:1 Commit:3
> 1 handling Ready
  Ready MustSync=true:
  Lead:1 State:StateLeader
  Entries:
  1/4 EntryNormal ""
> 1 handling Ready
  Ready MustSync=false:
  HardState Term:1 Vote:1 Commit:4
  CommittedEntries:
  1/4 EntryNormal ""
"""

_JOINT = """\
vote cfg=(1,2) cfgj=(2,3) votes=(y,y,_)
----
VotePending

committed cfg=(1,3) cfgj=(2) idx=(100,45,50)
----
       idx
xx>    100    (id=1)
x>      50    (id=2)
>       45    (id=3)
45
"""


@pytest.fixture
def folder(shared_dir: Path) -> Path:
    found = shared_dir / "conformance" / "etcd-raft"
    if not found.is_dir():
        pytest.skip(f"needs {found}")
    return found


def test_every_file_of_etcd_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(str(folder))
    lines = capsys.readouterr().out.splitlines()
    assert code == 0, "\n".join(line for line in lines if line.startswith("FAIL"))
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} files pass"
    assert len(lines) > 12


def test_runner_is_a_command(root: Path, tmp_path: Path) -> None:
    (tmp_path / "single.txt").write_text(_SINGLE_NODE)
    command = [sys.executable, "-m", "tests.conformance.etcd_raft", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "pass single.txt\n1 of 1 files pass\n"), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Term:1 Vote:1 Commit:4", "Term:1 Vote:1 Commit:3"),
        ("Lead:1 State:StateLeader", "Lead:1 State:StateFollower"),
        ('  1/4 EntryNormal ""\n> 1', "> 1"),
        ("MustSync=false", "MustSync=true"),
        ("stabilize", "no-such-command"),
    ],
)
def test_runner_fails_a_transcript_with_one_difference(
    right: str, wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "case.txt"
    path.write_text(_SINGLE_NODE)
    assert run_file(path) is None
    assert right in _SINGLE_NODE
    path.write_text(_SINGLE_NODE.replace(right, wrong, 1))
    assert run_file(path) is not None
    assert main(str(tmp_path)) == 1


def test_runner_knows_joint_quorums(tmp_path: Path) -> None:
    path = tmp_path / "joint.txt"
    path.write_text(_JOINT)
    assert run_file(path) is None


def test_runner_passes_nothing_when_there_is_nothing(tmp_path: Path) -> None:
    assert main(str(tmp_path)) == 1


def test_informational_lines_are_ignored_and_everything_else_is_not() -> None:
    assert comparable("INFO a\n  DEBUG b\n") == "ok" == comparable("")
    assert comparable("> 1 handling Ready\n  INFO a\n  x") == "> 1 handling Ready\n  x"


def test_transcript_may_have_several_commands_and_blank_lines() -> None:
    cases = parse("a 1 k=(2, 3) e=()\nb\n----\n----\nx\n\ny\n----\n----\n\nc\n----\nok\n")
    assert [[command.name for command in case.commands] for case in cases] == [["a", "b"], ["c"]]
    first = cases[0].commands[0]
    assert (first.bare, first.keyed) == (["1"], {"k": ["2", "3"], "e": []})
    assert cases[0].expected == "x\n\ny"


def test_size_of_an_entry_is_that_of_its_protocol_buffer() -> None:
    # Type, term and index are always there: 08 00 10 01 18 0b; then 22 len data.
    assert protobuf_size(Entry(11, 1, 0, 0, b"")) == 6
    assert protobuf_size(Entry(300, 1, 1, 0, b"abc")) == 7 + 2 + 3
