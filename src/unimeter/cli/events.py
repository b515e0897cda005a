"""``unimeter events``: the stored events a total is made of."""

from __future__ import annotations

import click

from unimeter.cli.amounts import format_amount
from unimeter.cli.connection import open_client
from unimeter.cli.moments import format_ns
from unimeter.cli.options import (
    ACCOUNT,
    chosen_range,
    form_options,
    range_options,
    scale_option,
    server_options,
)
from unimeter.cli.output import Form, Sheet, write_sheet
from unimeter.types import Account

COLUMNS = ("offset", "timestamp", "account", "metric", "value", "operation", "properties", "id")

EPILOG = """\b
Examples:
  unimeter events 42 --period today
  unimeter events 42 --metric tokens --from 2026-11-05T10:00Z --to 2026-11-05T11:00Z
  unimeter events acme --period last-month --ndjson > acme.ndjson
"""


@click.command(epilog=EPILOG)
@click.argument("account", type=ACCOUNT)
@click.option("--metric", metavar="CODE", help="Only this metric's events.")
@range_options
@scale_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    account: Account,
    metric: str | None,
    period: str | None,
    from_text: str | None,
    to_text: str | None,
    zone: str,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """List an account's stored events, in the order they were stored."""
    chosen = chosen_range(period, from_text, to_text, zone).period
    with open_client(ctx) as client:
        rows = (
            (
                found.offset,
                format_ns(found.timestamp_ns),
                found.account_id,
                found.metric_code,
                format_amount(found.value, scale),
                found.operation_type.name.lower(),
                found.properties,
                found.id,
            )
            for found in client.iter_events(account, chosen.start, chosen.end, metric_code=metric)
        )
        write_sheet(Sheet(COLUMNS, rows), form)
