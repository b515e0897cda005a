"""Which node to ask: the partition map, the seeds, and who failed last.

Owns the choice of an address for a partition. Refuses to open connections;
the drivers report what failed and what answered.

An account belongs to one of `PARTITION_COUNT` partitions; the map names each
partition's leader and replicas. The first choice is the leader; every failure
in a row moves on to the next candidate, and any node forwards what it does
not lead, so a stale map costs a hop and never an answer.

A map that names a single node is ignored in favour of the address that
answered: the node may advertise a name that only its own host can resolve,
and there is nobody else to ask.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from unimeter.errors import InvalidInputError
from unimeter.types import PARTITION_COUNT, Account
from unimeter.wire.messages import PartitionRoute

PORT_DEFAULT = 7001


def partition_of(account: Account) -> int:
    """The partition of an account; a string by the CRC-32 of its UTF-8 bytes."""
    if isinstance(account, int):
        return account % PARTITION_COUNT
    return zlib.crc32(account.encode()) % PARTITION_COUNT


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, ``host`` or ``[v6]:port``; raise InvalidInputError with the fix."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, str(PORT_DEFAULT)
    host = host.strip("[]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInputError(f"{text!r} is not an address; write 'localhost:{PORT_DEFAULT}'")
    return host, int(port)


def parse_seeds(seeds: str | Sequence[str]) -> list[str]:
    """The addresses to start from: a list, or one string with commas."""
    if isinstance(seeds, str):
        seeds = [part.strip() for part in seeds.split(",") if part.strip()]
    addresses = []
    for seed in seeds:
        if not isinstance(seed, str):
            raise InvalidInputError(f"a seed must be a str like 'localhost:7001', not {seed!r}")
        host, port = parse_address(seed.removeprefix("unimeter://").rstrip("/"))
        addresses.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if not addresses:
        raise InvalidInputError("no seeds; write Client(['localhost:7001'])")
    return addresses


class Router:
    """The map as last seen, and the turn each partition has come to."""

    def __init__(self, seeds: list[str]) -> None:
        assert seeds
        self.seeds = list(seeds)
        self._routes: list[PartitionRoute] = []
        self._candidates: dict[int, list[str]] = {}

    def candidates(self, partition: int) -> list[str]:
        """Addresses to try for a partition, best first, each once."""
        assert 0 <= partition < PARTITION_COUNT, partition
        if not self._routes:
            return self.seeds
        known = self._candidates.get(partition)
        if known is None:
            route = self._routes[partition]
            named = [route.leader, *route.replicas, *self.seeds]
            known = self._candidates[partition] = list(dict.fromkeys(a for a in named if a))
        return known

    def address(self, partition: int, failures: int) -> str:
        """The address for the next attempt, after so many failures in a row."""
        candidates = self.candidates(partition)
        return candidates[failures % len(candidates)]

    def nodes(self) -> list[str]:
        """Every address known, each once."""
        named: dict[str, None] = {}
        for route in self._routes:
            for address in (route.leader, *route.replicas):
                if address:
                    named[address] = None
        return list(named) or list(self.seeds)

    def learn(self, routes: list[PartitionRoute], answered_by: str) -> None:
        """Take a new map from the node at `answered_by`."""
        addresses = {a for route in routes for a in (route.leader, *route.replicas) if a}
        self._candidates = {}
        if len(routes) == PARTITION_COUNT and len(addresses) > 1:
            self._routes = list(routes)
        else:
            self._routes = []
            self.prefer(answered_by)

    def prefer(self, address: str) -> None:
        """Start with this seed from now on: it answered."""
        if address in self.seeds and self.seeds[0] != address:
            self.seeds.remove(address)
            self.seeds.insert(0, address)

    def redirect(self, partition: int, address: str) -> None:
        """Another node leads this partition: it is the first choice from now on."""
        known = [a for a in self.candidates(partition) if a != address]
        if not self._routes:
            self._routes = [PartitionRoute("") for _ in range(PARTITION_COUNT)]
        route = self._routes[partition]
        self._routes[partition] = PartitionRoute(address, route.replicas)
        self._candidates[partition] = [address, *known]
