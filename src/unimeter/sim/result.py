"""What one run of the simulator came to: passed or not, and what it went through."""

from __future__ import annotations

from dataclasses import dataclass, field

from unimeter.sim.story import Happening

PROFILES = ("swarm", "lite", "soak")


@dataclass
class Result:
    """One seed. Plain data, so that another process can send it."""

    seed: int
    profile: str
    passed: bool = True
    checker: str = ""  # who found the failure
    failure: str = ""  # a sentence; several lines if it was an exception of our code
    trace_hash: str = ""
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    nodes: int = 0
    options: dict[str, str] = field(default_factory=dict)  # what was drawn, readable
    requests: int = 0  # calls of clients that have ended
    entries: int = 0  # committed
    faults: dict[str, int] = field(default_factory=dict)  # how often each was done
    reached: dict[str, int] = field(default_factory=dict)  # situations, how often
    happenings: list[Happening] = field(default_factory=list)  # if they were kept

    @property
    def command(self) -> str:
        """What reproduces this run."""
        profile = "" if self.profile == "swarm" else f" --profile {self.profile}"
        return f"unimeter simulate --seed {self.seed}{profile}"
