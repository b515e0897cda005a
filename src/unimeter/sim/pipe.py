"""One direction of a fake connection: chunks on their way, in order, and what befalls them.

Owns the order (TCP's: nothing overtakes, but Raft frames where the weather says so), the
waiting while the way is cut, and the sender's giving up. A chunk is one write of the sender;
between nodes that is one whole frame.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections import deque
from typing import TYPE_CHECKING

from unimeter.sim.frame_names import frame_name
from unimeter.sim.scheduler import MILLISECOND
from unimeter.wire.framer import MAGIC, VERSION_2
from unimeter.wire.peer import RAFT

if TYPE_CHECKING:
    from unimeter.sim.network import Network
    from unimeter.sim.transport import SimTransport

RETRY_NS = (50 * MILLISECOND, 400 * MILLISECOND)  # from one try of a stuck segment to the next
LATE_NS = (1 * MILLISECOND, 80 * MILLISECOND)  # what is overtaken comes so much later
_KIND_AT = 4  # in a frame between nodes
_VERSION_2 = MAGIC.to_bytes(4, "little") + bytes([VERSION_2])

Item = tuple[int, int, "bytes | BaseException | None"]
"""When it arrives, its number, and bytes, the end (None) or a reset."""


class Pipe:
    """From one end to the other."""

    def __init__(
        self, network: Network, source: SimTransport, target: SimTransport, is_peer: bool
    ) -> None:
        self.network, self.source, self.target = network, source, target
        self.is_peer = is_peer
        self._items: deque[Item] = deque()
        self._last_ns = 0
        self._is_moving = False  # an event for the first item is on its way
        self._stuck_since = -1
        self._unheard_since = -1  # what arrives can't be acknowledged
        self._bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """What fills the sender's buffer: nothing while the way is free."""
        return self._bytes if self._stuck_since >= 0 or not self.target.is_reading() else 0

    # --- in ------------------------------------------------------------------------------

    def push(self, data: bytes) -> None:
        """Send a chunk."""
        network, weather = self.network, self.network.weather
        chance = network.chance
        if weather.reset and chance.hit(weather.reset):
            network.count("connection reset")
            self.source.lose(connection_reset())
            self.target.lose(connection_reset())
            return
        number = network.next_number()
        kind = data[_KIND_AT] if self.is_peer and len(data) > _KIND_AT else 0
        name = frame_name(data, self.is_peer)
        network.story.tell(
            "send", self.source.process.name, self.target.process.name, number, name, len(data)
        )
        if self.is_peer:
            if weather.flipped and chance.hit(weather.flipped):
                network.count("frame flipped")
                data = _flipped(data, chance.below(8 * len(data)))
            if kind == RAFT and self._befalls(data, number):
                return
        elif weather.asked_twice and data[:5] == _VERSION_2 and chance.hit(weather.asked_twice):
            network.count("request doubled")
            data += data
        self._put(data, number)

    def _befalls(self, data: bytes, number: int) -> bool:
        """What may happen to a Raft frame; True if it is not to be sent now."""
        network, weather, chance = self.network, self.network.weather, self.network.chance
        if weather.lost and chance.hit(weather.lost):
            network.count("frame lost")
            network.story.tell("drop", self.source.process.name, self.target.process.name, number)
            return True
        if weather.doubled and chance.hit(weather.doubled):
            network.count("frame doubled")
            delay = chance.between(*LATE_NS)
            network.scheduler.after(delay, self._put_late, data, number)
        if weather.overtaken and chance.hit(weather.overtaken):
            network.count("frame overtaken")
            network.scheduler.after(chance.between(*LATE_NS), self._put_late, data, number)
            return True
        return False

    def _put_late(self, data: bytes, number: int) -> None:
        if self.source.takes_bytes():
            self._put(data, number)

    def _put(self, what: bytes | BaseException | None, number: int) -> None:
        leaves = self.source.process.now_ns
        arrives = max(self._last_ns, leaves + self.network.latency_ns(self.source.process.ip))
        self._last_ns = arrives
        self._items.append((arrives, number, what))
        if isinstance(what, bytes):
            self._bytes += len(what)
        self._move()

    def push_end(self, error: BaseException | None) -> None:
        """The sender closed, or (with an error) was ended; what it sent before comes first."""
        self._put(error, self.network.next_number())

    def go_dark(self) -> None:
        """The sender's host has no power: what is not on the wire yet never comes."""
        if self._stuck_since >= 0:
            self._items.clear()
            self._bytes = 0

    # --- on the way --------------------------------------------------------------------------

    def _move(self) -> None:
        if self._items and not self._is_moving:
            self._is_moving = True
            self.network.scheduler.at(self._items[0][0], self._deliver)

    def _deliver(self) -> None:
        self._is_moving = False
        if not self._items:
            return
        network = self.network
        sender, to = self.source.process.ip, self.target.process.ip
        if network.is_cut(sender, to):
            self._wait()
            return
        self._stuck_since = -1
        if network.is_cut(to, sender):
            self._note_unheard()
        else:
            self._unheard_since = -1
        _, number, what = self._items.popleft()
        if isinstance(what, bytes):
            self._bytes -= len(what)
            self._hand_over(what, number)
        else:
            self.target.arrived(what)
        self.source.drained()
        self._move()

    def _hand_over(self, data: bytes, number: int) -> None:
        network, target = self.network, self.target
        if not target.takes_bytes():
            self._items.clear()
            self._bytes = 0
            network.scheduler.after(network.latency_ns(target.process.ip), target.answer_with_reset)
            return
        if network.weather.split and len(data) > 1 and network.chance.hit(network.weather.split):
            size = network.chance.between(1, len(data) - 1)
            later = network.scheduler.now_ns + network.latency_ns(self.source.process.ip)
            self._items.appendleft((later, number, data[size:]))
            self._bytes += len(data) - size
            data = data[:size]
        network.story.tell(
            "deliver",
            target.process.name,
            self.source.process.name,
            number,
            len(data),
            zlib.crc32(data),
        )
        target.arrived(data)

    def _wait(self) -> None:
        """The way is cut: try again, or give up after the kernel's time."""
        network = self.network
        now = network.scheduler.now_ns
        if self._stuck_since < 0:
            self._stuck_since = now
        if self.source.process.is_dead or now - self._stuck_since > self._patience_ns():
            self._items.clear()
            self._bytes = 0
            self.source.lose(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return
        self._is_moving = True
        network.scheduler.after(network.chance.between(*RETRY_NS), self._deliver)

    def _note_unheard(self) -> None:
        """What arrives is not acknowledged: the sender gives up some time, if that lasts."""
        if self._unheard_since < 0:
            self._unheard_since = self.network.scheduler.now_ns
            self.network.scheduler.after(self._patience_ns(), self._look_unheard)

    def _look_unheard(self) -> None:
        if self._unheard_since >= 0 and self.network.is_cut(
            self.target.process.ip, self.source.process.ip
        ):
            self.source.lose(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        self._unheard_since = -1

    def _patience_ns(self) -> int:
        return self.network.chance.between(*self.network.weather.timeout_ns)


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def connection_reset() -> ConnectionResetError:
    """What a protocol is told when its connection was reset."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
