"""What each client is going to do, drawn before anything happens.

Owns the list of steps of a client. A plan is data: a client whose process was killed goes
on with it in the next process. Plans are drawn from a stream of their own for each client,
so that one client's plan does not change another's.

    kind         steps
    admin        makes the metrics first, then changes them; moves leadership; also writes
    writer       batches, often with a question at once; bursts of many batches
    reader       every question, on any node, in a session or linearizable
    subscriber   listens to alerts; asks and writes a little
    old          version 1: batches that it resends as they are, and some questions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from unimeter.sim.chance import Chance
from unimeter.sim.events import ACCOUNTS, EventSource
from unimeter.sim.questions import QuestionSource
from unimeter.sim.schemas import (
    TEMPORARY,
    Catalog,
    draw_growth,
    draw_refusal,
    draw_temporary,
)
from unimeter.types import Account, Event, MetricSchema
from unimeter.wire.messages import PutMode, Read

KINDS: Final = ("admin", "writer", "reader", "subscriber", "old")
CALL_SECONDS: Final = (1.0, 2.0, 4.0, 10.0)  # deadlines; an election takes one
WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "admin": {"change": 5, "look": 1, "transfer": 1, "send": 4, "ask": 2},
    "writer": {"send": 8, "burst": 1, "ask": 2},
    "reader": {"ask": 10, "send": 2, "look": 0.5},
    "subscriber": {"listen": 5, "send": 3, "ask": 3},
    "old": {"send_old": 6, "ask_old": 3},
}


@dataclass(frozen=True)
class Send:
    """One `ingest`, and perhaps a question right after its reply."""

    events: list[Event]
    timeout: float
    then: Read | None = None


@dataclass(frozen=True)
class Burst:
    """Many at once: more than one session's window."""

    batches: list[list[Event]]
    timeout: float


@dataclass(frozen=True)
class Ask:
    """A question, with all its pages."""

    request: Read
    timeout: float


@dataclass(frozen=True)
class Change:
    """Create a metric or change it."""

    schema: MetricSchema
    mode: PutMode
    timeout: float


@dataclass(frozen=True)
class Remove:
    """Delete a metric."""

    code: str
    timeout: float


@dataclass(frozen=True)
class Transfer:
    """Hand leadership to a node; 0 = to any."""

    node_id: int
    timeout: float


@dataclass(frozen=True)
class Look:
    """Ask for the cluster's status."""

    timeout: float


@dataclass(frozen=True)
class Listen:
    """Take alerts for a while, from a subscription that stays; or close it and open another."""

    seconds: float
    accounts: tuple[Account, ...]
    metrics: tuple[str, ...]
    is_new: bool
    from_now: bool


@dataclass(frozen=True)
class Rest:
    """Do nothing for a while: the world's faults have their turn."""

    seconds: float


Step = Send | Burst | Ask | Change | Remove | Transfer | Look | Listen | Rest


@dataclass
class Plan:
    """All that one client is going to do."""

    name: str
    kind: str
    steps: list[Step] = field(default_factory=list)
    read_from_any: bool = False
    closing: list[Event] = field(default_factory=list)  # sent when the world is healed


class Planner:
    """Draws the plan of one client."""

    def __init__(
        self,
        chance: Chance,
        plan: Plan,
        catalog: Catalog,
        *,
        calls: int,
        seconds: float,
        nodes: int,
        start_ns: int,
        shared: Sequence[Event],
    ) -> None:
        accounts = chance.sample(ACCOUNTS, chance.between(2, len(ACCOUNTS)))
        self.chance, self.plan, self.catalog = chance, plan, catalog
        self.events = EventSource(
            chance.fork("events"), plan.name, accounts, catalog, start_ns, shared
        )
        self.questions = QuestionSource(chance.fork("questions"), accounts, catalog, start_ns)
        self._calls, self._nodes = calls, nodes
        self._pause = seconds / max(1, calls)
        self._seconds = 0.0  # about when the next step will be
        self._growing = dict(catalog.stable)
        self._later = list(catalog.later.values())
        self._changes = 0

    def draw(self) -> None:
        """Fill the plan."""
        plan, chance = self.plan, self.chance
        plan.read_from_any = chance.hit(0.5 if plan.kind == "reader" else 0.2)
        if plan.kind == "admin":
            plan.steps += [Change(s, PutMode.CREATE, 10.0) for s in self.catalog.stable.values()]
            plan.steps.append(Change(self.catalog.temporary, PutMode.CREATE, 10.0))
        for _ in range(self._calls):
            rest = self._pause * chance.pick((0.0, 0.1, 0.5, 1.0, 3.4))
            self._seconds += rest
            plan.steps.append(Rest(rest))
            plan.steps += self._step(chance.weighted(WEIGHTS[plan.kind]))
        last = [self.events.last(self._seconds) for _ in range(2)]
        plan.closing = last if plan.kind != "old" else self._old(is_timed=True)

    def _step(self, name: str) -> list[Step]:
        timeout = self.chance.pick(CALL_SECONDS)
        match name:
            case "send":
                return [self._send(timeout)]
            case "burst":
                sizes = [self.chance.between(1, 4) for _ in range(self.chance.pick((3, 8, 20)))]
                return [Burst([self._batch(size) for size in sizes], timeout)]
            case "ask":
                return [Ask(self.questions.draw(self._seconds), timeout)]
            case "change":
                return self._change(timeout)
            case "transfer":
                return [Transfer(self.chance.between(0, self._nodes), timeout)]
            case "look":
                return [Look(timeout)]
            case "listen":
                return [self._listen()]
            case "send_old":
                return [Send(self._old(is_timed=self.chance.hit(0.8)), timeout)]
            case _:
                return [Ask(self.questions.draw_old(self._seconds), timeout)]

    def _batch(self, size: int) -> list[Event]:
        return self.events.batch(size, all_ids=self.chance.hit(0.5), seconds=self._seconds)

    def _old(self, *, is_timed: bool) -> list[Event]:
        size = self.chance.between(1, 6)
        return self.events.old_batch(size, is_timed=is_timed, seconds=self._seconds)

    def _send(self, timeout: float) -> Send:
        size = self.chance.between(1, 8)
        if self.chance.hit(0.05):
            size = self.chance.between(40, 200)
        events = self._batch(size)
        question = self.questions.about(events[0], self._seconds) if self.chance.hit(0.4) else None
        return Send(events, timeout, question)

    def _listen(self) -> Listen:
        chance = self.chance
        accounts: tuple[Account, ...] = ()
        metrics: tuple[str, ...] = ()
        if chance.hit(0.3):
            accounts = tuple(chance.sample(ACCOUNTS, 2))
        if chance.hit(0.2):
            metrics = tuple(chance.sample(list(self.catalog.stable), 3))
        seconds = chance.pick((0.1, 0.5, 2.0))
        return Listen(seconds, accounts, metrics, chance.hit(0.15), chance.hit(0.3))

    def _change(self, timeout: float) -> list[Step]:
        """A change of the catalog; most are allowed."""
        chance = self.chance
        self._changes += 1
        code = chance.pick(list(self._growing))
        schema = self._growing[code]
        match chance.below(8):
            case 0 | 1:
                if not self._later:
                    return [Change(schema, chance.pick(tuple(PutMode)), timeout)]
                return [Change(self._later.pop(0), chance.pick(tuple(PutMode)[:2]), timeout)]
            case 2:
                return [Change(schema, chance.pick(tuple(PutMode)), timeout)]
            case 3:
                return [Change(draw_refusal(chance, schema), chance.pick(tuple(PutMode)), timeout)]
            case 4 | 5:
                anew = draw_temporary(chance)
                return [Remove(TEMPORARY, timeout), Change(anew, PutMode.CREATE, timeout)]
            case _:
                self._growing[code] = draw_growth(chance, schema, f"more{self._changes}")
                return [Change(self._growing[code], chance.pick((PutMode.PUT, PutMode.UPDATE)),
                               timeout)]  # fmt: skip
