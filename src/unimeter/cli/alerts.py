"""``unimeter alerts``: list alerts, or follow them as they happen.

Each alert has a position, one by one from 1. ``--after`` goes on behind one, so
a program that keeps the last position it handled misses nothing and sees
nothing twice, over restarts of either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from unimeter.cli.amounts import format_amount
from unimeter.cli.connection import open_client
from unimeter.cli.options import ACCOUNT, form_options, scale_option, server_options
from unimeter.cli.output import Form, Sheet, say, write_lines, write_sheet
from unimeter.types import Account, AlertRecord, Direction

if TYPE_CHECKING:
    from unimeter.client.blocking import Client

COLUMNS = (
    "position",
    "time",
    "account",
    "metric",
    "threshold",
    "direction",
    "value",
    "event_offset",
)

EPILOG = """\b
Examples:
  unimeter alerts
  unimeter alerts --account 42 --metric credits
  unimeter alerts --follow --ndjson | ./notify
  unimeter alerts --follow --after 1207
"""


@click.command(epilog=EPILOG)
@click.option("--account", type=ACCOUNT, metavar="ACCOUNT", help="Only this account's.")
@click.option("--metric", metavar="CODE", help="Only this metric's.")
@click.option(
    "--after", type=click.IntRange(0), metavar="POSITION",
    help="Only alerts after this position.  [default: from the first; with --follow, from now]",
)  # fmt: skip
@click.option("--follow", is_flag=True, help="Print alerts as they happen, until Ctrl-C.")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="With --follow: end after N alerts."
)
@scale_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    account: Account | None,
    metric: str | None,
    after: int | None,
    follow: bool,
    count: int | None,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """List alerts, or follow them as they happen."""
    with open_client(ctx) as client:
        if follow:
            records = _followed(client, account, metric, after, count)
            # Ctrl-C is how following ends, not a failure.
            with suppress(KeyboardInterrupt):
                write_lines(COLUMNS, _rows(records, scale), form)
            return
        listed = client.iter_alerts(account, metric_code=metric, after=after or 0)
        write_sheet(Sheet(COLUMNS, _rows(listed, scale), "no alerts"), form)


def _followed(
    client: Client,
    account: Account | None,
    metric: str | None,
    after: int | None,
    count: int | None,
) -> Iterator[AlertRecord]:
    """Alerts from the subscription, at most `count`.

    The account is compared here: a subscription that names accounts begins with
    their first alert, and this one begins now.
    """
    metrics = None if metric is None else [metric]
    left = count
    with client.alerts.subscribe(metric_codes=metrics, after=after) as stream:
        say("waiting for alerts; Ctrl-C ends")
        for record in stream:
            if account is not None and record.account_id != account:
                continue
            yield record
            left = None if left is None else left - 1
            if left == 0:
                return


def _rows(records: Iterable[AlertRecord], decimals: int) -> Iterator[tuple[object, ...]]:
    for record in records:
        yield (
            record.position,
            record.triggered_at,
            record.account_id,
            record.metric_code,
            record.threshold_code,
            "falling" if record.direction == Direction.FALLING else "rising",
            format_amount(record.value_at_cross, decimals),
            record.log_offset,
        )
