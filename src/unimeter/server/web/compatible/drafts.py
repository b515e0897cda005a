"""From an item of another product to the events that it stands for.

Owns how one rule is carried out: where account, value, tags, id and time are looked for, what
holds where the rule names no place, and why an item is refused. `server.mapping` says which
rules there are; a `Shape` says where a product keeps its things:

    item ─ name ─> rules ─┬─ metric ─ account ─ value ─ tags ─ id ─ time ─> Draft
                          └─ ... one for each rule that matches

An item is mapped as a whole: if one of its drafts is refused, none is sent. Otherwise a
resend after the mapping was mended would have to count a half.

Refuses to guess. An amount that is not whole, a value that the metric's definition names and the
item has not, an account that is nowhere: each refuses that item and says what was missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from unimeter import limits
from unimeter.accounts import parse_account
from unimeter.keys import Principal
from unimeter.server.mapping import BY_NAME, Rule, Section, lookup, paths_of
from unimeter.server.web.compatible.amounts import Refused, amount, key, member, moment, shown
from unimeter.types import Account, AggType, MetricSchema, OperationType, Outcome

OPERATIONS: Final = {"none": 0, "add": int(OperationType.ADD), "remove": int(OperationType.REMOVE)}

Schemas = Callable[[str], MetricSchema | None]
"""Finds a metric's definition by its code."""


@dataclass(frozen=True)
class Shape:
    """Where a product keeps what an event is made of. Paths; the first that is there counts."""

    section: str
    account: tuple[str, ...]
    id: tuple[str, ...]
    time: str
    holders: tuple[str, ...]  # of values and tags, which are looked up by their name in each
    value: str = ""  # one place for the value, whatever the metric's definition says
    operation: tuple[str, ...] = ("operation_type", "operation")


@dataclass(slots=True)
class Item:
    """One thing that was sent. `time_ns` is given where the product counts nanoseconds."""

    index: int
    name: str
    view: Mapping[str, Any]  # what paths lead into
    time_ns: int = 0
    check: Callable[[MetricSchema, bool], None] = lambda schema, has_value: None
    """Raises Refused where the item is of a kind that the metric can't count."""


@dataclass(slots=True)
class Draft:
    """One event, not sent yet."""

    index: int  # of its item
    account: Account
    metric: str
    value: int
    timestamp_ns: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    operation: int = 0
    id: str | None = None


@dataclass(slots=True)
class Mapper:
    """What is needed to map the items of one request."""

    shape: Shape
    section: Section
    schemas: Schemas
    principal: Principal
    builtin: Callable[[Item], list[Rule]] = field(default=lambda item: [])
    """Rules of the product's own, for items that no rule of the file matches."""

    def drafts(self, item: Item) -> list[Draft]:
        """The events of an item; none where it is ignored. Raises Refused."""
        found = []
        rules = self._rules(item)
        for rule in rules:
            draft = self._draft(item, rule)
            if draft is not None:
                found.append(draft)
        return found

    def _rules(self, item: Item) -> list[Rule]:
        named = self.section.rules(item.name)
        if named:
            return [rule for rule in named if _holds(rule, item.view)]
        if self.section.unmapped == "ignore":
            return []
        if self.section.unmapped == "refuse":
            text = f"no rule of [[{self.shape.section}]] in the mapping file matches {item.name!r}"
            raise Refused(Outcome.UNKNOWN_METRIC, text)
        return self.builtin(item) or [BY_NAME]

    def _draft(self, item: Item, rule: Rule) -> Draft | None:
        metric = rule.metric or item.name
        if not metric:
            text = "it has no name to be counted by; give it one, or map it with match = '*'"
            raise Refused(Outcome.BAD_METRIC_CODE, text)
        account = self._account(item, rule)
        self.principal.check_sees(account, metric)
        schema = self.schemas(metric)
        if schema is None:
            text = f"there is no metric {metric!r}; create it first, or name another in the mapping"
            raise Refused(Outcome.UNKNOWN_METRIC, text)
        item.check(schema, rule.value is not None)
        value, place = self._value(item, rule, schema)
        if value is None:
            return None
        return Draft(
            item.index,
            account,
            metric,
            _counted(value, place, rule, schema),
            self._time(item, rule),
            self._tags(item, rule, schema),
            self._operation(item, rule, schema),
            self._id(item, rule),
        )

    # --- the parts of an event ---------------------------------------------------------

    def _account(self, item: Item, rule: Rule) -> Account:
        paths = paths_of(rule.account, self.shape.account)
        value, place = _first(item.view, paths)
        if isinstance(value, str) and value:
            return parse_account(value)
        if type(value) is int and 0 <= value < 2**64:
            return value
        if value is None:
            raise Refused(Outcome.BAD_ACCOUNT, f"no account: nothing at {_listed(paths)}", paths[0])
        text = f"{shown(value)} is no account: text, or an integer from 0 to 2^64-1"
        raise Refused(Outcome.BAD_ACCOUNT, text, place)

    def _value(self, item: Item, rule: Rule, schema: MetricSchema) -> tuple[Any, str]:
        """(what is to be counted, where it stood); None: there is nothing, and that is fine."""
        if isinstance(rule.value, int):
            return rule.value, ""
        if rule.value is not None or self.shape.value:
            paths = paths_of(rule.value, (self.shape.value,))
        elif schema.field_name:
            name = schema.field_name.removeprefix("$.")
            paths = _under(self.shape.holders, name)
        else:
            return self._plain_value(item, schema)
        value, place = _first(item.view, paths)
        if value is None and not rule.optional:
            text = f"nothing to count for {schema.code!r}: nothing at {_listed(paths)}"
            raise Refused(Outcome.BAD_VALUE, text, paths[0])
        return value, place

    def _plain_value(self, item: Item, schema: MetricSchema) -> tuple[Any, str]:
        """`value` where the product keeps such things; else 1, the event itself.

        A COUNT metric counts events, whatever their `value` is.
        """
        if schema.agg_type is AggType.COUNT:
            return 1, ""
        value, place = _first(item.view, _under(self.shape.holders, "value"))
        if value is not None:
            return value, place
        holder = self.shape.holders[0]
        held = item.view.get(holder)
        if held is not None and not isinstance(held, Mapping):
            text = f"{holder} is {shown(held)}, not an object; map its value, or send an object"
            raise Refused(Outcome.BAD_VALUE, text, holder)
        if schema.agg_type is AggType.COUNT_UNIQUE:
            text = f"no member for {schema.code!r}: nothing at {holder}.value"
            raise Refused(Outcome.BAD_VALUE, text, holder)
        return 1, ""

    def _tags(self, item: Item, rule: Rule, schema: MetricSchema) -> tuple[tuple[str, str], ...]:
        found = []
        for dimension in schema.filters:
            if dimension.key in rule.tags:
                continue
            value, place = _first(item.view, _under(self.shape.holders, dimension.key))
            if value is not None:
                found.append((dimension.key, _text(value, place)))
        for name, path in rule.tags.items():
            value = lookup(item.view, path)
            if value is not None:
                found.append((name, _text(value, path)))
        return tuple(found)

    def _time(self, item: Item, rule: Rule) -> int:
        if rule.time is None and item.time_ns:
            return item.time_ns
        path = rule.time or self.shape.time
        value = lookup(item.view, path)
        if value is not None:
            return moment(value, path)
        if rule.time is not None:
            raise Refused(Outcome.BAD_TIMESTAMP, f"no time: nothing at {path}", path)
        return 0

    def _operation(self, item: Item, rule: Rule, schema: MetricSchema) -> int:
        if schema.agg_type is not AggType.COUNT_UNIQUE:
            return 0
        names = self.shape.operation
        default = tuple(path for name in names for path in _under(self.shape.holders, name))
        value, place = _first(item.view, paths_of(rule.operation, default))
        if value is None:
            return 0
        found = OPERATIONS.get(value.lower()) if isinstance(value, str) else None
        if found is None:
            text = f"{shown(value)} is no operation: add, remove or none"
            raise Refused(Outcome.BAD_OPERATION, text, place)
        return found

    def _id(self, item: Item, rule: Rule) -> str | None:
        paths = paths_of(rule.id, self.shape.id)
        parts = [lookup(item.view, path) for path in paths]
        if rule.id is None and None in parts:
            return None
        texts = []
        for part, path in zip(parts, paths, strict=True):
            if part is None or part == "":
                raise Refused(Outcome.BAD_ID, f"no id: nothing at {path}", path)
            texts.append(_text(part, path))
        return key(texts)


def _holds(rule: Rule, view: Mapping[str, Any]) -> bool:
    """Whether everything stands where the rule wants it."""
    return all(
        type(found := lookup(view, path)) is type(wanted) and found == wanted
        for path, wanted in rule.where.items()
    )


def _counted(value: Any, place: str, rule: Rule, schema: MetricSchema) -> int:
    if isinstance(rule.value, int):
        return rule.value
    if rule.hash_members and schema.agg_type is AggType.COUNT_UNIQUE:
        return member(_text(value, place))
    return amount(value, rule.scale, place)


@lru_cache(maxsize=4096)
def _under(holders: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The paths of a name in each of the places where such things are kept."""
    return tuple(f"{holder}.{name}" for holder in holders)


def _first(view: Mapping[str, Any], paths: tuple[str, ...]) -> tuple[Any, str]:
    """What stands at the first path that leads somewhere, and that path."""
    for path in paths:
        value = lookup(view, path)
        if value is not None:
            return value, path
    return None, ""


def _text(value: Any, place: str) -> str:
    """A tag or a part of an id as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | bytes):
        text = f"{shown(value)} is no text of at most {limits.PROPERTY_VALUE_BYTES_MAX} bytes"
        raise Refused(Outcome.BAD_PROPERTY, text, place)
    return str(value)


def _listed(paths: tuple[str, ...]) -> str:
    return " or ".join(paths)
