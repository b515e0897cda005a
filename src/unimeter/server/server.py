"""A server: one node, its sockets and its HTTP pages on one event loop.

Owns start and stop. Start is in an order in which every refusal comes before
any harm: take the ports (a port in use is found before the data directory is
touched), answer /health, open the directory (replay happens in a thread, so
/ready says 503 meanwhile), then accept clients. Stop is the same backwards:
take nothing more in, finish what was taken (sync, apply, reply), let the
sockets drain, write a last snapshot if that is cheap, give the directory back.

    async with unimeter.Server(data_dir="data", port=0, http_port=0) as server:
        client = AsyncClient([server.address])

`serve` runs one as a process: uvloop where installed, SIGTERM and SIGINT to
stop, exit codes below. When the node fails (a failed sync, a broken invariant)
nothing more is acknowledged and the process ends at once with a sentence; what
was acknowledged is on the disk.

Rejected: asyncio's own Server.wait_closed as the drain, which waits for clients
to hang up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any

from unimeter.errors import DataError, InvalidInputError, UnimeterError
from unimeter.server.clients import Clients
from unimeter.server.config import Config
from unimeter.server.http import TEXT, HttpPages, Page
from unimeter.server.metrics import metrics_page
from unimeter.server.node import Node
from unimeter.server.opening import open_node

EXIT_OK = 0
EXIT_FAILED = 1  # the node stopped itself: disk failure or broken invariant
EXIT_CONFIG = 2
EXIT_DATA = 7  # the directory is damaged, in use, or another's
EXIT_LISTEN = 9  # a port can't be had

BACKLOG = 4096
TICK_SECONDS = 1.0
DRAIN_SECONDS = 5.0  # for what is in flight, and for clients to take their replies
PROGRESS_SECONDS = 1.0


class ListenError(UnimeterError):
    """An address can't be listened on."""


def take_port(bind: str, port: int, option: str) -> socket.socket:
    """A bound TCP socket that does not listen yet; ListenError with the fix."""
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


class Server:
    """A running node. Use as an async context manager, or `start` and `stop`."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        config: Config | None = None,
        **options: Any,
    ) -> None:
        """Prepare a server from keyword options (see `Config`) or a whole `config`."""
        if data_dir is not None:
            options["data_dir"] = os.fspath(data_dir)
        if config is not None and options:
            raise InvalidInputError("give either a config or options, not both")
        self.config = config or Config(**options)
        self.clients: Clients
        self.node: Node
        self.port = 0
        self.http_port = 0
        self.is_ready = False
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()  # set when the node has failed
        self.say: Callable[[str], None] = lambda sentence: None
        self._pages = HttpPages(
            {"/health": self._health, "/ready": self._ready, "/metrics": self._no_metrics}
        )
        self._listeners: list[asyncio.AbstractServer] = []
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
        main = take_port(config.bind, config.port, "port")
        self._sockets.append(main)
        try:
            http = take_port(config.bind, config.http_port, "http-port")
            self._sockets.append(http)
            self.port, self.http_port = main.getsockname()[1], http.getsockname()[1]
            await self._listen(loop, http, self._pages.connection)
            self.clients = Clients(loop)
            self.clients.advertise = config.advertise
            self.clients.on_failure = self._failed
            self.node = await self._open(loop)
            self.clients.attach(self.node)
            self._pages.pages["/metrics"] = metrics_page(self.node, self.clients)
            await self._listen(loop, main, self.clients.connection)
        except BaseException:
            self._close_listeners()
            raise
        self.is_ready = True
        self._tick_handle = loop.call_later(TICK_SECONDS, self._tick, loop)

    async def _listen(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        listener = await loop.create_server(protocol, sock=bound, backlog=BACKLOG)
        self._listeners.append(listener)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Node:
        """Open the directory in a thread, so that /health is answered during replay."""
        said = time.monotonic()

        def progress(done: int, total: int, events: int) -> None:
            nonlocal said
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                share = 100 * done // max(1, total)
                self.say(f"replaying the log: {share} %, {events:,} events")

        def work() -> Node:
            return open_node(self.config, self.clients, progress, self.say)

        return await loop.run_in_executor(None, work)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: housekeeping of the node, and of clients that do not read."""
        self._tick_handle = loop.call_later(TICK_SECONDS, self._tick, loop)
        self.node.tick()
        self.clients.cut_off_stalled()

    # --- pages -------------------------------------------------------------------

    def _health(self) -> Page:
        if self.failure is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"stopping: {self.failure}\n".encode()
        return HTTPStatus.OK, TEXT, b"ok\n"

    def _no_metrics(self) -> Page:
        return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"not ready: replaying\n"

    def _ready(self) -> Page:
        if not self.is_ready:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"not ready: replaying or stopping\n"
        if self.node.refusal:
            return HTTPStatus.OK, TEXT, f"ready, events wait: {self.node.refusal}\n".encode()
        return HTTPStatus.OK, TEXT, b"ready\n"

    # --- stop --------------------------------------------------------------------

    def _failed(self, error: BaseException) -> None:
        """The node can't go on: cut everyone off without another word."""
        self.failure = error
        self.is_ready = False
        self.clients.abort()
        self.ended.set()

    async def stop(self) -> None:
        """Finish what was taken in, then close everything. Safe to call once."""
        self.is_ready = False
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._listeners[-1].close()
        if self.failure is None:
            self.clients.stop_reading()
            await self._until(lambda: self.node.idle and not self.clients.busy)
        self.clients.close()
        await self._until(lambda: not self.clients.count)
        self.clients.abort()
        self.node.close()
        self._close_listeners()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for what other callbacks of the loop bring about, at most DRAIN_SECONDS."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.failure is None and not condition() and time.monotonic() < deadline:
            await asyncio.sleep(0.002)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        for bound in self._sockets:
            bound.close()
        self._pages.close()


# --- as a process -----------------------------------------------------------------


def serve(config: Config) -> int:
    """Run a server until SIGTERM or SIGINT; return the exit code. Speaks on stderr."""
    if not __debug__:
        say("this program checks itself with assertions; run it without python -O")
        return EXIT_CONFIG
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(config))
    except InvalidInputError as error:
        say(str(error))
        return EXIT_CONFIG
    except ListenError as error:
        say(str(error))
        return EXIT_LISTEN
    except DataError as error:
        say(str(error))
        return EXIT_DATA


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it is installed, asyncio's where not."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def say(sentence: str) -> None:
    """One line for the operator."""
    print(f"unimeter: {sentence}", file=sys.stderr, flush=True)


async def _serve(config: Config) -> int:
    """Start, wait for a signal or a failure, stop."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    server = Server(config=config)
    server.say = say

    def on_signal(number: int) -> None:
        if not server.is_ready:
            # Still replaying: nothing is in flight, and the lock goes with the process.
            say("stopped before it was ready")
            os._exit(EXIT_OK)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.set_exception_handler(lambda loop, context: on_exception(server, context))
    _raise_file_limit()
    await server.start()
    _settle_collector()
    say(_startup_line(server))
    waits = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(server.ended.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if server.failure is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal means now; what was acknowledged is on the disk.
            loop.add_signal_handler(number, os._exit, EXIT_FAILED)
        await server.stop()
    if server.failure is not None:
        say(f"stopped: {type(server.failure).__name__}: {server.failure}")
        os._exit(EXIT_FAILED)
    say("stopped; everything acknowledged is on the disk")
    return EXIT_OK


def on_exception(server: Server, context: dict[str, Any]) -> None:
    """A broken invariant in any task stops the process; anything else is told."""
    error = context.get("exception")
    asyncio.get_running_loop().default_exception_handler(context)
    if isinstance(error, AssertionError) and server.failure is None:
        with contextlib.suppress(AttributeError):
            server.node.fail(error)


def _raise_file_limit() -> None:
    """Let as many clients connect as the system allows this process."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_collector() -> None:
    """Keep the cycle collector away from what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _startup_line(server: Server) -> str:
    node = server.node
    return (
        f"serving {server.config.bind}:{server.port}, http {server.config.bind}:"
        f"{server.http_port}, data in {os.path.abspath(server.config.data_dir)}, "
        f"recovered to index {node.machine.applied} "
        f"({node.machine.next_offset - 1:,} events, {node.opened.replayed_events:,} replayed)"
    )
