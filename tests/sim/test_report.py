"""The report of a sweep: sums, the verdict, and the situations that must occur."""

from __future__ import annotations

import json
import pickle

from tests.sim import stand_ins

from unimeter.sim.coverage import COVERAGE_SEEDS_MIN, MUST_HAPPEN
from unimeter.sim.report import FAILURES_LISTED_MAX, Report, duration, first_line
from unimeter.sim.worker import RunSeed


def report_of(run: RunSeed, seeds: int, profile: str = "swarm") -> Report:
    report = Report(jobs=2)
    for seed in range(1, seeds + 1):
        report.add(run(seed, profile))
    report.wall_seconds = 36.0
    return report


def test_sums_and_speed_are_in_the_words() -> None:
    words = "\n".join(report_of(stand_ins.passes, 20).lines())
    assert "20 seeds: 20 passed, 0 failed" in words
    assert (
        "2,000 client calls, 800 entries committed, 6 min 40 s of virtual time in 36.0 s" in words
    )
    assert "1,000 seeds per hour per core (2 processes)" in words
    assert "  40  kill\n" in words
    assert f"(situations are judged from {COVERAGE_SEEDS_MIN} seeds on)" in words


def test_each_failing_seed_is_one_line_with_checker_reason_and_command() -> None:
    report = report_of(stand_ins.sometimes_fails, 20, "lite")
    assert list(report.failing_lines()) == [
        f"seed {seed} failed: NothingLost: event {seed} was acknowledged and is gone  "
        f"[unimeter simulate --seed {seed} --profile lite]"
        for seed in (7, 14)
    ]
    assert not report.passed


def test_more_failures_than_anybody_reads_are_counted() -> None:
    report = Report()
    for _ in range(FAILURES_LISTED_MAX + 3):
        report.add(stand_ins.sometimes_fails(7))
    lines = list(report.failing_lines())
    assert (len(lines), lines[-1]) == (FAILURES_LISTED_MAX + 1, "... and 3 more")


def test_a_situation_that_never_occurred_fails_a_long_sweep_only() -> None:
    report = report_of(stand_ins.never_torn, COVERAGE_SEEDS_MIN - 1)
    assert (report.passed, report.missing) == (True, [])
    report.add(stand_ins.never_torn(9999))
    assert (report.passed, report.missing) == (False, ["torn tail"])
    assert f"  torn tail: {MUST_HAPPEN['torn tail']}" in list(report.lines())
    report.add(stand_ins.passes(10_000))
    assert (report.passed, report.missing) == (True, [])


def test_every_situation_is_listed_with_its_count_also_at_nought() -> None:
    report = report_of(stand_ins.never_torn, 12)
    counts = {line.strip() for line in report.lines()}
    assert "0  torn tail" in counts
    assert {f"12  {name}" for name in MUST_HAPPEN if name != "torn tail"} <= counts


def test_seeds_with_few_faults_are_not_judged_by_situations() -> None:
    report = report_of(stand_ins.never_torn, COVERAGE_SEEDS_MIN + 5, "lite")
    assert (report.passed, report.missing) == (True, [])


def test_a_situation_nobody_demands_is_listed_too() -> None:
    result = stand_ins.passes(1)
    result.reached["a rare bird"] = 3
    report = Report()
    report.add(result)
    assert report.also_reached() == {"a rare bird": 3}
    assert "also reached:" in list(report.lines())


def test_the_record_is_json_and_says_what_the_words_say() -> None:
    record = json.loads(json.dumps(report_of(stand_ins.sometimes_fails, 20).record()))
    assert (record["passed"], record["seeds"], record["failed"]) == (False, 20, 2)
    assert record["must_happen"]["torn tail"] == 20
    assert record["failures"][0]["command"] == "unimeter simulate --seed 7"
    assert record["failures"][0]["failure"].endswith("a second line")


def test_a_report_keeps_no_story() -> None:
    report = Report()
    report.add(stand_ins.sometimes_fails(7, keep=True))
    assert report.failures[0].happenings == []


def test_a_result_can_be_sent_to_another_process() -> None:
    result = stand_ins.sometimes_fails(7, keep=True)
    assert pickle.loads(pickle.dumps(result)) == result


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0.04, 59.94, 61, 3599.6, 7380)] == [
        "0.0 s", "59.9 s", "1 min 1 s", "1 h 0 min", "2 h 3 min",
    ]  # fmt: skip


def test_a_failure_is_told_by_its_first_line_and_a_traceback_by_its_last() -> None:
    assert first_line("event 7 is gone\nand more") == "event 7 is gone"
    trace = 'Traceback (most recent call last):\n  File "x"\nAssertionError: 1 == 2\n'
    assert first_line(trace) == "AssertionError: 1 == 2"
    assert first_line("") == "(no words)"
