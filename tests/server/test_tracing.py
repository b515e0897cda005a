"""Spans: what hangs under what, what is in them, and that nothing is there when nobody asked."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from unimeter import AggType, AlertThreshold, AsyncClient, Event, MetricSchema, current_month
from unimeter.demo.process import free_port
from unimeter.server.config import Config
from unimeter.server.server import Server
from unimeter.server.tracing import Tracing, from_environment, is_wanted

export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
Body = Callable[[Server, Any], Awaitable[None]]


def traced(directory: Path, body: Body, **options: Any) -> list[Any]:
    """The spans of a server that `body` was done with."""
    exporter = in_memory.InMemorySpanExporter()

    async def run() -> None:
        config = Config(data_dir=str(directory), port=0, http_port=0, **options)
        server = Server(config=config)
        server.tracing = Tracing(config)
        server.tracing.provider.add_span_processor(export.SimpleSpanProcessor(exporter))
        async with server:
            async with AsyncClient([server.address]) as client:
                await client.metrics.create(MetricSchema("api_calls", AggType.COUNT))
            exporter.clear()
            await body(server, exporter)

    asyncio.run(run())
    return list(exporter.get_finished_spans())


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def http_client(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=10)


def test_a_batch_by_http_is_one_trace_from_the_caller_to_the_disk(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with http_client(server) as client:
            events = [{"account": "a-customer", "metric": "api_calls"}] * 3
            answer = await client.post("/v1/events", json=events, headers=PARENT)
            assert answer.status_code == 200

    spans = traced(tmp_path / "data", body)
    (request,), (ingest,), (commit,) = (
        named(spans, name) for name in ("POST /v1/events", "unimeter.ingest", "unimeter.commit")
    )
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == CALLER
    assert ingest.parent.span_id == request.context.span_id
    assert commit.parent.span_id == ingest.context.span_id
    assert {one.context.trace_id for one in (request, ingest, commit)} == {int(TRACE, 16)}
    assert request.attributes["http.route"] == "/v1/events"
    assert request.attributes["http.response.status_code"] == 200
    assert commit.attributes["unimeter.events.stored"] == 3
    assert request.start_time <= ingest.start_time <= ingest.end_time <= request.end_time
    assert commit.end_time <= ingest.end_time, "it is applied before it is answered"


def test_an_entry_of_the_binary_port_is_a_trace_of_its_own(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with AsyncClient([server.address]) as client:
            await client.ingest([Event(1, "api_calls")] * 5)
            await client.ingest([Event(1, "unknown")])

    commits = named(traced(tmp_path / "data", body), "unimeter.commit")
    assert [span.parent for span in commits] == [None, None]
    assert commits[0].attributes["unimeter.events.stored"] == 5
    assert commits[1].attributes["unimeter.events.refused"] == 1
    assert commits[1].attributes["unimeter.index"] > commits[0].attributes["unimeter.index"]


def test_one_entry_of_many_batches_links_to_each(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with http_client(server) as client:
            events = [{"account": 1, "metric": "api_calls"}]
            await asyncio.gather(*(client.post("/v1/events", json=events) for _ in range(30)))

    spans = traced(tmp_path / "data", body)
    batches = {span.context.span_id for span in named(spans, "unimeter.ingest")}
    held = []
    for commit in named(spans, "unimeter.commit"):
        held += [commit.parent.span_id, *(link.context.span_id for link in commit.links)]
    assert len(batches) == 30 and sorted(held) == sorted(batches), "each once, none left out"


def test_queries_are_spans_on_both_ports(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with AsyncClient([server.address]) as client:
            exporter.clear()
            await client.query(1, "api_calls", current_month())
        async with http_client(server) as http:
            answer = await http.get("/v1/metrics", headers=PARENT)
            assert answer.status_code == 200
        assert not server.tracing._asked, "each has ended"

    spans = traced(tmp_path / "data", body)
    queries = named(spans, "unimeter.query")
    (alone,) = [span for span in queries if span.attributes["unimeter.request"] == "UsageQuery"]
    assert alone.parent is None
    (request,) = named(spans, "GET /v1/metrics")
    inside = [span for span in queries if span.parent is not None]
    assert inside and all(one.parent.span_id == request.context.span_id for one in inside)


def test_a_refused_query_has_its_error_and_a_lost_client_ends_its_spans(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with AsyncClient([server.address]) as client:
            with pytest.raises(Exception, match="unknown"):
                await client.query(1, "unknown", current_month())
        tracing = server.tracing
        assert tracing is not None
        tracing.asked(99, 1, "Query")
        tracing.left(99)
        assert not tracing._asked

    spans = named(traced(tmp_path / "data", body), "unimeter.query")
    errors = {span.attributes.get("error.type") for span in spans}
    assert {"not_found", "connection lost"} <= errors


def test_a_failed_request_is_an_error_and_names_no_account(tmp_path: Path) -> None:
    async def body(server: Server, exporter: Any) -> None:
        async with http_client(server) as client:
            wrong = await client.post("/v1/events?token=ump_s", json=[{"account": "a-customer"}])
            assert wrong.status_code == 400
            await client.get("/v1/accounts/a-customer")

    spans = traced(tmp_path / "data", body)
    (wrong,) = named(spans, "POST /v1/events")
    assert wrong.attributes["http.response.status_code"] == 400
    words = str([(span.name, dict(span.attributes), span.events) for span in spans])
    assert "a-customer" not in words and "ump_s" not in words


def test_a_delivery_is_a_span(tmp_path: Path) -> None:
    arrived = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        arrived.set()

    async def body(server: Server, exporter: Any) -> None:
        receiver = await asyncio.start_server(receive, "127.0.0.1", 0)
        port = receiver.sockets[0].getsockname()[1]
        async with AsyncClient([server.address]) as client:
            schema = MetricSchema("limited", AggType.COUNT, thresholds=[AlertThreshold("two", 2)])
            await client.metrics.create(schema)
            await client.webhooks.create(f"http://127.0.0.1:{port}/hook")
            await client.ingest([Event(1, "limited")] * 3)
            await arrived.wait()
            while not named(exporter.get_finished_spans(), "unimeter.webhook"):
                await asyncio.sleep(0.005)  # of the condition, not for it
        receiver.close()
        await receiver.wait_closed()

    (span, *_) = named(traced(tmp_path / "data", body), "unimeter.webhook")
    assert span.attributes["http.response.status_code"] == 204
    assert span.attributes["unimeter.alert"] == 1 and span.kind.name == "CLIENT"


# --- on and off ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], expected: bool) -> None:
    assert is_wanted(variables) is expected


def test_without_the_extra_a_node_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    said: list[str] = []
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert from_environment(wanted, Config(), said.append) is None
    assert "unimeter[otel]" in said[0]


@pytest.mark.parametrize("variable", ["OTEL_SERVICE_NAME", ""])
def test_the_service_has_a_name_that_the_environment_may_change(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "billing")
    attributes = Tracing(Config(node_id=1)).provider.resource.attributes
    assert attributes["service.name"] == ("billing" if variable else "unimeter")
    assert attributes["service.instance.id"] == "1"


OFF = """
import asyncio, sys
import unimeter.server.process
from unimeter.server.server import Server
async def main():
    async with Server(":memory:", port=0, http_port=0) as server:
        assert server.tracing is None and server.node.tracing is None
asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_nothing_of_it_is_imported_when_it_is_off() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", OFF], check=True, timeout=60)


# --- a process and a receiver ------------------------------------------------------------------


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes OTLP as a collector does."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.bodies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run_process(directory: Path, endpoint: str) -> tuple[int, str, float]:
    """Serve, ask once by HTTP, end: exit code, what was said, seconds that the end took."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("UNIMETER_")}
    env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "UNIMETER_LOG_FORMAT": "json"}
    child = subprocess.Popen(
        [sys.executable, "-m", "unimeter", "serve", "--data-dir", str(directory), "--port", "0",
         "--http-port", str(port)],
        stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    assert child.stderr is not None
    lines = []
    while not lines or "serving" not in lines[-1]:
        lines.append(child.stderr.readline())
        assert lines[-1], lines
    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status").close()
    child.send_signal(signal.SIGTERM)
    began = time.monotonic()
    lines.append(child.stderr.read())
    code = child.wait(60)
    child.stderr.close()
    return code, "".join(lines), time.monotonic() - began


def test_a_process_sends_its_spans_before_it_ends(tmp_path: Path, collector: Any) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    code, text, _ = run_process(
        tmp_path / "data", f"http://127.0.0.1:{collector.server_address[1]}"
    )
    assert code == 0, text
    names, services = set(), set()
    for path, body in collector.bodies:
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            services |= {one.value.string_value for one in resource.resource.attributes
                         if one.key == "service.name"}  # fmt: skip
            names |= {span.name for scope in resource.scope_spans for span in scope.spans}
    assert services == {"unimeter"} and "GET /v1/status" in names


def test_a_receiver_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    code, text, seconds = run_process(tmp_path / "data", f"http://127.0.0.1:{free_port()}")
    assert code == 0 and '"stopped"' in text
    assert seconds < 15, "what can't be sent is dropped"
