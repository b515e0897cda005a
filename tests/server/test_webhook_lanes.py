"""The order and the patience of one webhook, without a clock or a socket.

`World` is a receiver and a log beside the machine: whatever is taken is delivered or fails as
hypothesis says, the state is recorded now and then, and the node is lost and goes on
from what was recorded. The promises are checked against what the receiver got.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unimeter.server.webhook_lanes import JITTER, NS, Lanes, Pace

TINY = Pace(
    retry_seconds=(1.0, 5.0, 20.0),
    inflight_max=3,
    open_max=12,
    done_max=6,
    attempts_max=4,
    retry_after_seconds_max=50.0,
)


def even() -> float:
    """No jitter: the middle of the range."""
    return 0.5


def lanes_of(accounts: list[Any], pace: Pace = TINY) -> Lanes:
    """A machine that was offered an alert of each; None is one that is not for it."""
    lanes = Lanes(pace, even)
    for position, account in enumerate(accounts, 1):
        assert lanes.wanted == position
        lanes.offer(position, account)
    return lanes


def take_all(lanes: Lanes, now: float = 0.0) -> list[int]:
    taken = []
    while position := lanes.take(now):
        taken.append(position)
    return taken


def test_the_next_alert_of_an_account_waits_for_the_one_before() -> None:
    lanes = lanes_of(["a", "a", "b"])
    assert take_all(lanes) == [1, 3]
    lanes.delivered(3)
    assert take_all(lanes) == []
    lanes.delivered(1)
    assert take_all(lanes) == [2]


def test_an_integer_and_a_string_account_have_lanes_of_their_own() -> None:
    assert take_all(lanes_of([42, "42"])) == [1, 2]


def test_no_more_than_the_bound_are_in_flight() -> None:
    lanes = lanes_of(["a", "b", "c", "d"])
    assert take_all(lanes) == [1, 2, 3]
    assert lanes.due(0.0) is None
    lanes.delivered(2)
    assert take_all(lanes) == [4]


def test_through_stops_at_the_lowest_that_is_not_done() -> None:
    lanes = lanes_of(["a", None, "b", "c"])
    assert take_all(lanes) == [1, 3, 4]
    lanes.delivered(3)
    assert (lanes.through, lanes.state().done) == (0, (3,))
    lanes.delivered(1)
    assert (lanes.through, lanes.state().done) == (3, ())
    lanes.delivered(4)
    assert lanes.through == 4


def test_what_is_not_wanted_is_passed_over_without_a_word() -> None:
    lanes = lanes_of([None, None, None])
    assert (lanes.through, lanes.changes, lanes.due(0.0)) == (3, 0, None)


def test_a_failure_is_tried_again_after_longer_and_longer_waits() -> None:
    lanes = lanes_of(["a"])
    now = 100.0
    for failures, wait in enumerate(TINY.retry_seconds, 1):
        assert lanes.take(now) == 1
        assert lanes.failed(1, now, int(now * NS))
        assert lanes.failures_of(1) == failures
        assert lanes.due(now) == now + wait
        assert lanes.take(now + wait - 0.01) == 0
        now += wait
    assert lanes.take(now) == 1
    assert not lanes.failed(1, now, int(now * NS)), "that was the last attempt"
    assert lanes.state().attempts == {1: (4, int((now + 20.0) * NS))}


@given(st.floats(0, 1, exclude_max=True))
def test_the_jitter_stays_within_its_bounds(chance: float) -> None:
    lanes = Lanes(TINY, lambda: chance)
    lanes.offer(1, "a")
    lanes.take(0.0)
    lanes.failed(1, 0.0, 0)
    due = lanes.due(0.0)
    assert due is not None and 1.0 - JITTER <= due <= 1.0 + JITTER


def test_what_a_receiver_asks_for_is_respected_within_bounds() -> None:
    lanes = lanes_of(["a", "b"])
    assert lanes.take(0.0) == 1
    lanes.failed(1, 0.0, 0, retry_after=1000.0)
    lanes.hold(0.0, 1000.0)
    assert lanes.due(0.0) == 50.0 and lanes.take(49.9) == 0
    assert take_all(lanes, 50.0) == [1, 2]


def test_while_nothing_but_failures_come_one_request_at_a_time_is_made() -> None:
    lanes = lanes_of(["a", "b", "c", "d"])
    for position in take_all(lanes):
        lanes.failed(position, 0.0, 0)
    assert take_all(lanes, 60.0) == [1], "three failures in a row"
    lanes.delivered(1)
    assert take_all(lanes, 60.0) == [2, 3, 4]


def test_no_more_are_begun_than_the_state_has_room_for() -> None:
    lanes = lanes_of(["slow", *range(11)])
    assert take_all(lanes) == [1, 2, 3]
    assert lanes.wanted == 0, "twelve are open"
    for position in (2, 3, 4, 5, 6):
        lanes.delivered(position)
        take_all(lanes)
    assert lanes.state().done == (2, 3, 4, 5, 6)
    assert lanes.inflight == 1 and take_all(lanes) == []
    lanes.delivered(1)
    assert take_all(lanes) == [7, 8, 9]


def test_no_more_are_begun_than_may_be_tried_again() -> None:
    lanes = lanes_of([1, 2, 3, 4, 5, 6])
    for position in (1, 2, 3, 4):
        assert lanes.take(0.0) == position
        lanes.failed(position, 0.0, 0)
    assert lanes.take(0.0) == 0, "four are being tried again"
    assert lanes.take(60.0) == 1
    lanes.delivered(1)
    assert take_all(lanes, 60.0) == [2, 3, 4]


def test_the_lowest_goes_on_where_a_state_has_no_room_left() -> None:
    lanes = Lanes.resume(TINY, even, 0, range(2, 12), {}, now=0.0, now_ns=0)
    for position in range(1, 13):
        lanes.offer(position, "a")
    assert take_all(lanes) == [1]
    lanes.delivered(1)
    assert lanes.through == 11 and take_all(lanes) == [12]


def test_a_machine_goes_on_with_the_patience_of_the_one_before() -> None:
    state = (7, (9, 12), {8: (2, 1_000 * NS + 3 * NS)})
    lanes = Lanes.resume(TINY, even, *state, now=50.0, now_ns=1_000 * NS)
    assert lanes.wanted == 8
    for position, account in enumerate("abaxy", 8):
        lanes.offer(position, account)
    assert lanes.due(50.0) == 50.0 and take_all(lanes, 50.0) == [11], "10 waits for 8"
    assert lanes.due(50.0) == 53.0 and lanes.take(53.0) == 8
    assert lanes.failures_of(8) == 2
    lanes.failed(8, 53.0, 0)
    assert lanes.due(53.0) == 53.0 + 20.0


def test_a_recorded_time_of_a_wrong_clock_is_no_longer_wait_than_the_schedule_has() -> None:
    state = (0, (), {1: (1, 10**6 * NS)})
    lanes = Lanes.resume(TINY, even, *state, now=0.0, now_ns=0)
    lanes.offer(1, "a")
    assert lanes.due(0.0) == 1.0 + JITTER


def test_forgetting_the_failures_tries_everything_now() -> None:
    lanes = lanes_of(["a", "b", "c", "d"])
    for position in take_all(lanes):
        lanes.failed(position, 0.0, 0)
    lanes.hold(0.0, 40.0)
    lanes.try_all()
    lanes.check_invariants()
    assert lanes.state().attempts == {}
    assert take_all(lanes) == [1, 2, 3]


# --- any history -------------------------------------------------------------------


@dataclass
class World:
    """A log of alerts, a receiver, and a node that is lost now and then."""

    accounts: list[int | None]
    lanes: Lanes = field(default_factory=lambda: Lanes(TINY, even))
    recorded: Any = None
    now: float = 1_000.0
    received: list[int] = field(default_factory=list)
    delivered_by_node: set[int] = field(default_factory=set)
    inflight: list[int] = field(default_factory=list)
    exhausted: int = 0

    @property
    def now_ns(self) -> int:
        return int(self.now * NS)

    def read(self) -> None:
        while (position := self.lanes.wanted) and position <= len(self.accounts):
            self.lanes.offer(position, self.accounts[position - 1])

    def take(self) -> None:
        if position := self.lanes.take(self.now):
            account = self.accounts[position - 1]
            assert account is not None, "not for this webhook"
            assert all(self.accounts[other - 1] != account for other in self.inflight)
            assert self.earlier_of(position) <= set(self.received), "an earlier one comes first"
            self.inflight.append(position)
            assert len(self.inflight) <= TINY.inflight_max

    def earlier_of(self, position: int) -> set[int]:
        account = self.accounts[position - 1]
        return {one for one in range(1, position) if self.accounts[one - 1] == account}

    def answer(self, which: int, *, good: bool) -> None:
        if not self.inflight:
            return
        position = self.inflight.pop(which % len(self.inflight))
        if good:
            self.got(position)
            self.delivered_by_node.add(position)
            self.lanes.delivered(position)
        elif not self.lanes.failed(position, self.now, self.now_ns, which * 10.0):
            self.exhausted += 1
            self.lanes.try_all()  # as after a pause and a resume

    def got(self, position: int) -> None:
        assert position not in self.delivered_by_node, "one node repeats nothing"
        if self.recorded:
            is_recorded = position <= self.recorded.through or position in self.recorded.done
            assert not is_recorded, "what was recorded is never sent again"
        self.received.append(position)

    def record(self) -> None:
        self.recorded = self.lanes.state()

    def lose_node(self, arrived: int) -> None:
        """The next node goes on; some of what was in flight arrived after all."""
        for position in self.inflight[:arrived]:
            self.got(position)
        self.inflight.clear()
        self.delivered_by_node.clear()
        before = self.recorded
        through, done, attempts = (
            (before.through, before.done, before.attempts) if before else (0, (), {})
        )
        self.now += 5.0
        self.lanes = Lanes.resume(
            TINY, even, through, done, attempts, now=self.now, now_ns=self.now_ns
        )
        for position, (failures, _) in attempts.items():
            assert self.lanes.failures_of(position) == failures, "the patience survives"

    def run_out(self) -> None:
        """From now on the receiver takes everything: it gets everything, without idling."""
        for _ in range(20 * len(self.accounts) + 100):
            self.read()
            self.take()
            if self.inflight:
                self.answer(0, good=True)
            elif self.lanes.through == len(self.accounts):
                return
            else:
                due = self.lanes.due(self.now)
                assert due is not None, "something is left and nothing will happen"
                self.now = max(self.now, due)
        raise AssertionError("it goes on for ever")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("good"), st.integers(0, 5)),
        st.tuples(st.just("bad"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.5, 6.0, 30.0])),
        st.tuples(st.just("record"), st.none()),
        st.tuples(st.just("lose"), st.integers(0, 3)),
    ),
    max_size=120,
)


def run(accounts: list[int | None], history: list[tuple[str, Any]]) -> World:
    world = World(accounts)
    for what, how in history:
        world.read()
        if what == "take":
            for _ in range(how):
                world.take()
        elif what in ("good", "bad"):
            world.answer(how, good=what == "good")
        elif what == "wait":
            world.now += how
        elif what == "record":
            world.record()
        else:
            world.lose_node(how)
        world.lanes.check_invariants()
    world.run_out()
    return world


@settings(max_examples=600)
@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=40), steps)
def test_every_alert_arrives_in_order_per_account_whatever_happens(
    accounts: list[int | None], history: list[tuple[str, Any]]
) -> None:
    world = run(accounts, history)
    wanted = [at for at, account in enumerate(accounts, 1) if account is not None]
    assert sorted(set(world.received)) == wanted, "each, and none invented"
    for account in range(5):
        firsts = [
            position
            for position in dict.fromkeys(world.received)
            if accounts[position - 1] == account
        ]
        assert firsts == sorted(firsts), f"account {account} out of order"


@settings(max_examples=300)
@given(st.lists(st.integers(0, 12), min_size=20, max_size=60), steps)
def test_many_accounts_never_outgrow_the_state(
    accounts: list[int | None], history: list[tuple[str, Any]]
) -> None:
    world = run(accounts, history)
    assert world.lanes.state().attempts == {}
    assert world.lanes.state().done == ()
    assert world.lanes.statistics() == dict.fromkeys(world.lanes.statistics(), 0)


def test_histories_reach_what_they_are_for() -> None:
    """Failures in a row, exhausted attempts, a full state, and repeats after a loss."""
    bad = [("take", 3), *[("bad", 0)] * 3, ("wait", 30.0)]
    world = run([1, 2, 3, 4, 5, 6, 1, 2], [*bad * 12, ("take", 1), ("good", 0), ("lose", 0)])
    assert world.exhausted > 0
    assert len(world.received) > len(set(world.received)), "what was not recorded comes again"
