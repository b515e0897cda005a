"""Print the trace hashes of seeds: run as a process of its own by `test_run`.

python -m tests.sim.hashes lite 1 12     # a line for each seed: hash, passed, whom it failed
"""

from __future__ import annotations

import sys

from unimeter.engine import tables
from unimeter.sim.run import run_seed


def main(profile: str, first: int, last: int) -> None:
    """Run them."""
    print("interpreted" if tables.__file__.endswith(".py") else "compiled")
    for seed in range(first, last + 1):
        result = run_seed(seed, profile)
        print(result.trace_hash, result.passed, result.checker, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
