"""A server on a thread of its own, for tests that talk HTTP to it as a program would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import httpx

from unimeter.server.server import Server

T = TypeVar("T")
START_SECONDS = 20.0


class Running:
    """The server, a client of its HTTP side, and a way to run something on its loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self._loop = server, loop
        self.url = f"http://127.0.0.1:{server.http_port}"
        self.http = httpx.Client(base_url=self.url, timeout=30.0)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30.0)

    def metric(self, code: str, kind: str = "sum", **more: Any) -> None:
        """Create a metric."""
        reply = self.http.post("/v1/metrics", json={"code": code, "type": kind, **more})
        assert reply.status_code in (200, 201), reply.text

    def send(
        self, body: Any, kind: str = "application/json", status: int = 200, **headers: str
    ) -> dict[str, Any]:
        """POST to /v1/events; `body` is bytes, or what becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self.http.post(
            "/v1/events", content=content, headers={"Content-Type": kind, **given}
        )
        assert reply.status_code == status, f"{reply.status_code}: {reply.text[:2000]}"
        found: dict[str, Any] = reply.json()
        return found

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        """GET as JSON."""
        reply = self.http.get(path, params=params or None)
        assert reply.status_code == status, f"{reply.status_code}: {reply.text[:2000]}"
        return reply.json()

    def total(self, account: Any, metric: str, **params: Any) -> Any:
        """The `value` of a total."""
        return self.get("/v1/totals", account=account, metric=metric, **params)["value"]


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server in memory, unless `data_dir` says where; stopped at the end."""
    options.setdefault("data_dir", ":memory:")
    loop = asyncio.new_event_loop()
    ready: list[Server] = []
    failed: list[BaseException] = []
    started, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with Server(port=0, http_port=0, **options) as server:
            ready.append(server)
            started.set()
            await ended.wait()

    def work() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="server of a test")
    thread.start()
    started.wait(START_SECONDS)
    try:
        if failed:
            raise failed[0]
        found = Running(ready[0], loop)
        with found.http:
            yield found
    finally:
        if not loop.is_closed() and thread.is_alive():
            loop.call_soon_threadsafe(ended.set)
        thread.join(30.0)
        loop.close()
    if failed:
        raise failed[0]
