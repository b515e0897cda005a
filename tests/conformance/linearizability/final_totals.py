"""The final-total checker: after the last fault, every add was counted once.

When nothing is on its way any more, a key's total is

    sum of the acknowledged adds + the sum of some of the unknown ones

A lost add makes it less, a retry that was counted twice more. An unknown add
was given a session and a sequence number, so it counts once or not at all,
however often it was sent. A failed add counts nothing.

Which unknown ones were counted is not asked: any subset that fits is accepted,
so an error that is as large as an unknown add may hide behind it. Histories
with few unknown adds prove more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.conformance.linearizability.operations import Operation, by_key

SUMS_MAX: Final = 1_000_000  # different sums of unknown adds of one key; more is a bad workload


def check_final_totals(operations: Sequence[Operation], totals: Mapping[str, int]) -> list[str]:
    """Return the keys whose total cannot be, in words; a key without adds has total 0."""
    parts = by_key(op for op in operations if op.function == "add")
    violations = []
    for key in sorted({*parts, *totals}):
        adds = parts.get(key, [])
        acknowledged = sum(add.argument for add in adds if add.is_known)
        unknown = [add.argument for add in adds if not add.is_known]
        if key not in totals:
            violations.append(f"key {key}: {len(adds)} adds and no final total")
        elif totals[key] - acknowledged not in subset_sums(unknown):
            violations.append(
                f"key {key}: total {totals[key]}, acknowledged {acknowledged}, "
                f"which no choice of the unknown adds explains: {sorted(unknown)}"
            )
    return violations


def subset_sums(numbers: Sequence[int]) -> set[int]:
    """Return every sum of some of the numbers; none of them gives 0."""
    sums = {0}
    for number in numbers:
        sums |= {total + number for total in sums}
        assert len(sums) <= SUMS_MAX, "unknown adds of too many sizes"
    return sums
