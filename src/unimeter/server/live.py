"""Who watches what, and what changed: alerts and totals for everyone who keeps a stream open.

Owns the topics. A topic is one interest (these accounts, these metrics) and what is new in it;
everyone with the same interest shares it, so a change costs a step for each topic and nothing
for each reader. What is new is kept coalesced: a pair (account, metric) stands in a topic once,
with the tick of its last change, however often it changed.

    entry applied ─> Touched (engine): rows of series that changed
                        │ drain, a few dozen times a second
                        ▼
        topic  {pair: tick of its last change}   the newest alerts
                        │ each watcher at its own pace, from its own cursor
                        ▼
        watcher ─> alerts above `after`, pairs changed after `seen` ─> their totals now

A reader that is slow costs its cursor. Alerts wait in the engine, where they are for good;
changed pairs wait as one line each in the topic, which has room for TOPIC_PAIRS_MAX: what is
pushed out is told as an overflow, "read again".

Pairs that were named are followed by the row of their series, those without events yet are
looked for among new series. A topic without accounts follows all series of its metrics, up to
WATCHED_ANY_MAX between two drains. A total is read when it is sent, so it is never older than
the change that it is sent for; all who want it in one tick share the reading.

Refuses to know sockets, clocks and formats (`pumps`, `web.stream`, `watch_push`).

Rejected: a queue for each reader. A thousand readers of one busy account would cost a thousand
steps for each entry, and each queue needs a bound of its own.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from unimeter.engine import entries, query
from unimeter.engine.cells import account_of, series_of
from unimeter.engine.touched import Touched
from unimeter.errors import NotFoundError
from unimeter.limits import TOPIC_ALERTS_MAX, TOPIC_PAIRS_MAX, WATCHED_ANY_MAX
from unimeter.server.handlers import alert_rows
from unimeter.types import Account, AggType, AggValue
from unimeter.wire.messages import AlertRow

if TYPE_CHECKING:
    from unimeter.server.node import Node
    from unimeter.server.watcher import Watcher

Pair = tuple[Account, str]

ALERTS_PER_DRAIN = 1024  # read and sorted into topics at once; 3 ms
READINGS_MAX = 16_384  # totals kept for others who want them in the same tick


class Interest(NamedTuple):
    """What a stream is about; empty = all. Without `totals` it is about alerts only."""

    accounts: tuple[Account, ...] = ()
    metrics: tuple[str, ...] = ()
    totals: bool = True


def interest_of(accounts: Iterable[Account], metrics: Iterable[str], *, totals: bool) -> Interest:
    """The same interest for the same names in whatever order."""
    chosen = sorted(dict.fromkeys(accounts), key=lambda name: (isinstance(name, str), str(name)))
    return Interest(tuple(chosen), tuple(sorted(dict.fromkeys(metrics))), totals)


@dataclass(slots=True)
class Total:
    """The total of one pair in the billing period that holds now."""

    account: Account
    metric_code: str
    agg: AggType
    value: AggValue
    start_ns: int
    end_ns: int
    position: int  # the log index that it reflects
    tick: int  # of the live state when it was read
    forms: dict[str, bytes] = field(default_factory=dict)  # as it was written, for all who send it


class Topic:
    """One interest, and what is new in it."""

    __slots__ = (
        "_accounts",
        "_metrics",
        "alerts",
        "alerts_from",
        "forgotten",
        "interest",
        "named",
        "pairs",
        "watchers",
    )

    def __init__(self, interest: Interest, alerts_from: int) -> None:
        self.interest = interest
        self._accounts, self._metrics = frozenset(interest.accounts), frozenset(interest.metrics)
        self.watchers: dict[Watcher, None] = {}
        self.named: list[Pair] = []  # by account and, in words or by leaving it out, metric
        self.pairs: dict[Pair, int] = {}  # tick of the last change, in that order
        self.forgotten = 0  # tick of the newest change that is not in `pairs`
        self.alerts: deque[AlertRow] = deque()  # all that fit with positions above alerts_from
        self.alerts_from = alerts_from

    def wants(self, account: Account, metric: str) -> bool:
        """Whether this is about that account and metric."""
        return (not self._accounts or account in self._accounts) and (
            not self._metrics or metric in self._metrics
        )

    def changed(self, pair: Pair, tick: int) -> Pair | None:
        """The total of a pair is another one; returns the pair that this pushed out, if any."""
        pairs = self.pairs
        pairs.pop(pair, None)
        pairs[pair] = tick
        if len(pairs) <= TOPIC_PAIRS_MAX:
            return None
        oldest = next(iter(pairs))
        self.forgotten = pairs.pop(oldest)
        return oldest

    def changed_since(self, tick: int) -> tuple[list[Pair], bool]:
        """What changed after `tick`, oldest first, and whether more did that is not known."""
        found = []
        for pair, changed in reversed(self.pairs.items()):
            if changed <= tick:
                break
            found.append(pair)
        found.reverse()
        return found, self.forgotten > tick

    def raised(self, alert: AlertRow) -> None:
        """An alert that fits has come to exist."""
        self.alerts.append(alert)
        if len(self.alerts) > TOPIC_ALERTS_MAX:
            self.alerts_from = self.alerts.popleft().position


class _Named:
    """A pair that somebody named: its series' row (-1: none yet) and who did."""

    __slots__ = ("row", "topics")

    def __init__(self) -> None:
        self.row = -1
        self.topics: dict[Topic, None] = {}


class Live:
    """All topics of one node. Everything here belongs to the node's thread."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.tick = 1  # of the last drain
        self.index = 0  # every change of the entries up to here is in the topics
        self.alerts_through = 0  # every alert up to here is in the topics
        self.drains = self.pairs_changed = self.readings_made = 0
        self._topics: dict[Interest, Topic] = {}
        self._totals_topics = 0
        self._named: dict[Pair, _Named] = {}
        self._pairs: dict[int, Pair] = {}  # of named pairs, by row
        self._missing: dict[Pair, None] = {}  # named, without a series yet
        self._series = 0  # rows below this were looked at for missing pairs
        self._any: dict[Topic, None] = {}  # topics of all accounts
        self._of_account: dict[Account, dict[Topic, None]] = {}
        self._due: dict[Pair, None] = {}  # changed for another reason than an event
        self._ends: dict[str, int] = {}  # of the current period, by metric code
        self._readings: dict[Pair, Total] = {}
        self.alert_forms: dict[int, bytes] = {}  # as JSON, by position, for all who send it
        self.want: Callable[[Watcher], None] = lambda watcher: None  # it has something to send

    # --- who watches ---------------------------------------------------------------

    def join(self, watcher: Watcher, interest: Interest) -> Topic:
        """The topic of an interest, with this watcher in it."""
        if not self._topics:
            self.index, self.alerts_through = self.node.machine.applied, self.node.last_alert
        topic = self._topics.get(interest)
        if topic is None:
            topic = self._topics[interest] = Topic(interest, self.alerts_through)
            self._sort_in(topic)
        self.tick += 1  # what was read before may be older than what is followed from now on
        topic.watchers[watcher] = None
        return topic

    def leave(self, watcher: Watcher, topic: Topic) -> None:
        """Forget a watcher, and the topic that nobody watches any more."""
        topic.watchers.pop(watcher, None)
        if not topic.watchers and self._topics.pop(topic.interest, None) is not None:
            self._sort_out(topic)

    def _sort_in(self, topic: Topic) -> None:
        for account in topic.interest.accounts:
            self._of_account.setdefault(account, {})[topic] = None
        if not topic.interest.accounts:
            self._any[topic] = None
        if topic.interest.totals:
            self._totals_topics += 1
            with self.node.lock:
                if self.node.touched is None:
                    self.index = self.node.machine.applied
                    self._series = self.node.machine.counter.totals.series_count
                    self.node.touched = Touched(WATCHED_ANY_MAX)
                self._follow(topic)

    def _sort_out(self, topic: Topic) -> None:
        for account in topic.interest.accounts:
            del self._of_account[account][topic]
            if not self._of_account[account]:
                del self._of_account[account]
        self._any.pop(topic, None)
        if not topic.interest.totals:
            return
        self._totals_topics -= 1
        with self.node.lock:
            if not self._totals_topics:
                self.node.touched = None
                self._forget_pairs()
            else:
                self._unfollow(topic)

    def _forget_pairs(self) -> None:
        self._named, self._pairs, self._missing, self._due = {}, {}, {}, {}
        self._ends, self._readings = {}, {}

    # --- which series those are ------------------------------------------------------

    def first_pairs(self, topic: Topic) -> list[Pair]:
        """The pairs whose totals a new stream begins with: named in words, or with events."""
        if topic.interest.metrics:
            return topic.named
        return [pair for pair in topic.named if self._named[pair].row >= 0]

    def _follow(self, topic: Topic) -> None:
        """Have the series of a topic's pairs noted. Under the lock."""
        codes: Sequence[str] = topic.interest.metrics
        if not codes and topic.interest.accounts:
            codes = [metric.code for metric in self.node.machine.catalog.live()]
        topic.named = [(account, code) for account in topic.interest.accounts for code in codes]
        for pair in topic.named:
            named = self._named.get(pair)
            if named is None:
                named = self._named[pair] = _Named()
                self._find(pair, named)
            named.topics[topic] = None
        if not topic.interest.accounts:
            self._want_metrics()

    def _unfollow(self, topic: Topic) -> None:
        for pair in topic.named:
            named = self._named[pair]
            del named.topics[topic]
            if not named.topics:
                del self._named[pair]
                self._missing.pop(pair, None)
                if named.row >= 0:
                    del self._pairs[named.row]
                    self._touched.unwatch(named.row)
        if not topic.interest.accounts:
            self._want_metrics()

    def arm_all(self, topic: Topic) -> None:
        """The next change of each of a topic's pairs is news, also if nobody reads it now."""
        for pair in topic.named:
            self._arm(pair)

    def _arm(self, pair: Pair) -> None:
        """The next change of a pair is news: its total is read now, or nobody will read it."""
        named = self._named.get(pair)
        if named is not None and named.row >= 0:
            self._touched.arm(named.row)

    @property
    def _touched(self) -> Touched:
        assert self.node.touched is not None, "somebody watches totals"
        return self.node.touched

    def _find(self, pair: Pair, named: _Named) -> None:
        """Look for a pair's series, and when its period ends."""
        machine = self.node.machine
        try:
            metric = machine.catalog.find(pair[1])
        except NotFoundError:
            self._missing[pair] = None
            return
        self._ends.setdefault(pair[1], metric.period.bounds(self.node.clock())[1])
        row = series_of(machine, pair[0], metric)
        if row < 0:
            self._missing[pair] = None
        else:
            self._found(pair, named, row)

    def _found(self, pair: Pair, named: _Named, row: int) -> None:
        self._missing.pop(pair, None)
        named.row = row
        self._pairs[row] = pair
        self._touched.watch(row)

    def _want_metrics(self) -> None:
        """Which metrics are watched for all accounts."""
        everything = any(not topic.interest.metrics for topic in self._any if topic.interest.totals)
        codes = {
            code for topic in self._any if topic.interest.totals for code in topic.interest.metrics
        }
        for metric in self.node.machine.catalog.metrics:
            is_wanted = not metric.deleted and (everything or metric.code in codes)
            self._touched.want_metric(metric.number, is_wanted)

    def rebuild(self, *, is_other_machine: bool) -> None:
        """The catalog changed, or all of the state did: find every series again."""
        if is_other_machine:
            for topic in self._topics.values():
                topic.alerts.clear()
                topic.alerts_from = self.node.last_alert
            self.alerts_through = self.node.last_alert
        if self.node.touched is None:
            return
        with self.node.lock:
            known = self._due
            self._forget_pairs()
            self.node.touched = Touched(WATCHED_ANY_MAX)
            self._series = self.node.machine.counter.totals.series_count
            topics = [topic for topic in self._topics.values() if topic.interest.totals]
            for topic in topics:
                self._follow(topic)
            self._due = {**known, **dict.fromkeys(self._named)}
        self.tick += 1
        for topic in topics:
            if topic in self._any:
                topic.forgotten = self.tick

    # --- what changed ----------------------------------------------------------------

    def drain(self) -> dict[Topic, None]:
        """Sort what is new into the topics; returns those that have something new."""
        news: dict[Topic, None] = {}
        self.drains += 1
        self.tick += 1
        if self.node.touched is not None:
            pairs, missed = self._take()
            self.pairs_changed += len(pairs)
            for pair in pairs:
                self._sort_pair(pair, news)
            if missed:
                for topic in self._any:
                    topic.forgotten = self.tick
                    news[topic] = None
        self._sort_alerts(news)
        return news

    def _take(self) -> tuple[list[Pair], bool]:
        """The pairs that changed since the last drain, and whether others did."""
        with self.node.lock:
            rows, missed = self._touched.take()
            self.index = self.node.machine.applied
            due, self._due = self._due, {}
            pairs = [self._pairs.get(row) or self._pair_of(row) for row in rows]
            pairs += due
            pairs += self._new_series()
        return pairs, missed

    def _pair_of(self, row: int) -> Pair:
        machine = self.node.machine
        account, word = machine.counter.totals.series_at(row)[:2]
        return account_of(machine, account, word), machine.catalog.metrics[
            (word & 0xFFFFFFFF) - 1
        ].code

    def _new_series(self) -> list[Pair]:
        """Named pairs that have come to have a series: whichever list is shorter is walked."""
        machine = self.node.machine
        first, count = self._series, machine.counter.totals.series_count
        self._series = count
        if count == first or not self._missing:
            return []
        found = []
        if count - first <= len(self._missing):
            for row in range(first, count):
                pair = self._pair_of(row)
                if pair in self._missing:
                    self._found(pair, self._named[pair], row)
                    found.append(pair)
            return found
        for pair in list(self._missing):
            self._find(pair, self._named[pair])
            if pair not in self._missing:
                found.append(pair)
        return found

    def _sort_pair(self, pair: Pair, news: dict[Topic, None]) -> None:
        named = self._named.get(pair)
        if named is not None:
            for topic in named.topics:
                news[topic] = None
                pushed_out = topic.changed(pair, self.tick)
                if pushed_out is not None:
                    self._arm(pushed_out)
        for topic in self._any:
            if topic.interest.totals and topic.wants(*pair):
                topic.changed(pair, self.tick)
                news[topic] = None

    def _sort_alerts(self, news: dict[Topic, None]) -> None:
        """Each new alert into the topics that want it, as many as are read at once."""
        if not self._topics or self.alerts_through >= self.node.last_alert:
            return
        with self.node.lock:
            alerts, _ = alert_rows(self.node, self.alerts_through, ALERTS_PER_DRAIN)
        for alert in alerts:
            for topics in (self._of_account.get(alert.account, {}), self._any):
                for topic in topics:
                    if topic.wants(alert.account, alert.metric_code):
                        topic.raised(alert)
                        news[topic] = None
        self.alerts_through = alerts[-1].position

    @property
    def has_more(self) -> bool:
        """Whether a drain left something for the next."""
        return bool(self._topics) and (
            self.alerts_through < self.node.last_alert or bool(self._due)
        )

    def look_at_clock(self) -> bool:
        """Where a billing period has ended, its totals are others; whether any has."""
        now = self.node.clock()
        ended = [code for code, end in self._ends.items() if now >= end]
        for code in ended:
            del self._ends[code]
            with self.node.lock, contextlib.suppress(NotFoundError):
                metric = self.node.machine.catalog.find(code)
                self._ends[code] = metric.period.bounds(now)[1]
        if ended:
            self._due.update(dict.fromkeys(pair for pair in self._named if pair[1] in ended))
        return bool(ended)

    def period_starts(self, codes: Iterable[str]) -> dict[str, int]:
        """When the current billing period began, by metric."""
        now, starts = self.node.clock(), {}
        with self.node.lock:
            for code in codes:
                with contextlib.suppress(NotFoundError):
                    metric = self.node.machine.catalog.find(code)
                    starts[code] = metric.period.bounds(now)[0]
        return starts

    # --- totals --------------------------------------------------------------------

    def total(self, pair: Pair, tick: int) -> Total | None:
        """A pair's total, read at `tick` or later; None if there is no such metric (any more)."""
        known = self._readings.get(pair)
        if known is not None and known.tick >= tick:
            return known
        node = self.node
        try:
            with node.lock:
                self._arm(pair)
                plan = query.plan_realtime(node.machine, *pair, node.clock())
                agg = AggType(node.machine.catalog.find(pair[1]).agg)
        except NotFoundError:
            return None
        assert not plan.edges, "a billing period is made of whole buckets"
        found = Total(
            *pair, agg, plan.finish(), plan.start_ns, plan.end_ns, plan.position, self.tick
        )
        if len(self._readings) >= READINGS_MAX:
            self._readings.clear()
        self._readings[pair] = found
        self.readings_made += 1
        return found

    def changes_catalog(self, kind: int) -> bool:
        """Whether an entry of that kind may have changed which metrics there are."""
        return kind not in (entries.EVENTS, entries.NOOP, entries.ADMIN)

    def statistics(self) -> dict[str, int]:
        """Topics, pairs followed, and what was done for them."""
        return {
            "live_topics": len(self._topics),
            "live_pairs": len(self._named),
            "live_drains": self.drains,
            "live_pairs_changed": self.pairs_changed,
            "live_totals_read": self.readings_made,
        }
