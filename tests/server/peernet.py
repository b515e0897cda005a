"""Nodes that are nothing but their `Peers`, with a handler that writes down what it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from unimeter.raft.messages import Entry, Message
from unimeter.server.peers import Peers, PeerTiming
from unimeter.wire.peer import PeerFramer
from unimeter.wire.peer_handshake import Handshake
from unimeter.wire.peer_hello import PeerHello

CLUSTER = bytes(range(16))
SECRET = b"0123456789abcdef secret"
MEMBERS = (1, 2, 3)
NOW_NS = 1_767_225_600 * 10**9
QUICK = PeerTiming(
    tick_seconds=0.02,
    handshake_ticks=10,
    silent_ticks=10,
    settled_seconds=0.0,
    pause_seconds_min=0.002,
    pause_seconds_max=0.02,
    close_seconds=0.2,
    transfer_give_up_ticks=1_000,
)
WAIT_SECONDS = 20


def hello_of(node_id: int, **changes: Any) -> PeerHello:
    plain = PeerHello(
        CLUSTER,
        node_id,
        MEMBERS,
        format_version=1,
        incarnation=100 + node_id,
        process=1000 + node_id,
        clock_ns=NOW_NS,
        advertise=f"127.0.0.1:700{node_id}",
        address=f"127.0.0.1:900{node_id}",
    )
    return replace(plain, **changes)


class Handler:
    """Writes down what it is told."""

    def __init__(self, node_id: int, **changes: Any) -> None:
        self.own = hello_of(node_id, **changes)
        self.judgement = ""
        self.entries: dict[int, Entry] = {}
        self.messages: list[Message] = []
        self.frames: list[tuple[int, int, bytes]] = []
        self.ups: list[int] = []
        self.downs: list[tuple[int, bool]] = []
        self.refusals: list[tuple[int, str]] = []
        self.failures: list[BaseException] = []
        self.snapshots: list[tuple[Message, str]] = []
        self.snapshot_verdict = ""

    def hello(self) -> PeerHello:
        return self.own

    def judge(self, hello: PeerHello) -> str:
        return self.judgement

    def on_message(self, message: Message) -> None:
        self.messages.append(message)

    def on_frame(self, sender: int, kind: int, payload: bytes) -> None:
        self.frames.append((sender, kind, payload))

    def on_up(self, hello: PeerHello) -> None:
        self.ups.append(hello.node_id)

    def on_down(self, node_id: int, is_gone: bool) -> None:
        self.downs.append((node_id, is_gone))

    def on_refused(self, node_id: int, reason: str) -> None:
        self.refusals.append((node_id, reason))

    def fetch(self, index: int) -> Entry | None:
        return self.entries.get(index)

    def on_failure(self, error: BaseException) -> None:
        self.failures.append(error)

    def on_snapshot(self, message: Message, path: str) -> str:
        self.snapshots.append((message, path))
        return self.snapshot_verdict


class Node:
    """One `Peers` and its handler."""

    def __init__(
        self, node_id: int, ports: dict[int, int], secret: bytes = SECRET, **changes: Any
    ) -> None:
        options = {
            name: changes.pop(name)
            for name in ("timing", "incoming", "platform")
            if name in changes
        }
        options.setdefault("timing", QUICK)
        self.said: list[str] = []
        self.handler = Handler(node_id, **changes)
        addresses = {each: ("127.0.0.1", port) for each, port in ports.items()}
        self.peers = Peers(
            asyncio.get_running_loop(),
            node_id,
            addresses,
            secret,
            self.handler,
            self.said.append,
            **options,
        )

    @property
    def count(self) -> dict[str, int]:
        return self.peers.statistics()


class Net:
    """Ports for all members, and the nodes that were started on them."""

    def __init__(self) -> None:
        self.sockets = {node_id: free_socket() for node_id in MEMBERS}
        self.ports = {n: taken.getsockname()[1] for n, taken in self.sockets.items()}
        self.nodes: list[Node] = []

    async def start(self, node_id: int, **changes: Any) -> Node:
        """Start a node on its port; a second time on the same port again."""
        ports = {n: self.ports[n] for n in changes.pop("to", MEMBERS)}
        node = Node(changes.pop("says", node_id), ports, **changes)
        listening = self.sockets.pop(node_id, None) or free_socket(self.ports[node_id])
        await node.peers.start(listening)
        self.nodes.append(node)
        return node

    async def stop(self, node: Node) -> None:
        await node.peers.close()
        self.nodes.remove(node)

    async def close(self) -> None:
        for node in list(self.nodes):
            failures = node.handler.failures
            await self.stop(node)
            assert not failures, failures
        for taken in self.sockets.values():
            taken.close()


@asynccontextmanager
async def net() -> AsyncIterator[Net]:
    """A net whose nodes must not have failed by the end."""
    made = Net()
    try:
        yield made
    finally:
        await made.close()


def free_socket(port: int = 0) -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.setblocking(False)
    return taken


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Let the loop run until `condition()`."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.001)


class Raw:
    """A stranger with a socket, who can do the handshake if it knows the secret."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.framer = PeerFramer(1 << 26)
        self.received = b""

    @classmethod
    async def dial(cls, port: int) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def frame(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end of the stream."""
        while True:
            found = self.framer.next_frame()
            if found is not None:
                return found[0], bytes(found[1])
            try:
                data = await asyncio.wait_for(self.reader.read(1 << 16), WAIT_SECONDS)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self.received += data
            self.framer.receive_data(data)

    async def shake(self, handshake: Handshake) -> Handshake:
        """Do a whole handshake, or as much as the other side lets us."""
        self.writer.write(handshake.begin())
        while not handshake.has_ended:
            frame = await self.frame()
            if frame is None:
                break
            self.writer.write(handshake.receive(*frame))
        return handshake

    async def is_closed(self) -> bool:
        """Whether nothing but the end of the stream comes."""
        return await self.frame() is None

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


@asynccontextmanager
async def fake(
    sock: socket.socket, behave: Callable[[Raw], Awaitable[None]]
) -> AsyncIterator[None]:
    """Somebody else listening where a node should be."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        raw = Raw(reader, writer)
        try:
            await behave(raw)
        finally:
            await raw.close()

    server = await asyncio.start_server(run, sock=sock)
    try:
        yield
    finally:
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # what was accepted gets its task
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def shaking(
    hello: PeerHello, *, is_dialler: bool = True, secret: bytes = SECRET, nonce: bytes = bytes(32)
) -> Handshake:
    """A stranger's handshake."""
    return Handshake(
        is_dialler=is_dialler,
        secret=secret,
        nonce=nonce,
        hello=lambda: hello,
        judge=lambda own, other: "",
    )


def loops() -> list[str]:
    """The event loops to test on."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return ["asyncio"]
    return ["asyncio", "uvloop"]


def on_net(body: Callable[[Net], Awaitable[None]], loop: str = "asyncio") -> None:
    """Run `body` with a net on a loop of its own."""

    async def inside() -> None:
        async with net() as made:
            await body(made)

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(inside())
