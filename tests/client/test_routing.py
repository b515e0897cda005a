"""Addresses, partitions and whom to ask next."""

from __future__ import annotations

import zlib

import pytest

from unimeter.client.routing import Router, parse_address, parse_seeds, partition_of
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


def test_leader_is_first_then_replicas_then_seeds_each_once() -> None:
    router = Router(["s:1", "x:1"])
    routes = [PartitionRoute(f"{'xy'[i % 2]}:1", ["x:1", "z:1"]) for i in range(PARTITION_COUNT)]
    router.learn(routes, "s:1")
    assert [router.address(1, failures) for failures in range(5)] == [
        "y:1",
        "x:1",
        "z:1",
        "s:1",
        "y:1",
    ]
    assert router.nodes() == ["x:1", "z:1", "y:1"]


def test_incomplete_map_is_ignored() -> None:
    router = Router(["s:1"])
    router.learn([PartitionRoute("a:1"), PartitionRoute("b:1")], "s:1")
    assert router.nodes() == ["s:1"]
