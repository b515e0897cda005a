"""`Idempotency-Key`: an id for every event that has none, from the key and the event's place.

So a request that is sent again with its key is answered "duplicate" event by event, by the same
exact rule as any id: for KEY_WINDOW_DAYS, on every node, after any failover. Nothing is stored
for the key itself. An event with an id of its own keeps it.

The ids are `<32 hex digits>-<place>`: a hash of the key, so that a key may be as long as a header
may say and hold what no id may. A key stands for one request: whoever uses it for another is told
"conflict" for events that differ at the same place, of the same account and metric.

Rejected: the answers of past requests by key, as card processors keep them. They would have to
be replicated, bounded, and would forget before the ids do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from unimeter import limits
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Param
from unimeter.server.web.problems import bad
from unimeter.wire import v2

HEADER: Final = "Idempotency-Key"
PARAM: Final = Param(
    HEADER,
    "Names this request: sent again with the same key, its events are duplicates and not counted "
    "twice. Use a UUID.",
    {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_CHARACTERS_MAX},
    where="header",
    example="0b6ae1d2-8a1f-4d7e-9f6e-1d7e2c8b0a55",
)
_WANTED: Final = f"1 to {limits.IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters"


@dataclass(frozen=True, slots=True)
class Keyed:
    """Gives events their ids; an empty `prefix` gives none."""

    prefix: str = ""

    def named(self, columns: v2.Columns, first: int = 0) -> v2.Columns:
        """`columns` with an id for every event; `first` is the place of the first."""
        if not self.prefix:
            return columns
        given = columns.ids or [None] * len(columns.values)
        ids = [ident or f"{self.prefix}-{place}" for place, ident in enumerate(given, first)]
        return replace(columns, ids=ids)


def keyed(call: Call) -> Keyed:
    """What the request's key gives."""
    key = call.request.headers.get(HEADER)
    if key is None:
        return Keyed()
    fits = 0 < len(key) <= limits.IDEMPOTENCY_KEY_CHARACTERS_MAX
    if not fits or not key.isascii() or not key.isprintable():
        raise bad(HEADER, "is empty, too long or not printable", _WANTED)
    digest = hashlib.blake2b(key.encode(), digest_size=16, person=b"unimeter-request")
    return Keyed(digest.hexdigest())
