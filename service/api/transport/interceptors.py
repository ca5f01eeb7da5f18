"""Everything that happens around an RPC before and after its servicer, composed in one place.

From outside to inside: span, line in the log, measure, error; then admission, then parsing and validation.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import Message

from service.api.admission import Admission
from service.api.connection_ages import ConnectionAges
from service.api.transport import errors
from service.api.transport.access_log import logged
from service.api.transport.calls import Call
from service.api.transport.failures import failing_into
from service.api.transport.measuring import measured
from service.api.transport.tracing import traced
from service.api.transport.validation import METHODS, Method, RequestParser
from service.domain.errors import ServiceError

_Context = grpc.aio.ServicerContext[Any, Any]
# Generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Unary = Callable[[Any, _Context], Awaitable[Message]]
_Stream = Callable[[Any, _Context], AsyncIterator[Any]]

# Shares of the limit of unary calls. A stop ends the cost of a broadcast and a webhook tells of it, so both still get
# through when the rest is shed, and a flood of webhooks leaves room for stops.
_SHARES = {"StopBroadcast": 2.0, "DeliverWebhook": 1.5}


class Interceptor(grpc.aio.ServerInterceptor):
    def __init__(self, admission: Admission, ages: ConnectionAges) -> None:
        self._admission = admission
        self._ages = ages
        self._parser = RequestParser()
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
            # UNIMPLEMENTED. Not remembered: a caller may make up any number of names.
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
        # The standard services of health and reflection: unchanged, except that draining ends their streams too.
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
        share = _SHARES.get(method.name, 1.0)

        async def answer(raw: bytes, context: _Context) -> Message:
            call = Call(service=method.service, method=method.name, peer=context.peer())
            self._ages.heard(call.peer)
            with _accounted(call, context), self._admission.unary(share=share, peer=call.peer):
                request = self._parser.parse(method, raw)
                call.asks(request)
                response = await behaviour(request, context)
                call.answers(response)
                return response
            return await _abort(context, call)

        return answer

    def _stream(self, method: Method, behaviour: _Stream) -> Callable[[bytes, _Context], Awaitable[None]]:
        async def answer(raw: bytes, context: _Context) -> None:
            call = Call(service=method.service, method=method.name, streaming=True, peer=context.peer())
            with _accounted(call, context), self._open_stream(call.peer):
                request = self._parser.parse(method, raw)
                call.asks(request)
                async with contextlib.aclosing(cast("Any", behaviour(request, context))) as messages:
                    async for message in messages:
                        await context.write(message)
                        call.messages += 1
            _fail(context, call)

        return answer

    def _standard_stream(self, behaviour: _Stream) -> Callable[[Any, _Context], Awaitable[None]]:
        async def answer(request: Any, context: _Context) -> None:
            call = Call(method="")
            try:
                with self._open_stream(context.peer()):
                    # The health service is a coroutine that writes, the reflection service a generator.
                    running = cast("Any", behaviour(request, context))
                    if not hasattr(running, "__aiter__"):
                        await running
                        return
                    async with contextlib.aclosing(running) as messages:
                        async for message in messages:
                            await context.write(message)
            except ServiceError as error:
                call.failure, call.code = errors.status_of(error), errors.code_of(error)
            _fail(context, call)

        return answer

    def _open_stream(self, peer: str) -> contextlib.AbstractContextManager[None]:
        self._ages.heard(peer)
        return self._admission.stream(peer=peer, ends_in=self._ages.ends_in(peer))


@contextlib.contextmanager
def _accounted(call: Call, context: _Context) -> Generator[None]:
    """The four jobs around every RPC of ours, the innermost last. Afterwards `call.failure` is the error to send."""
    with traced(call, _traceparent(context)), logged(call), measured(call), failing_into(call):
        yield


async def _abort(context: _Context, call: Call) -> Message:
    status = call.failure
    assert status is not None  # noqa: S101 - for the type checker: without a failure there was an answer
    await context.abort(call.code, status.message, errors.trailing_metadata(status))


def _fail(context: _Context, call: Call) -> None:
    """End a stream with the error of *call*, if it has one. `abort` would wait for a reader that does not read."""
    if call.failure is None:
        return
    context.set_trailing_metadata(errors.trailing_metadata(call.failure))
    context.set_details(call.failure.message)
    context.set_code(call.code)


def _serialised(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _traceparent(context: _Context) -> str | None:
    metadata = cast("Iterable[tuple[str, str | bytes]]", context.invocation_metadata() or ())
    return next((value for key, value in metadata if key == "traceparent" and isinstance(value, str)), None)
