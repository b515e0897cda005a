"""When to try again, and for how long.

Owns the pause between attempts, the default deadline, and which refusals may
be tried again. Refuses to measure time or to draw random numbers: both come
from the caller, so that the simulator can replay a run.

The pause grows by a factor of two from `pause_first` to `pause_max`, or to
`pause_max_cluster` where there are other nodes to ask, and is drawn evenly from
its upper half. Clients that lost the same server at the
same moment therefore come back spread out, yet none waits less than half of
what it should.

    attempt   1        2          3            4
    pause      10-20ms   20-40ms    40-80ms      ... 0.5-1 s, in a cluster 0.1-0.2 s

A cluster has a new leader in about a second, so its clients come back often. And
they do not wait long for a silent node: a stopped process looks like a slow one,
and sending the same bytes to another node is safe. Each silence in a row doubles
the patience, so that a cluster that is only slow is not sent everything many times.

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
CONNECT_SECONDS_MAX = 5.0  # a host that does not answer at all; then the next candidate
SILENCE_SECONDS = 1.0  # without a byte from a node while there are others to ask
PING_SECONDS = 5.0  # of silence on a stream of alerts, before its node is asked if it lives
PONG_SECONDS = 2.0  # for the answer; then another node has the alerts too
CONNECT_SECONDS_CLUSTER = 0.75  # to a host that does not answer while there are others
PATIENCE_SECONDS_MIN = 0.2  # however short the deadline: less would give up healthy nodes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one attempt may take, in seconds."""

    whole: float  # until it is given up
    silence: float  # without a byte from the node
    connect: float  # until a new connection stands


def patience(
    allowed: float, left: float, addresses: int, unsuspected: int, silences: int
) -> Patience:
    """How long to wait for a node.

    `allowed` and `left` are the seconds of the whole call and what is left of them;
    `addresses` are there to try, nobody suspects `unsuspected` of them; `silences`
    attempts of this call have ended without a byte.
    """
    whole = max(ATTEMPT_SECONDS_MIN, allowed * ATTEMPT_SHARE)
    if addresses == 1:
        return Patience(whole, whole, CONNECT_SECONDS_MAX)
    share = max(PATIENCE_SECONDS_MIN, left / max(1, unsuspected))
    longer = 2.0 ** min(silences, 8)
    return Patience(
        whole,
        min(whole, share, SILENCE_SECONDS * longer),
        min(CONNECT_SECONDS_MAX, share, CONNECT_SECONDS_CLUSTER * longer),
    )


@dataclass(frozen=True)
class Backoff:
    """The pauses between attempts, in seconds."""

    pause_first: float = 0.02
    pause_max: float = 1.0
    pause_max_cluster: float = 0.2
    factor: float = 2.0

    def pause(self, failures: int, random: Callable[[], float], is_cluster: bool = False) -> float:
        """The pause after so many failures in a row (1 = the first)."""
        assert failures >= 1, failures
        most = self.pause_max_cluster if is_cluster else self.pause_max
        whole = min(most, self.pause_first * self.factor ** min(failures - 1, 32))
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


def check_read_from(read_from: str) -> str:
    """Return `read_from` if it is "leader" or "any"; raise InvalidInputError if not."""
    if read_from not in ("leader", "any"):
        raise InvalidInputError(f"read_from must be 'leader' or 'any', not {read_from!r}")
    return read_from


def check_timeout(timeout: float) -> float:
    """Return `timeout` if it is a number of seconds above 0; raise InvalidInputError if not."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidInputError(f"timeout must be seconds above 0, not {timeout!r}")
    return min(timeout, TIMEOUT_SECONDS_MAX)
