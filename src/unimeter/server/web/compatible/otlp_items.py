"""From OTLP's messages to items: one for each data point, one for each log record.

Owns which kinds of point a metric can count exactly:

    point                          metrics that take it       what is counted
    sum, delta                     SUM                        its number is added
    sum, cumulative                LATEST, MAX, MIN           the running total, as a level
    gauge                          LATEST, MAX, MIN, AVG      the level
    histogram (either), delta      SUM; MAX and MIN by rule   its sum, or what the rule names
    histogram, cumulative; summary none

A cumulative sum into a SUM metric would need the point before it, exactly once and in order, for
as long as the sender lives; a receiver that lost its memory would bill the whole sum again. So
it is refused with the setting that makes the sender send deltas.

The id of a point is made of everything that says which point it is (resource, scope, name,
attributes, start and time), not of its number: sent again it is a duplicate, and with another
number a conflict, which is told. A log record is known by ``log.record.uid`` where it has one,
else by all that it says.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from unimeter.server.web.compatible.amounts import Refused, canonical, key
from unimeter.server.web.compatible.drafts import Item, Shape
from unimeter.server.web.problems import bad
from unimeter.types import AggType, MetricSchema, Outcome

ACCOUNT: Final = "unimeter.account"
METRICS: Final = Shape(
    "otlp_metrics",
    (f"attributes.{ACCOUNT}", f"resource.{ACCOUNT}"),
    ("key",),
    "time",
    ("attributes", "resource"),
    value="value",
)
LOGS: Final = Shape(
    "otlp_logs",
    (f"attributes.{ACCOUNT}", f"resource.{ACCOUNT}"),
    ("key",),
    "time",
    ("attributes", "body", "resource"),
)
UID: Final = "log.record.uid"
DEPTH_MAX: Final = 16  # of a value inside values
NO_VALUE: Final = 1  # the flag of a point that says "there was nothing"
DELTA, CUMULATIVE = 1, 2
_TEMPORALITIES: Final = {
    1: DELTA,
    2: CUMULATIVE,
    "AGGREGATION_TEMPORALITY_DELTA": DELTA,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": CUMULATIVE,
}
_NS_DIGITS_MAX: Final = 20
_SUM = frozenset({AggType.SUM})
_LEVELS = frozenset({AggType.LATEST, AggType.MAX, AggType.MIN})
_GAUGE = _LEVELS | {AggType.AVG}
_BY_RULE = frozenset({AggType.SUM, AggType.MAX, AggType.MIN})
_SET_DELTA: Final = (
    "have the sender send deltas (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta)"
)


def points(request: Any) -> Iterator[Item]:
    """The data points of a metrics request that have a value, in order."""
    index = 0
    for group in request.resource_metrics:
        resource = attributes(group.resource)
        for scoped in group.scope_metrics:
            origin = _origin(resource, scoped.scope)
            for metric in scoped.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                for point in data.data_points:
                    if getattr(point, "flags", 0) & NO_VALUE:
                        continue
                    yield _point(index, origin, metric, kind, data, point)
                    index += 1


def records(request: Any) -> Iterator[Item]:
    """The records of a logs request, in order."""
    index = 0
    for group in request.resource_logs:
        resource = attributes(group.resource)
        for scoped in group.scope_logs:
            origin = _origin(resource, scoped.scope)
            for record in scoped.log_records:
                yield _record(index, origin, record)
                index += 1


def _origin(resource: dict[str, Any], scope: Any) -> dict[str, Any]:
    """What all points of a scope share, with its part of their ids."""
    shown = {"name": "", "version": "", "attributes": {}}
    if scope is not None:
        shown = {
            "name": scope.name,
            "version": scope.version,
            "attributes": attributes(scope),
        }
    return {"resource": resource, "scope": shown, "origin": canonical([resource, shown])}


def _point(
    index: int, origin: dict[str, Any], metric: Any, kind: str, data: Any, point: Any
) -> Item:
    tags = attributes(point)
    temporality = _TEMPORALITIES.get(getattr(data, "aggregation_temporality", 0), 0)
    start = nanoseconds(getattr(point, "start_time_unix_nano", 0))
    time_ns = nanoseconds(point.time_unix_nano)
    parts = [origin["origin"], metric.name, kind, canonical(tags), str(start), str(time_ns)]
    view = {
        "name": metric.name,
        "unit": metric.unit,
        "kind": kind,
        "attributes": tags,
        "resource": origin["resource"],
        "scope": origin["scope"],
        "key": key(parts),
    }
    view |= _numbers(kind, point)

    def check(schema: MetricSchema, has_value: bool) -> None:
        _check_time(time_ns)
        check_kind(kind, temporality, schema, has_value)

    return Item(index, metric.name, view, time_ns, check)


def _numbers(kind: str, point: Any) -> dict[str, Any]:
    """What of a point can be counted; `value` is what is unless a rule says otherwise."""
    if kind in ("sum", "gauge"):
        which = point.WhichOneof("value")
        if which == "as_int":
            return {"value": integer(point.as_int)}
        return {"value": exact_double(point.as_double)} if which else {}
    found: dict[str, Any] = {"count": integer(point.count)}
    if kind == "summary":
        return found
    for name in ("sum", "min", "max"):
        if point.HasField(name):
            found[name] = exact_double(getattr(point, name))
    return found | ({"value": found["sum"]} if "sum" in found else {})


def check_kind(kind: str, temporality: int, schema: MetricSchema, has_value: bool) -> None:
    """Raise Refused where this metric can't count such a point exactly."""
    agg = schema.agg_type
    if kind == "gauge":
        allowed, said, advice = _GAUGE, "a gauge is a level", "count it in LATEST, MAX, MIN or AVG"
    elif kind == "summary":
        allowed, said, advice = frozenset(), "a summary has quantiles", "send a sum or a histogram"
    elif temporality == CUMULATIVE:
        allowed = _LEVELS if kind == "sum" else frozenset()
        said, advice = f"a cumulative {kind} is not counted exactly", _SET_DELTA
    elif temporality != DELTA:
        allowed, said, advice = frozenset(), f"a {kind} needs its temporality", _SET_DELTA
    elif kind == "sum":
        allowed, said, advice = _SUM, "a sum is added", "count it in a metric of the type SUM"
    else:
        allowed = _BY_RULE if has_value else _SUM
        said = "of a histogram the sum is added"
        advice = "count it in SUM, or map sum, count, max or min"
    if agg not in allowed:
        text = f"{said}, and {schema.code!r} is {agg.name}: {advice}"
        raise Refused(Outcome.BAD_VALUE, text, "value")


def _record(index: int, origin: dict[str, Any], record: Any) -> Item:
    tags = attributes(record)
    body = value_of(record.body) if record.body is not None else None
    time_ns = nanoseconds(record.time_unix_nano) or nanoseconds(record.observed_time_unix_nano)
    name = getattr(record, "event_name", "") or _text_of(tags.get("event.name"))
    trace, span = _hex(record.trace_id), _hex(record.span_id)
    parts = [origin["origin"], name, canonical([tags, body, trace, span]), str(time_ns)]
    uid = _text_of(tags.get(UID))
    view = {
        "event_name": name,
        "body": body,
        "attributes": tags,
        "resource": origin["resource"],
        "scope": origin["scope"],
        "severity": record.severity_text,
        "trace_id": trace,
        "span_id": span,
        "key": key([uid]) if uid else key(parts),
    }
    return Item(index, name, view, time_ns, lambda schema, has_value: _check_time(time_ns))


def _check_time(time_ns: int) -> None:
    if not time_ns:
        text = "no time: a resend of what has none could not be told from another one"
        raise Refused(Outcome.BAD_TIMESTAMP, text, "time_unix_nano")


# --- values ------------------------------------------------------------------------


def attributes(holder: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {} if holder is None else _pairs(holder.attributes, 0)


def _pairs(pairs: Any, depth: int) -> dict[str, Any]:
    return {pair.key: value_of(pair.value, depth) for pair in pairs}


def value_of(value: Any, depth: int = 0) -> Any:
    """A value of an attribute as Python has it."""
    if depth > DEPTH_MAX:
        raise bad("body", "has a value that is nested too deeply", f"at most {DEPTH_MAX} levels")
    which = value.WhichOneof("value") if value is not None else None
    if which is None:
        return None
    found = getattr(value, which)
    match which:
        case "int_value":
            return integer(found)
        case "double_value":
            return exact_double(found)
        case "array_value":
            return [value_of(one, depth + 1) for one in found.values]
        case "kvlist_value":
            return _pairs(found.values, depth + 1)
        case "bytes_value":
            return base64.b64encode(found).decode() if isinstance(found, bytes) else found
        case _:
            return found


def integer(value: int | str) -> int:
    """A 64-bit integer, which JSON may give as digits."""
    try:
        return int(value) if isinstance(value, int) or len(value) <= _NS_DIGITS_MAX else _no(value)
    except ValueError:
        return _no(value)


def nanoseconds(value: int | str) -> int:
    """A time; one beyond 64 bits is refused like any wrong one."""
    found = integer(value)
    return found if 0 <= found < 2**63 else 2**63 - 1


def _no(value: object) -> int:
    raise bad("body", f"has {str(value)[:40]!r} where a number belongs", "a 64-bit integer")


def exact_double(value: Any) -> Any:
    """A double as the shortest decimal that names it; what is no number stays what it is."""
    if isinstance(value, float):
        return Decimal(repr(value)) if value - value == 0 else str(value)
    return value


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _hex(value: str | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else value.lower()
