"""What a query costs on a follower, by the consistency that is asked for.

    session         version 2 with `min_position`: answered at once where that is applied
    after a write   the same, with the position of an event acknowledged a moment ago
    version 1       no position to send, so the follower asks the quorum (ReadIndex)
    linearizable    version 2, the same question

One query at a time over one connection to a follower, accounts in random order, each answer
checked against the number of events the account was sent.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final

from unimeter.bench.cluster_nodes import Group, running_group
from unimeter.bench.frames import METRICS, RESPONSE_HEADER, Tape, decode_query, encode_query
from unimeter.bench.load import LoadError
from unimeter.bench.node import receive_exactly
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import (
    DAY_NS,
    NO_SNAPSHOT,
    Settings,
    make_tape,
    quantile,
    run_laps,
)
from unimeter.types import Event
from unimeter.wire import v2
from unimeter.wire.framer import VERSION_2, request_frame
from unimeter.wire.messages import IngestReply, PacketType, UsageQuery, UsageReply
from unimeter.wire.v2_ingest import encode_ingest

LAPS: Final = 3  # events of each account and metric
QUORUM_SHARE: Final = 4  # reads that ask the quorum are slower: measure a quarter as many


def exchange(sock: socket.socket, frame: bytes) -> tuple[int, bytes, float]:
    """(status, payload, seconds) of one request."""
    begin = time.perf_counter()
    sock.sendall(frame)
    head = receive_exactly(sock, RESPONSE_HEADER.size)
    status, _, length = RESPONSE_HEADER.unpack(head)
    payload = receive_exactly(sock, length)
    return status & 0xFF, payload, time.perf_counter() - begin


class Reader:
    """Asks one follower, and knows what it must answer."""

    def __init__(self, sock: socket.socket, tape: Tape) -> None:
        self._sock, self._tape = sock, tape
        self._start = tape.first_ns // DAY_NS * DAY_NS
        self._end = self._start + 2 * DAY_NS

    def _places(self, rounds: int) -> Iterator[tuple[int, str]]:
        pairs = self._tape.pairs
        for turn in range(rounds):
            account, metric = pairs[turn % len(pairs)]
            yield account, METRICS[metric].code

    def time_version_1(self, rounds: int) -> list[float]:
        """Seconds of each query without any position."""
        seconds = []
        for account, code in self._places(rounds):
            frame = encode_query(account, code, self._start, self._end, 1)
            status, payload, elapsed = exchange(self._sock, frame)
            if status or decode_query(bytes(RESPONSE_HEADER.size) + payload)[1] != LAPS:
                raise LoadError(f"query answered status {status}, {payload!r}")
            seconds.append(elapsed)
        return seconds

    def time_version_2(
        self, rounds: int, min_position: int = 0, *, linearizable: bool = False
    ) -> list[float]:
        """Seconds of each query at a position, or after a question to the quorum."""
        return [
            self.ask(account, code, LAPS, min_position, linearizable)
            for account, code in self._places(rounds)
        ]

    def ask(
        self, account: int, code: str, expected: int, min_position: int, linearizable: bool = False
    ) -> float:
        """Seconds of one query; LoadError unless it counts `expected` events."""
        query = UsageQuery(
            account,
            code,
            self._start,
            self._end,
            min_position=min_position,
            linearizable=linearizable,
        )
        kind, payload = v2.encode_request(query)
        frame = request_frame(VERSION_2, kind, 1, payload)
        status, answer, seconds = exchange(self._sock, frame)
        _, reply = v2.decode_response(kind, status, answer)
        if not isinstance(reply, UsageReply) or reply.value.count != expected:
            raise LoadError(f"account {account}, {code}: expected {expected}, got {reply}")
        return seconds


def write_one(sock: socket.socket, account: int, code: str, stamp_ns: int) -> int:
    """Ingest an event in version 2; the position that it is stored at."""
    payload = encode_ingest([Event(account, code)], default_timestamp_ns=stamp_ns)
    frame = request_frame(VERSION_2, PacketType.INGEST_SYNC, 1, payload)
    status, answer, _ = exchange(sock, frame)
    position, reply = v2.decode_response(PacketType.INGEST_SYNC, status, answer)
    if not isinstance(reply, IngestReply) or reply.stored != 1:
        raise LoadError(f"an event was answered with {reply}")
    return position


def time_after_writes(group: Group, reader: Reader, tape: Tape, rounds: int) -> list[float]:
    """Seconds of each query for an event that the leader acknowledged a moment ago."""
    seconds = []
    account, code = max(tape.pairs)[0] + 1, METRICS[0].code  # nobody else's
    with group.leader.connect() as sock:
        for turn in range(rounds):
            position = write_one(sock, account, code, tape.first_ns + turn)
            seconds.append(reader.ask(account, code, turn + 1, position))
    return seconds


def follower_reads(settings: Settings) -> list[Figure]:
    """p50 and p99 of each kind of read on a follower."""
    few = settings.query_rounds // QUORUM_SHARE
    with running_group(settings, 3, NO_SNAPSHOT) as group:
        tape = make_tape(settings, settings.batch)
        run_laps(group.leader, tape, LAPS)
        group.wait_level()
        with group.followers[0].connect() as sock:
            reader = Reader(sock, tape)
            position = _position(group)
            kinds: list[tuple[str, list[float], float | None]] = [
                ("session", reader.time_version_2(settings.query_rounds, position), 200e-6),
                ("version 1", reader.time_version_1(few), None),
                ("linearizable", reader.time_version_2(few, linearizable=True), None),
                ("after a write", time_after_writes(group, reader, tape, few), None),
            ]
        group.check_totals(tape)
    return [
        Figure(
            f"query on a follower, {kind}: p{share * 100:.0f}",
            quantile(seconds, share),
            "s",
            target if share == 0.5 else None,
            False,
        )
        for kind, seconds, target in kinds
        for share in (0.5, 0.99)
    ]


def _position(group: Group) -> int:
    """A position that is not 0 and that everybody has applied."""
    with group.leader.connect() as sock:
        query = UsageQuery(1, METRICS[0].code, 0, DAY_NS)
        kind, payload = v2.encode_request(query)
        status, answer, _ = exchange(sock, request_frame(VERSION_2, kind, 1, payload))
        position: int = v2.decode_response(kind, status, answer)[0]
    if position <= 0:
        raise LoadError("an answer of version 2 names no position")
    return position
