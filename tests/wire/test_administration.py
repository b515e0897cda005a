"""Keys, webhooks and the trail on the wire: who asked, what stays secret, what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import strategies

from unimeter import limits
from unimeter.canonical import dump
from unimeter.control import Actor
from unimeter.keys import KeyRecord, Scope
from unimeter.wire import messages as m
from unimeter.wire import v2
from unimeter.wire.messages import ErrorCode, PacketType, ProtocolError
from unimeter.wire.v2_on_behalf import packet_type_on_behalf

OPS = Actor("aaaabbbbcccc", "operations ü", "binary", "10.0.0.9")


def text32(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@given(strategies.ACTOR, st.sampled_from(sorted(v2.WITH_ACTOR)), st.binary(max_size=60))
def test_a_request_and_whose_it_is_come_back(actor: Actor, kind: int, payload: bytes) -> None:
    wrapped = v2.encode_on_behalf(actor, kind, payload)
    assert v2.decode_on_behalf(wrapped) == (actor, kind, payload)
    assert packet_type_on_behalf(wrapped) == kind


@given(st.binary(max_size=80))
def test_garbage_on_behalf_of_somebody_is_refused(data: bytes) -> None:
    kind = packet_type_on_behalf(data)
    try:
        assert v2.decode_on_behalf(data)[1] == kind
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "kind", [kind for kind in PacketType if kind not in v2.WITH_ACTOR] + [0xFE]
)
def test_only_a_change_is_made_on_behalf_of_somebody(kind: int) -> None:
    data = dump({"name": "x"})
    with pytest.raises(ProtocolError, match="on behalf"):
        v2.decode_on_behalf(len(data).to_bytes(2, "little") + data + bytes([kind]))


def test_an_actor_with_odd_characters_is_cut_and_cleaned_not_refused() -> None:
    actor = Actor("k", "two\nlines \ud800" + "x" * 500, "http", "\x7f")
    wrapped = v2.encode_on_behalf(actor, PacketType.KEY_REVOKE, b"")
    found = v2.decode_on_behalf(wrapped)[0]
    assert found.name.startswith("two lines ?xxx")
    assert len(found.name) == limits.AUDIT_TEXT_CHARACTERS_MAX and found.address == " "


def test_an_actor_is_never_taken_from_a_clients_own_request() -> None:
    request = m.KeyRevoke("aaaabbbbcccc", OPS)
    assert v2.decode_request(*v2.encode_request(request)) == m.KeyRevoke("aaaabbbbcccc")
    with pytest.raises(ProtocolError) as refused:
        v2.decode_request(
            PacketType.ON_BEHALF, v2.encode_on_behalf(OPS, PacketType.KEY_LIST + 1, b"")
        )
    assert refused.value.code == ErrorCode.UNSUPPORTED


def test_a_list_of_keys_has_no_hashes_even_if_the_records_have() -> None:
    record = KeyRecord("a" * 12, "x", (Scope.READ,), b"v" * 32, b"p" * 32)
    payload = v2.encode_response(PacketType.KEY_LIST, m.KeyListReply([record]), 7)
    assert (b"v" * 32).hex().encode() not in payload and b"verifier" not in payload


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b'{"id":7}',
        b'{ "id":"x"}',
        b'{"id":"x","id":"x"}',
        b'{"id":"x","more":1}',
        b'{"id":"\\u0078"}',
        b'{"id":1.0}',
        b'{"id":"' + b"x" * 65 + b'"}',
        b'{"id":"\xff"}',
        b"[" * 1000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_is_spelled_in_another_way_is_refused(data: bytes) -> None:
    if data == b"{}":
        assert v2.decode_request(PacketType.KEY_REVOKE, text32(data)).id == ""
        return  # the log says that there is no such key
    with pytest.raises(ProtocolError) as refused:
        v2.decode_request(PacketType.KEY_REVOKE, text32(data))
    assert refused.value.code == ErrorCode.INVALID_INPUT


def test_a_change_may_not_be_larger_than_an_entry() -> None:
    data = json.dumps({"id": "x" * limits.ADMIN_BODY_BYTES_MAX}).encode()
    with pytest.raises(ProtocolError) as refused:
        v2.decode_request(PacketType.KEY_REVOKE, text32(data))
    assert refused.value.code == ErrorCode.TOO_LARGE


@pytest.mark.parametrize("scope", ["root", "ADMIN", "", 7, None, ["read"]])
def test_a_scope_that_names_nothing_is_refused(scope: object) -> None:
    key = {"id": "a" * 12, "scopes": [scope]}
    with pytest.raises(ProtocolError, match="scopes"):
        v2.decode_request(PacketType.KEY_PUT, text32(dump({"key": key})))
