"""The few facts that must never be lost or believed wrongly, in four copies.

    offset 0      pair A, copy 0
           4096   pair A, copy 1
           8192   pair B, copy 2
           12288  pair B, copy 3

Owns the file `superblock`: whose directory this is, the term and vote, which snapshot
is in effect and what the log goes on after, and what this node must know of its place
in a cluster: how it was made, and which directories its peers had. Each update has
the next sequence number
and goes to the pair that does not hold the newest one: first copy, sync, second
copy, sync. So a crash damages at most one copy, and the copy with the highest
sequence number is the truth. Two damaged copies are not a crash: refused.

Rejected: a small file replaced by rename. It is one copy, and a flipped bit in it
would cost the vote, that is, the promise that a node votes once in a term.
"""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import dataclass, replace
from typing import Final

from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.storage.disk import Disk, File
from unimeter.storage.layout import FORMAT_VERSION, Identity
from unimeter.storage.segments import RESTORE_ADVICE, check_version
from unimeter.types import Membership

SUPERBLOCK_MAGIC: Final = b"UNIMSUP\n"
COPY_BYTES: Final = 4096
COPIES: Final = 4
PEERS_MAX: Final = 7
RECOVERED: Final = 1 << 63  # bit of an incarnation: the directory was made by `unimeter recover`
# magic version crc copy 0 sequence cluster node created term vote snapshot removed_ns kept
# incarnation membership is_installing peers: (node, incarnation) base: index term timestamp
# What a directory of a single node of an earlier release lacks reads as zeros.
_COPY = struct.Struct("<8sIIIIQ16sQqQQQqQ QBB6x 14Q QQq")


@dataclass(frozen=True)
class Superblock:
    """What the file says."""

    identity: Identity
    created_ns: int
    sequence: int = 1
    term: int = 0  # the highest this node has seen
    vote: int = 0  # whom it voted for in `term`; 0 = nobody
    snapshot_index: int = 0  # the newest snapshot in effect; 0 = none
    removed_timestamp_ns: int = 0  # no event that retention removed is later; 0 = none removed
    kept_index: int = 1  # segments that end before this entry are removed, or about to be
    incarnation: int = 0  # random, made with the directory; 0 in one of an earlier release
    membership: Membership = Membership.VOTER
    peers: tuple[tuple[int, int], ...] = ()  # (node id, incarnation) as last met, ascending
    base_index: int = 0  # last entry of the last snapshot installed from a peer; 0 = none
    base_term: int = 0  # of that entry; an empty log goes on after it
    base_timestamp_ns: int = 0  # of that entry
    is_installing: bool = False  # the log on disk is older than that snapshot: it goes


def encode_copy(block: Superblock, copy: int) -> bytes:
    fields = (
        copy,
        0,
        block.sequence,
        block.identity.cluster_id,
        block.identity.node_id,
        block.created_ns,
        block.term,
        block.vote,
        block.snapshot_index,
        block.removed_timestamp_ns,
        block.kept_index,
        block.incarnation,
        block.membership,
        block.is_installing,
        *_flat(block.peers),
        block.base_index,
        block.base_term,
        block.base_timestamp_ns,
    )
    blank = _COPY.pack(SUPERBLOCK_MAGIC, FORMAT_VERSION, 0, *fields)
    crc = zlib.crc32(blank.ljust(COPY_BYTES, b"\0"))
    return _COPY.pack(SUPERBLOCK_MAGIC, FORMAT_VERSION, crc, *fields).ljust(COPY_BYTES, b"\0")


def _flat(peers: tuple[tuple[int, int], ...]) -> list[int]:
    assert len(peers) <= PEERS_MAX and list(peers) == sorted(dict(peers).items())
    words = [word for pair in peers for word in pair]
    return words + [0] * (2 * PEERS_MAX - len(words))


def decode_copy(data: bytes, copy: int) -> tuple[int, Superblock] | str:
    """(format version, facts), or a phrase saying what is wrong with the bytes."""
    if len(data) < COPY_BYTES:
        return f"{len(data)} bytes"
    magic, version, crc, number, _, sequence, cluster, node, *rest = _COPY.unpack_from(data)
    found = zlib.crc32(data[:12] + bytes(4) + data[16:])
    if magic != SUPERBLOCK_MAGIC:
        return f"magic {magic.hex()}"
    if crc != found:
        return f"checksum {found:08x} over bytes that say {crc:08x}"
    if number != copy:
        return f"copy {number}"
    created, term, vote, snapshot, removed_ns, kept, incarnation, membership, installing = rest[:9]
    if membership > max(Membership):
        return f"membership {membership}"
    words = rest[9 : 9 + 2 * PEERS_MAX]
    peers = tuple(pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0])
    base_index, base_term, base_timestamp_ns = rest[9 + 2 * PEERS_MAX :]
    return version, Superblock(
        Identity(cluster, node),
        created,
        sequence,
        term,
        vote,
        snapshot,
        removed_ns,
        kept,
        incarnation,
        Membership(membership),
        peers,
        base_index,
        base_term,
        base_timestamp_ns,
        bool(installing),
    )


class SuperblockFile:
    """The open file; `current` is always what is durable."""

    def __init__(self, file: File, current: Superblock) -> None:
        """Use `create` or `open`."""
        self._file, self.current = file, current
        self.mended = ""  # a sentence for the operator, where a copy was mended at opening
        self._lock = threading.Lock()

    @classmethod
    def create(cls, disk: Disk, directory: str, block: Superblock) -> SuperblockFile:
        """Make the file whole under a temporary name, so that it exists whole or not at all."""
        path = f"{directory}/superblock"
        file = disk.open(f"{path}.tmp", create=True)
        file.write(0, [encode_copy(block, copy) for copy in range(COPIES)])
        file.sync()
        disk.rename(f"{path}.tmp", path)
        disk.sync_directory(directory)
        file.path = path
        return cls(file, block)

    @classmethod
    def open(cls, disk: Disk, directory: str) -> SuperblockFile:
        """Read and check all copies; mend one that a crash or a flipped bit damaged."""
        path = f"{directory}/superblock"
        block, bad = read_superblock(disk, path)
        opened = cls(disk.open(path, write=True), block)
        pair = _pair_of(block.sequence)
        if bad is not None:
            opened._write_copy(bad, block)
            opened.mended = f"{path}: copy {bad} was damaged and was written anew from the others"
        # A crash between the two copies of a pair leaves the second one behind; and after a
        # sync that failed, the first one may be in the page cache only.
        opened._write_copy(pair, block)
        opened._write_copy(pair + 1, block)
        return opened

    def update(self, **changes: object) -> None:
        """Make `changes` durable before this returns. From any thread."""
        assert not {"identity", "created_ns", "sequence", "incarnation"} & set(changes)
        with self._lock:
            current = self.current
            block = replace(current, sequence=current.sequence + 1, **changes)  # type: ignore[arg-type]
            assert block.term >= current.term, "the term went back"
            assert block.term > current.term or current.vote in (0, block.vote), "a second vote"
            pair = _pair_of(block.sequence)
            self._write_copy(pair, block)
            self._write_copy(pair + 1, block)
            self.current = block  # only now: what failed to be written was never promised

    def close(self) -> None:
        self._file.close()

    def _write_copy(self, copy: int, block: Superblock) -> None:
        self._file.write(copy * COPY_BYTES, [encode_copy(block, copy)])
        self._file.sync()


def _pair_of(sequence: int) -> int:
    return 0 if sequence % 2 else 2


def read_superblock(disk: Disk, path: str) -> tuple[Superblock, int | None]:
    """(the newest facts, the number of the one damaged copy or None); raise if more are damaged."""
    file = disk.open(path)
    try:
        data = file.read(0, COPIES * COPY_BYTES + 1)
    finally:
        file.close()
    if len(data) != COPIES * COPY_BYTES:
        raise CorruptionError(
            path,
            min(len(data), COPIES * COPY_BYTES),
            f"a file of {COPIES * COPY_BYTES} bytes",
            f"{len(data)} bytes" if len(data) < COPIES * COPY_BYTES else "more",
            RESTORE_ADVICE,
        )
    newest: Superblock | None = None
    bad: list[tuple[int, str]] = []
    for copy in range(COPIES):
        decoded = decode_copy(data[copy * COPY_BYTES : (copy + 1) * COPY_BYTES], copy)
        if isinstance(decoded, str):
            bad.append((copy, decoded))
            continue
        version, block = decoded
        check_version(path, version)
        if newest is None or block.sequence > newest.sequence:
            newest = block
    if newest is None or len(bad) > 1:
        copy, found = bad[0]
        raise CorruptionError(
            path,
            copy * COPY_BYTES,
            "at most one damaged copy of four",
            f"{len(bad)}, the first: {found}",
            RESTORE_ADVICE,
        )
    return newest, bad[0][0] if bad else None


def check_owner(path: str, identity: Identity, cluster_id: bytes | None, node_id: int) -> None:
    """Refuse a directory of another node or cluster."""
    if identity.node_id != node_id:
        raise WrongDirectoryError(
            f"{path}: belongs to node {identity.node_id}, this is node {node_id}; "
            "give each node its own data directory"
        )
    if cluster_id is not None and identity.cluster_id != cluster_id:
        raise WrongDirectoryError(
            f"{path}: belongs to cluster {identity.cluster_id.hex()}, this node to cluster "
            f"{cluster_id.hex()}; give each cluster its own data directory"
        )
