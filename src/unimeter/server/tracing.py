"""Spans of what a server does, sent by OpenTelemetry where somebody asked for them.

Owns the names of the spans and how they hang together:

    POST /v1/events             a request by HTTP; continues the caller's `traceparent`
    ├─ unimeter.ingest          a batch, from the gateway to its reply
    │  └─ unimeter.commit       the entry it went into: proposed, on a majority of disks, applied
    unimeter.query              any other request, by HTTP or on the binary port
    unimeter.commit             an entry of the binary port alone begins a trace of its own
    unimeter.webhook            one attempt to deliver an alert

One entry carries many batches: it is a child of the first that is traced, and links to the others.

It is on where OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ twin) is set, and obeys the other
standard variables (sampler, headers, resource). Spans are sent by a thread of the exporter's, in
batches; when the receiver is away they are dropped, and nothing waits. Without it nothing
is imported, and the node's path has one comparison with None more for each entry.

No account, key, query string or body is ever an attribute.

Rejected: instrumenting Starlette with its package. It names spans by URL, and cannot see the log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unimeter.server.log import Notice
from unimeter.version import VERSION

if TYPE_CHECKING:
    from unimeter.engine.applied import Applied
    from unimeter.server.config import Config
    from unimeter.server.waiting import Waiting

ASKED_MAX = 10_000  # spans of requests under way; more are not begun
LINKS_MAX = 64  # of one entry
SEND_SECONDS = 3.0  # for one batch of spans with its repetitions, where the environment is silent
_ON = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    return exporter == "otlp" and any(environment.get(name) for name in _ON)


def from_environment(
    environment: Mapping[str, str], config: Config, say: Callable[[str], None]
) -> Tracing | None:
    """Traces to where the environment says; None, and nothing imported, where it does not."""
    if not is_wanted(environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        text = "traces are asked for (OTEL_...) and need: pip install 'unimeter[otel]'"
        say(Notice(text, event="tracing", level="warning"))
        return None
    found = Tracing(config)
    is_given = any(environment.get(name) for name in _TIMEOUTS)
    exporter = OTLPSpanExporter(timeout=None if is_given else SEND_SECONDS)
    found.provider.add_span_processor(BatchSpanProcessor(exporter))
    say(Notice("traces are sent by OTLP", event="tracing"))
    return found


class Tracing:
    """The spans of one server. Its methods belong to the server's thread."""

    def __init__(self, config: Config) -> None:
        """Give `provider` a processor before anything is to be seen."""
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider

        own = {
            "service.name": "unimeter",
            "service.version": VERSION,
            "service.instance.id": str(config.node_id),
        }
        if config.cluster_id:
            own["service.namespace"] = config.cluster_id
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource)
        self._tracer = self.provider.get_tracer("unimeter", VERSION)
        self._trace, self._textmap = trace, propagate.get_global_textmap()
        self._asked: dict[tuple[int, int], Any] = {}  # spans by (slot, request id)
        self._batches: dict[tuple[int, int], Any] = {}  # contexts of the gateway's, the same

    # --- HTTP ------------------------------------------------------------------------

    @contextmanager
    def http(self, route: str, scope: Mapping[str, Any], exchange: Any) -> Iterator[None]:
        """Around one request; `exchange.status` is known when it ends."""
        carrier = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        with self._tracer.start_as_current_span(
            f"{scope['method']} {route}",
            context=self._textmap.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "http.route": route},
        ) as span:
            try:
                yield
            finally:
                if exchange.status:
                    span.set_attribute("http.response.status_code", exchange.status)
                if exchange.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)

    # --- batches and entries ------------------------------------------------------------

    @contextmanager
    def batch(self, slot: int, request_id: int) -> Iterator[None]:
        """Around one batch of the gateway, until its reply."""
        with self._tracer.start_as_current_span("unimeter.ingest") as span:
            self._batches[slot, request_id] = span.get_span_context()
            try:
                yield
            finally:
                self._batches.pop((slot, request_id), None)

    def committed(self, waiting: Waiting, applied: Applied) -> None:
        """An entry that was proposed here is on a majority of disks, and applied."""
        contexts = self._contexts_in(waiting.routes)
        parent = None
        if contexts:
            parent = self._trace.set_span_in_context(self._trace.NonRecordingSpan(contexts[0]))
        span = self._tracer.start_span(
            "unimeter.commit",
            context=parent,
            start_time=waiting.timestamp_ns,
            links=[self._trace.Link(context) for context in contexts[1:]],
            attributes={
                "unimeter.index": applied.index,
                "unimeter.bytes": len(waiting.body),
                "unimeter.requests": len(waiting.routes) // 24,
                "unimeter.events.stored": applied.stored,
                "unimeter.events.duplicate": applied.duplicates,
                "unimeter.events.refused": applied.refused,
            },
        )
        span.end()

    def _contexts_in(self, routes: bytes) -> list[Any]:
        """Of the traced batches in an entry, in their order."""
        found: list[Any] = []
        if self._batches:
            for _, place, request_id in struct.iter_unpack("<QQQ", routes):
                context = self._batches.get((place & 0xFFFFFFFF, request_id))
                if context is not None and len(found) <= LINKS_MAX:
                    found.append(context)
        return found

    # --- other requests -------------------------------------------------------------------

    def asked(self, slot: int, request_id: int, kind: str) -> None:
        """A request other than ingest was taken in; inside an HTTP request it is its child."""
        if len(self._asked) < ASKED_MAX:
            span = self._tracer.start_span("unimeter.query", attributes={"unimeter.request": kind})
            self._asked[slot, request_id] = span

    def answered(self, slot: int, request_id: int, error: str = "") -> None:
        """It has its answer, or the name of an error."""
        span = self._asked.pop((slot, request_id), None)
        if span is not None:
            if error:
                span.set_attribute("error.type", error)
            span.end()

    def left(self, slot: int) -> None:
        """A connection is gone: nothing of it will be answered."""
        for key in [key for key in self._asked if key[0] == slot]:
            self.answered(*key, error="connection lost")

    # --- webhooks ----------------------------------------------------------------------------

    @contextmanager
    def webhook(self, webhook: str, position: int) -> Iterator[Any]:
        """Around one attempt to deliver an alert; the span is given, for `set_attribute`."""
        attributes: dict[str, Any] = {"unimeter.webhook": webhook, "unimeter.alert": position}
        with self._tracer.start_as_current_span(
            "unimeter.webhook", kind=self._trace.SpanKind.CLIENT, attributes=attributes
        ) as span:
            yield span

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what is left; takes SEND_SECONDS where nobody takes it."""
        self.provider.shutdown()
