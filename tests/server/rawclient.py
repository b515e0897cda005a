"""A client that sends what it is told, for tests of the server.

Speaks both versions frame by frame and waits for replies by request id; it can
also stay silent, send halves and not read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from unimeter.types import AggType, Event, MetricSchema, from_ns
from unimeter.wire import v1, v2
from unimeter.wire.framer import ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import (
    IngestReply,
    MetricPut,
    PacketType,
    Request,
    Response,
    UsageQuery,
    UsageReply,
)
from unimeter.wire.v2_ingest import encode_ingest

START_NS = 1_767_225_600 * 10**9  # 2026-01-01
DAY_NS = 86_400 * 10**9


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.framer = ResponseFramer()
        self.ids = itertools.count(1)
        self.replies: dict[int, ResponseFrame] = {}
        self.pushes: list[ResponseFrame] = []

    @classmethod
    async def connect(cls, address: str) -> RawClient:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def close(self) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> bool:
        """Take what is there; False at the end of the stream."""
        data = await asyncio.wait_for(self.reader.read(1 << 18), 20)
        self.framer.receive_data(data)
        while (frame := self.framer.next_frame()) is not None:
            if frame.is_push:
                self.pushes.append(frame)
            else:
                assert frame.request_id not in self.replies, "a request is answered once"
                self.replies[frame.request_id] = frame
        return bool(data)

    async def reply(self, request_id: int) -> ResponseFrame:
        while request_id not in self.replies:
            if not await self.receive():
                raise ConnectionResetError(f"closed before the reply to {request_id}")
        return self.replies.pop(request_id)

    async def push(self) -> ResponseFrame:
        while not self.pushes:
            if not await self.receive():
                raise ConnectionResetError("closed before a push")
        return self.pushes.pop(0)

    # --- whole requests ----------------------------------------------------------

    def start(self, packet_type: int, payload: bytes, version: int = 2) -> int:
        request_id = next(self.ids)
        self.send(request_frame(version, packet_type, request_id, payload))
        return request_id

    async def exchange(self, packet_type: int, payload: bytes, version: int = 2) -> ResponseFrame:
        return await self.reply(self.start(packet_type, payload, version))

    async def ask(self, request: Request, version: int = 2) -> tuple[Response, int]:
        """(response, position) of any request but ingest."""
        wire: Any = v1 if version == 1 else v2
        packet_type, payload = wire.encode_request(request)
        frame = await self.exchange(packet_type, payload, version)
        position, response = wire.decode_response(packet_type, frame.status, frame.payload)
        return response, position

    async def ingest(self, events: Sequence[Event], **session: int) -> tuple[Response, int]:
        payload = encode_ingest(events, default_timestamp_ns=START_NS, **session)
        frame = await self.exchange(PacketType.INGEST_SYNC, payload)
        position, response = v2.decode_response(PacketType.INGEST_SYNC, frame.status, frame.payload)
        return response, position

    async def metric(self, code: str = "calls", agg_type: AggType = AggType.COUNT) -> None:
        response, _ = await self.ask(MetricPut(MetricSchema(code, agg_type)))
        assert type(response).__name__ == "Done", response

    async def count(self, account: int | str, code: str = "calls") -> int:
        query = UsageQuery(account, code, START_NS, START_NS + DAY_NS)
        response, _ = await self.ask(query)
        assert isinstance(response, UsageReply), response
        return response.value.count


def batch(account: int | str, count: int = 1, code: str = "calls", first: int = 0) -> list[Event]:
    """`count` events at START_NS, each with an id of its own from `first` on."""
    return [
        Event(account, code, 1, from_ns(START_NS), id=f"{account}-{first + n}")
        for n in range(count)
    ]


def stored(response: Response) -> int:
    assert isinstance(response, IngestReply), response
    return response.stored
