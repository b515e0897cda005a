"""Unimeter: usage metering for teams that bill by what customers actually use.

    from unimeter import Client, Event, MetricSchema, AggType, current_month
    with Client(["localhost:7001"]) as client:
        client.metrics.create(MetricSchema("api_calls", AggType.COUNT))
        client.ingest([Event(42, "api_calls")])
        print(client.query(42, "api_calls", current_month()).value.count)

Everything a user imports is here: the SDK (`Client`, `AsyncClient`), the
embedded engine (`open`), a server for tests (`Server`), and the nouns. The
names of the published Python SDK are all among them, so a program written for
it changes nothing but the import.

Importing this is cheap and needs only the standard library: the clients, the
engine and the server are imported when their names are first used.
`open`, `Embedded` and `Server` are not part of ``import *``, which would
otherwise replace the built-in `open` and load the whole server.
"""

from __future__ import annotations

if not __debug__:
    # Assertions are part of the engine: without them a broken invariant would become a
    # wrong invoice instead of a stopped process.
    raise SystemExit("unimeter refuses to run under python -O: its assertions guard your totals")

from typing import TYPE_CHECKING, Any

from unimeter.errors import (
    AlreadyExistsError,
    BackpressureError,
    ClientError,
    ConnectionError,
    CorruptionError,
    DataError,
    DeadlineExceededError,
    DirectoryInUseError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RangeUnavailableError,
    RedirectError,
    ServerError,
    SessionExpiredError,
    UnauthenticatedError,
    UnimeterError,
    WrongDirectoryError,
)
from unimeter.periods import (
    current_billing_period,
    current_month,
    last_billing_period,
    last_month,
    last_week_utc,
    this_week_utc,
    today_utc,
    yesterday_utc,
)
from unimeter.types import (
    LIFETIME,
    SCALE,
    AccountTotal,
    AggType,
    AggValue,
    AlertRecord,
    AlertThreshold,
    DeliveryMode,
    DimensionFilter,
    Direction,
    Event,
    EventRecord,
    IngestResult,
    MetricSchema,
    OperationType,
    Outcome,
    Overflow,
    Period,
    PeriodType,
    Refusal,
    Resolution,
    SeriesPoint,
    TotalChange,
    UsageResult,
    scale,
    unscale,
)
from unimeter.version import VERSION

if TYPE_CHECKING:
    from unimeter.client.access import TLS
    from unimeter.client.admin_questions import NewKey
    from unimeter.client.aio import AsyncClient, Subscription
    from unimeter.client.blocking import Client
    from unimeter.client.stream import Watch
    from unimeter.client.subscription import AsyncWatch
    from unimeter.client.surface import AlertStream
    from unimeter.control import AuditRecord, Webhook
    from unimeter.embedded import Embedded as Embedded
    from unimeter.embedded import open as open
    from unimeter.keys import KeyRecord, Scope
    from unimeter.server.server import Server as Server
    from unimeter.wire.messages import Window

__version__ = VERSION

_LAZY = {
    "AlertStream": "unimeter.client.surface",
    "AsyncClient": "unimeter.client.aio",
    "AsyncWatch": "unimeter.client.subscription",
    "AuditRecord": "unimeter.control",
    "Client": "unimeter.client.blocking",
    "Embedded": "unimeter.embedded",
    "KeyRecord": "unimeter.keys",
    "NewKey": "unimeter.client.admin_questions",
    "Scope": "unimeter.keys",
    "Server": "unimeter.server.server",
    "Subscription": "unimeter.client.aio",
    "TLS": "unimeter.client.access",
    "Watch": "unimeter.client.stream",
    "Webhook": "unimeter.control",
    "Window": "unimeter.wire.messages",
    "open": "unimeter.embedded",
}


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    # clients
    "AsyncClient",
    "Client",
    "TLS",
    "Subscription",
    "AlertStream",
    "Watch",
    "AsyncWatch",
    # what is sent and answered
    "Event",
    "IngestResult",
    "Outcome",
    "Refusal",
    "AggValue",
    "UsageResult",
    "MetricSchema",
    "DimensionFilter",
    "AlertThreshold",
    "AggType",
    "DeliveryMode",
    "OperationType",
    "PeriodType",
    "Resolution",
    "Direction",
    "Window",
    "Period",
    "EventRecord",
    "AlertRecord",
    "TotalChange",
    "Overflow",
    "AccountTotal",
    "SeriesPoint",
    # keys, webhooks, the trail
    "Scope",
    "NewKey",
    "KeyRecord",
    "Webhook",
    "AuditRecord",
    # periods and amounts
    "current_month",
    "last_month",
    "current_billing_period",
    "last_billing_period",
    "today_utc",
    "yesterday_utc",
    "this_week_utc",
    "last_week_utc",
    "LIFETIME",
    "SCALE",
    "scale",
    "unscale",
    # errors
    "UnimeterError",
    "ClientError",
    "InvalidInputError",
    "NotFoundError",
    "AlreadyExistsError",
    "RangeUnavailableError",
    "SessionExpiredError",
    "UnauthenticatedError",
    "ForbiddenError",
    "ConnectionError",
    "DeadlineExceededError",
    "BackpressureError",
    "RedirectError",
    "ServerError",
    "DataError",
    "CorruptionError",
    "WrongDirectoryError",
    "DirectoryInUseError",
    "__version__",
]
