"""``unimeter simulate``: a whole cluster in one thread, from one integer, checked.

One run, or many; what runs and what is checked is `unimeter.sim`. This module chooses
the seeds, shows how far they are, and ends with one line that says how it went and how
to see it again. A test hands another `run_seed` in through ``ctx.obj`` (a `Runner`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.output import say
from unimeter.cli.simulate_words import Choice, ending_of, ending_of_one, lines_of_one, release
from unimeter.sim.result import PROFILES

if TYPE_CHECKING:
    from unimeter.sim.report import Report
    from unimeter.sim.result import Result
    from unimeter.sim.worker import RunSeed

EPILOG = """\b
Examples:
  unimeter simulate
  unimeter simulate --seed 4711 --trace
  unimeter simulate --seed 4711 --html run.html
  unimeter simulate --seeds 1000 --jobs 2
  unimeter simulate --minutes 30 --jobs 2 --until-failure
  unimeter simulate --kept

The same seed is the same run, wherever it runs. Exit code 0 says that every
promise was kept in every run; code 1 that one was not, or that a long sweep
never came into a situation it must come into.
"""


@dataclass(frozen=True)
class Runner:
    """What runs a seed, where it is not the simulator itself."""

    run: RunSeed


@click.command(epilog=EPILOG)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), metavar="N", help="Run this one seed.")
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="COUNT", help="Run so many seeds, not just one."
)
@click.option(
    "--first-seed",
    type=click.IntRange(0, 2**63),
    metavar="N",
    help="The first of many seeds; the others follow it.  [default: a fresh one]",
)
@click.option("--kept", is_flag=True, help="Run the seeds that once failed.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="Run new seeds for so long.",
)
@click.option("--until-failure", is_flag=True, help="Run until a seed fails.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="COUNT",
    help="How many seeds run at once, each in a process of its own.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    help="swarm: each seed draws its faults (the default); lite: few faults; soak: long runs.",
)
@click.option("--trace", is_flag=True, help="Print the story of the run.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the story of the run as a page, with a picture.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    seed: int | None,
    seeds: int | None,
    first_seed: int | None,
    kept: bool,
    minutes: float | None,
    until_failure: bool,
    jobs: int,
    profile: str | None,
    trace: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Run a whole cluster on a fake clock, disk and network, and check every promise.

    Clients, nodes and disks are the real code in one thread; messages are lost, disks
    rot, nodes die, as the seed decides. Without options one fresh seed is run.
    """
    choice = Choice(seed, seeds, first_seed, kept, minutes, until_failure, jobs, profile)
    choice.check(story=trace or html is not None, as_json=as_json and trace)
    run = ctx.obj.run if isinstance(ctx.obj, Runner) else None
    if choice.is_many:
        report = _many(choice, run, as_json)
        ctx.exit(_code(report.passed, report.interrupted))
    result = _one(choice, run, trace, html, as_json)
    ctx.exit(_code(result.passed))


def _code(passed: bool, interrupted: bool = False) -> ExitCode:
    if not passed:
        return ExitCode.INTERNAL
    return ExitCode.INTERRUPTED if interrupted else ExitCode.OK


def _one(
    choice: Choice, run: RunSeed | None, trace: bool, html: Path | None, as_json: bool
) -> Result:
    """One run, without a limit of time: somebody may be stepping through it."""
    from unimeter.sim.report import failure_record
    from unimeter.sim.seeds import fresh_seed
    from unimeter.sim.worker import Task, real_run, run_task

    tell = say if as_json else click.echo
    task = Task(fresh_seed() if choice.seed is None else choice.seed, choice.profile_or_default)
    tell(f"seed {task.seed}")
    result = run_task(run or real_run(), task, None, keep=trace or html is not None)
    if trace:
        _print_story(result)
    if html is not None:
        _write_page(result, html)
    for line in lines_of_one(result):
        tell(line)
    if as_json:
        record = {"passed": result.passed, **failure_record(result), "options": result.options}
        click.echo(json.dumps(record | {"faults": result.faults, "reached": result.reached}))
    tell(ending_of_one(result))
    return result


def _print_story(result: Result) -> None:
    from unimeter.sim.trace import trace_lines

    for line in trace_lines(result):
        click.echo(line)
    click.echo("")


def _write_page(result: Result, path: Path) -> None:
    from unimeter.sim.page import page

    path.write_text(page(result, release()), encoding="utf-8")
    say(f"wrote {path}")


def _many(choice: Choice, run: RunSeed | None, as_json: bool) -> Report:
    """A sweep: the first seed, a bar, a line per failure as it comes, the report, the verdict."""
    from unimeter.cli.simulate_bar import seed_bar
    from unimeter.sim.sweep import sweep_tasks

    tell = say if as_json else click.echo
    tasks, first_seed = choice.tasks()
    tell("the kept seeds" if first_seed is None else f"seeds from {first_seed} on")
    with seed_bar(choice.count, choice.minutes, tell) as bar:
        report = sweep_tasks(
            tasks,
            choice.jobs,
            until_failure=choice.until_failure,
            minutes=choice.minutes,
            on_result=bar.count,
            run=run,
            limit_seconds=choice.limit_seconds,
        )
    if bar.is_shown:  # what went by above it is on another stream, or scrolled away
        for line in report.failing_lines():
            tell(line)
    for line in report.lines():
        tell(line)
    if as_json:
        click.echo(json.dumps(report.record() | {"first_seed": first_seed}, indent=2))
    tell(ending_of(report, choice, first_seed))
    return report
