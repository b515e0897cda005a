"""Stand-ins for a run of the simulator: quick, and each with its own way to go wrong.

They are found by name in worker processes, so each is a function of a module.
"""

from __future__ import annotations

import os
import signal
import time

from unimeter.sim.coverage import MUST_HAPPEN
from unimeter.sim.result import Result
from unimeter.sim.story import Story

FAILS = 7  # of so many seeds in a row one fails: those that it divides


def passes(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run in which all is well and everything that must happen does."""
    result = Result(seed, profile, trace_hash=f"{seed:032x}", nodes=3)
    result.options = {"nodes": "3", "faults": "kill, rot"}
    result.requests, result.entries = 100, 40
    result.virtual_seconds, result.wall_seconds = 20.0, 0.001
    result.faults = {"kill": 2, "rot": 1}
    result.reached = dict.fromkeys(MUST_HAPPEN, 1)
    if keep:
        result.happenings = story().happenings
    return result


def sometimes_fails(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run that fails for every seventh seed."""
    result = passes(seed, profile, keep=keep)
    if seed % FAILS == 0:
        result.passed = False
        result.checker = "NothingLost"
        result.failure = f"event {seed} was acknowledged and is gone\nand a second line"
    return result


def never_torn(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run that passes and never sees a torn tail."""
    result = passes(seed, profile, keep=keep)
    del result.reached["torn tail"]
    return result


def lets_an_exception_out(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run with a defect of its own."""
    if seed == 3:
        raise ZeroDivisionError("nothing to divide by")
    return passes(seed, profile, keep=keep)


def hangs(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run that does not end for one seed, and can be interrupted."""
    while seed == 3:
        time.sleep(0.01)
    return passes(seed, profile, keep=keep)


def hangs_deaf(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run that does not end for one seed and hears no signal, as inside a kernel."""
    if seed == 3:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    return hangs(seed, profile, keep=keep)


def kills_its_process(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run that takes its process with it, as a fault of the memory does."""
    if seed == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 5:
        os._exit(17)
    return passes(seed, profile, keep=keep)


def is_interrupted(seed: int, profile: str = "swarm", *, keep: bool = False) -> Result:
    """A run during which somebody presses Ctrl-C."""
    if seed == 3:
        raise KeyboardInterrupt
    return sometimes_fails(seed, profile, keep=keep)


def story() -> Story:
    """A short story with a happening of every kind."""
    told = Story(keep=True)

    def tell(milliseconds: float, kind: str, who: str, *words: int | str | bytes) -> None:
        told.clock = lambda: round(milliseconds * 1e6)
        told.tell(kind, who, *words)

    for number in (1, 2, 3):
        tell(0, "start", f"n{number}")
        tell(4, "ready", f"n{number}")
    tell(200, "send", "n1", "n2", 1, "MsgVote", 84)
    tell(201, "deliver", "n2", "n1", 1, 84, 12345)
    tell(202, "lead", "n1", 1)
    tell(210, "call", "c1", 1, "ingest")
    tell(211, "send", "n1", "n2", 2, "MsgApp 1", 200)
    tell(212, "drop", "n1", "n2", 2)
    tell(213, "send", "n1", "n3", 3, "MsgHeartbeat", 84)
    tell(214, "deliver", "n3", "n1", 3, 84, 54321)
    tell(220, "commit", "n1", 2, 1, 1)
    tell(221, "reply", "c1", 1, "answered", 0, 2)
    tell(222, "pause", "n3", "0.5")
    tell(300, "fault", "world", "partition", "n1 | n2 n3")
    tell(400, "call", "c10", 2, "query <script>alert(1)</script> & more")
    tell(500, "cut", "n1", "n2")
    tell(600, "heal", "world", "everybody")
    tell(700, "resume", "n3")
    tell(710, "snapshot", "n2", 2)
    tell(711, "said", "n2", "took over the state at entry 2\nin two lines")
    tell(712, "reach", "world", "torn tail")
    tell(800, "kill", "n1")
    tell(900, "power", "world", "0.50")
    tell(901, "something new", "n2", b"\x01\x02", 7)
    tell(902, "stopped", "n3", "")
    tell(903, "failed", "n2", "AssertionError: 1 == 2")
    return told
