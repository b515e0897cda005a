"""A total as the columns that a metric's aggregation gives meaning to.

Every aggregation answers one number under its own name (``count``, ``sum``,
``max``, ...), so the head of a column says what was added up. COUNT and AVG
need no scale and two columns; the others are amounts and follow ``--scale``.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from unimeter.cli.amounts import format_amount
from unimeter.types import LIFETIME, AggType, AggValue, MetricSchema

COLUMN: dict[AggType, str] = {
    AggType.COUNT: "count",
    AggType.SUM: "sum",
    AggType.MAX: "max",
    AggType.MIN: "min",
    AggType.LATEST: "latest",
    AggType.AVG: "average",
    AggType.COUNT_UNIQUE: "unique",
}

AVERAGE_DIGITS = 28
"""Significant digits of a printed average; bills are made from sum and count."""


def columns(agg_type: AggType) -> tuple[str, ...]:
    """The names of the columns `cells` fills."""
    if agg_type == AggType.COUNT:
        return ("count",)
    if agg_type == AggType.COUNT_UNIQUE:
        return ("unique",)
    if agg_type == AggType.AVG:
        return ("average", "sum", "events")
    return (COLUMN[agg_type], "events")


def cells(value: AggValue, agg_type: AggType, decimals: int) -> tuple[int | Decimal, ...]:
    """`value` in the columns of `agg_type`."""
    if agg_type in (AggType.COUNT, AggType.COUNT_UNIQUE):
        return (value.number(agg_type),)
    if agg_type == AggType.AVG:
        return (average(value, decimals), format_amount(value.sum, decimals), value.count)
    return (format_amount(value.number(agg_type), decimals), value.count)


def average(value: AggValue, decimals: int) -> Decimal:
    """sum / count, for reading."""
    if value.count == 0:
        return Decimal(0)
    with localcontext() as context:
        context.prec = AVERAGE_DIGITS
        return (Decimal(value.sum) / value.count).scaleb(-decimals).normalize() + 0


def is_balance(schema: MetricSchema) -> bool:
    """Whether a metric is a balance: a SUM over a period that never ends in practice."""
    return (
        schema.agg_type == AggType.SUM and schema.period is not None and schema.period >= LIFETIME
    )
