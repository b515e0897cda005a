"""The slow judge the checkers are compared with: every order, one by one.

Obviously right and useless beyond seven operations: for each choice of the
unknown operations that took effect, every order that keeps real time is played
through the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from tests.conformance.linearizability.models import Model
from tests.conformance.linearizability.operations import Operation


def is_linearizable(model: Model, operations: Sequence[Operation]) -> bool:
    """Whether some order explains every known result."""
    known = [op for op in operations if op.is_known]
    unknown = [op for op in operations if not op.is_known]
    return any(
        explains(model, order)
        for count in range(len(unknown) + 1)
        for effective in combinations(unknown, count)
        for order in permutations([*known, *effective])
    )


def explains(model: Model, order: Sequence[Operation]) -> bool:
    """Whether the order keeps real time and gives every operation its result."""
    for place, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[place + 1 :]):
            return False
    state = model.first
    for operation in order:
        if operation.is_known or not model.is_read(operation):
            state = model.step(state, operation)
            if state is None:
                return False
    return True
