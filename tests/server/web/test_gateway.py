"""The node without a socket: whoever waits for an answer is told when there will be none."""

from __future__ import annotations

import asyncio

import pytest
from tests.server.web.running import running

from unimeter.errors import ConnectionError
from unimeter.server.web.gateway import ITSELF, Gateway
from unimeter.wire.messages import MetricList


def test_who_waits_is_told_when_the_gateway_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:

        async def body() -> None:
            connections = server.server.clients._connections
            before = set(connections)
            gateway = Gateway(server.server.clients)
            monkeypatch.setattr(type(gateway._connection), "take_frames", lambda *_: None)
            waiting = asyncio.ensure_future(gateway.ask(MetricList(), ITSELF))
            while not gateway.statistics()["gateway_waiting"]:
                await asyncio.sleep(0)
            gateway.close()
            with pytest.raises(ConnectionError, match="stopping"):
                await asyncio.wait_for(waiting, 5)
            assert gateway.statistics()["gateway_waiting"] == 0
            assert gateway._transport.is_closing() and gateway._connection.is_gone
            assert set(connections) == before, "it left"
            gateway.close()  # a second time is no harm

        server.run(body())
