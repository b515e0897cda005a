"""The tape's events are unique, its frames are v1's, and its sums add up."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from unimeter.bench.frames import (
    EVENT,
    INGEST_COUNTS,
    MAGIC,
    METRICS,
    REQUEST_HEADER,
    Tape,
    shuffled_pairs,
)

Taken = list[tuple[bytes, int, int]]


def take_events(tape: Tape, frames: int) -> Taken:
    """(metric code, account, timestamp) of every event of the next `frames` frames."""
    events: Taken = []
    while frames:
        data, count = tape.take(frames)
        frames -= count
        for start in range(0, len(data), tape.frame_bytes):
            frame = bytes(data[start : start + tape.frame_bytes])
            magic, version, kind, _, length, request_id = REQUEST_HEADER.unpack_from(frame)
            assert (magic, version, kind, length) == (MAGIC, 1, 1, tape.frame_bytes - 16)
            assert request_id > 0
            assert INGEST_COUNTS.unpack_from(frame, 16) == (tape.batch, 0)
            for place in range(24, tape.frame_bytes, EVENT.size):
                code, account, stamp, *_ = EVENT.unpack_from(frame, place)
                events.append((code.rstrip(b"\0"), account, stamp))
    return events


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_no_event_is_ever_repeated(batch: int) -> None:
    tape = Tape(shuffled_pairs(6, 5), batch, first_ns=1_000_000_000)
    events = take_events(tape, 5 * tape.frames + tape.frames // 2)
    assert len(set(events)) == len(events) == tape.events_taken


def test_timestamps_lie_in_the_announced_range() -> None:
    tape = Tape(shuffled_pairs(6, 5), 5, first_ns=10**18, step_ns=1000)
    stamps = [stamp for _, _, stamp in take_events(tape, 4 * tape.frames)]
    assert min(stamps) == 10**18
    assert max(stamps) < tape.last_ns


def test_expected_counts_are_those_of_the_frames_taken() -> None:
    tape = Tape(shuffled_pairs(6, 5), 4, first_ns=10**18)
    found = Counter((code, account) for code, account, _ in take_events(tape, 11))
    expected = {
        (metric.code.encode(), account): count
        for number, metric in enumerate(METRICS)
        for account, count in tape.expected_counts(number).items()
        if count
    }
    assert found == expected
    assert sum(expected.values()) == 11 * 4 == tape.events_taken


def test_a_tape_without_time_sends_none() -> None:
    tape = Tape(shuffled_pairs(4, 5), 5, first_ns=0)
    assert {stamp for _, _, stamp in take_events(tape, tape.frames)} == {0}


def test_every_request_of_a_lap_has_its_own_id() -> None:
    tape = Tape(shuffled_pairs(4, 5), 2, first_ns=1)
    data, count = tape.take(tape.frames)
    ids = {struct.unpack_from("<I", data, at * tape.frame_bytes + 12)[0] for at in range(count)}
    assert len(ids) == tape.frames
