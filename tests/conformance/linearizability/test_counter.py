"""Counters: histories of a real one are accepted, and each planted bug is found."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.linearizability.counter import check_counters
from tests.conformance.linearizability.final_totals import check_final_totals
from tests.conformance.linearizability.history import Event, load, operations, parse, write
from tests.conformance.linearizability.models import Counter
from tests.conformance.linearizability.search import search
from tests.conformance.linearizability.sessions import check_sessions
from tests.conformance.linearizability.strategies import BUGS, final_total, metered
from tests.conformance.linearizability.verdict import Judgement, Verdict

SEEDS = st.integers(0, 1_000_000)


def judge(events: list[Event], seconds: float = 30) -> Judgement:
    """Judge a history of counters."""
    return check_counters(operations(events), time.monotonic() + seconds)


@given(SEEDS, st.integers(0, 60))
def test_history_of_a_real_counter_is_accepted_by_every_checker(seed: int, count: int) -> None:
    events = metered(random.Random(seed), count=count)
    assert judge(events) == Judgement(Verdict.RIGHT, "", judge(events).states)
    assert check_sessions(operations(events)) == []
    assert check_final_totals(operations(events), {"k": final_total(events)}) == []


@given(SEEDS, st.integers(-2, 2))
def test_counter_and_search_agree_on_a_real_history_with_one_read_changed(
    seed: int, change: int
) -> None:
    chance = random.Random(seed)
    events = metered(chance, count=14, processes=3)
    reads = [place for place, event in enumerate(events) if (event.type, event.f) == ("ok", "read")]
    place = chance.choice(reads)
    events[place] = replace(events[place], value=(events[place].value or 0) + change)
    found = search(Counter(), operations(events), time.monotonic() + 30).verdict
    assert judge(events).verdict == found


@pytest.mark.parametrize("bug", BUGS)
@given(SEEDS, st.integers(0, 40))
def test_planted_bug_is_rejected(bug: str, seed: int, count: int) -> None:
    events = metered(random.Random(seed), count=count, unknown=0, bug=bug)
    judgement = judge(events)
    assert judgement.verdict == Verdict.WRONG
    assert "read" in judgement.reason


@pytest.mark.parametrize("bug", ["lost", "twice"])
@given(SEEDS, st.integers(0, 40))
def test_planted_bug_is_rejected_by_the_final_total(bug: str, seed: int, count: int) -> None:
    events = metered(random.Random(seed), count=count, unknown=0, bug=bug)
    assert check_final_totals(operations(events), {"k": final_total(events)}) != []


@given(SEEDS, st.integers(1, 40))
def test_unknown_adds_do_not_excuse_a_lost_add_of_another_size(seed: int, count: int) -> None:
    # Sizes are multiples of 10, and the last add is 2: only itself explains the last digit.
    chance = random.Random(seed)
    events = metered(chance, count=count, unknown=0.5, sizes=(10, 20), bug="lost")
    assert judge(events).verdict == Verdict.WRONG


def test_hundreds_of_unknown_adds_are_no_trouble() -> None:
    chance = random.Random(5)
    events = metered(chance, count=3000, processes=8, unknown=0.15, sizes=(1, 2, 3, 4, 5))
    assert sum(event.type == "info" for event in events) > 150
    assert judge(events).verdict == Verdict.RIGHT


def test_keys_are_judged_alone() -> None:
    right, wrong = (metered(random.Random(1), count=9, unknown=0, bug=b) for b in (None, "lost"))
    both = right + [replace(event, process=event.process + 100, key="other") for event in wrong]
    judgement = judge(sorted(both, key=lambda event: event.time_ns))
    assert judgement.verdict == Verdict.WRONG
    assert "key other" in judgement.reason


def test_counter_gives_up_at_its_time() -> None:
    assert judge(metered(random.Random(1), count=9), seconds=-1).verdict == Verdict.UNKNOWN


def test_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    events = metered(random.Random(3), count=20)
    events.append(Event(99, 9, "z", "invoke", "read", "k", None, linearizable=False))
    write(tmp_path / "history.jsonl", events)
    assert load(tmp_path / "history.jsonl") == sorted(events, key=lambda event: event.time_ns)


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        '{"time_ns": 0}',
        '{"time_ns":0,"process":0,"client":"a","type":"done","f":"add","key":"k","value":1}',
        '{"time_ns":0,"process":0,"client":"a","type":"invoke","f":"add","key":"k","value":null}',
        '{"time_ns":0,"process":0,"client":"a","type":"ok","f":"read","key":"k","value":null}',
    ],
)
def test_line_that_cannot_have_been_recorded_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse([line])


def test_default_reads_are_not_judged_as_linearizable() -> None:
    events = metered(random.Random(3), count=0)
    stale = [
        Event(100, 7, "z", "invoke", "read", "k", None, linearizable=False),
        Event(101, 7, "z", "ok", "read", "k", 0, linearizable=False),
    ]
    assert judge(events + stale).verdict == Verdict.RIGHT
    assert len(operations(events + stale, default_reads=True)) == 3
