"""OpenTelemetry's metrics and logs over HTTP, counted: OTLP/HTTP in JSON and protobuf.

    POST /v1/otlp/v1/metrics    OTEL_EXPORTER_OTLP_ENDPOINT=http://node:9090/v1/otlp
    POST /v1/otlp/v1/logs

Owns the two encodings and the answer. A point or record that is refused is counted in
``partial_success`` with the reason of the first ones, as the protocol wants: the status is 200,
because a sender that got an error would send all of it again. In JSON, ``refusals`` names
each. What the mapping file ignores is said there too, without being a refusal.

Protobuf needs the published messages (the package opentelemetry-proto), which are an extra:
a node without them answers 415 with the sentence to install them. JSON needs nothing.

Records of large language models: a log record with ``gen_ai.usage.input_tokens`` and
``gen_ai.usage.output_tokens`` feeds the metrics of these names, each token count as its value.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.mapping import Rule
from unimeter.server.web.answers import JSON, answer
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.amounts import exact_json
from unimeter.server.web.compatible.arrivals import IGNORED, Receipt, in_turns, receive
from unimeter.server.web.compatible.cloudevents import kind_of
from unimeter.server.web.compatible.drafts import Item, Shape
from unimeter.server.web.compatible.otlp_items import LOGS, METRICS, points, records
from unimeter.server.web.compatible.otlp_json import LogsRequest, MetricsRequest
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import POSITION, Problem, bad

PROTOBUF: Final = "application/x-protobuf"
REASONS_MAX: Final = 5  # in the message of a partial success: it goes into somebody's log
TOKENS: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")


@dataclass(frozen=True)
class Signal:
    """One of the two routes."""

    name: str
    shape: Shape
    request: Any  # of JSON
    items: Callable[[Any], Iterator[Item]]
    messages: str  # the module of protobuf's classes
    request_class: str
    response_class: str
    rejected: str  # the name of the count
    noun: str


_MODULE: Final = "opentelemetry.proto.collector.{0}.v1.{0}_service_pb2"
METRICS_SIGNAL: Final = Signal(
    "metrics", METRICS, MetricsRequest, points, _MODULE.format("metrics"),
    "ExportMetricsServiceRequest", "ExportMetricsServiceResponse", "rejected_data_points",
    "data points",
)  # fmt: skip
LOGS_SIGNAL: Final = Signal(
    "logs", LOGS, LogsRequest, records, _MODULE.format("logs"),
    "ExportLogsServiceRequest", "ExportLogsServiceResponse", "rejected_log_records",
    "log records",
)  # fmt: skip


async def metrics(call: Call) -> Response:
    """Count data points."""
    return await _export(call, METRICS_SIGNAL)


async def logs(call: Call) -> Response:
    """Count log records."""
    return await _export(call, LOGS_SIGNAL)


async def _export(call: Call, signal: Signal) -> Response:
    kind = kind_of(call)
    if kind == JSON:
        request = exact_json(await call.tree_body(), signal.request)
    elif kind == PROTOBUF:
        request = parsed(signal, await call.tree_body())
    else:
        text = f"content-type {kind[:60]!r} is not read here; send {JSON} or {PROTOBUF}"
        raise Problem(415, "unsupported", text)
    items = [item async for item in in_turns(signal.items(request))]
    receipt = await receive(call, signal.shape, items, token_rules)
    message = _message(receipt, signal)
    if kind == JSON:
        return _in_json(receipt, signal, message)
    return _in_protobuf(receipt, signal, message)


def token_rules(item: Item) -> list[Rule]:
    """Rules for records that name the tokens of a language model."""
    tags = item.view["attributes"]
    if "kind" in item.view:
        return []  # a data point: its number is its value
    return [Rule("*", name, value=f"attributes.{name}") for name in TOKENS if name in tags]


# --- protobuf ----------------------------------------------------------------------


def classes(signal: Signal) -> Any:
    """The module with a signal's messages; a 415 where the extra is not installed."""
    try:
        return importlib.import_module(signal.messages)
    except ImportError:
        text = (
            "this node reads OTLP as JSON only: install the extra (pip install 'unimeter[otlp]') "
            "for protobuf, or have the sender use OTEL_EXPORTER_OTLP_PROTOCOL=http/json"
        )
        raise Problem(415, "unsupported", text) from None


def parsed(signal: Signal, body: bytes) -> Any:
    """A request in protobuf."""
    request = getattr(classes(signal), signal.request_class)()
    try:
        request.ParseFromString(body)
    except Exception as error:  # the class of the error is the extra's
        raise bad("body", f"is not protobuf: {type(error).__name__}") from None
    return request


# --- answers -----------------------------------------------------------------------


def _message(receipt: Receipt, signal: Signal) -> str:
    """What to tell whoever reads the sender's log; "" if there is nothing to say."""
    said = []
    for refusal in receipt.refusals[:REASONS_MAX]:
        said.append(f"[{refusal['index']}] {refusal['reason']}")
    more = receipt.refused - len(said)
    if more > 0:
        said.append(f"and {more} more")
    ignored = receipt.count(IGNORED)
    if ignored:
        said.append(f"{ignored} {signal.noun} are ignored by the mapping")
    return "; ".join(said)


def _in_json(receipt: Receipt, signal: Signal, message: str) -> Response:
    if not message:
        return answer({}, receipt.position)
    head, *tail = signal.rejected.split("_")
    rejected = head + "".join(word.capitalize() for word in tail)
    partial = {rejected: str(receipt.refused), "errorMessage": message}
    return answer({"partialSuccess": partial, "refusals": receipt.refusals}, receipt.position)


def _in_protobuf(receipt: Receipt, signal: Signal, message: str) -> Response:
    response = getattr(classes(signal), signal.response_class)()
    if message:
        setattr(response.partial_success, signal.rejected, receipt.refused)
        response.partial_success.error_message = message
    headers = {POSITION: str(receipt.position)}
    return Response(response.SerializeToString(), 200, headers, PROTOBUF)


_PARTIAL: Final = {
    "type": "object",
    "properties": {
        "partialSuccess": {
            "type": "object",
            "properties": {"errorMessage": {"type": "string"}},
        },
        "refusals": {"type": "array"},
    },
}


def _endpoint(signal: Signal, handler: Any) -> Endpoint:
    return Endpoint(
        "POST",
        f"/v1/otlp/v1/{signal.name}",
        handler,
        Scope.INGEST,
        f"Count OpenTelemetry {signal.name}",
        f"OTLP/HTTP. Refused {signal.noun} are told in partial_success; the others are stored.",
        "compatible",
        body={JSON: {"type": "object"}, PROTOBUF: {"type": "string", "format": "binary"}},
        answers={200: _PARTIAL, 413: None, 415: None},
    )


ENDPOINTS = [_endpoint(METRICS_SIGNAL, metrics), _endpoint(LOGS_SIGNAL, logs)]
