"""Keys, webhooks and the trail through the SDK: embedded, on a real node, and on a real cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.client.fake_server import wait_until

import unimeter
from unimeter import (
    AggType,
    AlreadyExistsError,
    AsyncClient,
    Client,
    Event,
    InvalidInputError,
    MetricSchema,
    NotFoundError,
    Scope,
)
from unimeter.client.surface import Surface
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.demo.process import NodeProcess
from unimeter.keys import check_secret, parse_key

URL = "https://example.com/hook"


@pytest.fixture
def meter() -> Iterator[unimeter.Embedded]:
    with unimeter.open(":memory:") as opened:
        yield opened


# --- keys ----------------------------------------------------------------------------


def test_a_key_is_known_by_its_hashes_and_listed_without_them(meter: unimeter.Embedded) -> None:
    made = meter.keys.create("operations", [Scope.ADMIN])
    ident, secret = parse_key(made.key)
    kept = meter._node.machine.administration.keys[ident]
    assert check_secret(kept, secret) and kept.created_ns > 0
    (listed,) = meter.keys.list()
    assert (listed.id, listed.name, listed.scopes) == (ident, "operations", (Scope.ADMIN,))
    assert listed.verifier == listed.portal_secret == b""
    assert secret not in repr(made) + repr(kept) + repr(listed)


def test_keys_are_revoked_but_not_the_last_way_in(meter: unimeter.Embedded) -> None:
    first = meter.keys.create("first", ["admin"])
    second = meter.keys.create("second", "read", account=42, metric="m")
    meter.keys.revoke(second.record.id)
    with pytest.raises(InvalidInputError, match="last key"):
        meter.keys.revoke(first.record.id)
    with pytest.raises(NotFoundError):
        meter.keys.revoke("a" * 12)
    good, revoked = meter.keys.list()
    assert (good.is_revoked, revoked.is_revoked) == (False, True)
    assert (revoked.account, revoked.metric) == (42, "m")


def test_the_first_key_needs_the_scope_admin(meter: unimeter.Embedded) -> None:
    with pytest.raises(InvalidInputError, match="scope admin"):
        meter.keys.create("reader", ["read"])
    assert meter.keys.list() == []


@pytest.mark.parametrize(
    ("name", "scopes", "restricted"),
    [
        ("", ["admin"], {}),
        ("two\nlines", ["admin"], {}),
        ("x" * 65, ["admin"], {}),
        ("x", [], {}),
        ("x", ["root"], {}),
        ("x", ["admin"], {"account": 1}),
        ("x", ["read"], {"account": -1}),
        ("x", ["read"], {"metric": ""}),
        (7, ["read"], {}),
    ],
)
def test_a_key_that_can_not_be_is_refused_before_anything_is_sent(
    meter: unimeter.Embedded, name: str, scopes: list[str], restricted: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError):
        meter.keys.create(name, scopes, **restricted)  # type: ignore[arg-type]
    assert meter.audit() == []


# --- webhooks ------------------------------------------------------------------------


def test_a_webhooks_secret_is_shown_once(meter: unimeter.Embedded) -> None:
    made = meter.webhooks.create(URL, accounts=[42, "42"], metrics=["m"])
    assert made.secret.startswith("whsec_")
    (listed,) = meter.webhooks.list()
    assert listed.secret == "" and listed.id == made.id
    assert (listed.record.accounts, listed.record.metrics) == ((42, "42"), ("m",))
    assert made.secret not in repr(made)
    assert meter._node.machine.administration.webhooks[made.id].secret == made.secret
    given = meter.webhooks.create(URL, secret="whsec_" + "A" * 44)
    assert given.secret == "whsec_" + "A" * 44


def test_a_webhook_is_paused_resumed_replayed_and_deleted(meter: unimeter.Embedded) -> None:
    ident = meter.webhooks.create(URL).id
    meter.webhooks.pause(ident, "maintenance")
    record = meter.webhooks.list()[0].record
    assert (record.state, record.paused_reason) == ("paused", "maintenance")
    meter.webhooks.resume(ident)
    assert meter.webhooks.list()[0].record.is_active
    meter.webhooks.replay(ident, 0)
    assert meter.webhooks.list()[0].delivery.epoch == 1
    with pytest.raises(InvalidInputError, match="position 0"):
        meter.webhooks.replay(ident, 1)
    meter.webhooks.delete(ident)
    assert meter.webhooks.list() == []
    for refused in (meter.webhooks.delete, meter.webhooks.pause, meter.webhooks.resume):
        with pytest.raises(NotFoundError):
            refused(ident)


@pytest.mark.parametrize(
    ("url", "others"),
    [
        ("ftp://example.com", {}),
        ("https://name:word@example.com", {}),
        (None, {}),
        (URL, {"secret": "whsec_short"}),
        (URL, {"secret": 7}),
        (URL, {"accounts": "acme"}),
        (URL, {"accounts": [-1]}),
        (URL, {"metrics": [""]}),
        (URL, {"after": -1}),
    ],
)
def test_a_webhook_that_can_not_be_is_refused_before_anything_is_sent(
    meter: unimeter.Embedded, url: str, others: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError):
        meter.webhooks.create(url, **others)  # type: ignore[arg-type]
    assert meter.audit() == []


# --- the trail -------------------------------------------------------------------------


def check_trail(client: Surface, via: str) -> None:
    """Metrics and webhooks are told of, newest first, with where they came from."""
    client.metrics.create(MetricSchema("m", AggType.SUM))
    with pytest.raises(AlreadyExistsError):
        client.metrics.create(MetricSchema("m", AggType.COUNT))
    client.metrics.delete("m")
    ident = client.webhooks.create(URL).id
    told = [(record.action, record.target, record.is_refused) for record in client.audit()]
    assert told == [
        ("webhook.put", ident, False),
        ("metric.delete", "m", False),
        ("metric.put", "m", True),
        ("metric.put", "m", False),
    ]
    assert {record.actor.via for record in client.audit()} == {via}
    newest = client.audit(limit=2)
    rest = client.audit(before=newest[-1].index)
    assert newest + rest == client.audit()
    with pytest.raises(InvalidInputError):
        client.audit(limit=0)


def test_the_trail_of_a_program_with_its_own_engine(meter: unimeter.Embedded) -> None:
    check_trail(meter, "embedded")


def test_all_of_it_is_there_after_opening_again(tmp_path: Path) -> None:
    with unimeter.open(tmp_path / "data") as meter:
        meter.metrics.create(MetricSchema("m", AggType.SUM))
        key = meter.keys.create("operations", ["admin"]).record.id
        webhook = meter.webhooks.create(URL).id
        meter.ingest([Event(1, "m", 5)])
        trail, state = meter.audit(), meter._node.machine.administration.encode()
    with unimeter.open(tmp_path / "data") as meter:
        assert [record.id for record in meter.keys.list()] == [key]
        assert [one.id for one in meter.webhooks.list()] == [webhook]
        assert meter.audit() == trail
        assert meter._node.machine.administration.encode() == state


def test_the_trail_of_a_node_and_the_asyncio_client(node: NodeProcess) -> None:
    with Client([node.address]) as client:
        check_trail(client, "binary")

    async def ask() -> None:
        async with AsyncClient([node.address]) as client:
            made = await client.webhooks.create(URL, after=0)
            await client.webhooks.pause(made.id)
            await client.webhooks.resume(made.id)
            await client.webhooks.replay(made.id, 0)
            assert made.id in [one.id for one in await client.webhooks.list()]
            await client.webhooks.delete(made.id)
            actions = [record.action for record in await client.audit(limit=5)]
            assert actions == [
                "webhook.delete",
                "webhook.replay",
                "webhook.resume",
                "webhook.pause",
                "webhook.put",
            ]
            assert await client.keys.list() == []
            with pytest.raises(InvalidInputError, match="scope admin"):
                await client.keys.create("reader", ["read"])
            with pytest.raises(NotFoundError):
                await client.keys.revoke("a" * 12)

    asyncio.run(ask())


# --- a cluster ------------------------------------------------------------------------


def test_what_a_follower_was_told_every_node_knows_also_after_a_kill(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path / "c") as cluster:
        lead = cluster.wait_leader()
        follower = next(n for n in range(1, 4) if n != lead)
        with Client([cluster.addresses[follower - 1]], timeout=60) as client:
            webhook = client.webhooks.create(URL).id
        cluster.kill(lead)
        cluster.wait_leader(other_than=lead)
        cluster.restart(lead)
        for address in cluster.addresses:
            with Client([address], timeout=60, read_from="any") as client:
                wait_until(lambda: [one.id for one in client.webhooks.list()] == [webhook])
                (record,) = client.audit(linearizable=True)
                assert (record.action, record.target) == ("webhook.put", webhook)
        with Client(cluster.addresses, timeout=60) as client:
            lead = client.status().leader
            client.cluster.transfer_leader()
            told = client.audit(linearizable=True)[0]
            assert (told.action, told.actor.via) == ("leader.transfer", "binary")
            assert told.target != str(lead)


def test_a_key_made_on_a_follower_opens_every_node_and_survives_a_kill(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path / "c") as cluster:
        lead = cluster.wait_leader()
        follower = next(n for n in range(1, 4) if n != lead)
        with Client([cluster.addresses[follower - 1]], timeout=60) as client:
            made = client.keys.create("operations", ["admin"])
        cluster.kill(lead)
        for node in {1, 2, 3} - {lead}:  # a node is open until it has heard of the first key
            wait_until(partial(is_refused, cluster.addresses[node - 1]))
        with Client(cluster.addresses, timeout=60, key=made.key) as client:
            client.metrics.create(MetricSchema("m", AggType.SUM))
            other = client.keys.create("gateway", ["ingest"])
        cluster.restart(lead)
        for address in cluster.addresses:
            with Client([address], timeout=60, read_from="any", key=made.key) as client:
                wait_until(lambda: len(client.keys.list()) == 2)
                told = client.audit(linearizable=True)
                assert [record.action for record in told] == ["key.put", "metric.put", "key.put"]
                assert [record.actor.name for record in told] == [
                    "operations",
                    "operations",
                    "anybody",
                ]
            wait_until(partial(is_refused, address))
        with Client(cluster.addresses, timeout=60, key=made.key) as client:
            client.keys.revoke(other.record.id)
            assert client.audit(limit=1)[0].actor.key == made.record.id


def is_refused(address: str) -> bool:
    """Whether a client without a key is turned away there."""
    try:
        with Client([address], timeout=60) as client:
            client.keys.list()
    except unimeter.UnauthenticatedError:
        return True
    return False
