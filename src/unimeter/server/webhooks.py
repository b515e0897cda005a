"""The webhooks of a node: who sends what, while this node leads, and nobody while it does not.

Owns one `Sender` for each webhook that the log has, and when there are any:

    lead taken ─> everything before it applied here ─> senders from the log's state
    webhook made, paused, resumed, replayed, deleted ─> its sender begins, is told, or ends
    lead lost ─> all end at once

The state of deliveries is in the log, so the next leader begins where this one had recorded
that it was. It waits until it has applied what its predecessor recorded: otherwise it
would send again what is known to be done.

All senders together have at most REQUESTS_MAX requests under way: descriptors are
bounded. Whoever found no room is woken when there is some.

Refuses to know lanes and HTTP (`webhook_sender`), and what may be changed (`engine`).

Rejected: every node sending a share of the accounts. It spreads what is little work, and an order
per account would hang on who owns an account just now.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from unimeter.control import Delivery, Webhook, WebhookRecord
from unimeter.errors import NotFoundError
from unimeter.server.platform import Outbound, Platform

if TYPE_CHECKING:
    from unimeter.server.node import Node
    from unimeter.server.webhook_sender import Result, Sender

REQUESTS_MAX = 64  # of all webhooks; descriptors beside those of clients


class Webhooks:
    """All webhooks of one node. For one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, platform: Platform) -> None:
        self.loop, self.platform = loop, platform
        self.node: Node  # from `attach` on
        self.tells_all = False  # what internal addresses answer is shown to administrators too
        self.inflight = 0
        self.delivered = self.failed = 0  # attempts since the start of this process
        self._is_attached = self._is_closed = False
        self._is_caught_up = False  # this node leads, and has applied all from before
        self._lead = 0  # counts the leads: a wait for an earlier one is void
        self._term = 0  # in which this node leads and has begun; 0 = it has not
        self._senders: dict[str, Sender] = {}
        self._starved: dict[str, None] = {}
        self._outbound: Outbound | None = None

    def attach(self, node: Node) -> None:
        """There is a node; it may lead already."""
        self.node = node
        self._is_attached = True
        self.lead_taken()

    @property
    def outbound(self) -> Outbound:
        """Who makes the requests; made when the first one is."""
        if self._outbound is None:
            self._outbound = self.platform.outbound()
        return self._outbound

    # --- what happens ------------------------------------------------------------------

    @property
    def is_leading(self) -> bool:
        """Whether this node may send."""
        return self._is_caught_up and self.node.leads and not self._is_closed

    def lead_taken(self) -> None:
        """Begin, once all that former leaders put into the log is applied here.

        May be called again while this node leads: a lead that goes on is not begun anew.
        """
        if not self._is_attached or not self.node.leads or self._term == self.node.replica.term:
            return
        self.stop_sending()
        self._term = self.node.replica.term
        self._catch_up(self._lead, self.node.replica.raft.last_index)

    def _catch_up(self, lead: int, index: int) -> None:
        if lead != self._lead or self._is_closed or not self.node.leads:
            return
        self.node.reads.at_position(
            index,
            lambda: self._caught_up(lead),
            lambda: self.loop.call_soon(self._catch_up, lead, index),  # it takes longer
        )

    def _caught_up(self, lead: int) -> None:
        if lead == self._lead and self.node.leads and not self._is_closed:
            self._is_caught_up = True
            self.changed()

    def lead_changed(self) -> None:
        """Another node leads, or none."""
        if self._is_attached and not self.node.leads:
            self.stop_sending()

    def changed(self) -> None:
        """Administrators may have changed a webhook: look which."""
        if not self._is_attached or not self.is_leading:
            return
        with self.node.lock:
            state = self.node.machine.administration
            webhooks, deliveries = dict(state.webhooks), dict(state.deliveries)
        for ident in [ident for ident in self._senders if ident not in webhooks]:
            self._drop(ident)
        for ident, record in webhooks.items():
            self._look(record, deliveries[ident])

    def _look(self, record: WebhookRecord, delivery: Delivery) -> None:
        sender = self._senders.get(record.id)
        if sender is not None and (
            sender.epoch != delivery.epoch or sender.record.created_ns != record.created_ns
        ):
            self._drop(record.id)  # replayed, or another one of the same id
            sender = None
        if sender is None:
            from unimeter.server.webhook_sender import Sender  # not before there is a webhook

            sender = self._senders[record.id] = Sender(self, record, delivery)
            sender.wake()
        elif sender.record is not record:
            sender.changed(record)

    def _drop(self, ident: str) -> None:
        self._senders.pop(ident).stop()
        self._starved.pop(ident, None)

    def alerted(self) -> None:
        """There are new alerts."""
        for sender in self._senders.values():
            sender.wake()

    def stop_sending(self) -> None:
        """End all senders: this node does not lead, or has to look anew."""
        self._lead += 1
        self._term = 0
        self._is_caught_up = False
        senders, self._senders = self._senders, {}
        self._starved.clear()
        for sender in senders.values():
            sender.stop()

    # --- room for requests -----------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether one more request may be made."""
        return self.inflight < REQUESTS_MAX

    def has_room_for(self, ident: str) -> bool:
        """Whether one more request may be made; if not, its sender is woken later."""
        if self.has_room:
            return True
        self._starved[ident] = None
        return False

    def ended(self) -> None:
        """A request is over; whoever waits longest for room is next."""
        self.inflight -= 1
        assert self.inflight >= 0
        while self._starved:
            ident = next(iter(self._starved))
            del self._starved[ident]
            sender = self._senders.get(ident)
            if sender is not None:
                sender.wake()
                return

    # --- for administrators -----------------------------------------------------------------

    def find(self, ident: str) -> Webhook:
        """A webhook, with its secret, and how far it has come; NotFoundError."""
        with self.node.lock:
            state = self.node.machine.administration
            record, delivery = state.webhooks.get(ident), state.deliveries.get(ident)
        if record is None or delivery is None:
            raise NotFoundError(f"there is no webhook {ident!r}")
        return Webhook(record, delivery)

    async def send_trial(self, ident: str) -> Result:
        """Send a signed message that is no alert, now and from here; what came of it."""
        from unimeter.server import webhook_message, webhook_sender

        record = self.find(ident).record
        name, body = webhook_message.trial_message(ident, self.platform.time_ns())
        return await webhook_sender.attempt(self, record, name, body)

    # --- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Record what is done; send nothing more. The node is about to stop."""
        if self._is_attached and self.is_leading:
            for sender in self._senders.values():
                sender.finish()
        self._is_closed = True
        self.stop_sending()

    async def close(self) -> None:
        """End the connections."""
        self._is_closed = True
        self.stop_sending()
        if self._outbound is not None:
            await self._outbound.close()

    def statistics(self) -> dict[str, int]:
        """Attempts by what came of them, requests under way, and how far the slowest is behind."""
        found = {
            "webhook_delivered": self.delivered,
            "webhook_failed": self.failed,
            "webhook_inflight": self.inflight,
            "webhook_senders": len(self._senders),
            "webhook_paused": 0,
            "webhook_lag": 0,
            "webhook_retrying": 0,
        }
        for sender in self._senders.values():
            if sender.record.is_active:
                lag = self.node.last_alert - sender.lanes.through
                found["webhook_lag"] = max(found["webhook_lag"], lag)
            else:
                found["webhook_paused"] += 1
            found["webhook_retrying"] += sender.lanes.statistics()["retrying"]
        return found
