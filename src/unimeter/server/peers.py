"""The other nodes of the cluster, as this one can reach them.

    this node ── dials ──> peer     everything this node says to the peer
    this node <── dials ── peer     everything the peer says to this node

Owns who is connected, whom to believe, and what becomes of a frame that can't be sent: it is
dropped and counted. Raft is made for that, and nothing here waits, repeats or keeps
anything for later; whoever needs an answer asks again. Refuses to know what is
said: raft messages go to `PeerHandler.on_message`, other kinds to `on_frame`, both on
the loop, in the order in which the peer sent them.

Two connections for each pair, one dialled by each: neither side has to decide which of
two crossing connections to keep, and each notices for itself whether it can be
heard. A link is *up* once the handshake (`wire.peer_handshake`) is over and neither
side refuses the other; `on_up` and `on_down` speak of the outgoing one.

An id belongs to one process at a time. Of a process that is connected, a second connection
replaces the first; of another process with the same id, it is refused while the first is
there and answers (SILENT closes it otherwise). So two nodes started with one id, or on copies
of one directory, are found out, and do not push each other away for ever.

Bounds: what waits for one peer (PEER_OUT_BYTES_MAX), connections that have not proved
themselves (PEER_STRANGERS_MAX, the oldest goes first, so that a crowd of strangers has to
connect faster than a peer can answer), their time and the bytes of their frames.

Rejected: one connection for each pair (the crossing case, and a partition in one direction
looks like none); keeping unsent messages for a peer that comes back (they are stale, and
raft sends better ones).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from unimeter import limits
from unimeter.raft.messages import Entry, Message
from unimeter.server.accepting import Acceptor, Mentions
from unimeter.server.peer_codec import encode_fetch, encode_message
from unimeter.server.peer_dial import Dialler
from unimeter.server.peer_link import PeerLink
from unimeter.server.peer_sending import Done, SnapshotReader
from unimeter.server.peer_snapshots import Snapshots
from unimeter.server.platform import REAL, Platform
from unimeter.server.tls import Tls
from unimeter.storage.incoming import Incoming
from unimeter.wire.codec import Buffer
from unimeter.wire.peer import (
    FETCH,
    OPAQUE_KINDS,
    RAFT,
    Fault,
    PeerProtocolError,
    frame_buffers,
    frame_of,
)
from unimeter.wire.peer_handshake import NONCE_BYTES, Handshake, check_secret
from unimeter.wire.peer_hello import CLOCK_WARN_NS, PeerHello, clock_difference_ns, refusal_of


@dataclass(frozen=True)
class PeerTiming:
    """How long things take at most. Tests use shorter ones."""

    tick_seconds: float = 0.5
    handshake_ticks: int = 6
    silent_ticks: int = 6  # without a sign of a peer; then it is dialled again
    connect_seconds: float = 3.0
    settled_seconds: float = 1.0  # a link that lived so long and is lost is dialled again at once
    pause_seconds_min: float = 0.05
    pause_seconds_max: float = 2.0
    mention_seconds: float = 60.0
    user_timeout_seconds: float = 5.0  # the kernel's own: sent and not acknowledged
    close_seconds: float = 1.0
    transfer_still_ticks: int = 10  # of a snapshot: nothing moves, offer it again
    transfer_give_up_ticks: int = 120  # of a snapshot: no answer at all


class PeerHandler(Protocol):
    """What the node does with its peers. All calls are on the loop; none may block."""

    def hello(self) -> PeerHello:
        """What this node says about itself at this moment."""

    def judge(self, hello: PeerHello) -> str:
        """ "" when that node is welcome, else the sentence to refuse it with."""

    def on_message(self, message: Message) -> None:
        """A raft message for this node."""

    def on_frame(self, sender: int, kind: int, payload: bytes) -> None:
        """A frame of one of the opaque kinds."""

    def on_up(self, hello: PeerHello) -> None:
        """What is sent to that peer arrives from now on."""

    def on_down(self, node_id: int, is_gone: bool) -> None:
        """The link that was up is lost.

        Called at once with is_gone=False. If dialling again is refused by the peer's
        host, called a second time with is_gone=True: no process is there.
        """

    def on_refused(self, node_id: int, reason: str) -> None:
        """That peer does not want this node; it is asked again now and then."""

    def fetch(self, index: int) -> Entry | None:
        """A committed entry, for the repair of a peer's log; None where it is not to be had."""

    def on_fetched(self, node_id: int, entry: Entry | None) -> None:
        """The answer to `Peers.fetch`; None where that peer has no such entry."""

    def on_snapshot(self, message: Message, path: str) -> str:
        """A snapshot file is here, whole, checked and durable: step `message`, install `path`.

        "" when it is taken, else the reason that the sender is told. The file is the
        node's from now on, to rename or to remove.
        """

    def on_failure(self, error: BaseException) -> None:
        """An exception of this handler's own, or a failed disk: the node can't go on."""


class Peers:
    """All connections to and from the other nodes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        node_id: int,
        addresses: dict[int, tuple[str, int]],
        secret: bytes,
        handler: PeerHandler,
        say: Callable[[str], None],
        *,
        incoming: Incoming | None = None,
        timing: PeerTiming | None = None,
        platform: Platform = REAL,
        tls: Tls | None = None,
    ) -> None:
        """`addresses` are the peers' (this node's own entry is ignored). Then `start`.

        `incoming` is where snapshots are received; without it they are refused. `secret` is
        the cluster's, 16 bytes at least. `handler` is called from `start` on. `tls`: links
        are encrypted, and both sides show a certificate.
        """
        check_secret(secret)
        self.loop, self.node_id, self.handler, self.say = loop, node_id, handler, say
        self.timing = timing or PeerTiming()
        self.platform, self.random, self.entropy = platform, platform.chance, platform.entropy
        self.addresses = {n: place for n, place in sorted(addresses.items()) if n != node_id}
        self.frames_sent = self.frames_received = 0
        self.bytes_sent = self.bytes_received = 0
        self.messages_sent = self.messages_received = 0
        self.fetches_answered = 0
        self._secret, self._tls = secret, tls
        self._process = int.from_bytes(self.entropy(8), "little")
        self._snapshots = Snapshots(self, incoming)
        self._out: dict[int, PeerLink] = {}  # usable, by peer
        self._in: dict[int, PeerLink] = {}
        self._links: dict[PeerLink, None] = {}  # all sockets, oldest first
        self._strangers: dict[PeerLink, None] = {}  # accepted, not proved yet, oldest first
        self._diallers = {n: Dialler(self, n, *place) for n, place in self.addresses.items()}
        self._round_trips: dict[int, float] = {}
        self._hellos: dict[int, PeerHello] = {}  # the last of each peer
        self._clock_warned: set[int] = set()
        self._refused_at: dict[int, float] = {}
        self._is_closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.AbstractServer | Acceptor | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._faults = dict.fromkeys(Fault, 0)
        self._counts = dict.fromkeys(
            ("accepted", "dropped_no_link", "dropped_full", "lost", "refused", "refused_by_peer"), 0
        )

    # --- start and stop ----------------------------------------------------------

    async def start(self, listening: socket.socket) -> None:
        """Accept peers on a bound socket, and dial all of them."""
        self._listener = await self._listen(listening)
        for dialler in self._diallers.values():
            task = self.loop.create_task(dialler.run())
            task.add_done_callback(self._dialler_ended)
            self._tasks.append(task)
        self._tick_handle = self.loop.call_later(self.timing.tick_seconds, self._tick)

    async def _listen(self, listening: socket.socket) -> asyncio.AbstractServer | Acceptor:
        tls, mentions = self._tls, Mentions(self.say, self.loop.time)
        if tls is None:
            return await self.platform.listen(self.loop, listening, lambda: PeerLink(self))
        return Acceptor(
            self.loop,
            listening,
            lambda: PeerLink(self),
            tls.peer_server_context,
            mentions,
            limits.PEER_STRANGERS_MAX,
        )

    @property
    def dial_context(self) -> ssl.SSLContext | None:
        """What a peer is dialled with; None where links are not encrypted."""
        return None if self._tls is None else self._tls.peer_client_context()

    async def close(self) -> None:
        """Close everything; what was sent still leaves, for a second at most."""
        self._is_closing = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for task in self._tasks:
            task.cancel()
        if self._listener is not None:
            self._listener.close()
        self._snapshots.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = list(self._links)
        for link in links:
            link.close("this node is closing")
        if links:
            await asyncio.wait([link.ended for link in links], timeout=self.timing.close_seconds)
        for link in list(self._links):
            link.transport.abort()
            await link.ended

    # --- out ---------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a raft message, or drop it: no link, or too much waits for that peer."""
        assert message.snapshot is None, "a snapshot goes by send_snapshot"
        link = self._usable(message.to)
        if link is not None:
            self.messages_sent += 1
            link.write(frame_buffers(RAFT, encode_message(message)))

    def send_frame(self, to: int, kind: int, payload: Buffer) -> bool:
        """Send an opaque frame; False when it was dropped. `payload` must not change."""
        assert kind in OPAQUE_KINDS
        return self.write(to, frame_buffers(kind, [payload]))

    def fetch(self, node_id: int, index: int) -> bool:
        """Ask a peer for a committed entry; the answer goes to `on_fetched`, or is lost."""
        return self.write(node_id, [frame_of(FETCH, encode_fetch(index))])

    def send_snapshot(self, message: Message, reader: SnapshotReader, done: Done) -> None:
        """Send a snapshot file to `message.to`, which must be a MsgSnap.

        `done` is called once: with "" when the peer has the whole file, durable, and has
        taken it, else with the reason. Another transfer to that peer is ended first. It
        survives lost links and restarts of the peer. `reader` is used until `done`.
        """
        self._snapshots.send(message, reader, done)

    def cancel_snapshot(self, to: int) -> None:
        """End the transfer to that peer, if there is one; its `done` hears of it."""
        self._snapshots.cancel(to)

    def write(self, to: int, buffers: list[Buffer]) -> bool:
        """Send a whole frame; False when it was dropped."""
        link = self._usable(to)
        if link is not None:
            link.write(buffers)
        return link is not None

    def _usable(self, to: int) -> PeerLink | None:
        link = self._out.get(to)
        if link is None or link.transport.is_closing():
            self._counts["dropped_no_link"] += 1
            return None
        if link.transport.get_write_buffer_size() > limits.PEER_OUT_BYTES_MAX:
            self._counts["dropped_full"] += 1
            return None
        return link

    # --- what is known -----------------------------------------------------------

    def is_up(self, node_id: int) -> bool:
        """Whether what is sent to that peer has a way to go."""
        return node_id in self._out

    def waiting_bytes(self, to: int) -> int:
        """Bytes for that peer that its socket has not taken yet."""
        link = self._out.get(to)
        return 0 if link is None else link.waiting_bytes

    def hello_of(self, node_id: int) -> PeerHello | None:
        """What that peer last said about itself, when it last connected or was reached."""
        return self._hellos.get(node_id)

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and how many links are up now."""
        return {
            "peers": len(self.addresses),
            "peers_up": len(self._out),
            "peers_up_incoming": len(self._in),
            "strangers": len(self._strangers),
            "messages_sent": self.messages_sent,
            "messages_received": self.messages_received,
            "frames_sent": self.frames_sent,
            "frames_received": self.frames_received,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "fetches_answered": self.fetches_answered,
            "dials": sum(dialler.attempts for dialler in self._diallers.values()),
            "dials_failed": sum(dialler.failures for dialler in self._diallers.values()),
            **self._snapshots.statistics(),
            **self._counts,
            **{f"closed_{fault.name.lower()}": count for fault, count in self._faults.items()},
        }

    def peer_statistics(self) -> dict[int, dict[str, Any]]:
        """For each peer: is it reached, since when (seconds), how far, and if not, why."""
        now, found = self.loop.time(), {}
        for node_id, dialler in self._diallers.items():
            link = self._out.get(node_id)
            found[node_id] = {
                "address": dialler.address,
                "is_up": link is not None,
                "is_heard": node_id in self._in,
                "up_seconds": 0.0 if link is None else now - link.since,
                "round_trip_seconds": self._round_trips.get(node_id, 0.0),
                "waiting_bytes": self.waiting_bytes(node_id),
                "snapshot_bytes": self._snapshots.progress(node_id),
                "reason": "" if link is not None else dialler.reason,
            }
        return found

    # --- for links and diallers --------------------------------------------------

    def handshake(self, link: PeerLink) -> Handshake:
        """The handshake of a new connection."""
        return Handshake(
            is_dialler=link.is_dialler,
            secret=self._secret,
            nonce=self.entropy(NONCE_BYTES),
            hello=lambda: replace(self.handler.hello(), process=self._process),
            judge=lambda own, other: self._judge(link, own, other),
        )

    def joined(self, link: PeerLink) -> None:
        """A connection was made."""
        self._links[link] = None
        if self._is_closing:
            link.close("this node is closing", is_abrupt=True)
        if link.is_dialler or link.is_closed:
            return
        self._counts["accepted"] += 1
        self._strangers[link] = None
        if len(self._strangers) > limits.PEER_STRANGERS_MAX:
            self._close(next(iter(self._strangers)), Fault.CROWD, "too many are in the handshake")

    def greeted(self, link: PeerLink) -> None:
        """Both sides of a connection accept each other."""
        hello = link.hello
        assert hello is not None
        self._strangers.pop(link, None)
        sentence = self._doubled(link, hello)  # another may have come during the handshake
        if sentence:
            self._counts["refused"] += 1
            link.close(sentence)
            return
        link.node_id = hello.node_id
        self._hellos[hello.node_id] = hello
        known = self._out if link.is_dialler else self._in
        former = known.pop(hello.node_id, None)
        if former is not None:
            former.close("the peer has connected again", is_abrupt=True)
        known[hello.node_id] = link
        link.admit()
        if link.is_dialler:
            self._warn_of_clock(link.handshake.own, hello)
            self._refused_at.pop(hello.node_id, None)
            self.handler.on_up(hello)
            self._snapshots.on_up(hello.node_id)
        elif hello.node_id not in self._out and hello.node_id in self._diallers:
            self._diallers[hello.node_id].wake()

    def refused(self, link: PeerLink) -> None:
        """The handshake ended with a refusal, ours or the peer's."""
        handshake = link.handshake
        self._strangers.pop(link, None)
        if handshake.refused:
            self._counts["refused"] += 1
            link.close(f"this node refuses it: {handshake.refused}")
            return
        self._counts["refused_by_peer"] += 1
        link.close(f"it refuses this node: {handshake.refusal}")
        node_id = link.node_id or (handshake.peer.node_id if handshake.peer is not None else 0)
        if link.is_dialler:
            self.handler.on_refused(node_id, handshake.refusal)

    def left(self, link: PeerLink, was_up: bool) -> None:
        """A connection has ended."""
        self._links.pop(link, None)
        self._strangers.pop(link, None)
        known = self._out if link.is_dialler else self._in
        if known.get(link.node_id) is not link:
            return
        del known[link.node_id]
        if link.is_dialler and was_up:
            self._counts["lost"] += 1
            self.handler.on_down(link.node_id, False)

    def gone(self, node_id: int) -> None:
        """After a loss, the peer's host says that nobody listens."""
        self.handler.on_down(node_id, True)

    def faulted(self, link: PeerLink, error: PeerProtocolError) -> None:
        """A connection whose bytes can't be believed."""
        self._close(link, error.fault, str(error))

    def fail(self, error: BaseException) -> None:
        """The handler, or this code, broke."""
        self.handler.on_failure(error)

    def round_trip(self, node_id: int, seconds: float) -> None:
        """A PONG came back."""
        before = self._round_trips.get(node_id, seconds)
        self._round_trips[node_id] = before + (seconds - before) / 4

    def on_snapshot_frame(self, sender: int, kind: int, payload: memoryview) -> None:
        """A frame of a snapshot's transfer."""
        self._snapshots.on_frame(sender, kind, payload)

    # --- judging -----------------------------------------------------------------

    def _judge(self, link: PeerLink, own: PeerHello, other: PeerHello) -> str:
        """Why the peer of this link is not welcome; "" when it is."""
        sentence = refusal_of(own, other) or self._misplaced(link, other)
        return sentence or self._doubled(link, other) or self.handler.judge(other)

    def _misplaced(self, link: PeerLink, other: PeerHello) -> str:
        """Whether another node lives at the address that was dialled."""
        if not link.is_dialler or link.node_id == other.node_id:
            return ""
        address = self._diallers[link.node_id].address
        return f"node {other.node_id} answers at {address}, where node {link.node_id} should be"

    def _doubled(self, link: PeerLink, other: PeerHello) -> str:
        """Whether another process with that id is connected."""
        for known in (self._in, self._out):
            present = known.get(other.node_id)
            if present is None or present is link or present.hello is None:
                continue
            if present.is_closed or present.hello.process == other.process:
                continue
            return (
                f"node id {other.node_id} is used twice: another process with that id is "
                f"connected from {present.hello.address or 'elsewhere'}"
            )
        return ""

    def _warn_of_clock(self, own: PeerHello | None, other: PeerHello) -> None:
        assert own is not None
        ahead = clock_difference_ns(own, other)
        if abs(ahead) > CLOCK_WARN_NS and other.node_id not in self._clock_warned:
            self._clock_warned.add(other.node_id)
            way = "ahead of" if ahead > 0 else "behind"
            self.say(
                f"the clock of node {other.node_id} is {abs(ahead) // 10**9} seconds {way} this "
                "node's; timestamps that the leader sets will jump when the leader changes"
            )

    # --- time --------------------------------------------------------------------

    def _tick(self) -> None:
        """Twice a second: close what takes too long or has fallen silent."""
        self._tick_handle = self.loop.call_later(self.timing.tick_seconds, self._tick)
        self._snapshots.tick()
        for link in list(self._links):
            if link.is_closed:
                link.transport.abort()  # it had a tick to take what was written last
                continue
            link.tick()
            if not link.is_up and link.age_ticks > self.timing.handshake_ticks:
                self._close(link, Fault.TIMEOUT, "the handshake took too long")
            elif link.is_up and link.silent_ticks >= self.timing.silent_ticks:
                self._close(link, Fault.SILENT, "nothing was heard from it")

    def _close(self, link: PeerLink, fault: Fault, because: str) -> None:
        self._faults[fault] += 1
        self._strangers.pop(link, None)
        link.close(because, is_abrupt=True)

    def _dialler_ended(self, task: asyncio.Task[None]) -> None:
        """A dialler runs until it is cancelled; anything else is our bug."""
        if not task.cancelled():
            self.fail(task.exception() or AssertionError("a dialler stopped"))
