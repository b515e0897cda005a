"""Webhooks: how a message is signed, and how a receiver checks that it is one of ours.

    from unimeter.webhooks import VerificationError, verify

    message = verify(request.body, request.headers, "whsec_...")
    if message.id not in handled:          # the same id for ever, however often it comes
        handle(message.alert)
        handled.add(message.id)

A message is signed as Standard Webhooks says, so that any of its libraries can check it too:

    webhook-id: alert_4fk2p9x0ab3d0c11_17
    webhook-timestamp: 1795689000                      when this attempt was made
    webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>

Owns the signature, both ways: the server signs with `sign`. Refuses to say anything about a
message before its signature is good, and compares in constant time. The body must be given as it
came: parsed and written again it has another signature.

Rejected: a signature of the body alone. Whoever once saw a message could send it for ever.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from unimeter.accounts import account_of_json
from unimeter.control import SECRET_PREFIX
from unimeter.errors import ClientError, InvalidInputError
from unimeter.instants import parse_ns
from unimeter.types import AlertRecord, Direction, from_ns

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
VERSION: Final = "v1"
TOLERANCE: Final = timedelta(minutes=5)
ALERT_TYPE: Final = "alert.crossed"
TEST_TYPE: Final = "webhook.test"
_SIGNATURES_MAX: Final = 16  # in one header; a rotation has two
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class VerificationError(ClientError):
    """A message that is not from us, or is too old: answer it with 400 and do nothing."""


@dataclass(frozen=True)
class Message:
    """A message whose signature is good."""

    id: str
    """The same for every attempt, replay and webhook: what a receiver drops repeats by."""
    type: str
    timestamp: datetime  # when it happened
    sent_at: datetime  # when this attempt was made
    data: dict[str, Any] = field(repr=False)

    @property
    def alert(self) -> AlertRecord:
        """The alert that it tells of; InvalidInputError if it tells of something else."""
        if self.type != ALERT_TYPE:
            raise InvalidInputError(f"a message of the type {self.type!r} tells of no alert")
        data = self.data
        return AlertRecord(
            node_addr="",
            log_offset=int(data["offset"]),
            account_id=account_of_json(data["account"]),
            metric_code=data["metric"],
            threshold_code=data["threshold"],
            value_at_cross=int(data["value"]),
            triggered_at=from_ns(parse_ns(data["timestamp"])),
            position=int(data["position"]),
            direction=Direction[data["direction"].upper()],
            period_start=from_ns(parse_ns(data["period_start"])),
        )


def verify(
    payload: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance: timedelta | None = TOLERANCE,
    now: datetime | None = None,
) -> Message:
    """Check a message that a webhook received and return what it says.

    `payload` is the body as it came; `headers` are found whatever the case of their names.
    Several secrets are given while one replaces another: any of them will do. A message
    signed longer ago than `tolerance` (or later than so far in the future) is refused; None
    takes any age. Raises VerificationError for a message that is not good, and
    InvalidInputError for a secret that is none.
    """
    keys = [_key_of(one) for one in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise InvalidInputError("give at least one secret, as it was shown with the webhook")
    body = payload.encode() if isinstance(payload, str) else bytes(payload)
    found = {name.lower(): value for name, value in headers.items()}
    ident, stamp, signatures = (_header(found, name) for name in _HEADERS)
    _check_signature(keys, ident, stamp, body, signatures)
    sent_at = _sent_at(stamp)
    if tolerance is not None:
        _check_age(sent_at, now or datetime.now(timezone.utc), tolerance)
    return _message(ident, sent_at, body)


def sign(secret: str, ident: str, timestamp: int, body: bytes) -> str:
    """What the signature header says of a message; `timestamp` in Unix seconds."""
    return f"{VERSION},{_signature(_key_of(secret), ident, str(timestamp), body)}"


def signed_headers(secret: str, ident: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message."""
    return {
        ID_HEADER: ident,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: sign(secret, ident, timestamp, body),
    }


_HEADERS: Final = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise InvalidInputError(f"a webhook's secret is {SECRET_PREFIX} and base64")
    return key


def _signature(key: bytes, ident: str, stamp: str, body: bytes) -> str:
    signed = b".".join((ident.encode(), stamp.encode(), body))
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def _header(found: Mapping[str, str], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str) or not value or not value.isascii():
        raise VerificationError(f"the header {name} is missing: this is no signed message")
    return value


def _check_signature(
    keys: list[bytes], ident: str, stamp: str, body: bytes, signatures: str
) -> None:
    """Compare every secret with every signature, whichever fits first."""
    given = []
    for one in signatures.split(" ")[:_SIGNATURES_MAX]:
        version, _, signature = one.partition(",")
        if version == VERSION and signature:
            given.append(signature.encode())
    if not given:
        raise VerificationError(f"the header {SIGNATURE_HEADER} holds no {VERSION} signature")
    is_good = False
    for key in keys:
        right = _signature(key, ident, stamp, body).encode()
        for signature_bytes in given:
            is_good |= hmac.compare_digest(right, signature_bytes)
    if not is_good:
        raise VerificationError(
            "the signature is wrong: another secret, or a body that is not as it came"
        )


def _sent_at(stamp: str) -> datetime:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 11):
        raise VerificationError(f"the header {TIMESTAMP_HEADER} holds no Unix seconds")
    return _EPOCH + timedelta(seconds=int(stamp))


def _check_age(sent_at: datetime, now: datetime, tolerance: timedelta) -> None:
    age = now - sent_at
    if abs(age) > tolerance:
        seconds = abs(age).total_seconds()
        when = "ago" if age > timedelta(0) else "in the future"
        raise VerificationError(
            f"it was signed {seconds:.0f} s {when}, more than {tolerance.total_seconds():.0f} s: "
            "an old message sent again, or a clock that is wrong"
        )


def _message(ident: str, sent_at: datetime, body: bytes) -> Message:
    try:
        found = json.loads(body)
        happened = from_ns(parse_ns(found["timestamp"]))
        kind, data = found["type"], found["data"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = f"the signature is good and the body is none of ours: {type(error).__name__}"
        raise VerificationError(text) from None
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise VerificationError("the signature is good and the body is none of ours")
    return Message(ident, kind, happened, sent_at, data)
