"""A restored machine goes on exactly as the one that never stopped (P4)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unimeter.engine import entries
from unimeter.engine.catalog import put_body
from unimeter.engine.machine import Machine
from unimeter.types import AggType, AlertThreshold, DimensionFilter, MetricSchema, Outcome
from unimeter.wire import messages

from .twin import Batch, Twin

NOW = 1_700_000_000_000_000_000


def state(machine: Machine) -> bytes:
    return b"".join(bytes(part) for part in machine.snapshot())


def long_log() -> Twin:
    """A log in which every table grows past the sizes at which it is made anew."""
    twin = Twin(NOW)
    for number in range(30):
        twin.put(
            MetricSchema(
                f"m{number}",
                [AggType.SUM, AggType.COUNT_UNIQUE][number % 2],
                recurring=number % 4 == 3,
                filters=[DimensionFilter("d", [f"v{number}-{i}" for i in range(4)])]
                if number % 3
                else [DimensionFilter("open")],
                thresholds=[AlertThreshold("t", 3, True)] if number % 5 == 0 else [],
            )
        )
        rows = tuple(
            messages.IngestRow(
                f"account-{i}" if i % 2 else i,
                f"m{number}",
                i + number,
                NOW + i * 10**13,
                0,
                (("d", f"v{number}-{i % 4}"),) if number % 3 else (("open", f"x{i}"),),
                f"id-{number}-{i}",
            )
            for i in range(20)
        )
        twin.ingest(Batch(rows, session=number % 5 + 1, sequence=number // 5 + 1))
        if number % 7 == 6:
            twin.delete(f"m{number - 2}")
    return twin


def log_of_definitions() -> Twin:
    """Every listed value is one more string: each size of the table is passed exactly."""
    twin = Twin(NOW)
    for number in range(120):
        allowed = [DimensionFilter("d", [f"value-{number}"])]
        twin.put(MetricSchema(f"m{number}", AggType.SUM, filters=allowed))
    return twin


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("make", [long_log, log_of_definitions])
def test_restoring_after_any_entry_changes_no_byte_of_what_follows(
    make: Callable[[], Twin], every: int
) -> None:
    twin = make()
    whole = Machine()
    restored = Machine()
    for index, kind, timestamp_ns, body in twin.log:
        whole.apply(index, kind, timestamp_ns, body)
        restored.apply(index, kind, timestamp_ns, body)
        if index % every == 0:
            restored = Machine.restore(state(restored))
        assert state(restored) == state(whole), f"after entry {index}"
    whole.check_invariants()


def test_what_was_counted_and_what_has_fired_is_known_after_a_restore() -> None:
    twin = Twin(NOW)
    twin.put(MetricSchema("m", AggType.SUM, thresholds=[AlertThreshold("t", 3, False)]))

    def send(ident: str, value: int) -> list[Outcome]:
        row = messages.IngestRow(7, "m", value, NOW, 0, (), ident)
        return twin.ingest(Batch((row,)))[0]

    assert send("first", 5) == [Outcome.STORED]
    twin.machine = Machine.restore(state(twin.machine))
    assert send("first", 5) == [Outcome.DUPLICATE]
    assert send("back", -4) == [Outcome.STORED]
    twin.machine = Machine.restore(state(twin.machine))
    assert send("again", 6) == [Outcome.STORED]
    assert twin.machine.counter.alert_count == 1, "it fires once in a period"


def test_a_snapshot_is_the_same_bytes_in_every_process() -> None:
    """Nothing in it depends on the order of a set, or on how a process hashes strings."""
    code = (
        "import tests.conftest; from tests.engine.test_snapshot import long_log; "
        "print(long_log().machine.state_hash())"
    )
    root = Path(__file__).resolve().parents[2]
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1, "another order in another process"
    assert found == {f"{long_log().machine.state_hash()}\n"}


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    data = state(long_log().machine)
    for bad in (b"", bytes(64), data[:-8], data + bytes(8), data[:-3]):
        with pytest.raises(ValueError):
            Machine.restore(bad)


def test_an_entry_out_of_order_is_our_own_fault() -> None:
    twin = Twin(NOW)
    body = put_body(MetricSchema("m", AggType.SUM), 0)
    with pytest.raises(AssertionError):
        twin.machine.apply(3, entries.METRIC_PUT, NOW, body)
    with pytest.raises(AssertionError):
        twin.machine.apply(2, entries.METRIC_PUT, NOW - 1, body)
