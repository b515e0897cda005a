"""Alerts to the connections that asked for them.

Owns one cursor for each subscription: the position of the last alert sent. An
alert exists in the engine before it is pushed, so a push only says what
ALERTS_LIST would say too; a subscriber that reconnects names the last position
it saw and misses nothing, gets nothing twice.

    pump: while the socket takes it: next page after the cursor ─> frames ─> cursor moves

Missed alerts and new ones go the same way, a page at a time. A subscriber that
reads slowly therefore costs no memory: the cursor waits, the alerts stay where
they are, and reading on pumps again.

A v1 client subscribes on every node and can't tell that two pushes are the same
alert. So only the node that leads when the alert comes to be pushes it to v1; the cursor of
the others moves on without a word.

Rejected: a queue for each subscriber. It needs a bound, and at the bound a
choice between losing alerts and losing the subscriber.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.server.handlers import alert_rows
from unimeter.wire import v1, v2
from unimeter.wire.framer import VERSION_1, push_frame
from unimeter.wire.messages import AlertPush, AlertPushEnable, AlertRow

if TYPE_CHECKING:
    from unimeter.server.connection import Connection

PAGE_ALERTS = 256  # frames joined into one write


class Subscription:
    """What one connection wants to hear of, and how far it has heard."""

    __slots__ = ("accounts", "after", "connection", "metrics", "version")

    def __init__(self, connection: Connection, version: int, request: AlertPushEnable) -> None:
        self.connection = connection
        self.version = version
        self.accounts = frozenset(request.accounts)
        self.metrics = frozenset(request.metrics)
        # A position above the last one here is not cut down: this node may still lag behind
        # the one that the subscriber came from.
        last = connection.node.last_alert
        self.after = last if request.after is None else request.after

    def pump(self) -> None:
        """Send what is new until the socket is full or nothing is left."""
        connection = self.connection
        node = connection.node
        if self.version == VERSION_1 and not node.leads:
            self.after = max(self.after, node.last_alert)
            return
        while self.after < node.last_alert and not connection.is_slow:
            with node.lock:
                rows, _ = alert_rows(node, self.after, PAGE_ALERTS)
            assert rows, "an alert counted is an alert that can be read"
            self.after = rows[-1].position
            frames = b"".join(self._frame(row) for row in rows if self._wants(row))
            if frames:
                connection.write(frames)

    def _wants(self, row: AlertRow) -> bool:
        if self.version == VERSION_1 and not isinstance(row.account, int):
            return False  # v1 has no name for a string account
        return (not self.accounts or row.account in self.accounts) and (
            not self.metrics or row.metric_code in self.metrics
        )

    def _frame(self, row: AlertRow) -> bytes:
        wire = v1 if self.version == VERSION_1 else v2
        node = self.connection.node
        kind, payload = wire.encode_push(AlertPush(row, node.node_id), node.machine.applied)
        return push_frame(self.version, kind, payload)
