"""What became of one entry on a replica, against the independent meter.

Owns the comparison of the engine's `Applied` with `Expected`: outcomes, counts, the words that
replies are written from, repeated replies, how many alerts. Refuses to look at the machine
itself (`machine_checks`).
"""

from __future__ import annotations

from unimeter.engine.applied import Applied
from unimeter.sim.committed import Expected
from unimeter.sim.failures import CheckFailed
from unimeter.sim.session_model import reply_words


def check_applied(who: str, applied: Applied, expected: Expected) -> None:
    """What became of an entry on a replica is what must: outcomes, counts, replies, alerts.

    Must be called before that machine applies another entry. Does not check the words of a
    refusal, nor the alerts' content (`MachineCheck.touched` does).
    """
    index = expected.index

    def equal(what: str, found: object, right: object) -> None:
        if found != right:
            sentence = f"{who} applied entry {index}: {what} {found!r}, expected {right!r}"
            raise CheckFailed("check_applied", sentence)

    equal("index", applied.index, index)
    equal("kind", applied.kind, expected.kind)
    equal("error", applied.error_code, expected.error_code)
    equal("first offset", applied.first_offset, expected.first_offset)
    equal("outcomes", list(applied.outcomes), list(expected.outcomes))
    counts = expected.stored, expected.duplicates, expected.refused
    equal("counts", (applied.stored, applied.duplicates, applied.refused), counts)
    alerts = expected.alerts_from, expected.alerts_to
    equal("alerts", (applied.alerts_from, applied.alerts_to), alerts)
    equal("results", list(applied.results), _result_words(expected))
    repeated: dict[int, object] = {}
    for number, request in enumerate(expected.requests):
        if request.error_code:
            repeated[number] = request.error_code
        elif request.repeats is not None:
            repeated[number] = reply_words(request.repeats)
    found = {
        number: reply if isinstance(reply, int) else (*reply[:5], int(reply[6]), *reply[5])
        for number, reply in applied.repeated.items()
    }
    equal("repeated replies", found, repeated)


def _result_words(expected: Expected) -> list[int]:
    """Four words a request, as the kernel that writes replies reads them."""
    words = []
    first = 0
    for request in expected.requests:
        unknown = request.outcomes.count(20)
        words.append(request.stored | request.duplicates << 32)
        words.append(request.refused | unknown << 32)
        words.append(first | len(request.outcomes) << 32)
        words.append(int(request.request.has_session))
        first += len(request.outcomes)
    return words
