"""Schedules come from one integer; whatever they do is undone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.jepsen.fakes import FakeNetwork, FakeNodes
from tests.jepsen.faults import (
    CUT_KINDS,
    KINDS,
    KINDS_OF_ONE_NODE,
    Fault,
    Injector,
    cuts_of,
    draw_schedule,
    is_possible,
)
from tests.jepsen.networks import CLIENTS, Loopback

SEEDS = range(60)


def test_seed_gives_the_same_schedule_every_time_and_others_other_ones() -> None:
    assert draw_schedule(1, 60, 3) == draw_schedule(1, 60, 3)
    assert len({tuple(draw_schedule(seed, 60, 3)) for seed in SEEDS}) == len(SEEDS)


def test_longer_run_of_a_seed_begins_like_the_shorter_one() -> None:
    assert draw_schedule(5, 120, 3)[: len(draw_schedule(5, 60, 3))] == draw_schedule(5, 60, 3)


@pytest.mark.parametrize(("nodes", "kinds"), [(1, KINDS_OF_ONE_NODE), (3, KINDS), (5, KINDS)])
def test_schedules_are_bounded_reach_every_kind_and_overlap(
    nodes: int, kinds: tuple[str, ...]
) -> None:
    schedules = [draw_schedule(seed, 60, nodes) for seed in SEEDS]
    faults = [fault for schedule in schedules for fault in schedule]
    assert {fault.kind for fault in faults} == set(kinds)
    assert all(0 < fault.start < fault.stop <= 60 for fault in faults)
    assert all(1 <= place <= nodes for fault in faults for place in (fault.node, fault.other))
    assert nodes == 1 or all(fault.node != fault.other for fault in faults)
    assert any(a.stop > b.start for s in schedules for a, b in pairwise(s))
    assert all(len(schedule) >= 5 for schedule in schedules)


@pytest.mark.parametrize(
    ("kind", "nodes", "cuts"),
    [
        ("isolate", 3, {(1, 2), (1, 3), (2, 1), (3, 1)}),
        ("split", 3, {(1, 2), (1, 3), (2, 1), (3, 1)}),
        ("split", 5, {(a, b) for a in (1, 2) for b in (3, 4, 5)}
         | {(b, a) for a in (1, 2) for b in (3, 4, 5)}),
        ("mute", 3, {(1, 2), (1, 3)}),
        ("deaf", 3, {(2, 1), (3, 1)}),
        ("pair", 3, {(1, 2), (2, 1)}),
        ("one_way", 3, {(1, 2)}),
        ("hide", 3, {(1, CLIENTS), (CLIENTS, 1)}),
        ("kill", 3, set()),
        ("slow", 3, set()),
    ],
)  # fmt: skip
def test_fault_cuts_exactly_these_directions(
    kind: str, nodes: int, cuts: set[tuple[int, int]]
) -> None:
    assert cuts_of(Fault(kind, 0, 1, 1, 2, False), nodes) == cuts
    assert bool(cuts) == (kind in CUT_KINDS)


def test_loopback_can_only_do_what_is_done_to_processes() -> None:
    possible = {kind for kind in KINDS if is_possible(Fault(kind, 0, 1, 1, 2, False), Loopback())}
    assert possible == {"kill", "pause", "kill_all"}


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_whole_after_a_schedule_and_nothing_before_its_end(seed: int) -> None:
    nodes, network = FakeNodes(3), FakeNetwork()
    schedule = draw_schedule(seed, 60, 3)
    seen = 0

    def look(moment: float) -> None:
        nonlocal seen
        seen += bool(network.cuts or network.slow or nodes.paused or len(nodes.running) < 3)

    injector = Injector(nodes, network)
    injector.run(schedule, look, 60)
    assert seen >= len(schedule) / 2
    assert is_whole(nodes, network)
    assert len(injector.log) == 2 * len(schedule)


def test_everything_is_whole_after_a_run_that_broke_off() -> None:
    nodes, network = FakeNodes(3), FakeNetwork()
    schedule = [
        Fault("isolate", 1, 9, 1, 2, False),
        Fault("pause", 2, 9, 2, 3, False),
        Fault("kill", 3, 9, 3, 1, False),
    ]

    def break_off(moment: float) -> None:
        if moment == 9:
            assert network.cuts and nodes.paused == {2} and nodes.running == {1, 2}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Injector(nodes, network).run(schedule, break_off, 10)
    assert is_whole(nodes, network)


def is_whole(nodes: FakeNodes, network: FakeNetwork) -> bool:
    """Whether nothing is left of any fault."""
    return not (network.cuts or network.slow or nodes.paused) and nodes.running == {1, 2, 3}


@pytest.mark.parametrize(("leader", "killed"), [(None, 1), (1, 1), (2, 2), (3, 3)])
def test_fault_against_the_leader_takes_who_leads_or_else_who_was_drawn(
    leader: int | None, killed: int
) -> None:
    nodes = FakeNodes(3, leader)
    injector = Injector(nodes, FakeNetwork())
    begun = injector.begin(Fault("kill", 0, 1, 1, 2, True), 0)
    assert nodes.deeds == [f"kill {killed}"]
    assert begun.other != begun.node
    injector.end(begun, 1)
    assert nodes.running == {1, 2, 3}


def test_kill_of_all_starts_all_again() -> None:
    nodes = FakeNodes(3)
    injector = Injector(nodes, FakeNetwork())
    begun = injector.begin(Fault("kill_all", 0, 1, 1, 2, False), 0)
    assert nodes.running == set()
    injector.end(begun, 1)
    assert nodes.running == {1, 2, 3}
