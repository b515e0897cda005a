"""Webhooks of a server in this process: what a receiver gets, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.receivers import CLOSE, GARBAGE, HANG, TAKE_AND_CLOSE, Behaviour, Receiver, Said

from unimeter import AggType, AlertThreshold, AsyncClient, Event, MetricSchema, Server
from unimeter.server import webhook_sender
from unimeter.server.platform import Platform
from unimeter.server.webhook_lanes import Pace
from unimeter.webhooks import Message

QUICK = Pace(
    retry_seconds=(0.02,) * 6,
    inflight_max=4,
    answer_seconds=15.0,
    retry_after_seconds_max=0.3,
    record_seconds=0.01,
)


class QuickPlatform(Platform):
    """The real machine, and a webhook's patience of a tenth of a second."""

    webhook_pace = QUICK


class ImpatientPlatform(Platform):
    """Waits for no answer."""

    webhook_pace = replace(QUICK, answer_seconds=0.3)


class PatientPlatform(Platform):
    """The real machine: what failed waits for a minute, and progress for longer."""

    webhook_pace = replace(QUICK, retry_seconds=(60.0,) * 6, record_seconds=600.0)


class Site:
    """A server, an SDK client and an HTTP client of it."""

    def __init__(self, server: Server, client: AsyncClient, http: httpx.AsyncClient) -> None:
        self.server, self.client, self.http = server, client, http

    async def cross(self, *accounts: int | str, metric: str = "credits") -> None:
        """An alert for each account named, in this order."""
        events = []
        for account in accounts:
            events += [Event(account, metric, 10), Event(account, metric, -10)]
        result = await self.client.ingest(events)
        assert result.n_stored == len(events)

    async def ask(self, method: str, path: str, expect: int = 200, **given: Any) -> Any:
        answer = await self.http.request(method, f"/v1/webhooks{path}", **given)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None

    async def webhook(self, receiver: Receiver, **body: Any) -> str:
        """Make a webhook that sends to the receiver; its id."""
        made = await self.ask("POST", "", 201, json={"url": receiver.url, **body})
        receiver.secret = made["secret"]
        ident: str = made["id"]
        return ident

    async def state(self, ident: str) -> dict[str, Any]:
        """What the page of deliveries says."""
        found: dict[str, Any] = await self.ask("GET", f"/{ident}/deliveries")
        return found

    async def until(self, ident: str, condition: Callable[[dict[str, Any]], bool]) -> Any:
        """The state, once the condition holds."""
        async with asyncio.timeout(30):
            while not condition(found := await self.state(ident)):
                await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def running(data_dir: Path, platform: Platform | None = None) -> AsyncIterator[Site]:
    options: dict[str, Any] = {"port": 0, "http_port": 0}
    async with (
        Server(data_dir, platform=platform or QuickPlatform(), **options) as server,
        AsyncClient([server.address]) as client,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=30) as http,
    ):
        yield Site(server, client, http)


async def make_metric(site: Site, code: str = "credits") -> None:
    thresholds = [AlertThreshold("high", 5, recurring=True)]
    await site.client.metrics.create(MetricSchema(code, AggType.SUM, thresholds=thresholds))


def with_site(
    tmp_path: Path,
    body: Callable[[Site, Receiver], Awaitable[None]],
    platform: Platform | None = None,
) -> None:
    """Run `body` with a server that has the metric, and a receiver."""

    async def inside() -> None:
        async with running(tmp_path / "data", platform) as site, Receiver() as receiver:
            await make_metric(site)
            await body(site, receiver)

    asyncio.run(inside())


def failing(nths: Iterable[int], how: Behaviour = 500) -> Callable[[Message, int], Behaviour]:
    """Behave like this at these attempts of each message."""
    bad = set(nths)
    return lambda message, nth: how if nth in bad else 204


# --- what arrives ------------------------------------------------------------------------


def test_every_alert_arrives_signed_once_and_in_order_per_account(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross(*[1, "acme", 2, 1, "acme", 3] * 20)
        await receiver.until(lambda: len(receiver.taken) > 10)
        site.server.clients.lead_taken()  # a cluster says so at each tick
        await receiver.until(lambda: len(receiver.alerts) == 120)
        receiver.check_order()
        assert sorted(receiver.positions) == list(range(1, 121))
        assert len(receiver.arrived) == 120, "nothing failed, so nothing was sent twice"
        state = await site.until(ident, lambda found: found["through"] == 120)
        assert (state["lag"], state["rows"], state["error"]) == (0, [], "")
        assert receiver.busy_max <= QUICK.inflight_max

    with_site(tmp_path, body)


def test_a_message_says_what_the_list_of_alerts_says(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        await site.webhook(receiver)
        await site.cross("acme", 2**63)
        await receiver.until(lambda: len(receiver.taken) == 2)
        page = (await site.http.get("/v1/alerts")).json()["rows"]
        assert [message.data for message in receiver.taken] == page
        first, second = receiver.alerts
        assert (first.account_id, first.metric_code, first.threshold_code) == (
            "acme",
            "credits",
            "high",
        )
        assert (first.value_at_cross, second.account_id) == (10, 2**63)
        cluster = site.server.node.machine.cluster_id.hex()[:16]
        assert [message.id for message in receiver.taken] == [
            f"alert_{cluster}_1",
            f"alert_{cluster}_2",
        ]
        head = receiver.requests[0]
        assert head[""] == "POST /hooks?from=unimeter HTTP/1.1"
        assert head["content-type"] == "application/json"
        assert head["user-agent"].startswith("unimeter/")

    with_site(tmp_path, body)


def test_a_webhook_hears_only_of_what_it_names(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        await make_metric(site, "other")
        ident = await site.webhook(receiver, accounts=["acme", 42], metrics=["credits"])
        await site.cross("acme", 7, 42, "42")
        await site.cross("acme", metric="other")
        await site.cross("acme")
        await receiver.until(lambda: len(receiver.taken) == 3)
        assert receiver.positions == [1, 3, 6]
        await site.until(ident, lambda found: found["lag"] == 0)
        await site.cross(7, 7, 7)
        state = await site.state(ident)
        assert (state["last_alert"], state["through"], state["lag"]) == (9, 6, 0)

    with_site(tmp_path, body)


def test_a_webhook_begins_after_the_newest_alert_unless_it_says_where(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        await site.cross(1, 2, 3)
        await site.webhook(receiver)
        await site.cross(4)
        await receiver.until(lambda: receiver.positions == [4])
        async with Receiver() as other:
            await site.webhook(other, after=1)
            await other.until(lambda: len(other.alerts) == 3)
            assert sorted(other.positions) == [2, 3, 4]

    with_site(tmp_path, body)


def test_two_webhooks_send_the_same_ids_and_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        async with Receiver(behave=lambda message, nth: HANG) as hanging:
            await site.webhook(hanging)
            await site.webhook(receiver)
            await site.cross(1, 1)
            await receiver.until(lambda: receiver.positions == [1, 2])
            await hanging.until(lambda: bool(hanging.arrived))
            assert {one.id for one in hanging.arrived} <= {one.id for one in receiver.arrived}

    with_site(tmp_path, body)


# --- receivers that are bad ----------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [500, 404, 302, 100, HANG, CLOSE, GARBAGE, Said(503, {"retry-after": "1"})],
    ids=str,
)
def test_what_is_no_2xx_is_tried_again_with_the_same_id(tmp_path: Path, how: Behaviour) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = failing([1, 2], how)
        ident = await site.webhook(receiver)
        await site.cross("a", "a", "b")
        await receiver.until(lambda: len(receiver.alerts) == 3)
        receiver.check_order()
        assert [receiver.attempts_of(position) for position in (1, 2, 3)] == [3, 3, 3]
        assert len({message.id for message in receiver.arrived}) == 3
        state = await site.until(ident, lambda found: found["through"] == 3)
        assert (state["rows"], state["failures"], state["error"]) == ([], 0, "")

    with_site(tmp_path, body, ImpatientPlatform() if how in (HANG, 100) else None)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_done(tmp_path: Path, status: int) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(status, body=b"" if status == 204 else b"ok")
        ident = await site.webhook(receiver)
        await site.cross("a")
        await site.until(ident, lambda found: found["through"] == 1)
        assert len(receiver.arrived) == 1

    with_site(tmp_path, body)


def test_a_status_in_time_is_an_answer_though_its_body_never_ends(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(200, drips=True)
        ident = await site.webhook(receiver)
        await site.cross("a")
        await site.until(ident, lambda found: found["through"] == 1)
        assert len(receiver.arrived) == 1

    with_site(tmp_path, body, ImpatientPlatform())


def test_a_large_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(200 + 300 * (nth == 1), body=b"x" * 10**6)
        ident = await site.webhook(receiver)
        await site.cross("a")
        await site.until(ident, lambda found: found["through"] == 1)
        assert len(receiver.arrived) == 2

    with_site(tmp_path, body)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        async with Receiver() as elsewhere:
            receiver.behave = failing([1], Said(307, {"location": elsewhere.url}))
            await site.webhook(receiver)
            await site.cross("a")
            await receiver.until(lambda: len(receiver.alerts) == 1)
            assert not elsewhere.requests

    with_site(tmp_path, body)


def test_what_was_taken_and_not_answered_comes_again_with_its_id(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = failing([1], TAKE_AND_CLOSE)
        await site.webhook(receiver)
        await site.cross("a", "a")
        await receiver.until(lambda: len(receiver.taken) == 4)
        assert receiver.positions == [1, 2]
        receiver.check_order()

    with_site(tmp_path, body)


def test_an_account_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        opened = asyncio.Event()

        def behave(message: Message, nth: int) -> Behaviour:
            is_bad = message.alert.account_id == "bad" and not opened.is_set()
            return HANG if is_bad else 204

        receiver.behave = behave
        ident = await site.webhook(receiver)
        await site.cross("bad", "bad", *["good", "fine"] * 10)
        await receiver.until(lambda: len(receiver.alerts) == 20)
        state = await site.state(ident)
        assert state["through"] == 0
        opened.set()
        await site.until(ident, lambda found: found["through"] == 22)
        receiver.check_order()

    with_site(tmp_path, body, ImpatientPlatform())


def test_a_receiver_that_restarts_gets_everything(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        for begun in range(3):
            await site.cross(*"abcab")
            await receiver.until(lambda least=5 * begun + 2: len(receiver.alerts) >= least)
            await receiver.stop()
            await site.cross(*"bc")
            await site.until(ident, lambda found: found["error"] != "")
            assert (await site.state(ident))["state"] == "active"
            await receiver.start()
            await receiver.until(lambda least=7 * (begun + 1): len(receiver.alerts) == least)
        receiver.check_order()
        await site.until(ident, lambda found: found["lag"] == 0)

    with_site(tmp_path, body)


def test_what_a_receiver_asks_for_holds_for_all_accounts(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        times: list[float] = []

        def behave(message: Message, nth: int) -> Behaviour:
            times.append(asyncio.get_running_loop().time())
            return Said(429, {"retry-after": "1000"}) if len(times) == 1 else 204

        receiver.behave = behave
        await site.webhook(receiver)
        await site.cross("a")
        await receiver.until(lambda: len(times) == 1)
        await site.cross("b", "c")
        await receiver.until(lambda: len(receiver.alerts) == 3)
        assert times[1] - times[0] >= QUICK.retry_after_seconds_max * 0.99, "within its bound"

    with_site(tmp_path, body)


# --- the levers -------------------------------------------------------------------------------


def test_a_webhook_whose_alert_used_all_attempts_is_paused_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(500, body=b"no room\nfor this")
        ident = await site.webhook(receiver)
        await site.cross("a", "a", "a")
        state = await site.until(ident, lambda found: found["state"] == "paused")
        assert receiver.attempts_of(1) == 7
        reason = "alert 1 failed 7 times, the last time with: HTTP 500: no room for this"
        assert state["paused_reason"] == reason
        assert state["through"] == 0 and state["lag"] == 3
        trail = (await site.http.get("/v1/audit")).json()["rows"]
        assert next((line["action"], line["name"], line["via"]) for line in trail) == (
            "webhook.pause",
            "deliveries",
            "node",
        )
        receiver.behave = lambda message, nth: 204
        await site.ask("POST", f"/{ident}/resume")
        await receiver.until(lambda: receiver.positions == [1, 2, 3])
        state = await site.until(ident, lambda found: found["lag"] == 0)
        assert (state["state"], state["error"]) == ("active", "")

    with_site(tmp_path, body)


def test_a_receiver_that_is_gone_pauses_the_webhook_at_once(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: 410
        ident = await site.webhook(receiver)
        await site.cross("a")
        state = await site.until(ident, lambda found: found["state"] == "paused")
        assert "gone" in state["paused_reason"] and "410" in state["paused_reason"]
        assert len(receiver.arrived) == 1

    with_site(tmp_path, body)


def test_a_resumed_webhook_tries_at_once_what_would_have_waited(tmp_path: Path) -> None:
    async def inside() -> None:
        platform = PatientPlatform()
        async with running(tmp_path / "data", platform) as site, Receiver() as receiver:
            await make_metric(site)
            receiver.behave = failing([1])
            ident = await site.webhook(receiver)
            await site.cross("a", "b")
            await site.until(ident, lambda found: found["error"] != "")
            await receiver.until(lambda: len(receiver.arrived) == 2)
            await site.ask("POST", f"/{ident}/pause")
            await site.ask("POST", f"/{ident}/resume")
            await receiver.until(lambda: sorted(receiver.positions) == [1, 2])

    asyncio.run(inside())


def test_a_paused_webhook_sends_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross("a")
        await receiver.until(lambda: receiver.positions == [1])
        shown = await site.ask("POST", f"/{ident}/pause", json={"reason": "moving"})
        assert (shown["state"], shown["paused_reason"]) == ("paused", "moving")
        async with Receiver() as other:
            await site.webhook(other)
            await site.cross("a", "b")
            await other.until(lambda: len(other.alerts) == 2)  # alerts were looked at
        assert receiver.positions == [1]
        await site.ask("POST", f"/{ident}/resume")
        await receiver.until(lambda: sorted(receiver.positions) == [1, 2, 3])

    with_site(tmp_path, body)


def test_an_answer_that_comes_during_a_pause_counts(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(204, after=0.1)
        ident = await site.webhook(receiver)
        await site.cross("a", "a")
        await receiver.until(lambda: receiver.busy == 1)
        await site.ask("POST", f"/{ident}/pause")
        await site.until(ident, lambda found: found["through"] == 1)
        assert receiver.positions == [1]
        await site.ask("POST", f"/{ident}/resume")
        await receiver.until(lambda: receiver.positions == [1, 2])
        assert len(receiver.arrived) == 2, "nothing came twice"

    with_site(tmp_path, body)


def test_a_replay_sends_again_from_its_position_with_the_same_ids(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross("a", "b", "a", "b")
        await site.until(ident, lambda found: found["through"] == 4)
        shown = await site.ask("POST", f"/{ident}/replay", json={"after": 1})
        assert shown["through"] == 1
        await receiver.until(lambda: len(receiver.taken) == 7)
        assert sorted(message.data["position"] for message in receiver.taken[4:]) == [2, 3, 4]
        assert len({message.id for message in receiver.taken}) == 4
        assert (await site.until(ident, lambda found: found["lag"] == 0))["replays"] == 1
        await site.ask("POST", f"/{ident}/replay", 400, json={"after": 5})

    with_site(tmp_path, body)


def test_a_replay_wins_over_an_answer_that_comes_later(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(204, after=0.2 if nth == 1 else 0.0)
        ident = await site.webhook(receiver)
        await site.cross("a")
        await receiver.until(lambda: receiver.busy == 1)
        await site.ask("POST", f"/{ident}/replay", json={"after": 0})
        await receiver.until(lambda: len(receiver.arrived) == 2)
        await site.until(ident, lambda found: found["through"] == 1)
        assert {message.id for message in receiver.arrived} == {receiver.arrived[0].id}

    with_site(tmp_path, body)


def test_a_deleted_webhook_sends_nothing_more(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: 500
        ident = await site.webhook(receiver)
        await site.cross("a")
        await receiver.until(lambda: len(receiver.arrived) >= 2)
        await site.ask("DELETE", f"/{ident}", 204)
        count = len(receiver.arrived)
        async with Receiver() as other:
            await site.webhook(other)
            await site.cross("a")
            await other.until(lambda: len(other.alerts) == 1)
        assert len(receiver.arrived) == count
        for path in ("", "/deliveries"):
            await site.ask("GET", f"/{ident}{path}", 404)
        for path in ("/pause", "/resume", "/test"):
            await site.ask("POST", f"/{ident}{path}", 404)
        assert site.server.clients.webhooks.statistics()["webhook_senders"] == 1

    with_site(tmp_path, body)


def test_a_test_message_is_signed_and_tells_what_came_of_it(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        found = await site.ask("POST", f"/{ident}/test")
        assert found == {"delivered": True, "status": 204, "error": None}
        (message,) = receiver.taken
        assert message.type == "webhook.test" and message.data == {"webhook": ident}
        receiver.behave = lambda message, nth: Said(500, body=receiver.secret.encode())
        found = await site.ask("POST", f"/{ident}/test")
        assert found == {"delivered": False, "status": 500, "error": "HTTP 500: ..."}
        await receiver.stop()
        found = await site.ask("POST", f"/{ident}/test")
        assert not found["delivered"] and found["status"] is None and "connect" in found["error"]

    with_site(tmp_path, body)


def test_what_an_internal_server_says_is_shown_to_nobody_beyond_this_host(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        receiver.behave = lambda message, nth: Said(403, body=b"db_password=hunter2")
        found = await site.ask("POST", f"/{ident}/test")
        assert found["error"] == "HTTP 403: db_password=hunter2"  # bound to loopback: one host
        site.server.clients.webhooks.tells_all = False
        await site.cross("a")
        state = await site.until(ident, lambda found: found["failures"] > 0)
        found = await site.ask("POST", f"/{ident}/test")
        assert state["error"] == found["error"] == "HTTP 403"

    with_site(tmp_path, body)


@pytest.mark.parametrize(("bind", "tells_all"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_node_that_other_hosts_reach_keeps_to_itself_what_internal_servers_say(
    bind: str, tells_all: bool
) -> None:
    async def inside() -> None:
        async with Server(":memory:", port=0, http_port=0, bind=bind, insecure=True) as server:
            assert server.clients.webhooks.tells_all == tells_all

    asyncio.run(inside())


def test_a_secret_is_shown_once_and_never_again(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(500, body=b"you sent " + secret.encode())
        ident = await site.webhook(receiver)
        secret = receiver.secret
        await site.cross("a")
        await site.until(ident, lambda found: "you sent" in found["error"])
        for path in ("", f"/{ident}", f"/{ident}/deliveries", "?format=csv"):
            answer = await site.http.get(f"/v1/webhooks{path}")
            assert secret.removeprefix("whsec_") not in answer.text
        assert secret.removeprefix("whsec_") not in (await site.http.get("/v1/audit")).text

    with_site(tmp_path, body)


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/", "http://", "http:///path", "host/path", "http://user:word@host/",
     "http://host:99999/", "http://[::1/", "http://ho st/", "https://h\u00f6st/", "http://host:0/"],
)  # fmt: skip
def test_a_url_that_nothing_could_be_sent_to_is_refused(tmp_path: Path, url: str) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        problem = await site.ask("POST", "", 400, json={"url": url})
        assert "url" in problem["detail"].lower()

    with_site(tmp_path, body)


def test_a_url_that_the_library_chokes_on_is_a_failure_and_stops_nothing(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        url = "http://127.0.0.1:99999/"  # the route would refuse it, the log does not
        made = await site.client.webhooks.create(url)
        await site.cross("a")
        state = await site.until(made.id, lambda found: found["state"] == "paused")
        assert "port must be 0-65535" in state["error"]
        assert site.server.failure is None

    with_site(tmp_path, body)


# --- over the life of a node ------------------------------------------------------------------


def test_a_node_that_restarts_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def inside() -> None:
        bad = {"a"}

        def behave(message: Message, nth: int) -> Behaviour:
            return 500 if message.alert.account_id in bad else 204

        async with Receiver(behave=behave) as receiver:
            async with running(tmp_path / "data", PatientPlatform()) as site:
                await make_metric(site)
                ident = await site.webhook(receiver)
                await site.cross(*"abcab")
                sender = site.server.clients.webhooks._senders[ident]
                await receiver.until(lambda: sender.lanes.state().done == (2, 3, 5))
                await receiver.until(lambda: sender.lanes.failures_of(1) == 1)
            async with running(tmp_path / "data", PatientPlatform()) as site:
                state = await site.state(ident)
                assert [(row["position"], row["attempts"]) for row in state["rows"]] == [(1, 1)]
                assert (state["through"], state["delivered_ahead"]) == (0, 3)
                await site.cross("c")
                await receiver.until(lambda: sorted(receiver.positions) == [2, 3, 5, 6])
                sender = site.server.clients.webhooks._senders[ident]
                assert sender.lanes.failures_of(1) == 1, "the patience is that of the first node"
                assert len(receiver.arrived) == 5, "and nothing was sent again"
                bad.clear()
                await site.ask("POST", f"/{ident}/pause")
                await site.ask("POST", f"/{ident}/resume")
                await receiver.until(lambda: len(receiver.alerts) == 6)
            assert [receiver.attempts_of(position) for position in range(1, 7)] == [2, *[1] * 5]
            receiver.check_order()

    asyncio.run(inside())


def test_a_node_that_no_longer_leads_stops_at_once_and_has_no_say(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = lambda message, nth: Said(204, after=0.2 if nth == 1 else 0.0)
        ident = await site.webhook(receiver)
        await site.cross("a", "a")
        await receiver.until(lambda: receiver.busy == 1)
        node, webhooks = site.server.node, site.server.clients.webhooks
        sender = webhooks._senders[ident]
        node.leads = False  # as while the lead is handed over: nobody is told
        await receiver.until(lambda: webhooks.statistics()["webhook_senders"] == 0)
        assert sender.lanes.through == 0 and len(receiver.arrived) == 1
        assert webhooks.statistics()["webhook_delivered"] == 0
        node.leads = True
        webhooks.lead_taken()
        await site.until(ident, lambda found: found["through"] == 2)
        assert receiver.attempts_of(1) == 2, "what was not recorded came again"

    with_site(tmp_path, body)


def test_a_new_leader_waits_for_what_the_old_one_recorded(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross("a")
        await site.until(ident, lambda found: found["through"] == 1)
        node, webhooks = site.server.node, site.server.clients.webhooks
        log = node.replica.raft
        webhooks.stop_sending()
        await site.cross("a")
        webhooks._catch_up(webhooks._lead, log.last_index + 1)
        assert not webhooks.is_leading, "an entry of before is not applied here"
        await site.cross("a")
        await receiver.until(lambda: receiver.positions == [1, 2, 3])

    with_site(tmp_path, body)


def test_a_proposal_that_is_not_taken_is_made_again(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross("b")
        await site.until(ident, lambda found: found["through"] == 1)
        node = site.server.node
        receiver.behave = lambda message, nth: refusing("the disk is full")

        def refusing(words: str) -> int:
            node.refusal = words
            return 410 if words else 204

        await site.cross("a")
        sender = site.server.clients.webhooks._senders[ident]
        await receiver.until(lambda: sender.lanes.failures_of(2) == 1)
        assert (await site.state(ident))["state"] == "active"
        refusing("")
        state = await site.until(ident, lambda found: found["state"] == "paused" and found["rows"])
        assert state["rows"][0]["attempts"] == 1

    with_site(tmp_path, body)


def test_nothing_goes_into_the_log_while_nothing_happens(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        ident = await site.webhook(receiver)
        await site.cross(*"ab" * 50)
        await site.until(ident, lambda found: found["lag"] == 0)
        node = site.server.node
        applied = node.machine.applied
        async with Receiver() as other:
            quiet = await site.webhook(other, accounts=["nobody"])
            made = node.machine.applied
            assert made == applied + 1
            for _ in range(20):
                await site.cross("a")
            await receiver.until(lambda: len(receiver.alerts) == 120)
            await site.until(ident, lambda found: found["lag"] == 0)
            state = await site.state(quiet)
            assert state["through"] == 100, "what is passed over is not worth an entry"
            assert not other.arrived
        applied = node.machine.applied
        for _ in range(50):
            await asyncio.sleep(0)
        assert node.machine.applied == applied

    with_site(tmp_path, body)


def test_progress_of_many_deliveries_shares_few_entries(tmp_path: Path) -> None:
    async def inside() -> None:
        platform = Platform()
        async with running(tmp_path / "data", platform) as site, Receiver() as receiver:
            await make_metric(site)
            ident = await site.webhook(receiver)
            before = site.server.node.machine.applied
            began = asyncio.get_running_loop().time()
            await site.cross(*range(500))
            await site.until(ident, lambda found: found["lag"] == 0)
            seconds = asyncio.get_running_loop().time() - began
            entries = site.server.node.machine.applied - before
            assert entries <= 3 + seconds / platform.webhook_pace.record_seconds

    asyncio.run(inside())


def test_statistics_count_attempts_by_what_came_of_them(tmp_path: Path) -> None:
    async def body(site: Site, receiver: Receiver) -> None:
        receiver.behave = failing([1])
        ident = await site.webhook(receiver)
        await site.cross(*"abc")
        await site.until(ident, lambda found: found["lag"] == 0)
        counts = site.server.clients.webhooks.statistics()
        assert (counts["webhook_delivered"], counts["webhook_failed"]) == (3, 3)
        assert (counts["webhook_inflight"], counts["webhook_lag"]) == (0, 0)
        await site.ask("POST", f"/{ident}/pause")
        assert site.server.clients.webhooks.statistics()["webhook_paused"] == 1

    with_site(tmp_path, body)


# --- small parts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("9" * 30, 0.0),
        ("Thu, 05 Nov 2026 10:31:00 GMT", 60.0),
        ("Thu, 05 Nov 2026 10:29:00 GMT", 0.0),
    ],
)
def test_a_time_to_come_again_is_seconds_or_a_date(text: str, seconds: float) -> None:
    now_ns = 1_793_874_600 * 10**9  # 2026-11-05T10:30:00Z
    assert webhook_sender.retry_after(text, now_ns) == seconds
