"""Power cuts at every step, with lost, torn and reordered sectors: what was acknowledged is there.

Each seed is one history: batches of several entries in a group, snapshots,
retention, tiny segments, a power cut at a random operation of the disk, recovery,
and on from there. A power cut alone must never look like rot.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from tests.storage.meter import CALLS, NOW, NOW_NS, PATH, Meter

from unimeter.engine.machine import Machine
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.verify import verify
from unimeter.types import Event

ROUNDS = 6


class PowerCut(BaseException):
    """The world stops here."""


class History:
    """What was written and what was acknowledged, beside the disk."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = MemoryDisk(faults=True)
        self.written: dict[int, bytes] = {}  # body by index, as last appended
        self.acknowledged = 0
        self.bodies: dict[int, tuple[int, int, bytes]] = {}  # of every entry seen durable
        self.recovered_more = 0
        self.cut_tails = 0

    def run(self) -> None:
        for _ in range(ROUNDS):
            self.disk.on_operation = self._cutter()
            try:
                self._work()
            except PowerCut:
                pass
            arrival = self.random.choice((0.0, 0.2, 0.5, 0.9, 1.0))
            self.disk = self.disk.crash(self.random, arrival)
            self._check()

    def _cutter(self) -> Callable[[str, str], None]:
        """Cut before some operation, or, half of the time, with a write not yet synced."""
        wanted = self.random.choice(("", "sync"))
        left = [self.random.randrange(1, 40 if wanted else 120)]

        def on_operation(operation: str, path: str) -> None:
            left[0] -= operation == wanted if wanted else operation != "read"
            if left[0] < 0:
                raise PowerCut

        return on_operation

    def _work(self) -> None:
        meter = Meter(self.disk)
        if meter.wal.last_index < 2:
            self._remember(meter)
            meter.create(CALLS)
            self._acknowledge(meter)
        while True:
            for _ in range(self.random.randrange(1, 4)):
                self._stage(meter)
            meter.commit()
            self._acknowledge(meter)
            if self.random.random() < 0.15:
                meter.snapshot()
            if self.random.random() < 0.1:
                meter.opened.apply_retention(RetentionPolicy(bytes=20_000), NOW_NS)

    def _stage(self, meter: Meter) -> None:
        events = [
            Event(self.random.randrange(5), "calls", self.random.randrange(100), NOW)
            for _ in range(self.random.choice((1, 3, 20)))
        ]
        if self.random.random() < 0.3:
            events.append(Event(1, "calls", 1, NOW, id="again"))
        offset = meter.machine.next_offset
        # One entry per group is decoded with its own offset; staged ones follow on.
        meter.machine.next_offset, meter.staged_events = (  # type: ignore[attr-defined]
            offset + getattr(meter, "staged_events", 0),
            getattr(meter, "staged_events", 0) + len(events),
        )
        index = meter.stage(events)
        meter.machine.next_offset = offset
        self.written[index] = bytes(meter.wal._staged[-1].body)

    def _remember(self, meter: Meter) -> None:
        hook, self.disk.on_operation = self.disk.on_operation, None
        for entry in meter.wal.read(meter.wal.first_index):
            self.bodies[entry.index] = (entry.kind, entry.timestamp_ns, bytes(entry.body))
        self.disk.on_operation = hook

    def _acknowledge(self, meter: Meter) -> None:
        meter.staged_events = 0  # type: ignore[attr-defined]
        assert meter.machine.applied == meter.wal.synced_index
        self.acknowledged = meter.wal.synced_index
        self._remember(meter)

    def _check(self) -> None:
        meter = Meter(self.disk)
        last = meter.wal.last_index
        assert last >= self.acknowledged, "an acknowledged entry is gone"
        self.recovered_more += last > self.acknowledged > 0
        self.cut_tails += meter.wal.cut_bytes > 0
        for entry in meter.wal.read(meter.wal.first_index):
            body = bytes(entry.body)
            if entry.index <= self.acknowledged:
                assert body == self.bodies[entry.index][2], "an acknowledged entry changed"
            elif entry.index in self.written:
                assert body == self.written[entry.index], "an entry that nobody wrote"
        self._remember(meter)
        self.acknowledged = last  # recovery made them durable
        fresh = Machine()
        for index in range(1, last + 1):
            fresh.apply(index, *self.bodies[index])
        assert fresh.state_hash() == meter.machine.state_hash()
        meter.close()
        report = verify(PATH, disk=self.disk)
        assert report.ok, report.problems
        assert all("retention" in n or "members" in n for n in report.notes), report.notes


@pytest.mark.parametrize("seed", range(60))
def test_acknowledged_entries_survive_power_cuts(seed: int) -> None:
    History(seed).run()


def test_the_histories_reach_the_rare_places() -> None:
    """Torn tails that were cut, and entries that were durable and never acknowledged."""
    histories = [History(seed) for seed in range(60, 90)]
    for history in histories:
        history.run()
    assert sum(history.cut_tails for history in histories) > 3
    assert sum(history.recovered_more for history in histories) > 5
