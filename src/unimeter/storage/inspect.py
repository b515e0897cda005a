"""Explain a data directory record by record.

Owns the words. Each record of each file becomes one `Row`, in the order in which
a start reads them: superblock, witness, outcomes, snapshots, log. Damage is a row
too, and what lies behind it is still shown where that is possible.

Kinds of rows: superblock, witness, outcomes, note, snapshot, segment, entry, event,
torn, blank, damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from unimeter.control_json import actor_text
from unimeter.engine import catalog, entries
from unimeter.engine.changes import change_text
from unimeter.engine.records import EventRow, EventsBody
from unimeter.errors import CorruptionError, DataError, InvalidInputError
from unimeter.storage import layout, reading
from unimeter.storage.disk import Disk, OsDisk
from unimeter.storage.outcomes import Bitmaps, is_counted, read_outcomes
from unimeter.storage.segments import Entry
from unimeter.storage.snapshot_file import read_snapshot
from unimeter.storage.superblock import COPIES, COPY_BYTES, decode_copy
from unimeter.types import OperationType, from_ns


@dataclass(frozen=True)
class Row:
    """One record of one file."""

    file: str  # relative to the directory
    offset: int
    what: str  # superblock, witness, outcomes, note, snapshot, segment, entry, event, ...
    detail: str


def inspect(
    path: str, *, events: bool = False, from_index: int = 1, disk: Disk | None = None
) -> Iterator[Row]:
    """Every record of every file, in reading order; damage is a row, not an exception.

    May run beside a node: what that writes meanwhile can show as a torn end.
    """
    disk = disk or OsDisk()
    block, _ = reading.find_superblock(disk, path)
    yield from _superblock(disk, path)
    yield from _witness(disk, path)
    bitmaps: Bitmaps = {}
    outcomes = reading.outcomes_of(disk, path)
    for _, file in outcomes:
        yield from _outcomes(disk, path, file, bitmaps)
    if events:
        covered = outcomes[-1][0] if outcomes else 0
        found = f"entries from {covered + 1} on: replay finds which events counted; not shown here"
        yield Row("outcomes", 0, "note", found)
    for _, file in reading.snapshots_of(disk, path):
        yield from _snapshot(disk, path, file)
    try:
        log = reading.open_log(disk, path, block)
    except CorruptionError as damage:
        yield _damage(path, damage)
        return
    yield from _log(path, log, bitmaps, events, from_index)


def _damage(path: str, damage: CorruptionError) -> Row:
    detail = f"expected {damage.expected}, found {damage.found}. {damage.advice}"
    return Row(_short(path, damage.path), damage.offset, "damage", detail)


def _short(path: str, file: str) -> str:
    return file.removeprefix(f"{path}/")


def _time(ns: int) -> str:
    moment: datetime = from_ns(ns)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _superblock(disk: Disk, path: str) -> Iterator[Row]:
    file = disk.open(f"{path}/superblock")
    data = file.read(0, COPIES * COPY_BYTES)
    file.close()
    for copy in range(COPIES):
        offset = copy * COPY_BYTES
        decoded = decode_copy(data[offset : offset + COPY_BYTES], copy)
        if isinstance(decoded, str):
            yield Row("superblock", offset, "damage", f"copy {copy}: {decoded}")
            continue
        version, block = decoded
        yield Row(
            "superblock",
            offset,
            "superblock",
            f"copy {copy}, sequence {block.sequence}: format {version}, node "
            f"{block.identity.node_id} of cluster {block.identity.cluster_id.hex()}, made "
            f"{_time(block.created_ns)}, term {block.term}, vote {block.vote or 'none'}, "
            f"snapshot {block.snapshot_index or 'none'}, incarnation {block.incarnation:016x}, "
            f"{block.membership.name.lower()}, log goes on after {block.base_index}",
        )


def _witness(disk: Disk, path: str) -> Iterator[Row]:
    if not disk.exists(f"{path}/synced"):
        return
    file = disk.open(f"{path}/synced")
    found = layout.decode_witness(file.read(0, layout.WITNESS_BYTES + 1))
    file.close()
    if isinstance(found, str):
        yield Row("synced", 0, "damage", f"expected an index and its checksum, found {found}")
    else:
        cutting = ", what follows is being cut" if found.is_cutting else ""
        yield Row(
            "synced",
            0,
            "witness",
            f"entries up to {found.index} were durable, up to {found.commit} committed{cutting}",
        )


def _outcomes(disk: Disk, path: str, file: str, bitmaps: Bitmaps) -> Iterator[Row]:
    try:
        found = read_outcomes(disk, file)
    except CorruptionError as damage:
        yield _damage(path, damage)
        return
    bitmaps.update(found.bitmaps)
    yield Row(
        _short(path, file),
        0,
        "outcomes",
        f"entries {found.after + 1} to {found.to_index}: {len(found.bitmaps)} of them have events "
        f"that did not count, no event is later than {_time(found.latest_ns)}",
    )


def _snapshot(disk: Disk, path: str, file: str) -> Iterator[Row]:
    try:
        head, _, digest = read_snapshot(disk, file)
    except CorruptionError as damage:
        yield _damage(path, damage)
        return
    yield Row(
        _short(path, file),
        0,
        "snapshot",
        f"state after entry {head.index} (term {head.term}, {_time(head.timestamp_ns)}), "
        f"{head.state_bytes} bytes, hash {digest}",
    )


def _log(
    path: str, log: reading.LogReader, bitmaps: Bitmaps, events: bool, from_index: int
) -> Iterator[Row]:
    for segment, walk in log.walks():
        name, head = _short(path, segment.path), segment.head
        yield Row(
            name,
            0,
            "segment",
            f"entries from {head.first_index}, {head.segment_bytes} bytes, parent checksum "
            f"{head.parent_crc:08x}",
        )
        for entry in walk:
            if entry.index < from_index:
                continue
            at = walk.entry_position
            yield Row(name, at, "entry", _explain(entry, walk.synced_index))
            if events and entry.kind == entries.EVENTS:
                yield from _events(name, at, entry, bitmaps)
        try:
            log.check_end(segment, walk)
        except CorruptionError as damage:
            yield _damage(path, damage)
            continue
        if log.torn_at:
            yield Row(
                name,
                walk.position,
                "torn",
                f"{log.torn_at.partition(': ')[2]}: never finished; a start cuts it",
            )
        elif walk.limit > walk.position:
            yield Row(name, walk.position, "blank", f"{walk.limit - walk.position} bytes of zeros")


def _explain(entry: Entry, synced_index: int) -> str:
    head = (
        f"{entry.index}: term {entry.term}, {_time(entry.timestamp_ns)}, {len(entry.body)} bytes, "
        f"written when {synced_index} was durable: "
    )
    try:
        return head + _meaning(entry)
    except (ValueError, DataError, InvalidInputError) as error:
        return f"{head}{entries.NAMES.get(entry.kind, entry.kind)} that can't be read: {error}"


def _meaning(entry: Entry) -> str:
    if entry.kind == entries.NOOP:
        return "begins a leader's term"
    if entry.kind == entries.GENESIS:
        return f"genesis of cluster {bytes(entry.body[:16]).hex()}"
    if entry.kind in (entries.METRIC_PUT, entries.METRIC_DELETE):
        return _catalog_change(entry.kind, bytes(entry.body))
    if entry.kind == entries.ON_BEHALF:
        actor, kind, change = entries.parse_on_behalf(bytes(entry.body))
        return f"{actor_text(actor)}: {_catalog_change(kind, change)}"
    if entry.kind == entries.ADMIN:
        return change_text(bytes(entry.body))
    if entry.kind == entries.EVENTS:
        body = EventsBody(entry.body)
        last = body.first_offset + body.event_count - 1
        codes = ", ".join(body.metric_codes()[:4])
        return (
            f"{body.event_count} events, offsets {body.first_offset} to {last}, of "
            f"{body.request_count} requests: {codes}"
        )
    return f"unknown kind {entry.kind}"


def _catalog_change(kind: int, body: bytes) -> str:
    if kind == entries.METRIC_DELETE:
        return f"delete metric {body.decode()!r}"
    schema, _ = catalog.decode_schema(body[1:])
    mode = {0: "put", 1: "create", 2: "update"}.get(body[0], "put")
    dimensions = ", ".join(dimension.key for dimension in schema.filters) or "none"
    return (
        f"{mode} metric {schema.code!r}, {schema.agg_type.name}, "
        f"{schema.period_type.name} periods, dimensions {dimensions}, "
        f"{len(schema.thresholds)} thresholds"
    )


def _events(name: str, at: int, entry: Entry, bitmaps: Bitmaps) -> Iterator[Row]:
    body = EventsBody(entry.body)
    stored = bitmaps.get(entry.index)
    for number in range(body.event_count):
        row = body.event(number)
        counted = "" if stored is None or is_counted(stored[1], number) else ", did not count"
        if row.refused:
            counted = f", refused ({row.refused})"
        yield Row(name, at, "event", f"{body.first_offset + number}: {_event(row)}{counted}")


def _event(row: EventRow) -> str:
    parts = [f"account {row.account!r}", f"{row.metric_code} {row.value:+d}"]
    parts.append(_time(row.timestamp_ns))
    if row.operation:
        parts.append(OperationType(row.operation).name.lower())
    parts += [f"{key}={value}" for key, value in row.properties.items()]
    if row.id is not None:
        parts.append(f"id {row.id!r}")
    return ", ".join(parts)
