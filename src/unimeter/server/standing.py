"""How every node of the cluster stands, as far as this one has heard.

Owns one line per node: its own word about itself (a STATUS frame twice a second, JSON so that
it can grow) and when it was last heard. `unimeter status`, the partition map, /metrics and
the dashboard read it here. Nothing in it takes part in a decision of the log.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from unimeter.server.handlers import own_status
from unimeter.types import Membership
from unimeter.wire.messages import HEARD_NEVER, NodeRole, NodeStatus
from unimeter.wire.peer_hello import PeerHello

if TYPE_CHECKING:
    from unimeter.server.cluster import Cluster

HEARD_SECONDS_MAX = 3.0  # silent for longer: clients are not sent there


class Standing:
    """What is known of the nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self._clock = cluster, cluster.node.platform.monotonic
        self._said: dict[int, dict[str, Any]] = {}
        self._heard: dict[int, float] = {}
        self._hellos: dict[int, PeerHello] = {}
        self._was_heard: set[int] = set()

    # --- this node -------------------------------------------------------------------

    def own(self) -> NodeStatus:
        """This node now."""
        cluster, members = self.cluster, self.cluster.members
        host, port = members.places[members.node_id]
        status = own_status(cluster.node)
        status.client_address, status.peer_address = cluster.advertise, f"{host}:{port}"
        status.hash_index, status.state_hash = cluster.hashes.newest
        return status

    def own_payload(self) -> bytes:
        """What the peers are told."""
        own = self.own()
        return json.dumps(
            {
                "role": int(own.role),
                "membership": int(own.membership),
                "term": own.term,
                "last_index": own.last_index,
                "commit": own.commit,
                "applied": own.applied,
                "disk_free_bytes": own.disk_free_bytes,
                "disk_used_bytes": own.disk_used_bytes,
                "hash_index": own.hash_index,
                "state_hash": own.state_hash.hex(),
                "is_short_of_disk": self.cluster.node.upkeep.is_short_of_disk,
                "client_address": own.client_address,
                "version": own.version,
            }
        ).encode()

    # --- the others --------------------------------------------------------------------

    def heard_hello(self, hello: PeerHello) -> None:
        """A peer has introduced itself."""
        self._hellos[hello.node_id] = hello
        self._heard[hello.node_id] = self._clock()

    def heard(self, node_id: int, payload: bytes) -> None:
        """A peer has said how it is; words that are no status are passed over."""
        try:
            said = json.loads(payload)
        except ValueError:
            return
        if isinstance(said, dict):
            was_known = self.is_heard(node_id) and node_id in self._said
            self._said[node_id] = said
            self._heard[node_id] = self._clock()
            if not was_known:
                self.cluster.clients.map_changed()

    def gone(self, node_id: int) -> None:
        """A peer's process has ended."""
        self._heard.pop(node_id, None)
        self.cluster.clients.map_changed()

    def is_heard(self, node_id: int) -> bool:
        """Whether a peer has said anything lately."""
        return self._clock() - self._heard.get(node_id, -1e9) < HEARD_SECONDS_MAX

    def is_voter(self, node_id: int) -> bool:
        """Whether a peer says that it votes."""
        return _member(self._said.get(node_id, {})) is Membership.VOTER

    def has_disk(self, node_id: int) -> bool:
        """Whether a peer says that its disk has room."""
        return not self._said.get(node_id, {}).get("is_short_of_disk", False)

    def tick(self) -> None:
        """Look whether a peer has fallen silent: clients are told another map then."""
        heard = {node for node in self.cluster.members.others if self.is_heard(node)}
        if heard != self._was_heard:
            self._was_heard = heard
            self.cluster.clients.map_changed()

    def client_addresses(self) -> dict[int, str]:
        """Where clients reach the peers that are there."""
        return {
            node: self._hellos[node].advertise
            for node in self.cluster.members.others
            if node in self._hellos and self.is_heard(node)
        }

    def nodes(self) -> list[NodeStatus]:
        """Every node of the cluster, by id."""
        progress = self.cluster.node.replica.raft.status().progress
        lead = self.cluster.node.lead
        found = [self._of(node) for node in self.cluster.members.others]
        found.append(self.own())
        last = max(
            (one.last_index for one in found if one.node_id == lead),
            default=max(one.commit for one in found),
        )
        for one in found:
            if one.node_id in progress:
                one.match = progress[one.node_id].match
            # Who leads is known here at once; what a peer said of itself may be older.
            if one.node_id == lead:
                one.role = NodeRole.LEADER
            elif one.role is NodeRole.LEADER:
                one.role = NodeRole.FOLLOWER
            one.lag = max(0, last - one.applied)
        return sorted(found, key=lambda one: one.node_id)

    def _of(self, node_id: int) -> NodeStatus:
        said, hello = self._said.get(node_id, {}), self._hellos.get(node_id)
        host, port = self.cluster.members.places[node_id]
        age = self._clock() - self._heard.get(node_id, -1e9)
        is_heard = self.is_heard(node_id)
        return NodeStatus(
            node_id=node_id,
            client_address=hello.advertise if hello else "",
            peer_address=f"{host}:{port}",
            role=_role(said) if is_heard else NodeRole.UNREACHABLE,
            membership=_member(said),
            heard_ms=min(HEARD_NEVER, int(age * 1000)),
            term=_number(said, "term"),
            last_index=_number(said, "last_index"),
            commit=_number(said, "commit"),
            applied=_number(said, "applied"),
            disk_free_bytes=_number(said, "disk_free_bytes"),
            disk_used_bytes=_number(said, "disk_used_bytes"),
            hash_index=_number(said, "hash_index"),
            state_hash=_hash(said),
            version=str(said.get("version", ""))[:64],
        )


def _number(said: dict[str, Any], name: str) -> int:
    value = said.get(name, 0)
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def _role(said: dict[str, Any]) -> NodeRole:
    value = _number(said, "role")
    return NodeRole(value) if value in NodeRole.__members__.values() else NodeRole.FOLLOWER


def _member(said: dict[str, Any]) -> Membership:
    value = _number(said, "membership")
    return Membership(value) if value in Membership.__members__.values() else Membership.VOTER


def _hash(said: dict[str, Any]) -> bytes:
    try:
        found = bytes.fromhex(str(said.get("state_hash", "")))
    except ValueError:
        found = b""
    return found if len(found) == 16 else bytes(16)
