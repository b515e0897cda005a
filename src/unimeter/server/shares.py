"""How the ports share the sockets that clients may have, so that no crowd starves another.

A process may have so many descriptors (`Platform.connections_max` keeps some for the node
itself). Each socket of a stranger is one, on whichever port it came:

    handshakes, on each of two ports    a sixteenth, HANDSHAKES_MAX at the most
    HTTP                                half of the rest, HTTP_MAX at the most
    the binary port                     what is left

Owns that arithmetic. Each port keeps its own bound (`accepting`, `web.crowd`, `clients`) and says
who makes room. Rejected: one count for all ports. A crowd on one of them would close the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HANDSHAKES_MAX: Final = 512
HTTP_MAX: Final = 4096
PLENTY: Final = 2 * HANDSHAKES_MAX + 2 * HTTP_MAX  # below this some port has less than it could


@dataclass(frozen=True, slots=True)
class Shares:
    """Sockets that each port may have."""

    handshakes: int
    http: int
    binary: int


def share_out(connections_max: int) -> Shares:
    """What each port gets of so many."""
    assert connections_max >= 16
    handshakes = min(HANDSHAKES_MAX, connections_max // 16)
    rest = connections_max - 2 * handshakes
    http = min(HTTP_MAX, rest // 2)
    return Shares(handshakes, http, rest - http)
