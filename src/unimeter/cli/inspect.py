"""``unimeter inspect``: a data directory explained record by record.

Needs no node and changes nothing. Rows come in the order in which a start
reads them; a damaged place is a row too, so that what lies behind it is seen.
"""

from __future__ import annotations

import click

from unimeter.cli.options import form_options
from unimeter.cli.output import Form, Sheet, write_lines, write_sheet

COLUMNS = ("file", "offset", "what", "detail")

EPILOG = """\b
Examples:
  unimeter inspect ./unimeter-data
  unimeter inspect ./unimeter-data --events --from-index 1200 | less
  unimeter inspect ./unimeter-data --ndjson | jq 'select(.what == "damage")'
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--events", is_flag=True, help="Every event of every entry too.")
@click.option(
    "--from-index",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="INDEX",
    help="Leave out log entries before this index.",
)
@form_options
def command(directory: str, events: bool, from_index: int, form: Form) -> None:
    """Explain a data directory record by record."""
    from unimeter.storage.inspect import inspect

    found = inspect(directory, events=events, from_index=from_index)
    rows = ((row.file, row.offset, row.what, row.detail) for row in found)
    if form == "table":
        write_lines(COLUMNS, rows, form)
    else:
        write_sheet(Sheet(COLUMNS, rows), form)
