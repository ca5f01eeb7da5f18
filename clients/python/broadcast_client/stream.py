"""A server stream that outlives its connection: the base of both watches.

Every break is overcome with a pause before the next connection. Pauses grow from break to break, and start anew only
after a connection that stood for as long as the longest pause: a server that sends one message and breaks is not
called again and again without a pause.
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import grpc

from broadcast_client.errors import BroadcastError, Unavailable, from_rpc_error
from broadcast_client.retry import RetryPolicy, closed, is_cancelling, is_passing

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")

_log = logging.getLogger("broadcast_client")


class LastingStream(ABC, Generic[Request, Response, Item]):
    """An endless iterator over the messages of a stream, through every break of its connection.

    The first connection is tried as often as a unary call would be; after the first message, every break is overcome,
    however long it takes. A cancelled `anext` loses nothing: the next one goes on where the last item ended. The call
    is cancelled by `aclose`, by leaving `async with`, and when the iterator is garbage collected.

    Raises:
        BroadcastError: the service refuses (InvalidField, ResumeTokenInvalid, PermissionDenied, ...), or cannot be
            reached at the beginning. The iterator is exhausted then.
    """

    def __init__(
        self,
        open_stream: Callable[[Request], grpc.aio.UnaryStreamCall[Request, Response]],
        *,
        method: str,
        response: type[Response],
        silence: float,
        policy: RetryPolicy,
        is_closed: Callable[[], bool],
    ) -> None:
        """Connects with the first `anext`.

        Args:
            open_stream: makes the call.
            method: name of the RPC, for errors.
            response: the type of a message.
            silence: seconds without a message after which the connection is taken for dead.
            policy: for the pauses, and for the tries of the first connection.
            is_closed: whether the client was closed.
        """
        self._call: grpc.aio.UnaryStreamCall[Request, Response] | None = None
        self._open = open_stream
        self._method = method
        self._response = response
        self._silence = silence
        self._policy = policy
        self._is_closed = is_closed
        self._gives_up_at: float | None = None
        self._was_connected = False
        self._connected_since: float | None = None
        self._failures = 0
        self._over = False

    @abstractmethod
    def _request(self) -> Request:
        """The request of the next connection."""

    @abstractmethod
    def _item(self, message: Response) -> Item | None:
        """The item for a message. None: there is nothing to tell."""

    def _before_connecting(self) -> Item | None:
        """An item to tell before the next connection. None: connect."""
        return None

    def _instead_of_waiting(self, error: BroadcastError) -> Item | None:
        """An item to tell for an error after which the next connection is made at once. None: wait first."""
        del error
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._over:
            if self._call is None:
                item = self._before_connecting()
                if item is not None:
                    return item
                self._call = self._connect()
            try:
                message = await self._read(self._call)
            except BroadcastError as error:
                item = await self._after(error)
            else:
                self._was_connected = True
                if self._connected_since is None:
                    self._connected_since = self._policy.clock()
                item = self._item(message)
            if item is not None:
                return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream."""
        self._over = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # gRPC keeps a running call alive, so without this it would go on for ever without a reader.
        with contextlib.suppress(RuntimeError):  # the event loop may be closed already
            self._drop()

    def _connect(self) -> grpc.aio.UnaryStreamCall[Request, Response]:
        if self._is_closed():
            raise closed(self._method)
        self._connected_since = None
        if self._gives_up_at is None:
            self._gives_up_at = self._policy.clock() + self._policy.budget
        return self._open(self._request())

    async def _read(self, call: grpc.aio.UnaryStreamCall[Request, Response]) -> Response:
        try:
            async with asyncio.timeout(self._silence):
                message = await call.read()
        except TimeoutError:
            raise self._broken(f"no message for {self._silence:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, method=self._method) from error
        except asyncio.CancelledError:
            self._drop()
            if is_cancelling():
                raise
            raise closed(self._method) from None
        if not isinstance(message, self._response):
            raise self._broken("the stream ended")
        return message

    async def _after(self, error: BroadcastError) -> Item | None:
        """Wait until it is time to connect again; raise an error that no further connection can overcome."""
        self._drop()
        if self._over:
            return None
        if self._is_closed():
            self._over = True
            raise closed(self._method) from error
        item = self._instead_of_waiting(error)
        if item is not None:
            return item
        now = self._policy.clock()
        if self._connected_since is not None and now - self._connected_since >= self._policy.max_backoff:
            self._failures = 0
        self._failures += 1
        pause = self._policy.pause(self._failures, error)
        given_up = not self._was_connected and (
            self._failures >= self._policy.attempts
            or (self._gives_up_at is not None and now + pause >= self._gives_up_at)
        )
        if given_up or not is_passing(error):
            self._over = True
            raise error
        _log.info("watch broken (%s), again in %.2f s", error.message, pause)
        await self._policy.sleep(pause)
        return None

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _broken(self, message: str) -> Unavailable:
        return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE, method=self._method)
