"""What ``unimeter simulate`` was asked for, and the words it ends with.

Owns which options go together, which seeds they name, and the last line: PASSED or
FAILED, the seeds, the program, and the command that shows it again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import click

from unimeter.sim.report import Report, duration
from unimeter.sim.result import Result
from unimeter.sim.seeds import fresh_seed, kept_seeds
from unimeter.sim.sweep import LIMIT_SECONDS
from unimeter.sim.worker import Task
from unimeter.version import VERSION

PROFILE_DEFAULT: Final = "swarm"
MANY: Final = "--seeds, --minutes, --until-failure or --kept"

_SEEDS_NAMED_MAX: Final = 5  # in the last line; every one has its line above


@dataclass(frozen=True)
class Choice:
    """The options that say what to run."""

    seed: int | None = None
    seeds: int | None = None
    first_seed: int | None = None
    kept: bool = False
    minutes: float | None = None
    until_failure: bool = False
    jobs: int = 1
    profile: str | None = None

    @property
    def is_many(self) -> bool:
        """Whether it is a sweep."""
        return bool(self.seeds or self.kept or self.minutes or self.until_failure)

    @property
    def profile_or_default(self) -> str:
        """The profile of seeds that have none of their own."""
        return self.profile or PROFILE_DEFAULT

    @property
    def limit_seconds(self) -> float:
        """How long one seed may take."""
        return max(LIMIT_SECONDS.values()) if self.kept else LIMIT_SECONDS[self.profile_or_default]

    @property
    def count(self) -> int | None:
        """How many seeds there are; None if that is up to the time or to luck."""
        return len(kept_seeds()) if self.kept else self.seeds

    def check(self, story: bool, as_json: bool) -> None:
        """Refuse what does not go together; `story`: --trace or --html was given."""
        if self.seed is not None and (self.is_many or self.first_seed is not None):
            raise click.UsageError(f"--seed is one run; it does not go with --first-seed, {MANY}")
        if story and self.is_many:
            raise click.UsageError(
                f"--trace and --html tell one run; they do not go with {MANY}. "
                "Give --seed N, with the N of the line that failed"
            )
        if as_json:
            raise click.UsageError("--trace prints sentences; it does not go with --json")
        if self.kept and (self.seeds or self.first_seed is not None or self.profile):
            raise click.UsageError(
                "--kept runs the seeds of the kept list, each with its own profile; "
                "it does not go with --seeds, --first-seed or --profile"
            )
        if not self.is_many and self.first_seed is not None:
            raise click.UsageError("--first-seed is the first of many; give --seeds COUNT too")
        if not self.is_many and self.jobs > 1:
            raise click.UsageError(f"--jobs is for many seeds; give {MANY}")

    def tasks(self) -> tuple[Iterable[Task], int | None]:
        """What to run, and the first seed if they are numbered from one on."""
        if self.kept:
            return [kept.task for kept in kept_seeds()], None
        first = fresh_seed() if self.first_seed is None else self.first_seed
        numbers = itertools.count(first)
        chosen = itertools.islice(numbers, self.seeds) if self.seeds else numbers
        return (Task(seed, self.profile_or_default) for seed in chosen), first

    def command(self, first_seed: int | None, seeds: int) -> str:
        """What runs the same seeds again."""
        if first_seed is None:
            return "unimeter simulate --kept"
        profile = f" --profile {self.profile}" if self.profile not in (None, "swarm") else ""
        return f"unimeter simulate --first-seed {first_seed} --seeds {seeds}{profile}"


def release() -> str:
    """The program: its version and, in a checkout, the commit."""
    from unimeter.bench.report import SOURCE_ROOT, describe_commit

    in_checkout = (SOURCE_ROOT / "src" / "unimeter").is_dir() and (SOURCE_ROOT / ".git").exists()
    return f"unimeter {VERSION}" + (f", commit {describe_commit()}" if in_checkout else "")


def lines_of_one(result: Result) -> Iterator[str]:
    """What one run was and did."""
    yield from (f"  {name}: {value}" for name, value in result.options.items())
    yield (
        f"{result.nodes} nodes, {result.requests:,} client calls, {result.entries:,} entries "
        f"committed, {duration(result.virtual_seconds)} of virtual time in "
        f"{duration(result.wall_seconds)}"
    )
    for title, counts in (("faults", result.faults), ("situations", result.reached)):
        if counts:
            words = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            yield f"{title}: {words}"
    if result.trace_hash:
        yield f"trace hash {result.trace_hash}"
    if not result.passed:
        yield f"{result.checker}:"
        yield from (f"  {line}" for line in result.failure.splitlines())


def ending_of_one(result: Result) -> str:
    """The last line of one run."""
    verdict = "PASSED" if result.passed else "FAILED"
    return f"{verdict}  seed {result.seed}  ({release()})  {result.command}"


def ending_of(report: Report, choice: Choice, first_seed: int | None) -> str:
    """The last line of a sweep."""
    again = choice.command(first_seed, max(report.seeds, 1))
    program = f"({release()})"
    what = f"{report.seeds:,} {'kept ' if choice.kept else ''}seeds"
    what += "" if first_seed is None else f" from {first_seed}"
    if report.interrupted:
        what += ", interrupted"
    if report.failures:
        named = ", ".join(str(result.seed) for result in report.failures[:_SEEDS_NAMED_MAX])
        more = len(report.failures) - _SEEDS_NAMED_MAX
        named += f" and {more:,} more" if more > 0 else ""
        return f"FAILED  of {what}: {named}  {program}  {report.failures[0].command}"
    if report.missing:
        named = ", ".join(report.missing)
        return f"FAILED  {what} passed and never came into: {named}  {program}  {again}"
    return f"PASSED  {what}  {program}  {again}"
