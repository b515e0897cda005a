"""A client for the examples: of the node at the address given, or of one started here.

    python examples/api_billing.py                    starts a node of its own
    python examples/api_billing.py localhost:7001     uses that one

The node of its own is the real server on a temporary directory, in a thread of
this process. A program of yours needs one line instead: `Client([address])`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unimeter import Client, Server


@contextmanager
def connect() -> Iterator[Client]:
    """A connected client."""
    if len(sys.argv) > 1:
        with Client(sys.argv[1:]) as client:
            yield client
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        running_node(directory) as address,
        Client([address]) as client,
    ):
        yield client


@contextmanager
def running_node(directory: str) -> Iterator[str]:
    """Run a node until the block ends; its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # Port 0 is any free port, so two examples can run at once.
    server = asyncio.run_coroutine_threadsafe(start(directory), loop).result()
    try:
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def start(directory: str) -> Server:
    """Start a server on the running loop."""
    server = Server(data_dir=directory, port=0, http_port=0)
    await server.start()
    return server
