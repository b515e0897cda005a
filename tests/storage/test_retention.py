"""Segments that retention removed are gone, whatever names a power cut brings back."""

from __future__ import annotations

from random import Random

import pytest
from tests.storage.meter import NOW, NOW_NS, Meter, small_meter

from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.retention import RetentionPolicy, first_kept
from unimeter.types import Event


class PowerCut(BaseException):
    """The world stops here."""


def test_what_no_two_snapshots_cover_is_kept_however_old_and_large() -> None:
    segments = [(1, 10, 100, 5), (11, 20, 100, 6), (21, 30, 100, 7)]
    everything = RetentionPolicy(age_ns=1, bytes=1)
    assert [first_kept(segments, everything, 10**9, covered) for covered in (0, 15, 20)] == [
        1,
        11,
        21,
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_in_a_removal_leaves_a_log_without_a_hole(seed: int) -> None:
    """Names removed one after the other are durable in any order until the folder is synced."""
    disk = MemoryDisk(faults=True)
    meter = small_meter(disk, batches=60)
    meter.snapshot()
    meter.ingest([Event(1, "calls", 1, NOW, id="between")])
    meter.snapshot()
    assert len(meter.wal.segments()) > 4

    def on_operation(operation: str, path: str) -> None:
        if operation == "sync_directory" and path.endswith("/log"):
            raise PowerCut

    disk.on_operation = on_operation
    with pytest.raises(PowerCut):
        meter.opened.apply_retention(RetentionPolicy(bytes=1), NOW_NS)
    disk.on_operation = None
    again = Meter(disk.crash(Random(seed), 0.5))
    assert again.machine.applied == meter.machine.applied
    assert again.total(1) == meter.total(1)
    assert [entry.index for entry in again.wal.read(again.wal.first_index)] == list(
        range(again.wal.first_index, again.wal.last_index + 1)
    )
