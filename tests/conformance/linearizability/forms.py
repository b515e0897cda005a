"""The three forms of a history file, told apart by their first line.

    INFO  jepsen.util - 0 <tab> :invoke <tab> :cas <tab> [0 3]        a register, one key
    {:process 9, :type :invoke, :f :append, :key "0", :value "x"}     a key-value store
    {"time_ns": 1, "process": 0, "type": "invoke", "f": "add", ...}   a counter (history.py)

How the outcomes of a register are read:

    :ok   :read v      it saw v; nil is a register that was never written
    :fail :read ...    it read nothing anybody knows of: left out
    :fail :cas [a b]   it was compared and the value was not a: a result, and checked
    :info :cas, :write timed out: may take effect at any later moment, or never

Lines of other processes (the nemesis) and of other loggers are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.conformance.linearizability.counter import check_counters
from tests.conformance.linearizability.history import is_ours, operations, parse
from tests.conformance.linearizability.models import KeyValue, Model, Register
from tests.conformance.linearizability.operations import Operation, Step, by_key, pair
from tests.conformance.linearizability.search import search
from tests.conformance.linearizability.verdict import Judgement, worst

Checker = Callable[[float], Judgement]  # takes the moment to give up at

JEPSEN: Final = re.compile(
    r"INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(invoke|ok|fail|info)\s+:(read|write|cas)\s+(.+?)\s*$"
)
JEPSEN_LOGGER: Final = re.compile(r"\bjepsen\.util\b")
KV: Final = re.compile(
    r"\{:process (\d+), :type :(invoke|ok|fail|info), :f :(get|put|append), "
    r':key "(.*?)", :value (nil|".*")\}\s*$'
)


def maybe_checker(path: Path) -> Checker | None:
    """Return what judges a file, or None if it is no history."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return None
    lines = [line for line in lines if line.strip()]
    if any(JEPSEN.match(line) for line in lines):
        register = pair(jepsen_steps(lines))
        return lambda give_up: check_each(lambda _: Register(), register, give_up)
    if lines and KV.match(lines[0]):
        store = pair(kv_steps(lines))
        return lambda give_up: check_each(KeyValue, store, give_up)
    if lines and is_ours(lines[0]):
        counters = operations(parse(lines))
        return lambda give_up: check_counters(counters, give_up)
    return None


def check_each(
    model: Callable[[Sequence[Operation]], Model], history: Sequence[Operation], give_up: float
) -> Judgement:
    """Judge every key of a history alone, each with a model made for its operations."""
    return worst([search(model(part), part, give_up) for part in by_key(history).values()])


def jepsen_steps(lines: Sequence[str]) -> Iterator[Step]:
    """Yield the steps of a register's history."""
    for line in lines:
        found = JEPSEN.match(line)
        if found is None:
            continue
        process, kind, function, text = found.groups()
        value = jepsen_value(text)
        if (kind, function) == ("fail", "cas") and isinstance(value, tuple):
            yield Step(int(process), "ok", "cas", False)
        elif (kind, function) == ("ok", "cas"):
            yield Step(int(process), "ok", "cas", True)
        elif kind in ("invoke", "ok", "fail"):
            yield Step(int(process), kind, function, value)  # type: ignore[arg-type]
        else:
            yield Step(int(process), "info", function, None)


def jepsen_value(text: str) -> Any:
    """Return nil as None, numbers as int, pairs as tuples, and any other word as it is."""
    if text == "nil":
        return None
    if text.startswith("["):
        return tuple(jepsen_value(word) for word in text.strip("[]").split())
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def kv_steps(lines: Sequence[str]) -> Iterator[Step]:
    """Yield the steps of a key-value store's history."""
    for number, line in enumerate(lines, 1):
        found = KV.match(line)
        if found is None:
            raise ValueError(f"line {number} is not a step of a key-value history: {line!r}")
        process, kind, function, key, value = found.groups()
        text = "" if value == "nil" else value[1:-1]
        yield Step(int(process), kind, function, text, key)  # type: ignore[arg-type]
