"""Around every call: a span, one line in the log, a measure, and an error that says what is wrong.

From outside to inside: telemetry and errors, admission, parsing and validation, the servicer.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.trace import SpanKind, Status, StatusCode

from service import telemetry
from service.api.admission import Admission
from service.api.transport import errors
from service.api.transport.validation import METHODS, Method, Requests
from service.domain.errors import ServiceError

log = structlog.get_logger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Unary = Callable[[Any, _Context], Awaitable[Message]]
_Stream = Callable[[Any, _Context], AsyncIterator[Any]]

# What ends a broadcast ends its cost, and a webhook tells of what it costs now: they get through when the rest is shed,
# and a flood of webhooks leaves room for stops.
_SHARES = {"StopBroadcast": 2.0, "DeliverWebhook": 1.5}
_LOGGED_CHARACTERS = 80


@dataclass(slots=True, kw_only=True)
class _Call:
    """What is told of a call when it is over. Never a message: only these fields."""

    method: str
    """Its name alone: none is in two services."""
    begun: float = field(default_factory=time.perf_counter)
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    violations: str = ""
    trace_id: str = ""
    broadcast_id: str = ""
    request_id: str = ""
    webhook_id: int = 0
    messages: int = 0
    failure: status_pb2.Status | None = None

    def about(self, message: Message) -> None:
        for name in ("broadcast_id", "request_id"):
            value = getattr(message, name, "")
            if isinstance(value, str) and value:
                setattr(self, name, value[:_LOGGED_CHARACTERS])
        self.webhook_id = self.webhook_id or getattr(message, "webhook_id", 0)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun


class Interceptor(grpc.aio.ServerInterceptor):
    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._requests = Requests()
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(  # pyright: ignore[reportIncompatibleMethodOverride] - generic in the stubs alone
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            # UNIMPLEMENTED. Not remembered: names of methods that do not exist have no end.
            return None
        wrapped = self._handlers[method] = self._wrapped(method, handler)
        return wrapped

    def _wrapped(self, method: str, handler: _Handler) -> _Handler:
        if (ours := METHODS.get(method)) is not None:
            if handler.unary_unary is not None:
                return grpc.unary_unary_rpc_method_handler(
                    self._unary(ours, cast("_Unary", handler.unary_unary)), None, _serialised
                )
            return grpc.unary_stream_rpc_method_handler(
                self._stream(ours, cast("_Stream", handler.unary_stream)), None, _serialised
            )
        # Health and reflection: as they are, only that their streams end with ours.
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._standard_stream(cast("_Stream", handler.unary_stream)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._standard_stream(cast("_Stream", handler.stream_stream)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler

    def _unary(self, method: Method, behaviour: _Unary) -> _Unary:
        async def call(raw: bytes, context: _Context) -> Message:
            async with self._told(method, context) as told:
                with self._admission.unary(share=_SHARES.get(method.name, 1.0)):
                    request = self._requests.parse(method, raw)
                    told.about(request)
                    response = await behaviour(request, context)
                    told.broadcast_id = told.broadcast_id or getattr(getattr(response, "broadcast", None), "id", "")
                    told.webhook_id = told.webhook_id or getattr(response, "webhook_id", 0)
                    return response
            return await _abort(context, told)

        return call

    def _stream(self, method: Method, behaviour: _Stream) -> Callable[[bytes, _Context], Awaitable[None]]:
        async def call(raw: bytes, context: _Context) -> None:
            async with self._told(method, context, streaming=True) as told:
                with self._admission.stream():
                    request = self._requests.parse(method, raw)
                    told.about(request)
                    async with contextlib.aclosing(cast("Any", behaviour(request, context))) as messages:
                        async for message in messages:
                            await context.write(message)
                            told.messages += 1
            _fail(context, told)

        return call

    def _standard_stream(self, behaviour: _Stream) -> Callable[[Any, _Context], Awaitable[None]]:
        async def call(request: Any, context: _Context) -> None:
            told = _Call(method="")
            try:
                with self._admission.stream():
                    # The health service is a coroutine that writes, the reflection service a generator.
                    running = cast("Any", behaviour(request, context))
                    if not hasattr(running, "__aiter__"):
                        await running
                        return
                    async with contextlib.aclosing(running) as messages:
                        async for message in messages:
                            await context.write(message)
            except ServiceError as error:
                told.failure, told.code = errors.status_of(error), errors.code_of(error)
            _fail(context, told)

        return call

    @contextlib.asynccontextmanager
    async def _told(self, method: Method, context: _Context, *, streaming: bool = False) -> AsyncGenerator[_Call]:
        """Whatever is raised inside is told and swallowed; `failure` is then what to send."""
        told, name = _Call(method=method.name), method.name
        parent = telemetry.context_of(_traceparent(context))
        attributes = {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": name}
        if streaming:
            telemetry.STREAMS_OPEN.add(1, {"method": name})
        with telemetry.tracer.start_as_current_span(
            f"{method.service}/{name}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield told
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and not task.cancelling():
                    # Nobody cancelled the call: it came from inside, and gRPC would leave the caller without an answer.
                    _at_fault(told)
                    log.exception("rpc_failed", method=name, trace_id=told.trace_id)
                else:
                    told.code = grpc.StatusCode.CANCELLED
                    raise
            except ServiceError as error:
                told.code, told.reason, told.failure = errors.code_of(error), error.reason, errors.status_of(error, name)
                told.violations = ", ".join(violation.field for violation in error.violations)[:_LOGGED_CHARACTERS]
            except Exception:
                _at_fault(told)
                log.exception("rpc_failed", method=name, trace_id=told.trace_id)
            finally:
                if streaming:
                    telemetry.STREAMS_OPEN.add(-1, {"method": name})
                else:
                    telemetry.RPC_DURATION.record(told.seconds, {"method": name, "code": told.code.name})
                span.set_attribute("rpc.grpc.status_code", told.code.value[0])
                if told.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
                    span.set_status(Status(StatusCode.ERROR, told.reason))
                _log(told, context.peer(), streaming=streaming)


def _at_fault(told: _Call) -> None:
    told.trace_id = telemetry.trace_id() or secrets.token_hex(16)
    told.code, told.reason = grpc.StatusCode.INTERNAL, errors.INTERNAL
    told.failure = errors.internal(told.trace_id)


def _log(told: _Call, peer: str, *, streaming: bool) -> None:
    fields: dict[str, Any] = {
        "method": told.method,
        "code": told.code.name,
        "duration_ms": round(told.seconds * 1000, 1),
        "broadcast_id": told.broadcast_id,
        "request_id": told.request_id,
        "webhook_id": told.webhook_id or "",
        "reason": told.reason,
        "fields": told.violations,
        "trace_id": told.trace_id,
        "peer": peer,
    }
    if streaming:
        fields["messages"] = told.messages
    log.info("rpc", **{name: value for name, value in fields.items() if value != ""})


async def _abort(context: _Context, told: _Call) -> Message:
    status = told.failure
    assert status is not None  # noqa: S101 - for the type checker: without a failure there was an answer
    await context.abort(told.code, status.message, errors.trailing_metadata(status))


def _fail(context: _Context, told: _Call) -> None:
    """Not `abort`: on a stream that waits behind a reader who does not read, it would wait as well."""
    if told.failure is None:
        return
    context.set_trailing_metadata(errors.trailing_metadata(told.failure))
    context.set_details(told.failure.message)
    context.set_code(told.code)


def _serialised(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _traceparent(context: _Context) -> str | None:
    metadata = cast("Iterable[tuple[str, str | bytes]]", context.invocation_metadata() or ())
    return next((value for key, value in metadata if key == "traceparent" and isinstance(value, str)), None)
