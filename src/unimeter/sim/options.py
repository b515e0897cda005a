"""What one seed draws before anything happens: how many nodes, which faults, how strong.

Swarm testing (Groce and others, "Swarm Testing", ISSTA 2012): a run that has every fault a
little finds less than runs that each lack most of them. So each seed draws which faults it
has, and for each its rate.

    lite    few faults, short: what CI can run often and what a slow machine can
    swarm   the default
    soak    all at once, longer

Bounds are tiny, so that what is rare in production happens in every run: segments of a few
entries, snapshots every few KiB, states compared every four entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from unimeter.sim.chance import Chance
from unimeter.sim.network import Weather
from unimeter.sim.scheduler import MICROSECOND, MILLISECOND

# Faults that a seed may have, with the mean time between two of them, in milliseconds.
FAULTS: dict[str, int] = {
    "kill": 2500,
    "power_cut": 3500,
    "cut_in_a_write": 2500,
    "cut_at_a_reply": 4000,
    "everybody_dark": 9000,
    "partition": 3000,
    "one_way": 3000,
    "partial": 3000,
    "reset": 2000,
    "pause": 2500,
    "clock_jump": 3000,
    "slow_disk": 4000,
    "slow_link": 4000,
    "full_disk": 5000,
    "sync_fails": 6000,
    "write_fails": 8000,
    "rot": 3000,
    "misdirect": 5000,
    "lose_disk": 7000,
    "transfer": 2500,
    "restart_in_order": 4000,
    "rolling_restart": 9000,
    "snapshot": 1500,
    "kill_client": 3000,
    "elections": 4000,
    "cut_in_a_removal": 4000,
    "depose_a_slow_leader": 4000,
    "seesaw": 6000,
}

MINORITIES = ("killed", "cut off", "deaf", "mute")
"""Dead; apart from all others, both ways; hearing none of them; heard by none of them."""

SHARES = {"lite": 0.2, "swarm": 0.4, "soak": 0.9}  # of all faults that a seed has


@dataclass
class Options:
    """The draws of one seed. Readable with `described`."""

    profile: str = "swarm"
    nodes: int = 3
    faults: dict[str, int] = field(default_factory=dict)  # name -> mean milliseconds between
    weather: Weather = field(default_factory=Weather)
    segment_bytes: int = 8192
    snapshot_log_bytes: int = 16_384
    retention_bytes: int = 0
    disk_free_bytes_min: int = 0
    state_hash_entries: int = 4
    append_bytes_max: int = 2**20
    appends_inflight_max: int = 256
    session_window: int = 16
    apply_ns: int = 0  # an entry in the apply thread takes at most so long
    apply_here_bytes_max: int = 65_536
    inline_sync_bytes_max: int = 98_304
    disk_ns: dict[str, tuple[int, int]] = field(default_factory=dict)
    skew_ns: int = 0  # clocks are off by at most so much
    safety_ms: int = 20_000  # then everything heals
    minority: str = ""  # how a minority stays away while a majority is healed
    has_probes: bool = False
    clients: int = 4
    calls: int = 35  # of each client

    def described(self) -> dict[str, str]:
        """All of them as texts."""
        return {one.name: str(getattr(self, one.name)) for one in fields(self)}


def draw(profile: str, chance: Chance) -> Options:
    """The options of a seed."""
    options = Options(profile)
    options.nodes = int(chance.weighted({"1": 1, "3": 6, "5": 2}))
    share = SHARES[profile]
    strength = {"lite": 2.0, "swarm": 1.0, "soak": 1.0}[profile]
    for name, mean in FAULTS.items():
        if chance.hit(share):
            options.faults[name] = int(mean * strength * chance.pick((0.4, 0.7, 1, 1.5, 2.5)))
    options.weather = _weather(chance, share)
    options.segment_bytes = chance.pick((5120, 8192, 8192, 16_384, 65_536))
    options.snapshot_log_bytes = chance.pick((4000, 16_000, 60_000, 10_000_000))
    options.retention_bytes = chance.pick((0, 0, 1, 20_000))
    options.state_hash_entries = chance.pick((1, 4, 16))
    options.append_bytes_max = chance.pick((1, 1, 300, 2**20))  # 1: an entry in each message
    options.appends_inflight_max = chance.pick((1, 2, 256, 256))
    options.session_window = chance.pick((2, 4, 16, 16))
    options.apply_ns = chance.pick((0, 0, 1, 20, 100)) * MILLISECOND
    options.apply_here_bytes_max = chance.pick((0, 300, 65_536, 65_536))
    options.inline_sync_bytes_max = chance.pick((0, 300, 98_304, 98_304))
    slow = chance.pick((1, 1, 3, 10))
    options.disk_ns = {
        "sync": (100 * MICROSECOND, 400 * MICROSECOND * slow),
        "sync_directory": (50 * MICROSECOND, 200 * MICROSECOND * slow),
        "write": (3 * MICROSECOND, 30 * MICROSECOND),
        "read": (1 * MICROSECOND, 10 * MICROSECOND),
    }
    options.skew_ns = chance.pick((0, 10**6, 10**9, 600 * 10**9))
    options.safety_ms = {
        "lite": chance.between(4000, 10_000),
        "swarm": chance.between(6000, 25_000),
        "soak": chance.between(40_000, 120_000),
    }[profile]
    if options.nodes > 1 and chance.hit(0.35):
        options.minority = chance.pick(MINORITIES)
    options.has_probes = options.nodes > 1 and chance.hit(0.5)
    options.clients = chance.between(3, 6)
    options.calls = {"lite": 20, "swarm": 30, "soak": 120}[profile]
    return options


def _weather(chance: Chance, share: float) -> Weather:
    weather = Weather()
    top = chance.pick((300, 1000, 5000, 30_000)) * MICROSECOND
    weather.latency_ns = (30 * MICROSECOND, top)
    for name in ("lost", "doubled", "overtaken"):
        if chance.hit(share):
            setattr(weather, name, chance.pick((0.002, 0.02, 0.1)))
    if chance.hit(share):
        weather.asked_twice = chance.pick((0.02, 0.1))
    if chance.hit(share):
        weather.flipped = chance.pick((0.0005, 0.003, 0.01))
    if chance.hit(share):
        weather.reset = chance.pick((0.0003, 0.002))
    weather.split = chance.pick((0.0, 0.1, 0.5))
    low = chance.pick((800, 3000))
    weather.timeout_ns = (low * MILLISECOND, 3 * low * MILLISECOND)
    return weather
