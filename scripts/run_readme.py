"""Run the README's Python example and its HTTP commands as they stand, against a node.

    python scripts/run_readme.py README.md

The first ``python`` block is run with this interpreter, against a node that
somebody else has started on the README's port; the ``text`` block that follows
it is what it must print. Then the ``sh`` block with curl is run line by line, with the commands of
this interpreter's environment on the path; each must say what HTTP_SAYS has for it. Exit status 1,
and both texts, where they differ.
tests/test_docs.py does the same on ports of its own; this is for CI, where
nothing may be substituted.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ADDRESS = ("localhost", 7001)
START_SECONDS_MAX = 20.0
STREAM_SECONDS = 3.0  # after which a stream that is never over has said enough
HTTP_SAYS = ('"stored":1', '"value":2', "event: total", "um_")
"""A piece of what each command of the README's HTTP block prints, in order."""


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


def http_commands(readme: str) -> list[str]:
    """Return the commands of the first shell block that has curl in it."""
    for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL):
        if "curl" in block:
            return block.replace("\\\n", " ").strip().splitlines()
    raise SystemExit("no shell block with curl was found")


def run_http(readme: str) -> int:
    """Run the HTTP commands; return the exit status."""
    commands = http_commands(readme)
    assert len(commands) == len(HTTP_SAYS), "each command has something to say"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, expected in zip(commands, HTTP_SAYS, strict=True):
        try:
            run = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                timeout=STREAM_SECONDS if "/v1/stream" in command else 60,
                env={**os.environ, "PATH": path},
            )
            said = run.stdout + run.stderr
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode()
        print(command, said, sep="\n")
        if expected not in said:
            print(f"it should have said {expected}")
            return 1
    return 0


def main(path: str) -> int:
    """Run and compare; return the exit status."""
    readme = Path(path).read_text(encoding="utf-8")
    code, expected = example(readme)
    wait_for_node()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    print(code, run.stdout, run.stderr, sep="")
    if run.returncode != 0 or run.stdout != expected:
        print(f"the README says it prints:\n{expected}")
        return 1
    print("as the README says")
    return run_http(readme)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
