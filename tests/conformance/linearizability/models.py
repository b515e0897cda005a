"""Models: what one object does when its operations come one after the other.

A model has a first state, and a step: the state after an operation, or None if
the operation cannot have had its result in that state. A step of an operation
with an unknown outcome is what it does if it takes effect here, and is always
allowed. States are hashable, because the search remembers where it has been.

    Register   read, write, cas of one value       the histories of jepsen's etcd test
    KeyValue   get, put, append of one string      the histories of a key-value store
    Counter    add, read of one total              this project's own (counter.py is faster)

What they refuse to know: keys (operations are split by key first), time, and
how to search.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

from tests.conformance.linearizability.operations import Operation


class Model(Protocol):
    """An object's behaviour, one operation at a time."""

    first: Hashable

    def step(self, state: Any, operation: Operation) -> Any:
        """Return the state after the operation, or None where its result is impossible."""

    def is_read(self, operation: Operation) -> bool:
        """Whether the operation, with the result it had, leaves every state as it is."""


class Register:
    """One value, absent at first; `cas` replaces it if it has the expected value.

    A `cas` with the result False is one that was compared and found another
    value: a read of everything but the expected one. States are 1-tuples, so
    that an absent value is not the None of an impossible step.
    """

    first = (None,)

    def step(self, state: tuple[Any], operation: Operation) -> tuple[Any] | None:
        if operation.function == "read":
            return state if state == (operation.result,) else None
        if operation.function == "write":
            return (operation.argument,)
        assert operation.function == "cas", operation.function
        expected, new = operation.argument
        is_equal = state == (expected,)
        if operation.is_known and operation.result != is_equal:
            return None
        return (new,) if is_equal else state

    def is_read(self, operation: Operation) -> bool:
        if operation.function == "cas":
            return operation.is_known and not operation.result
        return operation.function == "read"


class KeyValue:
    """One string, empty at first, that can be replaced and appended to.

    Only states that some `get` may have been on the way to are told apart. A
    string that is the beginning of no result of a `get` can be seen by nobody,
    however much is appended; all of those are the one state UNSEEN, which only
    a `put` leaves. It is exact, and it takes the orders of n concurrent appends
    from n! to the few that somebody saw.

    And an operation may leave UNSEEN only if for every later `get` there is a
    `put` that can come between: without one, nothing explains that `get`.
    """

    first = ""
    UNSEEN: Final = False  # not a string, and not the None of an impossible step

    def __init__(self, operations: Sequence[Operation]) -> None:
        results = {op.result for op in operations if op.function == "get" and op.is_known}
        self._beginnings = {value[:end] for value in results for end in range(len(value) + 1)}
        self._may_leave_unseen = may_leave_unseen(operations)

    def step(self, state: str | bool, operation: Operation) -> str | bool | None:
        if operation.function == "get":
            return state if state == operation.result else None
        assert operation.function in ("put", "append"), operation.function
        new: str | bool = operation.argument
        if operation.function == "append":
            new = state + operation.argument if isinstance(state, str) else self.UNSEEN
        if self._is_seen(new):
            return new
        return self.UNSEEN if operation.called in self._may_leave_unseen else None

    def is_read(self, operation: Operation) -> bool:
        return operation.function == "get"

    def _is_seen(self, value: str | bool) -> bool:
        return value in self._beginnings


def may_leave_unseen(operations: Sequence[Operation]) -> set[int]:
    """Return the operations, by place of call, that need not be seen by a later `get`.

    The `get` that returns first is the hardest: a put that can come before it
    can come before the others.
    """
    gets = [op for op in operations if op.function == "get" and op.is_known]
    puts = [op for op in operations if op.function == "put"]
    result = set()
    for op in operations:
        end = min((get.returned for get in gets if get.called > op.returned), default=None)
        if end is None or any(
            put is not op and put.returned > op.called and put.called < end for put in puts
        ):
            result.add(op.called)
    return result


class Counter:
    """One total, zero at first; `add` may be negative."""

    first = 0

    def step(self, state: int, operation: Operation) -> int | None:
        if operation.function == "add":
            return state + int(operation.argument)
        assert operation.function == "read", operation.function
        return state if state == operation.result else None

    def is_read(self, operation: Operation) -> bool:
        return operation.function == "read"
