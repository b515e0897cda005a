"""``unimeter series``: a total per hour, day, week or month of a range."""

from __future__ import annotations

import click

from unimeter.cli import totals
from unimeter.cli.connection import open_client
from unimeter.cli.options import (
    ACCOUNT,
    PAIR,
    chosen_range,
    filters_of,
    form_options,
    range_options,
    scale_option,
    server_options,
)
from unimeter.cli.output import Form, Sheet, write_sheet
from unimeter.types import Account

EPILOG = """\b
Examples:
  unimeter series 42 api_calls
  unimeter series 42 tokens --window hour --period today
  unimeter series 42 tokens --window month --period this-year --zone Europe/Berlin
  unimeter series 42 compute_seconds --filter region=eu --csv > november.csv
"""


@click.command(epilog=EPILOG)
@click.argument("account", type=ACCOUNT)
@click.argument("metric")
@click.option(
    "--window",
    type=click.Choice(["hour", "day", "week", "month"]),
    default="day",
    show_default=True,
    help="The step. Weeks begin on Monday.",
)
@click.option(
    "--filter", "filters", type=PAIR, multiple=True,
    help="Only events with this property; a key given twice lets either value in.",
)  # fmt: skip
@range_options
@scale_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    account: Account,
    metric: str,
    window: str,
    filters: tuple[tuple[str, str], ...],
    period: str | None,
    from_text: str | None,
    to_text: str | None,
    zone: str,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """Print an account's total per hour, day, week or month.

    Windows without events are printed too. --zone decides where days, weeks and
    months begin.
    """
    chosen = chosen_range(period, from_text, to_text, zone).period
    with open_client(ctx) as client:
        agg_type = client.metrics.get(metric).agg_type
        points = client.series(
            account,
            metric,
            chosen,
            window=window,
            zone="" if zone == "UTC" else zone,
            filters=filters_of(filters),
        )
    rows = [
        (point.start, point.end, *totals.cells(point.value, agg_type, scale)) for point in points
    ]
    write_sheet(Sheet(("start", "end", *totals.columns(agg_type)), rows), form)
