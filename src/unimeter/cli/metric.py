"""``unimeter metric``: create, list, show and delete metrics.

A definition can be changed only in ways that keep its history meaningful; what
the node refuses is passed on word for word. ``create`` of a metric that exists
exactly so is no error, because deployment scripts say it each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unimeter.cli.amounts import format_amount, parse_amount
from unimeter.cli.connection import open_client
from unimeter.cli.options import PAIR, form_options, scale_option, server_options
from unimeter.cli.output import Form, Sheet, say, text, write_record, write_sheet
from unimeter.errors import AlreadyExistsError
from unimeter.period_words import parse_period as parse_period
from unimeter.period_words import period_word
from unimeter.types import (
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    Resolution,
)

if TYPE_CHECKING:
    from unimeter.client.blocking import Client

COLUMNS = ("code", "type", "period", "zone", "dimensions", "thresholds", "recurring", "resolution")

_KINDS = {agg.name.lower().replace("_", "-"): agg for agg in AggType}


class Verbs(click.Group):
    """Lists its verbs in the order of a metric's life."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["create", "list", "show", "delete"]


@click.group(cls=Verbs)
def command() -> None:
    """Create, list, show or delete metrics."""


@command.command(
    epilog="""\b
Examples:
  unimeter metric create api_calls count
  unimeter metric create tokens sum --period month --dimension model --dimension kind=in,out
  unimeter metric create seats count-unique --recurring --period month
  unimeter metric create credits sum --period lifetime --alert-at-or-below low=1000
  unimeter metric create gpu_hours sum --period day --zone Europe/Berlin --resolution hour
"""
)
@click.argument("code")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.option(
    "--period",
    default="30d",
    show_default=True,
    metavar="PERIOD",
    help="hour, day, week, month, lifetime, or a duration such as 30d, 12h, 90m.",
)
@click.option(
    "--cycle-day", type=int, default=1, show_default=True, help="The day a month begins, 1-28."
)
@click.option("--zone", default="UTC", show_default=True, help="IANA zone of hours, days, months.")
@click.option(
    "--dimension",
    "dimensions",
    multiple=True,
    metavar="KEY[=A,B]",
    help="A property totals are kept by; open, or with the values it may have.",
)
@click.option(
    "--alert-at-or-above", "rising", multiple=True, type=PAIR, metavar="CODE=VALUE",
    help="Alert when the period's total reaches the value.",
)  # fmt: skip
@click.option(
    "--alert-at-or-below", "falling", multiple=True, type=PAIR, metavar="CODE=VALUE",
    help="Alert when the total falls to the value: for balances.",
)  # fmt: skip
@click.option("--alert-again", is_flag=True, help="Alert at each crossing, not once per period.")
@click.option("--recurring", is_flag=True, help="count-unique: members stay until removed.")
@click.option(
    "--resolution", type=click.Choice([r.name.lower() for r in Resolution]), default="day",
    show_default=True, help="The buckets totals are kept by.",
)  # fmt: skip
@click.option("--field", "field_name", default="", help="A note: the field values come from.")
@click.option("--update", is_flag=True, help="Change the metric if it exists.")
@scale_option
@server_options
@click.pass_context
def create(
    ctx: click.Context,
    /,
    code: str,
    kind: str,
    period: str,
    cycle_day: int,
    zone: str,
    dimensions: tuple[str, ...],
    rising: tuple[tuple[str, str], ...],
    falling: tuple[tuple[str, str], ...],
    alert_again: bool,
    recurring: bool,
    resolution: str,
    field_name: str,
    update: bool,
    scale: int,
    **_: object,
) -> None:
    """Create a metric: a code and how its values become a total.

    KIND is count, sum, max, min, latest, avg or count-unique. A metric that
    exists with the same definition is left as it is.
    """
    period_type, length = parse_period(period)
    thresholds = [
        AlertThreshold(name, parse_amount(value, scale), alert_again, direction)
        for direction, pairs in ((Direction.RISING, rising), (Direction.FALLING, falling))
        for name, value in pairs
    ]
    schema = MetricSchema(
        code=code,
        agg_type=_KINDS[kind],
        recurring=recurring,
        field_name=field_name,
        period_type=period_type,
        billing_cycle_day=cycle_day,
        filters=[_dimension(given) for given in dimensions],
        thresholds=thresholds,
        period=length,
        zone=zone,
        resolution=Resolution[resolution.upper()],
    )
    with open_client(ctx) as client:
        if update:
            client.metrics.put(schema)
        else:
            _create(client, schema)
    say(f"metric {code} is there")


def _create(client: Client, schema: MetricSchema) -> None:
    """Create; a metric that is exactly so already is what was asked for."""
    try:
        client.metrics.create(schema)
    except AlreadyExistsError:
        found = _definition(client.metrics.get(schema.code))
        wanted = _definition(schema)
        differing = [name for name in wanted if wanted[name] != found[name]]
        if differing:
            name = differing[0]
            raise AlreadyExistsError(
                f"metric {schema.code} exists with another {name}: {text(found[name])!r}, not "
                f"{text(wanted[name])!r}; --update changes what may be changed"
            ) from None


@command.command(
    name="list",
    epilog="""\b
Examples:
  unimeter metric list
  unimeter metric list --ndjson | jq -r .code
""",
)
@server_options
@form_options
@click.pass_context
def list_metrics(ctx: click.Context, /, form: Form, **_: object) -> None:
    """List every metric with its definition."""
    with open_client(ctx) as client:
        rows = [tuple(describe(schema).values()) for schema in client.metrics.list()]
    write_sheet(Sheet(COLUMNS, rows, "no metrics yet: unimeter metric create --help"), form)


@command.command(
    epilog="""\b
Examples:
  unimeter metric show tokens
  unimeter metric show tokens --json
"""
)
@click.argument("code")
@scale_option
@server_options
@form_options
@click.pass_context
def show(ctx: click.Context, /, code: str, scale: int, form: Form, **_: object) -> None:
    """Show one metric's definition."""
    with open_client(ctx) as client:
        schema = client.metrics.get(code)
    write_record(describe(schema, scale), form)


@command.command(
    epilog="""\b
Examples:
  unimeter metric delete old_metric
  unimeter metric delete old_metric --yes
"""
)
@click.argument("code")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
@click.pass_context
def delete(ctx: click.Context, /, code: str, yes: bool, **_: object) -> None:
    """Delete a metric and its totals; its code is free afterwards."""
    if not yes:
        click.confirm(f"Delete metric {code} and all its totals?", abort=True, err=True)
    with open_client(ctx) as client:
        client.metrics.delete(code)
    say(f"metric {code} is deleted")


def _definition(schema: MetricSchema) -> dict[str, object]:
    """All that makes two definitions the same."""
    again = {threshold.code: threshold.recurring for threshold in schema.thresholds}
    return describe(schema) | {"field": schema.field_name, "alert again": again}


def period_words(schema: MetricSchema) -> str:
    """The period as `parse_period` reads it, and the day that its month begins on."""
    day = f" from day {schema.billing_cycle_day}" if schema.billing_cycle_day != 1 else ""
    return period_word(schema) + day


def describe(schema: MetricSchema, decimals: int = 0) -> dict[str, object]:
    """A definition as one row."""
    return {
        "code": schema.code,
        "type": schema.agg_type.name.lower().replace("_", "-"),
        "period": period_words(schema),
        "zone": schema.zone,
        "dimensions": {d.key: ",".join(d.values) or "*" for d in schema.filters},
        "thresholds": {
            t.code: f"{'<=' if t.direction == Direction.FALLING else '>='}"
            f"{format_amount(t.value, decimals)}"
            for t in schema.thresholds
        },
        "recurring": schema.recurring,
        "resolution": schema.resolution.name.lower(),
    }


def _dimension(given: str) -> DimensionFilter:
    key, _, values = given.partition("=")
    return DimensionFilter(key, [value for value in values.split(",") if value])
