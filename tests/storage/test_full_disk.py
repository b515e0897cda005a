"""A disk that fills up and empties again, with power cuts: what was refused never comes back.

Space runs out in two places: before a segment can be made, and, on file systems
that copy on write, in the middle of writing a group. After either the log goes on
at the last durable entry. Whoever was refused sends again; if a refused entry were
found after a crash, that batch would be counted twice.
"""

from __future__ import annotations

import errno
import os
from random import Random

import pytest
from tests.storage.meter import CALLS, NOW, PATH, Meter

from unimeter.errors import CorruptionError
from unimeter.storage.active import ActiveSegment
from unimeter.storage.disk import DiskFullError
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.verify import verify
from unimeter.types import Event


class Filling:
    """One history on a disk that is full now and then."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = MemoryDisk(faults=True)
        self.acknowledged: dict[int, bytes] = {}
        self.refused: set[bytes] = set()

    def run(self) -> None:
        for _ in range(4):
            meter = Meter(self.disk)
            if meter.wal.last_index == 1:
                meter.create(CALLS)
            for _ in range(60):
                self._step(meter)
            self.disk.on_operation = None
            self.disk.capacity = None
            self.disk = self.disk.crash(self.random, self.random.choice((0.0, 0.5, 1.0)))
            self._check()

    def _step(self, meter: Meter) -> None:
        self.disk.on_operation = None
        self.disk.capacity = None
        kind = self.random.randrange(4)
        if kind == 0:
            self.disk.capacity = self.disk.used_bytes() + self.random.randrange(1_200_000)
        elif kind == 1:
            self.disk.on_operation = self._fail_in_write
        event = Event(1, "calls", self.random.randrange(1000), NOW)
        try:
            meter.stage([event] * self.random.randrange(1, 40))
        except DiskFullError:
            assert meter.wal.full or kind == 0
            self._resume(meter)
            return
        body = bytes(meter.wal._staged[-1].body)
        try:
            index = meter.commit()
        except DiskFullError as error:
            assert error.from_index == meter.wal.synced_index + 1 == meter.machine.applied + 1
            self.refused.add(body)
            self._resume(meter)
            return
        self.acknowledged[index] = body

    def _fail_in_write(self, operation: str, path: str) -> None:
        """Part of the group is written, then there is no space."""
        if operation == "write" and ("/log/" in path):
            content = self.disk._files[path]
            end = len(bytes(content.data).rstrip(b"\0"))
            piece = self.random.randbytes(self.random.randrange(1, 300))
            if end and end + 700 < content.size and ".seg" in path:
                content.store(end + 8, piece)
                content.pending.append((end + 8, piece))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _resume(self, meter: Meter) -> None:
        self.disk.on_operation = None
        self.disk.capacity = None
        assert meter.wal.try_resume()
        meter.wal.check_invariants()

    def _check(self) -> None:
        meter = Meter(self.disk)
        found = {entry.index: bytes(entry.body) for entry in meter.wal.read(1)}
        for index, body in self.acknowledged.items():
            assert found[index] == body, "an acknowledged entry is gone or changed"
        assert not self.refused & set(found.values()), "a refused entry came back"
        meter.close()
        assert verify(PATH, disk=self.disk).ok


@pytest.mark.parametrize("seed", range(20))
def test_what_was_refused_never_comes_back_and_what_was_accepted_stays(seed: int) -> None:
    history = Filling(seed)
    history.run()
    assert len(history.refused) > 10 and len(history.acknowledged) > 30


def test_a_place_that_is_not_made_blank_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the test: what a failed write left behind must matter."""
    monkeypatch.setattr(ActiveSegment, "_blank", lambda self, end: None)
    with pytest.raises((AssertionError, CorruptionError)):
        for seed in range(20):
            Filling(seed).run()
