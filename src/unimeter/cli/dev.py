"""``unimeter dev``: a whole cluster on this machine, for trying things out.

Each node is a ``unimeter serve`` in a process of its own, on loopback, so killing
one is the real thing. This module is the verb: what was asked, checked before the
first process starts. `dev_run` keeps the processes and shows what they say.
"""

from __future__ import annotations

import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from unimeter.demo.cluster_process import ClusterProcess, Ports
from unimeter.errors import InvalidInputError

FOLDER_DEFAULT = "unimeter-dev"
CLUSTER_ID = "dev"
PEER_PORTS_ABOVE = 100  # the ports between nodes are so far above those for clients
HTTP_PORT_DEFAULT, PORT_DEFAULT = 9090, 7001

EPILOG = """\b
Examples:
  unimeter dev
  unimeter dev --nodes 5 --data-dir /tmp/five --port 8001 --http-port 9190
  unimeter dev --no-keep --restart

\b
Node 1 takes clients on PORT, node 2 on PORT+1, and so on; the same with the
HTTP ports, and with the ports between nodes from PORT+100 on. Each node's lines
go to stderr behind its name. A node that ends is reported, and the others go on;
it is started again only with --restart, or by hand with the command shown.

Running it again on the same folder starts the same cluster. The secret that its
nodes share is made there, in a file that only you can read. Ctrl-C ends all
nodes politely; twice, at once.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--nodes",
    type=click.Choice(["1", "3", "5"]),
    default="3",
    show_default=True,
    help="How many.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help=f"Where the nodes keep their data.  [default: ./{FOLDER_DEFAULT}]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_000),
    default=PORT_DEFAULT,
    show_default=True,
    metavar="PORT",
    help="For clients, of node 1.",
)
@click.option(
    "--http-port",
    type=click.IntRange(1, 65_000),
    default=HTTP_PORT_DEFAULT,
    show_default=True,
    metavar="PORT",
    help="Of HTTP: API, dashboard, probes, /metrics; of node 1.",
)
@click.option(
    "--keep/--no-keep",
    default=True,
    show_default=True,
    help="Whether the data stays; --no-keep uses a temporary folder.",
)
@click.option("--restart", is_flag=True, help="Start a node again that ended by itself.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    nodes: str,
    data_dir: Path | None,
    port: int,
    http_port: int,
    keep: bool,
    restart: bool,
) -> None:
    """Run a whole cluster on this machine, until Ctrl-C."""
    from unimeter.cli.dev_run import DevRun

    if not keep and data_dir is not None:
        raise InvalidInputError("--no-keep uses a temporary folder, so it can't have --data-dir")
    count = int(nodes)
    places = places_from(port, http_port, count)
    with ExitStack() as held:
        folder = data_dir or Path(FOLDER_DEFAULT)
        if not keep:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="unimeter-dev-")))
        check_same_count(folder, count)
        cluster = ClusterProcess(
            folder.absolute(), count=count, cluster_id=CLUSTER_ID, ports=places
        )
        once_more = again(folder, count, port, http_port) if keep else ""
        ctx.exit(DevRun(cluster, restarts=restart, again=once_more).run())


def places_from(port: int, http_port: int, count: int) -> list[Ports]:
    """Every node's ports, counted up from the first; InvalidInputError where they collide."""
    places = [
        Ports(port + number, http_port + number, port + PEER_PORTS_ABOVE + number)
        for number in range(count)
    ]
    ports = [one for place in places for one in place]
    if max(ports) > 65_535:
        raise InvalidInputError(f"ports up to {max(ports)} are needed; there are 65535")
    twice = next((one for one in ports if ports.count(one) > 1), None)
    if twice is not None:
        raise InvalidInputError(
            f"port {twice} is needed twice: {count} nodes take {port} to {port + count - 1} for "
            f"clients, {http_port} to {http_port + count - 1} for HTTP and "
            f"{port + PEER_PORTS_ABOVE} to {port + PEER_PORTS_ABOVE + count - 1} between nodes"
        )
    return places


def check_same_count(folder: Path, count: int) -> None:
    """Refuse a folder made for another number of nodes: membership is fixed."""
    found = len(list(folder.glob("node-*/superblock")))
    if found not in (0, count):
        raise InvalidInputError(
            f"{folder} holds a cluster of {found}, and its size is fixed; "
            f"use --nodes {found}, or another --data-dir for {count}"
        )


def again(folder: Path, count: int, port: int, http_port: int) -> str:
    """The command that starts this cluster once more."""
    words = ["unimeter", "dev", "--nodes", str(count)]
    given = (
        ("--data-dir", str(folder), FOLDER_DEFAULT),
        ("--port", str(port), str(PORT_DEFAULT)),
        ("--http-port", str(http_port), str(HTTP_PORT_DEFAULT)),
    )
    for option, value, default in given:
        words += [option, value] if value != default else []
    return shlex.join(words)
