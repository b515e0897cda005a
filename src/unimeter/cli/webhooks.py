"""``unimeter webhooks``: have alerts delivered to URLs.

``create`` prints the secret that signs the deliveries; it is shown this once. ``show`` tells how
far a webhook has come: the position up to which all is delivered, what is being tried again, and
why the last attempt failed.
"""

from __future__ import annotations

import click

from unimeter.accounts import account_text
from unimeter.cli.connection import open_client
from unimeter.cli.moments import format_ns
from unimeter.cli.options import ACCOUNT, form_options, server_options
from unimeter.cli.output import Form, Sheet, say, write_record, write_sheet
from unimeter.control import Webhook
from unimeter.errors import NotFoundError
from unimeter.types import Account

COLUMNS = ("id", "url", "accounts", "metrics", "state", "through", "waiting", "error")


class Verbs(click.Group):
    """Lists its verbs in the order of a webhook's life."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["create", "list", "show", "pause", "resume", "replay", "delete"]


@click.group(cls=Verbs)
def command() -> None:
    """Create, list, show, pause, resume, replay or delete webhooks."""


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks create https://billing.example/hooks/unimeter
  unimeter webhooks create https://example.com/hook --metric credits --account acme
  unimeter webhooks create https://example.com/hook --after 0 --json
"""
)
@click.argument("url")
@click.option(
    "--account", "accounts", multiple=True, type=ACCOUNT, metavar="ACCOUNT",
    help="Only this account's alerts; may be repeated.",
)  # fmt: skip
@click.option(
    "--metric", "metrics", multiple=True, metavar="CODE",
    help="Only this metric's alerts; may be repeated.",
)  # fmt: skip
@click.option(
    "--after", type=click.IntRange(0), metavar="POSITION",
    help="From behind this alert on.  [default: from now on]",
)  # fmt: skip
@click.option(
    "--secret", envvar="UNIMETER_WEBHOOK_SECRET", metavar="WHSEC",
    help="What signs deliveries: whsec_ and base64.  [default: a new one]",
)  # fmt: skip
@server_options
@form_options
@click.pass_context
def create(
    ctx: click.Context,
    /,
    url: str,
    accounts: tuple[Account, ...],
    metrics: tuple[str, ...],
    after: int | None,
    secret: str | None,
    form: Form,
    **_: object,
) -> None:
    """Deliver alerts to a URL and print the secret that signs them, this once."""
    with open_client(ctx) as client:
        made = client.webhooks.create(
            url, accounts=accounts, metrics=metrics, secret=secret, after=after
        )
    if form == "table":
        click.echo(made.secret)
    else:
        write_record({"secret": made.secret, **_details(made)}, form)
    say(f"webhook {made.id} is there. Keep its secret now: it is not shown again")


@command.command(
    name="list",
    epilog="""\b
Examples:
  unimeter webhooks list
  unimeter webhooks list --ndjson | jq -r 'select(.state == "paused") | .id'
""",
)
@server_options
@form_options
@click.pass_context
def list_webhooks(ctx: click.Context, /, form: Form, **_: object) -> None:
    """List every webhook and how far it has come."""
    with open_client(ctx) as client:
        found = [_details(webhook) for webhook in client.webhooks.list()]
    rows = [tuple(details[name] for name in COLUMNS) for details in found]
    write_sheet(Sheet(COLUMNS, rows, "no webhooks yet: unimeter webhooks create --help"), form)


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks show wh_4fk2p6xzab3d
  unimeter webhooks show wh_4fk2p6xzab3d --json
"""
)
@click.argument("webhook_id", metavar="ID")
@server_options
@form_options
@click.pass_context
def show(ctx: click.Context, /, webhook_id: str, form: Form, **_: object) -> None:
    """Show one webhook and its deliveries."""
    with open_client(ctx) as client:
        found = [webhook for webhook in client.webhooks.list() if webhook.id == webhook_id]
    if not found:
        raise NotFoundError(f"there is no webhook {webhook_id!r}")
    write_record(_details(found[0]), form)


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks pause wh_4fk2p6xzab3d
  unimeter webhooks pause wh_4fk2p6xzab3d --reason "maintenance until noon"
"""
)
@click.argument("webhook_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Shown by list and show.")
@server_options
@click.pass_context
def pause(ctx: click.Context, /, webhook_id: str, reason: str, **_: object) -> None:
    """Hold deliveries back; none is lost."""
    with open_client(ctx) as client:
        client.webhooks.pause(webhook_id, reason)
    say(f"webhook {webhook_id} is paused")


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks resume wh_4fk2p6xzab3d
"""
)
@click.argument("webhook_id", metavar="ID")
@server_options
@click.pass_context
def resume(ctx: click.Context, /, webhook_id: str, **_: object) -> None:
    """Go on with deliveries; what had failed is tried at once."""
    with open_client(ctx) as client:
        client.webhooks.resume(webhook_id)
    say(f"webhook {webhook_id} goes on")


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks replay wh_4fk2p6xzab3d --after 1207
  unimeter webhooks replay wh_4fk2p6xzab3d --after 0

A repeated delivery has the id of the first one, so a receiver can drop it.
"""
)
@click.argument("webhook_id", metavar="ID")
@click.option(
    "--after", type=click.IntRange(0), required=True, metavar="POSITION",
    help="The alert behind which to begin.",
)  # fmt: skip
@server_options
@click.pass_context
def replay(ctx: click.Context, /, webhook_id: str, after: int, **_: object) -> None:
    """Deliver alerts once more, from a position on."""
    with open_client(ctx) as client:
        client.webhooks.replay(webhook_id, after)
    say(f"webhook {webhook_id} begins again after alert {after}")


@command.command(
    epilog="""\b
Examples:
  unimeter webhooks delete wh_4fk2p6xzab3d
  unimeter webhooks delete wh_4fk2p6xzab3d --yes
"""
)
@click.argument("webhook_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
@click.pass_context
def delete(ctx: click.Context, /, webhook_id: str, yes: bool, **_: object) -> None:
    """Delete a webhook; nothing is delivered to it any more."""
    if not yes:
        click.confirm(f"Delete webhook {webhook_id}?", abort=True, err=True)
    with open_client(ctx) as client:
        client.webhooks.delete(webhook_id)
    say(f"webhook {webhook_id} is deleted")


def _details(webhook: Webhook) -> dict[str, object]:
    """A webhook and its deliveries as one row."""
    record, delivery = webhook.record, webhook.delivery
    return {
        "id": record.id,
        "url": record.url,
        "accounts": [account_text(account) for account in record.accounts],
        "metrics": list(record.metrics),
        "state": record.state,
        "paused_reason": record.paused_reason,
        "created": format_ns(record.created_ns),
        "start": record.start,
        "through": delivery.through,
        "done_ahead": len(delivery.done),
        "waiting": len(delivery.attempts),
        "failures": delivery.failures,
        "error": delivery.error,
        "updated": format_ns(delivery.updated_ns),
    }
