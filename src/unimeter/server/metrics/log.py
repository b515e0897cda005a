"""What is stored: entries, syncs, applying, snapshots, the disk, the engine's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unimeter.server.metrics.families import counter, counters, gauge, gauges, histogram

if TYPE_CHECKING:
    from unimeter.server.node import Node
    from unimeter.server.server import Server


def families(server: Server) -> Iterator[Any]:
    """Every family of this part."""
    node = server.node
    yield from _entries(node)
    yield from _apply(node)
    yield from _snapshots(node)
    yield from _disk(node)
    yield from _state(node)


def _entries(node: Node) -> Iterator[Any]:
    counts, wal = node.statistics, node.wal
    yield counter("unimeter_entries", "Log entries appended", counts.entries_appended)
    yield counter("unimeter_log_bytes", "Bytes appended to the log", counts.bytes_appended)
    syncs: dict[str, float] = {"loop": counts.syncs_inline, "sync": counts.syncs_handed}
    yield counters("unimeter_syncs", "Syncs of the log, by thread", "thread", syncs)
    seconds = counts.sync_seconds
    yield histogram("unimeter_sync_seconds", "Write and sync of one group", seconds)
    yield histogram("unimeter_entry_events", "Events in one log entry", counts.entry_events)
    text = "From the proposal of an entry here to its reply"
    yield histogram("unimeter_commit_seconds", text, counts.commit_seconds)
    yield gauge("unimeter_log_index", "Index of the last entry", wal.last_index)
    yield gauge("unimeter_synced_index", "Index of the last durable entry", wal.synced_index)
    yield gauge("unimeter_inflight_bytes", "Appended and not applied", node.inflight_bytes)


def _apply(node: Node) -> Iterator[Any]:
    counts, commit = node.statistics, node.replica.raft.commit
    applied = node.machine.applied
    yield counter("unimeter_entries_applied", "Entries applied", counts.entries_applied)
    yield histogram("unimeter_apply_seconds", "Applying one entry", counts.apply_seconds)
    yield gauge("unimeter_applied_index", "Index of the last entry applied", applied)
    yield gauge("unimeter_commit_index", "Index of the last committed entry", commit)
    lag = max(0, commit - applied)
    yield gauge("unimeter_apply_lag_entries", "Committed here and not applied", lag)


def _snapshots(node: Node) -> Iterator[Any]:
    counts, snapshots = node.statistics, node.opened.snapshots
    ended: dict[str, float] = {
        "written": counts.snapshots_written,
        "failed": counts.snapshots_failed,
    }
    yield counters("unimeter_snapshots", "Snapshots ended, by result", "result", ended)
    seconds = counts.snapshot_seconds
    yield histogram("unimeter_snapshot_seconds", "Taking one snapshot", seconds)
    yield gauge("unimeter_snapshot_running", "1 while one is taken", snapshots.busy)
    yield gauge("unimeter_snapshot_index", "Index of the newest snapshot", snapshots.last_index)
    yield gauge("unimeter_snapshot_bytes", "Its size", snapshots.last_bytes)
    age = node.platform.monotonic() - node.started  # as if one had been taken then
    if snapshots.last_timestamp_ns:
        age = max(0.0, (node.clock() - snapshots.last_timestamp_ns) / 1e9)
    text = "Since the last entry that is in it"
    yield gauge("unimeter_snapshot_age_seconds", text, age)
    yield gauge(
        "unimeter_log_since_snapshot_bytes",
        "Log that a restart would replay",
        node.upkeep.log_bytes_since_snapshot,
    )


def _disk(node: Node) -> Iterator[Any]:
    upkeep = node.upkeep
    yield gauge("unimeter_disk_free_bytes", "Free on the volume", upkeep.free_bytes)
    text = "With less free, events wait"
    yield gauge("unimeter_disk_free_min_bytes", text, upkeep.disk_free_bytes_min)
    yield gauge("unimeter_log_stored_bytes", "Log files on disk", node.wal.statistics()["bytes"])


def _state(node: Node) -> Iterator[Any]:
    """The engine's sizes: whatever it counts, as gauges of one family, and the memory of keys."""
    with node.lock:
        sizes = node.machine.statistics()
    text = "Sizes of the engine's tables"
    yield gauges("unimeter_state", text, "what", dict(sorted(sizes.items())))
    yield gauge("unimeter_dedup_keys", "Event keys remembered", sizes["keys"])
    yield gauge("unimeter_dedup_bytes", "Memory of their table", sizes["key_bytes"])
    yield gauge("unimeter_dedup_sessions", "Sessions remembered", sizes["sessions"])
