"""The generator for HTTP: unique events, whole replies, and no figure from a failing run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unimeter.bench.http_load import HttpSource, JsonTape
from unimeter.bench.load import LoadError
from unimeter.bench.scenarios import Settings


@pytest.fixture
def tape(tmp_path: Path) -> JsonTape:
    return JsonTape(Settings(directory=tmp_path).tiny(), 4)


def reply(stored: int, status: str = "200 OK") -> bytes:
    body = json.dumps({"stored": stored, "duplicates": 0}, separators=(",", ":"))
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def test_every_event_of_a_tape_is_another(tape: JsonTape) -> None:
    source, ids = HttpSource(tape), []
    while True:
        data, requests = source.take(1)
        if not requests:
            break
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        ids += [event["id"] for event in json.loads(body)]
    assert len(ids) == len(set(ids)) == 4 * tape.batch


def test_replies_are_counted_whole_and_a_rest_is_left(tape: JsonTape) -> None:
    source = HttpSource(tape)
    data = reply(50) + reply(49) + reply(50)[:-3]
    assert source.count(memoryview(data)) == (2, len(reply(50) + reply(49)))
    assert source.stored == 99
    assert source.count(memoryview(data[-20:])) == (0, 0)


def test_a_refusal_ends_the_run(tape: JsonTape) -> None:
    with pytest.raises(LoadError, match="503"):
        HttpSource(tape).count(memoryview(reply(0, "503 Service Unavailable")))
