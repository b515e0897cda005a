"""Each planted bug is found by what found it the last time, and by nothing where there is none.

The seed of `found.toml`, or the test that the bug names. Changes of the product change the
course of every seed: where the kept one has lost its bug, the named test has to find it, or
another of the first seeds. `make planted` searches anew.
"""

from __future__ import annotations

import pytest
from tests.planted.bug import Bug
from tests.planted.catalogue import BUGS
from tests.planted.finding import Found, find_by_seeds, find_by_test
from tests.planted.kept import Kept, kept_seeds

KEPT = kept_seeds()
SEEDS_MORE = range(1, 41)  # when the kept one finds nothing any more
SECONDS_MORE = 80.0


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_bug_is_found(bug: Bug) -> None:
    kept = KEPT.get(bug.name)
    found = find_by_test(bug) if kept is None else by_seeds(bug, kept)
    assert found.is_found, f"{found.trouble}; try: make planted ARGS='--bug {bug.name} --keep'"


def by_seeds(bug: Bug, kept: Kept) -> Found:
    """Try the kept seed; then the bug's test, which is sooner done than other seeds."""
    found = find_by_seeds(bug, range(kept.seed, kept.seed + 1), kept.profile)
    if not found.is_found and bug.test is not None:
        return find_by_test(bug)
    if not found.is_found:
        return find_by_seeds(bug, SEEDS_MORE, kept.profile, SECONDS_MORE)
    return found


def test_every_bug_has_somebody_who_finds_it() -> None:
    nobody = [bug.name for bug in BUGS if bug.name not in KEPT and bug.test is None]
    assert not nobody, "search for them: make planted ARGS=--keep"


def test_kept_seeds_are_of_bugs_that_there_are() -> None:
    assert set(KEPT) <= {bug.name for bug in BUGS}
