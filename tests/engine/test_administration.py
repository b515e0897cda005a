"""Keys, webhooks and the trail as replicated state: the rules, snapshots, equality, bad bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.json_values import json_values

from unimeter import limits
from unimeter.canonical import dump
from unimeter.control import ACTIVE, DONE, PAUSED, UNKNOWN, Actor, Delivery, WebhookRecord
from unimeter.control_json import delivery_json, key_json, webhook_json
from unimeter.engine import changes, entries
from unimeter.engine.applied import Applied
from unimeter.engine.catalog import put_body
from unimeter.engine.machine import Machine
from unimeter.keys import KeyRecord, Scope
from unimeter.types import AggType, AlertThreshold, MetricSchema

from .twin import CLUSTER, HASH_KEY, Batch, Twin, event, state

NOW = 1_700_000_000_000_000_000
OPS = Actor("aaaaaaaaaaaa", "ops", "binary", "10.0.0.9:4711")
SECRET = "whsec_" + "A" * 43 + "="


class Log:
    """A machine, and the log that made it."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.entries: list[tuple[int, int, int, bytes]] = []
        self.now = NOW
        self.apply(entries.GENESIS, entries.genesis_body(CLUSTER, HASH_KEY))

    def apply(self, kind: int, body: bytes) -> Applied:
        index = len(self.entries) + 1
        self.now += 1_000
        self.entries.append((index, kind, self.now, body))
        return self.machine.apply(index, kind, self.now, body)

    def admin(self, operation: str, **fields: Any) -> str:
        """The refusal of a change made by OPS; empty if it was accepted."""
        applied = self.apply(entries.ADMIN, entries.admin_body(operation, OPS, **fields))
        assert bool(applied.error_code) == bool(applied.error)
        return applied.error

    def put_key(self, key: KeyRecord) -> str:
        return self.admin("key.put", key=key_json(key, with_hashes=True))

    def put_webhook(self, webhook: WebhookRecord) -> str:
        return self.admin("webhook.put", webhook=webhook_json(webhook, with_secret=True))

    def progress(self, delivery: Delivery, ident: str = "wh_aaaaaaaaaaaa") -> str:
        return self.admin("webhook.progress", id=ident, delivery=delivery_json(delivery))

    def control(self, action: str, ident: str = "wh_aaaaaaaaaaaa", after: int = 0) -> str:
        return self.admin("webhook.control", id=ident, action=action, after=after, reason="why")

    def told(self) -> tuple[str, str, str]:
        """Action, target and result of the newest line of the trail."""
        record = self.machine.administration.audit[-1]
        return record.action, record.target, record.result


@pytest.fixture
def log() -> Log:
    return Log()


def a_key(letter: str = "a", *scopes: str, **others: Any) -> KeyRecord:
    wanted = tuple(Scope(scope) for scope in scopes or ("admin",))
    return KeyRecord(letter * 12, f"key {letter}", wanted, b"v" * 32, b"p" * 32, **others)


def a_webhook(letter: str = "a", **others: Any) -> WebhookRecord:
    return WebhookRecord(f"wh_{letter * 12}", "https://example.com/hook", SECRET, **others)


def with_alerts(count: int) -> Log:
    """A log in which so many alerts were raised."""
    log = Log()
    thresholds = [AlertThreshold("t", 1, True)]
    log.apply(entries.METRIC_PUT, put_body(MetricSchema("m", AggType.SUM, thresholds=thresholds)))
    twin = Twin(NOW)
    twin.machine, twin.now = log.machine, log.now
    twin.log = log.entries
    twin.model.put(MetricSchema("m", AggType.SUM, thresholds=thresholds), ((-(2**40), 0),), 2)
    twin.ingest(Batch(tuple(event(account, "m", 1, NOW) for account in range(count))))
    assert log.machine.counter.alert_count == count
    return log


# --- keys ----------------------------------------------------------------------------


def test_a_key_is_kept_with_the_logs_clock(log: Log) -> None:
    assert log.put_key(a_key()) == ""
    state_ = log.machine.administration
    assert state_.keys == {"a" * 12: replace(a_key(), created_ns=log.now)}
    assert state_.generation == 1
    assert log.told() == ("key.put", "a" * 12, DONE)


def test_the_first_key_needs_the_scope_admin(log: Log) -> None:
    assert "scope admin" in log.put_key(a_key("b", "ingest", "read"))
    assert log.machine.administration.keys == {}
    assert log.put_key(a_key("a")) == ""
    assert log.put_key(a_key("b", "ingest", "read")) == ""


def test_putting_an_equal_key_again_changes_nothing_and_is_not_told_twice(log: Log) -> None:
    log.put_key(a_key())
    before = log.machine.administration.keys["a" * 12]
    assert log.put_key(a_key()) == ""
    assert log.machine.administration.keys["a" * 12] is before
    assert len(log.machine.administration.audit) == log.machine.administration.generation == 1


def test_another_key_of_the_same_id_is_refused(log: Log) -> None:
    log.put_key(a_key())
    for other in (replace(a_key(), name="x"), replace(a_key(), verifier=b"w" * 32)):
        assert "another key" in log.put_key(other)
    assert log.machine.administration.keys["a" * 12].name == "key a"


def test_the_last_key_with_the_scope_admin_can_not_be_revoked(log: Log) -> None:
    log.put_key(a_key("a"))
    log.put_key(a_key("b", "read"))
    assert "last key" in log.admin("key.revoke", id="a" * 12)
    assert log.told()[2].startswith("this is the last key")
    log.put_key(a_key("c"))
    assert log.admin("key.revoke", id="a" * 12) == ""
    assert "last key" in log.admin("key.revoke", id="c" * 12)
    assert log.admin("key.revoke", id="b" * 12) == ""
    log.machine.check_invariants()


def test_a_revoked_key_stays_revoked(log: Log) -> None:
    log.put_key(a_key("a"))
    log.put_key(a_key("b"))
    log.admin("key.revoke", id="b" * 12)
    revoked = log.machine.administration.keys["b" * 12]
    assert revoked.revoked_ns == log.now
    assert log.admin("key.revoke", id="b" * 12) == "", "a second time is no error"
    assert log.machine.administration.keys["b" * 12] is revoked
    assert "revoked" in log.put_key(a_key("b"))
    assert "no key" in log.admin("key.revoke", id="d" * 12)


def test_revoked_keys_make_room_oldest_first(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_MAX", 3)
    for letter in "abc":
        assert log.put_key(a_key(letter)) == ""
    assert "3 keys" in log.put_key(a_key("d"))
    log.admin("key.revoke", id="c" * 12)
    log.admin("key.revoke", id="b" * 12)
    assert log.put_key(a_key("d")) == ""
    assert [ident[0] for ident in log.machine.administration.keys] == ["a", "b", "d"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "A" * 12},
        {"id": "a" * 11},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "two\nlines"},
        {"scopes": ()},
        {"scopes": (Scope.READ, Scope.INGEST)},
        {"scopes": (Scope.READ, Scope.READ)},
        {"verifier": b""},
        {"portal_secret": b"short"},
        {"account": 2**64},
        {"account": -1},
        {"account": ""},
        {"account": "x" * 65},
        {"account": 7},
        {"metric": "m"},
        {"metric": ""},
    ],
    ids=str,
)
def test_a_key_that_breaks_a_rule_is_refused(log: Log, change: dict[str, Any]) -> None:
    log.put_key(a_key("b"))
    assert log.put_key(replace(a_key(), **change)) != ""
    assert list(log.machine.administration.keys) == ["b" * 12]


# --- webhooks ------------------------------------------------------------------------


def test_a_webhook_begins_after_the_newest_alert() -> None:
    log = with_alerts(5)
    applied = log.apply(
        entries.ADMIN,
        entries.admin_body("webhook.put", OPS, webhook=webhook_json(a_webhook(), with_secret=True)),
    )
    assert applied.webhook == replace(a_webhook(), start=5, created_ns=log.now)
    assert log.machine.administration.deliveries["wh_aaaaaaaaaaaa"].through == 5
    assert log.put_webhook(a_webhook("b", start=2)) == ""
    assert log.machine.administration.deliveries["wh_bbbbbbbbbbbb"].through == 2
    assert "position 5" in log.put_webhook(a_webhook("c", start=6))


def test_putting_an_equal_webhook_again_gives_the_one_that_is_there() -> None:
    log = with_alerts(3)
    log.put_webhook(a_webhook(accounts=(1, "1")))
    first = log.machine.administration.webhooks["wh_aaaaaaaaaaaa"]
    body = entries.admin_body(
        "webhook.put", OPS, webhook=webhook_json(a_webhook(accounts=(1, "1")), with_secret=True)
    )
    assert log.apply(entries.ADMIN, body).webhook is first
    for other in (a_webhook(accounts=("1", 1)), a_webhook(metrics=("m",))):
        assert "another webhook" in log.put_webhook(other)


def test_pause_and_resume_and_what_they_leave_alone() -> None:
    log = with_alerts(9)
    log.put_webhook(a_webhook(start=0))
    log.progress(Delivery(through=2, done=(5,), attempts={3: (4, NOW)}, failures=4, error="500"))
    assert log.control("pause") == ""
    paused = log.machine.administration.webhooks["wh_aaaaaaaaaaaa"]
    assert (paused.state, paused.paused_reason, paused.is_active) == (PAUSED, "why", False)
    assert log.told() == ("webhook.pause", "wh_aaaaaaaaaaaa", DONE)
    assert log.control("resume") == ""
    delivery = log.machine.administration.deliveries["wh_aaaaaaaaaaaa"]
    assert (delivery.through, delivery.done) == (2, (5,)), "what is delivered stays so"
    assert (delivery.attempts, delivery.failures, delivery.error) == ({}, 0, "")
    assert log.machine.administration.webhooks["wh_aaaaaaaaaaaa"].state == ACTIVE
    told = len(log.machine.administration.audit)
    assert log.control("resume") == "", "it goes on already"
    assert len(log.machine.administration.audit) == told


def test_progress_from_before_a_replay_does_not_undo_it() -> None:
    log = with_alerts(9)
    log.put_webhook(a_webhook(start=0))
    log.progress(Delivery(through=7))
    assert log.control("replay", after=3) == ""
    assert "void" in log.progress(Delivery(through=8))
    assert log.machine.administration.deliveries["wh_aaaaaaaaaaaa"].through == 3
    assert log.progress(Delivery(through=4, epoch=1)) == ""
    assert "position 9" in log.control("replay", after=10)


@pytest.mark.parametrize(
    "delivery",
    [
        Delivery(through=1),
        Delivery(through=10),
        Delivery(through=3, done=(3,)),
        Delivery(through=3, done=(6, 5)),
        Delivery(through=3, done=(5, 5)),
        Delivery(through=3, done=(10,)),
        Delivery(through=3, attempts={2: (1, NOW)}),
        Delivery(through=3, attempts={10: (1, NOW)}),
        Delivery(through=3, done=(5,), attempts={5: (1, NOW)}),
        Delivery(through=3, attempts={4: (-1, NOW)}),
        Delivery(through=3, attempts={4: (1, 2**64)}),
        Delivery(through=3, failures=-1),
        Delivery(through=3, error="x" * 257),
    ],
    ids=str,
)
def test_progress_that_makes_no_sense_is_refused(delivery: Delivery) -> None:
    log = with_alerts(9)
    log.put_webhook(a_webhook(start=0))
    assert log.progress(Delivery(through=2)) == ""
    before = log.machine.administration.deliveries["wh_aaaaaaaaaaaa"]
    assert log.progress(delivery) != ""
    assert log.machine.administration.deliveries["wh_aaaaaaaaaaaa"] is before


def test_progress_is_not_in_the_trail_and_its_time_is_the_logs() -> None:
    log = with_alerts(9)
    log.put_webhook(a_webhook(start=0))
    told = list(log.machine.administration.audit)
    log.progress(Delivery(through=2, updated_ns=5))
    log.progress(Delivery(through=99))
    assert list(log.machine.administration.audit) == told
    assert log.machine.administration.deliveries["wh_aaaaaaaaaaaa"].updated_ns == log.now - 1_000


def test_the_largest_progress_fits_an_entry() -> None:
    most = 2**40
    delivery = Delivery(
        through=most,
        done=tuple(range(most + 1001, most + 1001 + limits.DELIVERY_DONE_MAX)),
        attempts={most + 1 + n: (999, NOW) for n in range(limits.DELIVERY_ATTEMPTS_MAX)},
        error="x" * 256,
    )
    body = entries.admin_body(
        "webhook.progress", UNKNOWN, id="wh_aaaaaaaaaaaa", delivery=delivery_json(delivery)
    )
    assert len(body) <= limits.ADMIN_BODY_BYTES_MAX


def test_a_deleted_webhook_takes_its_deliveries_along(log: Log) -> None:
    log.put_webhook(a_webhook())
    assert log.admin("webhook.delete", id="wh_aaaaaaaaaaaa") == ""
    assert log.machine.administration.webhooks == log.machine.administration.deliveries == {}
    for refusal in (
        log.admin("webhook.delete", id="wh_aaaaaaaaaaaa"),
        log.control("pause"),
        log.progress(Delivery()),
    ):
        assert "no webhook" in refusal


def test_there_are_at_most_so_many_webhooks(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBHOOKS_MAX", 2)
    assert [log.put_webhook(a_webhook(letter)) == "" for letter in "abc"] == [True, True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "wh_short"},
        {"url": "ftp://example.com/"},
        {"url": "https://"},
        {"url": "https://user:word@example.com/"},
        {"url": "https://example.com/a b"},
        {"url": "https://exämple.com/"},
        {"url": "https://example.com/" + "x" * 2048},
        {"secret": ""},
        {"secret": "whsec_AAAA"},
        {"secret": "whsec_" + "A" * 44 + "="},
        {"secret": "secret"},
        {"secret": "whsec_" + "A" * 100},
        {"accounts": ("",)},
        {"accounts": (2**64,)},
        {"accounts": (True,)},
        {"accounts": tuple(range(257))},
        {"metrics": ("",)},
        {"metrics": ("x" * 65,)},
        {"state": "asleep"},
        {"start": -1},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_webhook_that_breaks_a_rule_is_refused(log: Log, change: dict[str, Any]) -> None:
    assert log.put_webhook(replace(a_webhook(), **change)) != ""
    assert log.machine.administration.webhooks == {}


# --- the trail -------------------------------------------------------------------------


def test_the_trail_says_who_changed_a_metric(log: Log) -> None:
    put = put_body(MetricSchema("m", AggType.SUM))
    log.apply(entries.METRIC_PUT, put)
    plain = log.machine.administration.audit[-1]
    assert (plain.actor, plain.action, plain.target) == (UNKNOWN, "metric.put", "m")
    log.apply(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_DELETE, b"m"))
    record = log.machine.administration.audit[-1]
    assert (record.actor, record.action, record.result) == (OPS, "metric.delete", DONE)
    assert (record.index, record.timestamp_ns) == (3, log.now)
    log.apply(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_PUT, put))
    assert log.machine.catalog.find("m").number == 2
    told = len(log.machine.administration.audit)
    log.apply(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_PUT, put))
    assert len(log.machine.administration.audit) == told, "an equal put changes nothing"


def test_refused_changes_are_in_the_trail_with_their_reason(log: Log) -> None:
    log.apply(entries.ON_BEHALF, entries.on_behalf_body(OPS, entries.METRIC_DELETE, b"nothing"))
    assert log.told() == ("metric.delete", "nothing", "there is no metric of that code")
    assert log.machine.administration.audit[-1].is_refused
    log.put_key(a_key("b", "read"))
    assert log.told()[:2] == ("key.put", "b" * 12)
    assert log.machine.administration.audit[-1].actor == OPS


def test_once_there_is_a_key_nobody_changes_anything_without_one(log: Log) -> None:
    nobody = Actor("", "anybody", "binary", "10.0.0.7:1")
    first = key_json(a_key(), with_hashes=True)
    put = put_body(MetricSchema("m", AggType.SUM))

    def tried(kind: int, body: bytes) -> int:
        return log.apply(kind, body).error_code

    put_first = entries.admin_body("key.put", nobody, key=first)
    assert tried(entries.ADMIN, put_first) == 0, "while there is none, anybody makes the first"
    before = log.machine.administration.generation
    assert tried(entries.ADMIN, put_first) == 0, "a repeat of it is no change"
    second = key_json(a_key("b"), with_hashes=True)
    for operation, fields in (
        ("key.put", {"key": second}),
        ("key.revoke", {"id": "a" * 12}),
        ("webhook.put", {"webhook": webhook_json(a_webhook(), with_secret=True)}),
    ):
        body = entries.admin_body(operation, nobody, **fields)
        assert tried(entries.ADMIN, body) == changes.UNAUTHENTICATED
        assert log.told()[0] == operation
    for kind, inner in ((entries.METRIC_PUT, put), (entries.METRIC_DELETE, b"m")):
        body = entries.on_behalf_body(nobody, kind, inner)
        assert tried(entries.ON_BEHALF, body) == changes.UNAUTHENTICATED
    assert log.machine.administration.generation == before
    assert not log.machine.administration.webhooks and not log.machine.catalog.by_code
    embedded = Actor(via="embedded")
    assert tried(entries.ON_BEHALF, entries.on_behalf_body(embedded, entries.METRIC_PUT, put)) == 0


def test_a_note_is_a_line_of_the_trail_and_nothing_else(log: Log) -> None:
    before = log.machine.administration.encode()
    assert log.admin("note", action="leader.transfer", target="2") == ""
    assert log.told() == ("leader.transfer", "2", DONE)
    log.machine.administration.audit.clear()
    assert log.machine.administration.encode() == before


def test_the_trail_is_paged_newest_first_and_forgets_the_oldest() -> None:
    log = Log()
    for number in range(limits.AUDIT_RECORDS_MAX + 10):
        log.admin("note", action="n", target=str(number))
    trail = log.machine.administration.trail
    page, more = trail(0, 3)
    assert [record.target for record in page] == ["4105", "4104", "4103"] and more
    page, more = trail(page[-1].index, 2)
    assert [record.target for record in page] == ["4102", "4101"] and more
    page, more = trail(14, 50)
    assert [record.target for record in page] == ["11", "10"] and not more
    assert trail(1, 5) == ([], False)


def test_no_secret_gets_into_the_trail_or_a_repr(log: Log) -> None:
    log.put_key(a_key())
    log.put_key(replace(a_key(), name=""))
    log.put_webhook(a_webhook())
    log.put_webhook(replace(a_webhook("b"), url="nowhere"))
    found = repr(log.machine.administration.audit)
    found += repr(log.machine.administration.keys) + repr(log.machine.administration.webhooks)
    for secret in (SECRET, "vvv", "ppp", (b"v" * 32).hex(), (b"p" * 32).hex()):
        assert secret not in found


# --- bad bodies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"op":"key.put"}',
        b'{"op":"no.such"}',
        b'{"op":1}',
        b'{"op":"note","action":"x","target":1}',
        b'{"action":"x","op":"note","target":"y","target":"z"}',
        b'{"action":"x", "op":"note"}',
        b'{"action":"x","op":"note","what":1}',
        b'{"action":"x","actor":1,"op":"note"}',
        b'{"action":"x","actor":{"key":1.5},"op":"note"}',
        b'{"action":"x","actor":{"who":"x"},"op":"note"}',
        b'{"action":"\\ud800","op":"note"}',
        b'{"after":1e999,"op":"webhook.control"}',
        b'{"after":NaN,"op":"webhook.control"}',
        b'{"after":' + b"9" * 5000 + b',"op":"webhook.control"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"action":"' + b"x" * 70_000 + b'","op":"note"}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_that_is_no_change_is_refused_and_told(log: Log, body: bytes) -> None:
    applied = log.apply(entries.ADMIN, body)
    assert applied.error_code == changes.INVALID_INPUT and applied.error
    assert log.machine.administration.audit[-1].result == applied.error[:256]
    log.machine.check_invariants()


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\2\0{}", b"\2\0{}\7x", b"\2\0[]\4m", b"\xff\xff{}\4m", b"\2\0{}\6m"]
)
def test_a_change_that_does_not_say_whose_it_is_is_refused(log: Log, body: bytes) -> None:
    assert log.apply(entries.ON_BEHALF, body).error_code == changes.INVALID_INPUT
    assert log.told()[0] == changes.INVALID


JSON = json_values(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a" * 12, "wh_aaaaaaaaaaaa", SECRET, "admin", "pause", "https://x.y/"])
)
OPERATIONS = st.sampled_from([*changes._OPERATIONS, "other"])
NAMES = st.sampled_from(
    ["actor", "key", "webhook", "delivery", "id", "action", "after", "reason", "target"]
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda operation, fields: dump_anything({"op": operation, **fields}),
        OPERATIONS,
        st.dictionaries(NAMES, JSON),
    ),
    st.builds(
        lambda operation, fields: dump_anything({"op": operation, **fields}),
        OPERATIONS,
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.sampled_from(["a" * 12, "wh_aaaaaaaaaaaa"]),
                "action": st.sampled_from(["pause", "resume", "replay", "x"]),
                "after": st.integers(0, 3),
                "key": st.builds(
                    lambda letter, extra: {**key_json(a_key(letter), with_hashes=True), **extra},
                    st.sampled_from("ab"),
                    st.dictionaries(st.sampled_from(["name", "scopes", "account", "x"]), JSON),
                ),
                "webhook": st.builds(
                    lambda extra: {**webhook_json(a_webhook(), with_secret=True), **extra},
                    st.dictionaries(st.sampled_from(["url", "start", "accounts", "x"]), JSON),
                ),
                "delivery": st.builds(
                    lambda extra: {**delivery_json(Delivery()), **extra},
                    st.dictionaries(st.sampled_from(["done", "attempts", "through"]), JSON),
                ),
            },
        ),
    ),
)


def dump_anything(fields: dict[str, Any]) -> bytes:
    """JSON as it should be, where that can be; else as Python writes it."""
    try:
        return dump(fields)
    except ValueError:
        return str(fields).encode("utf-8", "replace")


@given(st.lists(st.tuples(st.sampled_from([entries.ADMIN, entries.ON_BEHALF]), BODIES), max_size=8))
def test_no_body_breaks_a_replica_and_replicas_stay_equal(
    bodies: list[tuple[int, bytes]],
) -> None:
    log = Log()
    log.put_key(a_key("c"))
    log.put_webhook(a_webhook())
    for kind, body in bodies:
        before = log.machine.administration.encode()
        applied = log.apply(kind, body)
        if applied.error_code:
            log.machine.administration.audit.pop() if told(log, applied) else None
            assert log.machine.administration.encode() == before, "a refused one changes nothing"
    log.machine.check_invariants()
    other = replayed(log)
    kept = Machine.restore(state(log.machine))
    assert state(kept) == state(log.machine)
    other.administration.audit.clear()
    kept.administration.audit.clear()
    assert state(kept) == state(other)


def told(log: Log, applied: Applied) -> bool:
    audit = log.machine.administration.audit
    return bool(audit) and audit[-1].index == applied.index


def replayed(log: Log) -> Machine:
    """Another replica of the same log, which restarts from a snapshot at every entry."""
    machine = Machine()
    for entry in log.entries:
        machine.apply(*entry)
        machine = Machine.restore(state(machine))
    return machine


# --- snapshots ----------------------------------------------------------------------------


def fill(log: Log) -> None:
    log.put_key(a_key("a"))
    log.put_key(a_key("b", "ingest", account="acme", metric="m"))
    log.put_key(a_key("c", "read", account=2**64 - 1))
    log.admin("key.revoke", id="b" * 12)
    log.admin("key.revoke", id="a" * 12)
    log.put_webhook(a_webhook("a", accounts=(1, "1", "ü"), metrics=("m", "é"), start=0))
    log.put_webhook(a_webhook("b"))
    log.progress(Delivery(through=1, done=(3, 5), attempts={2: (7, NOW), 4: (1, 0)}, failures=9))
    log.control("pause", "wh_bbbbbbbbbbbb")
    log.apply(entries.ADMIN, b"nonsense")


def test_a_snapshot_has_all_of_it_and_replicas_are_equal() -> None:
    log = with_alerts(6)
    fill(log)
    assert state(replayed(log)) == state(log.machine)
    restored = Machine.restore(state(log.machine)).administration
    there = log.machine.administration
    assert restored.keys == there.keys and list(restored.keys) == list(there.keys)
    assert restored.webhooks == there.webhooks and restored.deliveries == there.deliveries
    assert restored.audit == there.audit and restored.audit.maxlen == there.audit.maxlen
    assert restored.generation == there.generation == 4


def test_a_snapshot_of_another_format_is_refused() -> None:
    data = bytearray(state(Log().machine))
    assert data[:8] == b"UMSTATE3"
    data[:8] = b"UMSTATE2"
    with pytest.raises(ValueError):
        Machine.restore(bytes(data))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b'"generation":', b'"generatiom":'),
        lambda data: data.replace(b'"scopes":["admin"]', b'"scopes":["ADMIN"]'),
        lambda data: data.replace(b'"through":', b'"through":-'),
    ],
)
def test_a_snapshot_with_other_words_in_it_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    log = with_alerts(6)
    fill(log)
    good = log.machine.administration.encode()
    assert spoil(good) != good
    with pytest.raises(ValueError):
        type(log.machine.administration).decode(spoil(good))
