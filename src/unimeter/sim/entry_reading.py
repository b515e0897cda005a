"""An independent reader of entry bodies: slow, obvious, written from the page.

Owns a second reading of docs/internals/entries.md, with Python's ints and slices. It shares
nouns (`types`) with the engine and not a line of `records`, `decode` or `schema_bytes`: a
misplaced bit would have to be misplaced twice.

    read_genesis(body)        -> (cluster id, hash key)
    read_events(body)         -> EventsEntry: the requests with their rows, offset, timestamp
    read_metric_put(body)     -> MetricPut: mode, definition, the zone's transitions
    read_metric_delete(body)  -> the code

What the page says must be so is checked, and CheckFailed is raised where it is not. Refuses
to know state: whether an event counts is `auditor`'s question.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.sim.counting import Request, Row
from unimeter.sim.failures import CheckFailed, check
from unimeter.types import (
    Account,
    AggType,
    AlertThreshold,
    DimensionFilter,
    Direction,
    MetricSchema,
    PeriodType,
    Resolution,
)

WHO = "entry reading"
DEFAULT_PERIOD_NS = 30 * 86_400 * 10**9


@dataclass(frozen=True)
class EventsEntry:
    """An EVENTS body in words."""

    timestamp_ns: int
    first_offset: int
    requests: tuple[Request, ...]

    @property
    def rows(self) -> list[Row]:
        """All events, in the order of their offsets."""
        return [row for request in self.requests for row in request.rows]


@dataclass(frozen=True)
class MetricPut:
    """A METRIC_PUT body in words."""

    mode: int  # 0 create or change, 1 create, 2 change
    schema: MetricSchema
    transitions: tuple[tuple[int, int], ...]


def read_genesis(body: bytes) -> tuple[bytes, bytes]:
    """The cluster's id and the hash key."""
    check(len(body) == 32, WHO, f"GENESIS has {len(body)} bytes, not 32")
    return body[:16], body[16:]


def read_noop(body: bytes) -> None:
    """Nothing, which is checked."""
    check(body == b"", WHO, f"NOOP has {len(body)} bytes, not 0")


def read_metric_delete(body: bytes) -> str:
    """The code of the metric that is to go."""
    return text_of(body, "a metric code")


# --- EVENTS --------------------------------------------------------------------------


def read_events(body: bytes) -> EventsEntry:
    """The requests of an EVENTS body, with their rows."""
    check(len(body) % 8 == 0 and len(body) >= 64, WHO, f"EVENTS of {len(body)} bytes")
    version, requests = halves(body, 0)
    check(version == 1, WHO, f"EVENTS of version {version}")
    events, metrics = halves(body, 1)
    accounts, tag_sets = halves(body, 2)
    ids, heap_words = halves(body, 3)
    sessions = word(body, 6)
    check(word(body, 7) == 0, WHO, "word 7 of EVENTS is not 0")
    check(requests > 0, WHO, "EVENTS without a request")

    at_sessions = 8 + requests
    at_records = at_sessions + 3 * sessions
    at_strings = at_records + 4 * events
    at_heap = at_strings + metrics + accounts + tag_sets + ids
    words = at_heap + heap_words
    check(8 * words == len(body), WHO, f"EVENTS of {len(body)} bytes has {words} words")

    strings = []
    for number in range(metrics + accounts + tag_sets + ids):
        length, offset = halves(body, at_strings + number)
        check(offset + length <= 8 * heap_words, WHO, f"string {number} is outside the heap")
        start = 8 * at_heap + offset
        strings.append(body[start : start + length])
    table = Strings(
        [text_of(code, "a metric code") for code in strings[:metrics]],
        [text_of(name, "an account") for name in strings[metrics : metrics + accounts]],
        [tags_of(data) for data in strings[metrics + accounts : metrics + accounts + tag_sets]],
        [text_of(one, "an id") for one in strings[metrics + accounts + tag_sets :]],
    )
    rows = [row_of(body, at_records + 4 * number, table) for number in range(events)]

    found: list[Request] = []
    first = used_sessions = 0
    for number in range(requests):
        count, flags = halves(body, 8 + number)
        check(flags in (0, 1), WHO, f"request {number} has flags {flags}")
        session, sequence = (0, 0), 0
        if flags == 1:
            at = at_sessions + 3 * used_sessions
            session, sequence = (word(body, at), word(body, at + 1)), word(body, at + 2)
            used_sessions += 1
        found.append(Request(tuple(rows[first : first + count]), session, sequence, flags == 1))
        first += count
    check(first == events, WHO, f"the requests have {first} events, the entry {events}")
    check(used_sessions == sessions, WHO, f"{used_sessions} of {sessions} sessions are used")
    check(word(body, 5) >= 1, WHO, "offsets begin with 1")
    return EventsEntry(word(body, 4), word(body, 5), tuple(found))


@dataclass(frozen=True)
class Strings:
    """The tables of an entry."""

    codes: list[str]
    accounts: list[str]
    tag_sets: list[tuple[tuple[str, str], ...]]
    ids: list[str]


def row_of(body: bytes, at: int, table: Strings) -> Row:
    """One record. Of a refused event, what it was refused for may name nothing."""
    account_word, timestamp_ns, value, meta = (word(body, at + i) for i in range(4))
    refused = meta >> 56
    check(refused == 0 or 10 <= refused <= 17, WHO, f"an event was refused with {refused}")
    check(meta >> 53 & 0b111 == 0, WHO, f"bits 53 to 55 of a record are not 0: {meta:#x}")
    code, tag_set, ident = meta & 0xFFFF, meta >> 16 & 0xFFFF, meta >> 32 & 0xFFFF
    is_string = bool(meta >> 50 & 1)
    if not refused:
        check(code < len(table.codes), WHO, f"there is no metric code {code} in the entry")
        check(tag_set <= len(table.tag_sets), WHO, f"there is no tag set {tag_set} in the entry")
        check(ident <= len(table.ids), WHO, f"there is no id {ident} in the entry")
        check(TIMESTAMP_NS_MIN <= timestamp_ns < TIMESTAMP_NS_MAX, WHO, f"timestamp {timestamp_ns}")
        check(
            not is_string or account_word < len(table.accounts),
            WHO,
            f"there is no account {account_word} in the entry",
        )
        check(meta >> 48 & 0b11 != 3, WHO, "an event with an unknown operation was not refused")
    account: Account = account_word
    if is_string:
        account = table.accounts[account_word] if account_word < len(table.accounts) else ""
    return Row(
        account=account,
        metric_code=table.codes[code] if code < len(table.codes) else "",
        value=value - 2**64 if value >= 2**63 else value,
        timestamp_ns=timestamp_ns,
        is_given=bool(meta >> 51 & 1),
        operation=meta >> 48 & 0b11,
        properties=table.tag_sets[tag_set - 1] if 0 < tag_set <= len(table.tag_sets) else (),
        id=table.ids[ident - 1] if 0 < ident <= len(table.ids) else None,
        is_v1=bool(meta >> 52 & 1),
        refused=refused,
    )


def tags_of(data: bytes) -> tuple[tuple[str, str], ...]:
    """A tag set: a count, then keys and values with a length before each."""
    check(len(data) > 0, WHO, "a tag set without a count")
    texts = []
    at = 1
    for _ in range(2 * data[0]):
        check(at < len(data), WHO, "a tag set ends early")
        length = data[at]
        check(at + 1 + length <= len(data), WHO, "a tag set ends early")
        texts.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    check(at == len(data), WHO, "a tag set goes on after its end")
    words = [text_of(text, "a property") for text in texts]
    return tuple(zip(words[::2], words[1::2], strict=True))


# --- METRIC_PUT -----------------------------------------------------------------------


def read_metric_put(body: bytes) -> MetricPut:
    """Mode, definition and the zone's rules, from one end to the other."""
    left = Left(body)
    mode = left.integer(1)
    check(mode in (0, 1, 2), WHO, f"METRIC_PUT of mode {mode}")
    version = left.integer(1)
    check(version == 1, WHO, f"a definition of version {version}")
    agg, recurring, kind, day, resolution = (left.integer(1) for _ in range(5))
    period_ns = left.signed(8)
    code, field_name, zone = left.text(), left.text(), left.text()
    transitions = tuple((left.signed(8), left.signed(4)) for _ in range(left.integer(2)))
    filters = []
    for _ in range(left.integer(1)):
        key = left.text()
        filters.append(DimensionFilter(key, [left.text() for _ in range(left.integer(2))]))
    thresholds = []
    for _ in range(left.integer(1)):
        name = left.text()
        value, again, direction = left.signed(8), left.integer(1), left.integer(1)
        check(again in (0, 1) and direction in (0, 1), WHO, f"threshold {name!r}: unknown flags")
        thresholds.append(AlertThreshold(name, value, again == 1, Direction(direction)))
    left.check_end()

    check(agg in range(7) and kind in range(5), WHO, f"aggregation {agg}, period {kind}")
    check(resolution in range(3) and recurring in (0, 1), WHO, f"metric {code!r}: unknown flags")
    check((kind == PeriodType.FIXED) == (period_ns > 0), WHO, f"a period of {period_ns} ns")
    check(period_ns % 1000 == 0, WHO, f"a period of {period_ns} ns")
    check(recurring == 0 or agg == AggType.COUNT_UNIQUE, WHO, f"metric {code!r} recurs")
    check(bool(code), WHO, "a metric without a code")
    check(bool(transitions), WHO, f"zone {zone!r} without an offset")
    is_default = period_ns in (0, DEFAULT_PERIOD_NS)
    schema = MetricSchema(
        code=code,
        agg_type=AggType(agg),
        recurring=recurring == 1,
        field_name=field_name,
        period_type=PeriodType(kind),
        billing_cycle_day=day,
        filters=filters,
        thresholds=thresholds,
        period=None if is_default else timedelta(microseconds=period_ns // 1000),
        zone=zone,
        resolution=Resolution(resolution),
    )
    return MetricPut(mode, schema, transitions)


class Left:
    """What is left of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, length: int) -> bytes:
        check(length <= len(self.data), WHO, "a definition ends early")
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def integer(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def signed(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little", signed=True)

    def text(self) -> str:
        return text_of(self.take(self.integer(1)), "a text of a definition")

    def check_end(self) -> None:
        check(not self.data, WHO, f"a definition goes on for {len(self.data)} bytes")


# --- words -----------------------------------------------------------------------------


def word(body: bytes, number: int) -> int:
    """Word `number` of a body, unsigned."""
    return int.from_bytes(body[8 * number : 8 * number + 8], "little")


def halves(body: bytes, number: int) -> tuple[int, int]:
    """The low and the high half of a word: in the order in which the page names them."""
    return word(body, number) & 0xFFFFFFFF, word(body, number) >> 32


def text_of(data: bytes, what: str) -> str:
    """The text, which must be UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CheckFailed(WHO, f"{what} is not UTF-8: {data!r}") from error
