"""A client for the verb that runs, made from its --server, --timeout, --key-file and --tls.

The only place of the command line that makes a client. A test hands another
one in through ``ctx.obj`` (an `Opener`), so verbs are tested against a fake
meter without a patched import.

A key is read from a file or from ``UNIMETER_KEY``. Rejected: ``--key``, which every other user
of the host could read in the list of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unimeter.cli.options import SERVER_DEFAULT
from unimeter.errors import InvalidInputError

if TYPE_CHECKING:
    from unimeter.client.blocking import Client


@dataclass(frozen=True)
class Opener:
    """How a client is made: `open(servers, timeout)`, and `key=`, `tls=` where they are given."""

    open: Callable[..., Client]


def _open_client(servers: list[str], timeout: float, **access: Any) -> Client:
    from unimeter.client.blocking import Client

    return Client(servers, timeout=timeout, **access)


def access_of(params: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The `key=` and `tls=` that a verb's options ask for; nothing where they ask for none."""
    found: dict[str, Any] = {}
    if params.get("key_file"):
        found["key"] = _read_key(params["key_file"])
    elif environment.get("UNIMETER_KEY"):
        found["key"] = environment["UNIMETER_KEY"]
    if params.get("tls") or params.get("tls_ca") or params.get("tls_cert"):
        from unimeter.client.access import TLS

        found["tls"] = TLS(
            ca=params.get("tls_ca"), cert=params.get("tls_cert"), key=params.get("tls_key")
        )
    return found


def _read_key(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInputError(f"--key-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"--key-file {path} holds no key") from None


@contextmanager
def open_client(ctx: click.Context) -> Iterator[Client]:
    """A connected client; closed when the verb ends."""
    opener = ctx.obj if isinstance(ctx.obj, Opener) else Opener(_open_client)
    servers = list(ctx.params["servers"]) or [SERVER_DEFAULT]
    access = access_of(ctx.params, os.environ)
    with opener.open(servers, ctx.params["timeout"], **access) as client:
        yield client
