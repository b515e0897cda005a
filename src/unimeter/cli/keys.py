"""``unimeter keys``: make, list and revoke API keys.

``create`` prints the key on stdout, alone, so that it can go straight into a secret store; it
is shown this once and kept nowhere. What a node keeps recognises the key and is not the key.
"""

from __future__ import annotations

import os

import click

from unimeter.accounts import account_text
from unimeter.cli.connection import open_client
from unimeter.cli.moments import format_ns
from unimeter.cli.options import ACCOUNT, form_options, server_options
from unimeter.cli.output import Form, Sheet, say, write_record, write_sheet
from unimeter.keys import KeyRecord, Scope, new_key
from unimeter.types import Account

COLUMNS = ("id", "name", "scopes", "account", "metric", "created", "revoked")


class Verbs(click.Group):
    """Lists its verbs in the order of a key's life."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["new", "create", "list", "revoke"]


@click.group(cls=Verbs)
def command() -> None:
    """Make, list or revoke API keys."""


@command.command(
    epilog="""\b
Examples:
  unimeter keys new > admin.key
  unimeter serve --admin-key-file admin.key --bind 0.0.0.0 --advertise 10.0.0.7:7001

No node is asked, and none knows it before it starts with this file.
"""
)
def new() -> None:
    """Make a key for --admin-key-file and print it."""
    click.echo(new_key(os.urandom))


@command.command(
    epilog="""\b
Examples:
  unimeter keys create operations --scope admin
  unimeter keys create billing --scope read > billing.key
  unimeter keys create gateway --scope ingest --metric api_calls
  unimeter keys create acme-portal --scope read --account acme --json

The first key needs the scope admin; from then on every client and every page needs a key
(UNIMETER_KEY). admin includes ingest and read.
"""
)
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, help="What it is for; may be repeated.",
    type=click.Choice([str(scope) for scope in Scope]),
)  # fmt: skip
@click.option(
    "--account", type=ACCOUNT, metavar="ACCOUNT", help="The only account that it may touch."
)
@click.option("--metric", metavar="CODE", help="The only metric that it may touch.")
@server_options
@form_options
@click.pass_context
def create(
    ctx: click.Context,
    /,
    name: str,
    scopes: tuple[str, ...],
    account: Account | None,
    metric: str | None,
    form: Form,
    **_: object,
) -> None:
    """Make a key and print it, this once."""
    with open_client(ctx) as client:
        made = client.keys.create(name, scopes, account=account, metric=metric)
    if form == "table":
        click.echo(made.key)
    else:
        write_record({"key": made.key, **_fields(made.record)}, form)
    say(f"key {made.record.id} ({name}) is made. Keep it now: it is not shown again")


@command.command(
    name="list",
    epilog="""\b
Examples:
  unimeter keys list
  unimeter keys list --ndjson | jq -r 'select(.revoked == null) | .id'
""",
)
@server_options
@form_options
@click.pass_context
def list_keys(ctx: click.Context, /, form: Form, **_: object) -> None:
    """List every key, revoked ones too; never what opens them."""
    with open_client(ctx) as client:
        rows = [tuple(_fields(record).values()) for record in client.keys.list()]
    empty = "no keys: everybody who reaches a node may do everything"
    write_sheet(Sheet(COLUMNS, rows, empty), form)


@command.command(
    epilog="""\b
Examples:
  unimeter keys revoke 4fk2p6xzab3d
  unimeter keys revoke 4fk2p6xzab3d --yes
"""
)
@click.argument("key_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
@click.pass_context
def revoke(ctx: click.Context, /, key_id: str, yes: bool, **_: object) -> None:
    """Let a key open nothing any more."""
    if not yes:
        text = f"Revoke key {key_id}? Whoever uses it is refused from then on."
        click.confirm(text, abort=True, err=True)
    with open_client(ctx) as client:
        client.keys.revoke(key_id)
    say(f"key {key_id} is revoked")


def _fields(record: KeyRecord) -> dict[str, object]:
    """A record as one row."""
    return {
        "id": record.id,
        "name": record.name,
        "scopes": [str(scope) for scope in record.scopes],
        "account": None if record.account is None else account_text(record.account),
        "metric": record.metric,
        "created": format_ns(record.created_ns) if record.created_ns else None,
        "revoked": format_ns(record.revoked_ns) if record.revoked_ns else None,
    }
