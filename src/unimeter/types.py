"""The nouns every layer shares: events, metrics, totals, alerts, outcomes.

Names and field order are those of the published Python SDK, so that code
written for it runs after changing nothing but the import; what this project
adds comes after the fields it had. Values are integers everywhere. A float
is refused with the fix in the message, because 0.1 + 0.2 is not a price.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from unimeter.errors import InvalidInputError

SCALE = 1_000_000
PARTITION_COUNT = 256
LIFETIME = timedelta(days=73_000)
"""A FIXED period length that never ends in practice: for balances."""

Account = int | str


def scale(value: float | Decimal) -> int:
    """Turn a decimal amount into the integer the meter keeps (six decimals)."""
    return round(value * SCALE)


def unscale(value: int) -> float:
    """Turn a scaled integer back into a decimal amount, for display only."""
    return value / SCALE


class Membership(enum.IntEnum):
    """How far a node of a cluster, and its data directory, may speak for its id."""

    VOTER = 0  # its vote and its copy count
    FRESH = 1  # a new disk: not every peer has confirmed that it never knew another
    RECOVERING = 2  # replaces a lost disk, whose votes it does not know: it gets a copy first


class DeliveryMode(enum.IntEnum):
    """Asked by the client; under the default ``--ack quorum`` both mean synced."""

    ASYNC = 0
    SYNC = 1


class OperationType(enum.IntEnum):
    """What an event does to a COUNT_UNIQUE set; NONE adds."""

    NONE = 0
    ADD = 1
    REMOVE = 2


class AggType(enum.IntEnum):
    """How values become a total. The first five are v1's numbers."""

    COUNT = 0
    SUM = 1
    MAX = 2
    LATEST = 3
    COUNT_UNIQUE = 4
    MIN = 5
    AVG = 6


class PeriodType(enum.IntEnum):
    """The billing period. The first four are v1's numbers."""

    FIXED = 0
    CALENDAR = 1
    DAY = 2
    WEEK = 3
    HOUR = 4


class Resolution(enum.IntEnum):
    """The bucket totals are kept by; ranges are merged from buckets."""

    HOUR = 0
    DAY = 1
    PERIOD = 2


class Direction(enum.IntEnum):
    """RISING fires at or above the value, FALLING at or below it."""

    RISING = 0
    FALLING = 1


class Outcome(enum.IntEnum):
    """What became of one event, lowest number that applies from REFUSED_FIRST up first.

    Order of precedence: malformed (10-19, in numeric order), UNKNOWN_METRIC,
    OPERATION_NOT_ALLOWED, DIMENSION_NOT_ALLOWED, TOO_MANY_COMBINATIONS, then
    CONFLICT, then DUPLICATE, then STORED.
    STORED and DUPLICATE are success: the event is counted, once.
    """

    STORED = 0
    DUPLICATE = 1
    CONFLICT = 2  # same account, metric and id, another body: not counted again
    BAD_METRIC_CODE = 10  # empty or not UTF-8
    BAD_ACCOUNT = 11  # empty, over 64 bytes or not UTF-8
    BAD_TIMESTAMP = 12  # before 2000 or from 2100 on
    BAD_VALUE = 13  # does not fit a signed 64-bit integer
    BAD_OPERATION = 14  # not none, add or remove
    TOO_MANY_PROPERTIES = 15
    BAD_PROPERTY = 16  # empty or repeated key, over-long or not UTF-8
    BAD_ID = 17  # over 64 bytes or not UTF-8
    UNKNOWN_METRIC = 20
    OPERATION_NOT_ALLOWED = 21  # add/remove on a metric that is not COUNT_UNIQUE
    DIMENSION_NOT_ALLOWED = 22  # a value outside the dimension's allowed list
    TOO_MANY_COMBINATIONS = 23

    @property
    def counted(self) -> bool:
        """Whether the event is in the totals (now or from an earlier send)."""
        return self <= Outcome.DUPLICATE


def check_utc(moment: datetime, what: str) -> datetime:
    """Return `moment` if it has a zone; raise InvalidInputError with the fix if not."""
    if not isinstance(moment, datetime):
        raise InvalidInputError(f"{what} must be a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidInputError(
            f"{what} {moment!r} has no time zone, so the billing period is a guess; "
            "use datetime.now(timezone.utc) or .replace(tzinfo=timezone.utc)"
        )
    return moment


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_ns(moment: datetime, what: str = "timestamp") -> int:
    """Nanoseconds since 1970 UTC, exactly: no float is involved."""
    delta = check_utc(moment, what) - _EPOCH
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000


def from_ns(ns: int) -> datetime:
    """The UTC datetime of `ns`, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)


def check_integer(value: object, what: str) -> int:
    """Return `value` if it is an int; raise InvalidInputError with the fix if not."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(
            f"{what} must be an int, not {type(value).__name__} {value!r}; "
            "use scale(1.5) for amounts with decimals"
        )
    return value


@dataclass
class Event:
    """One thing that was used. See the reference for each field's limits."""

    account_id: Account
    metric_code: str
    value: int = 1
    timestamp: datetime | None = None
    operation_type: OperationType = OperationType.NONE
    delivery_mode: DeliveryMode = DeliveryMode.ASYNC
    properties: dict[str, str] = field(default_factory=dict)
    id: str | None = None

    def timestamp_ns(self) -> int:
        """Nanoseconds since 1970 UTC; 0 where no timestamp was given."""
        return 0 if self.timestamp is None else to_ns(self.timestamp, "Event.timestamp")


@dataclass(frozen=True)
class Refusal:
    """One event of a batch that was not stored as new: its index, why, and words."""

    index: int
    outcome: Outcome
    message: str = ""


@dataclass
class IngestResult:
    """What became of a batch. ``n_stored + n_duplicates + n_refused`` is its size.

    `last_offset` is the offset of the batch's last event; `position` the log
    index that holds it, for reading your own write from another node.
    `outcomes` has one entry per event, in order.
    """

    n_stored: int
    n_duplicates: int
    last_offset: int
    n_refused: int = 0
    position: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass
class AggValue:
    """A total. Every aggregation fills every field it can; `number` picks the metric's own."""

    sum: int = 0
    count: int = 0
    max: int = 0
    last_value: int = 0
    last_timestamp: int = 0
    alert_flags: int = 0
    min: int = 0
    unique: int = 0

    @property
    def average(self) -> float:
        """sum / count for display; bill from `sum` and `count`, which are exact."""
        return self.sum / self.count if self.count else 0.0

    def number(self, agg_type: AggType) -> int:
        """The one integer a metric of `agg_type` stands for (AVG: floor)."""
        match agg_type:
            case AggType.SUM:
                return self.sum
            case AggType.MAX:
                return self.max
            case AggType.MIN:
                return self.min
            case AggType.LATEST:
                return self.last_value
            case AggType.AVG:
                return self.sum // self.count if self.count else 0
            case _:
                return self.count


@dataclass
class UsageResult:
    """A total and the range it answers for."""

    value: AggValue
    period_start: datetime | None = None
    period_end: datetime | None = None
    position: int = 0


@dataclass
class DimensionFilter:
    """One dimension of a metric; an empty `values` lets any value in."""

    key: str
    values: list[str] = field(default_factory=list)


@dataclass
class AlertThreshold:
    """Fires once per period; with `recurring`, again after each return to the other side."""

    code: str
    value: int
    recurring: bool = False
    direction: Direction = Direction.RISING


@dataclass
class MetricSchema:
    """A metric's definition. `filters` are its dimensions, in the SDK's word."""

    code: str
    agg_type: AggType
    recurring: bool = False
    field_name: str = ""
    period_type: PeriodType = PeriodType.FIXED
    billing_cycle_day: int = 1
    filters: list[DimensionFilter] = field(default_factory=list)
    thresholds: list[AlertThreshold] = field(default_factory=list)
    period: timedelta | None = None  # FIXED only; None = 30 days
    zone: str = "UTC"  # IANA name; CALENDAR, DAY, WEEK and HOUR only
    resolution: Resolution = Resolution.DAY


@dataclass
class Period:
    """A half-open range ``[start, end)``."""

    start: datetime
    end: datetime


@dataclass
class EventRecord:
    """One stored (counted) event."""

    account_id: Account
    metric_code: str
    value: int
    operation_type: OperationType
    timestamp: datetime
    offset: int
    properties: dict[str, str] = field(default_factory=dict)
    id: str | None = None
    timestamp_ns: int = 0


@dataclass
class AlertRecord:
    """One crossing. `log_offset` is the offset of the event that crossed;
    `position` numbers alerts one by one and is what a subscription resumes from."""

    node_addr: str
    log_offset: int
    account_id: Account
    metric_code: str
    threshold_code: str
    value_at_cross: int
    triggered_at: datetime
    position: int = 0
    direction: Direction = Direction.RISING
    period_start: datetime | None = None


@dataclass(frozen=True)
class TotalChange:
    """The total of an account and a metric in its current billing period, after a change.

    An absolute value: the newest one is all that counts. `position` is the log index that it
    reflects.
    """

    account_id: Account
    metric_code: str
    agg_type: AggType
    value: AggValue
    period_start: datetime
    period_end: datetime
    position: int = 0

    @property
    def number(self) -> int:
        """The one integer that the metric stands for."""
        return self.value.number(self.agg_type)


@dataclass(frozen=True)
class Overflow:
    """More totals changed than were kept for a stream: read again what matters."""

    position: int = 0


@dataclass(frozen=True)
class AccountTotal:
    """One line of the invoice run: an account of a metric and its total."""

    account_id: Account
    value: AggValue


@dataclass(frozen=True)
class SeriesPoint:
    """One window of a time series, ``[start, end)``."""

    start: datetime
    end: datetime
    value: AggValue


Filters = Mapping[str, str]
