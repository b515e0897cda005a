"""The mapping file: how what other products send becomes events of this one.

Owns the file's words and their checks, and which rules hold for an item. An item is one
CloudEvent, one event of Lago or Stripe, one OTLP data point or log record. It has a name (the
CloudEvents type, Lago's code, Stripe's event_name, the OTLP metric, the log's event name), and
rules are found by it:

    [[cloudevents]]                     ─┐
    match = "llm.completion"             │  each rule that matches makes one event, so that
    metric = "tokens"                    │  one item may feed several metrics
    value = "data.usage.total"          ─┘

What no rule matches is counted under its own name, refused or ignored, as ``[unmapped]`` says.
Everything but `match` has a default, so an empty file, or none, is a mapping too. Words that
are not known are refused with the place: a misspelt ``scale`` would be a wrong invoice.

Refuses to know what an item looks like and how amounts are read (`server.web.compatible.drafts`).

Rejected: expressions (JSONPath, CEL, templates). A path and a power of ten cover what the
products themselves can say, and whoever reads the file sees what is counted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from unimeter import limits
from unimeter.errors import InvalidInputError

RULES_MAX: Final = 1024  # of one section: each item of a name with a star walks them
SCALE_MAX: Final = 18  # decimals: 10**18 is the last power of ten in 64 bits

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Paths = Text | Annotated[list[Text], msgspec.Meta(min_length=1, max_length=8)]
Code = Annotated[str, msgspec.Meta(max_length=limits.METRIC_CODE_BYTES_MAX)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way from an item to an event. A path is dotted: ``data.usage.total``."""

    match: Text  # the item's name; a star at the end stands for anything
    metric: Code = ""  # empty = the item's name
    where: dict[Text, str | int | bool] = {}
    account: Paths | None = None  # of several paths the first that leads somewhere
    value: Paths | int | None = None  # a number is counted as it is
    scale: Annotated[int, msgspec.Meta(ge=0, le=SCALE_MAX)] = 0  # decimals that are kept
    tags: dict[Text, Text] = {}
    id: Paths | None = None  # several are joined, and all must be there
    time: Text | None = None
    operation: Text | None = None
    optional: bool = False  # no value there: no event, and no refusal
    hash_members: bool = False  # COUNT_UNIQUE of texts: 63 bits of their hash are the member

    def matches(self, name: str) -> bool:
        """Whether it is for items of this name."""
        if self.match.endswith("*"):
            return name.startswith(self.match[:-1])
        return name == self.match


Unmapped = Literal["by-name", "refuse", "ignore"]
SECTIONS: Final = ("cloudevents", "lago", "stripe", "otlp_metrics", "otlp_logs")


class UnmappedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of items that no rule matches, by section."""

    cloudevents: Unmapped = "by-name"
    lago: Unmapped = "by-name"
    stripe: Unmapped = "by-name"
    otlp_metrics: Unmapped = "by-name"
    otlp_logs: Unmapped = "by-name"


_Rules = Annotated[list[Rule], msgspec.Meta(max_length=RULES_MAX)]


class MappingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    cloudevents: _Rules = []
    lago: _Rules = []
    stripe: _Rules = []
    otlp_metrics: _Rules = []
    otlp_logs: _Rules = []
    unmapped: UnmappedBody = UnmappedBody()


BY_NAME: Final = Rule("*")
"""What holds for an item that is counted under its own name."""


class Section:
    """The rules of one kind of item."""

    def __init__(self, rules: Iterable[Rule], unmapped: Unmapped) -> None:
        self.unmapped: Unmapped = unmapped
        self._exact: dict[str, list[tuple[int, Rule]]] = {}
        self._starred: list[tuple[int, Rule]] = []
        self.rules_count = 0
        for place, rule in enumerate(rules):
            self.rules_count += 1
            if rule.match.endswith("*"):
                self._starred.append((place, rule))
            else:
                self._exact.setdefault(rule.match, []).append((place, rule))

    def rules(self, name: str) -> list[Rule]:
        """The rules for items of this name, in the order of the file."""
        found = list(self._exact.get(name, ()))
        found += [(place, rule) for place, rule in self._starred if rule.matches(name)]
        return [rule for _, rule in sorted(found, key=lambda pair: pair[0])]


class Mappings:
    """The sections of a file."""

    def __init__(self, body: MappingBody | None = None) -> None:
        body = body or MappingBody()
        self.sections = {
            name: Section(getattr(body, name), getattr(body.unmapped, name)) for name in SECTIONS
        }


def parse_mapping(text: str, where: str = "mapping file") -> Mappings:
    """The mappings that `text` (TOML) describes; InvalidInputError names the place."""
    try:
        body = msgspec.convert(tomllib.loads(text), MappingBody)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{where} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{where}: {_sentence(str(error))}") from None
    return Mappings(body)


def load_mapping(path: str) -> Mappings:
    """The mappings of a file; those of no file where `path` is empty."""
    if not path:
        return Mappings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"mapping file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"mapping file {path} is not UTF-8: byte {error.start}") from None
    return parse_mapping(text, f"mapping file {path}")


def _sentence(error: str) -> str:
    """msgspec's words with the place in front, and the words that exist where one is unknown."""
    reason, _, place = error.partition(" - at `$.")
    reason = reason[:1].lower() + reason[1:]
    if "unknown field" in reason:
        names = Rule.__struct_fields__ if "[" in place else MappingBody.__struct_fields__
        reason += f"; the words are {', '.join(names)}"
    return f"{place.rstrip('`')}: {reason}" if place else reason


# --- paths -------------------------------------------------------------------------


def lookup(view: Any, path: str) -> Any:
    """What stands at a dotted path; None where there is nothing.

    Keys may have dots themselves, as those of OpenTelemetry do: at each step the longest key
    that is there is taken, so ``attributes.gen_ai.usage.input_tokens`` finds its way.
    """
    if not isinstance(view, dict):
        return None
    if path in view:
        return view[path]
    end = path.rfind(".")
    while end > 0:
        if path[:end] in view:
            return lookup(view[path[:end]], path[end + 1 :])
        end = path.rfind(".", 0, end)
    return None


def paths_of(given: str | list[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """The paths of a rule, or the default ones."""
    if given is None:
        return default
    return (given,) if isinstance(given, str) else tuple(given)
