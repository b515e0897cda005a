"""Virtual time: in the order of time, then of asking; nothing that was cancelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unimeter.sim.scheduler import MICROSECOND, SECOND, Scheduler


def run_all(scheduler: Scheduler) -> None:
    while scheduler.step():
        pass


def test_events_happen_in_the_order_of_time_and_then_of_asking() -> None:
    scheduler, seen = Scheduler(), list[str]()
    for name, delay in (("c", 30), ("a", 10), ("b1", 20), ("b2", 20), ("b3", 20)):
        scheduler.after(delay, seen.append, name)
    run_all(scheduler)
    assert seen == ["a", "b1", "b2", "b3", "c"]
    assert scheduler.now_ns == SECOND + 30 and scheduler.done == 5


def test_now_is_the_time_of_what_happens() -> None:
    scheduler, seen = Scheduler(), list[int]()
    look: Callable[[], None] = lambda: seen.append(scheduler.now_ns)  # noqa: E731
    scheduler.at(2 * SECOND, look)
    scheduler.after(5 * MICROSECOND, look)
    run_all(scheduler)
    assert seen == [SECOND + 5 * MICROSECOND, 2 * SECOND]


def test_what_is_asked_for_in_the_past_happens_now_and_after_what_was_asked_before() -> None:
    scheduler, seen = Scheduler(), list[str]()
    scheduler.after(0, seen.append, "first")
    scheduler.at(0, seen.append, "late")
    run_all(scheduler)
    assert seen == ["first", "late"] and scheduler.now_ns == SECOND


def test_what_was_cancelled_does_not_happen_and_is_no_step() -> None:
    scheduler, seen = Scheduler(), list[str]()
    scheduler.after(10, seen.append, "a").cancel()
    scheduler.after(20, seen.append, "b")
    assert scheduler.step() and seen == ["b"] and scheduler.done == 1
    assert not scheduler.step()


def test_an_event_can_ask_for_events_of_the_same_moment() -> None:
    scheduler, seen = Scheduler(), list[str]()
    scheduler.after(10, lambda: scheduler.after(0, seen.append, "inner"))
    scheduler.after(10, seen.append, "outer")
    run_all(scheduler)
    assert seen == ["outer", "inner"]


def test_time_stands_still_until_a_step_and_after_the_last() -> None:
    scheduler = Scheduler()
    scheduler.after(10**15, lambda: None)
    assert scheduler.now_ns == SECOND
    scheduler.step()
    assert scheduler.now_ns == SECOND + 10**15
    assert not scheduler.step() and scheduler.now_ns == SECOND + 10**15


def test_what_an_event_raises_comes_out_of_its_step_and_the_next_one_goes_on() -> None:
    scheduler, seen = Scheduler(), list[str]()

    def broken() -> None:
        raise ValueError("broken")

    scheduler.after(1, broken)
    scheduler.after(2, seen.append, "next")
    with pytest.raises(ValueError, match="broken"):
        scheduler.step()
    run_all(scheduler)
    assert seen == ["next"]


def test_nothing_happens_that_was_forgotten() -> None:
    scheduler = Scheduler()
    scheduler.after(1, pytest.fail, "it was forgotten")
    scheduler.forget()
    assert not scheduler.step()
