"""This project's own form of a history: JSON lines, one event a line.

    {"time_ns": 17, "process": 3, "client": "a", "type": "invoke", "f": "add", "key": "5/m",
     "value": 2}                                              (one line in the file)

| field          | meaning                                                               |
|----------------|-----------------------------------------------------------------------|
| `time_ns`      | of one clock for all; lines are sorted by it, equal ones stay in order |
| `process`      | does one thing at a time; after `info` it may go on                    |
| `client`       | the session: its processes share what they have seen                   |
| `type`         | `invoke`, then `ok`, `fail` (had no effect) or `info` (nobody knows)   |
| `f`            | `add` or `read`                                                        |
| `key`          | one counter                                                            |
| `value`        | of an add, how much; of a read's `ok`, the total; else null            |
| `linearizable` | of a read, optional, true if absent: false for the default read        |

`operations` gives what the counter's checker judges: adds and linearizable
reads. `sessions.py` judges all reads. Values are whole numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.linearizability.operations import Kind, Operation, Step, pair

KINDS = ("invoke", "ok", "fail", "info")


@dataclass(frozen=True, slots=True)
class Event:
    """One line."""

    time_ns: int
    process: int
    client: str
    type: Kind
    f: str
    key: str
    value: int | None
    linearizable: bool = True

    def check(self) -> Event:
        """Return the event; raise ValueError if it could not have been recorded."""
        if self.type not in KINDS or self.f not in ("add", "read"):
            raise ValueError(f"no such step in a history of counters: {self}")
        needs_value = (self.f, self.type) in (("add", "invoke"), ("read", "ok"))
        if needs_value and not isinstance(self.value, int):
            raise ValueError(f"needs a whole number as its value: {self}")
        return self


def is_ours(line: str) -> bool:
    """Whether a line is an event of this form."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and {"process", "type", "f", "key"} <= found.keys()


def parse(lines: Iterable[str]) -> list[Event]:
    """Return the events of a file's lines, in order of time."""
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events.append(Event(**json.loads(line)).check())
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return sorted(events, key=lambda event: event.time_ns)


def load(path: Path) -> list[Event]:
    """Read a history."""
    return parse(path.read_text(encoding="utf-8").splitlines())


def line_of(event: Event) -> str:
    """Return the event as one line, without the line's end."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in Event.__slots__}
    if event.linearizable:
        del fields["linearizable"]
    return json.dumps(fields)


def write(path: Path, events: Iterable[Event]) -> None:
    """Write a history."""
    path.write_text("".join(line_of(event) + "\n" for event in events), encoding="utf-8")


def operations(events: Sequence[Event], *, default_reads: bool = False) -> list[Operation]:
    """Return the adds and reads; the reads of the default kind only where they are asked for."""
    return pair(
        Step(event.process, event.type, event.f, event.value, event.key, event.client)
        for event in events
        if event.f == "add" or event.linearizable or default_reads
    )
