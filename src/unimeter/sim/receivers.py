"""Whoever receives webhooks in a simulated world, and what must be true of what they got.

Owns a receiver for each URL, which forgets nothing and answers as chance wants: it takes a
message and says so, takes it and says nothing, or fails. Once the world is healed it takes all.

    SimOutbound.post ─ on its way ─> Receivers.took ─ on its way back ─> the answer, or none

What is checked, of webhooks that were never replayed:

- nothing is invented: each message is signed and tells of an alert of the log that is wanted;
- order: of an account, no alert comes for the first time before one of a lower position;
- what the log says is done has been taken.

Not checked: how often a message comes. Nothing is drawn where there is no webhook.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from unimeter.engine.alert_log import alert_at
from unimeter.server import webhook_message
from unimeter.server.platform import Answer, OutboundError
from unimeter.sim.failures import CheckFailed
from unimeter.types import Account
from unimeter.webhooks import verify

if TYPE_CHECKING:
    from unimeter.server.node import Node
    from unimeter.sim.machines import Machine
    from unimeter.sim.process import Process

WHO = "Webhooks"
ON_ITS_WAY = 0.03  # seconds at most, each way
ENDS = {"taken": 0.6, "taken in silence": 0.15, "failed": 0.15, "lost": 0.1}


class Receivers:
    """All receivers of a world."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[int, bytes]] = {}  # url -> position -> body
        self._last: dict[tuple[str, Account], int] = {}

    def took(self, node: Node, url: str, headers: dict[str, str], body: bytes) -> None:
        """A message of this node has arrived for good."""
        state = node.machine.administration
        ids = [ident for ident, record in state.webhooks.items() if record.url == url]
        if len(ids) != 1 or state.deliveries[ids[0]].epoch:
            return  # deleted, replayed, or two webhooks of one URL
        record = state.webhooks[ids[0]]
        alert = verify(body, headers, record.secret, tolerance=None).alert
        line = alert_at(node.machine, alert.position)
        ident = f"alert_{node.machine.cluster_id[:8].hex()}_{alert.position}"
        if (
            body != webhook_message.alert_body(line)
            or headers["webhook-id"] != ident
            or not record.wants(line.account, line.metric_code)
        ):
            raise CheckFailed(WHO, f"{url} was told of alert {alert.position}, which is none")
        taken, lane = self.taken.setdefault(url, {}), (url, line.account)
        if alert.position not in taken and alert.position < self._last.get(lane, 0):
            raise CheckFailed(WHO, f"alert {alert.position} came after {self._last[lane]}")
        taken[alert.position] = body
        self._last[lane] = max(alert.position, self._last.get(lane, 0))

    def missing(self, node: Node) -> int:
        """How many alerts active webhooks still want; raises for one that is done and not taken."""
        state, missing = node.machine.administration, 0
        urls = [record.url for record in state.webhooks.values()]
        for ident, record in state.webhooks.items():
            delivery = state.deliveries[ident]
            if delivery.epoch or urls.count(record.url) > 1:
                continue
            taken = self.taken.get(record.url, {})
            for position in range((record.start or 0) + 1, node.last_alert + 1):
                line = alert_at(node.machine, position)
                if position in taken or not record.wants(line.account, line.metric_code):
                    continue
                if position <= delivery.through or position in delivery.done:
                    raise CheckFailed(WHO, f"alert {position} is done and {record.url} has not it")
                missing += record.is_active
        return missing


class SimOutbound:
    """Requests of one process."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine, self._world = machine, machine.world
        self._chance = process.chance.fork("outbound")

    async def post(self, url: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
        """What came of it."""
        chance, world = self._chance, self._world
        end = "taken" if world.is_healed else chance.weighted(ENDS)
        await asyncio.sleep(chance.real() * ON_ITS_WAY)
        if end in ("taken", "taken in silence"):
            try:
                world.receivers.took(self._machine.node, url, headers, body)
            except CheckFailed as failure:
                world.fail(failure)
        await asyncio.sleep(chance.real() * ON_ITS_WAY)
        if end in ("taken in silence", "lost"):
            world.reach("a webhook's answer was lost")
            raise OutboundError("no answer")
        world.reach(f"a webhook's message was {end}")
        return Answer(204 if end == "taken" else 500, {})

    async def close(self) -> None:
        """There is nothing open."""
