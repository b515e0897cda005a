"""What a program with OpenTelemetry's SDK does. Prints what it saw as JSON."""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
RESOURCE = Resource.create({"unimeter.account": "otel"})


class Twice(OTLPMetricExporter):
    """Exports everything a second time, as a sender does that lost the answer."""

    def export(self, *arguments: object, **more: object) -> MetricExportResult:
        super().export(*arguments, **more)
        return super().export(*arguments, **more)


def metrics(url: str) -> bool:
    exporter = Twice(
        endpoint=f"{url}/v1/otlp/v1/metrics",
        compression=Compression.Gzip,
        preferred_temporality=DELTA,
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    meter = provider.get_meter("session")
    requests, memory = meter.create_counter("requests"), meter.create_gauge("memory")
    tokens = meter.create_histogram("gen_ai.client.token.usage")
    exported = True
    for at in range(1, 4):
        requests.add(at, {"model": "otel"})
        memory.set(at * 100)
        tokens.record(at * 10, {"gen_ai.token.type": "input"})
        exported &= provider.force_flush()
    provider.shutdown()
    return exported


def logs(url: str) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    exporter = OTLPLogExporter(endpoint=f"{url}/v1/otlp/v1/logs")
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("session")
    for at in range(5):
        logger.emit(
            LogRecord(
                timestamp=1_793_880_000 * 10**9 + at,
                severity_number=SeverityNumber.INFO,
                event_name="gen_ai.client.inference.operation.details",
                attributes={"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7},
            )
        )
    provider.shutdown()


exported = metrics(sys.argv[2])
logs(sys.argv[2])
print(json.dumps({"exported": exported}))
