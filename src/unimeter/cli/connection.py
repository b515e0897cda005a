"""A client for the verb that runs, made from its --server and --timeout.

The only place of the command line that makes a client. A test hands another
one in through ``ctx.obj`` (an `Opener`), so verbs are tested against a fake
meter without a patched import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from unimeter.cli.options import SERVER_DEFAULT

if TYPE_CHECKING:
    from unimeter.client.blocking import Client


@dataclass(frozen=True)
class Opener:
    """How a client is made: `open(servers, timeout)`."""

    open: Callable[[list[str], float], Client]


def _open_client(servers: list[str], timeout: float) -> Client:
    from unimeter.client.blocking import Client

    return Client(servers, timeout=timeout)


@contextmanager
def open_client(ctx: click.Context) -> Iterator[Client]:
    """A connected client; closed when the verb ends."""
    opener = ctx.obj if isinstance(ctx.obj, Opener) else Opener(_open_client)
    servers = list(ctx.params["servers"]) or [SERVER_DEFAULT]
    with opener.open(servers, ctx.params["timeout"]) as client:
        yield client
