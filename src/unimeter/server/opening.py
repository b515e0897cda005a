"""From a configuration to a running node.

Owns the repair of a member of a cluster at its start, and the size of the log's segments: on
a small volume smaller ones, because two of them are allocated before the
first event and a log that fills the disk with zeros has no room for a snapshot.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from unimeter import limits
from unimeter.errors import DataError, RottenEntryError, WrongDirectoryError
from unimeter.raft.messages import Entry
from unimeter.server.config import Config
from unimeter.server.hosts import Host
from unimeter.server.members import Members, members_of
from unimeter.server.node import Node
from unimeter.server.platform import MEMORY, REAL, Platform
from unimeter.server.tls import peer_client_context
from unimeter.storage.disk import Disk
from unimeter.storage.incoming import remove_stale_parts
from unimeter.storage.layout import FORMAT_VERSION, Identity
from unimeter.storage.reading import find_superblock
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.repair import repair_entry
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.wal import WalLimits
from unimeter.types import Membership
from unimeter.wire.peer_hello import LOG_UNREAD, PeerHello

__all__ = [
    "MEMORY",
    "Place",
    "Progress",
    "fit_segment_bytes",
    "open_member",
    "open_node",
    "open_place",
    "run_node",
]

SEGMENT_BYTES_MIN = 1024 * 1024
REPAIRS_MAX = 64  # damaged entries at one start; more is a disk that is dying
_VOLUME_SHARE = 16  # segments that should fit on a volume

Progress = Callable[[int, int, int], None]


def fit_segment_bytes(volume: int) -> int:
    """The usual segment size, or less on a volume that could hold few of them."""
    share = volume // _VOLUME_SHARE // SEGMENT_BYTES_MIN * SEGMENT_BYTES_MIN
    return max(SEGMENT_BYTES_MIN, min(limits.SEGMENT_BYTES, share))


@dataclass(frozen=True)
class Place:
    """A directory that is open, and what a node on it has to know besides."""

    opened: Opened
    members: Members | None
    volume: int  # bytes of the disk under it; 0 = unknown


def open_node(
    config: Config,
    host: Host,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    platform: Platform = REAL,
) -> Node:
    """Open `config.data_dir` (``:memory:`` = nowhere), replay it, and run a node on it.

    All of it in the host's thread; a host with a loop takes the two steps one by one.
    """
    place = open_place(config, host.inline, progress, say or host.notice, platform)
    return run_node(config, place, host, platform)


def open_place(
    config: Config,
    inline: bool,
    progress: Progress | None,
    say: Callable[[str], None],
    platform: Platform,
) -> Place:
    """The long part, in any thread: open the directory and replay it.

    Raises DataError with what was expected and found where the directory can't be
    used. Sentences about what was mended go to `say`. A member of a cluster asks its peers
    for an entry that is damaged here, and puts it back in its place.
    """
    members = members_of(config)
    disk, path, volume = platform.open_disk(config.data_dir)
    segment_bytes = config.segment_bytes or (
        fit_segment_bytes(volume) if volume else SEGMENT_BYTES_MIN
    )
    bounds = platform.wal_limits(segment_bytes, inline)
    if members is None:
        opened = open_directory(
            disk,
            path,
            node_id=config.node_id,
            bounds=bounds,
            progress=progress,
            entropy=platform.entropy,
            now_ns=platform.time_ns,
        )
        check_alone(opened)
    else:
        tls = peer_client_context(config) if config.peer_tls else None
        opened = open_member(disk, path, members, bounds, progress, say, platform, tls)
    for note in opened.notes:
        say(note)
    return Place(opened, members, volume)


def run_node(config: Config, place: Place, host: Host, platform: Platform) -> Node:
    """The short part, in the host's thread: a node that is alone begins to work at once."""
    opened, members = place.opened, place.members
    node = Node(
        opened,
        host,
        platform=platform,
        voters=members.voters if members else (),
        inflight_bytes_max=config.inflight_bytes_max,
        is_mute=opened.superblock.current.membership is not Membership.VOTER,
    )
    node.hash_states = members is not None
    node.upkeep.configure(
        config.snapshot_log_bytes,
        config.disk_free_bytes_min,
        RetentionPolicy(config.retention_age * 10**9, config.retention_bytes),
        place.volume,
    )
    return node


def check_alone(opened: Opened) -> None:
    """Refuse to run a member of a cluster as if it were the whole of it."""
    block = opened.superblock.current
    if block.peers or block.membership is not Membership.VOTER:
        known = ", ".join(str(node) for node, _ in block.peers) or "others"
        opened.close()
        raise WrongDirectoryError(
            f"{opened.path}: belongs to node {opened.node_id} of a cluster with {known}, and "
            "would forget them if it ran alone; start it with --peers"
        )


def open_member(
    disk: Disk,
    path: str,
    members: Members,
    bounds: WalLimits,
    progress: Progress | None,
    say: Callable[[str], None],
    platform: Platform = REAL,
    tls: ssl.SSLContext | None = None,
) -> Opened:
    """Open the directory of a node of a cluster, repairing damaged entries from the others."""
    for _ in range(REPAIRS_MAX):
        try:
            opened = open_directory(
                disk,
                path,
                cluster_id=members.cluster_id,
                node_id=members.node_id,
                genesis_key=members.genesis_key,
                membership=Membership.FRESH,
                sole_voter=False,
                bounds=bounds,
                progress=progress,
                entropy=platform.entropy,
                now_ns=platform.time_ns,
            )
            break
        except RottenEntryError as error:
            mend(disk, path, members, error, say, platform, tls)
    else:
        raise DataError(
            f"{path}: more than {REPAIRS_MAX} damaged entries; the disk can't be trusted. "
            "Replace it and run `unimeter recover`"
        )
    remove_stale_parts(disk, path, opened.machine.applied)
    block = opened.superblock.current
    strangers = [node for node, _ in block.peers if node not in members.others]
    if strangers or (block.peers and len(block.peers) != len(members.others)):
        known = sorted([opened.node_id, *(node for node, _ in block.peers)])
        opened.close()
        raise WrongDirectoryError(
            f"{path}: its cluster has the nodes {known}, and peers names "
            f"{list(members.voters)}; membership is fixed"
        )
    return opened


def mend(
    disk: Disk,
    path: str,
    members: Members,
    error: RottenEntryError,
    say: Callable[[str], None],
    platform: Platform,
    tls: ssl.SSLContext | None,
) -> None:
    """Take the entry from a peer and put it where the damage is; raises `error` if none has it."""
    say(f"{error}; asking the other nodes for entry {error.index}")
    hello = hello_of(disk, path, members, platform.time_ns())
    identity = Identity(members.cluster_id, members.node_id)
    run: list[Entry] = []
    wants = error.index
    while True:
        entry = platform.fetch_entry(members.others, members.secret, hello, wants, say=say, tls=tls)
        if entry is None:
            raise error
        run.append(entry)
        try:
            repair_entry(disk, path, identity, *run)
            break
        except RottenEntryError as refusal:
            error, wants = refusal, refusal.wants
            if not wants:
                raise
    say(f"entry {run[0].index} was damaged and is repaired from another node")


def hello_of(disk: Disk, path: str, members: Members, clock_ns: int) -> PeerHello:
    """How a node introduces itself whose directory can't be opened yet."""
    block, _ = find_superblock(disk, path)
    host, port = members.places[members.node_id]
    return PeerHello(
        cluster_id=members.cluster_id,
        node_id=members.node_id,
        members=members.voters,
        format_version=FORMAT_VERSION,
        incarnation=block.incarnation,
        membership=block.membership,
        term=block.term,
        last_index=LOG_UNREAD,  # else the leader might take it for an older copy, and give nothing
        clock_ns=clock_ns,
        address=f"{host}:{port}",
    )
