"""The kernel that notes which series changed, against a set of what was counted."""

from __future__ import annotations

import random
from datetime import datetime, timezone

from tests.engine.twin import Batch, Twin, event

from unimeter.engine.cells import account_of, series_of
from unimeter.engine.touched import Touched
from unimeter.types import Account, AggType, MetricSchema, Outcome, to_ns

JAN = to_ns(datetime(2024, 1, 1, tzinfo=timezone.utc))
ANY_MAX = 64
Pair = tuple[Account, str]


def pairs_of(twin: Twin, rows: list[int]) -> list[Pair]:
    machine = twin.machine
    found = []
    for row in rows:
        account, word = machine.counter.totals.series_at(row)[:2]
        code = machine.catalog.metrics[(word & 0xFFFFFFFF) - 1].code
        found.append((account_of(machine, account, word), code))
    return found


def row_of(twin: Twin, pair: Pair) -> int:
    return series_of(twin.machine, pair[0], twin.machine.catalog.find(pair[1]))


def ingest(twin: Twin, touched: Touched, rows: list[tuple[Account, str, str | None]]) -> set[Pair]:
    """One entry; the pairs of it that counted an event."""
    batch = Batch(tuple(event(account, code, id=ident) for account, code, ident in rows))
    outcomes = twin.ingest(batch)[0]
    touched.note(twin.machine.counter)
    counted = zip(rows, outcomes, strict=True)
    return {(row[0], row[1]) for row, outcome in counted if outcome == Outcome.STORED}


def two_metrics() -> Twin:
    twin = Twin(JAN)
    for code in ("m", "n"):
        assert twin.put(MetricSchema(code, AggType.SUM)) == ""
    return twin


def test_named_series_are_listed_once_for_any_number_of_events() -> None:
    twin, touched = two_metrics(), Touched(ANY_MAX)
    ingest(twin, touched, [(1, "m", None), (2, "m", None), ("1", "m", None)])
    assert touched.take() == ([], False)
    touched.watch(row_of(twin, (1, "m")))
    touched.watch(row_of(twin, ("1", "m")))
    for _ in range(3):
        ingest(twin, touched, [(1, "m", None), (1, "m", None), (2, "m", None), ("1", "m", None)])
    rows, missed = touched.take()
    assert sorted(map(str, pairs_of(twin, rows))) == ["('1', 'm')", "(1, 'm')"] and not missed
    assert touched.take() == ([], False)


def test_a_series_that_was_taken_is_listed_again_once_it_was_read() -> None:
    twin, touched = two_metrics(), Touched(ANY_MAX)
    ingest(twin, touched, [(1, "m", None), (2, "m", None)])
    one, two = row_of(twin, (1, "m")), row_of(twin, (2, "m"))
    touched.watch(one)
    touched.watch(two)
    for _ in range(2):
        ingest(twin, touched, [(1, "m", None), (2, "m", None)])
        assert sorted(touched.take()[0]) == [one, two]
        ingest(twin, touched, [(1, "m", None), (2, "m", None)])
        assert touched.take()[0] == []
        touched.arm(two)
        ingest(twin, touched, [(1, "m", None), (2, "m", None)])
        touched.arm(one)  # in no list: nothing happened since
        assert touched.take()[0] == [two]
        touched.arm(two)
    # Whoever watches it anew has not been told of anything.
    ingest(twin, touched, [(1, "m", None)])
    assert touched.take()[0] == [one]
    touched.unwatch(one)
    touched.watch(one)
    ingest(twin, touched, [(1, "m", None)])
    assert touched.take()[0] == [one]


def test_duplicates_and_refused_events_touch_nothing() -> None:
    twin, touched = two_metrics(), Touched(ANY_MAX)
    ingest(twin, touched, [(1, "m", "a"), (1, "n", "a"), (2, "m", "a")])
    for pair in ((1, "m"), (1, "n"), (2, "m")):
        touched.watch(row_of(twin, pair))
    assert ingest(twin, touched, [(1, "m", "a"), (1, "n", "b"), (2, "x", "a")]) == {(1, "n")}
    assert pairs_of(twin, touched.take()[0]) == [(1, "n")]


def test_no_pair_of_thousands_is_forgotten() -> None:
    twin, touched, chance = two_metrics(), Touched(ANY_MAX), random.Random(7)
    accounts: list[Account] = [*range(3000), *(f"team-{n}" for n in range(3000))]
    everything = [(account, code, None) for account in accounts for code in ("m", "n")]
    for start in range(0, len(everything), 4000):
        ingest(twin, touched, everything[start : start + 4000])
    watched = {(account, code) for account, code, _ in everything if chance.random() < 0.3}
    for pair in watched:
        touched.watch(row_of(twin, pair))
    for _ in range(10):
        expected: set[Pair] = set()
        for size in (1, 30, 2500):
            expected |= ingest(twin, touched, chance.sample(everything, size))
        rows, missed = touched.take()
        for row in rows:
            touched.arm(row)
        found = pairs_of(twin, rows)
        assert len(found) == len(set(found)) and not missed
        assert set(found) == expected & watched


def test_a_metric_of_all_accounts_has_a_bound_and_says_when_it_is_passed() -> None:
    twin, touched = two_metrics(), Touched(ANY_MAX)
    ingest(twin, touched, [(0, "n", None)])
    touched.watch(row_of(twin, (0, "n")))
    touched.want_metric(twin.machine.catalog.find("m").number, True)
    ingest(twin, touched, [(n, "m", None) for n in range(ANY_MAX)] + [(5, "n", None)])
    rows, missed = touched.take()
    assert set(pairs_of(twin, rows)) == {(n, "m") for n in range(ANY_MAX)} and not missed
    # What was named is never left out, however much else there is.
    ingest(twin, touched, [(n, "m", None) for n in range(ANY_MAX + 1)] + [(0, "n", None)])
    rows, missed = touched.take()
    assert len(rows) == ANY_MAX + 1 and (0, "n") in pairs_of(twin, rows) and missed
    touched.want_metric(twin.machine.catalog.find("m").number, False)
    ingest(twin, touched, [(1, "m", None)])
    assert touched.take() == ([], False)


def test_series_can_come_and_go_between_two_takes() -> None:
    twin, touched = two_metrics(), Touched(1)
    ingest(twin, touched, [(n, "m", None) for n in range(2000)])
    for n in range(2000):
        row = row_of(twin, (n, "m"))
        touched.watch(row)
        ingest(twin, touched, [(n, "m", None)])
        touched.unwatch(row)
    rows, _ = touched.take()
    assert len(rows) == 2000 and touched.named == 0
    touched.watch(3)
    ingest(twin, touched, [(3, "m", None), (4, "m", None)])
    assert pairs_of(twin, touched.take()[0]) == [(3, "m")]
