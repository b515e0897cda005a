"""A whole run: the same in every process, another for every seed, and it passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unimeter.sim import run as run_module
from unimeter.sim.chance import Chance
from unimeter.sim.failures import CheckFailed
from unimeter.sim.faults import Faults
from unimeter.sim.options import FAULTS, Options, draw
from unimeter.sim.result import PROFILES
from unimeter.sim.run import run_seed
from unimeter.sim.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 12  # of profile lite: of all sizes of cluster, and of most faults
ONCE_FAILED = (2, 53, 133, 164)  # of profile swarm, when they were first run


def started(**variables: str) -> subprocess.Popen[str]:
    """The hashes of the seeds, on their way."""
    command = [sys.executable, "-m", "tests.sim.hashes", "lite", "1", str(SEEDS)]
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    output, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    kind, *lines = output.splitlines()
    assert len(lines) == SEEDS
    return kind, lines


def test_a_seed_is_the_same_run_in_another_process_with_other_hashes_and_other_kernels() -> None:
    processes = [
        started(PYTHONHASHSEED="1", UNIMETER_PURE=""),
        started(PYTHONHASHSEED="4711", UNIMETER_PURE="1"),
    ]
    try:
        (_, lines), (other_kind, other_lines) = (ended(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert other_kind == "interpreted"
    assert lines == other_lines
    assert all(line.split()[1] == "True" for line in lines), lines
    assert len({line.split()[0] for line in lines}) == SEEDS, "another seed is another run"


def test_whether_the_story_is_kept_and_what_ran_before_changes_nothing() -> None:
    seed = 3
    first = run_seed(seed, "lite")
    kept = run_seed(seed, "lite", keep=True)
    assert kept.trace_hash == first.trace_hash and kept.passed
    assert not first.happenings and len(kept.happenings) > 1000
    times = [one.time_ns for one in kept.happenings]
    assert times == sorted(times)
    kinds = {one.kind for one in kept.happenings}
    assert {"start", "ready", "call", "reply", "commit", "send", "deliver", "heal"} <= kinds
    assert run_seed(seed, "swarm").trace_hash != first.trace_hash
    assert kept.requests > 0 and kept.entries > 0 and kept.virtual_seconds > 1


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_seeds_that_once_failed_pass(seed: int) -> None:
    result = run_seed(seed)
    assert result.passed, f"{result.command}: {result.checker}: {result.failure}"


@pytest.mark.parametrize(
    ("error", "checker"),
    [(CheckFailed("Planted", "a promise"), "Planted"), (KeyError("a defect"), "KeyError")],
)
def test_what_a_run_finds_is_a_result_and_no_exception(
    monkeypatch: pytest.MonkeyPatch, error: Exception, checker: str
) -> None:
    def broken(world: World) -> None:
        raise error

    monkeypatch.setattr(run_module.World, "run", broken)
    result = run_seed(1, "lite", keep=True)
    assert not result.passed and result.checker == checker
    assert ("a promise" if checker == "Planted" else "Traceback") in result.failure
    assert result.happenings[-1].kind == "failed" and result.trace_hash


# --- what is drawn -------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_options_are_drawn_from_the_seed_alone_and_described(profile: str) -> None:
    described = []
    for seed in range(60):
        options = draw(profile, Chance(seed))
        assert options.described() == draw(profile, Chance(seed)).described()
        assert options.described()["profile"] == profile
        assert options.described()["nodes"] == str(options.nodes)
        assert set(options.described()) == set(vars(options)) == set(vars(Options()))
        described.append(str(options.described()))
    assert len(set(described)) == 60
    assert {draw(profile, Chance(seed)).nodes for seed in range(60)} == {1, 3, 5}


def test_every_fault_can_be_drawn_and_done_and_a_seed_lacks_most() -> None:
    assert all(callable(getattr(Faults, f"_{name}", None)) for name in FAULTS)
    drawn = [draw("swarm", Chance(seed)).faults for seed in range(200)]
    assert {name for faults in drawn for name in faults} == set(FAULTS)
    assert sum(map(len, drawn)) / len(drawn) < 0.6 * len(FAULTS)


def test_a_run_tells_what_was_drawn_for_it() -> None:
    result = run_seed(5, "lite")
    options = draw("lite", Chance(5).fork("options"))
    assert result.options == options.described() and result.nodes == options.nodes
