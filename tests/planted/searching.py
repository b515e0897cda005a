"""Who is asked first for a planted bug, and who next.

    check    the kept finder: the seed of found.toml, or the bug's test where none is kept;
             only where that one has lost the bug, others as in a search
    search   seeds from 1 on; then the kept seed, if it is not among them; then the bug's test

Every change of the product changes the course of every seed, so that a kept one may lose its
bug without anything being wrong.
"""

from __future__ import annotations

from tests.planted.bug import Bug
from tests.planted.finding import Found, find_by_seeds, find_by_test
from tests.planted.kept import Kept

SECONDS_MAX = 600.0  # of the seeds for one bug: interpreted kernels are slow
SECONDS_MORE = 60.0  # the same where the kept seed finds nothing any more
PROFILE = "swarm"


def check(bug: Bug, kept: Kept | None, seeds_max: int) -> Found:
    """Ask who found the bug the last time, and others only if that one does not any more."""
    found = find_by_kept(bug, kept)
    if found.is_found:
        return found
    if bug.is_simulated and seeds_max:
        seconds = SECONDS_MORE if bug.test is not None else SECONDS_MAX
        found = find_by_seeds(bug, range(1, seeds_max + 1), PROFILE, seconds)
    if not found.is_found and bug.test is not None:
        return find_by_test(bug)
    return found


def search(bug: Bug, kept: Kept | None, seeds_max: int) -> Found:
    """Look for the bug as if nobody had found it before."""
    found = Found(bug, False, trouble="nobody looks for it")
    if bug.is_simulated and seeds_max:
        found = find_by_seeds(bug, range(1, seeds_max + 1), PROFILE, SECONDS_MAX)
        if not found.is_found and kept is not None and kept.seed > seeds_max:
            found = find_by_kept(bug, kept)
    if not found.is_found and bug.test is not None:
        return find_by_test(bug)
    return found


def find_by_kept(bug: Bug, kept: Kept | None) -> Found:
    """The one finder that is known."""
    if kept is not None:
        return find_by_seeds(bug, range(kept.seed, kept.seed + 1), kept.profile)
    if bug.test is not None:
        return find_by_test(bug)
    return Found(bug, False, trouble="nobody is known to find it")
