"""`unimeter simulate`: which seeds run, what is printed, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.sim import stand_ins

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.main import cli
from unimeter.cli.simulate import Runner
from unimeter.sim import seeds
from unimeter.sim.coverage import COVERAGE_SEEDS_MIN
from unimeter.sim.worker import RunSeed
from unimeter.version import VERSION


def simulate(*arguments: str, run: RunSeed = stand_ins.sometimes_fails) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments], obj=Runner(run))


def last_line(result: Result) -> str:
    return result.stdout.splitlines()[-1]


def test_a_fresh_seed_is_printed_first_and_can_be_run_again() -> None:
    result = simulate(run=stand_ins.passes)
    first = result.stdout.splitlines()[0]
    assert re.fullmatch(r"seed \d+", first), result.output
    assert result.exit_code == 0
    assert re.fullmatch(
        rf"PASSED  {first}  \(unimeter {VERSION}.*\)  unimeter simulate --{first}",
        last_line(result),
    )
    assert simulate(run=stand_ins.passes).stdout.splitlines()[0] != first


def test_a_failing_seed_ends_with_code_1_and_what_was_found() -> None:
    result = simulate("--seed", "14", "--profile", "lite")
    assert result.exit_code == ExitCode.INTERNAL
    assert result.stdout.splitlines()[0] == "seed 14"
    assert "NothingLost:\n  event 14 was acknowledged and is gone\n  and a second" in result.stdout
    assert "faults: kill 2, rot 1" in result.stdout
    assert last_line(result).startswith("FAILED  seed 14  (unimeter")
    assert last_line(result).endswith("unimeter simulate --seed 14 --profile lite")


def test_an_exception_let_out_is_a_failure_with_its_place() -> None:
    result = simulate("--seed", "3", run=stand_ins.lets_an_exception_out)
    assert result.exit_code == ExitCode.INTERNAL
    assert "ZeroDivisionError: nothing to divide by" in result.stdout
    assert "in lets_an_exception_out" in result.stdout


def test_trace_prints_the_story_before_the_verdict() -> None:
    result = simulate("--seed", "1", "--trace")
    assert "becomes leader of term 1" in result.stdout
    assert last_line(result).startswith("PASSED  seed 1 ")
    assert "becomes leader" not in simulate("--seed", "1").stdout


def test_html_writes_the_page(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    result = simulate("--seed", "7", "--html", str(path))
    assert (result.exit_code, result.stderr) == (ExitCode.INTERNAL, f"wrote {path}\n")
    text = path.read_text(encoding="utf-8")
    assert "seed 7 <b>FAILED</b>" in text and "becomes leader of term 1" in text


def test_a_sweep_that_passes_ends_with_the_command_that_runs_it_again() -> None:
    result = simulate("--seeds", "6", "--first-seed", "1")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "seeds from 1 on"
    assert "6 seeds: 6 passed, 0 failed" in result.stdout
    assert re.fullmatch(
        r"PASSED  6 seeds from 1  \(.*\)  unimeter simulate --first-seed 1 --seeds 6",
        last_line(result),
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_sweep_that_fails_has_a_line_for_each_failing_seed(jobs: str) -> None:
    result = simulate("--seeds", "15", "--first-seed", "1", "--jobs", jobs)
    assert result.exit_code == ExitCode.INTERNAL
    lines = result.stdout.splitlines()
    assert [line for line in lines if line.startswith("seed ")] == [
        f"seed {seed} failed: NothingLost: event {seed} was acknowledged and is gone  "
        f"[unimeter simulate --seed {seed}]"
        for seed in (7, 14)
    ]
    assert re.fullmatch(
        r"FAILED  of 15 seeds from 1: 7, 14  \(.*\)  unimeter simulate --seed 7", last_line(result)
    )


def test_a_sweep_without_a_first_seed_draws_it_and_says_it() -> None:
    firsts = [simulate("--seeds", "1").stdout.splitlines()[0] for _ in range(2)]
    assert all(re.fullmatch(r"seeds from \d+ on", first) for first in firsts)
    assert firsts[0] != firsts[1]


def test_until_failure_stops_at_it() -> None:
    result = simulate("--until-failure", "--first-seed", "1")
    assert result.exit_code == ExitCode.INTERNAL
    assert "7 seeds: 6 passed, 1 failed" in result.stdout


def test_minutes_end_an_endless_sweep_whose_command_is_exact() -> None:
    result = simulate("--minutes", "0.002", "--first-seed", "5", run=stand_ins.passes)
    assert result.exit_code == 0
    count = re.search(r"PASSED  ([\d,]+) seeds", last_line(result))
    assert count is not None
    assert last_line(result).endswith(f"--first-seed 5 --seeds {count[1].replace(',', '')}")


def test_a_situation_that_never_occurred_fails_a_long_sweep() -> None:
    result = simulate("--seeds", str(COVERAGE_SEEDS_MIN), run=stand_ins.never_torn)
    assert result.exit_code == ExitCode.INTERNAL
    assert last_line(result).startswith("FAILED  300 seeds from ")
    assert " passed and never came into: torn tail  (" in last_line(result)
    assert simulate("--seeds", "299", run=stand_ins.never_torn).exit_code == 0


def test_ctrl_c_ends_with_the_report_of_what_ran() -> None:
    result = simulate("--seeds", "9", "--first-seed", "1", run=stand_ins.is_interrupted)
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "2 seeds: 2 passed" in result.stdout
    assert last_line(result).startswith("PASSED  2 seeds from 1, interrupted  (")


def test_kept_seeds_run_with_their_own_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, str]] = []

    def run(seed: int, profile: str = "swarm", *, keep: bool = False) -> stand_ins.Result:
        ran.append((seed, profile))
        return stand_ins.passes(seed, profile)

    kept = seeds.parse("5 swarm # a\n6 lite # b\n")
    monkeypatch.setattr("unimeter.cli.simulate_words.kept_seeds", lambda: kept)
    result = simulate("--kept", run=run)
    assert ran == [(5, "swarm"), (6, "lite")]
    assert last_line(result).startswith("PASSED  2 kept seeds  (")
    assert last_line(result).endswith("unimeter simulate --kept")


def test_no_kept_seed_at_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimeter.cli.simulate_words.kept_seeds", list)
    assert simulate("--kept").exit_code == 0


def test_json_is_all_there_is_on_stdout() -> None:
    result = simulate("--seeds", "8", "--first-seed", "1", "--json")
    record = json.loads(result.stdout)
    assert (record["passed"], record["seeds"], record["first_seed"]) == (False, 8, 1)
    assert result.stderr.splitlines()[-1].startswith("FAILED  of 8 seeds from 1: 7 ")
    one = json.loads(simulate("--seed", "7", "--json").stdout)
    assert (one["passed"], one["seed"], one["faults"]["kill"]) == (False, 7, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "1", "--seeds", "2"], "--seed is one run"),
        (["--seed", "1", "--first-seed", "2"], "--seed is one run"),
        (["--seed", "1", "--kept"], "--seed is one run"),
        (["--seed", "1", "--minutes", "2"], "--seed is one run"),
        (["--trace", "--seeds", "2"], "--trace and --html tell one run"),
        (["--html", "x.html", "--until-failure"], "--trace and --html tell one run"),
        (["--trace", "--json"], "does not go with --json"),
        (["--kept", "--seeds", "2"], "each with its own profile"),
        (["--kept", "--profile", "lite"], "each with its own profile"),
        (["--first-seed", "2"], "give --seeds COUNT too"),
        (["--jobs", "2"], "--jobs is for many seeds"),
        (["--seed", "-1"], "-1"),
        (["--seeds", "0"], "0"),
        (["--minutes", "0"], "0"),
        (["--jobs", "0"], "0"),
        (["--profile", "hard"], "'hard'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = simulate(*arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
