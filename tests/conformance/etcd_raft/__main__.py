"""Run etcd's data-driven files: ``python -m tests.conformance.etcd_raft FOLDER``.

Prints one line a file, then ``N of M files pass``; exits with 0 only if all do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from tests.conformance.etcd_raft import quorums
from tests.conformance.etcd_raft.interaction import Interaction
from tests.conformance.etcd_raft.transcript import Case, Command, comparable, parse

_QUORUM_COMMANDS = {"committed", "vote"}


def run_file(path: Path) -> str | None:
    """Run one file; None when it passes, else where and how it does not."""
    cases = parse(path.read_text(encoding="utf-8"))
    names = {command.name for case in cases for command in case.commands}
    run: Callable[[Command], str]
    run = quorums.run if names <= _QUORUM_COMMANDS else Interaction().run
    for case in cases:
        failure = _run_case(case, run)
        if failure is not None:
            return failure
    return None


def _run_case(case: Case, run: Callable[[Command], str]) -> str | None:
    try:
        output = "\n".join(run(command) for command in case.commands)
    except Exception as error:  # a broken file must not hide the others
        return f"line {case.line}: {case.commands[0].name}: {type(error).__name__}: {error}"
    expected, found = comparable(case.expected), comparable(output)
    if expected == found:
        return None
    pairs = zip_longest(expected.splitlines(), found.splitlines(), fillvalue="(nothing)")
    want, got = next((e, f) for e, f in pairs if e != f)
    return f"line {case.line}: {case.commands[0].name}: expected {want!r}, found {got!r}"


def main(folder: str) -> int:
    """Run every file of a folder and the folders in it."""
    root = Path(folder)
    paths = sorted(root.rglob("*.txt")) if root.is_dir() else [root]
    passed = 0
    for path in paths:
        failure = run_file(path)
        passed += failure is None
        name = path.relative_to(root) if root.is_dir() else path.name
        print(f"{'pass' if failure is None else 'FAIL'} {name}" + (f": {failure}" * bool(failure)))
    print(f"{passed} of {len(paths)} files pass")
    return 0 if paths and passed == len(paths) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.conformance.etcd_raft FOLDER")
    sys.exit(main(sys.argv[1]))
