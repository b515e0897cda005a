"""Which member of a request a refusal of the engine is about.

The engine says what is wrong and how to mend it, as a sentence, and knows nothing of JSON or of
parameters. Owns the way from there to a `Fault` with a path:

    a definition    its parts are asked about one by one, by the engine's own rules; the first
                    that is refused is the place                  $.dimensions[0].key
    anything else   the noun that the sentence is about           cursor, group_by, $.url

Where neither is known, the fault is of the whole request, with the engine's words.

Rejected: paths in the engine's errors. The same rule is broken by a line of a shell, a call of a
program and an entry of a log, which have no path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from starlette.requests import Request

from unimeter import limits
from unimeter.engine.schema_rules import check_schema
from unimeter.errors import InvalidInputError
from unimeter.server.web.problems import Problem, fault_at
from unimeter.types import AggType, DimensionFilter, MetricSchema

_WANTED: Final = {
    "code": f"a text of 1 to {limits.METRIC_CODE_BYTES_MAX} bytes without control characters",
    "field": f"a text of at most {limits.FIELD_NAME_BYTES_MAX} bytes without control characters",
    "recurring": "false, or true with the type count-unique",
    "cycle_day": f"{limits.CYCLE_DAY_MIN} to {limits.CYCLE_DAY_MAX}, with the period month",
    "period": "hour, day, week, month, lifetime, or a duration from 1m to 73000d",
    "zone": "an IANA zone, with the period hour, day, week or month",
    "key": f"a text of 1 to {limits.PROPERTY_KEY_BYTES_MAX} bytes without control characters",
    "values": f"at most {limits.DIMENSION_VALUES_MAX} texts of 1 to "
    f"{limits.DIMENSION_VALUE_BYTES_MAX} bytes, each once",
    "dimensions": f"at most {limits.DIMENSIONS_PER_METRIC_MAX}, each key once",
    "thresholds": f"at most {limits.THRESHOLDS_PER_METRIC_MAX}, each code once, with codes of 1 "
    f"to {limits.THRESHOLD_CODE_BYTES_MAX} bytes",
}
_Part = tuple[str, MetricSchema]

# --- a definition ------------------------------------------------------------------


def checked_definition(schema: MetricSchema, root: str = "$") -> MetricSchema:
    """`schema`, or the problem that names the member which breaks a rule."""
    try:
        check_schema(schema)
    except InvalidInputError as error:
        path = root + _place(schema)
        expected = _WANTED.get(re.sub(r"\[[0-9]+\]", "", path).rpartition(".")[2], "")
        fault = fault_at(path, str(error), expected or _WANTED["thresholds"])
        raise Problem(400, "invalid-input", str(error), [fault]) from None
    return schema


def _place(schema: MetricSchema) -> str:
    for path, part in _parts(schema):
        try:
            check_schema(part)
        except InvalidInputError:
            return path
    return ""


def _parts(schema: MetricSchema) -> Iterator[_Part]:
    """Definitions of one part each, and where in the body that part stands."""
    bare = MetricSchema("x", AggType.COUNT)
    yield ".code", replace(bare, code=schema.code)
    yield ".field", replace(bare, field_name=schema.field_name)
    yield ".recurring", replace(bare, agg_type=schema.agg_type, recurring=schema.recurring)
    timed = replace(bare, period_type=schema.period_type)
    yield ".period", replace(timed, period=schema.period)
    yield ".cycle_day", replace(timed, billing_cycle_day=schema.billing_cycle_day)
    yield ".zone", replace(timed, zone=schema.zone)
    for at, one in enumerate(schema.filters):
        place = f".dimensions[{at}]"
        yield f"{place}.key", replace(bare, filters=[DimensionFilter(one.key, [])])
        for number, value in enumerate(one.values):
            alone = DimensionFilter(one.key, [value])
            yield f"{place}.values[{number}]", replace(bare, filters=[alone])
        yield f"{place}.values", replace(bare, filters=[one])
    yield ".dimensions", replace(bare, filters=schema.filters)
    for at, threshold in enumerate(schema.thresholds):
        yield f".thresholds[{at}].code", replace(bare, thresholds=[threshold])
    yield ".thresholds", replace(bare, thresholds=schema.thresholds)


# --- anything else -----------------------------------------------------------------

_DIMENSION: Final = re.compile(
    r"'(?P<key>.*)' is not a dimension of metric .*, which has (?P<known>.*); only", re.DOTALL
)
_MEMBER: Final = re.compile(r".*: (?P<name>\w+) is not (?P<expected>.*)", re.DOTALL)
_OF_WORDS: Final[tuple[tuple[str, str, str], ...]] = (
    # a word of the sentence, the place, what is expected there
    ("cursor", "cursor", "the cursor that a page of this very list gave, or none"),
    ("windows", "window", f"at most {limits.PAGE_ITEMS_MAX} windows: a longer one, or less time"),
    ("has members", "metric", "a metric of the type count-unique"),
    ("group_by", "group_by", "dimensions of the metric, each once"),
    ("the range", "end", "a range [start, end) whose end is after its start"),
    ("limit", "limit", "a number of rows that the route allows"),
    ("zone", "$.zone", "a zone of the IANA database, such as Europe/Berlin"),
    ("webhook's URL", "$.url", "http:// or https://, a host and a path"),
    ("webhook's secret", "$.secret", "whsec_ and base64 of 16 to 64 bytes"),
    ("an account", "$.accounts", "integers from 0 to 2^64-1, or texts of 1 to 64 bytes"),
    ("a metric's code", "$.metrics", "texts of 1 to 64 bytes"),
    ("newest alert", "$.after", "the position of an alert that is there, or 0"),
    ("key needs a name", "$.name", "a text of 1 to 100 printable characters"),
    ("scope admin", "$.scopes", "no admin for one account or metric"),
)


def placed(request: Request, error: InvalidInputError, root: str = "$") -> Problem:
    """The 400 for a refusal of the engine, with the place that it is about."""
    text = str(error)
    path, expected = _place_of(request, text)
    is_body = path.startswith("$.") and request.method != "GET"
    path = root + path[1:] if is_body else path.removeprefix("$.")
    return Problem(400, "invalid-input", text, [fault_at(path, text, expected)])


def _place_of(request: Request, text: str) -> tuple[str, str]:
    """The place that a sentence is about, and what is expected there."""
    if (found := _DIMENSION.search(text)) is not None:
        filters = request.query_params.getlist("filter")
        is_filter = any(one.startswith(f"{found['key']}:") for one in filters)
        name = "filter" if is_filter else "group_by"
        return name, f"dimensions of the metric: {found['known']}"
    for word, path, expected in _OF_WORDS:
        if word in text:
            return path, expected
    if (member := _MEMBER.fullmatch(text)) is not None:
        return f"$.{member['name']}", member["expected"]
    _, _, mend = text.rpartition("; ")
    is_bare = request.method in ("GET", "DELETE")
    return "request" if is_bare else "body", mend or "another request"
