"""From a configuration to a running node.

Owns the choice of a disk and of the log's bounds: ``:memory:`` or a directory, and
on a small volume smaller segments, because two of them are allocated before the
first event and a log that fills the disk with zeros has no room for a snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from unimeter import limits
from unimeter.server.config import Config
from unimeter.server.hosts import Host
from unimeter.server.node import Node
from unimeter.server.upkeep import volume_bytes
from unimeter.storage.disk import Disk, OsDisk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import open_directory
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.wal import WalLimits

MEMORY = ":memory:"
SEGMENT_BYTES_MIN = 1024 * 1024
_VOLUME_SHARE = 16  # segments that should fit on a volume

Progress = Callable[[int, int, int], None]


def fit_segment_bytes(volume: int) -> int:
    """The usual segment size, or less on a volume that could hold few of them."""
    share = volume // _VOLUME_SHARE // SEGMENT_BYTES_MIN * SEGMENT_BYTES_MIN
    return max(SEGMENT_BYTES_MIN, min(limits.SEGMENT_BYTES, share))


def open_node(
    config: Config,
    host: Host,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Node:
    """Open `config.data_dir` (``:memory:`` = nowhere), replay it, and run a node on it.

    Raises DataError with what was expected and found where the directory can't be
    used. Sentences about what was mended go to `say`.
    """
    disk: Disk
    if config.data_dir == MEMORY:
        disk, path, volume = MemoryDisk(), "memory", 0
    else:
        disk, path = OsDisk(), os.path.abspath(config.data_dir)
        volume = volume_bytes(path)
    segment_bytes = config.segment_bytes or (
        fit_segment_bytes(volume) if volume else SEGMENT_BYTES_MIN
    )
    opened = open_directory(
        disk,
        path,
        bounds=WalLimits(segment_bytes=segment_bytes, background=not host.inline),
        progress=progress,
    )
    for note in opened.notes:
        (say or host.notice)(note)
    node = Node(opened, host, inflight_bytes_max=config.inflight_bytes_max)
    node.upkeep.configure(
        config.snapshot_log_bytes,
        config.disk_free_bytes_min,
        RetentionPolicy(config.retention_age * 10**9, config.retention_bytes),
    )
    return node
