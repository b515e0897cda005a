"""What became of one entry: the machine's answer, before it is anybody's reply.

`Applied` points into the kernel's own arrays, so that a batch of thousands of
events costs no object per event; whoever wants to keep something copies it
before the next entry is applied. `reply_of` makes the lasting form, one
request's counts and outcome runs, which sessions remember and v2 sends.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from unimeter.control import WebhookRecord
from unimeter.engine.sessions import Reply


@dataclass(slots=True)
class Applied:
    """What became of one entry. The memoryviews are valid until the next apply."""

    index: int
    kind: int
    error_code: int = 0
    error: str = ""
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    first_offset: int = 0
    alerts_from: int = 0
    alerts_to: int = 0
    outcomes: memoryview = field(default_factory=lambda: memoryview(b""))
    results: memoryview = field(default_factory=lambda: memoryview(b"").cast("Q"))
    repeated: dict[int, Reply | int] = field(default_factory=dict)
    """By request: the remembered reply of a resend, or a sessions error code."""
    webhook: WebhookRecord | None = None  # of an ADMIN entry that put one: as it is kept


def reply_of(applied: Applied, request: int) -> Reply:
    """The counts and outcome runs of one request of an entry just applied."""
    words = applied.results[4 * request : 4 * request + 3]
    stored, duplicates = words[0] & 0xFFFFFFFF, words[0] >> 32
    first, events = words[2] & 0xFFFFFFFF, words[2] >> 32
    runs = outcome_runs(applied.outcomes[first : first + events])
    last_offset = applied.first_offset + first + events - 1
    refused = words[1] & 0xFFFFFFFF
    return Reply(applied.index, last_offset, stored, duplicates, refused, runs, True)


def outcome_runs(outcomes: memoryview) -> tuple[int, ...]:
    """Equal neighbours as (outcome << 24 | length)."""
    data = bytes(outcomes)
    if data and data.count(data[0]) == len(data):
        return (data[0] << 24 | len(data),)
    return tuple(outcome << 24 | sum(1 for _ in run) for outcome, run in itertools.groupby(data))
