"""Each model on small histories written by hand, right and wrong."""

from __future__ import annotations

import time

import pytest
from tests.conformance.linearizability.models import Counter, KeyValue, Model, Register
from tests.conformance.linearizability.operations import Step, pair
from tests.conformance.linearizability.search import search
from tests.conformance.linearizability.verdict import Verdict

# A step is a word: process, invoke/ok/info/fail as ( ) ? !, function, value.
KINDS = {"(": "invoke", ")": "ok", "?": "info", "!": "fail"}

CASES = [
    (Register, "a register is absent at first", "0( read -|0) read nil", True),
    (Register, "a write is read", "0( write 1|0) write 1|1( read -|1) read 1", True),
    (Register, "a write is not missed", "0( write 1|0) write 1|1( read -|1) read nil", False),
    (
        Register,
        "concurrent reads agree on an order",
        "0( write 1|1( read -|1) read 1|2( read -|2) read nil|0) write 1",
        False,
    ),
    (Register, "an unknown write may be seen", "0( write 1|0? write|1( read -|1) read 1", True),
    (Register, "or never", "0( write 1|0? write|1( read -|1) read nil", True),
    (
        Register,
        "or late",
        "0( write 1|0? write|1( read -|1) read nil|1( read -|1) read 1",
        True,
    ),
    (
        Register,
        "but only once",
        "0( write 1|0? write|1( write 2|1) write 2|2( read -|2) read 1"
        "|1( write 3|1) write 3|2( read -|2) read 1",
        False,
    ),
    (
        Register,
        "a cas replaces the expected",
        "0( write 1|0) write 1|0( cas 1,2|0) cas True|0( read -|0) read 2",
        True,
    ),
    (Register, "a cas of another value cannot succeed", "0( cas 1,2|0) cas True", False),
    (
        Register,
        "a failed cas saw another value",
        "0( write 1|0) write 1|0( cas 1,2|0) cas False",
        False,
    ),
    (
        Register,
        "an unknown cas acts only on the expected",
        "0( cas 7,2|0? cas|0( read -|0) read 2",
        False,
    ),
    (Register, "a failed write is none", "0( write 1|0! write|0( read -|0) read 1", False),
    (KeyValue, "a store is empty at first", "0( get -|0) get ''", True),
    (KeyValue, "appends add", "0( append x|0) append|0( append y|0) append|0( get|0) get xy", True),
    (KeyValue, "in order", "0( append x|0) append|0( append y|0) append|0( get|0) get yx", False),
    (
        KeyValue,
        "concurrent appends have one order for all",
        "0( append x|1( append y|0) append|1) append|0( get|0) get xy|0( get|0) get yx",
        False,
    ),
    (
        KeyValue,
        "a put forgets",
        "0( append x|0) append|0( append z|0) append|0( put y|0) put|0( get|0) get y",
        True,
    ),
    (KeyValue, "an append of nobody is not seen", "0( get|0) get x", False),
    (Counter, "a counter starts at zero", "0( read|0) read 0", True),
    (Counter, "adds add up", "0( add 2|1( add 3|0) add|1) add|0( read|0) read 5", True),
    (Counter, "a lost add", "0( add 2|0) add|0( read|0) read 0", False),
    (Counter, "a double add", "0( add 2|0) add|0( read|0) read 4", False),
    (Counter, "a correction", "0( add 2|0) add|0( add -2|0) add|0( read|0) read 0", True),
]  # fmt: skip


def steps(text: str) -> list[Step]:
    """Read a history from words."""
    found = []
    for words in text.split("|"):
        who, function, value = (*words.split(), "-")[:3]
        found.append(Step(int(who[0]), KINDS[who[1]], function, literal(value)))  # type: ignore[arg-type]
    return found


def literal(word: str) -> object:
    """Read a number, a pair, a truth, a text or nothing."""
    if "," in word:
        return tuple(int(part) for part in word.split(","))
    known = {"-": None, "nil": None, "True": True, "False": False, "''": ""}
    return known[word] if word in known else int(word) if word.lstrip("-").isdigit() else word


@pytest.mark.parametrize(
    ("kind", "text", "is_right"), [(c[0], c[2], c[3]) for c in CASES], ids=[c[1] for c in CASES]
)
def test_case(kind: type, text: str, is_right: bool) -> None:
    operations = pair(steps(text))
    model: Model = KeyValue(operations) if kind is KeyValue else kind()
    found = search(model, operations, time.monotonic() + 10)
    assert found.verdict == (Verdict.RIGHT if is_right else Verdict.WRONG)
    assert bool(found.reason) != is_right


def test_completion_without_a_call_is_refused() -> None:
    with pytest.raises(ValueError, match="never called"):
        pair(steps("0) read 0"))
    with pytest.raises(ValueError, match="another operation"):
        pair(steps("0( read|0) add"))


def test_process_that_calls_again_leaves_its_first_operation_unknown() -> None:
    first, second = pair(steps("0( add 1|0( read|0) read 0"))
    assert (first.is_known, second.is_known) == (False, True)
