"""Every total a node has, beside the one that plain Python dictionaries say.

Both demonstrations end with this: ask for every total of every account, compare
cell by cell, and show one row for all accounts of a metric and its tags, which is
equal only if each account's total is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from unimeter import AggValue, AsyncClient
from unimeter.demo.workload import METRICS, MONTH, Cell, Tags


async def ask_all(client: AsyncClient, expected: dict[Cell, int]) -> dict[Cell, int]:
    """Ask the node for every total of every account."""
    accounts = sorted({(metric, account) for metric, account, _ in expected}, key=str)
    schemas = {schema.code: schema for schema in METRICS}
    found: dict[Cell, int] = {}
    for metric, account in accounts:
        keys = [dimension.key for dimension in schemas[metric].filters]
        values: dict[Tags, AggValue]
        if keys:
            values = await client.query_breakdown(account, metric, MONTH, group_by=keys)
        else:
            values = {Tags(): (await client.query(account, metric, MONTH)).value}
        for tags, value in values.items():
            found[metric, account, tags] = value.number(schemas[metric].agg_type)
    return found


@dataclass(frozen=True)
class Row:
    """One line of the table: a total over all accounts, equal only if each account's is."""

    what: str
    totals: int
    expected: int
    found: int
    equal: bool


def compare(expected: dict[Cell, int], found: dict[Cell, int]) -> list[Row]:
    """Compare total by total; one row for all accounts of a metric and its tags."""
    cells: defaultdict[tuple[str, Tags], list[Cell]] = defaultdict(list)
    for cell in {**expected, **found}:
        cells[cell[0], cell[2]].append(cell)
    order = [schema.code for schema in METRICS]
    rows = []
    for metric, tags in sorted(cells, key=lambda group: (order.index(group[0]), sorted(group[1]))):
        group = cells[metric, tags]
        words = " ".join([metric, *(value for _, value in sorted(tags))])
        equal = all(expected.get(cell) == found.get(cell) for cell in group)
        sums = [sum(side.get(cell, 0) for cell in group) for side in (expected, found)]
        rows.append(Row(words, len(group), sums[0], sums[1], equal))
    return rows


def show(rows: list[Row]) -> None:
    """Print the table, with rich where it is installed."""
    head = ["total", "accounts", "expected", "the node says", "equal"]
    lines = [
        [r.what, f"{r.totals}", f"{r.expected:,}", f"{r.found:,}", "yes" if r.equal else "NO"]
        for r in rows
    ]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        for line in [head, *lines]:
            print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
        return
    table = Table(*head)
    for column in table.columns[1:4]:
        column.justify = "right"
    for line, row in zip(lines, rows, strict=True):
        table.add_row(*line, style="" if row.equal else "bold red")
    Console().print(table)
