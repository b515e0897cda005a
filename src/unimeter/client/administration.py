"""The methods of `client.keys` and `client.webhooks`, blocking.

What a team's administrators make: who may come in, and where alerts go. Reached through a
client, like `client.metrics`; `async_administration` mirrors this file word for word, with `await`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from unimeter.client import admin_questions
from unimeter.client.admin_questions import NewKey
from unimeter.control import Webhook
from unimeter.keys import KeyRecord, Scope
from unimeter.types import Account
from unimeter.wire.messages import (
    Done,
    KeyList,
    KeyListReply,
    KeyPut,
    WebhookAction,
    WebhookList,
    WebhookListReply,
    WebhookPut,
    WebhookPutReply,
)

if TYPE_CHECKING:
    from unimeter.client.surface import Surface


class Keys:
    """Make, list and revoke API keys. Reached as ``client.keys``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def create(
        self,
        name: str,
        scopes: Iterable[Scope | str],
        *,
        account: Account | None = None,
        metric: str | None = None,
        timeout: float | None = None,
    ) -> NewKey:
        """Make a key; `key` of what is returned is shown this once and kept nowhere.

        `scopes` are of "ingest", "read" and "admin"; `account`, `metric`: all that it may
        touch. From the first key on, which must have the scope admin, nobody comes in
        without one.
        """
        made = admin_questions.key(self._surface._entropy, name, scopes, account, metric)
        self._surface._get(KeyPut(made.record), Done, 0, timeout)
        return made

    def list(self, *, linearizable: bool = False, timeout: float | None = None) -> list[KeyRecord]:
        """Return every key's record, revoked ones too, in the order of creation."""
        request = KeyList(linearizable=linearizable)
        return self._surface._get(request, KeyListReply, 0, timeout)[0].keys

    def revoke(self, key_id: str, *, timeout: float | None = None) -> None:
        """Let a key open nothing any more; the last one with the scope admin has to stay."""
        self._surface._get(admin_questions.key_revoke(key_id), Done, 0, timeout)


class Webhooks:
    """Have alerts delivered to URLs. Reached as ``client.webhooks``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def create(
        self,
        url: str,
        *,
        accounts: Iterable[Account] = (),
        metrics: Iterable[str] = (),
        secret: str | None = None,
        after: int | None = None,
        timeout: float | None = None,
    ) -> Webhook:
        """Deliver alerts to `url`; `secret` of what is returned is shown this once.

        `accounts`, `metrics`: only theirs; `after`: from behind this position of an alert
        on, instead of from now on.
        """
        record = admin_questions.webhook(
            self._surface._entropy, url, accounts, metrics, secret, after
        )
        answer = self._surface._get(WebhookPut(record), WebhookPutReply, 0, timeout)
        return answer[0].webhook

    def list(self, *, linearizable: bool = False, timeout: float | None = None) -> list[Webhook]:
        """Return every webhook and how far it has come, without its secret."""
        request = WebhookList(linearizable=linearizable)
        return self._surface._get(request, WebhookListReply, 0, timeout)[0].webhooks

    def delete(self, webhook_id: str, *, timeout: float | None = None) -> None:
        """Delete a webhook: nothing is delivered to it any more."""
        request = admin_questions.webhook_delete(webhook_id)
        self._surface._get(request, Done, 0, timeout)

    def pause(self, webhook_id: str, reason: str = "", *, timeout: float | None = None) -> None:
        """Hold deliveries back until `resume`; none is lost."""
        self._control(webhook_id, WebhookAction.PAUSE, 0, reason, timeout)

    def resume(self, webhook_id: str, *, timeout: float | None = None) -> None:
        """Go on where deliveries were held back; what had failed is tried at once."""
        self._control(webhook_id, WebhookAction.RESUME, 0, "", timeout)

    def replay(self, webhook_id: str, after: int, *, timeout: float | None = None) -> None:
        """Deliver all alerts behind the position `after` once more, with their old ids."""
        self._control(webhook_id, WebhookAction.REPLAY, after, "", timeout)

    def _control(
        self,
        webhook_id: str,
        action: WebhookAction,
        after: int,
        reason: str,
        timeout: float | None,
    ) -> None:
        request = admin_questions.control(webhook_id, action, after, reason)
        self._surface._get(request, Done, 0, timeout)
