"""The hash of the state at an index, without stopping the node.

    begin(machine)   a forked child hashes the memory of this moment
    poll()           (index, hash) once, when it has ended

Owns one calculation at a time. Replicas that applied the same entries have the same
bytes, so nodes that compare the hashes of one index now and then find out, within
minutes, that one of them has miscounted or that its memory has failed. A small state is
hashed on the spot: that takes less than a fork of a large process.

The child writes nothing but its answer into a pipe (see `background`); if it is killed
there is no answer, and the next `begin` asks again.

Rejected: a hash that is kept up to date with each event. It would have to be cheap
and yet cover every byte, and would be wrong in just the case it is for.
"""

from __future__ import annotations

from typing import Final, Protocol

from unimeter.storage.background import Child

INLINE_BYTES_MAX: Final = 1024 * 1024  # about a millisecond of hashing
_SESSION_BYTES: Final = 1024  # about; see limits.SESSIONS_MAX


class Hashable(Protocol):
    """What is needed of the machine."""

    @property
    def applied(self) -> int: ...

    def state_hash(self) -> str: ...

    def statistics(self) -> dict[str, int]: ...


class StateHasher:
    """Hashes states, one at a time."""

    def __init__(self, can_fork: bool) -> None:
        """`can_fork`: whether there may be a child (`Disk.can_fork`)."""
        self._can_fork = can_fork
        self._child: Child | None = None
        self._index = 0
        self._answer: tuple[int, str] | None = None
        self._taken = self._failed = 0

    @property
    def busy(self) -> bool:
        """Whether one is being calculated, or was not asked for yet."""
        return self._child is not None or self._answer is not None

    def begin(self, machine: Hashable) -> None:
        """Hash the state at machine.applied; nothing may be applied until this returns."""
        assert not self.busy, "one hash at a time"
        self._index = machine.applied
        if not self._can_fork or _bytes_of(machine) <= INLINE_BYTES_MAX:
            self._answer = (self._index, machine.state_hash())
            self._taken += 1
            return
        try:
            self._child = Child.start(machine.state_hash)
        except OSError:  # no memory for a child: the next time may be better
            self._failed += 1

    def fileno(self) -> int:
        """Readable when the child has finished; -1 when none runs."""
        return -1 if self._child is None else self._child.pipe

    def poll(self) -> tuple[int, str] | None:
        """Never blocks: None while running or idle; (index, hash in hex) once it has ended."""
        if self._child is not None:
            words = self._child.poll()
            if words is None:
                return None
            child, self._child = self._child, None
            if words:
                self._failed += 1
                return None
            self._answer = (self._index, child.said)
            self._taken += 1
        answer, self._answer = self._answer, None
        return answer

    def abandon(self) -> None:
        """Kill a running child."""
        if self._child is not None:
            child, self._child = self._child, None
            child.kill()
        self._answer = None

    def statistics(self) -> dict[str, int]:
        return {"state_hashes": self._taken, "state_hashes_failed": self._failed}


def _bytes_of(machine: Hashable) -> int:
    sizes = machine.statistics()
    tables = sizes["cell_bytes"] + sizes["member_bytes"] + sizes["key_bytes"]
    return tables + sizes["sessions"] * _SESSION_BYTES
