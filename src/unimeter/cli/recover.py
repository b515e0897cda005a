"""``unimeter recover``: an empty directory for a node of a cluster that lost its disk.

The node that lost its disk has forgotten what it voted and what it acknowledged, so it
may not come back as if it were new, and an empty directory under a known id is
refused by the others. This verb makes one that says of itself that it is recovering;
`server.joining` describes how such a node earns its vote again.

Takes the options of `serve` that say who the node is, from the same places, and makes
nothing but the directory: the node is started with `serve` as ever.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from unimeter.cli.options import form_options
from unimeter.cli.output import Form, say, write_record
from unimeter.errors import InvalidInputError

if TYPE_CHECKING:
    from unimeter.server.members import Members
    from unimeter.storage.superblock import Superblock

EPILOG = """\b
Examples:
  unimeter recover --data-dir /var/lib/unimeter --node-id 2 --cluster-id billing \\
      --cluster-secret-file secret --peers 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101
  unimeter recover --config unimeter.toml --yes

\b
What comes next: `unimeter serve` with the same options. The node hears from all
others once, copies everything without voting, and votes again once it has caught
up; `unimeter status` shows it as recovering until then.
"""

DANGER = """\
This makes node {node} of cluster {cluster!r} anew in {path}.

Do it only if its old data is lost for good. A node that only was down for long
catches up by itself: start it as it was. One damaged entry is repaired at a start.
Never do it for so many nodes that no majority keeps its data: what only those had
acknowledged would be gone. And no other process may run as node {node}.
"""


@click.command(epilog=EPILOG)
@click.option("--data-dir", metavar="PATH", help="The directory to make; empty or absent.")
@click.option("--node-id", metavar="N", help="Of the node that lost its disk.")
@click.option("--peers", metavar="LIST", help="All nodes of the cluster, as for serve.")
@click.option("--cluster-id", metavar="NAME", help="As for serve.")
@click.option("--cluster-secret-file", metavar="PATH", help="As for serve.")
@click.option("--config", "config_file", metavar="PATH", help="A TOML file with these options.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@form_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    config_file: str | None,
    yes: bool,
    form: Form,
    **flags: str | None,
) -> None:
    """Prepare an empty directory for a node that lost its disk."""
    from unimeter.server.config import load_config
    from unimeter.server.members import members_of

    config = load_config(flags, file=config_file)
    members = members_of(config)
    if members is None:
        raise InvalidInputError(
            "recover is for a node of a cluster: name all nodes with --peers. A node that is "
            "alone has nobody to copy from; restore a copy of its directory"
        )
    path = os.path.abspath(config.data_dir)
    if not yes:
        _ask(DANGER.format(node=members.node_id, cluster=members.name, path=path))
    block = make_directory(path, members)
    say(
        f"node {members.node_id} is ready to recover: start it with `unimeter serve` and the same "
        "options. Once all others have answered it copies everything from them, and votes when it "
        "has caught up; `unimeter status` shows how far it is"
    )
    write_record(
        {
            "directory": path,
            "node": members.node_id,
            "cluster_id": members.cluster_id.hex(),
            "incarnation": f"{block.incarnation:016x}",
        },
        form,
    )


def make_directory(path: str, members: Members) -> Superblock:
    """Make the directory; WrongDirectoryError where there is data already."""
    from unimeter.server.opening import fit_segment_bytes
    from unimeter.server.platform import volume_bytes
    from unimeter.storage.disk import OsDisk
    from unimeter.storage.layout import Identity
    from unimeter.storage.recovery import make_recovering
    from unimeter.storage.wal import WalLimits

    bounds = WalLimits(segment_bytes=fit_segment_bytes(volume_bytes(path)), background=False)
    identity = Identity(members.cluster_id, members.node_id)
    block = make_recovering(OsDisk(), path, identity, members.genesis_key, bounds=bounds)
    assert block.membership.name == "RECOVERING", block.membership
    return block


def _ask(danger: str) -> None:
    """Have the danger confirmed; InvalidInputError where it is not."""
    say(danger)
    try:
        is_meant = click.confirm("Make it?", default=False, err=True)
    except click.Abort:
        is_meant = False
    if not is_meant:
        raise InvalidInputError("not confirmed, and nothing was changed; --yes does not ask")
