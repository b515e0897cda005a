"""Replicas compare their states, and the odd one out stops.

Owns the comparison. Every STATE_HASH_ENTRIES entries each node hashes its whole state at
exactly that index (in a forked child where the state is large) and tells the others:

    index 8192    node 1: 5ac1...    node 2: 5ac1...    node 3: 77e0...  <- stops

All replicas apply the same log with the same function, so a difference is a flipped bit in
memory, a broken processor or a bug, and every further answer of the odd node may be wrong.
A node stops itself when a majority of the cluster agrees without it (of three nodes, both
others); with nobody to break the tie, all say so and go on.

Rejected: a hash carried along from entry to entry. It shows only what was computed from the
entries, and not that a table in memory still holds it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from unimeter.errors import DataError
from unimeter.server.log import Notice
from unimeter.server.members import Members

if TYPE_CHECKING:
    from unimeter.server.node import Node

KEPT = 8  # comparisons remembered: a replica may be some of them behind
_FRAME = struct.Struct("<Q16s")


class DivergedError(DataError):
    """This replica's state differs from what the others agree on: it must not go on."""


class Hashes:
    """The states of the replicas, by index."""

    def __init__(
        self,
        members: Members,
        node: Node,
        send: Callable[[bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self.members, self.node, self.send, self.say = members, node, send, say
        self.newest: tuple[int, bytes] = (0, bytes(16))  # of this node
        self.compared = 0  # indexes at which all nodes agreed
        self._known: dict[int, dict[int, bytes]] = {}  # by index, by node
        self._doubted: set[int] = set()

    def tick(self) -> None:
        """Take the hash that is ready, if one is, and tell the others."""
        ready = self.node.take_state_hash()
        if ready is not None:
            index, state_hash = self.newest = ready
            self.send(_FRAME.pack(index, state_hash))
            self._note(self.members.node_id, index, state_hash)

    def heard(self, sender: int, payload: bytes) -> None:
        """A peer's hash; anything else is passed over."""
        if len(payload) == _FRAME.size and sender in self.members.places:
            index, state_hash = _FRAME.unpack(payload)
            self._note(sender, index, state_hash)

    def _note(self, node_id: int, index: int, state_hash: bytes) -> None:
        known = self._known.setdefault(index, {})
        known[node_id] = state_hash
        self._compare(index, known)
        while len(self._known) > KEPT:
            del self._known[min(self._known)]

    def _compare(self, index: int, known: dict[int, bytes]) -> None:
        own = known.get(self.members.node_id)
        if len(set(known.values())) < 2:
            self.compared += len(known) == len(self.members.places)
            return
        table = ", ".join(f"node {node}: {found.hex()}" for node, found in sorted(known.items()))
        others = [found for node, found in known.items() if node != self.members.node_id]
        (common, count), *_ = Counter(others).most_common(1)
        if own is not None and own != common and count >= self.members.majority:
            raise DivergedError(
                f"the state of this node at entry {index} differs from what the others agree on "
                f"({table}). It stops, so that it can't answer wrongly. Keep its directory for "
                "an inquiry, test the memory of its host, then run `unimeter recover` for it"
            )
        if index not in self._doubted:
            self._doubted.add(index)
            text = f"the replicas' states differ at entry {index}: {table}"
            self.say(Notice(text, event="states_differ", level="error", index=index))
