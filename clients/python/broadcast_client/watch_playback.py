"""The watch of playback handles.

Only the latest handle of a broadcast counts. After a break the watch goes on from the last resume token; where it
cannot, everything is told anew, and everything that was told before is void.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from broadcast.v1.broadcast_service_pb2 import BroadcastFilter
from broadcast.v1.playback_service_pb2 import PlaybackState, WatchPlaybackRequest, WatchPlaybackResponse
from broadcast_client.errors import BroadcastError, ResumeTokenExpired
from broadcast_client.retry import RetryPolicy
from broadcast_client.stream import LastingStream
from broadcast_client.values import Seconds, duration, seconds
from broadcast_client.watch import SILENT_INTERVALS

_Open: TypeAlias = Callable[
    [WatchPlaybackRequest], grpc.aio.UnaryStreamCall[WatchPlaybackRequest, WatchPlaybackResponse]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackNews:
    """One message of a watch of handles."""

    begins: bool
    """True where everything is told anew: forget everything that was told before it."""
    handles: Sequence[PlaybackState]
    """The handles that changed. One that is known may come again. Empty: none did. Their tokens are secrets."""
    removed: Sequence[str]
    """Ids of broadcasts that do not match any more."""
    complete: bool
    """True once after `begins`: every broadcast that matches has been told."""
    skipped: int
    """The number of handles that the service left out, because a newer one was there before they were read."""
    resume_token: str
    """For a later watch with the same filter. Empty before `complete`."""


class PlaybackWatch(LastingStream[WatchPlaybackRequest, WatchPlaybackResponse, PlaybackNews]):
    """An endless iterator of handles. Made by `BroadcastClient.watch_playback`; see LastingStream."""

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
            method="WatchPlayback",
            response=WatchPlaybackResponse,
            silence=seconds(heartbeat_interval) * SILENT_INTERVALS,
            policy=policy,
            is_closed=is_closed,
        )
        self._filter = filter
        self._interval = duration(heartbeat_interval)
        self._token = resume_token
        self._begins = not resume_token

    @property
    def resume_token(self) -> str:
        """Token of the last item, for a later watch with the same filter. Empty until everything was told once."""
        return self._token

    def _request(self) -> WatchPlaybackRequest:
        self._begins = not self._token
        return WatchPlaybackRequest(filter=self._filter, resume_token=self._token, heartbeat_interval=self._interval)

    def _instead_of_waiting(self, error: BroadcastError) -> PlaybackNews | None:
        if not isinstance(error, ResumeTokenExpired) or not self._token:
            return None
        self._token = ""
        return PlaybackNews(begins=True, handles=(), removed=(), complete=False, skipped=0, resume_token="")

    def _item(self, message: WatchPlaybackResponse) -> PlaybackNews | None:
        """None for a heartbeat."""
        self._token = message.resume_token or self._token
        begins, self._begins = self._begins, False
        if not (begins or message.handles or message.removed_broadcast_ids or message.snapshot_complete):
            return None
        return PlaybackNews(
            begins=begins,
            handles=tuple(message.handles),
            removed=tuple(message.removed_broadcast_ids),
            complete=message.snapshot_complete,
            skipped=message.skipped_count,
            resume_token=message.resume_token,
        )
