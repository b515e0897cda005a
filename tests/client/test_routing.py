"""Addresses, partitions and whom to ask next."""

from __future__ import annotations

import zlib

import pytest

from unimeter.client.routing import (
    MAP_SECONDS_MIN,
    SUSPECT_SECONDS,
    SUSPECT_SECONDS_MAX,
    Router,
    knows_leader,
    parse_address,
    parse_seeds,
    partition_of,
)
from unimeter.errors import InvalidInputError
from unimeter.types import PARTITION_COUNT
from unimeter.wire.messages import PartitionRoute


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:7001", ("localhost", 7001)),
        ("localhost", ("localhost", 7001)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 7001)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_address_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":7001", "host:0", "host:65536", "host:http", "host:"])
def test_address_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInputError, match="localhost:7001"):
        parse_address(text)


def test_seeds_are_a_list_or_a_string_with_commas() -> None:
    assert parse_seeds("a, b:2") == ["a:7001", "b:2"]
    assert parse_seeds(["a", "[::1]:3"]) == ["a:7001", "[::1]:3"]
    for bad in ([], "", [7001]):
        with pytest.raises(InvalidInputError):
            parse_seeds(bad)  # type: ignore[arg-type]


def test_partition_is_stable() -> None:
    assert partition_of(2**64 - 1) == 255
    assert partition_of("acme") == zlib.crc32(b"acme") % 256 == 62


def a_map(leader: str, *replicas: str) -> list[PartitionRoute]:
    return [PartitionRoute(leader, list(replicas)) for _ in range(PARTITION_COUNT)]


def cluster(leader: str = "x:1", seeds: tuple[str, ...] = ("x:1", "y:1", "z:1")) -> Router:
    router = Router(list(seeds))
    router.learn(a_map(leader, "x:1", "y:1", "z:1"), "y:1")
    return router


def test_leader_is_first_then_replicas_then_seeds_each_once() -> None:
    router = Router(["s:1", "x:1"])
    routes = [PartitionRoute(f"{'xy'[i % 2]}:1", ["x:1", "z:1"]) for i in range(PARTITION_COUNT)]
    router.learn(routes, "s:1")
    assert router.order(1) == ["y:1", "x:1", "z:1", "s:1"]
    assert router.nodes() == ["x:1", "z:1", "y:1"]
    assert router.is_divided()


def test_incomplete_map_is_ignored() -> None:
    router = Router(["s:1"])
    router.learn([PartitionRoute("a:1"), PartitionRoute("b:1")], "s:1")
    assert router.nodes() == ["s:1"]


def test_a_node_that_failed_comes_last_for_a_while_for_every_call() -> None:
    router = cluster()
    router.failed("x:1", 10.0)
    assert router.choose(7, 10.0) == "y:1"
    assert router.choose(9, 10.99) == "y:1"
    assert router.choose(9, 11.0) == "x:1"
    router.failed("x:1", 11.0)
    assert router.choose(9, 12.9) == "y:1", "the second time for twice as long"
    router.answered("x:1")
    assert router.choose(9, 12.9) == "x:1"
    router.failed("x:1", 12.9)
    assert router.choose(9, 13.9) == "x:1", "what it did before it answered is forgotten"


def test_suspicion_has_an_end_however_often_a_node_failed() -> None:
    router = cluster()
    now = 0.0
    for _ in range(100):
        router.failed("x:1", now)
        now += SUSPECT_SECONDS_MAX
    assert router.choose(0, now - 0.1) != "x:1"
    assert router.choose(0, now) == "x:1"


def test_one_lost_connection_is_one_failure_however_many_calls_it_had() -> None:
    router = cluster()
    for _ in range(100):
        router.failed("x:1", 0.0)
    assert router.choose(0, SUSPECT_SECONDS) == "x:1"


def test_when_all_are_suspects_each_gets_its_turn() -> None:
    router, seen, now = cluster(), [], 0.0
    last = ""
    for _ in range(9):
        last = router.choose(0, now, last)
        seen.append(last)
        router.failed(last, now)
        now += 0.1
    assert set(seen[:3]) == set(seen[3:6]) == {"x:1", "y:1", "z:1"}


def test_the_only_node_is_asked_whatever_it_did() -> None:
    router = Router(["a:1"])
    router.failed("a:1", 0.0)
    assert router.choose(0, 0.0, avoid="a:1") == "a:1"
    assert not router.should_ask(5.0), "there is nobody else to ask for a map"


def test_the_node_to_avoid_is_avoided_only_while_there_is_another() -> None:
    router = cluster()
    assert router.choose(0, 0.0, avoid="x:1") == "y:1"
    router.failed("y:1", 0.0)
    router.failed("z:1", 0.0)
    assert router.choose(0, 0.5, avoid="x:1") in ("y:1", "z:1")


def test_a_map_that_names_a_new_leader_clears_what_was_held_against_it() -> None:
    router = cluster("x:1")
    router.failed("x:1", 0.0)
    router.refused("z:1", 0.0)
    router.learn(a_map("z:1", "x:1", "y:1"), "y:1")
    assert router.choose(0, 0.1) == "z:1"


def test_a_map_that_still_names_the_dead_leader_does_not_send_us_back() -> None:
    router = cluster("x:1")
    router.failed("x:1", 0.0)
    router.learn(a_map("x:1", "y:1", "z:1"), "y:1")
    assert router.choose(0, 0.1) == "y:1"


def test_a_node_that_is_cut_off_does_not_make_us_forget_the_leader() -> None:
    router = cluster("x:1")
    router.learn(a_map("", "x:1", "y:1", "z:1"), "z:1")
    assert router.choose(0, 0.0) == "x:1"
    router.failed("x:1", 0.0)
    router.learn(a_map("", "x:1", "y:1", "z:1"), "z:1")
    assert router.order(0)[0] != "" and router.choose(0, 0.1) == "y:1"


def test_a_map_is_asked_for_after_a_failure_once_at_a_time() -> None:
    router = cluster()
    assert not router.should_ask(0.0)
    router.failed("x:1", 0.0)
    assert router.should_ask(0.0)
    router.asks(0.0)
    assert not router.should_ask(MAP_SECONDS_MIN / 2)
    assert router.should_ask(MAP_SECONDS_MIN), "the answer may never come"
    router.learn(a_map("y:1", "x:1", "z:1"), "y:1")
    assert not router.should_ask(9.0)


def test_spread_reads_go_to_every_node_and_an_account_to_one() -> None:
    router = cluster("y:1")
    chosen = [router.choose(partition, 0.0, spread=True) for partition in range(6)]
    assert chosen == ["x:1", "y:1", "z:1", "x:1", "y:1", "z:1"]
    router.learn(a_map("z:1", "x:1", "y:1"), "x:1")
    assert [router.choose(partition, 0.0, spread=True) for partition in range(6)] == chosen
    router.failed("y:1", 0.0)
    assert router.choose(1, 0.0, spread=True) == "z:1"
    assert {router.choose(partition, 0.0) for partition in range(6)} == {"z:1"}


def test_redirect_keeps_the_old_leader_as_a_replica() -> None:
    router = cluster("x:1")
    router.failed("n:1", 0.0)
    router.redirect(3, "n:1")
    assert router.order(3)[:2] == ["n:1", "x:1"] and router.choose(3, 0.0) == "n:1"
    assert router.order(4)[0] == "x:1" and router.is_divided()


def test_leader_of_every_partition_or_none() -> None:
    assert knows_leader(a_map("x:1"))
    assert not knows_leader([*a_map("x:1")[1:], PartitionRoute("")])
