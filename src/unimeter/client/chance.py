"""The client's only source of randomness: for session identities, pauses, keys and secrets.

From the operating system, so that two processes forked from one, or two hosts
started from one image, never draw the same session. The core is given these
functions and the simulator gives its own.
"""

from __future__ import annotations

import os


def identity() -> int:
    """A session identity: 128 bits, not zero."""
    return int.from_bytes(os.urandom(16), "little") or 1


def fraction() -> float:
    """A number from 0 up to 1."""
    return int.from_bytes(os.urandom(4), "little") / 2**32


def entropy(size: int) -> bytes:
    """So many random bytes, fit for a secret."""
    return os.urandom(size)
