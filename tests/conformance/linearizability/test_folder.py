"""The histories of others, with verdicts that others gave."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.linearizability.__main__ import main
from tests.conformance.linearizability.folder import histories, judge_folder
from tests.conformance.linearizability.verdict import Verdict


@pytest.mark.parametrize(("name", "count"), [("jepsen-etcd", 52), ("kv", 4)])
def test_published_histories_get_their_published_verdicts(
    shared_dir: Path, name: str, count: int
) -> None:
    lines = list(judge_folder(shared_dir / "conformance" / "porcupine" / name, seconds=10))
    assert [str(line) for line in lines if not line.is_as_expected] == []
    assert len(lines) == count
    assert {line.expected for line in lines} == {Verdict.RIGHT, Verdict.WRONG}


REGISTER = """\
INFO  jepsen.util - 0\t:invoke\t:write\t1
INFO  jepsen.core - a line of another logger
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 0\t:ok\t:write\t1
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:ok\t:read\t{}
"""
KV = """\
{{:process 0, :type :invoke, :f :append, :key "0", :value "x"}}
{{:process 0, :type :ok, :f :append, :key "0", :value "x"}}
{{:process 1, :type :invoke, :f :get, :key "0", :value nil}}
{{:process 1, :type :ok, :f :get, :key "0", :value "{}"}}
"""
OURS = """\
{{"time_ns": 0, "process": 0, "client": "a", "type": "invoke", "f": "add", "key": "k", "value": 2}}
{{"time_ns": 1, "process": 0, "client": "a", "type": "ok", "f": "add", "key": "k", "value": null}}
{{"time_ns": 2, "process": 1, "client": "b", "type": "invoke", "f": "read", "key": "k", "value": null}}
{{"time_ns": 3, "process": 1, "client": "b", "type": "ok", "f": "read", "key": "k", "value": {}}}
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of every form, right and wrong, with verdicts in both ways."""
    registers = tmp_path / "registers"
    registers.mkdir()
    (registers / "one.log").write_text(REGISTER.format(1))
    (registers / "two.log").write_text(REGISTER.format("nil"))
    (registers / "verdicts.txt").write_text("one.log linearizable\ntwo.log not-linearizable\n")
    for name, text, right, wrong in (("kv", KV, "x", "xx"), ("counter", OURS, 2, 0)):
        (tmp_path / f"{name}-ok.txt").write_text(text.format(right))
        (tmp_path / f"{name}-bad.txt").write_text(text.format(wrong))
    (tmp_path / "notes-ok.txt").write_text("Not a history.\n")
    return tmp_path


def test_forms_are_told_apart_by_content(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(histories(folder)) == 6
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.endswith("6 of 6 verdicts right\n")


def test_wrong_verdict_is_counted_and_ends_with_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "kv-bad.txt").rename(folder / "kv2-ok.txt")
    assert main([str(folder)]) == 1
    assert capsys.readouterr().out.endswith("5 of 6 verdicts right\n")


def test_history_out_of_time_damaged_or_missing_is_not_right(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--seconds", "-1"]) == 1
    with (folder / "counter-ok.txt").open("a") as file:
        file.write("{}\n")
    (folder / "registers" / "two.log").unlink()
    assert main([str(folder)]) == 1
    assert capsys.readouterr().out.endswith("4 of 6 verdicts right\n")


def test_empty_folder_proves_nothing(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
