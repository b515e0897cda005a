"""Bytes of request bodies that are held in memory, of all requests together.

Owns one number and its bound. A request takes what has arrived of its body and gives it back
when it is answered; beyond the bound it is told to come again (429). What a request announces
is looked at before anything is read, and not taken: announcing costs nothing.

Rejected: a bound on requests. A thousand small ones cost nothing, ten large ones a lot.
"""

from __future__ import annotations

from unimeter import limits
from unimeter.server.web.problems import Problem

RETRY_SECONDS = 1


class Bodies:
    """The bytes that the bodies of all requests hold."""

    def __init__(self, bytes_max: int = limits.HTTP_BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self.refused = 0  # requests that were told to come again

    def take(self, size: int) -> None:
        """Hold `size` bytes more; a 429 if that is too many for all."""
        self.check(size)
        self.held_bytes += size

    def check(self, size: int) -> None:
        """A 429 if `size` bytes more are too many for all just now."""
        assert size >= 0
        if self.held_bytes and self.held_bytes + size > self.bytes_max:
            self.refused += 1
            text = (
                f"the bodies of all requests hold {self.held_bytes} bytes, and {self.bytes_max} "
                "are the most; nothing was stored, send it again"
            )
            raise Problem(429, "too-many", text, headers={"Retry-After": str(RETRY_SECONDS)})

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less."""
        self.held_bytes -= size
        assert self.held_bytes >= 0, "more was given back than was taken"

    def statistics(self) -> dict[str, int]:
        """What is held, and how often it was too much."""
        return {"http_body_bytes": self.held_bytes, "http_bodies_refused": self.refused}
