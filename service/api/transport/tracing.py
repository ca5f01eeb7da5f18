"""A span for every RPC, as a child of the caller's."""

import contextlib
from collections.abc import Generator

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode

from service import telemetry
from service.api.transport.calls import Call

_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
"""The codes that are the service's fault. Of the others the caller is the cause, and the span is no error."""


@contextlib.contextmanager
def traced(call: Call, traceparent: str | None) -> Generator[None]:
    """*traceparent*: the header of W3C Trace Context that the caller sent. Exceptions are not recorded: their texts
    may have secrets in them.
    """
    with telemetry.tracer.start_as_current_span(
        f"{call.service}/{call.method}",
        context=telemetry.context_of(traceparent),
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": call.service, "rpc.method": call.method},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            span.set_attribute("rpc.grpc.status_code", call.code.value[0])
            if call.code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR, call.reason))
