"""Situations that show in what a node tells its operator."""

from __future__ import annotations

_SENTENCES = {
    "is repaired from another node": "rot repaired from a peer",
    "is repaired from node": "rot repaired from a peer",
    "took over the state at entry": "snapshot taken over from a peer",
    "of a write that a crash had interrupted": "torn tail",
    "was recovered on a new data directory": "lost disk recovered",
    "Passed over; kept as": "damaged snapshot passed over",
    "a peer's snapshot takes the place": "install finished at a start",
}


def situation_of(sentence: str) -> str:
    """The situation that a sentence is about; "" for none that is counted."""
    for part, situation in _SENTENCES.items():
        if part in sentence:
            return situation
    return ""
