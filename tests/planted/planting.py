"""Planting: a bug put into the product's source on its way to the interpreter.

    UNIMETER_PLANTED=figure-8 ──> conftest / finding ──> plant(edits)
                                                            │
    import unimeter.raft.replication ──> source ──edited──> code

An `Edit` names a function and a piece of its text; the text is replaced before the module
is compiled, so every `from x import f` gets the planted one and nothing of the product knows
of it. The file on disk is never touched. A kernel is planted in its interpreted form, which
is the same file (`UNIMETER_PURE=1`).

A piece that is not there exactly once is `StaleBug`: the code has moved on, and the bug has to
be adapted to it. `tests/planted/test_planting.py` looks at every one.

Planting is for a whole process, and for good: whoever plants starts a process for it.

Rejected: patching functions after the import. Copies of a name in other modules, properties and
kernels would each need a way of their own.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

VARIABLE = "UNIMETER_PLANTED"
PACKAGE = Path(__file__).resolve().parents[2] / "src" / "unimeter"


class StaleBug(Exception):
    """The bug can't be planted any more: the code it was written against has changed."""


@dataclass(frozen=True)
class Edit:
    """One piece of text in one function, and what takes its place."""

    module: str  # without "unimeter."
    function: str  # "step", "Core.send"; "" = the whole module
    old: str  # lines may be indented from 0 on, whatever they are in the file
    new: str

    @property
    def path(self) -> Path:
        """The module's file."""
        return PACKAGE.joinpath(*self.module.split(".")).with_suffix(".py")

    @property
    def is_in_kernel(self) -> bool:
        """Whether the module is compiled, so that only its interpreted form can be planted."""
        return "\nimport cython\n" in self.path.read_text(encoding="utf-8")


def planted_source(source: str, edits: Iterable[Edit]) -> str:
    """The source of a module with all of these edits, which are of this module."""
    for edit in edits:
        source = _replaced(source, edit)
    return source


def _replaced(source: str, edit: Edit) -> str:
    lines = source.splitlines(keepends=True)
    first, last = _lines_of(source, edit)
    text = "".join(lines[first:last])
    for indent in sorted({_indent_of(line) for line in text.splitlines() if line.strip()}):
        old, new = _indented(edit.old, indent), _indented(edit.new, indent)
        if text.count(old) > 1:
            raise _stale(edit, f"{old!r} stands there {text.count(old)} times")
        if old in text and _indent_of(text[text.rfind("\n", 0, text.index(old)) + 1 :]) == indent:
            return "".join(lines[:first]) + text.replace(old, new) + "".join(lines[last:])
    raise _stale(edit, f"{edit.old!r} is not there")


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _indented(piece: str, indent: int) -> str:
    """The lines of a piece where its first one begins behind so many blanks."""
    return textwrap.indent(textwrap.dedent(piece).strip("\n"), " " * indent).lstrip(" ")


def _lines_of(source: str, edit: Edit) -> tuple[int, int]:
    """Where the function begins and ends, as a slice of the module's lines."""
    node: Any = ast.parse(source)
    if not edit.function:
        return 0, len(source.splitlines())
    for name in edit.function.split("."):
        found = [one for one in node.body if getattr(one, "name", None) == name]
        if len(found) != 1:
            raise _stale(edit, f"{name} is there {len(found)} times")
        node = found[0]
    return node.lineno - 1, node.end_lineno


def _stale(edit: Edit, reason: str) -> StaleBug:
    return StaleBug(
        f"the bug can't be planted any more: adapt it to unimeter.{edit.module}, "
        f"{edit.function or 'the module'}: {reason}"
    )


def plant(edits: Iterable[Edit]) -> None:
    """Have these modules be compiled from their edited source. Before any of them is imported."""
    by_module: dict[str, list[Edit]] = {}
    for edit in edits:
        by_module.setdefault(f"unimeter.{edit.module}", []).append(edit)
    assert not set(by_module) & set(sys.modules), "planted too late: it is imported already"
    reader: Any = importlib.machinery.SourceFileLoader  # of modules, and of interpreted kernels
    original = reader.get_code

    def get_code(loader: Any, fullname: str) -> CodeType | None:
        mine = by_module.get(fullname)
        if mine is None:
            code: CodeType | None = original(loader, fullname)
            return code
        path = loader.get_filename(fullname)
        source = planted_source(Path(path).read_text(encoding="utf-8"), mine)
        planted: CodeType = compile(source, path, "exec", dont_inherit=True)
        return planted

    reader.get_code = get_code


def plant_what_is_asked_for() -> None:
    """Plant the bug that the environment names, if it names one."""
    name = os.environ.get(VARIABLE, "")
    if name:
        from tests.planted.catalogue import bug_named

        bug = bug_named(name)
        assert not bug.is_in_kernel or os.environ.get("UNIMETER_PURE") == "1"
        plant(bug.edits)
