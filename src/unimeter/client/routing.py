"""Which node to ask: the partition map, the seeds, and who failed last.

Owns the choice of an address for a partition. Refuses to open connections;
the drivers report what failed and what answered.

An account belongs to one of `PARTITION_COUNT` partitions; the map names each
partition's leader and replicas. The order of choice is leader, replicas, seeds.
Any node takes any request and forwards it, so a wrong map costs a hop and never
an answer. For the same reason nobody waits for the new leader to be known: after
a failure the next node is as good.

    leader lost ──> suspect ──> next node: its map, the request (it holds or forwards it)
                      └─ 1 s, 2 s, 4 s ... later it is tried in its place again

A suspect is not left out, only put last. So the calls of one client learn from each
other's failures, and a client that suspects every node still tries them all.

A map that names no leader does not displace the leader we know and do not suspect:
the node that answers may be the one that is cut off. A map that names a single
node is ignored in favour of the address that answered: the node may advertise a
name that only its own host can resolve, and there is nobody else to ask.

Rejected: a version in the map to tell new from old. Nodes hear of a leader in any
order, a stale answer costs a hop, and the next answer is better.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unimeter.errors import InvalidInputError
from unimeter.types import PARTITION_COUNT, Account
from unimeter.wire.messages import PartitionRoute

PORT_DEFAULT = 7001
SUSPECT_SECONDS = 1.0  # after a first failure: about an election; doubled by each further one
SUSPECT_SECONDS_MAX = 30.0  # a node that was away for long costs a try this often
LEADERLESS_SECONDS = 0.25  # a node that knew no leader may know one soon
MAP_SECONDS_MIN = 0.05  # between two questions for a map: many calls fail at the same moment


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


class Suspicion(NamedTuple):
    """What is held against a node."""

    failed_at: float
    until: float  # when it may be the first choice again
    failures: int  # in a row; each was a try after the last suspicion had ended


class Router:
    """The map as last seen, and which nodes failed since."""

    def __init__(self, seeds: list[str]) -> None:
        assert seeds
        self.seeds = list(seeds)
        self._routes: list[PartitionRoute] = []
        self._orders: dict[tuple[int, bool], list[str]] = {}  # what `order` returned
        self._suspects: dict[str, Suspicion] = {}  # by address
        self._is_divided = False
        self._is_stale = False  # a failure since the last map
        self._asked = -MAP_SECONDS_MIN  # when a map was last asked for

    # --- whom to ask -----------------------------------------------------------

    def order(self, partition: int, spread: bool = False) -> list[str]:
        """Addresses for a partition, best first, each once; failures aside.

        `spread` is for reads that any node may answer: nodes take turns by partition,
        so that an account is always read at the same one.
        """
        assert 0 <= partition < PARTITION_COUNT, partition
        if not self._routes:
            return self.seeds
        known = self._orders.get((partition, spread))
        if known is None:
            route = self._routes[partition]
            named = [a for a in (route.leader, *route.replicas) if a]
            if spread and named:
                named = sorted(set(named))
                turn = partition % len(named)
                named = named[turn:] + named[:turn]
            known = list(dict.fromkeys([*named, *self.seeds]))
            self._orders[partition, spread] = known
        return known

    def choose(self, partition: int, now: float, avoid: str = "", spread: bool = False) -> str:
        """The address for the next attempt.

        `avoid` is where the last attempt of the same call failed: then whoever failed
        longest ago is next, so that a call in need gets round to every node.
        """
        order = self.order(partition, spread)
        if not self._suspects and order[0] != avoid:
            return order[0]
        others = [address for address in order if address != avoid] or order
        healthy = [address for address in others if not self.is_suspect(address, now)]
        if healthy and not avoid:
            return healthy[0]
        return min(healthy or others, key=self._failed_at)

    def _failed_at(self, address: str) -> float:
        known = self._suspects.get(address)
        return -math.inf if known is None else known.failed_at

    def choices(self, partition: int, now: float) -> tuple[int, int]:
        """How many addresses there are to try, and how many of them nobody suspects."""
        order = self.order(partition)
        return len(order), sum(not self.is_suspect(address, now) for address in order)

    def nodes(self) -> list[str]:
        """Every address known, each once."""
        named: dict[str, None] = {}
        for route in self._routes:
            for address in (route.leader, *route.replicas):
                if address:
                    named[address] = None
        return list(named) or list(self.seeds)

    def is_divided(self) -> bool:
        """Whether different partitions are led by different nodes."""
        return self._is_divided

    # --- what happened -----------------------------------------------------------

    def failed(self, address: str, now: float) -> None:
        """No reply came from there: put it last for a while.

        Many calls lose one connection at the same moment: that is one failure.
        """
        known = self._suspects.get(address, Suspicion(now, now, 0))
        failures = known.failures + (not known.failures or now >= known.until)
        seconds = min(SUSPECT_SECONDS_MAX, SUSPECT_SECONDS * 2 ** min(failures - 1, 16))
        self._suspects[address] = Suspicion(now, now + seconds, failures)
        self._is_stale = True

    def refused(self, address: str, now: float) -> None:
        """A reply came, and the node knows no leader: others first for a moment."""
        self._suspects[address] = Suspicion(now, now + LEADERLESS_SECONDS, 0)
        self._is_stale = True

    def answered(self, address: str) -> None:
        """It works: nothing is held against it any more."""
        if self._suspects:
            self._suspects.pop(address, None)

    def is_suspect(self, address: str, now: float) -> bool:
        """Whether it failed lately."""
        known = self._suspects.get(address)
        return known is not None and now < known.until

    # --- the map -------------------------------------------------------------------

    def should_ask(self, now: float) -> bool:
        """Whether something failed since the last map, and nobody has just asked for another."""
        return self._is_stale and now - self._asked >= MAP_SECONDS_MIN and len(self.order(0)) > 1

    def asks(self, now: float) -> None:
        """A map is being asked for."""
        self._asked = now

    def learn(self, routes: list[PartitionRoute], answered_by: str) -> None:
        """Take a new map from the node at `answered_by`."""
        addresses = {a for route in routes for a in (route.leader, *route.replicas) if a}
        self._orders = {}
        self._is_stale = False
        if len(routes) != PARTITION_COUNT or len(addresses) <= 1:
            self._routes, self._is_divided = [], False
            self.prefer(answered_by)
            return
        before = _leaders(self._routes)
        if self._routes:
            routes = [
                self._keep_leader(old, new) for old, new in zip(self._routes, routes, strict=True)
            ]
        self._routes = list(routes)
        leaders = _leaders(routes)
        self._is_divided = len(leaders) > 1
        if before:
            for leader in leaders - before:
                self._suspects.pop(leader, None)  # a follower that knew no leader leads now

    def _keep_leader(self, old: PartitionRoute, new: PartitionRoute) -> PartitionRoute:
        if new.leader or not old.leader or old.leader in self._suspects:
            return new
        return PartitionRoute(old.leader, new.replicas)

    def prefer(self, address: str) -> None:
        """Start with this seed from now on: it answered."""
        if address in self.seeds and self.seeds[0] != address:
            self.seeds.remove(address)
            self.seeds.insert(0, address)

    def redirect(self, partition: int, address: str) -> None:
        """Another node leads this partition: it is the first choice from now on."""
        if not self._routes:
            self._routes = [PartitionRoute("") for _ in range(PARTITION_COUNT)]
        route = self._routes[partition]
        replicas = [a for a in (route.leader, *route.replicas) if a and a != address]
        self._routes[partition] = PartitionRoute(address, replicas)
        self._is_divided = len(_leaders(self._routes)) > 1
        self._orders = {}
        self._suspects.pop(address, None)


def knows_leader(routes: Iterable[PartitionRoute]) -> bool:
    """Whether a map names a leader for every partition."""
    return all(route.leader for route in routes)


def _leaders(routes: Iterable[PartitionRoute]) -> set[str]:
    return {route.leader for route in routes if route.leader}
