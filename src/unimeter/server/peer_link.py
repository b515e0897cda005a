"""One connection between two nodes: bytes in, frames to whom they concern.

Owns the state of one socket: first the handshake (`wire.peer_handshake`), with memory
for one small frame and a time limit, then frames. Refuses to know who else is
connected (`peers`) and what a message means.

    buffer_updated ─> framer ─┬─ handshake not over ──> Handshake ──> peers.greeted
                              ├─ RAFT, opaque kinds ──> the handler
                              ├─ SNAPSHOT_... ────────> peer_snapshots
                              ├─ PING, FETCH ─────────> answered on this connection
                              └─ anything wrong ──────> closed, with the reason counted

Frames go one way: from the node that dialled. Back come only answers that belong to the
connection (PONG, FETCHED), so a frame that is lost is lost with its connection and never
overtaken by a later one of the same sender.

A dead peer that sent no reset is noticed by silence: `tick` counts ticks in which nothing
came and nothing that waits was taken, so a stalled loop of our own counts once and not for
its length.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from unimeter import limits
from unimeter.server.peer_codec import (
    decode_fetch,
    decode_fetched,
    decode_message,
    encode_fetched,
)
from unimeter.wire.codec import Buffer
from unimeter.wire.peer import (
    ANSWER_KINDS,
    FETCH,
    FETCHED,
    OPAQUE_KINDS,
    PING,
    PONG,
    RAFT,
    REFUSED,
    SNAPSHOT_KINDS,
    Fault,
    PeerFramer,
    PeerProtocolError,
    frame_buffers,
    frame_of,
)
from unimeter.wire.peer_handshake import Handshake
from unimeter.wire.peer_hello import PeerHello

if TYPE_CHECKING:
    from unimeter.server.peers import Peers

JOIN_BYTES_MAX = 4096  # a frame up to this is cheaper to copy than to write in pieces
UNSENT_BYTES = 256 * 1024  # in the kernel beyond what is on its way: what a heartbeat waits behind


class PeerLink(asyncio.BufferedProtocol):
    """This node's end of one socket."""

    __slots__ = (
        "_framer",
        "_heard",
        "_peers",
        "_pings",
        "_waiting",
        "age_ticks",
        "closed_because",
        "ended",
        "handshake",
        "hello",
        "is_closed",
        "is_dialler",
        "is_up",
        "node_id",
        "silent_ticks",
        "since",
        "transport",
    )

    def __init__(self, peers: Peers, dialled_id: int = 0) -> None:
        """A connection that this node dialled to reach `dialled_id`, or (0) was dialled on."""
        self.is_dialler = dialled_id != 0
        self.node_id = dialled_id  # of the peer; 0 until it has proved itself
        self.hello: PeerHello | None = None  # of the peer, once the handshake is over
        self.is_up = False
        self.is_closed = False
        self.closed_because = ""
        self.since = 0.0  # loop time of becoming usable
        self.silent_ticks = self.age_ticks = 0
        self.ended: asyncio.Future[None] = peers.loop.create_future()
        self.transport: asyncio.Transport
        self._peers = peers
        self._framer = PeerFramer(limits.PEER_HANDSHAKE_BYTES_MAX, limits.PEER_HANDSHAKE_BYTES_MAX)
        self._heard = False
        self._waiting = 0
        self._pings: list[float] = []  # loop times of the PINGs without a PONG
        self.handshake: Handshake = peers.handshake(self)

    # --- asyncio's side ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        set_options(transport.get_extra_info("socket"), self._peers.timing.user_timeout_seconds)
        self._peers.joined(self)
        if not self.is_closed:
            self.transport.write(self.handshake.begin())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self.closed_because:
            self.closed_because = self._reason(exc)
        was_up, self.is_up, self.is_closed = self.is_up, False, True
        if not self.ended.done():
            self.ended.set_result(None)
        try:
            self._peers.left(self, was_up)
        except Exception as error:
            self._peers.fail(error)

    def eof_received(self) -> bool:
        """The peer closed: a half-open connection is of no use."""
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket may write next."""
        return self._framer.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the socket gave."""
        self._heard = True
        framer = self._framer
        framer.received(nbytes)
        try:
            while not self.is_closed:
                frame = framer.next_frame()
                if frame is None:
                    return
                if self.is_up:
                    self._take(*frame)
                else:
                    self._shake(*frame)
        except PeerProtocolError as error:
            self._peers.faulted(self, error)
        except Exception as error:
            self._peers.fail(error)

    # --- frames ------------------------------------------------------------------

    def _shake(self, kind: int, payload: memoryview) -> None:
        """One step of the handshake."""
        handshake = self.handshake
        answer = handshake.receive(kind, payload)
        if answer:
            self.transport.write(answer)
        if handshake.is_done:
            self._framer.admit()
            self.hello = handshake.peer
            self._peers.greeted(self)
        elif handshake.has_ended:
            self._peers.refused(self)

    def _take(self, kind: int, payload: memoryview) -> None:
        """One frame of a peer that has proved itself."""
        peers = self._peers
        peers.frames_received += 1
        peers.bytes_received += len(payload)
        if self.is_dialler:
            self._take_answer(kind, payload)
        elif kind == RAFT:
            message = decode_message(payload)
            if message.to != peers.node_id:
                raise PeerProtocolError(Fault.MALFORMED, f"a message for node {message.to}")
            peers.messages_received += 1
            peers.handler.on_message(message)
        elif kind in OPAQUE_KINDS:
            peers.handler.on_frame(self.node_id, kind, bytes(payload))
        elif kind == PING:
            self._answer([frame_of(PONG, payload)])
        elif kind in SNAPSHOT_KINDS:
            peers.on_snapshot_frame(self.node_id, kind, payload)
        elif kind == FETCH:
            peers.fetches_answered += 1
            entry = peers.handler.fetch(decode_fetch(payload))
            self._answer(frame_buffers(FETCHED, encode_fetched(entry)))
        else:
            raise PeerProtocolError(Fault.KIND, f"a frame of kind {kind}")

    def _take_answer(self, kind: int, payload: memoryview) -> None:
        """What comes back on a connection that this node dialled."""
        if kind == PONG and self._pings:
            self._peers.round_trip(self.node_id, self._peers.loop.time() - self._pings.pop(0))
        elif kind == FETCHED:
            self._peers.handler.on_fetched(self.node_id, decode_fetched(payload))
        elif kind not in ANSWER_KINDS or kind == REFUSED:
            raise PeerProtocolError(Fault.KIND, f"a frame of kind {kind} as an answer")

    # --- out ---------------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        """Bytes given to the socket that it has not taken."""
        return 0 if self.is_closed else self.transport.get_write_buffer_size()

    def write(self, buffers: list[Buffer]) -> None:
        """Write one whole frame. Never on a closing transport.

        asyncio's `writelines` (Python 3.12) would watch the descriptor again, and the
        next connection that gets its number would be deaf.
        """
        size = 0
        for buffer in buffers:
            size += len(buffer)
        self._peers.frames_sent += 1
        self._peers.bytes_sent += size
        if size <= JOIN_BYTES_MAX:
            self.transport.write(b"".join(buffers))
        else:
            self.transport.writelines(buffers)

    def _answer(self, buffers: list[Buffer]) -> None:
        """Write on a connection that the peer dialled; one that does not read is closed."""
        if self.transport.is_closing():
            return
        if self.waiting_bytes > limits.PEER_OUT_BYTES_MAX:
            self.close("it does not read its answers", is_abrupt=True)
        else:
            self.write(buffers)

    # --- life --------------------------------------------------------------------

    def admit(self) -> None:
        """The handshake is over and nothing speaks against this peer."""
        self.is_up = True
        self.since = self._peers.loop.time()
        self.silent_ticks = 0

    def close(self, because: str, *, is_abrupt: bool = False) -> None:
        """Close, after what was written has left unless `is_abrupt`."""
        if self.is_closed:
            return
        self.is_closed = True
        self.closed_because = self.closed_because or because
        if is_abrupt:
            self.transport.abort()
        else:
            self.transport.close()

    def _reason(self, exc: Exception | None) -> str:
        """Why the peer's side or the network ended this connection, as far as can be told."""
        if self.is_dialler and not self.is_up:
            return (
                "it closed the connection during the handshake "
                "(is the cluster's secret the same on both nodes, and peer_tls?)"
            )
        return "it closed the connection" if exc is None else str(exc)

    def tick(self) -> None:
        """Look whether the peer is still there; called twice a second."""
        self.age_ticks += 1
        waiting = self.waiting_bytes
        if self._heard or waiting < self._waiting:
            self.silent_ticks = 0
        else:
            self.silent_ticks += 1
        self._heard, self._waiting = False, waiting
        if self.is_up and self.is_dialler and len(self._pings) < 2:
            self._pings.append(self._peers.loop.time())
            self.transport.write(frame_of(PING))


def set_options(sock: socket.socket | None, user_timeout_seconds: float) -> None:
    """Send small frames at once, keep little unsent, notice a peer that is gone."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    milliseconds = int(user_timeout_seconds * 1000)
    options = [
        (socket.TCP_NODELAY, 1),
        (getattr(socket, "TCP_USER_TIMEOUT", 0), milliseconds),
        (getattr(socket, "TCP_NOTSENT_LOWAT", 0), UNSENT_BYTES),
    ]
    for option, value in options:
        if option:
            with suppress(OSError):  # each is a help, none a need
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
