"""When to try again, and for how long.

Owns the pause between attempts, the default deadline, and which refusals may
be tried again. Refuses to measure time or to draw random numbers: both come
from the caller, so that the simulator can replay a run.

The pause grows by a factor of two from `pause_first` to `pause_max` and is
drawn evenly from its upper half. Clients that lost the same server at the
same moment therefore come back spread out, yet none waits less than half of
what it should.

    attempt   1        2          3            4
    pause      10-20ms   20-40ms    40-80ms      ... 0.5-1 s

Rejected: "full jitter" from zero. A pause near zero is a busy loop against a
server that is just starting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unimeter.errors import InvalidInputError
from unimeter.wire.messages import ErrorCode

TIMEOUT_SECONDS = 10.0  # a call's deadline unless the caller names one
RELEASE = "0.1.0"  # told to the server
CONNECT_SECONDS = 2.0  # connect() and `with`: long enough for a node that is just starting
TIMEOUT_SECONDS_MAX = 86_400.0  # what "as long as it takes" means
ATTEMPT_SHARE = 1 / 3  # of the time allowed, before a silent connection is given up
ATTEMPT_SECONDS_MIN = 1.0  # a disk that stalls for a second is slow, not lost


@dataclass(frozen=True)
class Backoff:
    """The pauses between attempts, in seconds."""

    pause_first: float = 0.02
    pause_max: float = 1.0
    factor: float = 2.0

    def pause(self, failures: int, random: Callable[[], float]) -> float:
        """The pause after so many failures in a row (1 = the first)."""
        assert failures >= 1, failures
        whole = min(self.pause_max, self.pause_first * self.factor ** min(failures - 1, 32))
        return whole * (0.5 + 0.5 * random())


RETRYABLE_CODES = frozenset(
    {
        ErrorCode.BACKPRESSURE,
        ErrorCode.NOT_LEADER,
        ErrorCode.REDIRECT,
        ErrorCode.SHUTTING_DOWN,
    }
)
"""Refusals after which the same bytes may succeed: nothing of the request was done."""


def check_timeout(timeout: float) -> float:
    """Return `timeout` if it is a number of seconds above 0; raise InvalidInputError if not."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidInputError(f"timeout must be seconds above 0, not {timeout!r}")
    return min(timeout, TIMEOUT_SECONDS_MAX)
