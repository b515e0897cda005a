"""A receiver's check of a message: what is good passes, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import AlertRecord, Direction, InvalidInputError
from unimeter.webhooks import VerificationError, sign, signed_headers, verify

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-nine bytes").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of many bytes").decode()
NOW = datetime(2026, 11, 5, 10, 30, tzinfo=timezone.utc)
SECONDS = int(NOW.timestamp())
ID = "alert_0011223344556677_17"
DATA: dict[str, Any] = {
    "position": 17,
    "timestamp": "2026-11-05T10:29:59.123456789Z",
    "account": "acme",
    "metric": "credits",
    "threshold": "low",
    "direction": "falling",
    "value": 950,
    "period_start": "2026-11-01T00:00:00Z",
    "offset": 120,
}


def body_of(**changes: Any) -> bytes:
    found = {"type": "alert.crossed", "timestamp": DATA["timestamp"], "data": DATA | changes}
    return json.dumps(found).encode()


BODY = body_of()
HEADERS = signed_headers(SECRET, ID, SECONDS, BODY)


def test_a_good_message_is_told_as_the_alert_that_it_is() -> None:
    message = verify(BODY, HEADERS, SECRET, now=NOW)
    assert (message.id, message.type, message.sent_at) == (ID, "alert.crossed", NOW)
    assert message.data == DATA
    assert message.alert == AlertRecord(
        "",
        120,
        "acme",
        "credits",
        "low",
        950,
        datetime(2026, 11, 5, 10, 29, 59, 123456, tzinfo=timezone.utc),
        17,
        Direction.FALLING,
        datetime(2026, 11, 1, tzinfo=timezone.utc),
    )


def test_the_signature_is_the_one_that_standard_webhooks_describes() -> None:
    # The example that its specification gives, computed here from its own words.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    ident, stamp, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    right = hmac.new(key, f"{ident}.{stamp}.".encode() + body, hashlib.sha256).digest()
    assert sign(secret, ident, stamp, body) == "v1," + base64.b64encode(right).decode()
    assert sign(secret, ident, stamp, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("names", [str.upper, str.title, str.lower])
def test_headers_are_found_whatever_the_case_of_their_names(names: Any) -> None:
    headers = {names(name): value for name, value in HEADERS.items()}
    assert verify(BODY.decode(), headers, SECRET, now=NOW).id == ID


def test_any_of_several_secrets_and_signatures_will_do() -> None:
    assert verify(BODY, HEADERS, [OTHER, SECRET], now=NOW).id == ID
    both = f"v1a,unknown {sign(OTHER, ID, SECONDS, BODY)} {sign(SECRET, ID, SECONDS, BODY)}"
    assert verify(BODY, HEADERS | {"webhook-signature": both}, SECRET, now=NOW).id == ID
    assert verify(BODY, HEADERS | {"webhook-signature": both}, OTHER, now=NOW).id == ID


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_body_with_one_byte_changed_is_refused(at: int, by: int) -> None:
    changed = bytearray(BODY)
    changed[at] ^= by
    with pytest.raises(VerificationError, match="signature is wrong"):
        verify(bytes(changed), HEADERS, SECRET, now=NOW)


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("webhook-id", "alert_0011223344556677_18", "signature is wrong"),
        ("webhook-timestamp", str(SECONDS + 1), "signature is wrong"),
        ("webhook-signature", sign(OTHER, ID, SECONDS, BODY), "signature is wrong"),
        ("webhook-signature", "v1,", "no v1 signature"),
        ("webhook-signature", "v2,abc", "no v1 signature"),
        ("webhook-id", "", "webhook-id is missing"),
        ("webhook-timestamp", "\udcff", "webhook-timestamp is missing"),
    ],
)
def test_a_header_that_was_changed_is_refused(header: str, value: str, said: str) -> None:
    with pytest.raises(VerificationError, match=said):
        verify(BODY, HEADERS | {header: value}, SECRET, now=NOW)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_missing_is_named(name: str) -> None:
    left = {key: value for key, value in HEADERS.items() if key != name}
    with pytest.raises(VerificationError, match=name):
        verify(BODY, left, SECRET, now=NOW)


def test_a_message_of_another_time_is_refused_unless_any_age_will_do() -> None:
    for later in (timedelta(minutes=6), timedelta(minutes=-6)):
        with pytest.raises(VerificationError, match="360 s"):
            verify(BODY, HEADERS, SECRET, now=NOW + later)
        assert verify(BODY, HEADERS, SECRET, now=NOW + later, tolerance=None).id == ID
        assert verify(BODY, HEADERS, SECRET, now=NOW + later, tolerance=timedelta(hours=1))
    with pytest.raises(VerificationError, match="no Unix seconds"):
        headers = HEADERS | {"webhook-timestamp": "soon"}
        headers["webhook-signature"] = _signed_text("soon")
        verify(BODY, headers, SECRET, now=NOW)


def _signed_text(stamp: str) -> str:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{ID}.{stamp}.".encode() + BODY, "sha256")
    return "v1," + base64.b64encode(digest).decode()


def test_the_clock_is_this_process_own_where_none_is_given() -> None:
    seconds = int(datetime.now(timezone.utc).timestamp())
    assert verify(BODY, signed_headers(SECRET, ID, seconds, BODY), SECRET).id == ID
    with pytest.raises(VerificationError, match="ago"):
        verify(BODY, signed_headers(SECRET, ID, seconds - 400, BODY), SECRET)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"type": 1}', b"[" * 100_000])
def test_a_signed_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(VerificationError, match="none of ours"):
        verify(body, signed_headers(SECRET, ID, SECONDS, body), SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", [], [SECRET, "whsec_"]])
def test_a_secret_that_is_none_is_the_programmer_s_mistake(secret: Any) -> None:
    with pytest.raises(InvalidInputError, match="secret"):
        verify(BODY, HEADERS, secret, now=NOW)


@pytest.mark.parametrize(
    ("account", "found"),
    [(42, 42), ("42", "42"), (str(2**63), 2**63), ("0" * 20, "0" * 20), (str(2**70), str(2**70))],
)
def test_an_account_beyond_what_floats_hold_is_an_integer_again(account: Any, found: Any) -> None:
    body = body_of(account=account, value=str(2**60))
    message = verify(body, signed_headers(SECRET, ID, SECONDS, body), SECRET, now=NOW)
    assert message.alert.account_id == found and type(message.alert.account_id) is type(found)
    assert message.alert.value_at_cross == 2**60


def test_a_message_of_another_kind_tells_of_no_alert() -> None:
    body = json.dumps({"type": "webhook.test", "timestamp": "2026-11-05T10:30:00Z", "data": {}})
    headers = signed_headers(SECRET, "test_1", SECONDS, body.encode())
    message = verify(body, headers, SECRET, now=NOW)
    assert message.type == "webhook.test"
    with pytest.raises(InvalidInputError, match="no alert"):
        _ = message.alert
