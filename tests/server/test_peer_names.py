"""Peers by name: looked up at each attempt, so a node may come back with another address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from unimeter.demo.process import free_port
from unimeter.server.config import Config
from unimeter.server.server import Server

HERE, NOWHERE = "127.0.0.1", "127.0.0.9"


class NamedLoop(asyncio.SelectorEventLoop):
    """A loop with a name server of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: dict[str, str] = {}
        self.asked: dict[str, int] = {}

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if host in self.addresses:
            self.asked[host] = self.asked.get(host, 0) + 1
            host = self.addresses[host]
        return await super().getaddrinfo(host, port, **options)


def test_a_name_that_comes_to_mean_another_address_is_followed(tmp_path: Path) -> None:
    names = {node: f"unimeter-{node}.nodes" for node in (1, 2, 3)}
    ports = {node: free_port() for node in names}
    peers = ",".join(f"{node}={name}:{ports[node]}" for node, name in names.items())
    servers = [
        Server(
            config=Config(
                data_dir=str(tmp_path / str(node)),
                port=0,
                http_port=0,
                node_id=node,
                peers=peers,
                peer_bind=HERE,
                cluster_id="named",
                cluster_secret="0123456789abcdef0123456789abcdef",
            )
        )
        for node in names
    ]

    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NamedLoop)
        loop.addresses = dict.fromkeys(names.values(), NOWHERE)
        await asyncio.gather(*(server.start() for server in servers))
        while min(loop.asked.get(name, 0) for name in names.values()) < 3:
            await asyncio.sleep(0.01)  # of the condition, not for it
        assert not any(server.node.lead for server in servers), "nobody can be reached yet"
        loop.addresses = dict.fromkeys(names.values(), HERE)
        while not all(server.node.lead for server in servers):
            await asyncio.sleep(0.01)
        await asyncio.gather(*(server.stop() for server in servers))

    with asyncio.Runner(loop_factory=NamedLoop) as runner:
        runner.run(body())
