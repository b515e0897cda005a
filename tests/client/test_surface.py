"""The three ways in have the same methods, and the published SDK's names are all there."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import unimeter
from unimeter import AsyncClient, Client
from unimeter.client.administration import Keys, Webhooks
from unimeter.client.async_administration import AsyncKeys, AsyncWebhooks
from unimeter.client.async_surface import AsyncAlerts, AsyncMetrics
from unimeter.client.surface import Alerts, Metrics, Surface

PUBLISHED = (
    "AsyncClient Subscription Event IngestResult AggValue UsageResult MetricSchema "
    "DimensionFilter AlertThreshold AggType DeliveryMode OperationType PeriodType Period "
    "EventRecord AlertRecord current_month last_month current_billing_period "
    "last_billing_period today_utc yesterday_utc this_week_utc last_week_utc scale unscale "
    "UnimeterError ConnectionError BackpressureError RedirectError ServerError "
    "AlreadyExistsError NotFoundError"
)
ADDED = (
    "Client Outcome Refusal Resolution Direction LIFETIME AccountTotal SeriesPoint Window "
    "AlertStream DeadlineExceededError InvalidInputError SessionExpiredError "
    "RangeUnavailableError CorruptionError UnauthenticatedError ForbiddenError "
    "Scope TLS NewKey KeyRecord Webhook AuditRecord"
)


NOT_ASKED = ("connect", "close", "statistics", "portal_token")
"""What asks no node: no timeout, and nothing for an embedded meter."""


def methods(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and name not in NOT_ASKED
    }


@pytest.mark.parametrize("name", [*PUBLISHED.split(), *ADDED.split()])
def test_name_is_exported(name: str) -> None:
    assert name in unimeter.__all__
    assert getattr(unimeter, name) is not None


def test_star_import_leaves_the_builtin_open_alone() -> None:
    assert "open" not in unimeter.__all__
    assert callable(unimeter.open) and unimeter.Server and unimeter.Embedded


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (Surface, AsyncClient),
        (Metrics, AsyncMetrics),
        (Alerts, AsyncAlerts),
        (Keys, AsyncKeys),
        (Webhooks, AsyncWebhooks),
    ],
)
def test_blocking_and_asynchronous_methods_agree(blocking: type, asynchronous: type) -> None:
    one, other = methods(blocking), methods(asynchronous)
    assert set(one) == set(other)
    for name, signature in one.items():
        assert signature.parameters == other[name].parameters, name
        assert "timeout" in signature.parameters, name


def test_client_is_a_surface() -> None:
    assert issubclass(Client, Surface) and issubclass(unimeter.Embedded, Surface)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("ingest", ["events", "delivery"]),
        ("query", ["account_id", "metric_code", "period", "filters"]),
        ("query_breakdown", ["account_id", "metric_code", "period", "group_by"]),
        ("query_realtime", ["account_id", "metric_code"]),
        ("list_events", ["account_id", "since", "until"]),
        ("list_alerts", ["account_id", "since_offset"]),
    ],
)
def test_parameters_of_the_published_methods_are_kept(method: str, parameters: list[str]) -> None:
    names = list(inspect.signature(getattr(AsyncClient, method)).parameters)
    assert [name for name in names if name in parameters] == parameters


def test_fields_of_the_published_classes_keep_their_places() -> None:
    event = unimeter.Event(1, "m", 2, None, unimeter.OperationType.ADD)
    assert (event.value, event.operation_type) == (2, 1)
    schema = unimeter.MetricSchema("m", unimeter.AggType.COUNT, False, "", 1, 15)
    assert schema.billing_cycle_day == 15
    assert unimeter.IngestResult(1, 2, 3).last_offset == 3


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_optimized_python_is_refused_in_one_sentence() -> None:
    done = run_python("-O", "-c", "import unimeter")
    assert done.returncode != 0
    assert "python -O" in done.stderr and "Traceback" not in done.stderr


def test_import_loads_neither_asyncio_nor_the_server() -> None:
    code = "import sys, unimeter; print([m for m in sys.modules if m in ('asyncio', 'socket')])"
    assert run_python("-c", code).stdout.strip() == "[]"
    code = (
        "import sys; from unimeter import Client; "
        "print([m for m in sys.modules if m.startswith(('asyncio', 'unimeter.server'))])"
    )
    assert run_python("-c", code).stdout.strip() == "[]"
