"""``unimeter top``: a metric's accounts, largest total first; or all, for invoices.

Ranking reads every account of the metric and keeps the first few. ``--all``
prints each account as its page arrives, in the node's order, so a million
accounts pass through without being held.
"""

from __future__ import annotations

import heapq

import click

from unimeter.cli import totals
from unimeter.cli.connection import open_client
from unimeter.cli.options import (
    chosen_range,
    form_options,
    range_options,
    scale_option,
    server_options,
)
from unimeter.cli.output import Form, Sheet, write_sheet
from unimeter.types import AccountTotal

EPILOG = """\b
Examples:
  unimeter top api_calls
  unimeter top tokens --limit 3 --period last-month
  unimeter top tokens --all --period last-month --csv > invoices.csv
"""


@click.command(epilog=EPILOG)
@click.argument("metric")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    metavar="N",
    help="How many accounts.",
)
@click.option("--all", "is_all", is_flag=True, help="Every account, in the node's order.")
@range_options
@scale_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    metric: str,
    limit: int,
    is_all: bool,
    period: str | None,
    from_text: str | None,
    to_text: str | None,
    zone: str,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """List a metric's accounts, largest total first."""
    chosen = chosen_range(period, from_text, to_text, zone).period
    with open_client(ctx) as client:
        agg_type = client.metrics.get(metric).agg_type

        def rank(found: AccountTotal) -> tuple[int, str]:
            # Equal totals are ordered by account, so that two runs print the same.
            return -found.value.number(agg_type), str(found.account_id)

        every = client.iter_accounts(metric, chosen)
        accounts = every if is_all else iter(heapq.nsmallest(limit, every, key=rank))
        rows = (
            (found.account_id, *totals.cells(found.value, agg_type, scale)) for found in accounts
        )
        write_sheet(Sheet(("account", *totals.columns(agg_type)), rows), form)
