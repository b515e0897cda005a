"""Metric definitions from the command line and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import Result
from tests.cli.fakes import FakeMeter

from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.metric import parse_period, period_words
from unimeter.errors import InvalidInputError
from unimeter.types import (
    LIFETIME,
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)

Run = Callable[..., Result]


def test_a_code_and_a_type_make_the_plainest_metric(run: Run, meter: FakeMeter) -> None:
    assert run("metric", "create", "api_calls", "count").exit_code == 0
    assert meter.metrics.schemas == [MetricSchema("api_calls", AggType.COUNT)]


def test_every_option_reaches_the_definition(run: Run, meter: FakeMeter) -> None:
    result = run(
        "metric", "create", "gpu", "count-unique", "--recurring", "--period", "month",
        "--cycle-day", "15", "--zone", "Europe/Berlin", "--dimension", "model",
        "--dimension", "kind=in,out", "--alert-at-or-above", "cap=1.5",
        "--alert-at-or-below", "low=-1", "--alert-again", "--resolution", "hour",
        "--field", "seconds", "--scale", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert meter.metrics.schemas == [
        MetricSchema(
            "gpu",
            AggType.COUNT_UNIQUE,
            recurring=True,
            field_name="seconds",
            period_type=PeriodType.CALENDAR,
            billing_cycle_day=15,
            filters=[DimensionFilter("model"), DimensionFilter("kind", ["in", "out"])],
            thresholds=[
                AlertThreshold("cap", 15, True, Direction.RISING),
                AlertThreshold("low", -10, True, Direction.FALLING),
            ],
            zone="Europe/Berlin",
            resolution=Resolution.HOUR,
        )
    ]


@pytest.mark.parametrize("words", ["hour", "day", "week", "month", "lifetime", "30d", "12h", "90m"])
def test_a_period_is_printed_as_it_is_written(words: str) -> None:
    period_type, length = parse_period(words)
    schema = MetricSchema("m", AggType.SUM, period_type=period_type, period=length)
    assert period_words(schema) == words


def test_thirty_days_are_the_period_of_the_plainest_metric() -> None:
    assert parse_period("30d") == (PeriodType.FIXED, None)
    assert parse_period("lifetime") == (PeriodType.FIXED, LIFETIME)
    assert parse_period("2w") == (PeriodType.FIXED, timedelta(days=14))


@pytest.mark.parametrize("words", ["", "fortnight", "-1d", "1.5h", "99999999d", "3y"])
def test_a_period_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_period(words)


def test_show_and_list_print_the_definition(run: Run, meter: FakeMeter) -> None:
    meter.metrics.create(
        MetricSchema(
            "tokens",
            AggType.SUM,
            filters=[DimensionFilter("model"), DimensionFilter("kind", ["in", "out"])],
            thresholds=[AlertThreshold("low", 100, direction=Direction.FALLING)],
        )
    )
    shown = json.loads(run("metric", "show", "tokens", "--json").stdout)
    assert json.loads(run("metric", "list", "--json").stdout) == [shown]
    assert shown["dimensions"] == {"model": "*", "kind": "in,out"}
    assert shown["thresholds"] == {"low": "<=100"}
    table = run("metric", "list").stdout
    assert "model=* kind=in,out" in table


def test_creating_what_is_there_the_same_way_is_no_error(run: Run, meter: FakeMeter) -> None:
    create = ("metric", "create", "tokens", "sum", "--dimension", "model")
    assert run(*create).exit_code == 0
    assert run(*create).exit_code == 0
    changed = run(*create[:-2], "--period", "day")
    assert changed.exit_code == ExitCode.REFUSED
    assert "another period: '30d', not 'day'" in changed.stderr
    assert len(meter.metrics.schemas) == 1


def test_an_unknown_metric_is_not_found(run: Run) -> None:
    assert run("metric", "show", "nope").exit_code == ExitCode.NOT_FOUND


def test_deleting_asks_first(run: Run, meter: FakeMeter) -> None:
    result = run("metric", "delete", "m", stdin="n\n")
    assert result.exit_code == 1
    assert "totals" in result.stderr
