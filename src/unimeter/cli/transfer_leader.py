"""``unimeter transfer-leader``: let another node lead, before maintenance of the one that does.

Clients go on without an error: what is in flight is committed first, and requests that
come meanwhile wait for the new leader.
"""

from __future__ import annotations

import click

from unimeter.cli.connection import open_client
from unimeter.cli.options import form_options, server_options
from unimeter.cli.output import Form, say, write_record
from unimeter.errors import BackpressureError, InvalidInputError

EPILOG = """\b
Examples:
  unimeter transfer-leader
  unimeter transfer-leader 3
  unimeter transfer-leader 3 --server 10.0.0.1:7001 --json

Without a NODE the one whose log is furthest is taken. A node that is to be stopped
needs none of this: on SIGTERM it hands over by itself.
"""


@click.command("transfer-leader", epilog=EPILOG)
@click.argument("node", type=click.IntRange(1, 255), required=False, metavar="[NODE]")
@server_options
@form_options
@click.pass_context
def command(ctx: click.Context, /, node: int | None, form: Form, **_: object) -> None:
    """Let another node lead, and wait until it does."""
    with open_client(ctx) as client:
        before = client.cluster.status()
        known = sorted(one.node_id for one in before.nodes)
        if before.node_count < 2:
            raise InvalidInputError("this node is alone; there is no other that could lead")
        if not before.leader:
            raise BackpressureError(
                "no node leads just now, so there is nothing to hand over; "
                "`unimeter status` shows which nodes are missing"
            )
        if node is not None and node not in known:
            names = ", ".join(str(one) for one in known)
            raise InvalidInputError(f"there is no node {node}; the cluster has {names}")
        if node is not None and node == before.leader:
            say(f"node {node} leads already")
        else:
            client.cluster.transfer_leader(node or 0)
        after = client.cluster.status()
    term = max((one.term for one in after.nodes if one.node_id == after.leader), default=0)
    record = {"leader": after.leader or None, "before": before.leader or None, "term": term or None}
    write_record(record, form)
