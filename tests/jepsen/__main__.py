"""Run a real cluster under faults: python -m tests.jepsen --seed N (or `make jepsen`).

Prints the schedule, a report, and one last line: PASSED or FAILED with seed,
commit and the command that does the same again. History, report and the nodes'
output stay in ./jepsen-results/; the data directories only if the run failed.
Ends with 0 only if every promise holds, with 2 if the run could not be done.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from tests.jepsen.cluster import NotSupportedError
from tests.jepsen.faults import draw_schedule
from tests.jepsen.run import Options, run

RESULTS = Path("jepsen-results")


def main(arguments: list[str] | None = None) -> int:
    """Run once and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.jepsen")
    parser.add_argument("--seed", type=int, help="of faults and clients; default: a new one")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults (default 60)")
    parser.add_argument("--nodes", type=int, default=3, choices=(1, 3, 5))
    parser.add_argument("--clients", type=int, default=6, help="sessions, of two threads each")
    parser.add_argument("--keys", type=int, default=3, help="counters")
    parser.add_argument("--no-namespaces", action="store_true", help="loopback; nothing is cut")
    parser.add_argument("--keep-data", action="store_true", help="also of a run that passed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where runs are kept")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**9)
    options = Options(
        seed,
        given.seconds,
        given.nodes,
        given.clients,
        given.keys,
        not given.no_namespaces,
        given.keep_data,
    )
    print(f"seed {seed}: {options.command()}")
    for fault in draw_schedule(seed, options.seconds, options.nodes):
        print(f"  {fault}")
    sys.stdout.flush()
    folder = given.results / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{seed}"
    try:
        report = run(options, folder)
    except NotSupportedError as error:
        print(f"not run: {error}", file=sys.stderr)
        return 2
    report.show(folder)
    return 0 if report.is_passed else 1


def end_orderly(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that processes and namespaces are removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_orderly)
    sys.exit(main())
