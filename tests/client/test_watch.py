"""`client.watch`: alerts and changed totals, blocking, asyncio and embedded."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.fake_server import wait_until
from tests.server.web.running import Running, running

import unimeter
from unimeter import (
    AggType,
    AlertRecord,
    AlertThreshold,
    AsyncClient,
    Client,
    Event,
    InvalidInputError,
    MetricSchema,
    Overflow,
    TotalChange,
    Watch,
)
from unimeter.server import live


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(data_dir=str(tmp_path / "data")) as found:
        yield found


@pytest.fixture(params=["client", "embedded"])
def meter(request: pytest.FixtureRequest, server: Running) -> Iterator[Any]:
    opened = Client([server.server.address]) if request.param == "client" else unimeter.open()
    with opened as found:
        thresholds = [AlertThreshold("full", 100)]
        found.metrics.create(MetricSchema("tokens", AggType.SUM, thresholds=thresholds))
        found.metrics.create(MetricSchema("calls", AggType.COUNT))
        yield found


def spend(meter: Any, account: Any, value: int = 1, metric: str = "tokens") -> None:
    meter.ingest([Event(account, metric, value)])


def total(item: Any) -> tuple[Any, str, int]:
    assert isinstance(item, TotalChange), item
    return item.account_id, item.metric_code, item.number


def test_first_totals_then_changes_and_alerts(meter: Any) -> None:
    spend(meter, "acme", 60)
    with meter.watch(accounts=["acme", 7], metrics=["tokens"]) as watch:
        assert {total(watch.get(10)) for _ in range(2)} == {
            ("acme", "tokens", 60), (7, "tokens", 0),
        }  # fmt: skip
        assert watch.get(0.05) is None
        spend(meter, "other", 500)
        spend(meter, "acme", 1, "calls")
        spend(meter, "acme", 50)
        alert = watch.get(10)
        assert isinstance(alert, AlertRecord)
        # It is the second alert; the first was of an account that nobody watches here.
        assert (alert.position, alert.account_id, alert.value_at_cross) == (2, "acme", 110)
        assert total(watch.get(10)) == ("acme", "tokens", 110)
        assert watch.get(0.05) is None


def test_position_resumes_without_loss_or_repetition(meter: Any) -> None:
    with meter.watch(accounts=[1, 2], metrics=["tokens"]) as watch:
        for _ in range(2):
            watch.get(10)
        spend(meter, 1, 150)
        assert isinstance(watch.get(10), AlertRecord)
        assert total(watch.get(10)) == (1, "tokens", 150)
        place = watch.position
    spend(meter, 2, 150)
    spend(meter, 3, 150)
    with meter.watch(accounts=[1, 2], metrics=["tokens"], after=place) as watch:
        alert = watch.get(10)
        assert isinstance(alert, AlertRecord) and alert.position == 2
        between = watch.position
        assert total(watch.get(10)) == (2, "tokens", 150)
        assert watch.get(0.05) is None
        place = watch.position
    with meter.watch(accounts=[1, 2], metrics=["tokens"], after=between) as watch:
        assert total(watch.get(10)) == (2, "tokens", 150)
    with meter.watch(accounts=[1, 2], metrics=["tokens"], after=place) as watch:
        assert watch.get(0.05) is None
    # An alert's position alone: totals begin anew.
    with meter.watch(accounts=[1], metrics=["tokens"], after=0) as watch:
        found = [watch.get(10) for _ in range(2)]
        assert isinstance(found[0], AlertRecord) and total(found[1]) == (1, "tokens", 150)


def test_a_position_between_two_totals_of_one_message_resumes_with_both(meter: Any) -> None:
    with meter.watch(accounts=[1, 2], metrics=["tokens"]) as watch:
        for _ in range(2):
            watch.get(10)
        meter.ingest([Event(n, "tokens", 1) for n in (1, 2)])
        watch.get(10)
        between = watch.position
    with meter.watch(accounts=[1, 2], metrics=["tokens"], after=between) as watch:
        assert {total(watch.get(10)) for _ in range(2)} == {(1, "tokens", 1), (2, "tokens", 1)}
        assert watch.get(0.05) is None


def test_everything_or_only_a_part(meter: Any) -> None:
    with (
        meter.watch() as everything,
        meter.watch(totals=False) as alerts,
        meter.watch(metrics=["calls"], alerts=False) as calls,
    ):
        spend(meter, 1, 150)
        spend(meter, 2, 1, "calls")
        assert isinstance(everything.get(10), AlertRecord)
        assert {total(everything.get(10)) for _ in range(2)} == {
            (1, "tokens", 150),
            (2, "calls", 1),
        }
        assert isinstance(alerts.get(10), AlertRecord) and alerts.get(0.05) is None
        assert total(calls.get(10)) == (2, "calls", 1) and calls.get(0.05) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"alerts": False, "totals": False},
        {"accounts": "acme"},
        {"metrics": "tokens"},
        {"accounts": [-1]},
        {"metrics": [""]},
        {"after": "soon"},
        {"after": True},
        {"interval": -1},
        {"interval": 61},
        {"accounts": range(257)},
        {"accounts": range(100), "metrics": [f"m{n}" for n in range(100)]},
    ],
)
def test_what_can_not_be_watched_is_refused(meter: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        meter.watch(**wrong)


def test_more_changes_than_are_kept_are_an_overflow(
    meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCHED_ANY_MAX", 16)
    with meter.watch(metrics=["calls"]) as watch:
        meter.ingest([Event(n, "calls") for n in range(100)])
        items = list(itertools.takewhile(bool, iter(lambda: watch.get(0.2), None)))
        assert isinstance(items[-1], Overflow) and len(items) <= 17
        spend(meter, 5, 1, "calls")
        assert total(watch.get(10)) == (5, "calls", 2)


def test_a_watch_can_be_closed_by_another_thread(meter: Any) -> None:
    watch: Watch = meter.watch()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(watch))
    thread.start()
    watch.close()
    thread.join(10)
    assert not thread.is_alive() and found == []


def test_lost_connections_lose_and_repeat_no_alert(server: Running) -> None:
    with Client([server.server.address]) as client:
        full = [AlertThreshold("full", 1)]
        client.metrics.create(MetricSchema("m", AggType.SUM, thresholds=full))
        seen: list[int] = []
        latest: dict[Any, int] = {}
        with client.watch(accounts=range(20)) as watch:
            for account in range(20):
                client.ingest([Event(account, "m", 5)])
                while len(seen) <= account or latest.get(account) != 5:
                    item = watch.get(10)
                    if isinstance(item, AlertRecord):
                        seen.append(item.position)
                    else:
                        assert isinstance(item, TotalChange)
                        latest[item.account_id] = item.number
                drop(server)
        assert seen == list(range(1, 21)) and set(latest.values()) == {5}


def drop(server: Running) -> None:
    """Cut every client off."""

    async def cut() -> None:
        for connection in list(server.server.clients._connections.values()):
            if not connection.is_own:
                connection.transport.abort()

    server.run(cut())


def test_watches_that_end_leave_nothing_at_the_server(server: Running) -> None:
    with Client([server.server.address]) as client:
        client.metrics.create(MetricSchema("m", AggType.SUM))
        for _ in range(5):
            with client.watch(accounts=[1]):
                pass
        client.watch()
    wait_until(lambda: server.server.clients.pumps.statistics()["live_streams"] == 0)
    assert server.server.node.touched is None


def test_asyncio_has_the_same(server: Running) -> None:
    asyncio.run(follow(server.server.address))


async def follow(address: str) -> None:
    async with AsyncClient([address]) as client:
        full = [AlertThreshold("full", 100)]
        await client.metrics.create(MetricSchema("m", AggType.SUM, thresholds=full))
        watch = await client.watch(accounts=[1], metrics=["m"])
        assert total(await anext(watch)) == (1, "m", 0)
        begun = watch.position
        await client.ingest([Event(1, "m", 150)])
        alert = await anext(watch)
        assert isinstance(alert, AlertRecord) and alert.position == 1
        assert total(await anext(watch)) == (1, "m", 150)
        place = watch.position
        await watch.close()
        again = await client.watch(accounts=[1], metrics=["m"], after=begun)
        assert isinstance(await anext(again), AlertRecord)
        async with await client.watch(accounts=[1], metrics=["m"], after=place) as later:
            await client.ingest([Event(1, "m", 1)])
            async with asyncio.timeout(10):
                assert total(await anext(later)) == (1, "m", 151)
