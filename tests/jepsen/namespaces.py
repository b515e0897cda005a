"""Links that can be cut one way: a network namespace for each node, and a router between.

    namespace P-1          namespace P-net (the router)          namespace P-0
    node 1                 forwards, and loses what a rule says  all clients
    eth0 10.77.1.2 ─────── link1 10.77.1.1   10.77.100.1 link0 ───── eth0 10.77.100.2
                                  │
    eth0 10.77.2.2 ─────── link2 10.77.2.1       ... P is `unimeter-jepsen-PID`

A cut is a routing rule of the router: `from 10.77.1.2 to 10.77.2.2 blackhole`.
It drops single packets of one pair in one direction, of connections that exist
as well, and tells nobody, like a broken switch. It needs iproute2 and nothing
else. Slow links are netem where the kernel has it (100 ms and a jitter), else a
token bucket so narrow that a message takes about as long.

Addresses exist only inside the namespaces; the host's own interfaces, routes
and rules are not touched. `close` removes every namespace that was made, and
with it all that was in it; end the processes in them first.

Rejected: a bridge. What it forwards can be dropped per pair only with ebtables,
nftables or eBPF, which a plain Debian does not have. Rejected: a blackhole
route in the sender's namespace. The sender is told at once (EINVAL), which no
real network does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.jepsen.networks import CLIENTS, Cut, Loopback, Network

NETNS: Final = Path("/run/netns")  # where `ip netns` keeps them
PREFIX: Final = "unimeter-jepsen"
CLONE_NEWNET: Final = 0x40000000  # from linux/sched.h
COMMAND_SECONDS_MAX: Final = 10.0
CUT_PREFERENCE: Final = "100"  # before the main table's 32766
NETEM: Final = ("netem", "delay", "100ms", "50ms")
# 30 kB/s: a message of a few kB takes 100 ms; a packet of 1500 bytes fits the bucket.
BUCKET: Final = ("tbf", "rate", "240kbit", "burst", "3000", "latency", "1s")


class NotPermittedError(Exception):
    """This machine does not let this user make network namespaces."""


def make_network(node_count: int, *, wants_namespaces: bool = True) -> Network:
    """Return the best network that this machine allows."""
    if not wants_namespaces:
        return Loopback()
    try:
        return Namespaces(node_count)
    except NotPermittedError as error:
        return Loopback(str(error))


class Namespaces:
    """A network of namespaces that this object made and will remove."""

    can_cut = True

    def __init__(self, node_count: int) -> None:
        """Make them; raise NotPermittedError, with nothing left behind, where that fails."""
        if shutil.which("ip") is None:
            raise NotPermittedError("no `ip` command: install iproute2")
        self.prefix = f"{PREFIX}-{os.getpid()}"
        self.places = [CLIENTS, *range(1, node_count + 1)]
        self.made: list[str] = []
        self.cuts: set[Cut] = set()
        self.slowed: set[int] = set()
        self.notes = [f"left by a run that was killed: namespace {name}" for name in orphans()]
        try:
            self._make()
        except NotPermittedError:
            self.close()
            raise
        self.slow_by = self._find_slow()
        self.can_slow = bool(self.slow_by)

    def _make(self) -> None:
        self._add(self._router)
        for place in self.places:
            self._add(self._name(place))
            link, (router, own) = f"link{place}", addresses(place)
            self._ip(
                self._router,
                f"link add {link} type veth peer name eth0 netns {self._name(place)}",
                f"addr add {router}/24 dev {link}",
                f"link set {link} up",
            )
            self._ip(
                self._name(place),
                "link set lo up",
                f"addr add {own}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {router}",
            )
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        run("ip", "netns", "exec", self._router, "sh", "-c", forward)

    def _add(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self.made.append(name)

    def _ip(self, namespace: str, *commands: str) -> None:
        for command in commands:
            run("ip", "-n", namespace, *command.split())

    def _name(self, place: int) -> str:
        return f"{self.prefix}-{place}"

    @property
    def _router(self) -> str:
        return f"{self.prefix}-net"

    # --- what Network asks ---------------------------------------------------

    def address(self, place: int) -> str:
        return addresses(place)[1]

    def command(self, place: int, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._name(place), *command]

    def enter(self, place: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
        with open(NETNS / self._name(place)) as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace.name}")

    def set_cuts(self, cuts: set[Cut]) -> None:
        for verb, changed in (("del", self.cuts - cuts), ("add", cuts - self.cuts)):
            for source, target in sorted(changed):
                pair = f"from {self.address(source)} to {self.address(target)}"
                self._ip(self._router, f"rule {verb} {pair} blackhole pref {CUT_PREFERENCE}")
        self.cuts = set(cuts)

    def set_slow(self, places: set[int]) -> None:
        assert self.slow_by or not places, "this kernel cannot slow a link"
        for place in sorted(self.slowed - places):
            run("tc", "-n", self._name(place), "qdisc", "del", "dev", "eth0", "root")
        for place in sorted(places - self.slowed):
            run("tc", "-n", self._name(place), "qdisc", "add", "dev", "eth0", "root", *self.slow_by)
        self.slowed = set(places)

    def _find_slow(self) -> Sequence[str]:
        """Try what the kernel has, on a link that nobody uses yet."""
        device = ["tc", "-n", self._name(CLIENTS), "qdisc"]
        for how in (NETEM, BUCKET):
            if shutil.which("tc") and is_done([*device, "add", "dev", "eth0", "root", *how]):
                run(*device, "del", "dev", "eth0", "root")
                if how is BUCKET:
                    self.notes.append("no netem in this kernel: slow links are a token bucket")
                return how
        self.notes.append("neither netem nor a token bucket here: no slow links")
        return ()

    def close(self) -> None:
        while self.made:
            is_done(["ip", "netns", "del", self.made.pop()])


def addresses(place: int) -> tuple[str, str]:
    """Return the router's address and the place's own on the link between them."""
    number = 100 if place == CLIENTS else place
    assert 1 <= number <= 100, place
    return f"10.77.{number}.1", f"10.77.{number}.2"


def orphans() -> list[str]:
    """Return the namespaces of runs that are gone: SIGKILL lets nobody tidy up.

    They are named and left alone: what runs in them was not started by this run.
    """
    names = sorted(path.name for path in NETNS.glob(f"{PREFIX}-*-net"))
    pids = {name: name.removeprefix(f"{PREFIX}-").removesuffix("-net") for name in names}
    return [name for name, pid in pids.items() if not Path("/proc", pid).exists()]


def run(*command: str) -> None:
    """Run a command of a few milliseconds; raise NotPermittedError with its words if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        raise NotPermittedError(f"{' '.join(command)}: {done.stderr.strip()}")


def is_done(command: Sequence[str]) -> bool:
    """Run a command and return whether it could."""
    try:
        run(*command)
    except NotPermittedError:
        return False
    return True
