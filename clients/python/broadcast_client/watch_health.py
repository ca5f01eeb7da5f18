"""The watch of health.

Only the latest health counts, so after a break everything is told anew, and everything that was told before it is void.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import grpc

from broadcast.v1.broadcast_service_pb2 import BroadcastFilter, WatchHealthRequest, WatchHealthResponse
from broadcast.v1.health_pb2 import BroadcastHealth
from broadcast_client.retry import RetryPolicy
from broadcast_client.stream import LastingStream
from broadcast_client.values import Seconds, duration, seconds

SILENT_INTERVALS = 4
"""Intervals without a message after which the connection is taken for dead: one comes at least every third interval."""
_GRACE_S = 5.0
"""For the first message, which the service puts together for every broadcast that matches."""

_Open: TypeAlias = Callable[[WatchHealthRequest], grpc.aio.UnaryStreamCall[WatchHealthRequest, WatchHealthResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthNews:
    """One message of a health watch."""

    begins: bool
    """True for the first message of a connection: forget everything that was told before it."""
    healths: Sequence[BroadcastHealth]
    """The health of the broadcasts whose health changed. Empty: none did."""
    removed: Sequence[str]
    """Ids of broadcasts that do not match any more."""
    complete: bool
    """True once a connection: every broadcast that matches has been told. One that was known before and was not told
    since `begins` does not match any more. An older service never says so.
    """
    skipped: int
    """The number of messages that the service left out, because the one before was not read in time."""
    time: datetime
    """Aware, UTC."""


class HealthWatch(LastingStream[WatchHealthRequest, WatchHealthResponse, HealthNews]):
    """An endless iterator of health. Made by `BroadcastClient.watch_health`; see LastingStream."""

    def __init__(
        self,
        open_stream: _Open,
        *,
        filter: BroadcastFilter,
        interval: Seconds,
        policy: RetryPolicy,
        is_closed: Callable[[], bool],
    ) -> None:
        super().__init__(
            open_stream,
            method="WatchHealth",
            response=WatchHealthResponse,
            silence=seconds(interval) * SILENT_INTERVALS + _GRACE_S,
            policy=policy,
            is_closed=is_closed,
        )
        self._filter = filter
        self._interval = duration(interval)
        self._begins = True

    def _request(self) -> WatchHealthRequest:
        self._begins = True
        return WatchHealthRequest(filter=self._filter, interval=self._interval)

    def _item(self, message: WatchHealthResponse) -> HealthNews:
        begins, self._begins = self._begins, False
        return HealthNews(
            begins=begins,
            healths=tuple(message.healths),
            removed=tuple(message.removed_broadcast_ids),
            complete=message.snapshot_complete,
            skipped=message.skipped_count,
            time=message.time.ToDatetime(tzinfo=UTC),
        )
