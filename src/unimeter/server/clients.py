"""All connections of a node, and the event loop as the node's host.

Owns the slots: a number for each connection that the kernel gives back with
its reply, so that one turn's replies find their sockets without a Python object
for each request. A slot is never used again while an old reply might still carry it:
they count up and wrap at 32 bits, past the ones in use.

As the node's `Host` it brings the sync thread's news back to the loop, runs
scans in two worker threads (at most ASIDE_MAX waiting, then "wait"), hands out replies
and keeps the subscribers' cursors moving.

A loop that goes to sleep between two requests of one client pays for waking up:
some 40 of 280 microseconds measured. So where lone requests follow one another
closely, the loop *lingers* after a reply: it looks for input again instead of sleeping,
for LINGER_SECONDS at most. An idle node does not linger, and under load there is nothing
to wait for.

Slow readers are looked at once a second: one that took no byte for
CONNECTION_STALL_SECONDS is cut off.

In a cluster it also says who leads: the partition map is made from what the cluster knows
(`directory`), and pushed to every connection that asked for it once when that changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from unimeter import limits
from unimeter.control import Actor
from unimeter.errors import BackpressureError, InvalidInputError
from unimeter.server.buffers import ReadBuffers
from unimeter.server.connection import Connection
from unimeter.server.forward import Forwarded, Forwarder
from unimeter.server.gate import LOGIN_SECONDS, STRANGERS_MAX, Gate
from unimeter.server.hosts import run
from unimeter.server.node import Node
from unimeter.server.platform import REAL, Platform
from unimeter.server.pumps import Pumps
from unimeter.server.subscriptions import Subscription
from unimeter.server.webhooks import Webhooks
from unimeter.types import PARTITION_COUNT
from unimeter.wire import v1, v2
from unimeter.wire.framer import VERSION_1, VERSION_2, push_frame
from unimeter.wire.messages import (
    ClusterStatusReply,
    PacketType,
    PartitionMapReply,
    PartitionRoute,
    Response,
)

if TYPE_CHECKING:
    from unimeter.server.auth import Auth

ASIDE_MAX = 256  # scans waiting for a worker; each is one query
ASIDE_THREADS = 2
FINISH_SECONDS = 5.0  # for the replies to a client that closed its sending side
GATHER_REPLIES_MIN = 8  # replies of one turn from which on the next one waits for company
LINGER_SECONDS = 0.00015  # a client takes 60 to 120 microseconds to send its next request
LINGER_REPLIES_SECONDS = 0.001  # replies further apart than this are not one client's hurry
_SLOT_MASK = 2**32 - 1


class Directory(Protocol):
    """What a cluster knows of its nodes, for the clients."""

    def routes(self, own_address: str, *, must_lead: bool) -> list[PartitionRoute]:
        """Leader and replicas of every partition; `must_lead`: some node stands as leader."""

    def lead_changed(self, lead: int) -> None:
        """Another node leads, or (0) none."""

    def transfer_leader(
        self, node_id: int, done: Callable[[Response, int], None], actor: Actor | None
    ) -> None:
        """Begin to hand leadership over; raises where there is no such node."""

    def complete_status(self, status: ClusterStatusReply) -> None:
        """Add what is known of the other nodes."""


class Clients:
    """The event loop's side of a node."""

    inline: bool = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        platform: Platform = REAL,
        connections_max: int = 2**31,
    ) -> None:
        self.loop, self.platform = loop, platform
        self._clock = platform.monotonic
        self.node: Node  # set by `attach`, before the first connection
        self.buffers = ReadBuffers()
        self.shared = self.buffers.shared
        self.pumps = Pumps(loop, platform)
        self.advertise = ""
        self.webhooks = Webhooks(loop, platform)
        self.connections_max = connections_max
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.on_tls_hello: Callable[[str], None] = lambda address: None
        self.on_administered: Callable[[], None] = lambda: None
        self._writes: dict[int, Callable[[bytes], Any]] = {}
        self._connections: dict[int, Connection] = {}
        self._slow: dict[int, Connection] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._last_slot = 0
        self._own_count = 0  # of the connections: stand-ins, and this process's HTTP side
        self.auth: Auth | None = None  # without one everybody may do everything
        self._strangers: dict[int, tuple[Connection, float]] = {}  # not logged in, oldest first
        self.forwarder: Forwarder | None = None  # in a cluster
        self.directory: Directory | None = None
        self._maps: dict[tuple[int, str], bytes] = {}
        self._map_readers: dict[int, Connection] = {}  # who asked for the map, by slot
        self._workers = platform.workers(ASIDE_THREADS, "unimeter-scan")
        self._asides = 0
        self._linger_until = self._replied = 0.0
        self._is_lingering = False
        self._lingers = platform.lingers
        self._answered = 0  # replies of the last turn

    def attach(self, node: Node) -> None:
        """Serve this node from now on."""
        self.node = node
        self.webhooks.attach(node)
        self.pumps.attach(node)

    # --- connections -------------------------------------------------------------

    def connection(self) -> Connection:
        """The protocol of a new socket: asyncio calls this."""
        return Connection(self)

    def join(self, connection: Connection) -> int:
        """Give a connection its slot; 0 when there are too many.

        Who has not logged in makes room, the oldest first.
        """
        if self.count >= self.connections_max and not connection.is_own:
            if not self._strangers:
                self.node.statistics.closed_too_many += 1
                return 0
            self._close_stranger(next(iter(self._strangers)))
        slot = (self._last_slot + 1) & _SLOT_MASK
        while slot in self._connections or slot == 0:
            slot = (slot + 1) & _SLOT_MASK
        self._last_slot = slot
        self._connections[slot] = connection
        self._own_count += connection.is_own
        self._writes[slot] = connection.transport.write
        self.node.statistics.connections_opened += 1
        return slot

    def leave(self, connection: Connection) -> None:
        """Forget a connection; replies still on their way to it are dropped."""
        slot = connection.slot
        if not slot:
            return
        del self._connections[slot], self._writes[slot]
        self._own_count -= connection.is_own
        self._slow.pop(slot, None)
        self._subscriptions.pop(slot, None)
        self._map_readers.pop(slot, None)
        self._strangers.pop(slot, None)
        self.node.statistics.connections_closed += 1

    # --- who they are ------------------------------------------------------------

    def gate_of(self, connection: Connection) -> Gate:
        """The standing of a client that has just come."""
        peer = connection.transport.get_extra_info("peername")
        gate = Gate(self.auth, peer[0] if isinstance(peer, tuple) else "")
        if gate.is_stranger:
            self._strangers[connection.slot] = (connection, self.loop.time())
            if len(self._strangers) > STRANGERS_MAX:
                self._close_stranger(next(iter(self._strangers)))
        return gate

    def logged_in(self, connection: Connection) -> None:
        """A connection has shown who it is; what it was told as somebody else ends."""
        self._strangers.pop(connection.slot, None)
        self._subscriptions.pop(connection.slot, None)
        connection.subscription = None
        if connection.watching is not None:
            self.loop.call_soon(connection.watching.close)  # which takes the node's lock
            connection.watching = None

    def _close_stranger(self, slot: int) -> None:
        connection, _ = self._strangers.pop(slot)
        self.node.statistics.closed_strangers += 1
        connection.transport.abort()

    def look_at_strangers(self) -> None:
        """Once a second: close who has not logged in for too long."""
        now = self.loop.time()
        for slot, (connection, since) in list(self._strangers.items()):
            if not connection.gate.is_stranger:
                del self._strangers[slot]  # there was no key after all
            elif now - since >= LOGIN_SECONDS:
                self._close_stranger(slot)

    def keys_changed(self) -> None:
        """Look at every open connection again."""
        for connection in list(self._connections.values()):
            connection.look_at_key()

    # --- slow clients ------------------------------------------------------------

    def close_when_answered(self, connection: Connection) -> bool:
        """Close a connection that sends no more once nothing is under way; False if so now."""
        if self._is_quiet:
            return False
        deadline = self.loop.time() + FINISH_SECONDS

        def look() -> None:
            if self._is_quiet or self.loop.time() > deadline:
                connection.transport.close()
            else:
                self.loop.call_later(FINISH_SECONDS / 500, look)

        self.loop.call_soon(look)
        return True

    @property
    def _is_quiet(self) -> bool:
        """Whether every request taken in was answered."""
        return self.node.idle and not self.busy

    def slow_down(self, connection: Connection) -> None:
        """The connection's client does not read: watch it, and bound what waits for it."""
        connection.stalled_bytes = connection.transport.get_write_buffer_size()
        connection.stalled_since = self.loop.time()
        self._slow[connection.slot] = connection
        self._writes[connection.slot] = connection.write

    def speed_up(self, connection: Connection) -> None:
        """The connection's client reads again."""
        if self._slow.pop(connection.slot, None) is not None:
            self._writes[connection.slot] = connection.transport.write

    def cut_off_stalled(self) -> None:
        """Close connections whose client has taken nothing for too long."""
        now = self.loop.time()
        for connection in list(self._slow.values()):
            waiting = connection.transport.get_write_buffer_size()
            if waiting < connection.stalled_bytes:
                connection.stalled_since = now
            elif now - connection.stalled_since >= limits.CONNECTION_STALL_SECONDS:
                connection.cut_off()
            connection.stalled_bytes = waiting

    def subscribe(self, subscription: Subscription) -> None:
        """Keep a subscriber's cursor moving; the reply to its request goes out first."""
        self._subscriptions[subscription.connection.slot] = subscription
        self.loop.call_soon(subscription.pump)

    # --- who leads ---------------------------------------------------------------

    def partition_map(self, version: int, connection: Connection) -> bytes:
        """The encoded map, at addresses that clients can reach; changes of it are pushed."""
        if self.directory is not None:
            self._map_readers[connection.slot] = connection
        address = self.advertise
        if not address:
            host, port = connection.transport.get_extra_info("sockname")[:2]
            address = f"{host}:{port}"
        payload = self._maps.get((version, address))
        if payload is None:
            payload = self._maps[version, address] = self._encode_map(version, address)
        return payload

    def _encode_map(self, version: int, address: str) -> bytes:
        if self.directory is None:
            routes = [PartitionRoute(address, [address])] * PARTITION_COUNT
        else:
            routes = self.directory.routes(address, must_lead=version == VERSION_1)
        wire = v1 if version == VERSION_1 else v2
        position = self.node.machine.applied
        reply = PartitionMapReply(routes)
        payload: bytes = wire.encode_response(PacketType.GET_PARTITION_MAP, reply, position)
        return payload

    def map_changed(self, versions: tuple[int, ...] = (VERSION_2,)) -> None:
        """Push the new map to the connections of these versions that asked for the old one.

        Version 1 hears of a new leader only: its map has 24 KiB, and the published client
        drops a push. Who does not read gets none, and asks again some day.
        """
        self._maps.clear()
        for connection in self._map_readers.values():
            version = connection.map_version
            if version in versions and not connection.is_slow:
                payload = self.partition_map(version, connection)
                connection.write(push_frame(version, PacketType.PARTITION_MAP_UPDATE, payload))

    def lead_changed(self, lead: int) -> None:
        """Tell everybody who leads now."""
        self.webhooks.lead_changed()
        if self.directory is not None:
            self.directory.lead_changed(lead)
        self.map_changed((VERSION_1, VERSION_2) if lead else (VERSION_2,))

    def lead_taken(self) -> None:
        """Input is taken here: carry out what was held for a leader."""
        self.webhooks.lead_taken()
        if self.forwarder is not None:
            self.forwarder.let_in(self._carry_out)

    def _carry_out(self, request: Forwarded) -> None:
        if not request.connection.is_gone:
            request.connection.take_again(request.frame)

    def transfer_leader(
        self, node_id: int, done: Callable[[Response, int], None], actor: Actor | None = None
    ) -> None:
        """Hand leadership to another node; `done` hears how it went."""
        if self.directory is None:
            raise InvalidInputError("this node is alone: nobody else can lead")
        self.directory.transfer_leader(node_id, done, actor)

    def complete_status(self, status: ClusterStatusReply) -> ClusterStatusReply:
        """What a node says of itself, and what the cluster knows of the others."""
        if self.directory is not None:
            self.directory.complete_status(status)
        elif status.nodes:
            status.nodes[0].client_address = self.advertise
        return status

    def stop_reading(self) -> None:
        """Take nothing more in; what was taken is still answered."""
        self.pumps.end()
        for connection in self._connections.values():
            if not connection.is_slow and not connection.transport.is_closing():
                connection.transport.pause_reading()

    def close(self) -> None:
        """Close every connection once its replies are written."""
        for connection in list(self._connections.values()):
            connection.transport.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def abort(self) -> None:
        """Close every connection now."""
        self.webhooks.stop_sending()
        self.pumps.end()
        for connection in list(self._connections.values()):
            connection.transport.abort()

    @property
    def count(self) -> int:
        """Open connections of clients; other nodes' and this process's own are none."""
        return len(self._connections) - self._own_count

    @property
    def busy(self) -> bool:
        """Whether a query is still reading stored events."""
        return self._asides > 0

    def statistics(self) -> dict[str, int]:
        """Connections and the bytes they hold."""
        return {
            "connections": self.count,
            "connections_slow": len(self._slow),
            "connections_subscribed": len(self._subscriptions),
            "held_bytes": self.buffers.held_bytes,
            "scans_waiting": self._asides,
        }

    # --- the node's host ---------------------------------------------------------

    def soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` after the reads of this turn of the loop.

        Where the last turn answered many, their next requests are just arriving: the loop looks
        once more, so that more of them share one entry and one sync.
        """
        if self._answered >= GATHER_REPLIES_MIN:
            self.loop.call_soon(self.loop.call_soon, callback)
        else:
            self.loop.call_soon(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop after a while."""
        self.loop.call_later(seconds, callback)

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Run `callback` on the loop; from any thread."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `work` in a worker, `then` on the loop; refuse when too many wait."""
        if self._asides >= ASIDE_MAX:
            raise BackpressureError("too many queries are reading stored events", 0.25)
        self._asides += 1

        def finished(future: Future[Any]) -> None:
            if not future.cancelled():
                self.post(back, future.result())

        def back(result: Any) -> None:
            self._asides -= 1
            then(result)

        self._workers.submit(run, work).add_done_callback(finished)

    def deliver(self, replies: list[tuple[int, bytes]]) -> None:
        """Write one turn's replies; a client that has gone gets none."""
        writes = self._writes
        for slot, data in replies:
            write = writes.get(slot)
            if write is not None:
                write(data)
        self._answered = len(replies)
        if self._answered == 1:
            self.linger()

    def linger(self) -> None:
        """A lone request was answered: if the last one was just now, expect the next at once."""
        if not self._lingers:
            return
        now = self._clock()
        is_hurried = now - self._replied < LINGER_REPLIES_SECONDS
        self._replied = now
        self._linger_until = now + LINGER_SECONDS
        if is_hurried and not self._is_lingering:
            self._is_lingering = True
            self.loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        if self._clock() < self._linger_until:
            self.loop.call_soon(self._look_again)
        else:
            self._is_lingering = False

    def alerted(self, start: int, end: int) -> None:
        """Push what is new, after the replies of this turn."""
        for subscription in self._subscriptions.values():
            self.loop.call_soon(subscription.pump)
        self.webhooks.alerted()
        self.pumps.changed()

    def changed(self, kind: int) -> None:
        """Tell the streams of totals."""
        if self.pumps.live.changes_catalog(kind):
            self.pumps.rebuild(is_other_machine=False)
        self.pumps.changed()

    def replaced(self) -> None:
        """A peer's snapshot brought alerts and totals along."""
        self.pumps.rebuild(is_other_machine=True)
        self.alerted(0, 0)

    def administered(self) -> None:
        """Webhooks may have been changed, and keys; the reply to whoever did goes out first."""
        self.webhooks.changed()
        self.loop.call_soon(self.on_administered)

    def notice(self, sentence: str) -> None:
        """Tell the operator."""
        self.platform.notice(sentence)

    def failed(self, error: BaseException) -> None:
        """The node can't go on: nothing more is read, nothing more is answered."""
        if self.failure is None:
            self.failure = error
            self.on_failure(error)
