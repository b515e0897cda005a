"""What would be right at a place of a JSON body, in words, from the type that it must have.

Owns the way from what msgspec says of a mistake to a `Fault`: the path of the member that is
wrong, missing or not known, and what is expected there. The words come from the type's JSON
schema, the same that the OpenAPI page shows, so they can't say something else.

    $.type: invalid enum value 'median'   ->  one of: count, sum, max, ...
    $.name: object missing ... `name`     ->  a text of 1 to 100 characters
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from unimeter.server.web.problems import Fault, fault_at

_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_NAME_MAX: Final = 80
_LIMITS: Final = {2**63 - 1: "2^63-1", -(2**63): "-2^63", 2**64 - 1: "2^64-1", 2**53 - 1: "2^53-1"}
_NOUNS: Final = {
    "string": "a text", "integer": "an integer", "number": "a number", "boolean": "true or false",
    "null": "null", "array": "an array", "object": "an object",
}  # fmt: skip


def fault_of(error: msgspec.ValidationError, kind: Any) -> Fault:
    """The fault that msgspec found in what should have been a `kind`."""
    said, _, where = str(error).partition(" - at `")
    path = where.rstrip("`") or "$"
    if (missing := _MISSING.fullmatch(said)) is not None:
        path = f"{path}.{missing[1]}"
        return fault_at(path, "is missing", expected_at(kind, path))
    if (unknown := _UNKNOWN.fullmatch(said)) is not None:
        names = ", ".join(_members(kind, path))
        reason = "is no member of this object; a misspelt one would otherwise vanish"
        return fault_at(f"{path}.{unknown[1][:_NAME_MAX]}", reason, f"one of: {names}")
    return fault_at(path, said[0].lower() + said[1:], expected_at(kind, path))


def expected_at(kind: Any, path: str) -> str:
    """What stands at `path` of a `kind`, in words."""
    defined, schema = _schema_of(kind)
    return _words(_at(schema, path, defined), defined) or "another value"


@lru_cache(64)
def _whole_schema(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    schema = msgspec.json.schema(kind)
    return schema.get("$defs", {}), schema


def _schema_of(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return ({}, {}) if kind is Any else _whole_schema(kind)


def _members(kind: Any, path: str) -> list[str]:
    defined, schema = _schema_of(kind)
    return list(_at(schema, path, defined).get("properties", {}))


def _at(schema: Mapping[str, Any], path: str, defined: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of what stands at a path."""
    found = _resolved(schema, defined)
    for name, _ in _STEP.findall(path):
        found = _resolved(_inner(found, name, defined), defined)
    return found


def _inner(schema: Mapping[str, Any], name: str, defined: Mapping[str, Any]) -> Mapping[str, Any]:
    """One step down: a member of an object, or, without a name, an item of an array."""
    for choice in [schema, *schema.get("anyOf", [])]:
        one = _resolved(choice, defined)
        found = one.get("properties", {}).get(name) if name else one.get("items")
        if found is None:
            found = one.get("additionalProperties")
        if isinstance(found, Mapping):
            return found
    return {}


def _resolved(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = defined.get(name, {}) if name else schema
    return found


def _words(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    schema = _resolved(schema, defined)
    if "enum" in schema:
        return "one of: " + ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        some = [_words(one, defined) for one in schema["anyOf"]]
        return ", or ".join(one for one in some if one and one != "null")
    kind = schema.get("type", "")
    said = _NOUNS.get(kind, "")
    if kind in ("integer", "number"):
        said += _between(schema.get("minimum"), schema.get("maximum"))
    elif kind == "string":
        said += _between(schema.get("minLength"), schema.get("maxLength"), "characters", "of ")
        said += f" that matches {schema['pattern']}" if "pattern" in schema else ""
    elif kind == "array":
        said += _between(schema.get("minItems"), schema.get("maxItems"), "items", "of ")
    elif kind == "object" and schema.get("properties"):
        said += f" with {', '.join(schema.get('required') or schema['properties'])}"
    about = schema.get("description", "")
    return f"{said}: {about}" if about and kind != "object" else said


def _between(least: Any, most: Any, unit: str = "", word: str = "from ") -> str:
    if least is None and most is None:
        return ""
    low, high = (_LIMITS.get(one, one) for one in (least, most))
    if most is None:
        return f" of at least {low} {unit}".rstrip()
    if least is None:
        return f" of at most {high} {unit}".rstrip()
    return f" {word}{low} to {high} {unit}".rstrip()
