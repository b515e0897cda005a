"""What a caller's events must look like before a single byte is sent.

Two kinds of mistake are told apart, because they have different owners:

- **A mistake in the program** (a float as a value, a naive datetime, a number
  where a string belongs) raises `InvalidInputError` with the fix in the
  message. Every event of the call is looked at before anything is sent, so
  such a call changes nothing.
- **A mistake in the data** (a tag that is too long, a timestamp in 1970) is
  one event's fault. That event is refused with an `Outcome`, as the server
  would refuse it, and the rest of the batch is counted. Raising instead would
  let one bad row block a whole stream for ever.

The bounds are those of `limits.py` and the order in which they are tried is
that of `Outcome`, so the answer is the same whether client or server finds
the fault first.

Rejected: leaving it all to the server. Most of these values do not fit the
wire's fields, and the message would arrive without the line that caused it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.types import (
    AlertThreshold,
    DimensionFilter,
    Event,
    MetricSchema,
    Outcome,
    check_integer,
    check_utc,
    from_ns,
)

_UINT64_MAX = 2**64 - 1
_MOMENT_MIN = from_ns(limits.TIMESTAMP_NS_MIN)
_MOMENT_MAX = from_ns(limits.TIMESTAMP_NS_MAX)


class _Known:
    """What was checked before in this batch: codes and tags repeat, checks need not."""

    __slots__ = ("codes", "pairs")

    def __init__(self) -> None:
        self.codes: dict[str, Outcome | None] = {}
        self.pairs: dict[tuple[str, str], Outcome | None] = {}


def event_list(events: Iterable[Event]) -> Sequence[Event]:
    """The events as a sequence: a generator is read once, here."""
    if isinstance(events, list | tuple):
        return events
    if isinstance(events, Event) or not isinstance(events, Iterable):
        raise InvalidInputError("events must be a list of Event; write ingest([event])")
    return list(events)


def check_events(events: Sequence[Event]) -> dict[int, Outcome]:
    """Raise on a program's mistake; return the indexes of refused events and why."""
    refused: dict[int, Outcome] = {}
    known = _Known()
    for index, event in enumerate(events):
        if not isinstance(event, Event):
            raise InvalidInputError(f"events[{index}] must be an Event, not {type(event).__name__}")
        try:
            outcome = _check_event(event, known)
        except InvalidInputError as error:
            raise InvalidInputError(f"events[{index}]: {error}") from None
        if outcome is not None:
            refused[index] = outcome
    return refused


def _check_event(event: Event, known: _Known) -> Outcome | None:
    """The first outcome that applies, in the order of `Outcome`; None = send it.

    Every field is looked at before any outcome is chosen: a mistake in the
    program must raise even where the data is wrong too. A plain event (an int
    account, no tags, no id) gets through in half a microsecond, hence the
    comparisons before the calls.
    """
    code, account, value, moment = (
        event.metric_code,
        event.account_id,
        event.value,
        event.timestamp,
    )
    try:
        code_outcome = known.codes[code]
    except (KeyError, TypeError):
        code_outcome = known.codes[code] = _check_code(code)
    account_outcome = (
        None if type(account) is int and 0 <= account <= _UINT64_MAX else _check_account(account)
    )
    moment_outcome = None if moment is None else _check_moment(moment)
    if type(value) is not int:
        check_integer(value, "Event.value")
    value_outcome = None if limits.VALUE_MIN <= value <= limits.VALUE_MAX else Outcome.BAD_VALUE
    operation: object = event.operation_type  # whatever the caller put there
    if isinstance(operation, bool) or not isinstance(operation, int):
        raise InvalidInputError(f"Event.operation_type must be an OperationType, not {operation!r}")
    operation_outcome = None if 0 <= operation <= 2 else Outcome.BAD_OPERATION
    properties = event.properties
    properties_outcome = _check_properties(properties, known) if properties else None
    id_outcome = None if event.id is None else _check_id(event.id)
    return (
        code_outcome
        or account_outcome
        or moment_outcome
        or value_outcome
        or operation_outcome
        or properties_outcome
        or id_outcome
    )


def _check_code(code: object) -> Outcome | None:
    if not isinstance(code, str):
        raise InvalidInputError(f"Event.metric_code must be a str, not {type(code).__name__}")
    return None if fits(code, limits.METRIC_CODE_BYTES_MAX, 1) else Outcome.BAD_METRIC_CODE


def _check_account(account: object) -> Outcome | None:
    if isinstance(account, str):
        return None if fits(account, limits.ACCOUNT_BYTES_MAX, 1) else Outcome.BAD_ACCOUNT
    if isinstance(account, bool) or not isinstance(account, int):
        raise InvalidInputError(
            f"Event.account_id must be an int or a str, not {type(account).__name__} {account!r}"
        )
    return None if 0 <= account <= _UINT64_MAX else Outcome.BAD_ACCOUNT


def _check_moment(moment: datetime) -> Outcome | None:
    return (
        None
        if _MOMENT_MIN <= check_utc(moment, "Event.timestamp") < _MOMENT_MAX
        else (Outcome.BAD_TIMESTAMP)
    )


def _check_properties(properties: object, known: _Known) -> Outcome | None:
    if not isinstance(properties, dict):
        raise InvalidInputError(f"Event.properties must be a dict, not {type(properties).__name__}")
    outcome = None
    for pair in properties.items():
        try:
            pair_outcome = known.pairs[pair]
        except (KeyError, TypeError):
            pair_outcome = _check_pair(*pair)
            known.pairs[pair] = pair_outcome
        outcome = outcome or pair_outcome
    if len(properties) > limits.PROPERTIES_PER_EVENT_MAX:
        return Outcome.TOO_MANY_PROPERTIES
    return outcome


def _check_pair(key: object, value: object) -> Outcome | None:
    if not isinstance(key, str) or not isinstance(value, str):
        raise InvalidInputError(
            f"Event.properties must map str to str, not {key!r} to {value!r}; "
            "write str(...) around it"
        )
    key_fits = fits(key, limits.PROPERTY_KEY_BYTES_MAX, 1)
    value_fits = fits(value, limits.PROPERTY_VALUE_BYTES_MAX, 0)
    return None if key_fits and value_fits else Outcome.BAD_PROPERTY


def _check_id(key: object) -> Outcome | None:
    if not isinstance(key, str):
        raise InvalidInputError(f"Event.id must be a str, not {type(key).__name__} {key!r}")
    return None if fits(key, limits.EVENT_ID_BYTES_MAX, 1) else Outcome.BAD_ID


def fits(text: str, bytes_max: int, bytes_min: int) -> bool:
    """Whether `text` is UTF-8 (no lone surrogate) of a length within the bounds.

    ASCII is told by a flag CPython keeps, so the common case encodes nothing.
    """
    if text.isascii():
        return bytes_min <= len(text) <= bytes_max
    try:
        return bytes_min <= len(text.encode()) <= bytes_max
    except UnicodeEncodeError:
        return False


def check_account(account: object, what: str = "account_id") -> int | str:
    """Return `account` if a query may name it; raise InvalidInputError if not."""
    try:
        outcome = _check_account(account)
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace("Event.account_id", what)) from None
    if outcome is not None:
        raise InvalidInputError(
            f"{what} {account!r} is not an integer from 0 to 2**64-1 "
            f"or a string of 1 to {limits.ACCOUNT_BYTES_MAX} bytes"
        )
    assert isinstance(account, int | str)
    return account


def check_metric_code(code: object) -> str:
    """Return `code` if it may name a metric; raise InvalidInputError if not."""
    if not isinstance(code, str):
        raise InvalidInputError(f"metric_code must be a str, not {type(code).__name__}")
    if not fits(code, limits.METRIC_CODE_BYTES_MAX, 1):
        raise InvalidInputError(
            f"metric_code {code!r} must have 1 to {limits.METRIC_CODE_BYTES_MAX} bytes of UTF-8"
        )
    return code


def check_schema(schema: object) -> MetricSchema:
    """Return `schema` if every part has its type; raise InvalidInputError with the fix if not.

    What the parts may say is the catalog's business; here they only must be
    such that they can be sent.
    """
    if not isinstance(schema, MetricSchema):
        raise InvalidInputError(
            f"expected a MetricSchema, not {type(schema).__name__}; "
            "write MetricSchema('api_calls', AggType.COUNT)"
        )
    what = f"metric {check_metric_code(schema.code)!r}"
    _check_parts(schema.filters, DimensionFilter, f"{what}: filters")
    _check_parts(schema.thresholds, AlertThreshold, f"{what}: thresholds")
    for dimension in schema.filters:
        _check_parts(dimension.values, str, f"{what}: values of {dimension.key!r}")
        _check_type(dimension.key, str, f"{what}: a dimension's key")
    for threshold in schema.thresholds:
        _check_type(threshold.code, str, f"{what}: a threshold's code")
        check_integer(threshold.value, f"{what}: value of threshold {threshold.code!r}")
        _check_type(threshold.direction, int, f"{what}: direction of {threshold.code!r}")
    for name in ("agg_type", "period_type", "resolution", "billing_cycle_day"):
        _check_type(getattr(schema, name), int, f"{what}: {name}")
    for name in ("zone", "field_name"):
        _check_type(getattr(schema, name), str, f"{what}: {name}")
    if schema.period is not None:
        _check_type(schema.period, timedelta, f"{what}: period")
    return schema


def _check_parts(parts: object, kind: type, what: str) -> None:
    if not isinstance(parts, list | tuple):
        raise InvalidInputError(f"{what} must be a list of {kind.__name__}, not {parts!r}")
    for part in parts:
        _check_type(part, kind, f"{what}: each")


def _check_type(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        hint = "; use the package's own names, such as AggType.SUM" if kind is int else ""
        raise InvalidInputError(f"{what} must be of type {kind.__name__}, not {value!r}{hint}")
