"""One seed from beginning to end: drawn, lived through, judged.

    result = run_seed(8714)
    assert result.passed, result.failure

The seed and the release are all there is to a run: nothing else is drawn from anywhere.
Garbage is collected only between runs, because a finaliser of a dead process that ran in
the midst of one would run at another moment in another process.
"""

from __future__ import annotations

import gc
import time
import traceback
import warnings
from collections import Counter

from unimeter.sim.chance import Chance
from unimeter.sim.failures import CheckFailed
from unimeter.sim.options import draw
from unimeter.sim.result import Result
from unimeter.sim.scheduler import SECOND
from unimeter.sim.story import Story
from unimeter.sim.tuning import tuned
from unimeter.sim.world import World


def run_seed(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """Run one seed; never raises for what the run finds. `keep`: with the whole story."""
    began = time.perf_counter()
    chance = Chance(seed)
    options = draw(profile, chance.fork("options"))
    story = Story(keep)
    result = Result(seed, profile, nodes=options.nodes, options=options.described())
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        with tuned(options), warnings.catch_warnings():
            # Processes that were killed leave sockets open and coroutines unawaited.
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            _live(World(chance, options, story), result)
            gc.collect()  # a world is full of circles, and a hundred megabytes large
    finally:
        if is_collecting:
            gc.enable()
    result.trace_hash = story.digest()
    result.happenings = story.happenings
    result.wall_seconds = time.perf_counter() - began
    return result


def _live(world: World, result: Result) -> None:
    try:
        world.run()
    except CheckFailed as failure:
        result.passed, result.checker, result.failure = False, failure.checker, failure.sentence
    except Exception as error:  # of the code under test, or of the simulator itself
        result.passed, result.checker = False, type(error).__name__
        result.failure = "".join(traceback.format_exception(error)).strip()
    if not result.passed:
        world.story.tell("failed", "world", result.checker)
    result.virtual_seconds = world.scheduler.now_ns / SECOND
    result.requests = world.people.calls_ended
    result.entries = world.auditor.position
    result.faults = dict(world.faults.counts + Counter(world.network.counts))
    result.reached = dict(world.reached)
