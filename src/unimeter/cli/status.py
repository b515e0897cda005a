"""``unimeter status``: the nodes of a cluster as its leader sees them.

Any node can be asked; it answers for all with what it last heard of each. A node that
was silent for some seconds is UNREACHABLE, and what is shown of it is the last it said.

Two views of the same thing: a table for people (sizes and ages in words) and records
for programs (bytes and milliseconds, every digit). `standing_of` draws the conclusion,
which is also the exit code, so that a script or a probe needs to read nothing.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from unimeter.cli.connection import open_client
from unimeter.cli.exit_codes import ExitCode
from unimeter.cli.options import form_options, server_options
from unimeter.cli.output import Form, Sheet, csv_line, json_line, say, table_of, write_sheet
from unimeter.errors import ConnectionError, DeadlineExceededError
from unimeter.types import Membership
from unimeter.wire.messages import (
    HEARD_NEVER,
    ClusterStatusReply,
    NodeRole,
    NodeStatus,
)

if TYPE_CHECKING:
    from unimeter.client.blocking import Client

COLUMNS = (
    "node", "role", "membership", "term", "last_index", "commit", "applied", "lag", "match",
    "disk_used_bytes", "disk_free_bytes", "heard_ms", "state", "state_hash", "hash_index",
    "version", "client_address", "peer_address",
)  # fmt: skip
TABLE_COLUMNS = (
    "node", "role", "membership", "term", "last", "commit", "applied", "lag", "match",
    "disk_used", "disk_free", "heard", "state", "version", "address",
)  # fmt: skip
WATCH_SECONDS = 1.0
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

EPILOG = """\b
Examples:
  unimeter status
  unimeter status --server 10.0.0.2:7001 --watch
  unimeter status --json | jq .leader
  unimeter status --csv

\b
lag       entries that the node has still to apply, of those the leader has
match     up to where its log is known to be the leader's
state     whether its state was the others' at the last comparison: equal, differs,
          or nothing where they have not been compared yet
heard     how long ago it last said something to the node that answers

Exit code 0: there is a leader, every node is there and votes, and their states
are equal. 10: something of that is missing, and stderr says what. 8: states
differ. 6: no node answered.
"""


@click.command(epilog=EPILOG)
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=WATCH_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: between two looks.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="With --watch: end after N.")
@server_options
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    watch: bool,
    interval: float,
    count: int | None,
    form: Form,
    timeout: float,
    **_: object,
) -> None:
    """Show the nodes of a cluster: who leads, who lags, who is missing."""
    with open_client(ctx) as client:
        if watch:
            # Ctrl-C is how it ends, not a failure.
            with suppress(KeyboardInterrupt), _shown(form) as show:
                _follow(client, interval, count, timeout, show)
            return
        found = client.cluster.status()
    write_status(found, form)
    code, problems = standing_of(found)
    for problem in problems:
        say(problem)
    ctx.exit(code)


def _follow(
    client: Client,
    interval: float,
    count: int | None,
    timeout: float,
    show: Callable[[ClusterStatusReply | None], None],
) -> None:
    """Look at each interval; a look that nobody answers is shown too, and is no end."""
    left = count
    while left is None or left > 0:
        started = time.monotonic()
        found = None
        with suppress(ConnectionError, DeadlineExceededError):
            found = client.cluster.status(timeout=min(timeout, max(interval, WATCH_SECONDS)))
        show(found)
        left = None if left is None else left - 1
        if left != 0:
            time.sleep(max(0.0, started + interval - time.monotonic()))


@contextmanager
def _shown(form: Form) -> Iterator[Callable[[ClusterStatusReply | None], None]]:
    """How a look is shown: redrawn on a terminal; else a line or table where it changed."""
    if form == "table" and sys.stdout.isatty():
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(highlight=False), auto_refresh=False) as live:

            def redraw(found: ClusterStatusReply | None) -> None:
                if found is None:
                    live.update(Text("no node answers", style="bold red"), refresh=True)
                    return
                _, problems = standing_of(found)
                lines = [Text(one, style="bold red") for one in problems]
                table = table_of(_table_sheet(found), headline(found))
                live.update(Group(table, *lines), refresh=True)

            yield redraw
        return
    if form == "csv":
        click.echo(csv_line(COLUMNS))
    before: list[object] = []

    def print_one(found: ClusterStatusReply | None) -> None:
        if found is None:
            say("no node answers")
        elif form == "csv":
            for row in rows_of(found):
                click.echo(csv_line(row))
        elif form == "table":
            shape = [(one.node_id, one.role, one.membership, one.term) for one in found.nodes]
            if before != shape:
                before[:] = shape
                write_status(found, form)
        else:
            click.echo(json_line(record_of(found)))

    yield print_one


def write_status(found: ClusterStatusReply, form: Form) -> None:
    """Print one answer in the form that was asked for."""
    if form == "json":
        import json

        from unimeter.cli.output import plain

        click.echo(json.dumps(plain(record_of(found)), indent=2))
    elif form == "table":
        say(headline(found))
        write_sheet(_table_sheet(found), form)
    else:
        write_sheet(Sheet(COLUMNS, rows_of(found)), form)


def headline(found: ClusterStatusReply) -> str:
    """The cluster in a line."""
    lead = next((node for node in found.nodes if node.node_id == found.leader), None)
    if lead is None:
        leads = "no leader is known"
    else:
        leads = f"node {lead.node_id} leads in term {lead.term}, committed to {lead.commit}"
    there = sum(one.role != NodeRole.UNREACHABLE for one in found.nodes)
    return (
        f"cluster {found.cluster_id.hex()[:8]}: {leads}; {there} of {len(found.nodes)} "
        f"node{'s' if len(found.nodes) != 1 else ''} heard, as node {found.node_id} sees it"
    )


def record_of(found: ClusterStatusReply) -> dict[str, object]:
    """The whole answer for a program."""
    code, problems = standing_of(found)
    return {
        "cluster_id": found.cluster_id.hex(),
        "leader": found.leader or None,
        "answered_by": found.node_id,
        "ok": code == ExitCode.OK,
        "problems": problems,
        "position": max((one.commit for one in found.nodes), default=0),
        "nodes": [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(found)],
    }


def rows_of(found: ClusterStatusReply) -> list[tuple[object, ...]]:
    """A row of `COLUMNS` for each node; what is not known is None."""
    states = states_of(found.nodes)
    return [
        (
            node.node_id,
            node.role.name.lower(),
            node.membership.name.lower(),
            node.term or None,
            node.last_index or None,
            node.commit or None,
            node.applied or None,
            node.lag,
            node.match or None,
            node.disk_used_bytes or None,
            node.disk_free_bytes or None,
            None if node.heard_ms == HEARD_NEVER else node.heard_ms,
            states[node.node_id] or None,
            node.state_hash.hex() if node.hash_index else None,
            node.hash_index or None,
            node.version or None,
            node.client_address or None,
            node.peer_address or None,
        )
        for node in found.nodes
    ]


def _table_sheet(found: ClusterStatusReply) -> Sheet:
    """The same for people."""
    rows = []
    for row in rows_of(found):
        one = dict(zip(COLUMNS, row, strict=True))
        hash_words = f"{one['state']} at {one['hash_index']}" if one["state"] else None
        rows.append(
            (
                *row[:9],
                size_words(one["disk_used_bytes"]),
                size_words(one["disk_free_bytes"]),
                heard_words(one["heard_ms"], one["node"] == found.node_id),
                hash_words,
                one["version"],
                one["client_address"] or one["peer_address"],
            )
        )
    return Sheet(TABLE_COLUMNS, rows, "the node knows of no cluster")


def standing_of(found: ClusterStatusReply) -> tuple[ExitCode, list[str]]:
    """The exit code, and each thing that is not as it should be as a sentence."""
    problems = []
    if not found.leader:
        problems.append("no leader: a majority of the nodes has to reach each other")
    for node in found.nodes:
        if node.role == NodeRole.UNREACHABLE:
            where = node.client_address or node.peer_address
            problems.append(f"node {node.node_id} ({where}) is unreachable, {silence_words(node)}")
        elif node.membership == Membership.FRESH:
            problems.append(
                f"node {node.node_id} is new and has no vote until it has met all others"
            )
        elif node.membership == Membership.RECOVERING:
            problems.append(
                f"node {node.node_id} is recovering and has no vote until it has caught up"
            )
    differing = [node for node, state in states_of(found.nodes).items() if state == "differs"]
    if differing:
        names = ", ".join(str(node) for node in differing)
        problems.append(f"the states of the replicas differ: look at node {names}")
        return ExitCode.DIFFERENT, problems
    return (ExitCode.DEGRADED if problems else ExitCode.OK), problems


def states_of(nodes: Sequence[NodeStatus]) -> dict[int, str]:
    """Each node's state beside the others' at the same index: equal, differs or "".

    With most of a group agreeing, it is the rest that differs; without, all of it.
    """
    states = {}
    for node in nodes:
        group = [one.state_hash for one in nodes if one.hash_index == node.hash_index]
        if not node.hash_index or len(group) < 2:
            states[node.node_id] = ""
            continue
        (common, count), *_ = Counter(group).most_common(1)
        is_fine = node.state_hash == common and 2 * count > len(group)
        states[node.node_id] = "equal" if is_fine else "differs"
    return states


def size_words(count: object) -> str | None:
    """Bytes in a unit that leaves few digits."""
    if not isinstance(count, int):
        return None
    value = float(count)
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def silence_words(node: NodeStatus) -> str:
    """For how long nothing was heard, of a node that is unreachable."""
    if node.heard_ms != HEARD_NEVER:
        return f"last heard {heard_words(node.heard_ms, False)}"
    # Who said its version and is "never heard" has left: its host refuses connections.
    return "its process has ended" if node.version else "not heard since this node started"


def heard_words(heard_ms: object, is_own: bool) -> str:
    """How long ago a node was heard."""
    if is_own:
        return "itself"
    if not isinstance(heard_ms, int):
        return "never"
    if heard_ms < 60_000:
        return f"{heard_ms / 1000:.1f} s ago"
    minutes = heard_ms // 60_000
    return f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} h ago"
