"""A watch of health that outlives its connection.

Health is a level: only the latest counts, so after a break everything is told anew, and what was told before is void.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from broadcast.v1.broadcast_service_pb2 import BroadcastFilter, WatchHealthRequest, WatchHealthResponse
from broadcast.v1.health_pb2 import BroadcastHealth
from broadcast_client.errors import BroadcastError, Unavailable, from_rpc_error
from broadcast_client.retry import RetryPolicy, closed, is_cancelling, is_passing
from broadcast_client.values import Seconds, duration, seconds

METHOD = "WatchHealth"
SILENT_INTERVALS = 4
"""A message comes at least every third interval: a stream that stays silent for longer is taken for dead."""
_GRACE_S = 5.0
"""For the first message, which is put together for all that matches."""

_log = logging.getLogger("broadcast_client")

_Open: TypeAlias = Callable[[WatchHealthRequest], grpc.aio.UnaryStreamCall[WatchHealthRequest, WatchHealthResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthNews:
    """One message."""

    begins: bool
    """The first after a connection: forget what was told before it."""
    healths: Sequence[BroadcastHealth]
    """Those that are new. Empty: nothing changed."""
    removed: Sequence[str]
    """Ids that do not match any more."""
    skipped: int
    """So many messages were left out, because the one before was not read in time."""
    time: datetime
    """Aware, UTC."""


class HealthWatch:
    """An endless iterator. Made by `BroadcastClient.watch_health`.

    The first connection is tried as often as a unary call would be; once it stood, every break is overcome. The call is
    cancelled by `aclose`, by leaving `async with`, and when the watch is forgotten.

    Raises:
        BroadcastError: the service refuses, or cannot be reached at the beginning. The watch is over then.
    """

    def __init__(
        self,
        open_stream: _Open,
        *,
        filter: BroadcastFilter,
        interval: Seconds,
        policy: RetryPolicy,
        is_closed: Callable[[], bool],
    ) -> None:
        self._call: grpc.aio.UnaryStreamCall[WatchHealthRequest, WatchHealthResponse] | None = None
        self._open = open_stream
        self._request = WatchHealthRequest(filter=filter, interval=duration(interval))
        self._silence = seconds(interval) * SILENT_INTERVALS + _GRACE_S
        self._policy = policy
        self._is_closed = is_closed
        self._begins = True
        self._was_connected = False
        self._failures = 0
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HealthNews:
        while not self._over:
            if self._call is None:
                if self._is_closed():
                    raise closed(METHOD)
                self._call = self._open(self._request)
                self._begins = True
            try:
                message = await self._read()
            except BroadcastError as error:
                await self._after(error)
                continue
            begins, self._begins = self._begins, False
            self._was_connected, self._failures = True, 0
            return HealthNews(
                begins=begins,
                healths=tuple(message.healths),
                removed=tuple(message.removed_broadcast_ids),
                skipped=message.skipped_count,
                time=message.time.ToDatetime(tzinfo=UTC),
            )
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the watch."""
        self._over = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # gRPC keeps a call that runs alive, so it would go on for ever without a reader.
        with contextlib.suppress(RuntimeError):  # the event loop may be closed already
            self._drop()

    async def _read(self) -> WatchHealthResponse:
        assert self._call is not None  # noqa: S101 - for the type checker; __anext__ has connected
        try:
            async with asyncio.timeout(self._silence):
                message = await self._call.read()
        except TimeoutError:
            raise _broken(f"no message for {self._silence:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, method=METHOD) from error
        except asyncio.CancelledError:
            self._drop()
            if is_cancelling():
                raise
            raise closed(METHOD) from None
        if not isinstance(message, WatchHealthResponse):
            raise _broken("the stream ended")
        return message

    async def _after(self, error: BroadcastError) -> None:
        """Wait until it is time to connect again; raise what no connection will mend."""
        self._drop()
        if self._over:
            return
        if self._is_closed():
            self._over = True
            raise closed(METHOD) from error
        self._failures += 1
        given_up = not self._was_connected and self._failures >= self._policy.attempts
        if given_up or not is_passing(error):
            self._over = True
            raise error
        pause = self._policy.pause(self._failures, error)
        _log.info("watch broken (%s), again in %.2f s", error.message, pause)
        await self._policy.sleep(pause)

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _broken(message: str) -> Unavailable:
    return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE, method=METHOD)
