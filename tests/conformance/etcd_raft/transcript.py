"""Reading data-driven transcripts: a command, ``----``, the expected output, a blank line.

A command line is a name and arguments: ``1``, ``key=value`` or ``key=(a, b)``. Lines
between the command and the dashes are further commands. Lines that begin with ``#``
are comments. Output with blank lines in it stands between doubled dashes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_DASHES = "----"
_ARGUMENT = re.compile(r"([^\s=]+)(?:=(\([^)]*\)|\S*))?")
_LOG_LINE = re.compile(r"\s*(DEBUG|INFO|WARN|ERROR|FATAL|NONE) ")


@dataclass
class Command:
    """One command line: bare arguments in order, and those with a key."""

    name: str
    bare: list[str] = field(default_factory=list)
    keyed: dict[str, list[str]] = field(default_factory=dict)

    def numbers(self) -> list[int]:
        return [int(word) for word in self.bare]

    def value(self, key: str, default: str) -> str:
        values = self.keyed.get(key)
        return values[0] if values else default


@dataclass
class Case:
    """Commands, and what they should print."""

    line: int
    commands: list[Command]
    expected: str


def parse_command(text: str) -> Command:
    name, _, rest = text.strip().partition(" ")
    command = Command(name)
    for key, value in _ARGUMENT.findall(rest):
        if f"{key}=" not in rest:
            command.bare.append(key)
        else:
            words = value.strip("()").split(",")
            command.keyed[key] = [word.strip() for word in words if word.strip()]
    return command


def parse(text: str) -> list[Case]:
    """All the cases of a file."""
    lines = text.splitlines()
    cases: list[Case] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].startswith("#"):
            at += 1
            continue
        start, words = at, []
        while at < len(lines) and lines[at].rstrip() != _DASHES:
            words.append(lines[at])
            at += 1
        assert at < len(lines), f"line {start + 1}: a command without {_DASHES}"
        expected, at = _expected(lines, at + 1)
        joined = "\n".join(words).replace("\\\n", " ").splitlines()
        commands = [parse_command(line) for line in joined if line.strip()]
        cases.append(Case(start + 1, commands, expected))
    return cases


def _expected(lines: list[str], at: int) -> tuple[str, int]:
    """The expected output from line `at` on, and the line behind it."""
    found = []
    if at < len(lines) and lines[at].rstrip() == _DASHES:
        at += 1
        while lines[at : at + 2] != [_DASHES, _DASHES]:
            found.append(lines[at])
            at += 1
        return "\n".join(found), at + 2
    while at < len(lines) and lines[at].strip():
        found.append(lines[at])
        at += 1
    return "\n".join(found), at


def comparable(output: str) -> str:
    """Output without informational log lines; nothing left is the same as ``ok``."""
    lines = [line.rstrip() for line in output.splitlines()]
    kept = [line for line in lines if line and not _LOG_LINE.match(line)]
    kept = ["ok" if line == "ok (quiet)" else line for line in kept]
    return "\n".join(kept) or "ok"
