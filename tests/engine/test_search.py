"""Accounts by name: each once, newest first, however the walk is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.twin import Batch, Twin, event

from unimeter.engine import search
from unimeter.types import Account, AggType, MetricSchema

CODES = ("m", "n")


def twin_of(*accounts: tuple[Account, str]) -> Twin:
    twin = Twin(1_704_067_200 * 10**9)
    for code in CODES:
        assert twin.put(MetricSchema(code, AggType.SUM)) == ""
    for account, code in accounts:
        twin.ingest(Batch([event(account=account, code=code)]))
    return twin


def found(twin: Twin, prefix: str = "") -> list[Account]:
    accounts: list[Account] = []
    end = search.series_end(twin.machine)
    while end:
        some, after = search.step(twin.machine, prefix, end)
        assert after < end, "a step goes on"
        accounts, end = accounts + some, after
    return accounts


ACCOUNTS = st.one_of(st.integers(0, 120), st.text("ab1", min_size=1, max_size=3))


@given(
    st.lists(st.tuples(ACCOUNTS, st.sampled_from(CODES)), max_size=30),
    st.text("ab1", max_size=2),
    st.integers(1, 7),
)
def test_every_account_is_found_once_by_its_beginning(
    pairs: list[tuple[Account, str]], prefix: str, step: int
) -> None:
    twin = twin_of(*pairs)
    whole = search.SERIES_PER_STEP
    try:
        search.SERIES_PER_STEP = step  # type: ignore[misc]
        names = found(twin, prefix)
    finally:
        search.SERIES_PER_STEP = whole  # type: ignore[misc]
    wanted = [account for account, _ in pairs if str(account).startswith(prefix)]
    key = repr  # 1 and "1" are two
    assert sorted(names, key=key) == sorted({key(one): one for one in wanted}.values(), key=key)


def test_the_newest_come_first() -> None:
    twin = twin_of(("a", "m"), ("b", "m"), ("a", "n"), (5, "m"))
    assert found(twin) == [5, "a", "b"]


def test_a_prefix_with_its_kind_leaves_integers_out() -> None:
    twin = twin_of((4, "m"), ("4", "m"), ("44", "m"), (44, "m"))
    assert sorted(map(str, found(twin, "4"))) == ["4", "4", "44", "44"]
    assert found(twin, "str:4") == ["44", "4"]


def test_accounts_of_deleted_metrics_are_gone() -> None:
    twin = twin_of(("a", "m"), ("b", "n"))
    twin.delete("m")
    assert found(twin) == ["b"]
    assert search.metrics_of(twin.machine, "a") == []
    assert search.metrics_of(twin.machine, "b") == ["n"]


@pytest.mark.parametrize("account", ["nobody", 7, -1, 2**64, "\ud800"])
def test_what_was_never_counted_is_not_known(account: Any) -> None:
    twin = twin_of(("a", "m"), ("a", "n"))
    assert not search.known_account(twin.machine, account)
    assert search.metrics_of(twin.machine, "a") == ["m", "n"]
