"""Keys, webhooks and the trail: from a method's arguments to a request.

Owns what the blocking, the asyncio and the embedded client do alike here, like `questions` for
everything else. A new key and a new webhook's secret are made in the caller's process: the node
gets a key's two hashes, and whoever reads the log or the state can't log in with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from unimeter import limits
from unimeter.canonical import line
from unimeter.client.checks import check_account, check_metric_code
from unimeter.client.questions import count_of
from unimeter.control import WebhookRecord, new_webhook
from unimeter.errors import InvalidInputError
from unimeter.keys import KeyRecord, Scope, new_key, record_of
from unimeter.types import Account
from unimeter.wire.messages import (
    AuditList,
    KeyRevoke,
    WebhookAction,
    WebhookControl,
    WebhookDelete,
)

Entropy = Callable[[int], bytes]


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: `key` is the secret, told here and nowhere again."""

    key: str = field(repr=False)
    record: KeyRecord


def key(
    entropy: Entropy,
    name: str,
    scopes: Iterable[Scope | str],
    account: Account | None,
    metric: str | None,
) -> NewKey:
    """A new key and the record that a node is to keep."""
    if not isinstance(name, str) or name != line(name, limits.KEY_NAME_CHARACTERS_MAX):
        raise InvalidInputError(
            f"a key's name is one line of 1 to {limits.KEY_NAME_CHARACTERS_MAX} characters"
        )
    if isinstance(scopes, str):
        scopes = [scopes]
    if account is not None:
        check_account(account, "account")
    if metric is not None:
        check_metric_code(metric)
    made = new_key(entropy)
    return NewKey(made, record_of(made, name, scopes, account, metric))


def key_revoke(ident: str) -> KeyRevoke:
    """The request that revokes a key."""
    return KeyRevoke(_ident(ident, "a key's id"))


def webhook(
    entropy: Entropy,
    url: str,
    accounts: Iterable[Account],
    metrics: Iterable[str],
    secret: str | None,
    after: int | None,
) -> WebhookRecord:
    """The record of a new webhook."""
    if not isinstance(url, str):
        raise InvalidInputError(f"url must be a str, not {type(url).__name__}")
    if secret is not None and not isinstance(secret, str):
        raise InvalidInputError(f"secret must be a str, not {type(secret).__name__}")
    for what, given in (("accounts", accounts), ("metrics", metrics)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InvalidInputError(f"{what} must be a list, not {given!r}")
    return new_webhook(
        entropy,
        url,
        [check_account(account, "account") for account in accounts],
        [check_metric_code(metric) for metric in metrics],
        secret,
        None if after is None else count_of(after, "after"),
    )


def webhook_delete(ident: str) -> WebhookDelete:
    """The request that deletes a webhook."""
    return WebhookDelete(_ident(ident, "a webhook's id"))


def control(ident: str, action: WebhookAction, after: int = 0, reason: str = "") -> WebhookControl:
    """The request that pauses, resumes or replays a webhook."""
    if not isinstance(reason, str) or reason != line(reason, limits.WEBHOOK_REASON_CHARACTERS_MAX):
        raise InvalidInputError(
            f"reason is one line of at most {limits.WEBHOOK_REASON_CHARACTERS_MAX} characters"
        )
    return WebhookControl(_ident(ident, "a webhook's id"), action, count_of(after, "after"), reason)


def audit(limit: int, before: int, linearizable: bool) -> AuditList:
    """The request for a page of the trail."""
    if (
        isinstance(limit, bool)
        or not isinstance(limit, int)
        or (not 1 <= limit <= limits.AUDIT_RECORDS_MAX)
    ):
        raise InvalidInputError(
            f"limit must be an int from 1 to {limits.AUDIT_RECORDS_MAX}, not {limit!r}"
        )
    return AuditList(count_of(before, "before"), limit, linearizable=linearizable)


def _ident(ident: str, what: str) -> str:
    if not isinstance(ident, str) or not ident or ident != line(ident, 64):
        raise InvalidInputError(f"{what} must be a str such as `list` shows")
    return ident
