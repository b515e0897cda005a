"""Ingest: every line counted once or named, over stops, crashes and edits."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from tests.cli.fakes import FakeMeter

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.fields import Fields
from unimeter.cli.file_run import FileRun, Plan
from unimeter.cli.pipe import Pipe

Run = Callable[..., Result]

ARGUMENTS = ("--account", "1", "--metric", "m", "--batch", "10")


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    """A file of 100 lines whose values add up to 5050."""
    path = tmp_path / "usage.csv"
    path.write_text("value\n" + "".join(f"{n}\n" for n in range(1, 101)))
    return path


def summary(result: Result) -> dict[str, int]:
    found: dict[str, int] = json.loads(result.stdout)[0]
    return found


def test_a_file_is_counted_and_counted_once_when_sent_again(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    first = run("ingest", str(usage), *ARGUMENTS, "--json")
    assert (first.exit_code, summary(first)["stored"]) == (0, 100)
    again = run("ingest", str(usage), *ARGUMENTS, "--json")
    assert (again.exit_code, summary(again)["lines"]) == (0, 0)
    assert "going on at line 102" in again.stderr
    assert meter.total() == 5050


@pytest.mark.parametrize("batches", range(11))
def test_a_run_goes_on_after_an_interruption_at_any_batch(
    run: Run, meter: FakeMeter, usage: Path, batches: int
) -> None:
    meter.batches_left = batches
    stopped = run("ingest", str(usage), *ARGUMENTS)
    assert stopped.exit_code == (ExitCode.INTERRUPTED if batches < 10 else 0)
    meter.batches_left = None
    run("ingest", str(usage), *ARGUMENTS)
    assert meter.total() == 5050
    assert sum(meter.sizes) == 100, "no line is sent twice when every reply arrived"


@pytest.mark.parametrize("batch", range(1, 11))
@pytest.mark.parametrize("loses_progress", [False, True])
def test_a_batch_whose_reply_was_lost_is_counted_once(
    run: Run, meter: FakeMeter, usage: Path, batch: int, loses_progress: bool
) -> None:
    meter.loses_reply_of = batch
    run("ingest", str(usage), *ARGUMENTS, "--timestamp", "2026-11-05")
    meter.loses_reply_of = None
    if loses_progress:
        Path(f"{usage}.unimeter-progress").unlink()
    result = run("ingest", str(usage), *ARGUMENTS, "--json", "--timestamp", "2026-11-05")
    assert (result.exit_code, meter.total()) == (0, 5050)
    assert summary(result)["duplicates"] == (10 * batch if loses_progress else 10)


def test_lines_without_a_time_keep_the_time_of_the_first_run(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    """Another time would make the resent lines conflicts instead of duplicates."""
    meter.loses_reply_of = 1
    run("ingest", str(usage), *ARGUMENTS)
    meter.loses_reply_of = None
    assert run("ingest", str(usage), *ARGUMENTS).exit_code == 0
    assert run("ingest", str(usage), *ARGUMENTS, "--restart").exit_code == 0
    assert len({event.timestamp for event in meter.stored.values()}) == 1


def test_a_sender_killed_in_its_first_batch_sends_the_same_events_again(
    run: Run, usage: Path
) -> None:
    """What SIGKILL leaves behind is the progress file as it is while a batch is sent."""
    progress = Path(f"{usage}.unimeter-progress")
    left: list[bytes] = []

    class Killed(FakeMeter):
        def ingest(self, events):  # type: ignore[no-untyped-def]
            left.append(progress.read_bytes())
            return super().ingest(events)

    meter = Killed(loses_reply_of=1)
    run("ingest", str(usage), *ARGUMENTS, client=meter)
    progress.write_bytes(left[0])
    meter.loses_reply_of = None
    result = run("ingest", str(usage), *ARGUMENTS, "--json", client=meter)
    assert (result.exit_code, summary(result)["duplicates"]) == (0, 10)
    assert meter.total() == 5050


def test_a_file_that_grew_is_gone_on_with(run: Run, meter: FakeMeter, usage: Path) -> None:
    run("ingest", str(usage), *ARGUMENTS)
    with usage.open("a") as file:
        file.write("7\n8")
    assert summary(run("ingest", str(usage), *ARGUMENTS, "--json"))["stored"] == 2
    # The last line had no end: it is read again, and is not counted again.
    with usage.open("a") as file:
        file.write("\n9\n")
    grown = summary(run("ingest", str(usage), *ARGUMENTS, "--json"))
    assert (grown["stored"], grown["duplicates"]) == (1, 1)
    assert meter.total() == 5050 + 7 + 8 + 9


def test_a_last_line_that_was_half_written_is_a_conflict_and_said(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    with usage.open("a") as file:
        file.write("1")
    run("ingest", str(usage), *ARGUMENTS)
    with usage.open("a") as file:
        file.write("5\n")
    result = run("ingest", str(usage), *ARGUMENTS)
    assert result.exit_code == ExitCode.NOT_COUNTED
    assert f"{usage}:102: conflict" in result.stderr


def test_a_bad_line_stops_the_run_and_the_mended_file_goes_on_there(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    text = usage.read_text()
    usage.write_text(text.replace("\n47\n", "\n4,7\n"))
    stopped = run("ingest", str(usage), *ARGUMENTS)
    assert stopped.exit_code == ExitCode.NOT_COUNTED
    assert f"{usage}:48: 2 cells where the head has 1" in stopped.stderr
    assert meter.total() == sum(range(1, 47))
    usage.write_text(text)
    result = run("ingest", str(usage), *ARGUMENTS, "--json")
    assert (result.exit_code, summary(result)["stored"]) == (0, 54)
    assert meter.total() == 5050


def test_the_first_line_can_be_mended_too(run: Run, meter: FakeMeter, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"metric": "typo"}\n{"metric": "m"}\n')
    meter.unknown = frozenset({"typo"})
    assert run("ingest", str(path), "--account", "1").exit_code == ExitCode.NOT_COUNTED
    path.write_text('{"metric": "m"}\n{"metric": "m"}\n')
    assert run("ingest", str(path), "--account", "1").exit_code == 0
    assert meter.total() == 2


def test_skipped_lines_are_named_kept_and_counted(
    run: Run, meter: FakeMeter, usage: Path, tmp_path: Path
) -> None:
    usage.write_text("metric,value\nm,1\nm,x\ntypo,3\nm,4\n")
    meter.unknown = frozenset({"typo"})
    rejects = tmp_path / "bad.csv"
    result = run(
        "ingest", str(usage), "--account", "1", "--json",
        "--on-error", "skip", "--rejects", str(rejects),
    )  # fmt: skip
    assert result.exit_code == ExitCode.NOT_COUNTED
    assert f"{usage}:3: value 'x' is not a number" in result.stderr
    assert f"{usage}:4: unknown metric" in result.stderr
    assert rejects.read_bytes().splitlines() == [b"m,x", b"typo,3"]
    found = summary(result)
    assert (found["lines"], found["stored"], found["refused"], found["skipped"]) == (4, 2, 1, 1)


def test_another_file_of_that_name_is_refused_until_restart(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    run("ingest", str(usage), *ARGUMENTS)
    usage.write_text("value\n" + "1\n" * 100)
    refused = run("ingest", str(usage), *ARGUMENTS)
    assert (refused.exit_code, "--restart" in refused.stderr) == (ExitCode.USAGE, True)
    assert run("ingest", str(usage), *ARGUMENTS, "--restart").exit_code == 0
    assert meter.total() == 5150


def test_a_cluster_begun_anew_is_sent_the_whole_file(run: Run, usage: Path) -> None:
    """Progress made with one cluster must not hide a file from another at that address."""
    run("ingest", str(usage), *ARGUMENTS)
    other = FakeMeter(cluster_id=b"\2" * 16)
    run("ingest", str(usage), *ARGUMENTS, client=other)
    assert other.total() == 5050


def test_two_columns_of_one_file_are_two_runs(run: Run, meter: FakeMeter, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("context,generated\n10,1\n20,2\n")
    for kind in ("context", "generated"):
        result = run(
            "ingest", str(path), "--account", "1", "--metric", "m",
            "--column", f"value={kind}", "--ignore", "*", "--property", f"kind={kind}",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
    assert meter.total() == 33


@pytest.mark.parametrize(
    "different",
    [
        ("--column", "value=b", "--ignore", "a"),
        ("--property", "kind=b", "--column", "value=a", "--ignore", "b"),
        ("--account", "2", "--column", "value=a", "--ignore", "b"),
    ],
)
def test_a_run_with_other_columns_account_or_tags_is_another_run(
    run: Run, meter: FakeMeter, tmp_path: Path, different: tuple[str, ...]
) -> None:
    path = tmp_path / "two.csv"
    path.write_text("a,b\n10,1\n20,2\n")
    first = ("--account", "1", "--metric", "m")
    run("ingest", str(path), *first, "--column", "value=a", "--ignore", "b")
    result = run("ingest", str(path), *first, *different, "--json")
    assert (result.exit_code, summary(result)["stored"]) == (0, 2)


def test_a_scale_corrected_later_is_a_conflict_and_not_counted_twice(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    arguments = (*ARGUMENTS, "--timestamp", "2026-11-05", "--no-progress-file")
    run("ingest", str(usage), *arguments)
    result = run("ingest", str(usage), *arguments, "--scale", "2")
    assert result.exit_code == ExitCode.NOT_COUNTED
    assert meter.total() == 5050


def test_a_dry_run_reads_everything_and_sends_nothing(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    usage.write_text("value\n1\nx\n")
    result = run("ingest", str(usage), *ARGUMENTS, "--dry-run", "--on-error", "skip")
    assert result.exit_code == ExitCode.NOT_COUNTED
    assert "usage.csv:3" in result.stderr
    assert meter.batches == 0
    assert not Path(f"{usage}.unimeter-progress").exists()


def test_a_progress_file_that_is_damaged_is_refused_with_the_way_out(
    run: Run, meter: FakeMeter, usage: Path
) -> None:
    Path(f"{usage}.unimeter-progress").write_text('{"version": 9}')
    result = run("ingest", str(usage), *ARGUMENTS)
    assert result.exit_code == ExitCode.USAGE
    assert "delete it" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-file.csv"], ExitCode.NOT_FOUND, "no file"),
        (["."], ExitCode.USAGE, "directory"),
        (["a.csv", "b.csv", "--name", "x"], ExitCode.USAGE, "one file"),
        (["a.csv", "--delimiter", "ab"], ExitCode.USAGE, "one character"),
        (["a.csv", "--column", "valeu=x"], ExitCode.USAGE, "no such field"),
        (["a.csv", "--property", "x"], ExitCode.USAGE, "KEY=VALUE"),
        (["a.csv", "--zone", "Mars"], ExitCode.USAGE, "IANA"),
    ],
)
def test_wrong_options_are_refused(
    run: Run, arguments: list[str], code: ExitCode, words: str
) -> None:
    result = run("ingest", *arguments)
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_a_json_array_is_refused_with_the_way_to_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text('[{"value": 1}]')
    result = run("ingest", str(path))
    assert (result.exit_code, "jq" in result.stderr) == (ExitCode.USAGE, True)


def piped(meter: FakeMeter, data: bytes, plan: Plan) -> FileRun:
    """A run over a pipe that holds `data`."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        run = FileRun(plan, "-", Pipe(reading), meter)
        run.run(lambda: None)
        return run
    finally:
        os.close(reading)


def test_a_named_pipe_sent_again_is_counted_once(meter: FakeMeter) -> None:
    plan = Plan(Fields(account=1, metric="m"), name="january")
    data = b'{"value": 1, "timestamp": "2026-01-01"}\n{"value": 2, "timestamp": "2026-01-02"}\n'
    assert piped(meter, data, plan).counts.stored == 2
    assert piped(meter, data, plan).counts.duplicates == 2
    assert piped(meter, data, Plan(plan.fields)).counts.stored == 2, "without a name it is new"


def test_a_named_pipe_with_a_progress_file_goes_on(meter: FakeMeter, tmp_path: Path) -> None:
    plan = Plan(Fields(account=1, metric="m"), name="january", progress_path=tmp_path / "p")
    piped(meter, b"value\n1\n2\n", plan)
    counts = piped(meter, b"value\n1\n2\n3\n", plan).counts
    assert (counts.lines, counts.stored, counts.duplicates) == (1, 1, 0)


def test_a_line_from_a_slow_pipe_is_sent_without_waiting_for_a_batch_to_fill() -> None:
    arrived = threading.Event()

    class Watched(FakeMeter):
        def ingest(self, events):  # type: ignore[no-untyped-def]
            arrived.set()
            return super().ingest(events)

    meter = Watched()
    reading, writing = os.pipe()
    plan = Plan(Fields(account=1, metric="m"), form="ndjson")
    run = FileRun(plan, "-", Pipe(reading), meter)
    thread = threading.Thread(target=run.run, args=(lambda: None,))
    thread.start()
    try:
        os.write(writing, b'{"value": 5}\n')
        assert arrived.wait(10), "the pipe is still open and the line is sent"
    finally:
        os.close(writing)
        thread.join(10)
        os.close(reading)
    assert meter.total() == 5
