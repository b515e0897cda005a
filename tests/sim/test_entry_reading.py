"""The independent reader of entry bodies, against the page, the builder and planted damage."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.engine.dice import JAN, Dice
from tests.engine.test_entries_page import NOW, page_bytes

from unimeter.engine import entries
from unimeter.engine.catalog import CREATE, put_body
from unimeter.engine.decode import EntryBuilder
from unimeter.engine.records import EventsBody
from unimeter.periods import zone_transitions
from unimeter.sim.counting import Row
from unimeter.sim.entry_reading import (
    read_events,
    read_genesis,
    read_metric_delete,
    read_metric_put,
    read_noop,
)
from unimeter.sim.failures import CheckFailed
from unimeter.types import AggType, MetricSchema, PeriodType


def test_the_bytes_of_the_page_are_read_as_the_page_says() -> None:
    entry = read_events(page_bytes())
    assert (entry.first_offset, entry.timestamp_ns) == (1, NOW + 500_000_000)
    first, second = entry.requests
    assert (first.has_session, second.session, second.sequence) == (False, (7, 9), 1)
    assert first.rows == (
        Row(42, "calls", 1, NOW, True, properties=(("model", "large"),), is_v1=True),
    )
    assert second.rows == (Row("acme", "calls", -3, NOW, id="k1"),)


@pytest.mark.parametrize("seed", range(30))
def test_what_the_builder_writes_is_read_as_the_engine_reads_it(seed: int) -> None:
    dice = Dice(seed)
    builder = EntryBuilder()
    builder.now_ns = JAN
    for number in range(3):
        batch = dice.batch(["m", "n", "unknown"])
        assert builder.feed_payload(batch.version, number, batch.payload(), 0) == 0
    sealed = builder.seal(JAN + 5, 77)
    assert sealed is not None
    entry, engine = read_events(sealed.body), EventsBody(sealed.body)
    assert (entry.first_offset, entry.timestamp_ns) == (77, JAN + 5)
    assert [(*r.session, r.sequence, len(r.rows)) for r in entry.requests] == engine.requests()
    for number, row in enumerate(entry.rows):
        event = engine.event(number)
        assert (row.account, row.metric_code, row.value) == event[:3]
        assert (row.timestamp_ns, row.operation) == event[3:5]
        assert (dict(row.properties), row.id, row.refused) == event[5:8]
        assert (row.is_given, row.is_v1) == event[8:]


def test_every_byte_of_a_body_says_something() -> None:
    body = page_bytes()
    whole, refused = read_events(body), 0
    for at in range(len(body)):
        for bit in (1, 128):
            damaged = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
            try:
                assert read_events(damaged) != whole, f"byte {at} is not looked at"
            except CheckFailed:
                refused += 1
    assert refused > len(body), "half of all flips contradict something else"


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 2 | 2 << 32), (1, 3 | 1 << 32), (6, 0), (7, 1), (5, 0), (8, 1 | 2 << 32), (8, 2)],
)
def test_what_the_page_says_must_be_so(word: int, value: int) -> None:
    body = page_bytes()
    changed = body[: 8 * word] + value.to_bytes(8, "little") + body[8 * word + 8 :]
    with pytest.raises(CheckFailed):
        read_events(changed)


@pytest.mark.parametrize("seed", range(30))
def test_a_definition_is_read_as_it_was_put(seed: int) -> None:
    schema = Dice(seed).schema("m")
    put = read_metric_put(put_body(schema, CREATE))
    if schema.period == timedelta(days=30):
        schema.period = None
    assert (put.mode, put.schema, put.transitions) == (1, schema, zone_transitions(schema.zone))


def test_a_definition_that_goes_on_or_ends_early_is_refused() -> None:
    body = put_body(MetricSchema("m", AggType.SUM, period_type=PeriodType.WEEK))
    read_metric_put(body)
    for wrong in (body[:-1], body + b"\0", b"\3" + body[1:], body[:1] + b"\2" + body[2:]):
        with pytest.raises(CheckFailed):
            read_metric_put(wrong)


def test_the_small_entries() -> None:
    cluster, key = b"c" * 16, b"k" * 16
    assert read_genesis(entries.genesis_body(cluster, key)) == (cluster, key)
    read_noop(b"")
    assert read_metric_delete("größe".encode()) == "größe"
    for read, wrong in ((read_genesis, b"short"), (read_noop, b"x"), (read_metric_delete, b"\xff")):
        with pytest.raises(CheckFailed):
            read(wrong)  # type: ignore[operator]
