"""Faults: which, when, and against whom, all from one integer.

    kill       SIGKILL, started again at the end      pause     SIGSTOP, then SIGCONT
    kill_all   every node at once                     slow      what it sends is delayed
    isolate    a node hears and reaches no other      split     the nodes in two groups
    mute       what it sends to nodes is lost         deaf      what nodes send it is lost
    pair       two nodes lose each other, a third     one_way   one node's messages to one
               sees both                                        other are lost
    hide       clients lose a node, nodes do not

A schedule is drawn whole, before anything runs, from seed, length and number of
nodes: a seed means the same everywhere. What a machine cannot do is left out of
it afterwards. Calm and fault alternate; every fourth fault or so begins before
the last one has ended. All have ended when the schedule has, and `Injector.heal`
says so to the cluster once more, whatever happened before.

A fault that is drawn against the leader finds out who leads when it begins;
where nobody is known to, it takes the node that was drawn as well. So the same
seed need not hit the same node twice; the history says what happened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from tests.jepsen.networks import CLIENTS, Cut, Network

PROCESS_KINDS: Final = ("kill", "pause", "kill_all")
CUT_KINDS: Final = ("isolate", "split", "mute", "deaf", "pair", "one_way", "hide")
KINDS: Final = (*PROCESS_KINDS, *CUT_KINDS, "slow")
KINDS_OF_ONE_NODE: Final = ("kill", "pause", "hide", "slow")

CALM_SECONDS: Final = (0.5, 3.0)  # long enough for an election to end
FAULT_SECONDS: Final = (1.0, 6.0)  # from less than an election to several
OVERLAP_SHARE: Final = 0.25
LEADER_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; times are seconds since the schedule began."""

    kind: str
    start: float
    stop: float
    node: int
    other: int  # another node, where there is one
    is_leader: bool  # of nodes, the leader of the moment is meant, if it is known

    def __str__(self) -> str:
        whom = "the leader" if self.is_leader else f"node {self.node}"
        return f"{self.start:6.1f} s to {self.stop:5.1f} s  {self.kind} ({whom})"


def draw_schedule(seed: int, seconds: float, node_count: int) -> list[Fault]:
    """Return the faults of a seed, in order of start; all stop within the seconds."""
    chance = random.Random(seed)
    kinds = KINDS if node_count > 1 else KINDS_OF_ONE_NODE
    schedule: list[Fault] = []
    start = chance.uniform(*CALM_SECONDS)
    while True:
        stop = start + chance.uniform(*FAULT_SECONDS)
        node, other = chance.sample(range(1, node_count + 1), 2) if node_count > 1 else (1, 1)
        kind, is_leader = chance.choice(kinds), chance.random() < LEADER_SHARE
        overlaps, calm, inside = chance.random(), chance.uniform(*CALM_SECONDS), chance.random()
        if stop > seconds:
            return schedule
        schedule.append(Fault(kind, start, stop, node, other, is_leader))
        start = start + inside * (stop - start) if overlaps < OVERLAP_SHARE else stop + calm


def is_possible(fault: Fault, network: Network) -> bool:
    """Whether this machine can do it."""
    if fault.kind in CUT_KINDS:
        return network.can_cut
    return fault.kind != "slow" or network.can_slow


def cuts_of(fault: Fault, node_count: int) -> set[Cut]:
    """Return the directions in which messages are lost; nothing for other faults."""
    node, other = fault.node, fault.other
    rest = [place for place in range(1, node_count + 1) if place != node]
    to_rest, from_rest = {(node, place) for place in rest}, {(place, node) for place in rest}
    group = {node, other} if node_count > 3 else {node}
    others = set(rest) - group
    return {
        "isolate": to_rest | from_rest,
        "split": {(a, b) for a in group for b in others} | {(b, a) for a in group for b in others},
        "mute": to_rest,
        "deaf": from_rest,
        "pair": {(node, other), (other, node)},
        "one_way": {(node, other)},
        "hide": {(CLIENTS, node), (node, CLIENTS)},
    }.get(fault.kind, set())


class Nodes(Protocol):
    """What faults do to processes."""

    count: int

    def leader(self) -> int | None:
        """Return which node leads, if somebody knows."""

    def kill(self, node: int) -> None:
        """SIGKILL, if it runs."""

    def start(self, node: int) -> None:
        """Start it, if it does not run; do not wait until it is ready."""

    def pause(self, node: int) -> None:
        """SIGSTOP, if it runs."""

    def resume(self, node: int) -> None:
        """SIGCONT, if it runs."""


class Injector:
    """Begins and ends faults; says what it does in `log`."""

    def __init__(self, nodes: Nodes, network: Network) -> None:
        self.nodes = nodes
        self.network = network
        self.active: list[Fault] = []
        self.log: list[dict[str, Any]] = []

    def run(
        self, schedule: Sequence[Fault], wait_until: Callable[[float], None], seconds: float
    ) -> None:
        """Play a schedule and heal; `wait_until` waits for a moment of it."""
        moments = [(fault.start, True, n) for n, fault in enumerate(schedule)]
        moments += [(fault.stop, False, n) for n, fault in enumerate(schedule)]
        running: dict[int, Fault] = {}
        try:
            for moment, is_start, number in sorted(moments):
                wait_until(moment)
                if is_start:
                    running[number] = self.begin(schedule[number], moment)
                else:
                    self.end(running.pop(number), moment)
            wait_until(seconds)
        finally:
            self.heal()

    def begin(self, fault: Fault, moment: float) -> Fault:
        """Begin a fault and return it with the node that it hit."""
        leader = self.nodes.leader() if fault.is_leader else None
        if leader is not None and leader != fault.node:
            other = fault.node if fault.other == leader else fault.other
            fault = replace(fault, node=leader, other=other)
        self.active.append(fault)
        self.log.append({"at": round(moment, 3), "begins": asdict(fault), "leader": leader})
        for node in self._victims(fault):
            if fault.kind in ("kill", "kill_all"):
                self.nodes.kill(node)
            elif fault.kind == "pause":
                self.nodes.pause(node)
        self._set_links()
        return fault

    def end(self, fault: Fault, moment: float) -> None:
        """End a fault that was begun."""
        self.active.remove(fault)
        self.log.append({"at": round(moment, 3), "ends": asdict(fault)})
        self._set_links()
        for node in self._victims(fault):
            if fault.kind in ("kill", "kill_all"):
                self.nodes.start(node)
            elif fault.kind == "pause":
                self.nodes.resume(node)

    def heal(self) -> None:
        """Make every link whole and every node run."""
        self.active.clear()
        self._set_links()
        for node in range(1, self.nodes.count + 1):
            self.nodes.resume(node)
            self.nodes.start(node)

    def _victims(self, fault: Fault) -> Sequence[int]:
        return range(1, self.nodes.count + 1) if fault.kind == "kill_all" else [fault.node]

    def _set_links(self) -> None:
        cuts: set[Cut] = set()
        for fault in self.active:
            cuts |= cuts_of(fault, self.nodes.count)
        self.network.set_cuts(cuts)
        self.network.set_slow({fault.node for fault in self.active if fault.kind == "slow"})
