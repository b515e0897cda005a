"""``unimeter audit``: who changed what, and who tried to.

The trail is part of the replicated log, so every node tells the same one. It names keys by their
ids, which are never used twice. A cluster keeps the newest few thousand lines; ``--before`` goes
on behind the last one of a page.
"""

from __future__ import annotations

import click

from unimeter import limits
from unimeter.cli.connection import open_client
from unimeter.cli.options import form_options, server_options
from unimeter.cli.output import Form, Sheet, write_sheet
from unimeter.control import AUDIT_COLUMNS, AuditRecord

EPILOG = """\b
Examples:
  unimeter audit
  unimeter audit --limit 1000 --csv > trail.csv
  unimeter audit --before 120733
  unimeter audit --ndjson | jq -r 'select(.result != "done")'

KEY is empty where nobody showed a key. RESULT is "done", or why the attempt was refused.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--limit", type=click.IntRange(1, limits.AUDIT_RECORDS_MAX), default=100, show_default=True,
    metavar="N", help="How many lines.",
)  # fmt: skip
@click.option(
    "--before", type=click.IntRange(0), default=0, metavar="INDEX",
    help="Only lines of log entries before this one.  [default: from the newest on]",
)  # fmt: skip
@server_options
@form_options
@click.pass_context
def command(ctx: click.Context, /, limit: int, before: int, form: Form, **_: object) -> None:
    """List changes of keys, webhooks and metrics, newest first."""
    with open_client(ctx) as client:
        records = client.audit(limit=limit, before=before)
    write_sheet(
        Sheet(AUDIT_COLUMNS, map(AuditRecord.cells, records), "nothing was changed yet"), form
    )
