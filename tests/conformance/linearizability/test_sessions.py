"""Sessions and final totals: what they accept and what they catch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.linearizability.final_totals import check_final_totals, subset_sums
from tests.conformance.linearizability.history import Event, operations
from tests.conformance.linearizability.operations import Operation
from tests.conformance.linearizability.sessions import check_sessions


def play(*steps: tuple[int, str, str, int | None]) -> list[Operation]:
    """Return the operations of steps; process 1x belongs to session x mod 10."""
    return operations(
        [
            Event(place, process, f"s{process % 10}", kind, f, "k", value, linearizable=False)  # type: ignore[arg-type]
            for place, (process, kind, f, value) in enumerate(steps)
        ],
        default_reads=True,
    )


def add(process: int, size: int, outcome: str = "ok") -> list[tuple[int, str, str, int | None]]:
    """Return an add that nobody interrupts."""
    return [(process, "invoke", "add", size), (process, outcome, "add", None)]


def read(process: int, total: int) -> list[tuple[int, str, str, int | None]]:
    """Return a read that nobody interrupts."""
    return [(process, "invoke", "read", None), (process, "ok", "read", total)]


ACCEPTED = {
    "what others did may be missed": [*add(1, 5), *read(2, 0)],
    "or seen": [*add(1, 5), *read(2, 5)],
    "one's own is seen": [*add(1, 5), *add(2, 1), *read(2, 1)],
    "an unknown add of one's own may be missed": [*add(1, 5, "info"), *read(1, 0)],
    "an unknown add may be seen": [*add(1, 5, "info"), *read(2, 5)],
    "an add that is not answered yet may be seen": [
        (1, "invoke", "add", 5), *read(2, 5), (1, "ok", "add", None)
    ],
    "sessions need not agree": [*add(1, 5), *read(2, 5), *read(3, 0)],
    "an add answered while the read is on its way may be missed": [
        (1, "invoke", "read", None), *add(11, 5), (1, "ok", "read", 0)
    ],
    "an add that was on its way when another was shown may be part of it": [
        (1, "invoke", "add", 5), *read(11, 5), (1, "ok", "add", None), *read(1, 5)
    ],
}  # fmt: skip
REJECTED = {
    "one's own add was missed": ([*add(1, 5), *read(1, 0)], "and added 5"),
    "by another process of the session": ([*add(1, 5), *read(11, 4)], "and added 5"),
    "what was shown has gone": ([*add(1, 5), *read(2, 5), *read(2, 0)], "shown 5"),
    "shown and own add up": ([*add(1, 5), *read(2, 5), *add(2, 1), *read(2, 5)], "added 1"),
    "also if an add was on its way when it was shown": (
        [(1, "invoke", "add", 5), *read(11, 5), *add(11, 2), (1, "ok", "add", None), *read(1, 6)],
        "at least 7",
    ),
    "more than was ever added": ([*add(1, 5), *read(2, 6)], "at most 5"),
    "what is added only later": ([*read(2, 5), *add(1, 5)], "at most 0"),
    "what failed": ([*add(1, 5, "fail"), *read(2, 5)], "at most 0"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_session_accepts(name: str) -> None:
    assert check_sessions(play(*ACCEPTED[name])) == []


@pytest.mark.parametrize("name", REJECTED)
def test_session_rejects(name: str) -> None:
    steps, words = REJECTED[name]
    (violation,) = check_sessions(play(*steps))
    assert words in violation


@pytest.mark.parametrize("bug", ["", "stale", "backwards", "foreign"])
@given(seed=st.integers(0, 1_000_000))
def test_reads_of_followers_are_accepted_unless_one_breaks_its_session(bug: str, seed: int) -> None:
    """A log, and sessions that read any of its prefixes that is long enough for them."""
    chance = random.Random(seed)
    log: list[int] = []
    known = dict.fromkeys(range(3), 0)  # session -> length of the log it knows of
    steps: list[tuple[int, str, str, int | None]] = []
    for _ in range(chance.randrange(30)):
        session = chance.randrange(3)
        if chance.random() < 0.5:
            log.append(chance.choice((1, 2, 3)))
            known[session] = len(log)
            steps += add(session, log[-1])
        else:
            known[session] = chance.randint(known[session], len(log))
            steps += read(session, sum(log[: known[session]]))
    log.append(4)
    steps += [*add(1, 4), *read(1, sum(log))]
    if bug:
        wrong = {"stale": sum(log) - 4, "backwards": sum(log) - 1, "foreign": sum(log) + 1}
        steps += read(1, wrong[bug])
    assert bool(check_sessions(play(*steps))) == bool(bug)


def test_final_total_is_the_acknowledged_adds_and_some_unknown_ones() -> None:
    history = play(*add(1, 5), *add(2, 3, "info"), *add(1, 7, "info"), *add(1, 100, "fail"))
    accepted = [total for total in range(120) if not check_final_totals(history, {"k": total})]
    assert accepted == [5, 8, 12, 15]


def test_final_total_of_a_key_must_be_there_and_of_no_other_key() -> None:
    history = play(*add(1, 5))
    assert "no final total" in check_final_totals(history, {})[0]
    assert "key other" in check_final_totals(history, {"k": 5, "other": 1})[0]
    assert check_final_totals(history, {"k": 5, "other": 0}) == []


@given(st.lists(st.integers(-5, 9), max_size=6))
def test_subset_sums_are_those_of_every_choice(numbers: list[int]) -> None:
    expected = {
        sum(number for place, number in enumerate(numbers) if chosen >> place & 1)
        for chosen in range(1 << len(numbers))
    }
    assert subset_sums(numbers) == expected
