"""The client without its sockets: every decision, none of the waiting.

A `Core` holds what a client knows (routes, sessions, the highest log position
seen). A `Call` carries one request through failures until there is an answer,
a refusal or no time left. Drivers (`blocking`, `aio`, the simulator) own the
clock, the sockets and the randomness, and do what a call says:

    step = call.step(now)
      Pause   ──> wait until step.until, then step again
      Refresh ──> ask step.address for its map: call.on_map, or call.on_lost; step again
      Send    ──> send call.payload to step.address and report
                    a reply            answer = call.on_reply(reply, now)
                    nothing came back  call.on_lost(error, now, was_sent)
    answer is None ──> step again
    step and on_reply raise when it is over without an answer

After a failure the call goes to another node, by way of its map: the map may
name the new leader, and a node that answers it is alive. If no leader is known
the request goes there anyway: the node holds it until there is one.

The rules that keep an event counted once, whatever is lost on the way:

- A resend of a batch has the session, the sequence and the bytes of the first
  send. The payload is encoded once and kept.
- `in_doubt` is set when an attempt may have been carried out without our
  knowing. If the server has forgotten the session by then, sending under a
  new one could count the batch twice, so the call fails with
  `SessionExpiredError`. If the very first attempt finds the session expired,
  nothing was counted and a new session takes over. So it does when every
  event carries an `id`, for then the ids tell the events apart.
- A refusal with a retryable code means that nothing of the request was done. It
  does not end a doubt that an earlier attempt left. OUTCOME_UNKNOWN is no refusal:
  a node forwarded the request and can't say what became of it.

Rejected: retries inside the transport. A connection does not know which
requests may be repeated, and the simulator could not see the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unimeter import limits
from unimeter.client.retry import (
    RETRYABLE_CODES,
    TIMEOUT_SECONDS,
    Backoff,
    Patience,
    patience,
)
from unimeter.client.routing import Router, knows_leader, partition_of
from unimeter.client.sessions import SESSIONS_MAX, Sessions, Ticket
from unimeter.errors import (
    AlreadyExistsError,
    BackpressureError,
    ConnectionError,
    DeadlineExceededError,
    RedirectError,
    ServerError,
    SessionExpiredError,
    UnimeterError,
)
from unimeter.types import Event
from unimeter.wire import v2
from unimeter.wire.failures import exception_of
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    ErrorReply,
    Hello,
    HelloReply,
    Ingest,
    IngestReply,
    MetricDelete,
    PacketType,
    PartitionMap,
    PartitionMapReply,
    ProtocolError,
    Read,
    Request,
    Response,
    WebhookDelete,
)
from unimeter.wire.v2_ingest import encode_ingest

_INGEST = Ingest([])  # says what kind of call it is; the bytes are made from columns

EVENT_BYTES_WORST = (
    39  # fixed columns
    + 2 * 65  # a metric and a string account that occur once, with their length bytes
    + limits.EVENT_ID_BYTES_MAX
    + 1  # pair count
    + limits.PROPERTIES_PER_EVENT_MAX
    * (2 + limits.PROPERTY_KEY_BYTES_MAX + limits.PROPERTY_VALUE_BYTES_MAX)
)
"""The most one event can add to a payload; no batch needs measuring before it is encoded."""

CLUSTER_UNKNOWN = bytes(16)  # of a node that has no data yet
REDIRECTS_MAX = 3  # in a row; more is a disagreement between nodes, so wait as after a failure


class CreatedInDoubtError(AlreadyExistsError):
    """The metric exists, and an earlier attempt to create it got no reply: it may be ours."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call's payload; give the attempt up at `until`, or when nothing is heard."""

    address: str
    until: float
    silence: float  # seconds without a byte from the node
    connect: float  # seconds until a new connection stands


@dataclass(frozen=True, slots=True)
class Refresh(Send):
    """Ask for the partition map instead. A new connection's greeting is enough."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do before `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A response frame as it came."""

    status: int
    payload: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that ends a call, and the log position it reflects."""

    response: Response
    position: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that travel together, and the places they had in the caller's list."""

    events: Sequence[Event]
    indexes: Sequence[int]
    partition: int
    timestamp_ns: int  # of events that say none: read once, before the first attempt


class Call:
    """One request on its way to an answer."""

    __slots__ = (
        "address",
        "avoid",
        "core",
        "deadline",
        "failures",
        "give_up",
        "in_doubt",
        "last_error",
        "not_before",
        "packet_type",
        "partition",
        "payload",
        "redirects",
        "request",
        "silences",
        "spread",
        "started",
    )

    def __init__(
        self, core: Core, request: Request, partition: int, now: float, deadline: float
    ) -> None:
        self.core = core
        self.request = request
        self.partition = partition
        self.started = now
        self.deadline = deadline
        self.address = ""  # of the attempt
        self.give_up = now  # when the attempt is over if nothing is heard
        self.avoid = ""  # where the last attempt failed
        self.spread = core.read_from_any and isinstance(request, Read)
        self.silences = 0
        self.failures = 0  # in a row
        self.redirects = 0  # in a row
        self.in_doubt = False  # an attempt may have been carried out
        self.not_before = now
        self.last_error: UnimeterError | None = None
        self.packet_type: int = PacketType.INGEST_SYNC
        self.payload = b""
        self._encode()

    def _encode(self) -> None:
        if isinstance(self.request, Read):
            self.request.min_position = self.core.position
        self.packet_type, self.payload = v2.encode_request(self.request)

    def step(self, now: float) -> Send | Pause:
        """What to do next. Raises when the deadline has passed."""
        if now >= self.deadline:
            raise self._time_is_up()
        if now < self.not_before:
            return Pause(min(self.not_before, self.deadline))
        if self.failures and isinstance(self.request, Read):
            self._encode()  # the position we ask for may have become meaningless since
        router = self.core.router
        self.address = router.choose(self.partition, now, self.avoid, self.spread)
        wait = self._patience(now)
        until = min(self.deadline, now + wait.whole)
        self.give_up = min(until, now + min(wait.silence, wait.connect))
        kind: type[Send] = Send
        if self.failures and router.should_ask(now):
            router.asks(now)
            kind = Refresh
        return kind(self.address, until, wait.silence, wait.connect)

    def _patience(self, now: float) -> Patience:
        addresses, unsuspected = self.core.router.choices(self.partition, now)
        allowed, left = self.deadline - self.started, self.deadline - now
        return patience(allowed, left, addresses, unsuspected, self.silences)

    def on_lost(self, error: BaseException | str, now: float, was_sent: bool) -> None:
        """The attempt ended without a reply; `was_sent` if any byte may have arrived."""
        self.in_doubt |= was_sent
        self.silences += now >= self.give_up
        if now < self.deadline:  # a caller in a hurry says nothing about the node
            self.core.router.failed(self.address, now)
        known = error if isinstance(error, UnimeterError) else ConnectionError(str(error))
        self._failed(known, now)

    def on_map(self, reply: Reply, now: float) -> None:
        """Take the reply to a Refresh."""
        try:
            self.core.on_greeting(PacketType.GET_PARTITION_MAP, reply, self.address)
        except UnimeterError as error:
            self.on_lost(error, now, False)

    def on_reply(self, reply: Reply, now: float) -> Answer | None:
        """Take a reply. None means: step again. Raises when it is a final refusal."""
        position, response = decode(self.packet_type, reply)
        if isinstance(response, ErrorReply):
            return self._on_refusal(response, now)
        self.core.router.answered(self.address)
        if isinstance(response, PartitionMapReply):
            self.core.router.learn(response.routes, self.address)
        self.core.see(position)
        return Answer(response, position)

    def _on_refusal(self, refusal: ErrorReply, now: float) -> Answer | None:
        error = exception_of(refusal)
        if isinstance(error, RedirectError) and self.redirects < REDIRECTS_MAX:
            self.redirects += 1
            self.core.router.redirect(self.partition, error.new_addr)
            self.failures = 0
            self.avoid = ""
            self.last_error = error
            return None
        if refusal.code == ErrorCode.OUTCOME_UNKNOWN:
            self.in_doubt = True
            self.core.router.refused(self.address, now)
            self._failed(error, now)
            return None
        if refusal.code in RETRYABLE_CODES:
            self._try_elsewhere(refusal, error, now)
            self.not_before = max(self.not_before, now + refusal.retry_after_ms / 1000)
            return None
        self.core.router.answered(self.address)
        if self._was_deleted_by_us(refusal):
            return Answer(Done(), self.core.position)
        if self.in_doubt and isinstance(error, AlreadyExistsError):
            raise CreatedInDoubtError(str(error))
        raise error

    def _try_elsewhere(self, refusal: ErrorReply, error: UnimeterError, now: float) -> None:
        """Nothing was done. Who may do better: another node, or the same one later?"""
        router = self.core.router
        if refusal.code == ErrorCode.SHUTTING_DOWN:
            router.failed(self.address, now)
        elif refusal.code == ErrorCode.NOT_LEADER:
            router.refused(self.address, now)
            error = ConnectionError(f"{self.address}: {refusal.text or 'no leader is known'}")
        self._failed(error, now)
        if refusal.code == ErrorCode.BACKPRESSURE and not isinstance(self.request, Read):
            # Every node would ask the same leader: no other is better.
            self.avoid = ""
            self.failures = max(0, self.failures - 1)

    def _was_deleted_by_us(self, refusal: ErrorReply) -> bool:
        """A delete whose reply was lost finds nothing the second time: it is done."""
        return (
            self.in_doubt
            and isinstance(self.request, MetricDelete | WebhookDelete)
            and refusal.code == ErrorCode.NOT_FOUND
        )

    def _failed(self, error: UnimeterError, now: float) -> None:
        self.last_error = error
        self.avoid = self.address
        self.failures += 1
        self.redirects = 0
        self.not_before = now + self.core.pause_after(self.failures)

    def _time_is_up(self) -> UnimeterError:
        """The error that says most: whether anything may have happened, and why not."""
        seconds = self.deadline - self.started
        reason = f"; last failure: {self.last_error}" if self.last_error else ""
        if self.in_doubt or self.last_error is None:
            doubt = self._doubt() if self.in_doubt else ""
            return DeadlineExceededError(f"no answer within {seconds:.3g} s{doubt}{reason}")
        if isinstance(self.last_error, BackpressureError):
            return BackpressureError(
                f"the server asked to wait for all of {seconds:.3g} s; nothing was stored{reason}",
                self.last_error.retry_after,
            )
        return ConnectionError(
            f"no node took the request within {seconds:.3g} s, so nothing was done{reason}"
        )

    def _doubt(self) -> str:
        return ""


class IngestCall(Call):
    """A batch on its way, with the right to send it."""

    __slots__ = ("batch", "is_sync", "ticket")

    def __init__(
        self,
        core: Core,
        batch: Batch,
        ticket: Ticket,
        is_sync: bool,
        now: float,
        deadline: float,
    ) -> None:
        self.batch, self.ticket, self.is_sync = batch, ticket, is_sync
        # Later than this the server may have forgotten the session and count it again.
        deadline = min(deadline, now + limits.SESSION_RESEND_SECONDS_MAX)
        super().__init__(core, _INGEST, batch.partition, now, deadline)

    def _encode(self) -> None:
        """Once per session: a resend is the same bytes."""
        session = self.ticket.session
        self.packet_type = PacketType.INGEST_SYNC if self.is_sync else PacketType.INGEST_ASYNC
        self.payload = encode_ingest(
            self.batch.events,
            session_hi=session.high,
            session_lo=session.low,
            sequence=self.ticket.sequence,
            default_timestamp_ns=self.batch.timestamp_ns,
        )

    def close(self) -> None:
        """Answered or given up: the number is free for the window to move on."""
        self.ticket.resolve()

    def _on_refusal(self, refusal: ErrorReply, now: float) -> Answer | None:
        if refusal.code not in (ErrorCode.SESSION_EXPIRED, ErrorCode.SEQUENCE_TOO_OLD):
            return super()._on_refusal(refusal, now)
        if self.in_doubt and not all(event.id for event in self.batch.events):
            raise SessionExpiredError(
                "the server no longer knows this session, and an earlier attempt at this batch "
                "got no reply: it may or may not be counted. Compare with the stored events "
                "before sending it again; events with an id could be sent again safely"
            )
        if self.failures > REDIRECTS_MAX:
            raise exception_of(refusal)
        self.ticket = self.core.sessions.replace(self.ticket)
        self._encode()
        self.failures += 1  # bounds the loop against a server that forgets at once
        return None

    def _doubt(self) -> str:
        return "; the batch may or may not be counted (events with an id can be sent again safely)"


class Core:
    """What one client knows. Not thread-safe; a driver adds its own lock."""

    def __init__(
        self,
        seeds: list[str],
        identity: Callable[[], int],
        random: Callable[[], float],
        *,
        backoff: Backoff | None = None,
        sessions_max: int = SESSIONS_MAX,
        events_max: int = limits.EVENTS_PER_BATCH_MAX,
        read_from_any: bool = False,
        token: bytes = b"",
        tls: object | None = None,
    ) -> None:
        """`token` is shown on every new connection; `tls` is the drivers', who open them."""
        self.router = Router(seeds)
        self.sessions = Sessions(identity, sessions_max)
        self.random = random
        self.backoff = backoff or Backoff()
        self.position = 0  # highest log position seen: reads ask for at least this
        self.cluster_id = b""
        self.read_from_any = read_from_any
        self.token, self.tls = token, tls
        self._events_max = events_max

    def see(self, position: int) -> None:
        """Remember the highest position, so that a later read includes it."""
        if position > self.position:
            self.position = position

    def pause_after(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return self.backoff.pause(failures, self.random, self.has_alternative())

    def on_push(self, packet_type: int, payload: bytes, address: str) -> bool:
        """Take what the node at `address` said unasked; whether it knows a leader.

        Raises ProtocolError.
        """
        if packet_type != PacketType.PARTITION_MAP_UPDATE:
            return True
        push = v2.decode_push(packet_type, payload)[1]
        assert isinstance(push, PartitionMapReply)
        self.router.learn(push.routes, address)
        return knows_leader(push.routes)

    def on_pong(self, reply: Reply, address: str) -> bool:
        """Take the map that a stream asked for to see if its node lives; see `on_push`."""
        response = decode(PacketType.GET_PARTITION_MAP, reply)[1]
        if not isinstance(response, PartitionMapReply):
            return True  # it lives, and can't say more
        self.router.learn(response.routes, address)
        return knows_leader(response.routes)

    def stream_attempt(self, now: float, until: float, avoid: str) -> Send:
        """Where a stream of alerts should connect, and how long it should try."""
        left = max(0.0, min(until - now, TIMEOUT_SECONDS))
        wait = patience(left, left, *self.router.choices(0, now), 0)
        address = self.router.choose(0, now, avoid)
        return Send(address, now + min(left, wait.whole), wait.silence, wait.connect)

    def has_alternative(self) -> bool:
        """Whether there is another node to go to."""
        return len(self.router.order(0)) > 1

    def on_greeting(self, packet_type: int, reply: Reply, address: str) -> None:
        """Take the reply to one request of the greeting."""
        response = decode(packet_type, reply)[1]
        if isinstance(response, ErrorReply):
            raise exception_of(response)
        if isinstance(response, HelloReply):
            self._on_hello(response, address)
        elif isinstance(response, PartitionMapReply):
            self.router.learn(response.routes, address)

    def _on_hello(self, reply: HelloReply, address: str) -> None:
        if reply.version < 2:
            raise ServerError(f"the server at {address} does not speak protocol version 2")
        if reply.cluster_id != CLUSTER_UNKNOWN:
            if self.cluster_id and reply.cluster_id != self.cluster_id:
                # Positions and sessions belong to a log. Waiting on this one for a position
                # of the other would never end.
                self.position = 0
                self.sessions.retire_all()
            self.cluster_id = reply.cluster_id
        self.sessions.window = min(limits.SESSION_WINDOW, max(1, reply.session_window))
        by_bytes = max(1, (reply.frame_bytes_max - 4096) // EVENT_BYTES_WORST)
        self._events_max = max(1, min(self._events_max, reply.events_per_batch_max, by_bytes))

    def call(self, request: Request, partition: int, now: float, deadline: float) -> Call:
        """Begin any request but an ingest."""
        return Call(self, request, partition, now, deadline)

    def ingest(
        self, batch: Batch, ticket: Ticket, is_sync: bool, now: float, deadline: float
    ) -> IngestCall:
        """Begin a batch under a ticket of `sessions`; the call's `close` gives it back.

        Encodes the whole batch and changes nothing of the core, so a driver with
        threads need not hold its lock meanwhile.
        """
        return IngestCall(self, batch, ticket, is_sync, now, deadline)

    def plan(
        self, events: Sequence[Event], indexes: Sequence[int], timestamp_ns: int
    ) -> list[Batch]:
        """Divide events by the node that leads them and by the size of a batch.

        The events of one account keep their order within and across batches.
        """
        assert len(events) == len(indexes)
        batches = []
        for group in self._groups(events):
            size = self._events_max
            for start in range(0, len(group), size):
                places = group[start : start + size]
                chosen = [events[place] for place in places]
                numbers = [indexes[place] for place in places]
                partition = partition_of(chosen[0].account_id)
                batches.append(Batch(chosen, numbers, partition, timestamp_ns))
        return batches

    def _groups(self, events: Sequence[Event]) -> list[Sequence[int]]:
        """Places of events by the node that leads them; one group if one leads all."""
        if not self.router.is_divided():
            return [range(len(events))] if events else []
        groups: dict[str, list[int]] = {}
        for place, event in enumerate(events):
            address = self.router.order(partition_of(event.account_id))[0]
            groups.setdefault(address, []).append(place)
        return list(groups.values())


def greeting(release: str, token: bytes = b"") -> list[Request]:
    """What to ask on a new connection, before anything else: who is there, who leads what."""
    return [
        Hello(version_min=2, version_max=2, client=f"unimeter-python {release}", token=token),
        PartitionMap(),
    ]


def decode(packet_type: int, reply: Reply) -> tuple[int, Response]:
    """The position and the response in a reply; `ServerError` if it breaks the protocol."""
    try:
        return v2.decode_response(packet_type, reply.status, reply.payload)
    except ProtocolError as error:
        raise ServerError(f"the server's reply breaks the protocol: {error}") from error


def ingest_reply(answer: Answer) -> IngestReply:
    """What the answer to a batch must be."""
    assert isinstance(answer.response, IngestReply), answer.response
    return answer.response
