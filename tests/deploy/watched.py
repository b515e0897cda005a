"""What /metrics of running nodes really has: names, types, labels and their values.

One node that has seen some of everything, and three that are a cluster. The exposition is read by
prometheus_client's parser, which is the reference for the format.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.server.certificates import CURVE, openssl

from unimeter import AggType, AsyncClient, Event, MetricSchema
from unimeter.demo.process import free_port
from unimeter.server.config import Config
from unimeter.server.server import Server

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@dataclass
class Scrape:
    """Every sample of one or more pages: label values by label, by name."""

    text: str = ""
    names: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    types: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Add a page."""
        self.text += text
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                labels = self.names[sample.name]
                for name, value in sample.labels.items():
                    labels.setdefault(name, set()).add(value)
                self.values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return self.values[name, tuple(sorted(labels.items()))]


async def page(server: Server) -> str:
    """One scrape, as Prometheus does it."""
    scheme, verify = "http", True
    if server.config.tls_cert:
        scheme, verify = "https", ssl.create_default_context(cafile=server.config.tls_cert)
    async with httpx.AsyncClient(verify=verify) as client:
        url = f"{scheme}://127.0.0.1:{server.http_port}/metrics"
        answer = await client.get(url, timeout=10)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return answer.text


async def busy_node(server: Server) -> None:
    """A little of everything: events stored, repeated and refused, an alert, requests by HTTP."""
    events = [Event(42, "api_calls", id=f"e{n}") for n in range(10)]
    async with AsyncClient([server.address]) as client:
        await client.metrics.create(MetricSchema("api_calls", AggType.COUNT))
        await client.ingest(events)
        await client.ingest([*events, Event(42, "unheard_of"), Event(42, "unheard_of_too")])
    url = f"http://127.0.0.1:{server.http_port}"
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        for path in ("/health", "/ready", "/v1/status", "/nowhere/a-customer"):
            await http.get(path)
        body = [{"account": "a-customer", "metric": "api_calls", "id": f"h{n}"} for n in range(5)]
        answer = await http.post("/v1/events", json=body)
        assert answer.status_code == 200, answer.text


@contextlib.asynccontextmanager
async def one_node(directory: Path, **options: object) -> AsyncIterator[Server]:
    """A node by itself."""
    async with Server(directory, port=0, http_port=0, **options) as server:
        yield server


def certificate(directory: Path, days: int = 30) -> dict[str, str]:
    """The options of a node with a certificate that it signed itself."""
    cert, key = directory / "tls.crt", directory / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    openssl(
        "req", "-x509", *CURVE, "-days", str(days), "-keyout", str(key), "-out", str(cert), *subject
    )
    return {"tls_cert": str(cert), "tls_key": str(key)}


@contextlib.asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[list[Server]]:
    """A cluster that has a leader, in this process."""
    ports = [free_port() for _ in range(3)]
    peers = ",".join(f"{n}=127.0.0.1:{port}" for n, port in enumerate(ports, 1))
    servers = [
        Server(
            config=Config(
                data_dir=str(directory / str(node)),
                port=0,
                http_port=0,
                node_id=node,
                peers=peers,
                cluster_id="watched",
                cluster_secret="0123456789abcdef0123456789abcdef",
            )
        )
        for node in (1, 2, 3)
    ]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        while not all(is_up(server) for server in servers):
            await asyncio.sleep(0.01)  # of the condition, not for it
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def is_up(server: Server) -> bool:
    """Whether it has a leader, and knows that nobody needs a key."""
    return bool(server.cluster and not server.cluster.readiness and server.auth.is_open)
