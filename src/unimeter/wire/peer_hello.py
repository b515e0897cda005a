"""What a node says about itself to another, and whether the two belong together.

Owns `PeerHello`, its bytes, and the refusals that follow from two hellos alone.
Refuses to decide anything that needs more than that: which connections there are
(`server.peers`) and what a fresh or recovering member may do (the node).

A hello can grow: a later version adds fields at the end, and a reader ignores what
follows the fields it knows. Fields are never removed or given another meaning.

A refusal is a sentence for an operator who has wired something up wrong. It is sent
only to peers that proved to know the secret.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from unimeter.types import Membership
from unimeter.wire.codec import Buffer, Reader, Writer
from unimeter.wire.messages import ProtocolError
from unimeter.wire.peer import PEER_VERSION, Fault, PeerProtocolError

NO_CLUSTER: Final = bytes(16)  # the cluster id of a node that has no data yet
LOG_UNREAD: Final = 2**64 - 1  # last index of a node that can't open its log and only asks
CLOCK_WARN_NS: Final = 60 * 10**9  # two clocks further apart than this are worth a warning

_FIXED: Final = struct.Struct("<HH16sQQQBQQQqB")
_NODE: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class PeerHello:
    """One node, as it describes itself at one moment."""

    cluster_id: bytes  # 16; NO_CLUSTER where there is no data yet
    node_id: int
    members: tuple[int, ...]  # all ids of the cluster, ascending, its own among them
    format_version: int  # of the storage
    incarnation: int = 0  # another number whenever the node begins without its former data
    process: int = 0  # a random number of each process; `Peers` fills it in
    membership: Membership = Membership.VOTER
    term: int = 0
    last_index: int = 0
    commit: int = 0
    clock_ns: int = 0
    advertise: str = ""  # host:port for clients
    address: str = ""  # host:port for peers
    version: int = PEER_VERSION

    def __post_init__(self) -> None:
        assert len(self.cluster_id) == 16
        assert list(self.members) == sorted(set(self.members)), "members ascend"


def encode_hello(hello: PeerHello) -> bytes:
    """The bytes of a hello."""
    writer = Writer()
    writer.pack(
        _FIXED,
        "hello",
        hello.version,
        hello.format_version,
        hello.cluster_id,
        hello.node_id,
        hello.incarnation,
        hello.process,
        hello.membership,
        hello.term,
        hello.last_index,
        hello.commit,
        hello.clock_ns,
        len(hello.members),
    )
    for member in hello.members:
        writer.pack(_NODE, "member", member)
    writer.text8(hello.advertise, "advertised address")
    writer.text8(hello.address, "peer address")
    return writer.payload()


def decode_hello(data: Buffer) -> PeerHello:
    """The hello in `data`; bytes behind the fields known here are a later version's."""
    reader = Reader(data)
    try:
        version, form, cluster, node, incarnation, process, *rest = reader.unpack(_FIXED, "hello")
        state, term, last, commit, clock, count = rest
        members = tuple(int(reader.unpack(_NODE, "member")[0]) for _ in range(count))
        advertise = reader.text8("advertised address")
        address = reader.text8("peer address")
    except ProtocolError as error:
        raise PeerProtocolError(Fault.MALFORMED, str(error)) from None
    if list(members) != sorted(set(members)):
        raise PeerProtocolError(Fault.MALFORMED, f"members {members} do not ascend")
    if state not in Membership.__members__.values():
        raise PeerProtocolError(Fault.MALFORMED, f"membership {state} is not known")
    return PeerHello(
        cluster,
        node,
        members,
        form,
        incarnation,
        process,
        Membership(state),
        term,
        last,
        commit,
        clock,
        advertise,
        address,
        version,
    )


def refusal_of(own: PeerHello, other: PeerHello) -> str:
    """Why `own` does not want `other`, as a sentence to it; "" when they belong together."""
    if NO_CLUSTER not in (own.cluster_id, other.cluster_id):
        if own.cluster_id != other.cluster_id:
            return (
                f"node {own.node_id} belongs to cluster {own.cluster_id.hex()}, "
                f"and node {other.node_id} belongs to cluster {other.cluster_id.hex()}"
            )
    if own.format_version != other.format_version:
        return (
            f"node {own.node_id} stores format {own.format_version}, and node {other.node_id} "
            f"stores format {other.format_version}: run one release in a cluster"
        )
    if own.node_id == other.node_id:
        if own.process == other.process:
            return f"node {own.node_id} has connected to itself: check the addresses of the peers"
        return (
            f"node id {own.node_id} is used twice, at {own.address} and at {other.address}: "
            "give each node an id of its own"
        )
    if own.members != other.members:
        return (
            f"the members differ: node {own.node_id} was given {ids_of(own.members)}, "
            f"and node {other.node_id} {ids_of(other.members)}"
        )
    if other.node_id not in own.members:
        return (
            f"node {other.node_id} is not a member: "
            f"node {own.node_id} was given {ids_of(own.members)}"
        )
    return ""


def clock_difference_ns(own: PeerHello, other: PeerHello) -> int:
    """How far the other's clock is ahead, give or take the time the hello travelled."""
    return other.clock_ns - own.clock_ns


def ids_of(members: tuple[int, ...]) -> str:
    """Ids in words: "1, 2 and 3"."""
    words = [str(member) for member in members]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
