"""PlaybackService: how one viewer watches now, and when to ask again."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import grpc

from broadcast.v1 import playback_service_pb2 as rpc
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceServicer
from service.api.identities import viewer_identity
from service.api.messages.broadcast import broadcast_message, recording_message
from service.api.messages.times import duration_message, time_message
from service.domain.broadcast import Broadcast
from service.domain.errors import ViewerLimit
from service.domain.ports import ViewerTokens
from service.domain.reasons import ConditionReason
from service.domain.reporting.playback import Hls, InTheRoom, NotYet, Over, way_of
from service.store.audience.counts import AudienceCounts
from service.store.broadcasts import Broadcasts
from service.store.viewers import Full, Viewers

_Context = grpc.aio.ServicerContext[Any, Any]

_LEASE = timedelta(minutes=10)
# Seconds after which the viewer asks again, at most: how soon the answer may be another one.
_WHILE_IT_PLAYS_S = 30
_WHILE_INTERRUPTED_S = 5
_SOON_S = 5
_SOME_TIME_S = 10
_NOT_STARTED_S = 30
_WHILE_RECORDING_S = 15
_FOR_GOOD_S = 600
_LONGEST_PAUSE = timedelta(seconds=30)


class PlaybackApi(PlaybackServiceServicer):
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        viewers: Viewers,
        tokens: ViewerTokens,
        now: Callable[[], Awaitable[datetime]],
        playback_base_url: str,
        audience: AudienceCounts,
        saw: Callable[[str, str], None],
        keep_alive_s: float,
    ) -> None:
        """*now*: the time of the database. *saw*: told the broadcast and the viewer of each sign. *keep_alive_s*: from
        one sign of a viewer to the next, at most.
        """
        self._broadcasts = broadcasts
        self._viewers = viewers
        self._tokens = tokens
        self._now = now
        self._playback_base_url = playback_base_url
        self._audience = audience
        self._saw = saw
        self._keep_alive_s = keep_alive_s

    async def JoinBroadcast(self, request: rpc.JoinBroadcastRequest, context: _Context) -> rpc.JoinBroadcastResponse:
        broadcast = await self._broadcasts.get(request.broadcast_id)
        message = broadcast_message(broadcast, self._playback_base_url)
        answer = rpc.JoinBroadcastResponse(state=message.status.state)
        match way_of(broadcast, await self._now()):
            case Hls(interrupted=interrupted):
                answer.hls.playback.CopyFrom(message.status.playback)
                refresh_s = _WHILE_INTERRUPTED_S if interrupted else _WHILE_IT_PLAYS_S
            case InTheRoom(hls=also_hls):
                try:
                    answer.webrtc.CopyFrom(await self._enter(broadcast, request.viewer_id))
                except ViewerLimit:
                    if not also_hls:
                        raise
                    answer.hls.playback.CopyFrom(message.status.playback)
                refresh_s = _WHILE_IT_PLAYS_S
            case NotYet(reason=reason, eta=eta):
                answer.starting.reason = reason
                if eta is not None:
                    answer.starting.eta.FromTimedelta(eta)
                refresh_s = _SOON_S if eta is not None else _SOME_TIME_S
                if reason == ConditionReason.NOT_STARTED:
                    refresh_s = _NOT_STARTED_S
            case Over(recordings=recordings, pending=pending):
                if recordings:
                    answer.recording.recordings.extend(
                        recording_message(each, self._playback_base_url) for each in recordings
                    )
                else:
                    answer.ended.recording_pending = pending
                refresh_s = _WHILE_RECORDING_S if pending else _FOR_GOOD_S
        answer.refresh_after.CopyFrom(duration_message(self._signed(broadcast, request.viewer_id, refresh_s)))
        return answer

    async def ReportAudience(self, request: rpc.ReportAudienceRequest, context: _Context) -> rpc.ReportAudienceResponse:
        await self._audience.report(request.broadcast_id, request.viewers)
        return rpc.ReportAudienceResponse()

    def _signed(self, broadcast: Broadcast, viewer_id: str, refresh_s: float) -> float:
        """Count the viewer until the broadcast is over. Answers when the next sign is due, *refresh_s* at most."""
        if broadcast.state.over:
            return refresh_s
        # Who waits for the start counts too: an egress may be started for it.
        self._saw(broadcast.id, viewer_id)
        return min(refresh_s, self._keep_alive_s)

    async def _enter(self, broadcast: Broadcast, viewer_id: str) -> rpc.WebRtcPlayback:
        """A slot in the room for the viewer, held for _LEASE. Raises ViewerLimit."""
        slots = broadcast.spec.max_webrtc_viewers
        held_until = await self._viewers.enter(broadcast.id, viewer_id, slots=slots, lease=_LEASE)
        if isinstance(held_until, Full):
            full = ViewerLimit(
                f"{broadcast.id!r} takes no more than {slots} viewers in its room",
                broadcast_id=broadcast.id,
                limit=str(slots),
            )
            full.retry_after = min(max(held_until.next_free, timedelta(seconds=1)), _LONGEST_PAUSE)
            raise full
        token = self._tokens.issue_viewer(room_name=broadcast.id, identity=viewer_identity(viewer_id), ttl=_LEASE)
        return rpc.WebRtcPlayback(
            livekit_url=token.url,
            token=token.token.reveal(),
            expire_time=time_message(min(held_until, token.expire_time)),
        )
