"""``unimeter members``: who is active in a COUNT_UNIQUE metric at a moment."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from unimeter.cli import moments
from unimeter.cli.connection import open_client
from unimeter.cli.options import ACCOUNT, form_options, server_options, zone_option
from unimeter.cli.output import Form, Sheet, write_sheet
from unimeter.types import Account, from_ns

EPILOG = """\b
Examples:
  unimeter members 42 seats
  unimeter members 42 seats --at 2026-11-01 --csv
"""


@click.command(epilog=EPILOG)
@click.argument("account", type=ACCOUNT)
@click.argument("metric")
@click.option("--at", "at_text", metavar="TIME", help="The moment asked about.  [default: now]")
@zone_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    account: Account,
    metric: str,
    at_text: str | None,
    zone: str,
    form: Form,
    **_: object,
) -> None:
    """List who is active in a COUNT_UNIQUE metric, now or at a moment."""
    at = datetime.now(timezone.utc)
    if at_text is not None:
        at = from_ns(moments.parse_instant(at_text, moments.parse_zone(zone)))
    with open_client(ctx) as client:
        rows = ((member,) for member in client.iter_members(account, metric, at))
        write_sheet(Sheet(("member",), rows, "nobody"), form)
