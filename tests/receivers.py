"""A webhook's receiver that does what its test wants: fails, hangs, closes, restarts.

    async with Receiver(secret) as receiver:        # in the test's own loop
        receiver.behave = lambda message, nth: 500 if nth == 1 else 204
        ...
        await receiver.until(lambda: len(receiver.taken) == 3)

    with ReceiverThread(secret) as receiver:        # beside a test that blocks

It checks every signature and keeps what it got: `arrived` is every attempt, `taken` every one that
it answered with 2xx or took before it hung up, and `alerts` the alerts that are left when
repeats are dropped by id. HTTP/1.1 with kept connections, as far as a webhook needs it.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from unimeter import AlertRecord
from unimeter.webhooks import ALERT_TYPE, Message, VerificationError, verify

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Said:
    """An answer with more than a status."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: float = 0.0  # seconds
    drips: bool = False  # the body never ends


HANG = "hang"  # no answer, until the sender gives up
CLOSE = "close"  # take nothing, hang up
TAKE_AND_CLOSE = "take and close"  # take it, and hang up instead of saying so
GARBAGE = "garbage"  # something that is no HTTP

Behaviour = int | str | Said
Behave = Callable[[Message, int], Behaviour]


def good(message: Message, nth: int) -> Behaviour:
    """Take everything."""
    return 204


class Receiver:
    """An HTTP server on a port of its own."""

    def __init__(
        self, secret: str = "", behave: Behave = good, tls: ssl.SSLContext | None = None
    ) -> None:
        self.secret, self.behave, self.tls = secret, behave, tls
        self.connections = 0  # ever made
        self.port = 0
        self.arrived: list[Message] = []
        self.taken: list[Message] = []
        self.firsts: dict[str, Message] = {}  # alerts that were taken, by id, repeats dropped
        self.attempts: dict[str, int] = {}  # by id
        self.refused: list[str] = []  # why a signature was not good
        self.requests: list[dict[str, str]] = []  # headers, and "" = the request line
        self.bodies: dict[str, set[bytes]] = {}  # by id
        self.busy = self.busy_max = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/hooks?from=unimeter"

    @property
    def alerts(self) -> list[AlertRecord]:
        """What is left when repeats are dropped by id, in the order of the first arrivals."""
        return [message.alert for message in self.firsts.values()]

    @property
    def positions(self) -> list[int]:
        return [alert.position for alert in self.alerts]

    def attempts_of(self, position: int) -> int:
        """How often this alert has come."""
        return sum(
            times for ident, times in self.attempts.items() if ident.endswith(f"_{position}")
        )

    def check_order(self) -> None:
        """Of each account, no alert came before one of a lower position."""
        last: dict[int | str, int] = {}
        for alert in self.alerts:
            assert alert.position > last.get(alert.account_id, 0), self.positions
            last[alert.account_id] = alert.position
        assert not self.refused, self.refused
        assert all(len(bodies) == 1 for bodies in self.bodies.values()), "one id, one body"

    # --- life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, reuse_address=True, ssl=self.tls
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and close those that are open."""
        if self._listener is not None:
            # A socket that asyncio has accepted when its server is closed is never closed before
            # Python 3.13 (gh-109564): accept no more, and let those become connections first.
            for listening in self._listener.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            self._listener.close()
            self._listener = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the ends of their sockets

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.002)

    # --- a connection -------------------------------------------------------------------

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Known from here on: a task that is cancelled before its first step does nothing."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())
        self.connections += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {"": first}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append(headers)
        self.busy += 1
        self.busy_max = max(self.busy_max, self.busy)
        try:
            return await self._behave(headers, body, reader, writer)
        finally:
            self.busy -= 1

    async def _behave(
        self,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        try:
            message = verify(body, headers, self.secret)
        except VerificationError as error:
            self.refused.append(str(error))
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            return True
        self.arrived.append(message)
        self.bodies.setdefault(message.id, set()).add(body)
        self.attempts[message.id] = self.attempts.get(message.id, 0) + 1
        how = self.behave(message, self.attempts[message.id])
        if how == HANG:
            await reader.read(1)  # until the sender goes
            return False
        if how in (TAKE_AND_CLOSE, CLOSE):
            if how == TAKE_AND_CLOSE:
                self._take(message)
            return False
        if how == GARBAGE:
            writer.write(b"220 welcome to the wrong port\r\n")
            await writer.drain()
            return False
        said = how if isinstance(how, Said) else Said(int(how))
        return await self._say(said, message, writer)

    def _take(self, message: Message) -> None:
        self.taken.append(message)
        if message.type == ALERT_TYPE:
            self.firsts.setdefault(message.id, message)

    async def _say(self, said: Said, message: Message, writer: asyncio.StreamWriter) -> bool:
        if said.after:
            await asyncio.sleep(said.after)  # a slow receiver
        if 200 <= said.status < 300:
            self._take(message)
        size = 10**9 if said.drips else len(said.body)
        lines = [f"HTTP/1.1 {said.status} Said", f"content-length: {size}"]
        lines += [f"{name}: {value}" for name, value in said.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + said.body)
        await writer.drain()
        while said.drips:
            writer.write(b"...")
            await writer.drain()
            await asyncio.sleep(0.01)
        return True


class ReceiverThread(Receiver):
    """The same in a thread with a loop of its own."""

    def __enter__(self) -> ReceiverThread:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")
        self._thread.start()
        self.call(self.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.call(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: object) -> None:
        """Do this in the receiver's loop, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)  # type: ignore[arg-type]

    def wait_until(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Return when the condition holds."""

        async def wait() -> None:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(seconds + 5)
