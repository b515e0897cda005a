"""The checkers against every order, and against time."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.linearizability import brute
from tests.conformance.linearizability.counter import check_counter
from tests.conformance.linearizability.models import Counter, KeyValue, Register
from tests.conformance.linearizability.operations import Operation, Step, pair
from tests.conformance.linearizability.search import search
from tests.conformance.linearizability.strategies import scribbled
from tests.conformance.linearizability.verdict import Verdict

NOTHING = st.none()
SMALL = st.integers(0, 2)
WORDS = st.sampled_from(["x", "y"])
REGISTER = {
    "read": (NOTHING, st.one_of(NOTHING, SMALL)),
    "write": (SMALL, NOTHING),
    "cas": (st.tuples(SMALL, SMALL), st.booleans()),
}
STORE = {
    "get": (NOTHING, st.sampled_from(["", "x", "y", "xy", "yx", "xx"])),
    "put": (WORDS, NOTHING),
    "append": (WORDS, NOTHING),
}
COUNTER = {"add": (st.integers(0, 3), NOTHING), "read": (NOTHING, st.integers(0, 6))}
SIGNED = {"add": (st.integers(-2, 2), NOTHING), "read": (NOTHING, st.integers(-2, 4))}


def verdict(is_right: bool) -> Verdict:
    """Return the verdict of a judge that always knows."""
    return Verdict.RIGHT if is_right else Verdict.WRONG


def soon() -> float:
    """Return a moment that no small history reaches."""
    return time.monotonic() + 60


@given(scribbled(REGISTER))
def test_search_agrees_with_every_order_of_a_register(operations: list[Operation]) -> None:
    expected = verdict(brute.is_linearizable(Register(), operations))
    assert search(Register(), operations, soon()).verdict == expected


@given(scribbled(STORE))
def test_search_agrees_with_every_order_of_a_store(operations: list[Operation]) -> None:
    expected = verdict(brute.is_linearizable(PlainStore(), operations))
    assert search(KeyValue(operations), operations, soon()).verdict == expected


class PlainStore(KeyValue):
    """The store without its shortcuts: every string is a state."""

    def __init__(self) -> None:
        super().__init__([])

    def _is_seen(self, value: str | bool) -> bool:
        return True


@given(scribbled(COUNTER, steps_max=12))
def test_counter_agrees_with_every_order_and_with_the_search(operations: list[Operation]) -> None:
    expected = verdict(brute.is_linearizable(Counter(), operations))
    assert check_counter(operations, soon()).verdict == expected
    assert search(Counter(), operations, soon()).verdict == expected


@given(scribbled(SIGNED))
def test_counter_with_corrections_agrees_with_every_order(operations: list[Operation]) -> None:
    expected = verdict(brute.is_linearizable(Counter(), operations))
    assert check_counter(operations, soon()).verdict == expected


def test_scribbled_histories_are_not_all_wrong() -> None:
    # A comparison proves nothing if one side is never asked.
    found = {True: 0, False: 0}

    @given(scribbled(COUNTER))
    def count(operations: list[Operation]) -> None:
        found[brute.is_linearizable(Counter(), operations)] += 1

    count()
    assert min(found.values()) >= 10


def test_search_gives_up_at_its_time() -> None:
    steps = []
    for process in range(40):
        steps.append(Step(process, "invoke", "add", 3**process))
    steps.append(Step(99, "invoke", "read", None))
    steps.append(Step(99, "ok", "read", 3**40))
    judgement = search(Counter(), pair(steps), time.monotonic() + 0.2)
    assert judgement.verdict == Verdict.UNKNOWN


@pytest.mark.parametrize("is_right", [True, False])
def test_many_clients_of_one_key_are_judged_in_seconds(is_right: bool) -> None:
    operations = store_history(random.Random(7), clients=25, count=800, is_right=is_right)
    started = time.monotonic()
    assert search(KeyValue(operations), operations, started + 20).verdict == verdict(is_right)


def store_history(
    chance: random.Random, *, clients: int, count: int, is_right: bool
) -> list[Operation]:
    """Return what many clients did to one key; a wrong one has a read of the past near its end."""
    steps: list[Step] = []
    value, values = "", [""]
    running: dict[int, list[object]] = {}
    number = 0
    while number < count or running:
        process = chance.randrange(clients)
        if process not in running:
            if number < count:
                number += 1
                function = chance.choice(["get", "append", "append"])
                argument = f"x {process} {number} y" if function == "append" else None
                running[process] = [function, argument, False]
                steps.append(Step(process, "invoke", function, argument))
        elif not running[process][2]:
            if running[process][0] == "append":
                value += str(running[process][1])
                values.append(value)
            is_stale = not is_right and number > count - 40
            running[process][1:] = [values[len(values) // 2] if is_stale else value, True]
        else:
            function, result, _ = running.pop(process)
            steps.append(Step(process, "ok", str(function), result))
    return pair(steps)
