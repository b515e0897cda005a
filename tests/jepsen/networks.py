"""What a cluster runs on: where its nodes are, and which of them can hear each other.

`Network` is what the harness knows. `namespaces.Namespaces` can cut and slow
links and needs the right to make network namespaces. `Loopback` needs nothing
and can do neither; faults that need it are then left out, and a run says so.

Places are numbers: nodes from 1, and CLIENTS. A cut is a pair of places: what
the first sends to the second is lost, without a word to either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

CLIENTS: Final = 0  # the place where all clients are
Cut = tuple[int, int]
T = TypeVar("T")


class Network(Protocol):
    """Links between places."""

    can_cut: bool
    can_slow: bool
    notes: list[str]  # what this machine does not allow, a sentence each

    def address(self, place: int) -> str:
        """Return the IP address of a place."""

    def command(self, place: int, command: Sequence[str]) -> list[str]:
        """Return a command line that runs a command there; its process id is the command's."""

    def enter(self, place: int) -> None:
        """Move the calling thread there: sockets it makes from now on are of that place."""

    def set_cuts(self, cuts: set[Cut]) -> None:
        """Lose what is sent along these cuts, and nothing else."""

    def set_slow(self, places: set[int]) -> None:
        """Slow down what these places send, and nothing else."""

    def close(self) -> None:
        """Remove everything that was made."""


class Loopback:
    """One address of the loopback interface for each node; nothing can be cut."""

    can_cut = False
    can_slow = False

    def __init__(self, reason: str = "asked for") -> None:
        self.notes = [f"no network namespaces ({reason}): nodes are on loopback, nothing is cut"]

    def address(self, place: int) -> str:
        return f"127.77.{os.getpid() % 256}.{place + 1}"

    def command(self, place: int, command: Sequence[str]) -> list[str]:
        return list(command)

    def enter(self, place: int) -> None:
        pass

    def set_cuts(self, cuts: set[Cut]) -> None:
        assert not cuts, "loopback cannot be cut"

    def set_slow(self, places: set[int]) -> None:
        assert not places, "loopback cannot be slowed"

    def close(self) -> None:
        pass


def call_at(network: Network, place: int, function: Callable[[], T], seconds: float) -> T:
    """Call a function at a place, in a thread of its own, and return its answer or its error.

    Raises TimeoutError after so many seconds; the thread is then left to itself.
    """
    import threading

    answer: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            network.enter(place)
            answer.append(function())
        except BaseException as caught:
            error.append(caught)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds} s")
    if error:
        raise error[0]
    return answer[0]
