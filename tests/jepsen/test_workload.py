"""The workload records what it was told, and what it was not told as unknown."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.linearizability.history import load
from tests.jepsen.fakes import FakeMeter, FakeState
from tests.jepsen.networks import Loopback
from tests.jepsen.recorder import Recorder
from tests.jepsen.run import enough, judge
from tests.jepsen.workload import Process, Workload

from unimeter import NotFoundError


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder."""
    with Recorder(tmp_path / "history.jsonl") as made:
        yield made


def process(recorder: Recorder, *faults: str, state: FakeState | None = None) -> Process:
    """Return a process whose calls meet these faults, in this order."""
    meter = FakeMeter(state or FakeState(), iter(faults))
    return Process(0, "a", meter, recorder, random.Random(1))


@pytest.mark.parametrize(
    ("faults", "has_id", "told", "total", "sent"),
    [
        ([], False, "ok", 3, 1),
        (["refuse"], False, "fail", 0, 1),
        (["before"], False, "info", 0, 1),
        (["after"], False, "info", 3, 1),
        (["before"], True, "ok", 3, 2),
        (["after"], True, "ok", 3, 2),
        (["after", "before"], True, "ok", 3, 3),
        (["after", "before", "before"], True, "info", 3, 3),
    ],
)
def test_add_is_recorded_as_what_it_was_told(
    recorder: Recorder, faults: list[str], has_id: bool, told: str, total: int, sent: int
) -> None:
    state = FakeState()
    one = process(recorder, *faults, state=state)
    one.add("7", 3, has_id=has_id)
    assert [(e.type, e.f, e.key) for e in recorder.events] == [
        ("invoke", "add", "7"),
        (told, "add", "7"),
    ]
    assert state.totals.get(7, 0) == total
    assert isinstance(one.client, FakeMeter)
    assert len(one.client.sent) == sent
    assert len({event.id for event in one.client.sent}) == 1


@pytest.mark.parametrize("linearizable", [True, False])
def test_read_is_recorded_with_its_kind(recorder: Recorder, linearizable: bool) -> None:
    one = process(recorder, "", "", "before")
    one.add("7", 3, has_id=False)
    one.read("7", linearizable=linearizable)
    one.read("7", linearizable=linearizable)
    reads = recorder.events[2:]
    assert [(e.type, e.value) for e in reads] == [
        ("invoke", None), ("ok", 3), ("invoke", None), ("fail", None)
    ]  # fmt: skip
    assert {e.linearizable for e in reads} == {linearizable}


def test_error_that_no_fault_explains_is_a_bug(recorder: Recorder) -> None:
    class Broken(FakeMeter):
        def query(self, *_: object, **__: object) -> None:  # type: ignore[override]
            raise NotFoundError("no such metric")

    workload = Workload(
        Loopback(), recorder, ["1"], seed=1, client_count=1, make_client=lambda: Broken(FakeState())
    )
    workload.start()
    for thread in workload._threads:
        thread.join(30)
    workload.stop()
    assert len(workload.bugs) == 2
    assert "NotFoundError" in workload.bugs[0]


def play(recorder: Recorder, faults: list[str]) -> tuple[list[str], FakeState]:
    """Run clients on a fake meter; return the promises that the checkers found broken."""
    state = FakeState()
    first = iter([faults])
    workload = Workload(
        Loopback(), recorder, ["1", "2"], seed=3, client_count=3,
        make_client=lambda: FakeMeter(state, iter(next(first, []))),
    )  # fmt: skip
    workload.start()
    while len(recorder.events) < 500:
        assert workload.bugs == []
        time.sleep(0.01)
    workload.stop()
    assert workload.bugs == []
    totals = {str(account): total for account, total in state.totals.items()}
    assert enough(recorder.statistics()).holds
    return [promise.name for promise in judge(recorder.events, totals) if not promise.holds], state


def test_right_meter_with_lost_answers_is_judged_right(recorder: Recorder) -> None:
    broken, _ = play(recorder, ["before", "after", ""] * 20)
    assert broken == []
    assert any(event.type == "info" for event in recorder.events)


def test_meter_that_loses_acknowledged_adds_breaks_every_promise(recorder: Recorder) -> None:
    broken, _ = play(recorder, ["lose"] * 40)
    assert broken == ["linearizable reads", "sessions", "exact totals"]


def test_history_on_disk_is_the_one_in_memory(tmp_path: Path) -> None:
    with Recorder(tmp_path / "history.jsonl") as recorder:
        play(recorder, [])
    assert load(tmp_path / "history.jsonl") == recorder.events


def test_empty_history_proves_nothing() -> None:
    assert not enough({}).holds
    assert not enough({"add ok": 5, "read ok": 5}).holds
