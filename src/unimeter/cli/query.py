"""``unimeter query``: an account's total, exact over any range.

One line for one total, one line per combination with ``--group-by``. Without a
range it is this month; ``--now`` asks for the metric's own billing period, which
is also what thresholds look at.
"""

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
from unimeter.cli.output import Form, Sheet, write_record, write_sheet
from unimeter.errors import InvalidInputError
from unimeter.types import Account

EPILOG = """\b
Examples:
  unimeter query 42 api_calls
  unimeter query 42 tokens --period last-month --group-by model --group-by kind
  unimeter query 42 compute_seconds --from 2026-11-01 --to 2026-11-15 --filter region=eu
  unimeter query acme credits --now --scale 2 --json
  unimeter query 42 tokens --filter model=large --filter model=huge
"""


@click.command(epilog=EPILOG)
@click.argument("account", type=ACCOUNT)
@click.argument("metric")
@click.option(
    "--filter", "filters", type=PAIR, multiple=True,
    help="Only events with this property; a key given twice lets either value in.",
)  # fmt: skip
@click.option(
    "--group-by", "keys", multiple=True, metavar="KEY", help="A line per value; may be repeated."
)
@click.option("--now", "is_now", is_flag=True, help="The metric's current billing period.")
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
    filters: tuple[tuple[str, str], ...],
    keys: tuple[str, ...],
    is_now: bool,
    period: str | None,
    from_text: str | None,
    to_text: str | None,
    zone: str,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """Print an account's total over a range, this month if none is given.

    ACCOUNT is an integer account if written in digits, else a string account;
    str:42 is the string account 42.
    """
    if is_now and (filters or keys or period or from_text or to_text):
        raise InvalidInputError("--now takes no range, --filter or --group-by")
    with open_client(ctx) as client:
        agg_type = client.metrics.get(metric).agg_type
        names = totals.columns(agg_type)
        head: dict[str, object] = {"account": account, "metric": metric}
        if is_now:
            value = client.query_realtime(account, metric)
            cells = totals.cells(value, agg_type, scale)
            return write_record(head | dict(zip(names, cells, strict=True)), form)
        chosen = chosen_range(period, from_text, to_text, zone).period
        chosen_filters = filters_of(filters)
        if not keys:
            value = client.query(account, metric, chosen, filters=chosen_filters).value
            head |= {"start": chosen.start, "end": chosen.end}
            cells = totals.cells(value, agg_type, scale)
            return write_record(head | dict(zip(names, cells, strict=True)), form)
        found = client.query_breakdown(
            account, metric, chosen, group_by=list(keys), filters=chosen_filters
        )
    rows = sorted(
        tuple(dict(pairs).get(key, "") for key in keys) + totals.cells(value, agg_type, scale)
        for pairs, value in found.items()
    )
    write_sheet(Sheet((*keys, *names), rows), form)
