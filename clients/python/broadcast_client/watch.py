"""The watch of broadcasts.

No break of the connection loses or repeats a change: the next connection goes on from the last resume token, and a
change whose revision was already told is dropped. If it cannot go on, a `Reset` comes before everything is told anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import grpc

from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_SNAPSHOT,
    BroadcastFilter,
    ChangeType,
    WatchBroadcastsRequest,
    WatchBroadcastsResponse,
)
from broadcast_client.errors import BroadcastError, ResumeTokenExpired
from broadcast_client.retry import RetryPolicy
from broadcast_client.stream import LastingStream
from broadcast_client.values import Seconds, duration, seconds

SILENT_INTERVALS = 3
"""Heartbeat intervals without a message after which the connection is taken for dead."""

_Open: TypeAlias = Callable[
    [WatchBroadcastsRequest], grpc.aio.UnaryStreamCall[WatchBroadcastsRequest, WatchBroadcastsResponse]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A broadcast that matched when the watch began."""

    broadcast: Broadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotComplete:
    """Every broadcast that matched has been told; changes follow."""

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
    """The connection is alive, and no change happened."""

    server_time: datetime
    """Aware, UTC."""
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Everything that was told so far is void: forget it. Snapshots of everything follow."""

    reason: str
    """RESUME_TOKEN_EXPIRED, or SNAPSHOT_INTERRUPTED: the connection broke before the snapshot was complete."""


WatchItem: TypeAlias = Snapshot | SnapshotComplete | Change | Heartbeat | Reset


class Watch(LastingStream[WatchBroadcastsRequest, WatchBroadcastsResponse, WatchItem]):
    """An endless iterator of snapshots and changes. Made by `BroadcastClient.watch`; see LastingStream."""

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
        super().__init__(
            open_stream,
            method="WatchBroadcasts",
            response=WatchBroadcastsResponse,
            silence=seconds(heartbeat_interval) * SILENT_INTERVALS,
            policy=policy,
            is_closed=is_closed,
        )
        self._filter = filter
        self._interval = duration(heartbeat_interval)
        self._token = resume_token
        self._revision = 0
        self._in_snapshot = False
        self._holds_items = False

    @property
    def resume_token(self) -> str:
        """Token of the last item, for a later watch with the same filter. Empty until the snapshot is complete."""
        return self._token

    def _request(self) -> WatchBroadcastsRequest:
        self._in_snapshot = not self._token
        return WatchBroadcastsRequest(filter=self._filter, resume_token=self._token, heartbeat_interval=self._interval)

    def _before_connecting(self) -> Reset | None:
        """A Reset, if items were told and there is no token from which to go on."""
        if self._token or not self._holds_items:
            return None
        self._forget()
        return Reset(reason="SNAPSHOT_INTERRUPTED")

    def _instead_of_waiting(self, error: BroadcastError) -> Reset | None:
        if not isinstance(error, ResumeTokenExpired) or not self._token:
            return None
        self._forget()
        return Reset(reason=error.reason)

    def _forget(self) -> None:
        self._token = ""
        self._revision = 0
        self._holds_items = False

    def _item(self, message: WatchBroadcastsResponse) -> WatchItem | None:
        """None for a change that was already told, or a message of a kind newer than this client."""
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
