"""Many seeds: every way a run can go wrong is a failing seed, and the sweep goes on."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Iterator

import pytest
from tests.sim import stand_ins

from unimeter.sim import sweep as sweep_module
from unimeter.sim import worker as worker_module
from unimeter.sim.result import Result
from unimeter.sim.sweep import sweep, sweep_tasks
from unimeter.sim.worker import RunSeed, Task

LIMIT = 1.0


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_seed_is_run_once_and_counted(jobs: int) -> None:
    seen: list[int] = []
    report = sweep(
        range(1, 16),
        jobs=jobs,
        on_result=lambda result: seen.append(result.seed),
        run=stand_ins.sometimes_fails,
    )
    assert sorted(seen) == list(range(1, 16))
    assert (report.seeds, report.requests, report.faults["kill"]) == (15, 1500, 30)
    assert sorted(result.seed for result in report.failures) == [7, 14]
    assert (report.passed, report.interrupted, report.wall_seconds > 0) == (False, False, True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_until_failure_stops_handing_out_seeds(jobs: int) -> None:
    report = sweep(itertools.count(1), jobs=jobs, until_failure=True, run=stand_ins.sometimes_fails)
    assert [result.seed for result in report.failures] == [7]
    assert 7 <= report.seeds < 7 + jobs + 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_minutes_end_an_endless_sweep(jobs: int) -> None:
    report = sweep(itertools.count(1), jobs=jobs, minutes=0.02, run=stand_ins.passes)
    assert report.passed
    assert report.wall_seconds >= 1.2


@pytest.mark.parametrize("jobs", [1, 2])
def test_seeds_are_handed_out_in_order(jobs: int) -> None:
    seen: list[int] = []
    sweep(
        itertools.count(100),
        jobs=jobs,
        minutes=0.02,
        on_result=lambda result: seen.append(result.seed),
        run=stand_ins.passes,
    )
    assert sorted(seen) == list(range(100, 100 + len(seen)))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_let_out_is_a_failing_seed_with_the_place(jobs: int) -> None:
    report = sweep(range(1, 6), jobs=jobs, run=stand_ins.lets_an_exception_out)
    (failed,) = report.failures
    assert (report.seeds, failed.seed, failed.checker) == (5, 3, "uncaught exception")
    assert failed.failure.splitlines()[0] == "ZeroDivisionError: nothing to divide by"
    assert "in lets_an_exception_out" in failed.failure


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_hangs_is_a_failing_seed_with_the_place(jobs: int) -> None:
    report = sweep(range(1, 6), jobs=jobs, run=stand_ins.hangs, limit_seconds=LIMIT)
    (failed,) = report.failures
    assert (report.seeds, failed.seed, failed.checker) == (5, 3, "time limit")
    assert failed.failure.startswith("still running after 1 s, here:\n")
    assert "in hangs" in failed.failure


def test_a_run_that_hangs_and_hears_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "GRACE_SECONDS", 2.0)
    report = sweep(range(1, 6), jobs=2, run=stand_ins.hangs_deaf, limit_seconds=LIMIT)
    (failed,) = report.failures
    assert (report.seeds, failed.seed, failed.checker) == (5, 3, "worker process")
    assert failed.failure == "its process did not answer for 3 s"


def test_a_run_that_takes_its_process_with_it_is_a_failing_seed() -> None:
    report = sweep(range(1, 9), jobs=2, run=stand_ins.kills_its_process)
    reasons = {result.seed: result.failure for result in report.failures}
    assert report.seeds == 8
    assert reasons == {
        3: "its process died: killed by SIGSEGV",
        5: "its process died: it exited with 17",
    }


def test_ctrl_c_ends_with_the_report_of_what_ran() -> None:
    report = sweep(itertools.count(1), jobs=1, run=stand_ins.is_interrupted)
    assert (report.interrupted, report.seeds) == (True, 2)


def test_ctrl_c_while_workers_run_leaves_none_of_them() -> None:
    def interrupt(result: Result) -> None:
        signal.raise_signal(signal.SIGINT)

    # Whoever runs the tests may have been started in the background, where Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = sweep(itertools.count(1), jobs=2, on_result=interrupt, run=stand_ins.passes)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (report.interrupted, report.seeds) == (True, 1)


def test_each_task_runs_with_its_own_profile() -> None:
    seen: list[tuple[int, str]] = []
    sweep_tasks(
        [Task(1, "lite"), Task(2, "soak"), Task(3)],
        on_result=lambda result: seen.append((result.seed, result.profile)),
        run=stand_ins.passes,
    )
    assert seen == [(1, "lite"), (2, "soak"), (3, "swarm")]


def test_a_process_is_replaced_after_a_number_of_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "SEEDS_PER_WORKER", 2)
    started: list[int] = []
    make = sweep_module._Worker

    def counted(run: RunSeed, limit: float) -> sweep_module._Worker:
        started.append(1)
        return make(run, limit)

    monkeypatch.setattr(sweep_module, "_Worker", counted)
    assert sweep(range(1, 9), jobs=2, run=stand_ins.passes).seeds == 8
    assert len(started) in (4, 5)  # the last two may have one seed each


def test_an_alarm_of_somebody_else_goes_on_afterwards() -> None:
    old = signal.setitimer(signal.ITIMER_REAL, 50.0)
    try:
        worker_module.run_task(stand_ins.passes, Task(1), LIMIT)
        assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, *old)
