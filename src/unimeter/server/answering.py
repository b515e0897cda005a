"""What all handlers do alike: refuse a read that is too early, and propose a change.

Owns two steps and the type of whoever waits. `handlers` and `administration` say what each
request means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unimeter import limits
from unimeter.engine.applied import Applied
from unimeter.errors import BackpressureError, InvalidInputError
from unimeter.server.node import Node
from unimeter.wire import messages as m
from unimeter.wire.failures import error_of

Done = Callable[[m.Response, int], None]
"""Called once with the response and the log position it reflects."""

RETRY_SECONDS = 0.05


def check_read(node: Node, request: Any, limit_max: int = limits.PAGE_ITEMS_MAX) -> None:
    """Refuse a read that asks for what is not here yet, or for an absurd page."""
    if request.min_position > node.machine.applied:
        raise BackpressureError(
            f"position {request.min_position} is asked for and this node has "
            f"{node.machine.applied}",
            RETRY_SECONDS,
        )
    limit = getattr(request, "limit", 1)
    if not 1 <= limit <= limit_max:
        raise InvalidInputError(f"limit must be 1 to {limit_max}, not {limit}")


def propose(
    node: Node,
    kind: int,
    body: bytes,
    done: Done,
    shape: Callable[[Applied], m.Response] = lambda applied: m.Done(),
) -> None:
    """Propose a change; `done` hears whether it was accepted, and then what `shape` makes of it."""

    def finished(applied: Any, index: int) -> None:
        if isinstance(applied, BackpressureError):
            done(error_of(applied), node.machine.applied)
        elif applied.error_code:
            done(m.ErrorReply(m.ErrorCode(applied.error_code), applied.error), index)
        else:
            done(shape(applied), index)

    node.propose(kind, body, finished)
