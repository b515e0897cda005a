"""Which alert of a webhook is sent next: one lane for each account, and nothing else.

Owns the order and the patience of one webhook, as a machine without clock, socket or log:

    offer ─> open ─> lane of its account ─head─> ready ─take─> in flight ─┬─ delivered
                                                   ▲                     │
                                                   └── waiting, till due <─ failed

- The next alert of an account is begun only when the one before is delivered. Other accounts
  go on meanwhile, at most `inflight_max` requests at a time.
- While nothing but failures come, the receiver is asked with one request at a time.
- What a receiver says of when to come again (`hold`) holds for the whole webhook.
- `through` is the position up to which everything is delivered or was not wanted; `done` are
  those delivered above it. Both, and the attempts of those that failed, are the `state` that
  goes into the log, and a machine made from any such state goes on from it: nothing is
  lost, and what is sent twice is what was delivered and not yet in the log.

Everything is bounded: alerts in line, done ahead, being tried again. At a bound no new alert
is begun until the oldest ones are done; the log keeps the rest.

Refuses to know URLs, alerts and answers; `webhook_sender` does. Times are seconds of any clock
that only goes forwards, given by the caller; what is stored is wall time, so that the patience
survives the node that had it.

Rejected: one queue for the webhook. A receiver that chokes on one account's alert would
hold up all the others for days.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unimeter import limits
from unimeter.types import Account

NS = 10**9
JITTER = 0.2  # of a wait, to either side: receivers that failed together come back apart


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at a time, and how patiently."""

    retry_seconds: tuple[float, ...] = limits.WEBHOOK_RETRY_SECONDS
    inflight_max: int = limits.WEBHOOK_INFLIGHT_MAX
    open_max: int = limits.WEBHOOK_OPEN_MAX
    done_max: int = limits.DELIVERY_DONE_MAX
    attempts_max: int = limits.DELIVERY_ATTEMPTS_MAX
    answer_seconds: float = limits.WEBHOOK_ANSWER_SECONDS
    retry_after_seconds_max: float = limits.WEBHOOK_RETRY_AFTER_SECONDS_MAX
    record_seconds: float = limits.WEBHOOK_RECORD_SECONDS


@dataclass(frozen=True, slots=True)
class State:
    """What has to survive: as `control.Delivery` has it."""

    through: int
    done: tuple[int, ...]
    attempts: dict[int, tuple[int, int]]  # position -> (failures, when next in ns)


class Lanes:
    """The alerts of one webhook that are not done yet."""

    def __init__(self, pace: Pace, chance: Callable[[], float]) -> None:
        """Begin at the first alert. `chance` gives numbers in ``[0, 1)`` for the jitter."""
        self._pace, self._chance = pace, chance
        self.through = 0
        self.read = 0  # positions up to here were offered
        self.failures = 0  # in a row, of all accounts together
        self.changes = 0  # +1 with each change of the state that is worth recording
        self._done: dict[int, None] = {}  # delivered, above `through`
        self._attempts: dict[int, tuple[int, int]] = {}
        self._open: dict[int, Account] = {}  # offered, wanted and not delivered
        self._lowest: list[int] = []  # a heap of what was opened; some may be done
        self._lanes: dict[Account, deque[int]] = {}
        self._ready: deque[int] = deque()  # heads that failed before, and are due
        self._fresh: list[int] = []  # a heap of heads that were not tried yet
        self._waiting: list[tuple[float, int]] = []  # a heap of (due, head)
        self._inflight: dict[int, None] = {}
        self._held_until = 0.0
        self._due: dict[int, float] = {}  # of positions that the log remembers, till offered

    @classmethod
    def resume(
        cls,
        pace: Pace,
        chance: Callable[[], float],
        through: int,
        done: Iterable[int],
        attempts: Mapping[int, tuple[int, int]],
        now: float,
        now_ns: int,
    ) -> Lanes:
        """Go on from a recorded state; `now_ns` is the wall clock at `now`."""
        lanes = cls(pace, chance)
        lanes.through = lanes.read = through
        lanes._done = {position: None for position in sorted(done) if position > through}
        for position, (failures, next_ns) in attempts.items():
            if position > through and position not in lanes._done:
                lanes._attempts[position] = (failures, next_ns)
                # Another node's clock may be wrong by years, a wait is never longer than this.
                longest = lanes._wait_after(failures) * (1 + JITTER)
                lanes._due[position] = now + min(max(0.0, (next_ns - now_ns) / NS), longest)
        return lanes

    # --- in ------------------------------------------------------------------------

    @property
    def wanted(self) -> int:
        """The position to offer next; 0 while enough are in line."""
        is_full = len(self._open) >= self._pace.open_max
        return 0 if is_full else self.read + 1

    def offer(self, position: int, account: Account | None) -> None:
        """Tell whose alert the wanted position is; None: it is not for this webhook."""
        assert position == self.read + 1, f"position {position} after {self.read}"
        self.read = position
        if account is None or position in self._done:
            self._advance()
            return
        self._open[position] = account
        heapq.heappush(self._lowest, position)
        lane = self._lanes.setdefault(account, deque())
        lane.append(position)
        if len(lane) == 1:
            self._line_up(position)

    def _line_up(self, position: int) -> None:
        """A position that became the head of its lane: to be sent, or waited for."""
        due = self._due.pop(position, None)
        if due is not None:
            heapq.heappush(self._waiting, (due, position))
        else:
            heapq.heappush(self._fresh, position)

    # --- out -----------------------------------------------------------------------

    def take(self, now: float) -> int:
        """The next position to send, which is in flight from now on; 0 = none now."""
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heapq.heappop(self._waiting)[1])
        if now < self._held_until or len(self._inflight) >= self.inflight_max:
            return 0
        if self._ready:
            position = self._ready.popleft()
        elif self._may_begin:
            position = heapq.heappop(self._fresh)
        else:
            return 0
        assert self._lanes[self._open[position]][0] == position, "not the head of its lane"
        self._inflight[position] = None
        return position

    @property
    def inflight_max(self) -> int:
        """How many requests may be in flight: one, while all there is are failures."""
        most = self._pace.inflight_max
        return 1 if self.failures >= most else most

    @property
    def _may_begin(self) -> bool:
        """Whether there is a fresh head, and room in the state for what may become of it.

        One that failed keeps its room, so it can always be tried again. The lowest of all needs
        none: once it is done, `through` moves over it. Heads begin in the order of their
        positions, so it finds room anyway, but not in a state of a node with larger limits.
        """
        if not self._fresh:
            return False
        begun = len(self._attempts) + sum(one not in self._attempts for one in self._inflight)
        has_room = len(self._done) + begun < self._pace.done_max
        return begun < self._pace.attempts_max and (has_room or self._fresh[0] == self._lowest_open)

    @property
    def _lowest_open(self) -> int:
        lowest = self._lowest
        while lowest and lowest[0] not in self._open:
            heapq.heappop(lowest)
        return lowest[0] if lowest else 0

    def due(self, now: float) -> float | None:
        """When `take` may have something, if nothing else happens; None: not by itself."""
        if len(self._inflight) >= self.inflight_max:
            return None
        if self._ready or self._may_begin:
            return max(now, self._held_until)
        return max(self._waiting[0][0], self._held_until) if self._waiting else None

    # --- what became of it ---------------------------------------------------------

    def delivered(self, position: int) -> None:
        """The receiver has it."""
        account = self._back(position)
        self.failures = 0
        self._attempts.pop(position, None)
        self._done[position] = None
        self.changes += 1
        del self._open[position]
        lane = self._lanes[account]
        lane.popleft()
        if lane:
            self._line_up(lane[0])
        else:
            del self._lanes[account]
        self._advance()

    def failed(self, position: int, now: float, now_ns: int, retry_after: float = 0.0) -> bool:
        """The receiver does not have it, for all we know. False: that was the last attempt.

        After the last attempt it is still in line, and tried again if anybody goes on asking.
        """
        self._back(position)
        self.failures += 1
        failures = self._attempts.get(position, (0, 0))[0] + 1
        wait = self._wait_after(failures) * (1 - JITTER + 2 * JITTER * self._chance())
        wait = max(wait, min(retry_after, self._pace.retry_after_seconds_max))
        self._attempts[position] = (failures, now_ns + int(wait * NS))
        self.changes += 1
        heapq.heappush(self._waiting, (now + wait, position))
        return failures <= len(self._pace.retry_seconds)

    def hold(self, now: float, seconds: float) -> None:
        """Send nothing for so long (within bounds): the receiver asked for it."""
        seconds = min(seconds, self._pace.retry_after_seconds_max)
        self._held_until = max(self._held_until, now + seconds)

    def try_all(self) -> None:
        """Forget the failures: everything that waits is tried now."""
        if self._attempts:
            self.changes += 1
        self.failures, self._held_until = 0, 0.0
        self._attempts.clear()
        self._due.clear()
        for position in [*self._ready, *(waiting for _, waiting in self._waiting)]:
            heapq.heappush(self._fresh, position)
        self._ready.clear()
        self._waiting.clear()

    def _back(self, position: int) -> Account:
        assert position in self._inflight, f"position {position} is not in flight"
        del self._inflight[position]
        return self._open[position]

    def _wait_after(self, failures: int) -> float:
        waits = self._pace.retry_seconds
        return waits[min(max(failures, 1), len(waits)) - 1]

    def _advance(self) -> None:
        """Move `through` up to the lowest position that is still open."""
        lowest = self._lowest_open
        through = lowest - 1 if lowest else self.read
        if through > self.through:
            self.through = through
            if self._done:
                self._done = {one: None for one in self._done if one > through}

    # --- looking -------------------------------------------------------------------

    @property
    def inflight(self) -> int:
        """Requests under way."""
        return len(self._inflight)

    def failures_of(self, position: int) -> int:
        """How often this one has failed."""
        return self._attempts.get(position, (0, 0))[0]

    def state(self) -> State:
        """What has to survive."""
        return State(self.through, tuple(sorted(self._done)), dict(self._attempts))

    def statistics(self) -> dict[str, int]:
        """Sizes, for tests and the page of deliveries."""
        return {
            "open": len(self._open),
            "lanes": len(self._lanes),
            "inflight": len(self._inflight),
            "retrying": len(self._attempts),
            "done_ahead": len(self._done),
        }

    def check_invariants(self) -> None:
        """Slow; for tests."""
        heads = [lane[0] for lane in self._lanes.values()]
        placed = [*self._ready, *self._fresh, *self._inflight, *(one for _, one in self._waiting)]
        assert sorted(heads) == sorted(placed), "each head of a lane is in one place"
        assert sorted(self._open) == sorted(p for lane in self._lanes.values() for p in lane)
        assert all(list(lane) == sorted(lane) for lane in self._lanes.values())
        assert self.through <= self.read and all(one > self.through for one in self._open)
        assert all(self.through < one for one in self._done)
        assert not set(self._done) & set(self._open), "what is done is not open"
        assert len(self._open) <= self._pace.open_max
        assert len(self._done) <= self._pace.done_max
        assert len(self._attempts) <= self._pace.attempts_max
