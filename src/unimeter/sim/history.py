"""What the clients of one run did: every call, when it began and ended, and with what.

Owns the record that the client checks read. A *call* is one request on the wire with all
its resends: one batch, one page of a list, one change of a metric. What it noted at its
beginning is what the promises are about: the highest position that its own process had
seen, and the highest that anybody had been told.

    begin ──> Call (open) ──> end(outcome, response, position)
                          └─> lost: its process was killed; the outcome is known to nobody

Listeners hear of each beginning and end at once, so that a broken promise stops the run
at the moment it is broken. A call of a process that was killed ends no second time,
whatever its coroutines still do when they are thrown away.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unimeter.errors import (
    BackpressureError,
    ConnectionError,
    DeadlineExceededError,
    ServerError,
    SessionExpiredError,
    UnimeterError,
)
from unimeter.sim.story import Story
from unimeter.types import AlertRecord, Event
from unimeter.wire.messages import ErrorReply, Read, Request, Response

OPEN = ""
ANSWER = "answer"
REFUSED = "refused"  # an answer too: the request can't succeed as it is
KILLED = "killed"  # the client's process was
_NOTHING_DONE = (BackpressureError, ConnectionError)
_BLAMES_THE_WORLD = (*_NOTHING_DONE, DeadlineExceededError, SessionExpiredError, ServerError)


@dataclass(eq=False)
class Call:
    """One request, from its beginning to its end."""

    number: int  # from 1, by beginning
    client: str  # c1, c2, ...
    process: int  # of that client: 1, 2, ... with each start
    what: str  # ingest, UsageQuery, ..., subscribe, drain
    request: Request | None  # as it was first asked; None for what is no plain request
    events: Sequence[Event]  # of a batch, as they were sent
    version: int  # of the protocol
    timeout_ns: int
    began_ns: int
    seen: int  # the highest position that this process had been answered before
    told: int  # the highest position that any client had been answered before
    outcome: str = OPEN  # ANSWER, REFUSED, KILLED, or the name of the error it ended with
    ended_ns: int = -1
    response: Response | None = None  # the last one, a refusal too
    position: int = 0  # of the response
    session_hi: int = 0  # of a batch: what it was last sent under
    session_lo: int = 0
    sequence: int = 0
    error: UnimeterError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.outcome == OPEN

    @property
    def is_answered(self) -> bool:
        """Whether the system did its part: an answer, or a refusal that the caller earned."""
        return self.outcome in (ANSWER, REFUSED)

    @property
    def blames_the_world(self) -> bool:
        """Whether it ended with an error that no request has earned."""
        return isinstance(self.error, _BLAMES_THE_WORLD)

    @property
    def says_nothing_done(self) -> bool:
        """Whether its error says that nothing of the request was done."""
        return isinstance(self.error, _NOTHING_DONE)

    @property
    def is_linearizable(self) -> bool:
        """Whether it asked for what others were told, too."""
        return isinstance(self.request, Read) and self.request.linearizable

    @property
    def tells_position(self) -> bool:
        """Whether it was answered with a position, which its process has seen from now on.

        Not so a delete that found nothing because an earlier attempt of it was done.
        """
        is_done = self.outcome == ANSWER and not isinstance(self.response, ErrorReply)
        return is_done and self.position > 0

    def __str__(self) -> str:
        return f"call {self.number} ({self.what} of {self.client}, process {self.process})"


@dataclass(eq=False)
class Stream:
    """One subscription of one process: what it asked for and what it was handed."""

    client: str
    process: int
    accounts: tuple[int | str, ...]  # empty = of every account
    metrics: tuple[str, ...]  # empty = of every metric
    after: int  # the position it began after, confirmed by the server
    records: list[AlertRecord]

    @property
    def position(self) -> int:
        """Of the last alert handed out, or where it began."""
        return self.records[-1].position if self.records else self.after

    def __str__(self) -> str:
        return f"the subscription of {self.client}, process {self.process}"


class History:
    """All calls and subscriptions of a run, in the order of their beginning."""

    def __init__(self, clock: Callable[[], int], story: Story | None = None) -> None:
        """`clock` is the virtual time in ns since the world began."""
        self.clock = clock
        self.calls: list[Call] = []
        self.ended: list[Call] = []  # in the order of their end
        self.streams: list[Stream] = []
        self.told = 0  # the highest position in any answer
        self.on_begin: list[Callable[[Call], None]] = []
        self.on_end: list[Callable[[Call], None]] = []
        self.on_alert: list[Callable[[Stream, AlertRecord], None]] = []
        self._story = story or Story()
        self._started: dict[str, int] = {}  # client -> processes so far
        self._living: dict[str, int] = {}  # client -> its process, if one runs
        self._seen: dict[tuple[str, int], int] = {}
        self._open: dict[int, Call] = {}  # by number

    # --- processes -------------------------------------------------------------------

    def new_process(self, client: str) -> int:
        """A process of that client starts; its number."""
        process = self._started.get(client, 0) + 1
        self._started[client] = self._living[client] = process
        return process

    def killed(self, client: str) -> None:
        """Its process is dead: nobody knows what becomes of its open calls."""
        for call in self.open_calls():
            if call.client == client:
                self._close(call, KILLED)
        self._living.pop(client, None)

    def is_alive(self, client: str, process: int) -> bool:
        """Whether that process runs; what any other does is not recorded."""
        return self._living.get(client) == process

    # --- calls -----------------------------------------------------------------------

    def begin(
        self,
        client: str,
        process: int,
        what: str,
        *,
        request: Request | None = None,
        events: Sequence[Event] = (),
        version: int = 2,
        timeout: float = 0.0,
    ) -> Call:
        """A call begins now."""
        call = Call(
            number=len(self.calls) + 1,
            client=client,
            process=process,
            what=what,
            request=copy.copy(request),
            events=events,
            version=version,
            timeout_ns=round(timeout * 1e9),
            began_ns=self.clock(),
            seen=self._seen.get((client, process), 0),
            told=self.told,
        )
        if not self.is_alive(client, process):
            return call  # of a process that is being thrown away: nothing leaves it
        self.calls.append(call)
        self._open[call.number] = call
        self._story.tell("call", client, call.number, what)
        for listener in self.on_begin:
            listener(call)
        return call

    def answer(self, call: Call, response: Response | None, position: int) -> None:
        """A call ends with an answer."""
        call.response, call.position = response, position
        self._close(call, ANSWER)

    def fail(self, call: Call, error: UnimeterError) -> None:
        """A call ends with an error: a refusal it earned, or one that blames the world."""
        call.error = error
        is_earned = not isinstance(error, _BLAMES_THE_WORLD)
        self._close(call, REFUSED if is_earned else type(error).__name__)

    def _close(self, call: Call, outcome: str) -> None:
        if self._open.pop(call.number, None) is not call:
            return
        call.outcome, call.ended_ns = outcome, self.clock()
        if call.tells_position:
            key = call.client, call.process
            self._seen[key] = max(self._seen.get(key, 0), call.position)
            self.told = max(self.told, call.position)
        self.ended.append(call)
        words = outcome, isinstance(call.response, ErrorReply), call.position
        self._story.tell("reply", call.client, call.number, words[0], int(words[1]), words[2])
        for listener in self.on_end:
            listener(call)

    def open_calls(self) -> list[Call]:
        """Calls that have not ended, oldest first."""
        return list(self._open.values())

    # --- alerts ----------------------------------------------------------------------

    def subscribed(self, stream: Stream) -> None:
        """A subscription stands."""
        if self.is_alive(stream.client, stream.process):
            self.streams.append(stream)

    def alert(self, stream: Stream, record: AlertRecord) -> None:
        """A subscription handed out an alert."""
        if not self.is_alive(stream.client, stream.process):
            return
        self._story.tell("alert", stream.client, record.position)
        for listener in self.on_alert:
            listener(stream, record)
        stream.records.append(record)
