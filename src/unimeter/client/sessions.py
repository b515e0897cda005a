"""Session and sequence numbers: what makes a resend countable only once.

A session is a random 128-bit number. Its requests are numbered 1, 2, 3 and
so on, and the server remembers the replies of the last `SESSION_WINDOW` of
them. A resend carries the number and the bytes of the first send, so the
server answers it from memory instead of counting it again.

    resolved        unresolved (window of 4)      not handed out
    1 2 3 4 │ 5 (sent)  6 (resolved)  7 (sent)  8 (sent) │ 9
              └ oldest: 9 must wait until 5 is resolved

So the rule is not "four in flight" but "no number is handed out while one that
is `window` lower may still be resent". One slow request must not hold up all
others, therefore `Sessions` opens a further session when every window is full,
up to `sessions_max`; then callers queue, in order.

A number is resolved when its reply arrived or when its caller has given up.
Neither clock nor randomness is here: identities come from the function given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from unimeter import limits

SESSIONS_MAX = 8  # 128 requests in flight: more than one connection can use


@dataclass(slots=True, eq=False)
class Session:
    """One session as the client sees it."""

    identity: int  # 128 bits, not zero
    window: int = limits.SESSION_WINDOW
    next_sequence: int = 1
    is_expired: bool = False
    unresolved: dict[int, None] = field(default_factory=dict)  # in ascending order

    @property
    def high(self) -> int:
        """The upper 64 bits of the identity."""
        return self.identity >> 64

    @property
    def low(self) -> int:
        """The lower 64 bits of the identity."""
        return self.identity & (2**64 - 1)

    def has_room(self) -> bool:
        """Whether another number may be handed out."""
        if self.is_expired:
            return False
        if not self.unresolved:
            return True
        return self.next_sequence - next(iter(self.unresolved)) < self.window

    def take(self) -> int:
        """Hand out the next number; the caller must `resolve` it in the end."""
        assert self.has_room()
        sequence = self.next_sequence
        self.next_sequence += 1
        self.unresolved[sequence] = None
        return sequence

    def resolve(self, sequence: int) -> None:
        """The number will not be sent again."""
        assert sequence in self.unresolved, sequence
        del self.unresolved[sequence]

    def check_invariants(self) -> None:
        """Raise AssertionError if the window was overrun."""
        assert self.identity != 0
        assert list(self.unresolved) == sorted(self.unresolved)
        assert not self.unresolved or max(self.unresolved) < self.next_sequence
        if self.unresolved:
            assert self.next_sequence - min(self.unresolved) <= self.window


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to send one request, as often as it takes."""

    session: Session
    sequence: int

    def resolve(self) -> None:
        """Give the number back: replied to, or given up."""
        self.session.resolve(self.sequence)


class Sessions:
    """The sessions of one client."""

    def __init__(
        self,
        identity: Callable[[], int],
        sessions_max: int = SESSIONS_MAX,
        window: int = limits.SESSION_WINDOW,
    ) -> None:
        assert sessions_max >= 1 and window >= 1
        self._identity = identity
        self._sessions_max = sessions_max
        self._sessions: list[Session] = []
        self.window = window

    def maybe_take(self) -> Ticket | None:
        """A ticket, or None when every window is full: try after a resolve."""
        for session in self._sessions:
            if session.has_room():
                return Ticket(session, session.take())
        if len(self._sessions) >= self._sessions_max:
            return None
        session = Session(self._identity(), self.window)
        self._sessions.append(session)
        return Ticket(session, session.take())

    def replace(self, ticket: Ticket) -> Ticket:
        """Retire the ticket's session, which the server forgot; take from another.

        The ticket is resolved. The new one may exceed `sessions_max` by the
        session that is dying out: a request under way must not have to queue.
        """
        self._retire(ticket.session)
        ticket.resolve()
        replacement = self.maybe_take()
        if replacement is None:
            session = Session(self._identity(), self.window)
            self._sessions.append(session)
            replacement = Ticket(session, session.take())
        return replacement

    def retire_all(self) -> None:
        """Forget every session: the server is another one now."""
        for session in list(self._sessions):
            self._retire(session)

    def _retire(self, session: Session) -> None:
        session.is_expired = True
        if session in self._sessions:
            self._sessions.remove(session)

    def statistics(self) -> dict[str, int]:
        """Sessions open and requests unresolved."""
        return {
            "sessions": len(self._sessions),
            "unresolved": sum(len(session.unresolved) for session in self._sessions),
        }

    def check_invariants(self) -> None:
        """Raise AssertionError if any session is inconsistent."""
        for session in self._sessions:
            assert not session.is_expired
            session.check_invariants()
