"""Who belongs to a cluster, as its operator wrote it down.

Owns the three options that say so and the refusal of what can't be meant:

    --node-id 2 --cluster-id billing --peers 1=a:7101,2=b:7101,3=c:7101

Every node is given the same list and finds itself in it by its id. The cluster's name becomes
the 16 bytes that every file and handshake carries, and the secret the key of the keyed
hash that the first log entry holds, so every node writes the same first entry by itself.

Membership is fixed: 3 or 5 nodes (7 at most), an odd number, because an even one survives no
more failures than the odd one below it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unimeter import limits
from unimeter.errors import InvalidInputError

if TYPE_CHECKING:
    from unimeter.server.config import Config

Place = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True)
class Members:
    """One cluster, seen from one node of it."""

    node_id: int
    places: dict[int, Place]  # where each node takes its peers, itself among them
    cluster_id: bytes  # 16
    name: str
    secret: bytes

    @property
    def voters(self) -> tuple[int, ...]:
        """All node ids, ascending."""
        return tuple(sorted(self.places))

    @property
    def others(self) -> dict[int, Place]:
        """The places of the other nodes."""
        return {node: place for node, place in self.places.items() if node != self.node_id}

    @property
    def majority(self) -> int:
        """How many nodes decide."""
        return len(self.places) // 2 + 1

    @property
    def genesis_key(self) -> bytes:
        """The 16 bytes that key the hash of event keys: the same on every node."""
        return hashlib.blake2b(
            self.cluster_id, digest_size=16, key=hashlib.sha256(self.secret).digest()
        ).digest()


def parse_peers(text: str) -> dict[int, Place]:
    """``1=host:port,2=host:port`` as places by node id; InvalidInputError with the fix."""
    places: dict[int, Place] = {}
    for part in text.split(","):
        word, equals, address = part.strip().partition("=")
        host, colon, port = address.strip().rpartition(":")
        if not (equals and word.strip().isdigit() and host and colon and port.isdigit()):
            raise InvalidInputError(
                f"peers: {part.strip()!r} is not ID=HOST:PORT; "
                "write --peers 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101"
            )
        node = int(word)
        if not 1 <= node <= limits.NODE_ID_MAX:
            raise InvalidInputError(
                f"peers: node ids are 1 to {limits.NODE_ID_MAX}, and {node} is not"
            )
        if not 1 <= int(port) <= 65_535:
            raise InvalidInputError(f"peers: port {port} of node {node} is not 1 to 65535")
        if node in places:
            raise InvalidInputError(
                f"peers: node id {node} is used twice; give each node an id of its own"
            )
        places[node] = (host.strip("[]"), int(port))
    return places


def check_cluster(config: Config) -> None:
    """Raise InvalidInputError where the cluster's options contradict each other."""
    if not 1 <= config.node_id <= limits.NODE_ID_MAX:
        raise InvalidInputError(f"node_id must be 1 to {limits.NODE_ID_MAX}, not {config.node_id}")
    if not config.peers:
        for name in ("cluster_id", "cluster_secret_file"):
            if getattr(config, name):
                raise InvalidInputError(
                    f"{name} is given and peers is not; name all nodes with --peers"
                )
        return
    places = parse_peers(config.peers)
    count = len(places)
    if count % 2 == 0 or not 3 <= count <= limits.MEMBERS_MAX:
        raise InvalidInputError(
            f"peers names {count} node{'s' if count != 1 else ''}; a cluster has 3 or 5 "
            f"(an odd number up to {limits.MEMBERS_MAX}): an even one survives no more failures "
            "than the odd one below it, and a single node needs no peers"
        )
    if config.node_id not in places:
        ids = ", ".join(str(node) for node in sorted(places))
        raise InvalidInputError(
            f"node_id is {config.node_id}, and peers names only {ids}; "
            "every node is in its own list"
        )
    if len(set(places.values())) != count:
        raise InvalidInputError("peers: two nodes have the same address")
    if not config.cluster_id:
        raise InvalidInputError(
            "peers needs cluster_id: a name that all nodes of the cluster share"
        )
    if bool(config.cluster_secret) == bool(config.cluster_secret_file):
        raise InvalidInputError(
            "peers needs cluster_secret_file: a file with the same secret on every node "
            "(or UNIMETER_CLUSTER_SECRET in the environment, and not both)"
        )
    if not config.advertise and config.bind in ("0.0.0.0", "::"):
        raise InvalidInputError(
            f"bind is {config.bind}, which is no address that other nodes could tell clients; "
            "give --advertise HOST:PORT"
        )


def members_of(config: Config) -> Members | None:
    """The cluster that a checked configuration names; None for a node that is alone."""
    if not config.peers:
        return None
    name = hashlib.blake2b(config.cluster_id.encode(), digest_size=16, person=b"unimeter cluster")
    return Members(
        config.node_id,
        parse_peers(config.peers),
        name.digest(),
        config.cluster_id,
        read_secret(config),
    )


def read_secret(config: Config) -> bytes:
    """The cluster's secret; InvalidInputError if it can't be read or is too short."""
    secret = config.cluster_secret.encode()
    if config.cluster_secret_file:
        try:
            secret = Path(config.cluster_secret_file).read_bytes().strip()
        except OSError as error:
            raise InvalidInputError(
                f"cluster_secret_file {config.cluster_secret_file}: {error.strerror}"
            ) from None
    if len(secret) < limits.SECRET_BYTES_MIN:
        raise InvalidInputError(
            f"the cluster secret has {len(secret)} bytes; use at least "
            f"{limits.SECRET_BYTES_MIN}, made by chance (openssl rand -hex 32)"
        )
    return secret
