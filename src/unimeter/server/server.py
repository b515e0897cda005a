"""A server: one node, its sockets and its HTTP pages on one event loop.

Owns start and stop. Start is in an order in which every refusal comes before
any harm: take the ports (a port in use is found before the data directory is
touched), answer /health, open the directory (replay happens in a thread, so
/ready says 503 meanwhile), meet the peers if there are any, then accept clients. Stop is
the same backwards: hand leadership to another node, take nothing more in, finish what was
taken (sync, apply, reply), let the sockets drain, write a last snapshot if that is
cheap, give the directory back.

    async with unimeter.Server(data_dir="data", port=0, http_port=0) as server:
        client = AsyncClient([server.address])

When the node fails (a failed sync, a broken invariant) nothing more is
acknowledged and every client is cut off; what was acknowledged is on the disk.
`server.process` runs one as a process.

Rejected: asyncio's own Server.wait_closed as the drain, which waits for clients
to hang up.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from unimeter.errors import InvalidInputError
from unimeter.server.accepting import Acceptor, Mentions
from unimeter.server.auth import Auth, check_bind, is_loopback, read_admin_key
from unimeter.server.clients import Clients
from unimeter.server.cluster import Cluster
from unimeter.server.config import Config
from unimeter.server.log import Notice
from unimeter.server.members import members_of
from unimeter.server.metrics import metrics_page
from unimeter.server.node import Node
from unimeter.server.opening import Place, open_place, run_node
from unimeter.server.pages import TEXT, Page
from unimeter.server.platform import REAL, ListenError, Platform
from unimeter.server.shares import PLENTY, Shares, share_out
from unimeter.server.tls import Tls

if TYPE_CHECKING:
    from unimeter.server.tracing import Tracing
    from unimeter.server.web.site import Site

__all__ = ["ListenError", "Server"]

TICK_SECONDS = 1.0
DRAIN_SECONDS = 5.0  # for what is in flight, and for clients to take their replies
PROGRESS_SECONDS = 1.0


class TurnedAway(asyncio.Protocol):
    """A connection that came too early."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        cast(asyncio.Transport, transport).abort()


class Server:
    """A running node. Use as an async context manager, or `start` and `stop`."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        config: Config | None = None,
        platform: Platform = REAL,
        **options: Any,
    ) -> None:
        """Prepare a server from keyword options (see `Config`) or a whole `config`.

        `platform` is the machine that it runs on.
        """
        if data_dir is not None:
            options["data_dir"] = os.fspath(data_dir)
        if config is not None and options:
            raise InvalidInputError("give either a config or options, not both")
        self.config, self.platform = config or Config(**options), platform
        self.members = members_of(self.config)
        self.cluster: Cluster | None = None
        self.clients: Clients
        self.node: Node
        self._key_generation = (0, 0)
        self.auth: Auth  # from the moment that there is a node
        self.port = 0
        self.http_port = 0
        self.is_ready = False
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()  # set when the node has failed
        self.say: Callable[[str], None] = lambda sentence: None
        self.tracing: Tracing | None = None  # set before `start` by who wants spans
        self.site: Site | None = None  # none where the platform serves no HTTP
        self._metrics: Callable[[], Page] | None = None
        self.tls: Tls | None = None
        self.shares: Shares  # from `start` on: the limit of this process may be raised before
        self._mentions = Mentions(lambda sentence: self.say(sentence), platform.monotonic)
        self._listeners: list[asyncio.AbstractServer | Acceptor] = []
        self._sockets: list[socket.socket] = []
        self._tick_handle: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """host:port for clients."""
        return self.config.advertise or f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """Where this process can itself reach the server."""
        return "127.0.0.1" if self.config.bind in ("0.0.0.0", "::") else self.config.bind

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if self.failure is not None and error is None:
            raise self.failure

    # --- start -------------------------------------------------------------------

    async def start(self) -> None:
        """Take the ports, open the directory, accept clients."""
        loop = asyncio.get_running_loop()
        config = self.config
        files = self.platform.connections_max()
        self.shares = share_out(files)
        if files < PLENTY:
            self.say(f"room for {files} connections, on all ports: raise `ulimit -n` for more")
        if config.tls_cert:
            self.tls = Tls(config, lambda sentence: self.say(sentence))
        read_admin_key(config.admin_key_file)  # refused before anything is touched
        main = self.platform.take_port(config.bind, config.port, "port")
        self._sockets.append(main)
        try:
            http = self.platform.take_port(config.bind, config.http_port, "http-port")
            self._sockets.append(http)
            peers = self._take_peer_port()
            self.port, self.http_port = main.getsockname()[1], http.getsockname()[1]
            if self.platform.serves_http:
                # Not before it is needed: programs that only use the SDK never import it.
                from unimeter.server.web.site import Site

                self.site = Site(self, loop)
                await self._listen(loop, http, self.site.connection)
            self.clients = Clients(loop, self.platform, self.shares.binary)
            self.clients.advertise = config.advertise
            self.clients.webhooks.tells_all = is_loopback(config.bind)
            self.clients.on_failure = self._failed
            self.clients.on_tls_hello = self.met_tls
            self.clients.on_administered = self.look_at_keys
            early = await self._turn_away(loop, main)
            self.node = await self._open()
            self.auth = self.clients.auth = self._make_auth()
            self.clients.attach(self.node)
            self.node.tracing = self.tracing
            if self.members is not None and peers is not None:
                self.cluster = Cluster(
                    loop,
                    self.members,
                    self.node,
                    self.clients,
                    self.address,
                    self.say,
                    self.tls if self.config.peer_tls else None,
                )
                await self.cluster.start(peers)
            self._metrics = metrics_page(self)
            if self.site is not None:
                self.site.attach()
            if early is not None:
                early.close()
            await self._listen(loop, main, self.clients.connection)
        except BaseException:
            self._close_listeners()
            raise
        self.is_ready = True
        self._tick_handle = loop.call_later(TICK_SECONDS, self._tick, loop)

    def _take_peer_port(self) -> socket.socket | None:
        if self.members is None:
            return None
        host, port = self.members.places[self.members.node_id]
        taken = self.platform.take_port(self.config.peer_bind or host, port, "peers")
        self._sockets.append(taken)
        return taken

    async def _turn_away(
        self, loop: asyncio.AbstractEventLoop, main: socket.socket
    ) -> asyncio.AbstractServer | None:
        """While a node of a cluster is not ready: send its clients to the others at once.

        A connection that waits in the kernel's queue looks like a node that is silent. With
        one node there is nobody else to ask, and waiting there is what a client should do.
        """
        if self.members is None:
            return None
        return await self.platform.listen(loop, main.dup(), TurnedAway)

    async def _listen(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        if self.tls is None:
            self._listeners.append(await self.platform.listen(loop, bound, protocol))
        else:
            context, most = self.tls.server_context, self.shares.handshakes
            self._listeners.append(Acceptor(loop, bound, protocol, context, self._mentions, most))

    async def _open(self) -> Node:
        """Open the directory in a thread, so that /health is answered during replay."""
        said = self.platform.monotonic()

        def progress(done: int, total: int, events: int) -> None:
            nonlocal said
            if self.platform.monotonic() - said > PROGRESS_SECONDS:
                said = self.platform.monotonic()
                share = 100 * done // max(1, total)
                text = f"replaying the log: {share} %, {events:,} events"
                self.say(Notice(text, event="replaying", percent=share, events=events))

        def work() -> Place:
            inline = self.clients.inline
            return open_place(self.config, inline, progress, self.say, self.platform)

        opener = self.platform.workers(1, "unimeter-open")
        try:
            place = await asyncio.wrap_future(opener.submit(work))
        finally:
            opener.shutdown(wait=False)
        # A node that is alone begins at once to call its host, whose methods are the loop's.
        return run_node(self.config, place, self.clients, self.platform)

    def _make_auth(self) -> Auth:
        secret = b"" if self.members is None else self.members.secret
        auth = Auth(self.node, self.platform, self.config, secret=secret)
        auth.say = self.say
        try:
            check_bind(self.config, not auth.has_key)
        except InvalidInputError:
            self.node.close()
            raise
        if self.config.insecure and not auth.has_key:
            self.say("--insecure, and no key: anybody who reaches it may do everything")
        return auth

    def look_at_keys(self) -> None:
        """If keys have changed: whoever is let in now, on either port, may not be any more."""
        generation = self.auth.generation
        if generation != self._key_generation:
            self._key_generation = generation
            self.clients.keys_changed()
            if self.site is not None:
                self.site.keys_changed()

    def tls_statistics(self) -> dict[str, int]:
        """Handshakes on both ports, and the certificate; nothing without TLS."""
        if self.tls is None:
            return {}
        found = {**self.tls.statistics(), "tls_expires": self.tls.expires}
        for listener in self._listeners:
            if isinstance(listener, Acceptor):
                for name, value in listener.statistics().items():
                    found[name] = found.get(name, 0) + value
        return found

    def met_tls(self, address: str) -> None:
        """A client spoke TLS to a port that does not."""
        sentence = f"{address or 'a client'} speaks TLS, and this node has no tls_cert"
        self._mentions.mention("tls", sentence)

    def reload(self, *, is_forced: bool = False) -> None:
        """Read the files that may change while the node runs: certificates, and the key."""
        if self.tls is not None:
            self.tls.reload(is_forced=is_forced)
        if self.config.admin_key_file and self.is_ready:
            self.auth.reload()
            self.look_at_keys()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: housekeeping of the node, and of clients that do not read."""
        self._tick_handle = loop.call_later(TICK_SECONDS, self._tick, loop)
        self.node.tick()
        self.clients.cut_off_stalled()
        self.clients.look_at_strangers()
        self.reload()
        self.look_at_keys()
        if self.site is not None:
            self.site.tick()

    # --- pages -------------------------------------------------------------------

    def health_page(self) -> Page:
        """/health."""
        if self.failure is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"stopping: {self.failure}\n".encode()
        return HTTPStatus.OK, TEXT, b"ok\n"

    def metrics_page(self) -> Page:
        """/metrics."""
        if self._metrics is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"not ready: replaying\n"
        return self._metrics()

    def ready_page(self) -> Page:
        """/ready."""
        if not self.is_ready:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"not ready: replaying or stopping\n"
        if self.cluster is not None and self.cluster.readiness:
            text = f"not ready: {self.cluster.readiness}\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, text.encode()
        if not self.auth.is_settled:
            text = "not ready: whether there are keys is being asked for\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, text.encode()
        if self.node.refusal:
            return HTTPStatus.OK, TEXT, f"ready, events wait: {self.node.refusal}\n".encode()
        return HTTPStatus.OK, TEXT, b"ready\n"

    # --- stop --------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        """The node can't go on: cut everyone off without another word."""
        self.failure = error
        self.is_ready = False
        self.clients.abort()
        if self.site is not None:
            self.site.abort()
        self.ended.set()

    async def stop(self) -> None:
        """Finish what was taken in, then close everything. Safe to call once."""
        self.is_ready = False
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._listeners[-1].close()
        if self.failure is None:
            self.clients.webhooks.finish()
            if self.cluster is not None:
                await self.cluster.hand_over()
            self.clients.stop_reading()
            await self._until(lambda: self._is_quiet)
        if self.site is not None:
            await self.site.close()
        self.clients.close()
        await self._until(lambda: not self.clients.count)
        self.clients.abort()
        await self.clients.webhooks.close()
        if self.cluster is not None:
            await self.cluster.close()
        self.node.close()
        self._close_listeners()

    @property
    def _is_quiet(self) -> bool:
        """Whether every request taken in was answered."""
        others = self.cluster is None or self.cluster.is_quiet
        return self.node.idle and not self.clients.busy and others

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for what other callbacks of the loop bring about, at most DRAIN_SECONDS."""
        now = self.platform.monotonic
        deadline = now() + DRAIN_SECONDS
        while self.failure is None and not condition() and now() < deadline:
            await asyncio.sleep(0.002)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        for bound in self._sockets:
            bound.close()
