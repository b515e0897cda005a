"""Interned strings and the index under them: growth in steps loses and invents nothing."""

from __future__ import annotations

from unimeter.engine import COMPILED
from unimeter.engine.keys import DAY_ZERO, KeyTable
from unimeter.engine.snapshot import Source
from unimeter.engine.tables import Interner
from unimeter.limits import KEY_WINDOW_DAYS

DAY_NS = 86_400_000_000_000
MANY = 400_000 if COMPILED else 120_000
"""Enough that the table is beyond the size that is rehashed at once."""


def test_strings_are_numbered_from_one_and_found_again() -> None:
    interner = Interner(7)
    assert interner.number(b"") == 0
    assert [interner.add(t) for t in (b"a", b"", b"b", b"a", b"")] == [1, 2, 3, 1, 2]
    assert [interner.text(n) for n in (1, 2, 3)] == [b"a", b"", b"b"]
    assert interner.number(b"c") == 0


def test_every_string_is_found_while_the_index_moves() -> None:
    interner = Interner(3)
    moving = 0
    for i in range(MANY):
        assert interner.add(b"account-%d" % i) == i + 1
        moving += interner.index.old_size > 65_536
        if i % 977 == 0:
            for j in (0, i // 3, i // 2, i):
                assert interner.number(b"account-%d" % j) == j + 1
    assert moving > 100, "the index never moved in steps"
    interner.index.check_invariants()
    for i in range(0, MANY, 101):
        assert interner.number(b"account-%d" % i) == i + 1


def test_an_interner_survives_its_snapshot_in_the_middle_of_a_move() -> None:
    interner = Interner(3)
    i = 0
    while not (interner.index.old_size > 65_536 and interner.index.moved > 1000):
        interner.add(b"%d" % i)
        i += 1
    copy = Interner(0)
    copy.load(Source(b"".join(bytes(part) for part in interner.dump())))
    for table in (interner, copy):
        for j in range(i, i + 5000):
            table.add(b"%d" % j)
    for j in range(0, i + 5000, 37):
        assert copy.number(b"%d" % j) == j + 1
    dumps = [b"".join(bytes(part) for part in table.dump()) for table in (interner, copy)]
    assert dumps[0] == dumps[1]


def spread(i: int) -> tuple[int, int]:
    """Two words that look random and are not both zero."""
    x = (i * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1)
    return x | 1, (x * 0xBF58476D1CE4E5B9) & (2**64 - 1)


def at_day(table: KeyTable, day: int) -> None:
    table.set_day((DAY_ZERO + day) * DAY_NS + 5)


def test_a_key_is_new_once_and_then_a_duplicate_or_a_conflict() -> None:
    table = KeyTable()
    at_day(table, 8000)
    assert table.remember(1, 2, 3) == 0
    assert table.remember(1, 2, 3) == 1
    assert table.remember(1, 2, 4) == 2
    assert table.remember(0, 0, 3) == 0
    assert table.remember(0, 0, 3) == 1


def test_a_key_is_remembered_for_the_whole_window_and_not_longer() -> None:
    table = KeyTable()
    at_day(table, 100)
    assert table.remember(5, 6, 7) == 0
    at_day(table, 100 + KEY_WINDOW_DAYS)
    assert table.remember(5, 6, 7) == 1
    at_day(table, 101 + KEY_WINDOW_DAYS)
    assert table.remember(5, 6, 7) == 0, "the window had passed"
    assert table.remember(5, 6, 7) == 1


def test_every_key_is_known_while_the_table_moves() -> None:
    table = KeyTable()
    at_day(table, 1)
    moving = 0
    for i in range(MANY):
        assert table.remember(*spread(i), i) == 0
        moving += table.old_size > 65_536
        if i % 977 == 0:
            for j in (0, i // 3, i // 2, i):
                assert table.remember(*spread(j), j) == 1
    assert moving > 100, "the table never moved in steps"
    table.check_invariants()
    for i in range(0, MANY, 101):
        assert table.remember(*spread(i), i) == 1


def test_old_keys_are_left_behind_so_that_memory_stays_bounded() -> None:
    table = KeyTable()
    per_day = 300
    sizes = []
    for day in range(200):
        at_day(table, day)
        for i in range(per_day):
            assert table.remember(*spread(day * per_day + i), 0) == 0
        sizes.append(table.nbytes())
    table.check_invariants()
    assert max(sizes[60:]) <= 60 * per_day * (KEY_WINDOW_DAYS + 1)
    assert table.remember(*spread(199 * per_day), 0) == 1


def test_a_key_costs_less_than_40_bytes() -> None:
    table = KeyTable()
    at_day(table, 1)
    worst = 0.0
    for i in range(60_000):
        table.remember(*spread(i), 0)
        if i > 10_000 and not table.old_size:
            worst = max(worst, table.nbytes() / (i + 1))
    assert worst < 40
