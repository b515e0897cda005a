"""One end of a fake connection, as asyncio's transports are.

Owns what a protocol sees: reads in pieces, a write buffer that fills while the network
stands still, closing with what was written still on its way, and the loss of the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from unimeter.sim.pipe import Pipe, connection_reset

if TYPE_CHECKING:
    from unimeter.sim.network import Network
    from unimeter.sim.process import Process

HIGH_BYTES = 64 * 1024  # asyncio's own default


class FakeSocket:
    """An address that is bound."""

    family = -1  # of no kind that has options

    def __init__(self, name: tuple[str, int]) -> None:
        self.name = name

    def getsockname(self) -> tuple[str, int]:
        return self.name

    def dup(self) -> FakeSocket:
        return FakeSocket(self.name)

    def close(self) -> None:
        return

    def setsockopt(self, *_: object) -> None:
        return


class SimTransport(asyncio.Transport):
    """One end."""

    peer: SimTransport
    out: Pipe

    def __init__(
        self,
        network: Network,
        process: Process,
        protocol: Any,
        sock: FakeSocket,
        peer_name: tuple[str, int],
    ) -> None:
        super().__init__()
        self.network, self.process = network, process
        self._protocol = protocol
        self._socket, self._peer_name = sock, peer_name
        self._is_closing = self._is_lost = self._is_made = False
        self._is_reading = True
        self._is_full = False
        self._error: BaseException | None = None
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._inbox: list[bytes | BaseException | None] = []

    def join(self, far: SimTransport, *, is_peer: bool) -> None:
        """Connect two ends."""
        self.peer, far.peer = far, self
        self.out = Pipe(self.network, self, far, is_peer)
        far.out = Pipe(self.network, far, self, is_peer)

    def made(self) -> None:
        """Tell the protocol that it is connected."""
        self._is_made = True
        self._protocol.connection_made(self)
        if self._is_lost:  # before anybody knew of it: asyncio tells of both
            self.process.loop.call_soon(self._protocol.connection_lost, self._error)
            return
        self._read_inbox()

    # --- in ----------------------------------------------------------------------------

    def arrived(self, what: bytes | BaseException | None) -> None:
        """Bytes, the end (None) or a reset came; the loop takes it in its next turn."""
        if self._is_lost or self.process.is_dead:
            return
        self.process.loop.call_soon(self._take, what)

    def _take(self, what: bytes | BaseException | None) -> None:
        self._inbox.append(what)
        self._read_inbox()

    def _read_inbox(self) -> None:
        while self._inbox and self._is_made and self._is_reading and not self._is_lost:
            what = self._inbox.pop(0)
            if isinstance(what, bytes):
                if not self._is_closing:
                    self._feed(what)
            elif what is None:
                if not self._protocol.eof_received():
                    self.close()
            else:
                self._end(what)

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        view = memoryview(data)
        while view and not self._is_lost and not self._is_closing:
            buffer = memoryview(protocol.get_buffer(-1))
            size = min(len(buffer), len(view))
            assert size > 0, "a protocol gave no room for a read"
            buffer[:size] = view[:size]
            protocol.buffer_updated(size)
            view = view[size:]

    def takes_bytes(self) -> bool:
        """Whether anybody is there to whom bytes could be given."""
        return not (self._is_lost or self._is_closing or self.process.is_dead)

    # --- out ---------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not (self.takes_bytes() and data):
            return
        piece = bytes(data)
        self.network.on_write(self, piece)
        if not self.takes_bytes():  # the power went with this very write
            return
        self.out.push(piece)
        if not self._is_full and self.get_write_buffer_size() > self._high:
            self._is_full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def drained(self) -> None:
        """The pipe took something away."""
        if self._is_full and self.get_write_buffer_size() <= self._low:
            self._is_full = False
            if not self._is_lost:
                self.process.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if not self._is_lost:
            self._protocol.resume_writing()

    # --- the end -------------------------------------------------------------------------

    def close(self) -> None:
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        self.out.push_end(None)
        self.process.loop.call_soon(self._end, None)

    def abort(self) -> None:
        if self._is_lost:
            return
        self._is_closing = True
        self.out.push_end(connection_reset())
        self.process.loop.call_soon(self._end, None)

    def lose(self, error: BaseException) -> None:
        """The network or the other side ended it."""
        if not self._is_lost and not self.process.is_dead:
            self.process.loop.call_soon(self._end, error)

    def vanish(self, *, is_silent: bool) -> None:
        """The process is dead. Its kernel says so, unless the power is gone."""
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self.network.forget(self)
        if is_silent:
            self.out.go_dark()
        else:
            self.out.push_end(connection_reset())

    def _end(self, error: BaseException | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._error = error
        self.network.forget(self)
        if self._is_made:
            self._protocol.connection_lost(error)

    def answer_with_reset(self) -> None:
        """Bytes came for an end that is not there any more."""
        self.peer.lose(connection_reset())

    # --- what protocols ask ----------------------------------------------------------------

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self.process.loop.call_soon(self._read_inbox)

    def get_write_buffer_size(self) -> int:
        return self.out.waiting_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"sockname": self._socket.name, "peername": self._peer_name, "socket": self._socket}
        return known.get(name, default)
