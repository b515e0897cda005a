"""A client's key and its TLS: what is taken, what is refused, and that the key is shown nowhere."""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from unimeter import TLS, AsyncClient, Client
from unimeter.cli.connection import access_of
from unimeter.client.access import Access, context_of, reason_of
from unimeter.client.core import greeting
from unimeter.errors import ClientError, InvalidInputError
from unimeter.keys import check_portal_token, new_key, record_of
from unimeter.wire.messages import Hello

KEY = new_key(os.urandom)


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_a_key_is_shown_by_no_repr(make: type) -> None:
    client = make(["localhost:7001"], key=KEY)
    secret = KEY.rpartition("_")[2]
    for shown in (client, client._access, client._core, *greeting("1", KEY.encode())):
        assert secret not in repr(shown)
    assert Hello(token=b"secret") != Hello(token=b"other"), "it is there all the same"


@pytest.mark.parametrize(
    "key", ["um_short", "hunter2", 7, KEY + "_more"], ids=["short", "word", "number", "long"]
)
def test_what_is_no_key_is_refused_without_being_repeated(key: Any) -> None:
    with pytest.raises(InvalidInputError) as found:
        Client(["localhost:7001"], key=key)
    assert str(key) not in str(found.value)


def test_no_key_shows_nothing() -> None:
    assert Access(None, None).token == b""
    assert Access(f" {KEY}\n", None).token == KEY.encode()


def test_tls_is_true_a_tls_or_a_context(tmp_path: Path) -> None:
    assert context_of(None) is None and context_of(False) is None
    own = ssl.create_default_context()
    assert context_of(own) is own
    made = context_of(True)
    assert made is not None and made.check_hostname and made.verify_mode is ssl.CERT_REQUIRED
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    unchecked = context_of(TLS(check_hostname=False))
    assert unchecked is not None and unchecked.verify_mode is ssl.CERT_REQUIRED
    wrong: Any = "yes"
    with pytest.raises(InvalidInputError, match="must be True, a TLS"):
        context_of(wrong)
    with pytest.raises(InvalidInputError, match="absent"):
        context_of(TLS(ca=tmp_path / "absent.pem"))


def test_the_reason_of_a_failed_handshake_asks_whether_the_port_speaks_tls() -> None:
    context = ssl.create_default_context()
    assert "speak TLS?" in reason_of(ssl.SSLError(1, "wrong version number"), context)
    assert "speak TLS?" in reason_of(ConnectionResetError(), context)
    assert "speak TLS?" not in reason_of(ConnectionRefusedError("refused"), context)
    assert "speak TLS?" not in reason_of(ConnectionResetError("reset"), None)


# --- portal tokens ------------------------------------------------------------------------


def test_a_portal_token_says_what_it_was_made_for() -> None:
    client = Client(["localhost:7001"], key=KEY)
    record = record_of(KEY, "k", ["read"])
    until = datetime(2030, 1, 1, tzinfo=timezone.utc)
    claims = check_portal_token(client.portal_token("acme", ["calls"], until), record, 0)
    assert (claims.account, claims.metrics) == ("acme", ("calls",))
    assert claims.expires == int(until.timestamp())
    token = AsyncClient(["localhost:7001"], key=KEY).portal_token(7, [], timedelta(hours=1))
    assert check_portal_token(token, record, 0).account == 7
    every = client.portal_token(7, None, timedelta(hours=1))
    assert check_portal_token(every, record, 0).metrics == (), "none named: all of them"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acme", [], datetime(2030, 1, 1)), "time zone"),
        (("acme", [], 3600), "time zone"),
        (("acme", "calls", timedelta(1)), "list of codes"),
        ((True, [], timedelta(1)), "account"),
        ((1.5, [], timedelta(1)), "account"),
        (("acme", ["m"] * 99, timedelta(1)), "at most"),
        (("acme", [], timedelta(seconds=-5)), "past"),
        (("acme", [], datetime(2020, 1, 1, tzinfo=timezone.utc)), "past"),
    ],
)
def test_a_portal_token_for_nothing_sensible_is_refused(
    arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Client(["localhost:7001"], key=KEY).portal_token(*arguments)


def test_a_client_without_a_key_signs_nothing() -> None:
    with pytest.raises(ClientError, match="key="):
        Client(["localhost:7001"]).portal_token("acme", [], timedelta(1))


# --- the command line -----------------------------------------------------------------------


def test_a_verb_takes_its_key_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    environment = {"UNIMETER_KEY": "um_other"}
    assert access_of({}, {}) == {}
    assert access_of({}, environment) == {"key": "um_other"}
    assert access_of({"key_file": str(file)}, environment) == {"key": KEY}
    with pytest.raises(InvalidInputError, match="key-file"):
        access_of({"key_file": str(tmp_path / "absent")}, {})


def test_a_verb_speaks_tls_when_it_is_told_to_or_given_an_authority() -> None:
    assert access_of({"tls": True}, {}) == {"tls": TLS()}
    found = access_of({"tls": False, "tls_ca": "ca.pem", "tls_cert": "c", "tls_key": "k"}, {})
    assert found == {"tls": TLS(ca="ca.pem", cert="c", key="k")}
