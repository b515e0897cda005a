"""All that a server takes from the machine it runs on.

Owns the list: clocks, chance, the disk, ports, threads, the operator's terminal, and the few
numbers that depend on the machine. `Platform` is the real machine. The simulator
(`unimeter.sim`) has another one, and so runs the very same server, from `Server` down, on a
disk, a clock and a network of its own: nothing else in this package may read a clock, draw a
number, start a thread or open a socket (tests/server/test_platform.py).

The event loop is the other half of that seam and is asyncio's own: timers, transports and
listening go through the loop that runs the server.

    Server ─┬─ asyncio's loop     when, and over which connections
            └─ Platform           everything else

Refuses to decide anything: whoever takes something from here decides what it is for.

Rejected: a parameter for each clock, thread and function where it is needed. There were
six of them, tests replaced five more after the fact, and nobody could say what was missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from unimeter.engine.applied import Applied
from unimeter.errors import UnimeterError
from unimeter.raft.messages import Entry
from unimeter.server.applier import Applier
from unimeter.server.log import Log
from unimeter.server.peer_fetch import fetch_entry
from unimeter.server.webhook_lanes import Pace
from unimeter.storage.disk import Disk, OsDisk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.wal import Wal, WalLimits
from unimeter.storage.writer import Writer
from unimeter.wire.peer_hello import PeerHello

if TYPE_CHECKING:
    from unimeter.server.node import Node

MEMORY = ":memory:"
BACKLOG = 4096
FILES_KEPT = 192  # descriptors that clients may not use up: log, snapshots, peers, webhooks, scans
ACCEPTS_MAX = 16  # in one turn of the loop, before anybody has counted them

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
R = TypeVar("R")


class ListenError(UnimeterError):
    """An address can't be listened on."""


class SyncThread(Protocol):
    """Who syncs the log beside the loop (`storage.writer.Writer`)."""

    def start(self) -> None:
        """Take wishes from now on."""

    def submit(self) -> None:
        """Ask for a sync of everything staged so far. Never blocks."""

    @property
    def busy(self) -> bool:
        """Whether a sync is under way or asked for."""

    def close(self) -> None:
        """Sync what was asked for, then end; returns when it has ended."""


class ApplyThread(Protocol[E_contra]):
    """Who applies large entries beside the loop (`server.applier.Applier`)."""

    def put(self, entries: Sequence[E_contra]) -> None:
        """Count these after all that were put before. Never blocks."""

    def wait(self) -> None:
        """Return when everything that was put is counted."""

    def close(self) -> None:
        """Count what was put, then end; returns when it has ended."""


class Workers(Protocol):
    """Threads that do jobs in the order in which they were given."""

    def submit(self, work: Callable[..., R], /, *args: Any) -> Future[R]:
        """Have `work(*args)` done. Never blocks."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; `wait`: return when what was taken, and not cancelled, is done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody else's server said: `body` is its beginning, header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    is_public: bool = True  # whether it has an address that all the world can reach


class OutboundError(UnimeterError):
    """Somebody else's server gave no answer."""


class Outbound(Protocol):
    """Who makes requests to other servers (`server.outbound.HttpOutbound`)."""

    async def post(self, url: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
        """The answer, whatever its status; OutboundError if there is none in so many seconds."""

    async def close(self) -> None:
        """End what is open."""


class Platform:
    """The machine that this process runs on."""

    lingers = True
    """Whether looking for input again takes time: else a loop that lingers never ends."""

    serves_http = True
    """Whether there is an HTTP side: a fake network has no use for it."""

    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)
    entropy = staticmethod(os.urandom)
    chance = staticmethod(random.random)
    random_ticks = staticmethod(random.SystemRandom().randrange)

    # --- files ---------------------------------------------------------------------

    def open_disk(self, data_dir: str) -> tuple[Disk, str, int]:
        """The disk of a data directory, its path there, and the bytes of the whole volume.

        ``:memory:`` is nowhere, and 0 bytes: as large as you like.
        """
        if data_dir == MEMORY:
            return MemoryDisk(), "memory", 0
        path = os.path.abspath(data_dir)
        return OsDisk(), path, volume_bytes(path)

    def wal_limits(self, segment_bytes: int, inline: bool) -> WalLimits:
        """The bounds of the log; `inline`: nothing happens beside the caller."""
        return WalLimits(segment_bytes=segment_bytes, background=not inline)

    # --- sockets -------------------------------------------------------------------

    def take_port(self, bind: str, port: int, option: str) -> socket.socket:
        """A bound TCP socket; ListenError, with the option that mends it.

        It is for `loop.create_server(sock=...)`, and asked for getsockname, dup and close.
        """
        return take_port(bind, port, option)

    def fetch_entry(
        self,
        addresses: Mapping[int, tuple[str, int]],
        secret: bytes,
        hello: PeerHello,
        index: int,
        say: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
    ) -> Entry | None:
        """Ask the peers for one entry, before there is a loop; blocks for seconds."""
        return fetch_entry(addresses, secret, hello, index, say=say, tls=tls)

    webhook_pace = Pace()
    """How much webhooks send at a time, and how patiently."""

    def outbound(self) -> Outbound:
        """Who makes requests to other servers, for the running loop."""
        from unimeter.server.outbound import HttpOutbound  # not before there is a webhook

        return HttpOutbound()

    def connections_max(self) -> int:
        """How many sockets of clients, on all ports, leave the node the files it needs.

        `server.shares` says which port may have how many of them.
        """
        try:
            import resource
        except ImportError:
            return 2**31
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 2**31 if soft == resource.RLIM_INFINITY else max(16, soft - FILES_KEPT)

    async def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> asyncio.AbstractServer:
        """Accept on a bound socket, few at a time; without a free descriptor, later.

        What asyncio calls the backlog is also what it accepts in one turn, before a connection
        is made and counted. The kernel's queue may be as long as it likes.
        """
        server = await loop.create_server(protocol, sock=bound, backlog=ACCEPTS_MAX)
        bound.listen(BACKLOG)
        return server

    # --- threads -------------------------------------------------------------------

    def sync_thread(
        self,
        wal: Wal,
        on_synced: Callable[[int], None],
        on_error: Callable[[BaseException], None],
    ) -> SyncThread:
        """Not started yet; both callbacks come from the thread."""
        return Writer(wal, on_synced, on_error)

    def apply_thread(
        self,
        count: Callable[[E], R],
        on_counted: Callable[[E, R], None],
        on_error: Callable[[BaseException], None],
    ) -> ApplyThread[E]:
        """Started; all callbacks come from the thread."""
        return Applier(count, on_counted, on_error)

    def workers(self, threads: int, name: str) -> Workers:
        """As many threads, named `name` and a number."""
        return ThreadPoolExecutor(threads, thread_name_prefix=name)

    # --- who watches ---------------------------------------------------------------

    watches = False
    """Whether `counted` wants to be called."""

    def counted(self, node: Node, entry: Entry, applied: Applied) -> None:
        """A node has counted an entry, and told nobody yet. Called in log order; must only look."""

    # --- the operator --------------------------------------------------------------

    log = Log(time.time_ns)
    """This process's lines on stderr."""

    def notice(self, sentence: str) -> None:
        """Tell the operator."""
        self.log(sentence)


def volume_bytes(path: str) -> int:
    """The size of the file system that holds `path`; 0 where that can't be said."""
    while path and not os.path.exists(path):
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    try:
        volume = os.statvfs(path or ".")
    except OSError:
        return 0
    return volume.f_frsize * volume.f_blocks


def take_port(bind: str, port: int, option: str) -> socket.socket:
    """A bound TCP socket that does not accept yet; ListenError with the fix."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"can't listen on {bind}: {error.strerror or error}") from None
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(place)
        taken.listen(BACKLOG)  # a second listener on the port is only found here
    except OSError as error:
        taken.close()
        raise ListenError(
            f"can't listen on {bind}:{port}: {error.strerror or error}; "
            f"choose another with --{option}, or 0 for any free port"
        ) from None
    taken.setblocking(False)
    return taken


REAL = Platform()
