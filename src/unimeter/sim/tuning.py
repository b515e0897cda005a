"""Bounds of the real code that a run makes tiny, and gives back afterwards.

Owns the list of constants that are no parameters: they are chosen by measuring speed, and
what they decide (a sync here or in the thread, states compared now or later) must be right
at any value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unimeter import limits
from unimeter.engine import sessions
from unimeter.server import group_commit, node
from unimeter.sim.options import Options


@contextmanager
def tuned(options: Options) -> Iterator[None]:
    """Have the drawn bounds in effect."""
    values: list[tuple[Any, str, int]] = [
        (limits, "STATE_HASH_ENTRIES", options.state_hash_entries),
        (limits, "APPEND_BYTES_MAX", options.append_bytes_max),
        (limits, "APPENDS_INFLIGHT_MAX", options.appends_inflight_max),
        (limits, "SESSION_WINDOW", options.session_window),
        (sessions, "SESSION_WINDOW", options.session_window),
        (node, "APPLY_HERE_BYTES_MAX", options.apply_here_bytes_max),
        (group_commit, "INLINE_SYNC_BYTES_MAX", options.inline_sync_bytes_max),
    ]
    before = [getattr(module, name) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(values, before, strict=True):
            setattr(module, name, value)
