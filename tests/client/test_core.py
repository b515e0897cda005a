"""The core without sockets: every decision, against a server that is a dictionary."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import limits
from unimeter.client.core import (
    Answer,
    Batch,
    Call,
    Core,
    CreatedInDoubtError,
    IngestCall,
    Pause,
    Reply,
    Send,
    greeting,
    ingest_reply,
)
from unimeter.errors import (
    AlreadyExistsError,
    BackpressureError,
    ConnectionError,
    DeadlineExceededError,
    InvalidInputError,
    NotFoundError,
    RedirectError,
    ServerError,
    SessionExpiredError,
    UnimeterError,
)
from unimeter.types import PARTITION_COUNT, AggType, AggValue, Event, MetricSchema
from unimeter.wire import v2
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    ErrorReply,
    HelloReply,
    IngestReply,
    MetricDelete,
    MetricPut,
    PacketType,
    PartitionMapReply,
    PartitionRoute,
    PutMode,
    Response,
    Status,
    UsageQuery,
    UsageReply,
)

QUERY = UsageQuery(1, "m", 0, 1)


def make_core(seeds: list[str] | None = None, **options: int) -> Core:
    identities = itertools.count(1)
    return Core(seeds or ["a:1"], lambda: next(identities), lambda: 0.5, **options)


def reply(kind: int, response: Response, position: int = 0) -> Reply:
    status = Status.ERROR if isinstance(response, ErrorReply) else Status.OK
    return Reply(status, v2.encode_response(kind, response, position))


def refusal(call: Call, code: ErrorCode, text: str = "", wait_ms: int = 0) -> Reply:
    return reply(call.packet_type, ErrorReply(code, text, wait_ms))


def begin(core: Core, *events: Event, deadline: float = 10.0) -> IngestCall:
    (batch,) = core.plan(events or (Event(1, "m"),), range(len(events) or 1), 10**18)
    return begin_batch(core, batch, deadline)


def begin_batch(core: Core, batch: Batch, deadline: float = 10.0) -> IngestCall:
    ticket = core.sessions.maybe_take()
    assert ticket is not None
    return core.ingest(batch, ticket, True, 0.0, deadline)


def sequence_of(payload: bytes) -> tuple[int, int, int]:
    request = v2.decode_ingest(payload)
    return request.session_hi, request.session_lo, request.sequence


def sent_at(call: Call, now: float) -> Send:
    step = call.step(now)
    assert isinstance(step, Send), step
    return step


# --- retries -----------------------------------------------------------------


def test_first_step_sends_at_once() -> None:
    call = begin(make_core())
    assert sent_at(call, 0.0).address == "a:1"


def test_attempt_is_given_up_before_the_deadline_so_that_another_fits() -> None:
    assert sent_at(begin(make_core(), deadline=9.0), 0.0).until == pytest.approx(3.0)
    assert sent_at(begin(make_core(), deadline=0.5), 0.0).until == 0.5


def test_pauses_grow_between_attempts_and_stay_within_bounds() -> None:
    call = begin(make_core(), deadline=1000.0)
    now, pauses = 0.0, []
    for _ in range(12):
        sent_at(call, now)
        call.on_lost("lost", now, False)
        step = call.step(now)
        assert isinstance(step, Pause)
        pauses.append(step.until - now)
        now = step.until
    assert pauses[0] == pytest.approx(0.015) and pauses[1] == pytest.approx(0.03)
    assert pauses[:6] == sorted(pauses[:6]) and pauses[6:] == pytest.approx([0.75] * 6)


def test_resend_is_the_same_bytes_with_the_same_sequence() -> None:
    call = begin(make_core())
    first = call.payload
    for attempt in range(5):
        call.on_lost("lost", float(attempt), True)
        sent_at(call, attempt + 0.99)
        assert call.payload is first
    assert sequence_of(first) == (0, 1, 1)


def test_failures_move_on_to_the_next_seed_and_come_round() -> None:
    call = begin(make_core(["a:1", "b:2"]), deadline=100.0)
    addresses = []
    for attempt in range(4):
        addresses.append(sent_at(call, attempt * 10.0).address)
        call.on_lost("lost", attempt * 10.0, False)
    assert addresses == ["a:1", "b:2", "a:1", "b:2"]


def test_deadline_error_says_whether_anything_may_have_happened() -> None:
    never_sent = begin(make_core(), deadline=1.0)
    never_sent.on_lost("refused", 0.0, False)
    with pytest.raises(ConnectionError, match=r"nothing was done.*refused"):
        never_sent.step(1.0)
    in_doubt = begin(make_core(), deadline=1.0)
    in_doubt.on_lost("reset", 0.0, True)
    in_doubt.on_lost("refused", 0.5, False)
    with pytest.raises(DeadlineExceededError, match="may or may not be counted"):
        in_doubt.step(1.0)
    read = make_core().call(QUERY, 1, 0.0, 1.0)
    read.on_lost("reset", 0.0, True)
    with pytest.raises(DeadlineExceededError) as caught:
        read.step(1.0)
    assert "counted" not in str(caught.value)


def test_backpressure_waits_as_long_as_the_server_said() -> None:
    call = begin(make_core())
    assert call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "low", 700), 0.0) is None
    assert call.step(0.1) == Pause(0.7)
    assert call.step(0.7).until > 0.7
    assert not call.in_doubt
    call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "low", 700), 0.0)
    with pytest.raises(BackpressureError, match="nothing was stored"):
        call.step(10.0)


@pytest.mark.parametrize("code", [ErrorCode.NOT_LEADER, ErrorCode.SHUTTING_DOWN])
def test_refusal_of_a_node_that_can_not_now_is_tried_elsewhere(code: ErrorCode) -> None:
    call = begin(make_core(["a:1", "b:2"]))
    assert sent_at(call, 0.0).address == "a:1"
    assert call.on_reply(refusal(call, code), 0.0) is None
    step = call.step(0.0)
    assert isinstance(step, Pause)


def test_redirect_is_followed_at_once_and_remembered_for_the_partition() -> None:
    core = make_core()
    call = begin(core, Event(7, "m"))
    assert call.on_reply(refusal(call, ErrorCode.REDIRECT, "b:2"), 0.0) is None
    assert sent_at(call, 0.0).address == "b:2"
    assert core.router.choose(7, 0.0) == "b:2"
    assert core.router.choose(8, 0.0) == "a:1"


def test_nodes_that_redirect_to_each_other_do_not_spin() -> None:
    call = begin(make_core())
    for turn in range(4):
        sent_at(call, 0.0)
        assert call.on_reply(refusal(call, ErrorCode.REDIRECT, f"n{turn % 2}:1"), 0.0) is None
    assert isinstance(call.step(0.0), Pause)
    with pytest.raises(ConnectionError):
        call.step(10.0)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.NOT_FOUND, NotFoundError),
        (ErrorCode.INVALID_INPUT, InvalidInputError),
        (ErrorCode.INTERNAL, ServerError),
    ],
)
def test_final_refusal_raises_what_stands_for_it(
    code: ErrorCode, kind: type[UnimeterError]
) -> None:
    call = make_core().call(QUERY, 1, 0.0, 1.0)
    with pytest.raises(kind, match="because"):
        call.on_reply(refusal(call, code, "because"), 0.0)


def test_nonsense_from_the_server_is_a_server_error() -> None:
    call = make_core().call(QUERY, 1, 0.0, 1.0)
    with pytest.raises(ServerError, match="breaks the protocol"):
        call.on_reply(Reply(0, b"\x01\x02"), 0.0)


def test_delete_that_finds_nothing_is_done_only_after_a_lost_attempt() -> None:
    core = make_core()
    fresh = core.call(MetricDelete("m"), 0, 0.0, 1.0)
    with pytest.raises(NotFoundError):
        fresh.on_reply(refusal(fresh, ErrorCode.NOT_FOUND), 0.0)
    retried = core.call(MetricDelete("m"), 0, 0.0, 1.0)
    retried.on_lost("reset", 0.0, True)
    answer = retried.on_reply(refusal(retried, ErrorCode.NOT_FOUND), 0.5)
    assert answer is not None and isinstance(answer.response, Done)


def test_create_that_finds_the_metric_is_told_apart_only_after_a_lost_attempt() -> None:
    core, request = make_core(), MetricPut(MetricSchema("m", AggType.SUM), PutMode.CREATE)
    fresh = core.call(request, 0, 0.0, 1.0)
    with pytest.raises(AlreadyExistsError) as caught:
        fresh.on_reply(refusal(fresh, ErrorCode.ALREADY_EXISTS), 0.0)
    assert not isinstance(caught.value, CreatedInDoubtError)
    retried = core.call(request, 0, 0.0, 1.0)
    retried.on_lost("reset", 0.0, True)
    with pytest.raises(CreatedInDoubtError):
        retried.on_reply(refusal(retried, ErrorCode.ALREADY_EXISTS), 0.5)


# --- sessions ----------------------------------------------------------------


@pytest.mark.parametrize("code", [ErrorCode.SESSION_EXPIRED, ErrorCode.SEQUENCE_TOO_OLD])
def test_expired_session_on_a_first_attempt_is_replaced(code: ErrorCode) -> None:
    core = make_core()
    call = begin(core)
    assert call.on_reply(refusal(call, code), 0.0) is None
    assert sequence_of(call.payload) == (0, 2, 1)
    sent_at(call, 0.0)
    call.close()
    assert core.sessions.statistics() == {"sessions": 1, "unresolved": 0}


def test_expired_session_in_doubt_raises_unless_every_event_has_an_id() -> None:
    call = begin(make_core(), Event(1, "m", id="a"), Event(1, "m"))
    call.on_lost("reset", 0.0, True)
    with pytest.raises(SessionExpiredError, match="may or may not"):
        call.on_reply(refusal(call, ErrorCode.SESSION_EXPIRED), 1.0)
    call = begin(make_core(), Event(1, "m", id="a"), Event(1, "m", id="b"))
    call.on_lost("reset", 0.0, True)
    assert call.on_reply(refusal(call, ErrorCode.SESSION_EXPIRED), 1.0) is None


def test_server_that_forgets_every_session_at_once_does_not_loop() -> None:
    call = begin(make_core())
    with pytest.raises(SessionExpiredError):
        for _ in range(50):
            call.on_reply(refusal(call, ErrorCode.SESSION_EXPIRED), 0.0)


def test_calls_of_an_expired_session_each_find_their_own_way() -> None:
    core = make_core()
    calls = [begin(core) for _ in range(limits.SESSION_WINDOW)]
    for call in calls:
        assert call.on_reply(refusal(call, ErrorCode.SESSION_EXPIRED), 0.0) is None
    assert {sequence_of(call.payload) for call in calls} == {
        (0, 2, n) for n in range(1, limits.SESSION_WINDOW + 1)
    }
    for call in calls:
        call.close()
    core.sessions.check_invariants()


def test_no_call_begins_while_every_window_is_full() -> None:
    core = make_core(sessions_max=2)
    calls = [begin(core) for _ in range(2 * limits.SESSION_WINDOW)]
    assert core.sessions.maybe_take() is None
    calls[3].close()  # not the lowest: the window does not move
    assert core.sessions.maybe_take() is None
    calls[0].close()
    assert core.sessions.maybe_take() is not None


# --- planning, greeting, positions -------------------------------------------


def test_one_node_means_batches_in_order_of_the_events() -> None:
    core = make_core(events_max=3)
    batches = core.plan([Event(i, "m") for i in range(7)], range(100, 107), 5)
    assert [list(batch.indexes) for batch in batches] == [
        [100, 101, 102],
        [103, 104, 105],
        [106],
    ]
    assert {batch.timestamp_ns for batch in batches} == {5}


def routes(*leaders: str) -> PartitionMapReply:
    return PartitionMapReply(
        [PartitionRoute(leaders[i % len(leaders)]) for i in range(PARTITION_COUNT)]
    )


def greet(core: Core, response: Response, address: str = "a:1") -> None:
    kind = PacketType.HELLO if isinstance(response, HelloReply) else PacketType.GET_PARTITION_MAP
    core.on_greeting(kind, reply(kind, response), address)


def test_events_are_divided_by_the_node_that_leads_their_account() -> None:
    core = make_core()
    greet(core, routes("x:1", "y:1"))
    batches = core.plan([Event(i % 4, "m", i) for i in range(8)], range(8), 5)
    assert sorted(list(batch.indexes) for batch in batches) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    for batch in batches:
        call = begin_batch(core, batch)
        first = batch.events[0].account_id
        assert sent_at(call, 0.0).address == ("x:1" if int(first) % 2 == 0 else "y:1")


def test_map_of_a_single_node_keeps_the_address_that_answered() -> None:
    core = make_core(["a:1", "b:1"])
    greet(core, routes("internal.invalid:7001"), "b:1")
    assert core.router.choose(3, 0.0) == "b:1"


def test_limits_of_the_server_bound_the_batches() -> None:
    core = make_core()
    greet(core, HelloReply(2, 1, bytes(16), events_per_batch_max=10, session_window=4))
    batches = core.plan([Event(1, "m")] * 25, range(25), 1)
    assert [len(batch.events) for batch in batches] == [10, 10, 5]
    assert [begin(core) for _ in range(4)] and core.sessions.statistics()["sessions"] == 1
    begin(core)
    assert core.sessions.statistics()["sessions"] == 2


def test_largest_event_times_largest_batch_fits_a_frame() -> None:
    event = Event("a" * 64, "m" * 64, 1, None, id="i" * 64)
    event.properties = {f"{n:02}".ljust(32, "k"): "v" * 64 for n in range(16)}
    (batch,) = make_core().plan([event], [0], 10**18)
    call = begin_batch(make_core(), batch)
    from unimeter.client.core import EVENT_BYTES_WORST

    assert len(call.payload) - 40 <= EVENT_BYTES_WORST
    assert EVENT_BYTES_WORST * limits.EVENTS_PER_BATCH_MAX < limits.FRAME_BYTES_MAX


def test_old_server_is_named_as_such() -> None:
    core = make_core()
    with pytest.raises(ServerError, match="version 2"):
        greet(core, HelloReply(1, 1, bytes(16)))
    assert [type(request).__name__ for request in greeting("0")] == ["Hello", "PartitionMap"]


def test_read_asks_for_the_highest_position_seen_in_any_reply() -> None:
    core = make_core()
    write = core.call(MetricPut(MetricSchema("m", AggType.SUM)), 0, 0.0, 1.0)
    write.on_reply(reply(write.packet_type, Done(), 9), 0.0)
    request = UsageQuery(1, "m", 0, 1)
    read = core.call(request, 1, 0.0, 1.0)
    assert request.min_position == 9
    assert isinstance(
        read.on_reply(reply(read.packet_type, UsageReply(AggValue()), 4), 0.0), Answer
    )
    assert core.position == 9


def test_another_cluster_resets_what_belonged_to_the_first() -> None:
    core = make_core()
    greet(core, HelloReply(2, 1, b"A" * 16))
    core.see(77)
    call = begin(core)
    waiting = core.call(UsageQuery(1, "m", 0, 1), 1, 0.0, 9.0)
    waiting.on_lost("reset", 0.0, True)
    greet(core, HelloReply(2, 1, b"B" * 16))
    assert core.position == 0
    sent_at(waiting, 1.0)
    assert v2.decode_request(waiting.packet_type, waiting.payload).min_position == 0
    call.close()
    assert sequence_of(begin(core).payload)[1] == 2


# --- exactly once ------------------------------------------------------------


class DictionaryServer:
    """Counts a batch once per (session, sequence), as promised by the engine."""

    def __init__(self) -> None:
        self.counted: dict[tuple[int, int, int], int] = {}
        self.position = 0

    def handle(self, payload: bytes) -> Reply:
        key = sequence_of(payload)
        events = len(v2.decode_ingest(payload).rows)
        if key not in self.counted:
            self.position += 1
            self.counted[key] = events
        response = IngestReply(events, 0, self.position, 0, [(0, events)])
        return reply(PacketType.INGEST_SYNC, response, self.position)


def deliver(
    server: DictionaryServer, call: IngestCall, chance: random.Random, late: list[bytes]
) -> Iterator[float]:
    """Run one call over a network that loses, delays and repeats; yields the time of each step."""
    now = 0.0
    while True:
        step = call.step(now)
        now = step.until if isinstance(step, Pause) else now + 0.001
        yield now
        if isinstance(step, Pause):
            continue
        fate = chance.choice(["ok", "ok", "lost", "no reply", "late", "twice", "busy"])
        if fate == "lost":
            call.on_lost("refused", now, False)
        elif fate == "no reply":
            server.handle(call.payload)
            call.on_lost("reset", now, True)
        elif fate == "late":
            late.append(call.payload)
            call.on_lost("timeout", now, True)
        elif fate == "busy":
            call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "", 5), now)
        else:
            if fate == "twice":
                server.handle(call.payload)
            if call.on_reply(server.handle(call.payload), now) is not None:
                return


@given(st.integers(0, 2**32))
def test_every_acknowledged_batch_is_counted_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    core, server, late = make_core(sessions_max=2), DictionaryServer(), []
    acknowledged = unknown = 0
    for _ in range(30):
        size = chance.randint(1, 3)
        call = begin(core, *[Event(1, "m")] * size, deadline=chance.choice([0.05, 10.0]))
        try:
            for _ in deliver(server, call, chance, late):
                if late and chance.random() < 0.3:
                    server.handle(late.pop(chance.randrange(len(late))))
            acknowledged += size
        except (DeadlineExceededError, ConnectionError, BackpressureError) as error:
            if isinstance(error, DeadlineExceededError):
                unknown += size
        call.close()
        core.sessions.check_invariants()
    for payload in late:
        server.handle(payload)
    assert acknowledged <= sum(server.counted.values()) <= acknowledged + unknown


def test_batch_type_is_checked() -> None:
    with pytest.raises(AssertionError):
        ingest_reply(Answer(Done(), 1))
    assert Batch([], [], 0, 1) == Batch([], [], 0, 1)
    assert RedirectError("x:1").retryable
