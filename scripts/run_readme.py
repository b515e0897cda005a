"""Run the README's Python example as it stands and compare what it prints with the README.

    python scripts/run_readme.py README.md

The first ``python`` block is run with this interpreter, against a node that
somebody else has started on the README's port; the ``text`` block that follows
it is what it must print. Exit status 1, and both texts, where they differ.
tests/test_docs.py does the same on ports of its own; this is for CI, where
nothing may be substituted.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ADDRESS = ("localhost", 7001)
START_SECONDS_MAX = 20.0


def example(readme: str) -> tuple[str, str]:
    """Return the first Python block and the text block after it."""
    found = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", readme, re.DOTALL)
    if found is None:
        raise SystemExit("no python block followed by a text block was found")
    return found[1], found[2]


def wait_for_node() -> None:
    """Return when something listens on the README's port; fail after a while."""
    give_up = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(ADDRESS, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise SystemExit(f"no node on {ADDRESS} after {START_SECONDS_MAX} s") from None
            time.sleep(0.05)


def main(path: str) -> int:
    """Run and compare; return the exit status."""
    code, expected = example(Path(path).read_text(encoding="utf-8"))
    wait_for_node()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    print(code, run.stdout, run.stderr, sep="")
    if run.returncode != 0 or run.stdout != expected:
        print(f"the README says it prints:\n{expected}")
        return 1
    print("as the README says")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
