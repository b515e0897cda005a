"""What a node needs from whoever runs it, and the simplest one who can.

Owns the seam between the node and the outside: `Host` names the things that
a node asks for (time to come back, another thread, delivery, and to be heard
when it can't go on). `server.clients` is the host with an event loop and
sockets; `InlineHost` is the host of the embedded API, of tools and of tests,
where everything has happened by the time a call returns.

Rejected: futures. A node would then belong to one loop's kind of future, and a
turn of 64 requests would create 64 of them to say one thing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol


class Host(Protocol):
    """What a node needs from whoever runs it."""

    inline: bool
    """Never use the sync thread: there is no loop to come back to."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` once all input that is ready now was fed."""

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run `callback` on the node's thread after about so long, or sooner."""

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Run `callback` on the node's thread; may be called from any thread."""

    def aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `work` without holding up the node, then `then(result or exception)`."""

    def deliver(self, replies: list[tuple[int, bytes]]) -> None:
        """Send rendered ingest replies to their slots."""

    def alerted(self, start: int, end: int) -> None:
        """Alerts at positions ``[start, end)`` have come to exist."""

    def administered(self) -> None:
        """An entry about keys, webhooks or deliveries was applied."""

    def changed(self, kind: int) -> None:
        """An entry of that kind was applied, while `node.touched` is there to note what changed."""

    def replaced(self) -> None:
        """The machine is another one: a peer's snapshot."""

    def lead_changed(self, lead: int) -> None:
        """This node leads now (by its id), another one, or (0) nobody that is known."""

    def lead_taken(self) -> None:
        """Input is taken here from now on."""

    def notice(self, sentence: str) -> None:
        """Something the operator should read."""

    def failed(self, error: BaseException) -> None:
        """The node can't go on. Nothing more will be acknowledged."""


class InlineHost:
    """A host without a loop: everything happens before the call returns."""

    inline = True

    def __init__(self) -> None:
        self.replies: list[tuple[int, bytes]] = []
        self.watchers: list[Callable[[int, int], None]] = []
        self.on_changed: Callable[[int], None] = lambda kind: None

    def soon(self, callback: Callable[[], None]) -> None:
        """Do nothing: the caller runs the turn itself."""

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run it now: nobody would come back to it."""
        callback()

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Run it now."""
        callback(*args)

    def aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run both now."""
        then(run(work))

    def deliver(self, replies: list[tuple[int, bytes]]) -> None:
        """Keep them for the caller."""
        self.replies.extend(replies)

    def take_replies(self) -> list[tuple[int, bytes]]:
        """The replies since the last call."""
        taken, self.replies = self.replies, []
        return taken

    def alerted(self, start: int, end: int) -> None:
        """Tell every watcher."""
        for watcher in self.watchers:
            watcher(start, end)

    def administered(self) -> None:
        """Do nothing: an inline node looks at each question."""

    def changed(self, kind: int) -> None:
        """Tell whoever watches totals."""
        self.on_changed(kind)

    def replaced(self) -> None:
        """Do nothing: an inline node has no peers."""

    def lead_changed(self, lead: int) -> None:
        """Do nothing: an inline node is alone and leads."""

    def lead_taken(self) -> None:
        """Do nothing: nothing was held."""

    def notice(self, sentence: str) -> None:
        """Say it as a warning: a library has no log of its own."""
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)

    def failed(self, error: BaseException) -> None:
        """Let the caller see it."""
        raise error


def run(work: Callable[[], Any]) -> Any:
    """The result of `work`, or the exception it raised."""
    try:
        return work()
    except Exception as error:
        return error
