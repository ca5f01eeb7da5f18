"""A watch that outlives its connection.

Between two breaks nothing is lost and nothing comes twice: the stream goes on from the last resume token, and a change
whose revision was already told is dropped. Where going on is impossible a `Reset` says so before all is told anew.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_SNAPSHOT,
    BroadcastFilter,
    ChangeType,
    WatchBroadcastsRequest,
    WatchBroadcastsResponse,
)
from broadcast_client.errors import BroadcastError, ResumeTokenExpired, Unavailable, from_rpc_error
from broadcast_client.retry import RetryPolicy, closed, is_cancelling, is_passing
from broadcast_client.values import Seconds, duration, seconds

METHOD = "WatchBroadcasts"
SILENT_INTERVALS = 3
"""A stream that stays silent for so many heartbeat intervals is taken for dead."""

_log = logging.getLogger("broadcast_client")

_Open: TypeAlias = Callable[
    [WatchBroadcastsRequest], grpc.aio.UnaryStreamCall[WatchBroadcastsRequest, WatchBroadcastsResponse]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A broadcast that matched when the watch began."""

    broadcast: Broadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotComplete:
    """All that matched has been told; from here on come changes."""

    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A broadcast was changed."""

    type: ChangeType.ValueType
    """ADDED, UPDATED or REMOVED."""
    broadcast: Broadcast
    """The whole broadcast after the change."""
    revision: int
    """Grows with the order of commits."""
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Nothing happened."""

    server_time: datetime
    """Aware, UTC."""
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """What was told so far is void: forget it. Snapshots of everything follow."""

    reason: str
    """RESUME_TOKEN_EXPIRED, or SNAPSHOT_INTERRUPTED: the connection broke before the snapshot was complete."""


WatchItem: TypeAlias = Snapshot | SnapshotComplete | Change | Heartbeat | Reset


class Watch:
    """An endless iterator of what happens to broadcasts. Made by `BroadcastClient.watch`.

    The first connection is tried as often as a unary call would be; once it stood, every break is overcome, however
    long it takes. A cancelled `anext` loses nothing: the next one goes on where the last item ended. The call is
    cancelled by `aclose`, by leaving `async with`, and when the watch is forgotten.

    Raises:
        BroadcastError: the service refuses (InvalidField, ResumeTokenInvalid, PermissionDenied, ...), or cannot be
            reached at the beginning. The watch is over then.
    """

    def __init__(
        self,
        open_stream: _Open,
        *,
        filter: BroadcastFilter,
        resume_token: str,
        heartbeat_interval: Seconds,
        policy: RetryPolicy,
        is_closed: Callable[[], bool],
    ) -> None:
        self._call: grpc.aio.UnaryStreamCall[WatchBroadcastsRequest, WatchBroadcastsResponse] | None = None
        self._open = open_stream
        self._filter = filter
        self._interval = seconds(heartbeat_interval)
        self._policy = policy
        self._is_closed = is_closed
        self._token = resume_token
        self._revision = 0
        self._in_snapshot = False
        self._holds_items = False
        self._gives_up_at: float | None = None
        self._was_connected = False
        self._stood_since: float | None = None
        self._failures = 0
        self._over = False

    @property
    def resume_token(self) -> str:
        """Token of the last item, for a later watch with the same filter. Empty before the first snapshot is whole."""
        return self._token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchItem:
        while not self._over:
            if self._call is None:
                reset = self._connect()
                if reset:
                    return reset
            try:
                message = await self._read()
            except BroadcastError as error:
                reset = await self._after(error)
                if reset:
                    return reset
                continue
            item = self._take(message)
            if item is not None:
                return item
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

    def _connect(self) -> Reset | None:
        """Open the stream; answer a Reset instead when what was told must be forgotten first."""
        if not self._token and self._holds_items:
            self._holds_items = False
            self._revision = 0
            return Reset(reason="SNAPSHOT_INTERRUPTED")
        if self._is_closed():
            raise closed(METHOD)
        self._in_snapshot = not self._token
        self._stood_since = None
        if self._gives_up_at is None:
            self._gives_up_at = self._policy.clock() + self._policy.budget
        self._call = self._open(
            WatchBroadcastsRequest(
                filter=self._filter, resume_token=self._token, heartbeat_interval=duration(self._interval)
            )
        )
        return None

    async def _read(self) -> WatchBroadcastsResponse:
        assert self._call is not None  # noqa: S101 - for the type checker; __anext__ has connected
        try:
            async with asyncio.timeout(self._interval * SILENT_INTERVALS):
                message = await self._call.read()
        except TimeoutError:
            raise _broken(f"no heartbeat for {self._interval * SILENT_INTERVALS:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, method=METHOD) from error
        except asyncio.CancelledError:
            self._drop()
            if is_cancelling():
                raise
            raise closed(METHOD) from None
        if not isinstance(message, WatchBroadcastsResponse):
            raise _broken("the stream ended")
        return message

    async def _after(self, error: BroadcastError) -> Reset | None:
        """Wait until it is time to connect again; raise what no connection will mend."""
        self._drop()
        if self._over:
            return None
        if self._is_closed():
            self._over = True
            raise closed(METHOD) from error
        if isinstance(error, ResumeTokenExpired) and self._token:
            self._token = ""
            self._revision = 0
            self._holds_items = False
            return Reset(reason=error.reason)
        now = self._policy.clock()
        # One message is no proof of health: a stream that breaks as soon as it stands needs a pause before the next.
        if self._stood_since is not None and now - self._stood_since >= self._policy.max_backoff:
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

    def _take(self, message: WatchBroadcastsResponse) -> WatchItem | None:
        """The item a message is; None for one that was already told, or of a kind newer than this client."""
        self._was_connected = True
        if self._stood_since is None:
            self._stood_since = self._policy.clock()
        kind = message.WhichOneof("message")
        if kind == "snapshot_complete":
            self._in_snapshot = False
        if message.resume_token and not self._in_snapshot:
            self._token = message.resume_token
        match kind:
            case "change":
                return self._change(message)
            case "snapshot_complete":
                self._holds_items = True
                return SnapshotComplete(resume_token=message.resume_token)
            case "heartbeat":
                server_time = message.heartbeat.server_time.ToDatetime(tzinfo=UTC)
                return Heartbeat(server_time=server_time, resume_token=message.resume_token)
            case _:
                return None

    def _change(self, message: WatchBroadcastsResponse) -> WatchItem | None:
        change = message.change
        self._holds_items = True
        if change.type == CHANGE_TYPE_SNAPSHOT:
            return Snapshot(broadcast=change.broadcast)
        if change.revision and change.revision <= self._revision:
            return None
        self._revision = change.revision
        return Change(
            type=change.type,
            broadcast=change.broadcast,
            revision=change.revision,
            resume_token=message.resume_token,
        )

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _broken(message: str) -> Unavailable:
    return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE, method=METHOD)
