"""One planted bug of each kind is found; `make planted` looks for all of them.

And what can be said of the whole suite without planting anything: that every bug has a finder,
and that the page which lists them is of today.
"""

from __future__ import annotations

import pytest
from tests.planted.catalogue import BUGS, bug_named
from tests.planted.kept import kept_seeds
from tests.planted.page import PATH, page_with
from tests.planted.searching import check

KEPT = kept_seeds()
SEEDS_MORE = 20  # where the kept one finds nothing any more
SAMPLE = (
    "acknowledge-before-sync",
    "two-leaders-of-one-term-tolerated",  # by its test
    "superblock-not-synced",
    "iteration-order-in-the-snapshot",
    "sessions-lost-at-failover",
    "new-leader-forgets-what-is-not-applied",
    "resend-under-a-new-session",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_the_bug_is_found(name: str) -> None:
    found = check(bug_named(name), KEPT.get(name), SEEDS_MORE)
    assert found.is_found, f"{found.trouble}; try: make planted ARGS='--bug {name} --search'"


def test_the_sample_has_a_bug_of_each_kind() -> None:
    assert {bug_named(name).kind for name in SAMPLE} == {bug.kind for bug in BUGS}


def test_every_bug_has_somebody_who_finds_it() -> None:
    nobody = [bug.name for bug in BUGS if bug.name not in KEPT and bug.test is None]
    assert not nobody, "search for them: make planted ARGS='--search --keep'"


def test_kept_seeds_are_of_bugs_that_there_are() -> None:
    assert set(KEPT) <= {bug.name for bug in BUGS}


def test_the_page_lists_the_bugs_and_finders_of_today() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert text == page_with(text), "write it again: make planted ARGS=--keep"
