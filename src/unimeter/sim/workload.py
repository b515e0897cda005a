"""All clients of a run: how many, of which kind, and how far they are.

Owns the cast. There is always an admin, who makes the metrics, and a writer; the others
are drawn. Refuses to know processes, loops and faults: the world starts a client on a
loop, kills it and starts it again, and says when it is healed.

    Workload(chance, history, addresses, options)
      clients[i].start(loop, time_ns) ── killed() ── start(...) ── ... is_done
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unimeter.sim.chance import Chance
from unimeter.sim.clients import SdkClient, SimClient, Stage
from unimeter.sim.events import ACCOUNTS, EventSource
from unimeter.sim.history import History
from unimeter.sim.old_client import OldClient
from unimeter.sim.plans import Plan, Planner
from unimeter.sim.schemas import draw_catalog

START_NS = 1_767_225_600 * 10**9  # 2026-01-01, when the world begins
OTHERS = {"writer": 3.0, "reader": 2.0, "subscriber": 2.0, "old": 2.0}
SHARED_EVENTS = 12  # that several clients send, each under its id


@dataclass(frozen=True)
class WorkloadOptions:
    """How much there is to do."""

    clients: int = 4  # 2 to 6
    calls: int = 35  # steps of each; most are one request
    seconds: float = 20.0  # virtual, until the plans are through if nothing is slow
    nodes: int = 3
    kinds: tuple[str, ...] = ()  # of the clients, where a test says them
    start_ns: int = START_NS


class Workload:
    """The clients of a run."""

    def __init__(
        self, chance: Chance, history: History, addresses: Sequence[str], options: WorkloadOptions
    ) -> None:
        self.stage = Stage()
        self.history = history
        self.catalog = draw_catalog(chance.fork("catalog"))
        self._chance, self._options = chance, options
        source = EventSource(chance.fork("shared"), "all", ACCOUNTS, self.catalog, options.start_ns)
        self._shared = source.shared(SHARED_EVENTS)
        kinds = list(options.kinds) or self._draw_kinds()
        self.clients: list[SimClient] = []
        for number, kind in enumerate(kinds, 1):
            plan = self.plan(number, kind)
            make = OldClient if kind == "old" else SdkClient
            seeds = list(addresses)
            chance.fork(f"seeds {number}").shuffle(seeds)
            client_chance = chance.fork(f"client {number}")
            self.clients.append(make(plan, history, seeds, client_chance, self.stage))
        if "admin" not in kinds:
            self.stage.is_set_up = True

    def _draw_kinds(self) -> list[str]:
        chance = self._chance.fork("kinds")
        others = [chance.weighted(OTHERS) for _ in range(max(0, self._options.clients - 2))]
        return ["admin", "writer", *others]

    def plan(self, number: int, kind: str) -> Plan:
        """What client `number` is going to do; the same each time it is asked."""
        options = self._options
        plan = Plan(f"c{number}", kind)
        Planner(
            self._chance.fork(f"plan {number}"),
            plan,
            self.catalog,
            calls=options.calls,
            seconds=options.seconds,
            nodes=options.nodes,
            start_ns=options.start_ns,
            shared=self._shared,
        ).draw()
        return plan

    def healed(self) -> None:
        """No more faults: what is left of the plans is done faster, then the last calls."""
        self.stage.is_healed = True

    @property
    def is_done(self) -> bool:
        """Whether every client is through: with its plan, and after `healed` with all."""
        return all(client.is_done for client in self.clients)

    def check_invariants(self) -> None:
        """Raise AssertionError if a client has lost its place."""
        for client in self.clients:
            assert 0 <= client.place <= len(client.plan.steps)
            assert client.is_idle or not client.is_closed
