"""``unimeter serve``: one server as a process.

Owns what a process has and a server in a test has not: the loop (uvloop where it is
installed), signals, the words on stderr and the exit code.

    SIGTERM, SIGINT   finish what is in flight, exit 0; a second one: exit at once
    the node failed   say why, exit 1 at once: nothing more may be acknowledged

A refusal (a bad option, a port in use, a directory that can't be opened) is one
sentence and its exit code, never a traceback.

With `log_format` json each line on stderr is an object (`log`), from the first word to the last.
Traces are sent where OTEL_EXPORTER_OTLP_ENDPOINT says (`tracing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Mapping
from typing import Any

from unimeter.errors import DataError, FatalStorageError, InvalidInputError
from unimeter.server import tracing
from unimeter.server.config import Config, load_config
from unimeter.server.log import Notice, capture
from unimeter.server.platform import REAL
from unimeter.server.server import ListenError, Server
from unimeter.version import VERSION

EXIT_OK = 0
EXIT_FAILED = 1  # the node stopped itself: disk failure or broken invariant
EXIT_CONFIG = 2
EXIT_DATA = 7  # the directory is damaged, in use, or another's
EXIT_LISTEN = 9  # a port can't be had


def serve_options(flags: Mapping[str, Any], file: str | None) -> int:
    """Run a server as its options say; return the exit code.

    Raises InvalidInputError for options that can't be meant, unless lines are to be JSON.
    """
    try:
        config = load_config(flags, file=file)
    except InvalidInputError as error:
        if "json" not in (flags.get("log_format"), os.environ.get("UNIMETER_LOG_FORMAT")):
            raise
        REAL.log.as_json({})
        refuse(error)
        return EXIT_CONFIG
    return serve(config)


def serve(config: Config) -> int:
    """Run a server until SIGTERM or SIGINT; return the exit code. Speaks on stderr."""
    if config.log_format == "json":
        cluster = {"cluster": config.cluster_id} if config.cluster_id else {}
        REAL.log.as_json({"node": config.node_id, **cluster})
        capture(REAL.log)
    if not __debug__:
        say("this program checks itself with assertions; run it without python -O")
        return EXIT_CONFIG
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_serve(config))
    except InvalidInputError as error:
        refuse(error)
        return EXIT_CONFIG
    except ListenError as error:
        refuse(error)
        return EXIT_LISTEN
    except DataError as error:
        refuse(error)
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
    REAL.log(sentence)


def refuse(error: Exception) -> None:
    """Why there is no server."""
    say(Notice(str(error), event="refused", level="error", error=type(error).__name__))


async def _serve(config: Config) -> int:
    """Start, wait for a signal or a failure, stop."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    server = Server(config=config)
    server.say = say
    server.tracing = tracing.from_environment(os.environ, config, say)

    def on_signal(number: int) -> None:
        if not server.is_ready:
            # Still replaying: nothing is in flight, and the lock goes with the process.
            say(Notice("stopped before it was ready", event="stopped"))
            os._exit(EXIT_OK)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    with contextlib.suppress(AttributeError):  # a system without that signal
        loop.add_signal_handler(signal.SIGHUP, lambda: server.reload(is_forced=True))
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
        try:
            await server.stop()
        except FatalStorageError as error:  # the directory is fine, the disk is not
            server.failure = server.failure or error
    if server.failure is not None:
        if not isinstance(server.failure, DataError):
            REAL.log.error(server.failure)  # our own mistake: say where
        kind = type(server.failure).__name__
        text = f"stopped: {kind}: {server.failure}"
        say(Notice(text, event="failed", level="error", error=kind))
        os._exit(EXIT_FAILED)
    if server.tracing is not None:
        server.tracing.close()
    say(Notice("stopped; everything acknowledged is on the disk", event="stopped"))
    return EXIT_OK


def on_exception(server: Server, context: dict[str, Any]) -> None:
    """A broken invariant or a failed disk, met anywhere, stops the node; anything else is told."""
    error = context.get("exception")
    asyncio.get_running_loop().default_exception_handler(context)
    if isinstance(error, AssertionError | FatalStorageError) and server.failure is None:
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


def _startup_line(server: Server) -> Notice:
    node, members = server.node, server.members
    place = ""
    if members is not None:
        peers = ", ".join(f"{n}={host}:{port}" for n, (host, port) in members.others.items())
        place = f"as node {members.node_id} of cluster {members.name!r} with peers {peers}, "
    text = (
        f"serving {server.config.bind}:{server.port}, http {server.config.bind}:"
        f"{server.http_port}, {place}data in {os.path.abspath(server.config.data_dir)}, "
        f"recovered to index {node.machine.applied} "
        f"({node.machine.next_offset - 1:,} events, {node.opened.replayed_events:,} replayed)"
    )
    return Notice(
        text,
        event="serving",
        address=server.address,
        port=server.port,
        http_port=server.http_port,
        data_dir=os.path.abspath(server.config.data_dir),
        index=node.machine.applied,
        events=node.machine.next_offset - 1,
        events_replayed=node.opened.replayed_events,
        version=VERSION,
    )
