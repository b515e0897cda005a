"""docs/internals/entries.md shows the bytes that the builder writes and the reader reads."""

from __future__ import annotations

import re
from pathlib import Path

from unimeter.engine.decode import EntryBuilder
from unimeter.engine.records import EventsBody
from unimeter.wire import messages
from unimeter.wire.v1_requests import encode_ingest
from unimeter.wire.v2_ingest import encode_ingest_request

PAGE = Path(__file__).parents[2] / "docs" / "internals" / "entries.md"
NOW = 1_700_000_000_000_000_000


def page_bytes() -> bytes:
    found = re.search(r"```hex\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return bytes.fromhex(found[1])


def test_the_builder_writes_the_bytes_of_the_page() -> None:
    builder = EntryBuilder()
    builder.now_ns = NOW
    tagged = messages.IngestRow(42, "calls", 1, NOW, 0, (("model", "large"),))
    builder.feed_payload(1, 1, encode_ingest((tagged,)), 0)
    with_id = messages.IngestRow("acme", "calls", -3, 0, 0, (), "k1")
    builder.feed_payload(2, 2, encode_ingest_request(messages.Ingest([with_id], 7, 9, 1)), 0)
    sealed = builder.seal(NOW + 500_000_000, 1)
    assert sealed is not None
    assert sealed.body == page_bytes()


def test_the_reader_reads_the_bytes_of_the_page() -> None:
    body = EventsBody(page_bytes())
    assert body.requests() == [(0, 0, 0, 1), (7, 9, 1, 1)]
    assert body.first_offset == 1
    first, second = body.event(0), body.event(1)
    assert (first.account, first.metric_code, first.value) == (42, "calls", 1)
    assert first.properties == {"model": "large"} and first.timestamp_given and first.content_key
    assert (second.account, second.value, second.id) == ("acme", -3, "k1")
    assert not second.timestamp_given and second.timestamp_ns == NOW
