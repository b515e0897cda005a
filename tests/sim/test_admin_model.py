"""The second opinion on administration agrees with the engine, and notices where it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.twin import Batch, event
from tests.sim.audited import Audited

from unimeter.control import UNKNOWN, Actor, Delivery, WebhookRecord
from unimeter.control_json import delivery_json, key_json, webhook_json
from unimeter.engine import entries
from unimeter.engine.catalog import put_body
from unimeter.keys import KeyRecord, Scope
from unimeter.sim.admin_model import read_admin, read_on_behalf
from unimeter.sim.failures import CheckFailed
from unimeter.types import AggType, AlertThreshold, MetricSchema

OPS = Actor("aaaaaaaaaaaa", "ops ü", "http", "10.0.0.9")
ANYBODY = Actor("", "anybody", "binary", "10.0.0.7")  # who is refused once there is a key
SECRETS = ["whsec_" + letter * 44 for letter in "AB"]
METRIC = MetricSchema("m", AggType.SUM, thresholds=[AlertThreshold("t", 1, True)])


def a_key(letter: str, scopes: list[Scope], name: str) -> dict[str, Any]:
    record = KeyRecord(letter * 12, name, tuple(scopes), b"v" * 32, b"p" * 32)
    return key_json(record, with_hashes=True)


def a_webhook(letter: str, secret: str, start: int | None, account: Any) -> dict[str, Any]:
    record = WebhookRecord(f"wh_{letter * 12}", "https://x.y/", secret, (account,), (), start)
    return webhook_json(record, with_secret=True)


def a_delivery(through: int, done: set[int], tried: set[int], epoch: int) -> dict[str, Any]:
    attempts = dict.fromkeys(sorted(tried), (2, 7))
    return delivery_json(Delivery(through, tuple(sorted(done)), attempts, 3, "no", epoch))


KEY_IDS = st.sampled_from(["a" * 12, "b" * 12, "c" * 12])
WEBHOOK_IDS = st.sampled_from(["wh_" + "a" * 12, "wh_" + "b" * 12])
POSITIONS = st.sets(st.integers(0, 6), max_size=3)
CHANGES = st.one_of(
    st.tuples(
        st.just("key.put"),
        st.fixed_dictionaries(
            {
                "key": st.builds(
                    a_key,
                    st.sampled_from("abc"),
                    st.sampled_from([[Scope.ADMIN], [Scope.READ], [Scope.INGEST, Scope.READ]]),
                    st.sampled_from(["one", "two"]),
                )
            }
        ),
    ),
    st.tuples(st.just("key.revoke"), st.fixed_dictionaries({"id": KEY_IDS})),
    st.tuples(
        st.just("webhook.put"),
        st.fixed_dictionaries(
            {
                "webhook": st.builds(
                    a_webhook,
                    st.sampled_from("ab"),
                    st.sampled_from(SECRETS),
                    st.none() | st.integers(0, 6),
                    st.sampled_from([1, "1"]),
                )
            }
        ),
    ),
    st.tuples(st.just("webhook.delete"), st.fixed_dictionaries({"id": WEBHOOK_IDS})),
    st.tuples(
        st.just("webhook.control"),
        st.fixed_dictionaries(
            {
                "id": WEBHOOK_IDS,
                "action": st.sampled_from(["pause", "resume", "replay"]),
                "after": st.integers(0, 6),
                "reason": st.sampled_from(["", "why"]),
            }
        ),
    ),
    st.tuples(
        st.just("webhook.progress"),
        st.fixed_dictionaries(
            {
                "id": WEBHOOK_IDS,
                "delivery": st.builds(
                    a_delivery, st.integers(0, 6), POSITIONS, POSITIONS, st.integers(0, 1)
                ),
            }
        ),
    ),
    st.tuples(st.just("note"), st.just({"action": "leader.transfer", "target": "2"})),
    st.tuples(st.sampled_from(["put", "delete", "plain put"]), st.just({})),
)


def carry_out(audited: Audited, operation: str, fields: dict[str, Any], actor: Actor = OPS) -> None:
    """One change, in the machine and the model, compared after it."""
    if operation == "put":
        body = entries.on_behalf_body(actor, entries.METRIC_PUT, put_body(METRIC))
        audited.apply(entries.ON_BEHALF, body)
    elif operation == "plain put":
        audited.put(METRIC, 1)
    elif operation == "delete":
        body = entries.on_behalf_body(UNKNOWN, entries.METRIC_DELETE, b"m")
        audited.apply(entries.ON_BEHALF, body)
    else:
        audited.apply(entries.ADMIN, entries.admin_body(operation, actor, **fields))


@given(st.lists(st.tuples(CHANGES, st.sampled_from([OPS, OPS, ANYBODY])), max_size=25))
def test_the_model_and_the_engine_agree_on_every_change(
    changes: list[tuple[tuple[str, dict[str, Any]], Actor]],
) -> None:
    audited = Audited()
    audited.put(METRIC)
    audited.ingest(Batch(tuple(event(account, "m", 1, audited.now) for account in range(4))))
    carry_out(audited, "key.put", {"key": a_key("a", [Scope.ADMIN], "one")})
    carry_out(audited, "webhook.put", {"webhook": a_webhook("a", SECRETS[0], 2, 1)})
    progress = {"id": "wh_" + "a" * 12, "delivery": a_delivery(2, {4}, {3}, 0)}
    carry_out(audited, "webhook.progress", progress)
    for (operation, fields), actor in changes:
        audited.now += 1
        carry_out(audited, operation, fields, actor)
    audited.auditor.check_machine("n1", audited.machine)


def filled() -> Audited:
    audited = Audited()
    carry_out(audited, "key.put", {"key": a_key("a", [Scope.ADMIN], "one")})
    carry_out(audited, "webhook.put", {"webhook": a_webhook("a", SECRETS[0], None, 1)})
    return audited


def test_a_machine_that_forgot_a_key_is_found() -> None:
    audited = filled()
    audited.machine.administration.keys.clear()
    with pytest.raises(CheckFailed, match="administration"):
        audited.auditor.check_machine("n1", audited.machine)


def test_a_machine_whose_trail_lacks_a_line_is_found() -> None:
    audited = filled()
    audited.machine.administration.audit.pop()
    with pytest.raises(CheckFailed, match="administration"):
        audited.auditor.check_machine("n1", audited.machine)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"actor":{},"op":"key.put"}',
        b'{"actor":{}, "id":"x","op":"key.revoke"}',
        b'{"actor":{"who":"x"},"id":"x","op":"key.revoke"}',
        b'{"actor":{},"id":"x","more":1,"op":"key.revoke"}',
    ],
)
def test_a_body_that_no_honest_node_writes_is_found(body: bytes) -> None:
    with pytest.raises(CheckFailed):
        read_admin(body)


@pytest.mark.parametrize("body", [b"", b"\2\0{}", b"\2\0{}\2x", b"\5\0{}\3x", b"\2\0[]\3x"])
def test_a_change_on_nobodys_behalf_is_found(body: bytes) -> None:
    with pytest.raises(CheckFailed):
        read_on_behalf(body)
