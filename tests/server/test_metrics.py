"""/metrics: every stage has its family, labels are bounded, and the documentation says the same."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import httpx
import pytest
from tests.deploy.watched import Scrape, busy_node, certificate, one_node, page, three_nodes

from unimeter.server.statistics import REFUSALS, Elections, Statistics
from unimeter.types import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "metrics.md"


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """One node that has seen a little of everything."""

    async def body() -> Scrape:
        found = Scrape()
        async with one_node(tmp_path_factory.mktemp("watched") / "data") as server:
            await busy_node(server)
            found.read(await page(server))
        return found

    return asyncio.run(body())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> list[Scrape]:
    """Three nodes of which a follower was sent events."""

    async def body() -> list[Scrape]:
        async with three_nodes(tmp_path_factory.mktemp("cluster")) as servers:
            leader = next(server for server in servers if server.node.leads)
            follower = next(server for server in servers if not server.node.leads)
            await busy_node(leader)
            url = f"http://127.0.0.1:{follower.http_port}/v1/events"
            async with httpx.AsyncClient(timeout=10) as http:
                answer = await http.post(url, json=[{"account": 1, "metric": "api_calls"}])
                assert answer.status_code == 200, answer.text
            found = []
            for server in (leader, follower):
                found.append(Scrape())
                found[-1].read(await page(server))
            return found

    return asyncio.run(body())


def documented() -> dict[str, str]:
    """Name and type of every family in the tables."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `unimeter_"):
            name, kind = line.split("|")[1:3]
            found[name.strip(" `").removesuffix("_total")] = kind.strip()
    return found


def besides(head: str) -> set[str]:
    """The families of the list that begins with these words."""
    after = PAGE.read_text(encoding="utf-8").split(f"{head}\n\n")[1].split("\n\n")[0]
    return {line.split("`")[1].removesuffix("_total") for line in after.splitlines()}


def test_the_page_lists_every_family_with_its_type(scrape: Scrape) -> None:
    served = {name: kind for name, kind in scrape.types.items() if name.startswith("unimeter_")}
    assert served == documented()


def test_a_cluster_has_the_families_that_the_page_names_beside_the_tables(
    scrape: Scrape, cluster: list[Scrape]
) -> None:
    for one in cluster:
        more = {name for name in one.types if name.startswith("unimeter_")} - set(documented())
        assert more == besides("A node of a cluster also has")


def test_each_outcome_has_its_own_line(scrape: Scrape) -> None:
    outcomes = scrape.names["unimeter_events_total"]["outcome"]
    assert outcomes == {outcome.name.lower() for outcome in Outcome}
    assert scrape.value("unimeter_events_total", outcome="stored") == 15
    assert scrape.value("unimeter_events_total", outcome="duplicate") == 10
    assert scrape.value("unimeter_events_total", outcome="unknown_metric") == 2


def test_events_are_counted_by_the_way_they_came(scrape: Scrape, cluster: list[Scrape]) -> None:
    assert scrape.value("unimeter_ingest_events_total", port="binary") == 22
    assert scrape.value("unimeter_ingest_events_total", port="http") == 5
    assert scrape.value("unimeter_ingest_bytes_total", port="http") > 0
    leader, follower = cluster
    assert leader.value("unimeter_ingest_events_total", port="peer") == 1
    assert follower.value("unimeter_ingest_events_total", port="http") == 0
    assert follower.value("unimeter_requests_total", result="forwarded") >= 1


def test_a_route_is_a_pattern_and_never_a_url(scrape: Scrape) -> None:
    routes = scrape.names["unimeter_http_requests_total"]["route"]
    assert {"/health", "/ready", "/v1/status", "/v1/events", "none"} <= routes
    assert "a-customer" not in scrape.text and "api_calls" not in scrape.text
    where = {"route": "/v1/events", "method": "POST"}
    assert scrape.value("unimeter_http_requests_total", status="2xx", **where) == 1
    assert scrape.value("unimeter_http_request_seconds_count", **where) == 1
    assert scrape.value("unimeter_http_request_bytes_total", **where) > 100
    assert scrape.value("unimeter_http_response_bytes_total", **where) > 10
    assert scrape.value("unimeter_http_in_flight", **where) == 0
    missing = {"route": "none", "method": "none", "status": "4xx"}
    assert scrape.value("unimeter_http_requests_total", **missing) == 1


def test_entries_are_timed_and_counted(scrape: Scrape) -> None:
    applied = scrape.value("unimeter_entries_applied_total")
    assert applied == scrape.value("unimeter_apply_seconds_count") >= 4
    assert scrape.value("unimeter_commit_seconds_count") >= 4
    assert scrape.value("unimeter_apply_lag_entries") == 0
    assert scrape.value("unimeter_dedup_keys") == 15


def test_a_cluster_tells_elections_and_lag(cluster: list[Scrape]) -> None:
    leader, follower = cluster
    assert leader.value("unimeter_times_led_total") >= 1
    assert leader.value("unimeter_leader") == 1 and follower.value("unimeter_leader") == 0
    assert follower.value("unimeter_leader_known") == 1
    assert follower.names["unimeter_replica_lag_entries"]["node"] == {"1", "2", "3"}
    assert len(follower.names["unimeter_peer_up"]["node"]) == 2


def test_what_is_refused_is_counted_by_reason_and_all_of_it() -> None:
    counts = Statistics()
    outcomes = bytes([0, 1, 2, 20, 20, 13, 23, 0])
    counts.count_refused(memoryview(outcomes), 5)
    assert {kind: seen for kind, seen in counts.refused.items() if seen} == {
        Outcome.CONFLICT: 1, Outcome.UNKNOWN_METRIC: 2, Outcome.BAD_VALUE: 1,
        Outcome.TOO_MANY_COMBINATIONS: 1,
    }  # fmt: skip
    assert sum(counts.refused.values()) == sum(byte in REFUSALS for byte in outcomes)
    with pytest.raises(AssertionError, match="fewer refused"):
        counts.count_refused(memoryview(bytes([2, 0])), 2)


def test_an_election_is_counted_once() -> None:
    seen = Elections()
    seen.note(0, 1, False)
    seen.note(2, 1, False)
    seen.note(0, 1, False)  # the leader is lost
    seen.note(2, 1, False)  # and found again: no new one
    seen.note(0, 2, False)
    seen.note(1, 2, True)
    assert (seen.term_changes, seen.lead_changes, seen.times_led) == (1, 1, 1)


def test_a_snapshot_has_size_age_and_duration(tmp_path: Path) -> None:
    async def body() -> None:
        found = Scrape()
        async with one_node(tmp_path / "data") as server:
            await busy_node(server)
            assert server.node.upkeep.begin_snapshot(background=False)
            server.node.tick()
            found.read(await page(server))
        assert found.value("unimeter_snapshots_total", result="written") == 1
        assert found.value("unimeter_snapshot_seconds_count") == 1
        size = found.value("unimeter_snapshot_bytes")
        assert size > 1000
        assert 0 <= found.value("unimeter_snapshot_age_seconds") < 60
        again = Scrape()
        async with one_node(tmp_path / "data") as server:
            again.read(await page(server))
        assert again.value("unimeter_snapshot_bytes") > 1000, "known after a restart"
        assert again.value("unimeter_snapshot_index") > 0

    asyncio.run(body())


def test_a_node_with_tls_tells_when_its_certificate_ends(tmp_path: Path) -> None:
    async def body() -> Scrape:
        found = Scrape()
        async with one_node(tmp_path / "data", **certificate(tmp_path, days=3)) as server:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient() as client:  # in plain text
                    await client.get(f"http://127.0.0.1:{server.http_port}/health")
            found.read(await page(server))
        return found

    found = asyncio.run(body())
    more = {name for name in found.types if name.startswith("unimeter_")} - set(documented())
    assert more == besides("A node with TLS also has")
    left = found.value("unimeter_tls_certificate_expires_seconds") - time.time()
    assert abs(left - 3 * 86_400) < 600
    assert found.value("unimeter_tls_refused_total", reason="plain") == 1
