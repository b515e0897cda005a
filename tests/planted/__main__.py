"""``make planted``: plant every known bug, one at a time, and see that it is found.

    python -m tests.planted                      each by who found it the last time
    python -m tests.planted --search             all of them searched for anew
    python -m tests.planted --bug figure-8       one
    python -m tests.planted --list               what there is
    python -m tests.planted --keep               note who found what: found.toml, planted.md

A bug that is not found is a failure of the suite, and of the exit code. So is a whole suite of
which the simulator finds less than it should: it, and not the tests, is what is tested here.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import click
from rich.console import Console
from rich.table import Table
from tests.planted.catalogue import BUGS, bug_named
from tests.planted.finding import Found
from tests.planted.kept import Kept, keep, kept_seeds
from tests.planted.page import write_page
from tests.planted.searching import check, search

SIMULATED_MIN = 45  # of the whole catalogue, by seeds


@click.command()
@click.option("--bug", "names", multiple=True, help="Only this one; may be repeated.")
@click.option("--list", "is_list", is_flag=True, help="Show the bugs and plant none.")
@click.option("--search", "is_search", is_flag=True, help="Search anew for all of them.")
@click.option("--jobs", default=2, show_default=True, help="How many at a time.")
@click.option("--seeds", "seeds_max", default=60, show_default=True, help="Of a search.")
@click.option("--keep", "is_kept", is_flag=True, help="Write who found what for the next time.")
def main(
    names: tuple[str, ...],
    is_list: bool,
    is_search: bool,
    jobs: int,
    seeds_max: int,
    is_kept: bool,
) -> None:
    """Plant known bugs and see that each is found."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    bugs = [bug_named(name) for name in names] if names else list(BUGS)
    kept = kept_seeds()
    if is_list:
        console.print(catalogue_table(kept))
        return
    ask = search if is_search else check
    results: list[Found] = []
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for found in pool.map(lambda bug: ask(bug, kept.get(bug.name), seeds_max), bugs):
            results.append(found)
            tell(console, found, f"{len(results)}/{len(bugs)}")
    console.print(result_table(results))
    if is_kept:
        keep(results)
        write_page()
    by_seeds = sum(found.is_found and bool(found.seed) for found in results)
    judge(console, results, by_seeds)
    if not names and by_seeds < SIMULATED_MIN:
        console.print(f"the simulator has to find {SIMULATED_MIN} of them and found {by_seeds}")
        sys.exit(1)


def judge(console: Console, results: list[Found], by_seeds: int) -> None:
    """Say how it went; a bug that nobody found ends the process with 1."""
    missing = [found.bug.name for found in results if not found.is_found]
    count = len(results) - len(missing)
    console.print(
        f"{count} of {len(results)} bugs found: {by_seeds} by the simulator, "
        f"{count - by_seeds} by a test"
    )
    if missing:
        console.print(f"not found: {', '.join(missing)}")
        sys.exit(1)


def tell(console: Console, found: Found, place: str) -> None:
    """A line or two about one bug."""
    word = "found" if found.is_found else "[red]NOT FOUND[/red]"
    finder = f"{found.finder} {found.where}".strip()
    console.print(f"{place} {word} {found.bug.name}: {finder}, {found.effort}", highlight=False)
    if words := found.trouble or found.sentence.strip():
        console.print(f"  {words.splitlines()[-1][:140]}", markup=False, highlight=False)


def result_table(results: list[Found]) -> Table:
    """Bug, found by, seed or test, effort."""
    table = Table("bug", "of", "found by", "seed or test", "effort")
    for one in results:
        finder = one.finder if one.is_found else "nobody"
        table.add_row(one.bug.name, one.bug.kind, finder, one.where, one.effort)
    return table


def catalogue_table(kept: dict[str, Kept]) -> Table:
    """What there is, with the seed or test that found it the last time."""
    table = Table("bug", "of", "story", "found by")
    for bug in BUGS:
        test = bug.test.node_id if bug.test is not None else ""
        seed = kept.get(bug.name)
        table.add_row(bug.name, bug.kind, bug.story, f"seed {seed.seed}" if seed else test)
    return table


if __name__ == "__main__":
    main(prog_name="python -m tests.planted")
