"""``unimeter verify``: is this data directory whole, and are its totals right?

Needs no node and changes nothing. The storage does the work; this module shows
how far it is and turns the report into words and an exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.options import form_options
from unimeter.cli.output import Form, say, write_record

Progress = Callable[[str, int, int], None]

EPILOG = """\b
Examples:
  unimeter verify ./unimeter-data
  unimeter verify /backup/unimeter --json
  unimeter verify ./unimeter-data --at 40960

Exit code 0 says that every checksum is right, every snapshot is what the log
leads to, and every total is what the stored events add up to. Code 8 says that
something differs, and each difference is a line on stderr.
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--at",
    "at_index",
    type=click.IntRange(min=1),
    metavar="INDEX",
    help="Count up to this entry of the log, to compare the states of two nodes; "
    "without it, up to the last one known to be committed.",
)
@form_options
@click.pass_context
def command(ctx: click.Context, /, directory: str, at_index: int | None, form: Form) -> None:
    """Check a data directory and recompute its totals from the stored events."""
    from unimeter.storage.verify import verify

    with progress_bar() as progress:
        report = verify(directory, progress, at_index=at_index)
    for note in report.notes:
        say(f"note: {note}")
    for problem in report.problems:
        say(f"problem: {problem}")
    write_record(
        {
            "directory": report.path,
            "verdict": "ok" if report.ok else "different",
            "entries": report.entries,
            "events": report.events,
            "totals": report.totals,
            "snapshots": report.snapshots,
            "segments": report.segments,
            "bytes": report.bytes,
            "last_index": report.last_index,
            "index": report.index,
            "term": report.term,
            "state_hash": report.state_hash,
            "problems": len(report.problems),
        },
        form,
    )
    if not report.ok:
        ctx.exit(ExitCode.DIFFERENT)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr per stage where someone looks; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield advance
