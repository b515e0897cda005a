"""What the simulator knows of bodies that look alike is what the engine does."""

from __future__ import annotations

import pytest

from unimeter.periods import UTC_TRANSITIONS
from unimeter.sim.counting import Row
from unimeter.sim.likeness import Likeness, tag_set
from unimeter.sim.model import Model
from unimeter.types import AggType, MetricSchema, Outcome

HASH_KEY = bytes.fromhex("c92752f3caf5ee34c92a674d12f016f4")
TIME = 1_767_225_608_577_050_000
TAGS = (("tier", "x"), ("model", "y"), ("region", "y"))


def body(value: int, mark: str) -> tuple[int, int, tuple[tuple[str, str], ...], int]:
    return value, 0, (*TAGS, ("mark", mark)), TIME


def test_two_bodies_that_a_seed_met_look_alike() -> None:
    likeness = Likeness(HASH_KEY)
    assert likeness.bits(*body(4, "c2.158")) == likeness.bits(*body(5, "c2.185")) == 228_256
    assert likeness.are_alike(body(4, "c2.158"), body(5, "c2.185"))
    assert not likeness.are_alike(body(4, "c2.158"), body(5, "c2.158"))


def test_a_tag_set_is_written_as_in_an_entry() -> None:
    assert tag_set((("model", "large"),)) == b"\x01\x05model\x05large"


@pytest.mark.parametrize("is_alike", [True, False])
def test_the_meter_calls_what_looks_alike_a_duplicate_and_remembers_it(is_alike: bool) -> None:
    model = Model()
    model.are_alike = lambda one, other: is_alike
    model.put(MetricSchema("m", AggType.SUM), UTC_TRANSITIONS)
    rows = [Row(7, "m", value, TIME, id="1") for value in (1, 2)]
    first, second = model.ingest(TIME, rows)
    assert first is Outcome.STORED
    assert second is (Outcome.DUPLICATE if is_alike else Outcome.CONFLICT)
    assert len(model.look_alikes) == is_alike
