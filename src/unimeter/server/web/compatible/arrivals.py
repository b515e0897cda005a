"""Items of other products on their way in: mapped, stored, and what became of each.

Owns the way that all compatible routes share:

    items ─ Mapper ─┬─ drafts ─ columns ─ store (rights, parts, quorum) ─┐
                    └─ refused by the mapping, with the reason ──────────┴─> Receipt

A receipt speaks of items, not of events: one item may have fed several metrics. It is
"stored" if one of its events is new, "duplicate" if all were counted before, and whatever
refused one of them otherwise, with the metric's name. How a receipt is told is each
product's own affair, but a refused item is always told.

An event that the caller may not send makes the whole request a 403 before anything is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from unimeter.errors import NotFoundError
from unimeter.server.mapping import Rule
from unimeter.server.web.answers import exact
from unimeter.server.web.api.store import Tally, store
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.amounts import Refused
from unimeter.server.web.compatible.drafts import Draft, Item, Mapper, Shape
from unimeter.server.web.gateway import ITSELF
from unimeter.server.web.problems import Fault, Problem
from unimeter.types import MetricSchema
from unimeter.wire import v2
from unimeter.wire.messages import MetricList, MetricListReply

STORED, DUPLICATE, IGNORED = "stored", "duplicate", "ignored"
ITEMS_AT_ONCE = 256  # some 5 ms of mapping


@dataclass(slots=True)
class Receipt:
    """What became of the items of one request, by their place in it."""

    outcomes: list[str]
    refusals: list[dict[str, Any]] = field(default_factory=list)  # in the order of places
    position: int = 0
    now_ns: int = 0  # the time of what was sent without one

    def count(self, outcome: str) -> int:
        """How many items came to this."""
        return self.outcomes.count(outcome)

    @property
    def refused(self) -> int:
        """How many items were not counted, or not in every metric that they feed."""
        return len({refusal["index"] for refusal in self.refusals})

    def body(self) -> dict[str, Any]:
        """The members of an answer that has room for them."""
        return {
            "stored": self.count(STORED),
            "duplicates": self.count(DUPLICATE),
            "ignored": self.count(IGNORED),
            "refused": self.refused,
            "position": self.position,
            "outcomes": self.outcomes,
            "refusals": self.refusals,
        }

    def summary(self) -> str:
        """The counts, and the first refusal, in a sentence."""
        first = self.refusals[0]
        if len(self.outcomes) == len(self.refusals) == 1:
            return str(first["reason"])
        return (
            f"{self.refused} of {len(self.outcomes)} were refused; "
            f"{self.count(STORED)} were stored and {self.count(DUPLICATE)} had been before. "
            f"The first: [{first['index']}] {first['reason']}"
        )

    def faults(self, path: str = "$[{}]") -> list[Fault]:
        """The refusals as a problem lists them."""
        return [
            Fault(path.format(one["index"]), one["reason"], "", one["index"], one["field"])
            for one in self.refusals
        ]

    def problem(self, path: str = "$[{}]") -> Problem:
        """The 400 for products whose answer has no room: what was refused, and the rest."""
        return Problem(400, "refused", self.summary(), self.faults(path), more=exact(self.body()))


async def receive(
    call: Call,
    shape: Shape,
    items: Sequence[Item],
    builtin: Callable[[Item], list[Rule]] = lambda item: [],
) -> Receipt:
    """Have items counted, durably. Raises what the node or the caller's rights refuse."""
    section = call.site.mappings.sections[shape.section]
    codes = set()
    async for item in in_turns(items):
        codes.add(item.name)
        codes.update(rule.metric for rule in (*section.rules(item.name), *builtin(item)))
    schemas = await _schemas(call, codes)
    mapper = Mapper(shape, section, schemas, call.principal, builtin)
    receipt = Receipt([IGNORED] * len(items), now_ns=call.site.server.node.clock())
    drafts: list[Draft] = []
    async for item in in_turns(items):
        try:
            drafts += mapper.drafts(item)
        except Refused as refused:
            _refuse(receipt, item.index, refused)
    columns = columns_of(drafts)
    columns.default_timestamp_ns = receipt.now_ns
    tally = await store(call, columns)
    _gather(receipt, drafts, tally)
    receipt.refusals.sort(key=lambda one: int(one["index"]))
    receipt.position = tally.position
    return receipt


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items; in between, others have their turn, the node's own elections among them."""
    for count, item in enumerate(items, 1):
        yield item
        if not count % ITEMS_AT_ONCE:
            await asyncio.sleep(0)


def columns_of(drafts: Sequence[Draft]) -> v2.Columns:
    """Drafts turned on their side."""
    return v2.Columns(
        accounts=[draft.account for draft in drafts],
        metric_codes=[draft.metric for draft in drafts],
        values=[draft.value for draft in drafts],
        timestamps_ns=[draft.timestamp_ns for draft in drafts],
        properties=[draft.tags for draft in drafts],
        operations=[draft.operation for draft in drafts],
        ids=[draft.id for draft in drafts],
    )


def _refuse(receipt: Receipt, index: int, refused: Refused) -> None:
    word = refused.outcome.name.lower()
    receipt.outcomes[index] = word
    receipt.refusals.append(
        {"index": index, "outcome": word, "reason": refused.reason, "field": refused.field}
    )


def _gather(receipt: Receipt, drafts: Sequence[Draft], tally: Tally) -> None:
    """From the outcomes of events to those of their items."""
    assert tally.outcomes is not None and len(tally.outcomes) == len(drafts)
    for draft, outcome in zip(drafts, tally.outcomes, strict=True):
        before = receipt.outcomes[draft.index]
        if before in (IGNORED, DUPLICATE) or (before == STORED and outcome != DUPLICATE):
            receipt.outcomes[draft.index] = outcome
    for refusal in tally.refusals:
        draft = drafts[refusal["index"]]
        receipt.refusals.append({**refusal, "index": draft.index, "field": ""})


async def _schemas(call: Call, codes: set[str]) -> Callable[[str], MetricSchema | None]:
    """Definitions by code. What this node does not know yet, the leader is asked for once."""
    node = call.site.server.node
    known: dict[str, MetricSchema] = {}
    missing = set()
    with node.lock:
        for code in sorted(codes):
            try:
                known[code] = node.machine.catalog.find(code).schema
            except NotFoundError:
                missing.add(code)
    if missing - {""} and call.site.server.cluster is not None:
        # The node's own question: the caller may well have no right to list metrics.
        reply, _ = await call.site.gateway.ask(MetricList(linearizable=True), ITSELF)
        assert isinstance(reply, MetricListReply)
        known |= {schema.code: schema for schema in reply.metrics if schema.code in missing}
    return known.get
