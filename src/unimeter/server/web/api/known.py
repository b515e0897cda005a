"""Which parameters a query may have: those that its route describes, and no others.

A misspelt ``?form=2026-11-01`` that is passed over would answer with another total than was asked
for, and nobody would notice until the invoice. So it is refused, and the nearest name is said.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import bad

_SHOWN_MAX: Final = 40
_NEAR: Final = 0.6  # how much of a name must be there to be taken for another
_OTHER_WORDS: Final = {"from": "start", "since": "start", "to": "end", "until": "end"}


def known_names(endpoint: Endpoint) -> tuple[str, ...]:
    """The parameters that a query of this route may have."""
    found = [one.name for one in endpoint.params if one.where == "query"]
    return (*found, "token") if endpoint.takes_portal else tuple(found)


def check_query(endpoint: Endpoint, given: Iterable[str]) -> None:
    """Raise a 400 that names a parameter which this route does not have."""
    known = known_names(endpoint)
    for name in given:
        if name not in known:
            raise bad(
                name[:_SHOWN_MAX] or "query", "is no parameter of this route", _hint(name, known)
            )


def _hint(name: str, known: tuple[str, ...]) -> str:
    if not known:
        return "no parameter at all"
    shown = f"one of {', '.join(known)}"
    other = _OTHER_WORDS.get(name.lower(), "")
    near = [other] if other in known else difflib.get_close_matches(name, known, 1, _NEAR)
    return f"{near[0]}, if that is meant; {shown}" if near else shown
