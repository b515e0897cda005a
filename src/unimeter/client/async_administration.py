"""The methods of `client.keys` and `client.webhooks`, for asyncio.

What a team's administrators make: who may come in, and where alerts go. Reached through a
client, like `client.metrics`; `administration` mirrors this file word for word, without `await`.
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
    from unimeter.client.async_surface import AsyncSurface


class AsyncKeys:
    """Make, list and revoke API keys. Reached as ``client.keys``."""

    def __init__(self, surface: AsyncSurface) -> None:
        self._surface = surface

    async def create(
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
        await self._surface._get(KeyPut(made.record), Done, 0, timeout)
        return made

    async def list(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> list[KeyRecord]:
        """Return every key's record, revoked ones too, in the order of creation."""
        request = KeyList(linearizable=linearizable)
        return (await self._surface._get(request, KeyListReply, 0, timeout))[0].keys

    async def revoke(self, key_id: str, *, timeout: float | None = None) -> None:
        """Let a key open nothing any more; the last one with the scope admin has to stay."""
        await self._surface._get(admin_questions.key_revoke(key_id), Done, 0, timeout)


class AsyncWebhooks:
    """Have alerts delivered to URLs. Reached as ``client.webhooks``."""

    def __init__(self, surface: AsyncSurface) -> None:
        self._surface = surface

    async def create(
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
        answer = await self._surface._get(WebhookPut(record), WebhookPutReply, 0, timeout)
        return answer[0].webhook

    async def list(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> list[Webhook]:
        """Return every webhook and how far it has come, without its secret."""
        request = WebhookList(linearizable=linearizable)
        return (await self._surface._get(request, WebhookListReply, 0, timeout))[0].webhooks

    async def delete(self, webhook_id: str, *, timeout: float | None = None) -> None:
        """Delete a webhook: nothing is delivered to it any more."""
        request = admin_questions.webhook_delete(webhook_id)
        await self._surface._get(request, Done, 0, timeout)

    async def pause(
        self, webhook_id: str, reason: str = "", *, timeout: float | None = None
    ) -> None:
        """Hold deliveries back until `resume`; none is lost."""
        await self._control(webhook_id, WebhookAction.PAUSE, 0, reason, timeout)

    async def resume(self, webhook_id: str, *, timeout: float | None = None) -> None:
        """Go on where deliveries were held back; what had failed is tried at once."""
        await self._control(webhook_id, WebhookAction.RESUME, 0, "", timeout)

    async def replay(self, webhook_id: str, after: int, *, timeout: float | None = None) -> None:
        """Deliver all alerts behind the position `after` once more, with their old ids."""
        await self._control(webhook_id, WebhookAction.REPLAY, after, "", timeout)

    async def _control(
        self,
        webhook_id: str,
        action: WebhookAction,
        after: int,
        reason: str,
        timeout: float | None,
    ) -> None:
        request = admin_questions.control(webhook_id, action, after, reason)
        await self._surface._get(request, Done, 0, timeout)
