"""The real asyncio client, with each of its requests written into the history.

Owns the subclass by which the simulator sees what the SDK sees: the last response frame of
each call with its position, the session and sequence that a batch went out under, and the
error that the application gets. It changes nothing of what the client does; identities,
jitter and the clock are the host's, as `AsyncClient` lets its host say.

    _settle, _ask ──> begin … end in the history
      _carry_out(call) ──> Watched(call): every reply passes through `on_reply`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from unimeter import limits
from unimeter.client.aio import AsyncClient
from unimeter.client.core import Answer, Batch, IngestCall, Reply, decode
from unimeter.client.core import Call as CoreCall
from unimeter.errors import UnimeterError
from unimeter.sim.chance import Chance
from unimeter.sim.history import Call, History
from unimeter.types import Account
from unimeter.wire.messages import Request, Response


class Watched:
    """A call of the core, looked at. Stands in for it where replies come in."""

    def __init__(self, call: CoreCall, record: Call) -> None:
        self._call, self._record = call, record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def on_reply(self, reply: Reply, now: float) -> Answer | None:
        """Note what came, then let the call decide."""
        call, record = self._call, self._record
        record.position, record.response = decode(call.packet_type, reply)
        if isinstance(call, IngestCall):
            session = call.ticket.session
            record.session_hi, record.session_lo = session.high, session.low
            record.sequence = call.ticket.sequence
        return call.on_reply(reply, now)


class Sdk(AsyncClient):
    """The client of one process of the fake world."""

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        name: str,
        process: int,
        history: History,
        chance: Chance,
        time_ns: Callable[[], int],
        read_from_any: bool,
    ) -> None:
        self.name, self.process, self.history = name, process, history
        self._chance, self._clock = chance, time_ns
        self._under_way: list[tuple[object, Call]] = []
        super().__init__(list(seeds), read_from="any" if read_from_any else "leader")
        self._core.sessions.window = limits.SESSION_WINDOW  # as drawn; not known at import

    # --- what the host gives ---------------------------------------------------------

    def _identity(self) -> int:
        return (self._chance.bits64() << 64 | self._chance.bits64()) or 1

    def _fraction(self) -> float:
        return self._chance.real()

    def _entropy(self, size: int) -> bytes:
        return b"".join(self._chance.bits64().to_bytes(8, "big") for _ in range(-(-size // 8)))[
            :size
        ]

    def _time_ns(self) -> int:
        return self._clock()

    # --- what is noted ---------------------------------------------------------------

    async def _settle(self, batch: Batch, is_sync: bool, deadline: float) -> Answer | UnimeterError:
        seconds = deadline - asyncio.get_running_loop().time()
        record = self.history.begin(
            self.name, self.process, "ingest", events=batch.events, timeout=seconds
        )
        self._under_way.append((batch, record))
        result = await super()._settle(batch, is_sync, deadline)
        self._ended(record)
        if isinstance(result, Answer):
            self.history.answer(record, result.response, result.position)
        else:
            self.history.fail(record, result)
        return result

    async def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        seconds = self._timeout if timeout is None else timeout
        record = self.history.begin(
            self.name, self.process, type(request).__name__, request=request, timeout=seconds
        )
        self._under_way.append((request, record))
        try:
            response, position = await super()._ask(request, account, timeout)
        except UnimeterError as error:
            self._ended(record)
            self.history.fail(record, error)
            raise
        self._ended(record)
        self.history.answer(record, record.response or response, record.position)
        return response, position

    async def _carry_out(self, call: CoreCall) -> Answer:
        sent: object = call.batch if isinstance(call, IngestCall) else call.request
        for what, record in self._under_way:
            if what is sent:
                return await super()._carry_out(cast(CoreCall, Watched(call, record)))
        raise AssertionError("a call that nobody asked for")

    def _ended(self, record: Call) -> None:
        self._under_way = [pair for pair in self._under_way if pair[1] is not record]
