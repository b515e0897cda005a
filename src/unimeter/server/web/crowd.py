"""Which HTTP connections stay when there are too many of them.

Owns the set of open connections and its bound. Over the bound somebody makes room, in this order:

    1. the oldest stranger: a connection on which nobody was let in yet, whatever it does
    2. the known connection that has been idle longest, between two requests
    3. nobody, and the newcomer is told 503: all are being answered

So a crowd without a key can't lock anybody out, not even a probe, which is a stranger itself
but a new one, and gone long before as many others have come after it.

Rejected: a bound for each address. Behind a proxy all the world has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unimeter.server.web.protocol import HttpProtocol


class Crowd:
    """The connections of one port."""

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self.turned_out = 0  # that made room for another
        self.refused = 0  # for which there was no room
        self._open: dict[HttpProtocol, None] = {}
        self._strangers: dict[HttpProtocol, None] = {}  # oldest first
        self._idle: dict[HttpProtocol, None] = {}  # known ones, idle longest first

    def __len__(self) -> int:
        return len(self._open)

    def join(self, connection: HttpProtocol) -> bool:
        """A new one; whether there is room for it."""
        if len(self._open) >= self.connections_max and not self._make_room():
            self.refused += 1
            return False
        self._open[connection] = self._strangers[connection] = None
        return True

    def leave(self, connection: HttpProtocol) -> None:
        """It is gone, or was never in."""
        for group in (self._open, self._strangers, self._idle):
            group.pop(connection, None)

    def know(self, connection: HttpProtocol) -> None:
        """Somebody was let in on it."""
        self._strangers.pop(connection, None)

    def work(self, connection: HttpProtocol) -> None:
        """A request of it is being answered."""
        self._idle.pop(connection, None)

    def rest(self, connection: HttpProtocol, *, is_known: bool) -> None:
        """Its request has been answered; `is_known`: to somebody who was let in."""
        if connection not in self._open:
            return
        if is_known:
            self._idle[connection] = None
        else:
            self._strangers.setdefault(connection)

    def _make_room(self) -> bool:
        for group in (self._strangers, self._idle):
            for connection in group:
                self.leave(connection)
                self.turned_out += 1
                connection.transport.abort()
                return True
        return False

    def statistics(self) -> dict[str, int]:
        """What became of the connections that were too many."""
        return {"http_turned_out": self.turned_out, "http_refused": self.refused}
