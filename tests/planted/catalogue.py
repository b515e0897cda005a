"""All planted bugs, by name."""

from __future__ import annotations

from tests.planted import (
    administration_bugs,
    client_bugs,
    engine_bugs,
    raft_bugs,
    security_bugs,
    server_bugs,
    session_bugs,
    storage_bugs,
)
from tests.planted.bug import Bug

BUGS: tuple[Bug, ...] = (
    *raft_bugs.BUGS,
    *security_bugs.BUGS,
    *storage_bugs.BUGS,
    *engine_bugs.BUGS,
    *administration_bugs.BUGS,
    *session_bugs.BUGS,
    *server_bugs.BUGS,
    *client_bugs.BUGS,
)
_BY_NAME = {bug.name: bug for bug in BUGS}


def bug_named(name: str) -> Bug:
    """The bug of that name; KeyError with a hint if there is none."""
    if name not in _BY_NAME:
        raise KeyError(f"there is no bug {name!r}: python -m tests.planted --list")
    return _BY_NAME[name]
