"""Run simulated seeds in this process, with the bug that the environment names.

    UNIMETER_PLANTED=figure-8 python -m tests.planted.seeds 1 200 swarm 300

One line of JSON for each seed; it ends with the first that fails, or when the seconds are over.
"""

from __future__ import annotations

import json
import sys
import time

from tests.planted.planting import plant_what_is_asked_for


def main(first: int, last: int, profile: str, seconds: float) -> None:
    """Plant, then run seeds first..last."""
    plant_what_is_asked_for()
    from unimeter.sim.run import run_seed

    until = time.monotonic() + seconds
    for seed in range(first, last + 1):
        result = run_seed(seed, profile)
        told = {"seed": seed, "passed": result.passed, "checker": result.checker}
        print(json.dumps({**told, "failure": result.failure[-400:]}), flush=True)
        if not result.passed or time.monotonic() > until:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
