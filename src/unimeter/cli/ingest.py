"""``unimeter ingest``: the options, the bar and the summary of `file_run`.

Files are taken in the order given, each from where an earlier run left it. A
run that ends early (a bad line, Ctrl-C, no node) leaves progress behind and says
how to go on. The summary of what became of the lines is data, on stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import click

from unimeter.cli import moments
from unimeter.cli.connection import open_client
from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.fields import Fields
from unimeter.cli.file_run import BATCH_EVENTS, STDIN, FileRun, Plan
from unimeter.cli.options import (
    PAIR,
    form_options,
    parse_account,
    scale_option,
    server_options,
    zone_option,
)
from unimeter.cli.output import Form, Sheet, say, write_sheet
from unimeter.cli.pipe import Pipe
from unimeter.errors import InvalidInputError, UnimeterError
from unimeter.limits import EVENTS_PER_BATCH_MAX

COLUMNS = ("file", "lines", "stored", "duplicates", "refused", "skipped")

EPILOG = """\b
Examples:
  unimeter ingest usage.csv
  unimeter ingest calls.ndjson --on-error skip --rejects bad.ndjson
  tail -f calls.ndjson | unimeter ingest -
  unimeter ingest trace.csv --metric tokens --account 7 --property kind=context \\
      --column timestamp=TIMESTAMP --column value=ContextTokens --ignore GeneratedTokens

\b
A CSV file has a head; an NDJSON file has one object per line:
  account,metric,value,timestamp,model
  42,tokens,380,2026-11-05T10:30:00Z,large
  {"account": 42, "metric": "tokens", "value": 380, "properties": {"model": "large"}}

Fields: account (or account_id), metric (metric_code), value (1 if there is no
such column), timestamp (time), operation (none, add, remove), id, properties
(tags). Other CSV columns are properties of that name; other NDJSON names are
refused.

Run the same command again after an interruption: it goes on where it stopped.
FILE.unimeter-progress remembers how far; a line without an id gets one made
from the file's content and its line number, so a line sent twice is counted
once. Without a progress file that holds for 35 days and for an unchanged file.
Lines read from stdin have no such identity: give --name NAME, or ids.
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "ndjson"]),
    help="Of the files.  [default: by name, or by the first character]",
)
@click.option(
    "--delimiter", metavar="CHAR", help="Between CSV cells.  [default: , and tab in .tsv]"
)
@click.option("--account", metavar="ACCOUNT", help="The account of lines that name none.")
@click.option("--metric", metavar="CODE", help="The metric of lines that name none.")
@click.option("--timestamp", metavar="TIME", help="The time of lines that have none.")
@click.option("--property", "properties", type=PAIR, multiple=True, help="A tag for every line.")
@click.option(
    "--column", "columns", type=PAIR, multiple=True, metavar="FIELD=NAME",
    help="The column that holds a field, where it is called otherwise.",
)  # fmt: skip
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="A column to drop; * for all that are no field."
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Stop at a line that can't be counted, or name it and go on.",
)
@click.option(
    "--rejects", type=click.File("wb"), metavar="PATH", help="Write lines that were skipped here."
)
@click.option(
    "--restart", is_flag=True, help="From the first line, as a new file if its content changed."
)
@click.option(
    "--name", default="", metavar="NAME", help="Makes up the ids together with line numbers."
)
@click.option(
    "--progress-file", type=click.Path(path_type=Path, dir_okay=False), metavar="PATH",
    help="Instead of FILE.unimeter-progress.",
)  # fmt: skip
@click.option("--no-progress-file", is_flag=True, help="Rely on event ids alone.")
@click.option("--dry-run", is_flag=True, help="Read and check every line; send nothing.")
@click.option(
    "--batch",
    type=click.IntRange(1, EVENTS_PER_BATCH_MAX),
    default=BATCH_EVENTS,
    show_default=True,
    metavar="EVENTS",
    help="Events per request.",
)
@scale_option
@zone_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context, /, files: tuple[str, ...], form: Form, dry_run: bool, **_: object
) -> None:
    """Send events from CSV or NDJSON files; - is stdin.

    Every line is counted once or named on stderr with what to do about it; exit
    code 5 says that some were named.
    """
    plan = _plan(ctx)
    rows: list[tuple[object, ...]] = []
    complete = True
    with ExitStack() as stack:
        meter = None if dry_run else stack.enter_context(open_client(ctx))
        if meter is not None:
            plan = replace(plan, target=meter.cluster_id.hex())
        for name in files:
            stream = stack.enter_context(_opened(name))
            run = FileRun(plan, name, stream, meter)
            _run_one(run)
            found = run.counts
            rows.append(
                (name, found.lines, found.stored, found.duplicates, found.refused, found.skipped)
            )
            complete &= not (found.refused or found.skipped or run.stopped_at)
            if run.stopped_at:
                break
    write_sheet(Sheet(COLUMNS, rows), form)
    if not complete:
        ctx.exit(ExitCode.NOT_COUNTED)


def _plan(ctx: click.Context) -> Plan:
    """The options as one plan; refuses those that contradict each other."""
    chosen = ctx.params
    files: tuple[str, ...] = chosen["files"]
    if len(files) > 1 and (chosen["progress_file"] or chosen["name"]):
        raise InvalidInputError("--progress-file and --name are for one file; run one at a time")
    zone = moments.parse_zone(chosen["zone"])
    account, moment = chosen["account"], chosen["timestamp"]
    fields = Fields(
        columns=dict(chosen["columns"]),
        ignored=frozenset(chosen["ignore"]),
        account=None if account is None else parse_account(account),
        metric=chosen["metric"],
        properties=dict(chosen["properties"]),
        decimals=chosen["scale"],
        zone=zone,
        begun_ns=moments.parse_instant(moment, zone) if moment else 0,
    )
    return Plan(
        fields=fields,
        form=chosen["file_format"],
        delimiter=_delimiter(chosen["delimiter"]),
        stops=chosen["on_error"] == "stop",
        restarts=chosen["restart"],
        name=chosen["name"],
        progress_path=chosen["progress_file"],
        keeps_progress=not chosen["no_progress_file"],
        rejects=chosen["rejects"],
        batch_events=chosen["batch"],
    )


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    character = "\t" if given in ("tab", "\\t") else given
    if len(character) != 1 or character in '"\r\n':
        raise InvalidInputError(f"--delimiter must be one character or 'tab', not {given!r}")
    return character


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO | Pipe]:
    """The bytes of a file, or of stdin."""
    if name == STDIN:
        yield Pipe(sys.stdin.fileno())
        return
    if Path(name).is_dir():
        raise InvalidInputError(f"{name} is a directory; name its files")
    if not Path(name).exists():
        raise FileNotFoundError(f"no file {name}")
    with Path(name).open("rb") as file:
        yield file


def _run_one(run: FileRun) -> None:
    """Run with a bar where someone looks; say how to go on if it ends early."""
    if run.resumed_at:
        say(
            f"{run.label}: going on at line {run.resumed_at}; "
            "the lines before it were acknowledged to an earlier run"
        )
    try:
        with _bar(run) as advance:
            run.run(advance)
    except (KeyboardInterrupt, UnimeterError) as error:
        if isinstance(error, KeyboardInterrupt) or error.retryable:
            say(f"{run.label}: stopped after line {run.progress.line}; run again to go on there")
        raise
    if run.stopped_at:
        say(
            f"{run.label}: stopped; the lines before {run.stopped_at} are answered for. "
            "Mend the cause and run the same command again, or pass --on-error skip"
        )


@contextmanager
def _bar(run: FileRun) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr if it is a terminal; the function moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    size = None if run.name == STDIN else Path(run.name).stat().st_size
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[events]} events"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(run.label, total=size, completed=run.source.offset, events=0)

        def advance() -> None:
            bar.update(task, completed=run.source.offset, events=run.counts.lines)

        yield advance
