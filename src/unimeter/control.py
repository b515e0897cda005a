"""What administrators make beside metrics and keys: webhooks, and the trail of who did what.

Owns the nouns that the engine keeps, the wire carries and the SDK gives out:

    Actor          who asked for a change, and from where
    AuditRecord    one line of the trail: a change, or an attempt that was refused
    WebhookRecord  where alerts go, which ones, and the secret that signs them
    Delivery       how far one webhook has come
    Webhook        the two together, as a list shows them

and the making of a new webhook from random bytes. Secrets are left out of every `repr`, so
that a traceback or a log line that holds one of these says nothing.

Refuses to decide what may be done: the engine does, when it applies the change.

Rejected: an actor as free text. Who looks for a key's doings searches for its id, which is never
used twice, and not for its name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from unimeter import limits
from unimeter.accounts import EXACT_MAX
from unimeter.errors import InvalidInputError
from unimeter.instants import format_ns
from unimeter.types import Account

WEBHOOK_PREFIX: Final = "wh"
POSITION_MAX: Final = EXACT_MAX  # of an alert
SECRET_PREFIX: Final = "whsec_"  # the Standard Webhooks' own
SECRET_BYTES: Final = 32
SECRET_BYTES_MIN: Final = 16
SECRET_BYTES_MAX: Final = 64
ACTIVE: Final = "active"
PAUSED: Final = "paused"
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID: Final = re.compile(r"wh_[a-z2-7]{12}")
_SECRET: Final = re.compile(SECRET_PREFIX + r"([A-Za-z0-9+/]+)(={0,2})")
_URL: Final = re.compile(r"https?://[^\s/?#@\\\x00-\x20\x7f]+([/?#][^\s\x00-\x20\x7f]*)?")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked for a change: a key's id and name, by which way, from which address."""

    key: str = ""  # empty: nobody showed a key
    name: str = ""
    via: str = ""  # "binary", "http", "embedded", "node" (the cluster itself); empty: not known
    address: str = ""


FROM_OUTSIDE: Final = ("binary", "http")  # ways in for which a key is asked once there is one

UNKNOWN: Final = Actor()
"""Whoever made a change that says nothing of who made it."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the trail. `result` is "done", or why it was refused."""

    index: int  # in the log; the trail's order, and a page's place
    timestamp_ns: int
    actor: Actor
    action: str  # "key.put", "key.revoke", "webhook.put", "metric.delete", ...
    target: str  # the id or code of what was changed
    result: str

    @property
    def is_refused(self) -> bool:
        """Whether it changed nothing."""
        return self.result != DONE

    def cells(self) -> tuple[object, ...]:
        """The line as a row: what stands in each of AUDIT_COLUMNS."""
        actor = self.actor
        return (
            self.index,
            format_ns(self.timestamp_ns),
            actor.key,
            actor.name,
            actor.via,
            actor.address,
            self.action,
            self.target,
            self.result,
        )


AUDIT_COLUMNS: Final = (
    "index", "time", "key", "name", "via", "address", "action", "target", "result",
)  # fmt: skip

DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """Where alerts go. No accounts or no metrics = those of all."""

    id: str
    url: str
    secret: str = field(default="", repr=False)  # whsec_ and base64; empty where it is not shown
    accounts: tuple[Account, ...] = ()
    metrics: tuple[str, ...] = ()
    start: int | None = None  # alerts above this position; None = those from now on
    created_ns: int = 0  # the log's clock
    state: str = ACTIVE
    paused_reason: str = ""

    @property
    def is_active(self) -> bool:
        """Whether alerts are being sent."""
        return self.state == ACTIVE

    def wants(self, account: Account, metric: str) -> bool:
        """Whether an alert of this account and metric is for it."""
        if self.metrics and metric not in self.metrics:
            return False
        return not self.accounts or any(
            type(one) is type(account) and one == account for one in self.accounts
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far one webhook has come, in positions of alerts.

    `epoch` counts its replays: progress that was made before the last one is void.
    """

    through: int = 0  # this one and all before it are done, or not wanted
    done: tuple[int, ...] = ()  # done above `through`, ascending
    attempts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of those that failed and are tried again: (how often, when next in ns)."""
    failures: int = 0  # in a row, of all positions together
    error: str = ""  # of the last failure
    epoch: int = 0
    updated_ns: int = 0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook and how far it has come."""

    record: WebhookRecord
    delivery: Delivery = field(default_factory=Delivery)

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def secret(self) -> str:
        """What signs its deliveries; only `create` shows it."""
        return self.record.secret


def new_webhook(
    entropy: Callable[[int], bytes],
    url: str,
    accounts: Iterable[Account] = (),
    metrics: Iterable[str] = (),
    secret: str | None = None,
    after: int | None = None,
) -> WebhookRecord:
    """A webhook with a new id, and a new secret unless one is given."""
    number = int.from_bytes(entropy(8), "big")
    ident = "".join(_ALPHABET[number >> 5 * at & 31] for at in range(12))
    if secret is None:
        secret = SECRET_PREFIX + base64.b64encode(entropy(SECRET_BYTES)).decode()
    record = WebhookRecord(
        f"{WEBHOOK_PREFIX}_{ident}", url, secret, tuple(accounts), tuple(metrics), after
    )
    check_webhook(record)
    return record


def check_webhook(record: WebhookRecord) -> None:
    """Raise InvalidInputError for a webhook that no node would take."""
    complaint = webhook_complaint(record)
    if complaint:
        raise InvalidInputError(complaint)


def webhook_complaint(record: WebhookRecord) -> str:
    """What is wrong with a new webhook, in words; empty if nothing is.

    The engine asks too, on every replica: the answer must not depend on the host.
    """
    if not _ID.fullmatch(record.id):
        return "a webhook's id is wh_ and 12 characters of a-z and 2-7"
    if len(record.url) > limits.WEBHOOK_URL_BYTES_MAX:
        return f"a webhook's URL may have {limits.WEBHOOK_URL_BYTES_MAX} bytes"
    if not record.url.isascii() or not _URL.fullmatch(record.url):
        return "a webhook's URL begins with https:// or http://, names a host and no user"
    if not _is_secret(record.secret):
        return (
            f"a webhook's secret is {SECRET_PREFIX} and base64 of "
            f"{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
        )
    for what, names in (("accounts", record.accounts), ("metrics", record.metrics)):
        if len(names) > limits.WEBHOOK_FILTERS_MAX:
            return f"a webhook names at most {limits.WEBHOOK_FILTERS_MAX} {what}"
    return _filter_complaint(record)


def _filter_complaint(record: WebhookRecord) -> str:
    for account in record.accounts:
        if isinstance(account, str):
            if not 1 <= size_of(account) <= limits.ACCOUNT_BYTES_MAX:
                return f"an account has 1 to {limits.ACCOUNT_BYTES_MAX} bytes"
        elif not 0 <= account < 2**64:
            return "an account that is a number fits 64 bits, unsigned"
    for metric in record.metrics:
        if not 1 <= size_of(metric) <= limits.METRIC_CODE_BYTES_MAX:
            return f"a metric's code has 1 to {limits.METRIC_CODE_BYTES_MAX} bytes"
    if record.start is not None and not 0 <= record.start <= POSITION_MAX:
        return "a webhook starts after an alert's position, which is 0 or more"
    return ""


def size_of(text: str) -> int:
    """The bytes of a text in UTF-8; 0 if it has none, which is never allowed either."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def _is_secret(secret: str) -> bool:
    """Whether it is whsec_ and base64 in full, by a rule that no library's release can change."""
    found = _SECRET.fullmatch(secret)
    if found is None or len(found[1] + found[2]) % 4:
        return False
    size = len(found[1]) * 3 // 4
    return SECRET_BYTES_MIN <= size <= SECRET_BYTES_MAX
