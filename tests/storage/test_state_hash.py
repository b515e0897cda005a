"""The hash of a state: of the moment it was asked for, while the node goes on."""

from __future__ import annotations

import os
import select
import time

import pytest
from tests.storage.meter import NOW, small_meter

from unimeter.storage import state_hash
from unimeter.storage.state_hash import StateHasher
from unimeter.types import Event


def wait(hasher: StateHasher) -> tuple[int, str] | None:
    while hasher.busy:
        found = hasher.poll()
        if found is not None:
            return found
        if hasher.fileno() >= 0:
            select.select([hasher.fileno()], [], [], 10)
    return None


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> StateHasher:
    monkeypatch.setattr(state_hash, "INLINE_BYTES_MAX", -1)
    return StateHasher(can_fork=True)


def test_a_small_state_is_hashed_on_the_spot() -> None:
    meter = small_meter()
    hasher = StateHasher(can_fork=True)
    assert hasher.poll() is None and not hasher.busy
    hasher.begin(meter.machine)
    assert hasher.fileno() == -1 and hasher.busy
    assert hasher.poll() == (8, meter.machine.state_hash())
    assert hasher.poll() is None and not hasher.busy


def test_a_large_state_is_hashed_by_a_child_as_it_was(forking: StateHasher) -> None:
    meter = small_meter()
    expected = (meter.machine.applied, meter.machine.state_hash())
    forking.begin(meter.machine)
    assert forking.busy and forking.fileno() >= 0
    for number in range(20):
        meter.ingest([Event(9, "calls", number, NOW)])
    assert meter.machine.state_hash() != expected[1]
    assert wait(forking) == expected
    assert forking.statistics() == {"state_hashes": 1, "state_hashes_failed": 0}


def test_a_killed_child_gives_no_answer_and_the_next_one_does(forking: StateHasher) -> None:
    class Stuck:
        applied = 3

        def statistics(self) -> dict[str, int]:
            return {"cell_bytes": 0, "member_bytes": 0, "key_bytes": 0, "sessions": 0}

        def state_hash(self) -> str:
            time.sleep(60)
            return "never"

    forking.begin(Stuck())
    assert forking.poll() is None and forking._child is not None
    os.kill(forking._child.pid, 9)
    assert wait(forking) is None and not forking.busy
    assert forking.statistics()["state_hashes_failed"] == 1
    forking.begin(Stuck())
    forking.abandon()
    assert not forking.busy
    meter = small_meter()
    forking.begin(meter.machine)
    assert wait(forking) == (8, meter.machine.state_hash())


def test_without_fork_it_is_hashed_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_hash, "INLINE_BYTES_MAX", -1)
    meter = small_meter()
    hasher = StateHasher(can_fork=False)
    hasher.begin(meter.machine)
    assert hasher.poll() == (8, meter.machine.state_hash())


def test_no_memory_for_a_child_is_no_answer_this_time(
    forking: StateHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise OSError("no memory")

    monkeypatch.setattr(os, "fork", fork)
    forking.begin(small_meter().machine)
    assert not forking.busy and forking.statistics()["state_hashes_failed"] == 1
