"""Judge a folder of histories: python -m tests.conformance.linearizability FOLDER.

Prints a line a history and at last 'N of M verdicts right'; ends with 0 only if
all are. What has a known verdict is described in folder.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance.linearizability.folder import SECONDS_PER_HISTORY, judge_folder


def main(arguments: list[str] | None = None) -> int:
    """Judge, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.linearizability")
    parser.add_argument("folder", type=Path, help="histories with known verdicts")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS_PER_HISTORY, help="at most, per history"
    )
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")
    right = total = 0
    for line in judge_folder(options.folder, options.seconds):
        print(line, flush=True)
        total += 1
        right += line.is_as_expected
    print(f"{right} of {total} verdicts right")
    return 0 if right == total > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
