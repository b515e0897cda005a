"""A core in a cluster of three: whom it asks, for how long, and what it then knows."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.test_core import begin, refusal, reply, sequence_of

from unimeter.client.core import Call, Core, Pause, Refresh, Reply, Send
from unimeter.client.retry import CONNECT_SECONDS, PATIENCE_SECONDS_MIN, SILENCE_SECONDS
from unimeter.errors import (
    BackpressureError,
    ConnectionError,
    DeadlineExceededError,
    NotFoundError,
    SessionExpiredError,
)
from unimeter.types import PARTITION_COUNT, AggValue, Event
from unimeter.wire import v2
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    HelloReply,
    IngestReply,
    MetricDelete,
    PacketType,
    PartitionMap,
    PartitionMapReply,
    PartitionRoute,
    TransferLeader,
    UsageQuery,
    UsageReply,
)

A, B, C = "a:1", "b:1", "c:1"
NODES = (A, B, C)


def the_map(leader: str, nodes: tuple[str, ...] = NODES) -> PartitionMapReply:
    return PartitionMapReply([PartitionRoute(leader, list(nodes)) for _ in range(PARTITION_COUNT)])


def make_core(leader: str = A, seeds: tuple[str, ...] = NODES, **options: bool) -> Core:
    identities = iter(range(1, 1000))
    core = Core(list(seeds), lambda: next(identities), lambda: 0.5, **options)
    learn(core, leader)
    return core


def map_reply(leader: str) -> Reply:
    return reply(PacketType.GET_PARTITION_MAP, the_map(leader))


def learn(core: Core, leader: str, told_by: str = A) -> None:
    core.on_greeting(PacketType.GET_PARTITION_MAP, map_reply(leader), told_by)


def after_pause(call: Call, now: float) -> tuple[Send, float]:
    """The next step that sends something, and when."""
    step = call.step(now)
    if isinstance(step, Pause):
        now = step.until
        step = call.step(now)
    assert isinstance(step, Send)
    return step, now


def stored(call: Call, position: int = 1) -> Reply:
    response = IngestReply(1, 0, position, 0, [(0, 1)])
    return reply(call.packet_type, response, position)


# --- after a lost leader ---------------------------------------------------------------------


def test_lost_leader_means_another_node_within_tens_of_milliseconds_by_way_of_its_map() -> None:
    core = make_core()
    call = begin(core)
    assert call.step(0.0).address == A  # type: ignore[union-attr]
    call.on_lost("reset", 0.0, True)
    step, now = after_pause(call, 0.0)
    assert isinstance(step, Refresh) and step.address == B
    assert now <= 0.02
    call.on_map(map_reply(C), now)
    step = call.step(now)
    assert type(step) is Send and step.address == C, "the new leader, at once"


def test_request_goes_to_the_other_node_even_if_no_leader_is_known_there() -> None:
    call = begin(make_core())
    call.step(0.0)
    call.on_lost("reset", 0.0, True)
    step, now = after_pause(call, 0.0)
    call.on_map(map_reply(""), now)
    step = call.step(now)
    assert type(step) is Send and step.address == B, "it holds the request until there is one"


def test_one_of_many_calls_that_fail_together_asks_for_the_map() -> None:
    core = make_core()
    calls = [begin(core) for _ in range(8)]
    for call in calls:
        call.step(0.0)
    for call in calls:
        call.on_lost("reset", 0.0, True)
    steps = [after_pause(call, 0.0)[0] for call in calls]
    assert sum(isinstance(step, Refresh) for step in steps) == 1
    assert {step.address for step in steps} == {B}


def test_later_calls_leave_the_lost_leader_alone_until_somebody_names_it_again() -> None:
    core = make_core()
    call = begin(core)
    call.step(0.0)
    call.on_lost("reset", 0.0, True)
    assert begin(core).step(0.1).address == B  # type: ignore[union-attr]
    core.on_push(*v2.encode_push(the_map(C), 0), B)
    assert begin(core).step(0.1).address == C  # type: ignore[union-attr]
    core.on_push(*v2.encode_push(the_map(A), 0), C)
    assert begin(core).step(0.1).address == A  # type: ignore[union-attr]


def test_map_that_does_not_come_is_a_failure_without_doubt() -> None:
    call = begin(make_core())
    call.step(0.0)
    call.on_lost("refused", 0.0, False)
    step, now = after_pause(call, 0.0)
    assert isinstance(step, Refresh)
    call.on_lost("refused", now, False)
    step, now = after_pause(call, now)
    assert step.address == C and not call.in_doubt


def test_refused_map_is_a_failure_without_doubt() -> None:
    call = begin(make_core())
    call.step(0.0)
    call.on_lost("refused", 0.0, False)
    step, now = after_pause(call, 0.0)
    refused = refusal(call, ErrorCode.SHUTTING_DOWN)
    call.on_map(refused, now)
    step, now = after_pause(call, now)
    assert step.address == C and not call.in_doubt


def test_resend_elsewhere_is_the_same_bytes_under_the_same_number() -> None:
    call = begin(make_core())
    first, now = call.payload, 0.0
    for leader in (B, C, "", A):
        step, now = after_pause(call, now)
        if isinstance(step, Refresh):
            call.on_map(map_reply(leader), now)
            step, now = after_pause(call, now)
        assert call.payload is first
        call.on_lost("reset", now, True)
    assert sequence_of(first) == (0, 1, 1)


# --- while there is no leader ------------------------------------------------------------------


@pytest.mark.parametrize("code", [ErrorCode.NOT_LEADER, ErrorCode.SHUTTING_DOWN])
def test_refusal_leaves_no_doubt_and_the_next_node_is_asked(code: ErrorCode) -> None:
    call = begin(make_core())
    assert call.step(0.0).address == A  # type: ignore[union-attr]
    assert call.on_reply(refusal(call, code), 0.0) is None
    step, _ = after_pause(call, 0.0)
    assert step.address == B and not call.in_doubt


def test_retry_after_of_a_node_without_a_leader_is_honoured() -> None:
    call = begin(make_core())
    call.step(0.0)
    call.on_reply(refusal(call, ErrorCode.NOT_LEADER, "", 150), 0.0)
    assert call.step(0.0) == Pause(0.15)


def test_pauses_stay_short_while_nobody_leads_and_every_node_gets_its_turn() -> None:
    call = begin(make_core(), deadline=10.0)
    now, asked, pauses = 0.0, [], []
    while now < 3.0:
        step = call.step(now)
        if isinstance(step, Pause):
            pauses.append(step.until - now)
            now = step.until
        elif isinstance(step, Refresh):
            call.on_map(map_reply(""), now)
        else:
            asked.append(step.address)
            call.on_reply(refusal(call, ErrorCode.NOT_LEADER), now)
    assert pauses[0] <= 0.02 and max(pauses) <= 0.2
    assert len(asked) > 15 and set(asked[:3]) == set(asked[-3:]) == set(NODES)
    assert not call.in_doubt


def test_without_a_leader_until_the_deadline_nothing_was_done_unless_an_attempt_was_lost() -> None:
    for was_lost in (False, True):
        call = begin(make_core(), deadline=1.0)
        call.step(0.0)
        if was_lost:
            call.on_lost("reset", 0.0, True)
        call.on_reply(refusal(call, ErrorCode.NOT_LEADER, "no leader is known"), 0.5)
        expected = DeadlineExceededError if was_lost else ConnectionError
        with pytest.raises(expected, match=r"no leader is known") as caught:
            call.step(1.0)
        assert ("may or may not" in str(caught.value)) == was_lost
        assert ("nothing was done" in str(caught.value)) != was_lost


def test_another_nodes_not_leader_does_not_end_an_earlier_doubt() -> None:
    call = begin(make_core())
    call.step(0.0)
    call.on_lost("reset", 0.0, True)
    call.on_reply(refusal(call, ErrorCode.NOT_LEADER), 0.1)
    with pytest.raises(SessionExpiredError, match="may or may not"):
        call.on_reply(refusal(call, ErrorCode.SESSION_EXPIRED), 0.2)


# --- what a forwarder can't say -----------------------------------------------------------------


def test_unknown_outcome_is_like_a_lost_connection() -> None:
    call = begin(make_core(), deadline=1.0)
    call.step(0.0)
    assert call.on_reply(refusal(call, ErrorCode.OUTCOME_UNKNOWN, "leader lost"), 0.0) is None
    assert call.in_doubt
    assert after_pause(call, 0.0)[0].address != A
    with pytest.raises(DeadlineExceededError, match=r"may or may not.*leader lost"):
        call.step(1.0)


def test_delete_that_was_forwarded_with_an_unknown_outcome_may_find_nothing() -> None:
    core = make_core()
    call = core.call(MetricDelete("m"), 0, 0.0, 1.0)
    call.step(0.0)
    call.on_reply(refusal(call, ErrorCode.OUTCOME_UNKNOWN), 0.0)
    answer = call.on_reply(refusal(call, ErrorCode.NOT_FOUND), 0.5)
    assert answer is not None and isinstance(answer.response, Done)
    fresh = core.call(MetricDelete("m"), 0, 0.0, 1.0)
    fresh.on_reply(refusal(fresh, ErrorCode.NOT_LEADER), 0.0)
    with pytest.raises(NotFoundError):
        fresh.on_reply(refusal(fresh, ErrorCode.NOT_FOUND), 0.5)


def test_leadership_is_handed_over_whoever_is_asked() -> None:
    call = make_core().call(TransferLeader(2), 0, 0.0, 1.0)
    call.step(0.0)
    assert call.on_reply(refusal(call, ErrorCode.NOT_LEADER), 0.0) is None
    after_pause(call, 0.0)
    answer = call.on_reply(reply(call.packet_type, Done(), 8), 0.1)
    assert answer is not None and answer.position == 8


# --- silence -----------------------------------------------------------------------------------


def test_silent_node_is_given_up_after_a_second_and_each_silence_doubles_the_patience() -> None:
    call = begin(make_core(), deadline=10.0)
    now, silences = 0.0, []
    for _ in range(3):
        step, now = after_pause(call, now)
        if isinstance(step, Refresh):
            call.on_map(map_reply(A), now)
            step, now = after_pause(call, now)
        silences.append(step.silence)
        now += step.silence
        call.on_lost("no reply in time", now, True)
    assert silences == [SILENCE_SECONDS, 2 * SILENCE_SECONDS, pytest.approx(10 / 3)]


def test_a_single_node_keeps_all_of_its_patience() -> None:
    core = Core([A], lambda: 1, lambda: 0.5)
    step = begin(core, deadline=9.0).step(0.0)
    assert isinstance(step, Send)
    assert (step.until, step.silence, step.connect) == (3.0, 3.0, 5.0)


def test_lost_at_once_is_no_silence() -> None:
    call = begin(make_core(), deadline=10.0)
    call.step(0.0)
    call.on_lost("reset", 0.3, True)
    assert call.silences == 0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_seeds_but_the_last_may_hang_and_connect_still_comes_in_time(count: int) -> None:
    seeds = tuple(f"s{n}:1" for n in range(count))
    core = Core(list(seeds), lambda: 1, lambda: 0.5)
    call = core.call(UsageQuery(1, "m", 0, 1), 0, 0.0, CONNECT_SECONDS)
    now, asked = 0.0, []
    while True:
        step, now = after_pause(call, now)
        asked.append(step.address)
        if step.address == seeds[-1]:
            break
        now += max(step.silence, step.connect)
        call.on_lost("can't connect", now, False)
    assert asked == list(seeds) and CONNECT_SECONDS - now >= PATIENCE_SECONDS_MIN


def test_caller_in_a_hurry_does_not_make_the_node_a_suspect() -> None:
    core = make_core()
    call = begin(core, deadline=0.1)
    step = call.step(0.0)
    assert isinstance(step, Send) and step.until == 0.1
    call.on_lost("no reply in time", 0.1, True)
    with pytest.raises(DeadlineExceededError):
        call.step(0.1)
    assert begin(core).step(0.1).address == A  # type: ignore[union-attr]


# --- reads -------------------------------------------------------------------------------------


def read(core: Core, account: int = 1, deadline: float = 10.0) -> Call:
    return core.call(UsageQuery(account, "m", 0, 1), account, 0.0, deadline)


def test_reads_go_to_the_leader_or_spread_by_account_and_writes_never_spread() -> None:
    for from_any, expected in ((False, {A}), (True, set(NODES))):
        core = make_core(read_from_any=from_any)
        addresses = {read(core, account).step(0.0).address for account in range(6)}  # type: ignore[union-attr]
        assert addresses == expected
        assert {begin(core, Event(n, "m")).step(0.0).address for n in range(6)} == {A}  # type: ignore[union-attr]


def test_read_of_a_replica_asks_for_the_position_of_the_own_write() -> None:
    core = make_core(read_from_any=True)
    write = begin(core)
    write.step(0.0)
    write.on_reply(stored(write, 41), 0.0)
    for account in range(3):
        request = v2.decode_request(PacketType.USAGE_QUERY, read(core, account).payload)
        assert request.min_position == 41  # type: ignore[union-attr]


def test_read_that_a_replica_is_too_far_behind_for_goes_to_another() -> None:
    core = make_core()
    call = read(core)
    assert call.step(0.0).address == A  # type: ignore[union-attr]
    assert call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "behind", 20), 0.0) is None
    step, now = after_pause(call, 0.0)
    assert step.address == B and now == pytest.approx(0.02)
    assert call.on_reply(reply(call.packet_type, UsageReply(AggValue(sum=7)), 5), now) is not None


def test_batch_that_is_told_to_wait_waits_at_the_same_node() -> None:
    core = make_core()
    call = begin(core, deadline=1.0)
    call.step(0.0)
    call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "disk", 300), 0.0)
    step, now = after_pause(call, 0.0)
    assert (step.address, now) == (A, 0.3)
    call.on_reply(refusal(call, ErrorCode.BACKPRESSURE, "disk", 300), 0.3)
    with pytest.raises(BackpressureError, match="nothing was stored"):
        call.step(1.0)


# --- who is who ----------------------------------------------------------------------------------


def test_node_without_data_does_not_make_us_forget_position_and_sessions() -> None:
    core = make_core()
    core.on_greeting(PacketType.HELLO, reply(PacketType.HELLO, HelloReply(2, 1, b"K" * 16)), A)
    core.see(77)
    core.on_greeting(PacketType.HELLO, reply(PacketType.HELLO, HelloReply(2, 2, bytes(16))), B)
    assert (core.position, core.cluster_id) == (77, b"K" * 16)


def test_wrong_map_costs_its_addresses_a_try_each_and_then_the_seeds_answer() -> None:
    core = Core([A, B], lambda: 1, lambda: 0.5)
    core.on_greeting(
        PacketType.GET_PARTITION_MAP,
        reply(PacketType.GET_PARTITION_MAP, the_map("x:1", ("x:1", "y:1"))),
        A,
    )
    call, now, asked = begin(core), 0.0, []
    while not asked or asked[-1] != A:
        step, now = after_pause(call, now)
        asked.append(step.address)
        if step.address != A:
            call.on_lost("unknown host", now, False)
    assert asked == ["x:1", "y:1", A] and now < 0.1
    assert begin(core).step(now).address == A  # type: ignore[union-attr]


def test_push_of_another_kind_is_left_alone_and_a_map_without_a_leader_is_reported() -> None:
    core = make_core()
    assert core.on_push(PacketType.ALERT_PUSH, b"?", A)
    assert core.on_push(*v2.encode_push(the_map(B), 1), A)
    assert not core.on_push(*v2.encode_push(the_map(""), 1), A)
    assert core.router.choose(0, 0.0) == B


def test_map_that_a_caller_asked_for_is_learned() -> None:
    core = make_core()
    call = core.call(PartitionMap(), 0, 0.0, 1.0)
    call.step(0.0)
    assert call.on_reply(map_reply(C), 0.0) is not None
    assert core.router.choose(0, 0.0) == C


def test_pong_tells_whether_the_node_knows_a_leader() -> None:
    core = make_core()
    assert core.on_pong(map_reply(C), B) and core.router.choose(0, 0.0) == C
    assert not core.on_pong(map_reply(""), B)
    call = begin(core)
    assert core.on_pong(refusal(call, ErrorCode.SHUTTING_DOWN), B), "it lives"


def test_stream_connects_to_the_leader_and_then_elsewhere() -> None:
    core = make_core()
    step = core.stream_attempt(0.0, 100.0, "")
    assert (step.address, step.silence, step.until) == (A, SILENCE_SECONDS, pytest.approx(10 / 3))
    core.router.failed(A, 0.0)
    assert core.stream_attempt(0.0, 100.0, A).address == B
    assert core.stream_attempt(0.0, 0.5, A).until == 0.5


# --- exactly once, over a cluster that loses leaders ------------------------------------------


class FakeCluster:
    """Three nodes, one log: counts a batch once per (session, sequence).

    A leader dies with what it was sent, before or after it was counted. An entry may be
    overwritten (NOT_LEADER, nothing done). A follower forwards, holds or refuses.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.counted: dict[tuple[int, int, int], int] = {}
        self.dead: set[str] = set()
        self.leader = A
        self.leader_from = 0.0  # before that an election is under way
        self.in_flight: list[bytes] = []  # arrives late, whatever the client did since

    def tick(self, now: float) -> None:
        if self.chance.random() < 0.05 and now >= self.leader_from:
            self.dead = {self.leader}
            alive = [node for node in NODES if node not in self.dead]
            self.leader = self.chance.choice(alive)
            self.leader_from = now + self.chance.uniform(0.3, 1.2)
        if self.in_flight and self.chance.random() < 0.2:
            self.count(self.in_flight.pop(self.chance.randrange(len(self.in_flight))))

    def count(self, payload: bytes) -> int:
        events = len(v2.decode_ingest(payload).rows)
        return self.counted.setdefault(sequence_of(payload), events)

    def carry_out(self, call: Call, step: Send, now: float) -> tuple[bool, float]:
        """One attempt of the call; whether it was answered, and when."""
        if step.address in self.dead:
            if self.chance.random() < 0.3:  # it died just now, with our request
                self.maybe_count(call.payload)
                call.on_lost("reset", now, not isinstance(step, Refresh))
            elif self.chance.random() < 0.3:  # it is stopped: all is silence
                now += step.silence
                self.in_flight.append(call.payload)
                call.on_lost("silent", now, not isinstance(step, Refresh))
            else:
                call.on_lost("refused", now, False)
            return False, now
        knows = now >= self.leader_from
        if isinstance(step, Refresh):
            call.on_map(map_reply(self.leader if knows else ""), now)
            return False, now
        fate = self.chance.random()
        if not knows and fate < 0.7:
            now += self.chance.uniform(0.0, 0.8)
            call.on_reply(refusal(call, ErrorCode.NOT_LEADER, "no leader", 50), now)
        elif not knows or fate < 0.1:
            self.maybe_count(call.payload)
            call.on_reply(refusal(call, ErrorCode.OUTCOME_UNKNOWN, "leader lost"), now)
        elif fate < 0.2:
            self.maybe_count(call.payload)
            call.on_lost("reset", now, True)
        elif fate < 0.3:
            call.on_reply(refusal(call, ErrorCode.NOT_LEADER, "overwritten", 0), now)
        else:
            self.count(call.payload)
            assert call.on_reply(stored(call), now) is not None
            return True, now
        return False, now

    def maybe_count(self, payload: bytes) -> None:
        self.chance.choice([self.count, self.in_flight.append, lambda _: None])(payload)


def run(cluster: FakeCluster, call: Call, now: float, on_tick: Callable[[float], None]) -> float:
    """Carry a call out; the time of its answer. Raises what the call raises."""
    while True:
        cluster.tick(now)
        on_tick(now)
        step = call.step(now)
        if isinstance(step, Pause):
            now = step.until
            continue
        answered, now = cluster.carry_out(call, step, now + 0.001)
        if answered:
            return now


@given(st.integers(0, 2**32))
def test_failovers_count_every_batch_once_and_fail_no_call(seed: int) -> None:
    chance = random.Random(seed)
    cluster, core = FakeCluster(chance), make_core()
    now, acknowledged = 0.0, 0
    for _ in range(25):
        size = chance.randint(1, 3)
        call = begin(core, *[Event(1, "m")] * size)
        call.started = now
        call.deadline, call.not_before = now + 30.0, now
        now = run(cluster, call, now, lambda _: None)
        acknowledged += size
        call.close()
        core.sessions.check_invariants()
    for payload in cluster.in_flight:
        cluster.count(payload)
    assert sum(cluster.counted.values()) == acknowledged
