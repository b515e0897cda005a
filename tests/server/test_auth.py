"""Login: which token lets whom in, on a node that is sure of its keys and on one that is not."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.errors import (
    BackpressureError,
    ForbiddenError,
    InvalidInputError,
    UnauthenticatedError,
    UnimeterError,
)
from unimeter.keys import (
    ANYBODY,
    NOBODY,
    KeyRecord,
    Scope,
    new_key,
    portal_secret_of,
    record_of,
    sign_portal_token,
    without_tokens,
)
from unimeter.keys import _signed as signed
from unimeter.server.auth import SESSION_SECONDS, Auth, check_bind, is_loopback
from unimeter.server.config import Config
from unimeter.server.platform import Platform

NOW = 1_800_000_000


class StillPlatform(Platform):
    """A machine whose clock is set by hand."""

    def __init__(self) -> None:
        self.seconds = NOW

    def time_ns(self) -> int:  # type: ignore[override]
        return self.seconds * 10**9


class FakeReads:
    """The line of reads: who stands in it is called by hand."""

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[], Any], Callable[[], Any]]] = []

    def after_quorum(self, run: Callable[[], Any], late: Callable[[], Any]) -> None:
        self.asked.append((run, late))


class FakeNode:
    """As much of a node as a login looks at."""

    def __init__(self, *records: KeyRecord, is_alone: bool = True) -> None:
        keys = {record.id: record for record in records}
        self.machine = SimpleNamespace(administration=SimpleNamespace(keys=keys, generation=0))
        self.reads = FakeReads()
        self.is_alone = is_alone
        self.lead = 1

    def request_turn(self) -> None:
        """Nothing turns."""


def auth_of(
    *records: KeyRecord, is_alone: bool = True, secret: bytes = b"", **options: Any
) -> Auth:
    node: Any = FakeNode(*records, is_alone=is_alone)
    return Auth(node, StillPlatform(), Config(**options), secret=secret)


KEY = new_key(os.urandom)
OTHER = new_key(os.urandom)
ADMIN = record_of(KEY, "root", [Scope.ADMIN])
READER = record_of(OTHER, "reader", [Scope.READ], account="acme", metric="calls")
REVOKED = KeyRecord(
    ADMIN.id, "root", ADMIN.scopes, ADMIN.verifier, ADMIN.portal_secret, revoked_ns=1
)


# --- who is let in -----------------------------------------------------------------------


def test_without_any_key_everybody_is_let_in_whatever_they_show() -> None:
    auth = auth_of()
    assert auth.anybody() is ANYBODY
    assert auth.login("nonsense") is ANYBODY


def test_with_a_key_nobody_is_let_in_without_one() -> None:
    auth = auth_of(ADMIN)
    with pytest.raises(UnauthenticatedError, match="asks for a key"):
        auth.anybody()
    assert auth.login(KEY).has(Scope.ADMIN)


def test_a_revoked_key_alone_does_not_open_the_node_again() -> None:
    auth = auth_of(REVOKED)
    with pytest.raises(UnauthenticatedError, match="asks for a key"):
        auth.anybody()
    with pytest.raises(UnauthenticatedError, match="revoked"):
        auth.login(KEY)


@pytest.mark.parametrize("change", [lambda k: k[:-1], lambda k: k + "a", lambda k: k.upper()])
def test_a_key_that_differs_in_one_character_is_not_known(change: Callable[[str], str]) -> None:
    with pytest.raises(UnauthenticatedError):
        auth_of(ADMIN).login(change(KEY))


def test_an_unknown_id_is_refused_with_the_words_of_a_wrong_secret() -> None:
    auth = auth_of(ADMIN)
    head, _, _ = KEY.rpartition("_")
    wrong = []
    for token in (f"{head}_{'a' * 52}", OTHER):
        with pytest.raises(UnauthenticatedError) as found:
            auth.login(token)
        wrong.append(str(found.value))
    assert wrong[0] == wrong[1], "who guesses ids learns nothing"
    assert auth.logins_refused == 2


def test_portal_tokens_do_not_tell_which_ids_there_are() -> None:
    good = sign_portal_token(KEY, "acme", [], NOW + 60)
    tokens = {
        "another signature": good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        "an unknown id": sign_portal_token(OTHER, "acme", [], NOW + 60),
        "signed with nothing": signed(bytes(32), "a" * 12, {"a": "acme", "m": [], "e": NOW + 60}),
    }
    auth, said = auth_of(ADMIN), set()
    for token in tokens.values():
        with pytest.raises(UnauthenticatedError) as found:
            auth.login(token)
        said.add(str(found.value))
    assert said == {"no key that is known here signed this portal token"}
    assert auth.login(good).account == "acme"


def test_a_key_comes_with_its_limits() -> None:
    principal = auth_of(ADMIN, READER).login(OTHER)
    assert principal.account == "acme" and principal.metrics == {"calls"}
    assert not principal.has(Scope.INGEST)


# --- a member of a cluster ---------------------------------------------------------------


def test_a_member_that_knows_no_key_lets_nobody_in_before_a_quorum_says_there_is_none() -> None:
    auth = auth_of(is_alone=False)
    with pytest.raises(BackpressureError):
        auth.anybody()
    with pytest.raises(BackpressureError):
        auth.login(KEY)
    reads: Any = auth.node.reads
    assert len(reads.asked) == 1, "asked once, however many come"
    reads.asked[0][0]()
    assert auth.anybody() is ANYBODY


def test_a_question_without_an_answer_is_asked_again() -> None:
    auth = auth_of(is_alone=False)
    reads: Any = auth.node.reads
    assert not auth.is_open
    reads.asked.pop()[1]()
    assert not auth.is_open
    assert len(reads.asked) == 1


def test_a_member_that_may_not_know_a_key_yet_asks_its_owner_to_wait() -> None:
    auth = auth_of(ADMIN, is_alone=False)
    with pytest.raises(BackpressureError):
        auth.login(OTHER)
    assert auth.login(KEY).key_id == ADMIN.id
    reads: Any = auth.node.reads
    reads.asked[0][0]()
    with pytest.raises(UnauthenticatedError):
        auth.login(OTHER)


# --- the key in a file -------------------------------------------------------------------


def test_a_key_in_a_file_counts_as_a_key_and_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    auth = auth_of(admin_key_file=str(file))
    said: list[str] = []
    auth.say = said.append
    assert not auth.is_open and auth.login(KEY).has(Scope.ADMIN)
    before = auth.generation
    principal = auth.login(KEY)
    file.write_text(OTHER)
    auth.reload()
    assert auth.generation != before and not auth.is_good(principal)
    assert auth.login(OTHER).has(Scope.ADMIN)
    file.write_text("rubbish")
    auth.reload()
    auth.reload()
    assert auth.login(OTHER).has(Scope.ADMIN), "a file that is no good changes nothing"
    assert len(said) == 2, "said once: the next look is a second later"
    assert "rubbish" not in " ".join(said) and OTHER not in " ".join(said)


def test_a_file_without_a_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2-" + KEY[3:])
    with pytest.raises(InvalidInputError, match="holds no key") as found:
        auth_of(admin_key_file=str(file))
    assert "hunter2" not in str(found.value)
    with pytest.raises(InvalidInputError, match="No such file"):
        auth_of(admin_key_file=str(tmp_path / "absent"))


@pytest.mark.parametrize("secret", ["x", "a" * 51, "a" * 53, "A" * 52, "1" * 52])
def test_a_key_that_somebody_could_guess_is_none(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "key"
    file.write_text(KEY[:16] + secret)
    with pytest.raises(InvalidInputError, match="holds no key"):
        auth_of(admin_key_file=str(file))
    with pytest.raises(InvalidInputError, match="52 random characters"):
        record_of(KEY[:16] + secret, "root", [Scope.ADMIN])


def test_a_key_file_is_never_waited_for_and_belongs_to_no_stranger(tmp_path: Path) -> None:
    file, pipe = tmp_path / "key", tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (str(pipe), "/dev/zero", "/dev/null"):
        with pytest.raises(InvalidInputError, match="no regular file"):
            auth_of(admin_key_file=place)
    with pytest.raises(InvalidInputError, match=r"irectory|regular"):
        auth_of(admin_key_file=str(tmp_path))
    file.write_text(KEY)
    file.chmod(0o646)
    with pytest.raises(InvalidInputError, match="every user"):
        auth_of(admin_key_file=str(file))
    file.chmod(0o640)
    assert auth_of(admin_key_file=str(file)).login(KEY).has(Scope.ADMIN)


def test_a_key_in_a_text_to_be_written_down_is_taken_out() -> None:
    portal = sign_portal_token(KEY, "acme", [], NOW)
    for token in (KEY, portal, "ums_" + KEY[3:] + ".9.AA-_"):
        found = without_tokens(f"/v1/keys/{token}/x")
        assert found == f"/v1/keys/{token.partition('_')[0]}_.../x"
    assert without_tokens("/v1/metrics/album_sales") == "/v1/metrics/album_sales"


# --- sessions of browsers ------------------------------------------------------------------


def test_a_session_stands_for_its_key_until_it_expires() -> None:
    auth = auth_of(ADMIN)
    token, expires = auth.new_session(auth.login(KEY))
    assert expires == NOW + SESSION_SECONDS
    assert auth.login(token).scopes == {Scope.ADMIN}
    assert KEY.rpartition("_")[2] not in token
    auth.platform.seconds = expires  # type: ignore[attr-defined]
    with pytest.raises(UnauthenticatedError, match="expired"):
        auth.login(token)


def test_a_session_dies_with_its_key() -> None:
    auth = auth_of(ADMIN)
    token, _ = auth.new_session(auth.login(KEY))
    principal = auth.login(token)
    auth.node.machine.administration.keys[ADMIN.id] = REVOKED
    assert not auth.is_good(principal)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        auth.login(token)


def test_a_session_is_signed_with_more_than_the_log_knows() -> None:
    """Who steals a backup has the records of all keys, and can't sign in with them."""
    auth, thief = auth_of(ADMIN), auth_of(ADMIN)
    token, _ = thief.new_session(ADMIN.principal())
    with pytest.raises(UnauthenticatedError):
        auth.login(token)


def test_nodes_with_one_secret_know_each_others_sessions() -> None:
    one, other = auth_of(ADMIN, secret=b"s" * 32), auth_of(ADMIN, secret=b"s" * 32)
    token, _ = one.new_session(one.login(KEY))
    assert other.login(token).key_id == ADMIN.id


@pytest.mark.parametrize("part", range(3))
def test_a_session_that_was_changed_is_not_known(part: int) -> None:
    auth = auth_of(ADMIN, READER)
    parts = auth.new_session(auth.login(OTHER))[0].split(".")
    parts[part] = [f"ums_{ADMIN.id}", str(NOW * 9), "A" * 43][part]
    with pytest.raises(UnauthenticatedError):
        auth.login(".".join(parts))


# --- portal tokens -------------------------------------------------------------------------


def test_a_portal_token_reads_one_account_until_it_expires() -> None:
    auth = auth_of(ADMIN)
    token = sign_portal_token(KEY, "acme", ["calls"], NOW + 60)
    principal = auth.login(token)
    assert principal.scopes == {Scope.READ} and principal.sees("acme", "calls")
    assert not principal.sees("acme", "other") and not principal.sees("umbrella", "calls")
    auth.platform.seconds = NOW + 60  # type: ignore[attr-defined]
    assert not auth.is_good(principal)
    with pytest.raises(UnauthenticatedError, match="expired"):
        auth.login(token)


def test_a_portal_token_never_reads_more_than_its_key() -> None:
    auth = auth_of(READER)
    with pytest.raises(ForbiddenError):
        auth.login(sign_portal_token(OTHER, "umbrella", [], NOW + 60))
    assert auth.login(sign_portal_token(OTHER, "acme", [], NOW + 60)).metrics == {"calls"}


def test_a_token_made_from_a_key_is_no_key() -> None:
    auth = auth_of(ADMIN)
    session, _ = auth.new_session(auth.login(KEY))
    for token in (session, sign_portal_token(KEY, 1, [], NOW + 60)):
        with pytest.raises(UnauthenticatedError, match="a key is asked for"):
            auth.login_key(token)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"a": 1.5, "m": [], "e": NOW + 9},
        {"a": None, "m": [], "e": NOW + 9},
        {"a": True, "m": [], "e": NOW + 9},
        {"a": 1, "m": "calls", "e": NOW + 9},
        {"a": 1, "m": [1], "e": NOW + 9},
        {"a": 1, "m": [], "e": "soon"},
        {"a": 1, "m": [], "e": float("inf")},
        {"a": 1, "m": [], "e": 2**80},
        [],
        "text",
    ],
)
def test_a_portal_token_that_says_nonsense_is_refused_though_its_signature_is_right(
    claims: Any,
) -> None:
    token = signed(portal_secret_of(KEY.rpartition("_")[2]), ADMIN.id, claims)
    with pytest.raises(UnauthenticatedError):
        auth_of(ADMIN).login(token)


# --- anything at all -------------------------------------------------------------------------


def _pieces() -> st.SearchStrategy[str]:
    session, _ = auth_of(ADMIN, secret=b"x").new_session(ADMIN.principal())
    portal = sign_portal_token(KEY, "acme", [], NOW + 60)
    known = [KEY, OTHER, session, portal, *session.split("."), *portal.split(".")]
    body = base64.urlsafe_b64encode(json.dumps({"a": 1}).encode()).decode()
    words = ["um_", "ump_", "ums_", ".", "_", ADMIN.id, body, "\0", "é", "\ud800"]
    return st.lists(st.sampled_from(known + words) | st.text(max_size=20), max_size=6).map("".join)


@given(_pieces())
def test_whatever_is_shown_is_a_known_token_or_refused(token: str) -> None:
    auth = auth_of(ADMIN, READER, secret=b"x")
    try:
        principal = auth.login(token)
    except UnimeterError as error:
        secret = KEY.rpartition("_")[2]
        assert secret not in str(error)
    else:
        assert principal.key_id in (ADMIN.id, READER.id)


def test_nobody_is_never_good() -> None:
    assert not auth_of().is_good(NOBODY)
    assert auth_of().is_good(ANYBODY)
    assert not auth_of(ADMIN).is_good(ANYBODY)


# --- where a node listens ----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.example.com", "example.com"])
def test_everything_else_is_beyond(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("options", [{"bind": "10.0.0.7"}, {"advertise": "meter.example.com:7001"}])
def test_other_hosts_are_let_in_with_a_key_or_on_demand_only(options: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"unimeter keys create root.*admin-key-file.*insecure"
    ):
        check_bind(Config(**options), is_open=True)
    check_bind(Config(**options), is_open=False)
    check_bind(Config(**options, insecure=True), is_open=True)
