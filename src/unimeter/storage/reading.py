"""A data directory looked at without changing it: for `verify` and `inspect`.

Owns the same order and the same checks as recovery, but cuts, mends and removes
nothing. The end of the log is judged as at a start, so a torn tail is told as
such and not as damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.storage import tail
from unimeter.storage.disk import Disk
from unimeter.storage.layout import Witnessed
from unimeter.storage.segments import (
    RESTORE_ADVICE,
    WINDOW_BYTES,
    Entry,
    Segment,
    Walk,
    indexes_of,
    list_segments,
    split_removed,
)
from unimeter.storage.snapshots import snapshot_indexes, snapshot_path
from unimeter.storage.superblock import Superblock, read_superblock
from unimeter.storage.witness import read_witness
from unimeter.types import Membership


@dataclass
class LogReader:
    """Every entry of a log, each step checked."""

    disk: Disk
    segments: list[Segment]
    witness: Witnessed
    witness_path: str
    base_index: int = 0  # an empty log goes on after this entry
    torn_at: str = ""  # where a torn tail was found, or a removal that did not end; after reading

    @property
    def first_index(self) -> int:
        """Of the oldest entry; in an empty log, of the one that comes first."""
        return self.segments[0].first_index if self.segments else self.base_index + 1

    def entries(self) -> Iterator[Entry]:
        """All entries in order; CorruptionError at the first damage that is no torn tail."""
        for segment, walk in self.walks():
            for entry in walk:
                if self.witness.is_cutting and entry.index > self.witness.index:
                    break
                yield entry
            self.check_end(segment, walk)

    def walks(self) -> Iterator[tuple[Segment, Walk]]:
        """A walk through each segment, to be used up before the next."""
        for segment in self.segments:
            file = self.disk.open(segment.path)
            try:
                yield segment, Walk(file, segment, None, WINDOW_BYTES)
            finally:
                file.close()

    def check_end(self, segment: Segment, walk: Walk) -> None:
        """Judge what lies behind the last entry of a segment."""
        at = self.segments.index(segment)
        if at + 1 < len(self.segments):
            tail.check_sealed(segment.path, walk, self.segments[at + 1].head)
            return
        if self.witness.is_cutting and walk.next_index > self.witness.index:
            self.torn_at = f"{segment.path}: entry {self.witness.index + 1}, being removed"
            return
        file = self.disk.open(segment.path)
        try:
            if tail.check_tail(file, walk, self.witness.index, self.witness_path):
                self.torn_at = f"{segment.path}: byte {walk.position}, entry {walk.next_index}"
        finally:
            file.close()


def open_log(disk: Disk, path: str, block: Superblock) -> LogReader:
    """The log of a directory; heads and witness are checked here."""
    witness_path = f"{path}/synced"
    witness = read_witness(disk, witness_path)
    if block.is_installing:  # what lies there is older than the snapshot: a start removes it
        return LogReader(disk, [], Witnessed(), witness_path, block.base_index)
    found = list_segments(disk, f"{path}/log", block.identity)
    _, segments = split_removed(found, block.kept_index)
    if witness.is_cutting:
        segments = [segment for segment in segments if segment.first_index <= witness.index]
    if not segments and (witness.index > block.base_index or not block.base_index):
        raise CorruptionError(f"{path}/log", 0, "at least one segment", "none", RESTORE_ADVICE)
    return LogReader(disk, segments, witness, witness_path, block.base_index)


def known_commit(block: Superblock, witness: Witnessed) -> int | None:
    """Up to which entry a member of a cluster knows its log committed; None for a sole voter.

    All that a sole voter has made durable is committed.
    """
    if not block.peers and block.membership is Membership.VOTER:
        return None
    return max(1, block.snapshot_index, witness.commit)


def find_superblock(disk: Disk, path: str) -> tuple[Superblock, int | None]:
    """The superblock and its one damaged copy, if any."""
    if not disk.exists(f"{path}/superblock"):
        raise WrongDirectoryError(f"{path}: there is no data directory here")
    return read_superblock(disk, f"{path}/superblock")


def snapshots_of(disk: Disk, path: str) -> list[tuple[int, str]]:
    """(index, path) of every snapshot, oldest first."""
    return [(index, snapshot_path(path, index)) for index in snapshot_indexes(disk, path)]


def outcomes_of(disk: Disk, path: str) -> list[tuple[int, str]]:
    """(last index, path) of every outcomes file, oldest first."""
    indexes = indexes_of(disk, f"{path}/outcomes", ".out")
    return [(index, f"{path}/outcomes/{index:016x}.out") for index in indexes]
