"""``unimeter watch``: an account's totals and remaining credits, live.

Each refresh asks for the current billing period of every metric. Between two
refreshes the verb waits in the alert subscription, so a credit balance that
falls to its threshold is on the screen at once, not at the next tick.

A SUM over a lifetime is a balance: what was granted less what was spent. Its
row says ``remaining``. On a terminal the table is redrawn in place; elsewhere
only rows that changed are printed, one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from unimeter.cli import totals
from unimeter.cli.amounts import format_amount
from unimeter.cli.connection import open_client
from unimeter.cli.metric import period_words
from unimeter.cli.moments import format_instant
from unimeter.cli.options import ACCOUNT, form_options, scale_option, server_options
from unimeter.cli.output import Form, Sheet, csv_line, json_line, table_of, write_sheet
from unimeter.types import Account, AggType, AggValue, AlertRecord, MetricSchema

if TYPE_CHECKING:
    from unimeter.client.blocking import Client

COLUMNS = ("metric", "what", "value", "change", "period", "alerts")
ALERTS_SHOWN = 5

EPILOG = """\b
Examples:
  unimeter watch acme
  unimeter watch acme credits api_calls --interval 0.5
  unimeter watch acme credits --once --json
  unimeter watch acme --ndjson | ./dashboard
"""


@dataclass
class View:
    """What is shown: each metric's row, and the last alerts."""

    account: Account
    schemas: list[MetricSchema]
    decimals: int
    shows_all: bool  # also metrics the account has no events of
    first: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    alerts: list[AlertRecord] = field(default_factory=list)

    def refresh(self, client: Client) -> list[tuple[object, ...]]:
        """Ask again; the rows that are not as they were."""
        before = set(self.rows)
        found = []
        for schema in self.schemas:
            value = client.query_realtime(self.account, schema.code)
            if value.count or self.shows_all or schema.code in self.first:
                found.append(self._row(schema, value))
        self.rows = found
        return [row for row in found if row not in before]

    def _row(self, schema: MetricSchema, value: AggValue) -> tuple[object, ...]:
        number = value.number(schema.agg_type)
        change = number - self.first.setdefault(schema.code, number)
        counts = schema.agg_type in (AggType.COUNT, AggType.COUNT_UNIQUE)
        decimals = 0 if counts else self.decimals
        crossed = [
            threshold.code
            for place, threshold in enumerate(schema.thresholds)
            if value.alert_flags >> place & 1
        ]
        return (
            schema.code,
            "remaining" if totals.is_balance(schema) else totals.COLUMN[schema.agg_type],
            format_amount(number, decimals),
            format_amount(change, decimals),
            period_words(schema),
            " ".join(crossed),
        )

    def take(self, alert: AlertRecord) -> None:
        """Keep an alert of this account for showing."""
        if alert.account_id == self.account:
            self.alerts = [*self.alerts[-ALERTS_SHOWN + 1 :], alert]


@click.command(epilog=EPILOG)
@click.argument("account", type=ACCOUNT)
@click.argument("metrics", nargs=-1, metavar="[METRIC]...")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two refreshes; an alert refreshes at once.",
)
@click.option("--once", is_flag=True, help="Print the totals as they are and end.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N refreshes.")
@scale_option
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    account: Account,
    metrics: tuple[str, ...],
    interval: float,
    once: bool,
    count: int | None,
    scale: int,
    form: Form,
    **_: object,
) -> None:
    """Show an account's totals and remaining credits live, until Ctrl-C.

    All metrics the account has events of, or those named. A total is that of
    the metric's current billing period; a sum over a lifetime is what remains.
    """
    with open_client(ctx) as client:
        schemas = [client.metrics.get(code) for code in metrics] or client.metrics.list()
        view = View(account, schemas, scale, shows_all=bool(metrics))
        if once:
            view.refresh(client)
            return write_sheet(Sheet(COLUMNS, view.rows, f"no usage of account {account}"), form)
        # Ctrl-C is how this verb ends, not a failure.
        with suppress(KeyboardInterrupt), _shown(view, form) as show:
            _follow(client, view, interval, count, show)


def _follow(
    client: Client,
    view: View,
    interval: float,
    count: int | None,
    show: Callable[[list[tuple[object, ...]]], None],
) -> None:
    """Refresh at each interval and at each alert, `count` times or until Ctrl-C."""
    left = count
    # The subscription stands before the first look, so no alert falls between them.
    with client.alerts.subscribe() as stream:
        show(view.refresh(client))
        while left is None or left > 0:
            alert = stream.get(timeout=interval)
            if alert is not None:
                view.take(alert)
            show(view.refresh(client))
            left = None if left is None else left - 1


@contextmanager
def _shown(view: View, form: Form) -> Iterator[Callable[[list[tuple[object, ...]]], None]]:
    """How a refresh is shown: redrawn on a terminal, else what changed."""
    if form == "table" and sys.stdout.isatty():
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        console = Console(highlight=False)
        with Live(console=console, auto_refresh=False) as live:

            def redraw(_: list[tuple[object, ...]]) -> None:
                moment = format_instant(datetime.now(timezone.utc).replace(microsecond=0))
                table = table_of(Sheet(COLUMNS, view.rows), f"account {view.account}  {moment}")
                alerts = [Text(_alert_words(alert), style="bold red") for alert in view.alerts]
                live.update(Group(table, *alerts), refresh=True)

            yield redraw
        return
    if form == "csv":
        click.echo(csv_line(COLUMNS))

    def print_changed(changed: list[tuple[object, ...]]) -> None:
        if form == "table" and changed:
            write_sheet(Sheet(COLUMNS, view.rows), form)
        for row in changed if form != "table" else ():
            named = dict(zip(COLUMNS, row, strict=True))
            click.echo(csv_line(row) if form == "csv" else json_line(named))

    yield print_changed


def _alert_words(alert: AlertRecord) -> str:
    """An alert as one line under the table."""
    return (
        f"{format_instant(alert.triggered_at)}  {alert.metric_code}: {alert.threshold_code} "
        f"at {alert.value_at_cross}"
    )
