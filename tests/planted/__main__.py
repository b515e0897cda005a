"""``make planted``: plant every known bug, one at a time, and see that it is found.

    python -m tests.planted                      all of them, searched for anew
    python -m tests.planted --bug figure-8       one
    python -m tests.planted --list               what there is

The simulator looks first: seeds from 1 on, until one fails that passes without the bug. What it
does not find within `--seeds`, or can't show at all, the bug's own directed test has to.
A bug that is not found is a failure of the suite, and of the exit code.
"""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import click
from rich.console import Console
from rich.table import Table
from tests.planted.bug import Bug
from tests.planted.catalogue import BUGS, bug_named
from tests.planted.finding import Found, find_by_seeds, find_by_test
from tests.planted.kept import keep, kept_seeds

SECONDS_MAX = 600.0  # of the seeds for one bug: interpreted kernels are slow


@click.command()
@click.option("--bug", "names", multiple=True, help="Only this one; may be repeated.")
@click.option("--list", "is_list", is_flag=True, help="Show the bugs and plant none.")
@click.option("--jobs", default=2, show_default=True, help="How many at a time.")
@click.option("--seeds", "seeds_max", default=200, show_default=True, help="Seeds for each bug.")
@click.option("--profile", default="swarm", show_default=True, help="Of the simulator.")
@click.option("--keep", "is_kept", is_flag=True, help="Write the seeds to found.toml.")
def main(
    names: tuple[str, ...],
    is_list: bool,
    jobs: int,
    seeds_max: int,
    profile: str,
    is_kept: bool,
) -> None:
    """Plant known bugs and see that each is found."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    bugs = [bug_named(name) for name in names] if names else list(BUGS)
    if is_list:
        console.print(catalogue_table(bugs))
        return
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        searches = pool.map(lambda bug: search(bug, seeds_max, profile), bugs)
        results = []
        for result in searches:
            results.append(result)
            word = "found" if result.is_found else "[red]NOT FOUND[/red]"
            console.print(f"{word}  {result.bug.name}: {result.finder} {result.effort}")
            if result.trouble or result.sentence:
                words = result.trouble or result.sentence.strip().splitlines()[-1]
                console.print(f"  {words[:140]}", markup=False)
    console.print(result_table(results))
    if is_kept:
        keep(results)
    missing = [result.bug.name for result in results if not result.is_found]
    by = Counter("a test" if result.finder == "test" else "the simulator" for result in results)
    words = ", ".join(f"{count} by {finder}" for finder, count in sorted(by.items()))
    console.print(f"{len(results) - len(missing)} of {len(results)} bugs found: {words}")
    if missing:
        console.print(f"not found: {', '.join(missing)}")
        sys.exit(1)


def search(bug: Bug, seeds_max: int, profile: str) -> Found:
    """Look for one bug: by seeds where a history can show it, else by its test."""
    found = Found(bug, False, trouble="nobody looks for it")
    if bug.is_simulated and seeds_max:
        found = find_by_seeds(bug, range(1, seeds_max + 1), profile, SECONDS_MAX)
    if not found.is_found and bug.test is not None:
        return find_by_test(bug)
    return found


def result_table(results: list[Found]) -> Table:
    """Bug, found by, seed or test, effort."""
    table = Table("bug", "of", "found by", "seed or test", "effort")
    for one in results:
        finder = one.finder if one.is_found else "nobody"
        table.add_row(one.bug.name, one.bug.kind, finder, one.where, one.effort)
    return table


def catalogue_table(bugs: list[Bug]) -> Table:
    """What there is, with the seed or test that found it the last time."""
    seeds = kept_seeds()
    table = Table("bug", "of", "story", "found by")
    for bug in bugs:
        test = bug.test.node_id if bug.test is not None else ""
        kept = seeds.get(bug.name)
        table.add_row(bug.name, bug.kind, bug.story, f"seed {kept.seed}" if kept else test)
    return table


if __name__ == "__main__":
    main(prog_name="python -m tests.planted")
