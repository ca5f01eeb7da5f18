"""Logs, traces and metrics: set up once a process, and every instrument declared here.

No secret reaches any of the three. Messages and rows are never logged whole, only named fields, and every text passes
`redact`, which cuts out what looks like a credential.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from opentelemetry.context import Context

_CLOSE_S = 1.0

tracer = trace.get_tracer("broadcast")
_meter = metrics.get_meter("broadcast")
_propagator = TraceContextTextMapPropagator()

RPC_DURATION = _meter.create_histogram(
    "broadcast.rpc.duration", unit="s", description="Duration of unary RPCs, by method and code."
)
STREAMS_OPEN = _meter.create_up_down_counter(
    "broadcast.streams.open", description="Streaming RPCs under way, by method."
)
PASS_DURATION = _meter.create_histogram(
    "broadcast.pass.duration", unit="s", description="Duration of reconciler passes, by outcome."
)
PROVIDER_DURATION = _meter.create_histogram(
    "broadcast.provider.duration",
    unit="s",
    description="Duration of provider calls, by provider, operation and outcome.",
)
STEPS = _meter.create_counter("broadcast.steps", description="Steps that passes carried out, by step.")
ADOPTED = _meter.create_counter("broadcast.adopted", description="Resources found after a call without an answer.")
FENCED = _meter.create_counter(
    "broadcast.fenced", description="Stream keys reset to shut out an egress that may still start."
)
LEASES_LOST = _meter.create_counter(
    "broadcast.leases.lost", description="Passes that stopped because their fence moved on."
)
ORPHANS_SWEPT = _meter.create_counter(
    "broadcast.orphans.swept",
    description="Provider resources without an owner that were removed, by kind. Should be zero.",
)
OLDEST_KEPT = _meter.create_gauge(
    "broadcast.kept.oldest",
    unit="s",
    description="Age of the oldest row that is kept, by table. Of broadcast: of those that were deleted.",
)
DISAGREEMENTS = _meter.create_counter(
    "broadcast.observer.disagreements", description="Broadcasts that the observer woke because the providers differ."
)
POOL_IDLE = _meter.create_gauge(
    "broadcast.pool.idle", description="Live streams that were made ahead and wait for a broadcast, by profile."
)
POOL_TAKEN = _meter.create_counter(
    "broadcast.pool.taken",
    description="Starts that asked the pool for a live stream, by profile and found.",
)
CREDENTIALS_REFUSED = _meter.create_gauge(
    "broadcast.credentials.refused",
    description="1 while a provider refuses the credentials of this replica, by provider. Should be zero.",
)
BUDGET_WAITS = _meter.create_counter(
    "broadcast.budget.waits", description="Calls put off by a rate limit, by budget and rank."
)
SESSIONS = _meter.create_counter("broadcast.sessions", description="Sessions of viewers in KeepAlive, by status.")
PLAYBACK_REPORTS = _meter.create_counter(
    "broadcast.playback.reports", description="Reports of players in KeepAlive, by error."
)
REBUFFERING = _meter.create_histogram(
    "broadcast.playback.rebuffering", unit="s", description="Time that players stood still, as they report it."
)
WEBHOOKS = _meter.create_counter("broadcast.webhooks", description="Webhooks received, by provider and outcome.")
WEBHOOKS_REFUSED = _meter.create_counter(
    "broadcast.webhooks.refused",
    description="Webhooks refused, by provider and reason. Stale: repeated, or a clock is wrong.",
)
CONNECTIONS_CLOSED = _meter.create_counter(
    "broadcast.http.connections.closed",
    description="Connections of the HTTP port closed before they sent a request, by reason.",
)
AUDIENCE_FLUSH = _meter.create_histogram(
    "broadcast.audience.flush.duration",
    unit="s",
    description="Duration of the statements that tell of viewers, by outcome.",
)
AUDIENCE_SKETCHES = _meter.create_gauge(
    "broadcast.audience.sketches", description="Sketches of viewers that this replica holds in memory."
)
WEBHOOK_DURATION = _meter.create_histogram(
    "broadcast.webhook.duration", unit="s", description="From the body to the answer, by provider and outcome."
)

# A stream key or token may come back to us inside a provider's message ("invalid url rtmps://host/app/KEY",
# livekit/egress pkg/errors/errors.go), so every text is redacted, not only fields that are known to be secret. The form
# in which LiveKit shows a key, {abc...xyz}, is no secret: an output is recognised by it.
_NOT_SHOWN = r"(?!\{[^\s{}]{0,3}\.\.\.[^\s{}]{0,3}\}(?:[\s\"',;:)\]}\\]|$))"
_CREDENTIALS = (
    # A key may have any sign in it but blanks and double quotes: the text or its JSON ends there.
    (
        re.compile(r"\b((?:rtmps?|srt)://[^\s/\"']+/(?:[^\s/\"']+/)*+)" + _NOT_SHOWN + r"[^\s\"]+", re.IGNORECASE),
        r"\1***",
    ),
    (re.compile(r"\b(mux|twitch)://" + _NOT_SHOWN + r"[^\s\"]+", re.IGNORECASE), r"\1://***"),
    # Tried only at the begin of a run of such signs: a text of nothing but begins would take seconds.
    (re.compile(r"(?<![\w-])(?=[\w-]++\.[\w-]++\.)((?:[\w-]*?-)??)eyJ[\w-]+\.[\w-]+\.[\w-]*"), r"\1***"),
    (re.compile(r"\b(Basic|Bearer) [\w+/=.~-]+", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://[^\s:/@\"']*):[^\s/\"]*@", re.IGNORECASE), r"\1:***@"),
    (
        re.compile(
            r"((?:stream[_ -]?key|passphrase|secret|password|token)[\\\"']*\s*[=:]\s*[\\\"']*)[^\s\"',}&\\]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)
# Every credential has one of these in it. Most texts have none, and are searched once instead of six times.
_SUSPECT = re.compile(r"://|eyJ|basic |bearer |stream|passphrase|secret|password|token", re.IGNORECASE)


def redact(text: str) -> str:
    """*text* with `***` in place of what looks like a credential, and a blank for each control character."""
    if _SUSPECT.search(text):
        for pattern, replacement in _CREDENTIALS:
            text = pattern.sub(replacement, text)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def traceparent() -> str | None:
    """W3C traceparent of the current span, to be stored with work that is done later. None: there is no span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def context_of(traceparent: str | None) -> Context | None:
    """The context of the call that asked for the work. None: it was not traced."""
    return _propagator.extract({"traceparent": traceparent}) if traceparent else None


def trace_id() -> str:
    """32 hex digits. Empty: there is no span."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = _redacted(value)
    return event


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case None | bool() | int() | float():
            return value
        case dict():
            inner = cast("dict[Any, Any]", value)
            return {redact(str(name)): _redacted(each) for name, each in inner.items()}
        case list() | tuple():
            return [_redacted(each) for each in cast("Sequence[Any]", value)]
        case _:
            return redact(repr(value))


def _add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if found := trace_id():
        event["trace_id"] = found
    return event


class _StandardLibrary(logging.Handler):
    """The logs of libraries take the same way as ours, redaction included."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        fields: dict[str, Any] = {"library": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit must not fail the library that logs
            message = str(record.msg)
        # structlog knows only the multiples of ten up to CRITICAL.
        logger.log(min(record.levelno // 10 * 10, logging.CRITICAL), message, **fields)


def configure_logs(level: str, *, json: bool | None = None) -> None:
    """*level*: a name such as `info`. *json*: None means JSON unless standard error is a terminal."""
    pretty = sys.stderr.isatty() if json is None else not json
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_StandardLibrary()]
    root.setLevel(max(numeric, logging.WARNING))


class Telemetry:
    """The providers of traces and metrics, to be closed at the end."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracers = tracers
        self._meters = meters

    def close(self) -> None:
        """Send what is left, for a second at most: a collector that does not answer would hold up the end for 10 s each
        for traces and metrics.
        """
        closing = [
            threading.Thread(target=provider.shutdown, daemon=True) for provider in (self._tracers, self._meters)
        ]
        for thread in closing:
            thread.start()
        ends = time.monotonic() + _CLOSE_S
        for thread in closing:
            thread.join(max(0.0, ends - time.monotonic()))


def configure_export(
    *,
    instance: str,
    environment: str,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> Telemetry:
    """Traces and metrics go out by OTLP if the standard variables OTEL_EXPORTER_OTLP_* name an endpoint.

    *instance*: the name of this replica. *environment*: the deployment environment, as in the marks at the providers.
    """
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "broadcast-service"),
            "service.instance.id": instance,
            "deployment.environment.name": environment,
        }
    )
    spans, readers = [*span_processors], [*metric_readers]
    if _endpoint(os.environ, "TRACES"):
        spans.append(BatchSpanProcessor(_span_exporter()))
    if _endpoint(os.environ, "METRICS"):
        readers.append(PeriodicExportingMetricReader(_metric_exporter()))
    tracers = TracerProvider(resource=resource)
    for processor in spans:
        tracers.add_span_processor(processor)
    meters = MeterProvider(metric_readers=readers, resource=resource)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    return Telemetry(tracers, meters)


def _endpoint(environ: Mapping[str, str], signal: str) -> str | None:
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")


def _over_http(signal: str) -> bool:
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
    )
    return protocol.startswith("http")


# The exporters cost 150 ms and 30 MB to import, so they are imported only if an endpoint is set.
def _span_exporter() -> Any:
    if _over_http("TRACES"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    return cast("Any", OTLPSpanExporter())


def _metric_exporter() -> Any:
    if _over_http("METRICS"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    else:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    return cast("Any", OTLPMetricExporter())
