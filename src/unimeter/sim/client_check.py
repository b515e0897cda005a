"""What a client check is, and what it may ask of the auditor.

Owns the shape that all of them have: told of a call when it begins and ends, of an alert
when it is handed out, and once more at the end of a run. A check says in its docstring what
it does not check, and raises CheckFailed under its own name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from unimeter.sim.failures import CheckFailed
from unimeter.sim.history import Call, History, Stream
from unimeter.types import AlertRecord
from unimeter.wire.messages import AlertRow, ErrorCode, ErrorReply, Read, Request, Response

DAMAGE: Final = ("RottenEntryError", "CorruptionError")  # the node's words for it
INGEST: Final = "ingest"  # what a batch is called in the history


class Placed(Protocol):
    """A request in the log (`session_model.Answered`)."""

    @property
    def index(self) -> int:
        """Of the entry."""


class Told(Protocol):
    """What an entry led to (`committed.Expected`)."""

    @property
    def error_code(self) -> int:
        """0, or why a change of a metric was refused."""


class Log(Protocol):
    """The part of the auditor that is asked here."""

    @property
    def position(self) -> int:
        """Of the last committed entry."""

    def sent(self, session_hi: int, session_lo: int, sequence: int) -> Sequence[Placed]:
        """Every time that this request stands in the log."""

    def reply_difference(
        self, session_hi: int, session_lo: int, sequence: int, reply: Response
    ) -> str:
        """What is wrong with the reply to a batch; "" if nothing."""

    def matches(self, request: Request, response: Response, position: int) -> str:
        """What is wrong with an answer; "" if nothing."""

    def answer(self, request: Request, position: int) -> Response:
        """The right answer to a read."""

    def expected(self, index: int) -> Told:
        """What an entry led to."""

    def counted_marks(self) -> Counter[str]:
        """How often each mark was counted."""

    def mistaken_marks(self) -> set[str]:
        """Marks of events that were rightly called duplicates of others (`likeness`)."""

    def alert_rows(self) -> Sequence[AlertRow]:
        """Every alert so far, by position."""


class ClientCheck:
    """One promise. Its name is the failure's name."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def fail(self, sentence: str) -> None:
        """The promise is broken."""
        raise CheckFailed(type(self).__name__, sentence)

    def on_begin(self, call: Call) -> None:
        """A call begins."""

    def on_end(self, call: Call) -> None:
        """A call has ended."""

    def on_alert(self, stream: Stream, record: AlertRecord) -> None:
        """A subscription hands out an alert."""

    def at_end(self, history: History) -> None:
        """The run is over and everything committed is known."""


def tells(call: Call) -> bool:
    """Whether a read was answered, or refused for what it is, at a position."""
    return call.version > 1 and call.is_answered and call.position > 0 and call.response is not None


def met_damage(call: Call) -> bool:
    """Whether a read met damaged events, said so, and has them repaired."""
    reply = call.response
    if not isinstance(call.request, Read) or not isinstance(reply, ErrorReply):
        return False
    return reply.code == ErrorCode.INTERNAL and any(word in reply.text for word in DAMAGE)
