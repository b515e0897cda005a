"""What the fields of an event are called in files and requests.

Owns the names, once for the command line and for HTTP: the first of each is the name, the
others are what the published SDK and other meters call it.
"""

from __future__ import annotations

from typing import Final

from unimeter.types import OperationType

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "account": ("account", "account_id"),
    "metric": ("metric", "metric_code"),
    "value": ("value",),
    "timestamp": ("timestamp", "time"),
    "operation": ("operation", "operation_type"),
    "id": ("id",),
    "properties": ("properties", "tags"),
}

OPERATIONS: Final[dict[str, OperationType]] = {
    "none": OperationType.NONE,
    "add": OperationType.ADD,
    "remove": OperationType.REMOVE,
}


def field_of(name: str) -> str | None:
    """The field that `name` is a name of; None if of none."""
    for field, names in NAMES.items():
        if name in names:
            return field
    return None
