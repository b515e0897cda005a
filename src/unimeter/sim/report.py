"""What a sweep came to: totals, failing seeds, and the situations it went through.

Owns the verdict. A sweep passes if every seed passed and, once it has enough seeds to be
judged by `coverage`, every situation that must happen has happened. Keeps the failing
results and sums of the others, so that a sweep of any length fits into memory.

Refuses to print: `lines` are for whoever shows them, `record` is the same as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from unimeter.sim.coverage import COVERAGE_SEEDS_MIN, JUDGED_PROFILES, MUST_HAPPEN
from unimeter.sim.result import Result

FAILURES_LISTED_MAX = 50
"""Failing seeds that are listed one by one; if there are more, a defect is everywhere."""


@dataclass
class Report:
    """The sums over results so far."""

    jobs: int = 1
    seeds: int = 0
    judged_seeds: int = 0  # of profiles in which everything must come up
    requests: int = 0
    entries: int = 0
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0  # of the whole sweep
    interrupted: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one seed."""
        self.seeds += 1
        self.judged_seeds += result.profile in JUDGED_PROFILES
        self.requests += result.requests
        self.entries += result.entries
        self.virtual_seconds += result.virtual_seconds
        self.faults.update(result.faults)
        self.reached.update(result.reached)
        if not result.passed:
            result.happenings = []  # a story is made anew from the seed
            self.failures.append(result)

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.failures and not self.missing

    @property
    def is_judged(self) -> bool:
        """Whether it is long enough for `missing` to mean something."""
        return self.judged_seeds >= COVERAGE_SEEDS_MIN

    @property
    def missing(self) -> list[str]:
        """Situations that never occurred and should have."""
        if not self.is_judged:
            return []
        return [situation for situation in MUST_HAPPEN if not self.reached[situation]]

    @property
    def seeds_per_hour_per_core(self) -> float:
        """The speed, of the time that passed: starting processes is in it."""
        spent = self.wall_seconds * self.jobs
        return self.seeds * 3600 / spent if spent else 0.0

    def lines(self) -> Iterator[str]:
        """The report in words; `failing_lines` are the seeds that failed."""
        yield (
            f"{self.seeds:,} seeds: {self.seeds - len(self.failures):,} passed, "
            f"{len(self.failures):,} failed"
        )
        yield (
            f"{self.requests:,} client calls, {self.entries:,} entries committed, "
            f"{duration(self.virtual_seconds)} of virtual time in {duration(self.wall_seconds)}"
        )
        yield (
            f"{self.seeds_per_hour_per_core:,.0f} seeds per hour per core "
            f"({self.jobs} process{'es' if self.jobs > 1 else ''})"
        )
        yield from _counts("faults", dict(sorted(self.faults.items())))
        yield from _counts("situations that must occur", self.must_happen())
        yield from _counts("also reached", self.also_reached())
        if self.missing:
            yield f"never occurred in {self.judged_seeds:,} seeds, and must: "
            yield from (f"  {situation}: {MUST_HAPPEN[situation]}" for situation in self.missing)
        elif not self.is_judged:
            yield f"(situations are judged from {COVERAGE_SEEDS_MIN} seeds on)"

    def failing_lines(self) -> Iterator[str]:
        """One line per seed that failed."""
        for result in self.failures[:FAILURES_LISTED_MAX]:
            yield failure_line(result)
        if len(self.failures) > FAILURES_LISTED_MAX:
            yield f"... and {len(self.failures) - FAILURES_LISTED_MAX:,} more"

    def must_happen(self) -> dict[str, int]:
        """Each situation that must occur, with its count."""
        return {situation: self.reached[situation] for situation in MUST_HAPPEN}

    def also_reached(self) -> dict[str, int]:
        """Situations nobody demands."""
        return {
            name: count for name, count in sorted(self.reached.items()) if name not in MUST_HAPPEN
        }

    def record(self) -> dict[str, object]:
        """The report for a program."""
        return {
            "passed": self.passed,
            "interrupted": self.interrupted,
            "seeds": self.seeds,
            "failed": len(self.failures),
            "requests": self.requests,
            "entries": self.entries,
            "virtual_seconds": round(self.virtual_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "jobs": self.jobs,
            "seeds_per_hour_per_core": round(self.seeds_per_hour_per_core),
            "faults": dict(sorted(self.faults.items())),
            "must_happen": self.must_happen(),
            "also_reached": self.also_reached(),
            "missing": self.missing,
            "failures": [failure_record(result) for result in self.failures],
        }


def failure_line(result: Result) -> str:
    """Seed, checker, first line of the failure, and what reproduces it."""
    return (
        f"seed {result.seed} failed: {result.checker}: {first_line(result.failure)}  "
        f"[{result.command}]"
    )


def failure_record(result: Result) -> dict[str, object]:
    """One failing seed for a program."""
    return {
        "seed": result.seed,
        "profile": result.profile,
        "checker": result.checker,
        "failure": result.failure,
        "trace_hash": result.trace_hash,
        "command": result.command,
    }


def first_line(text: str) -> str:
    """The line that says most: the first, or of a traceback the last."""
    lines = text.strip().splitlines() or ["(no words)"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def duration(seconds: float) -> str:
    """A time for people: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _counts(title: str, counts: dict[str, int]) -> Iterator[str]:
    """Names and counts, aligned."""
    if not counts:
        return
    yield f"{title}:"
    digits = max(len(f"{count:,}") for count in counts.values())
    for name, count in counts.items():
        yield f"  {count:>{digits},}  {name}"
