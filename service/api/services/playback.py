"""PlaybackService: how one viewer watches now, what is new for many, and who may not watch."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import grpc

from broadcast.v1 import playback_service_pb2 as rpc
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceServicer
from service.api.identities import viewer_identity
from service.api.messages.broadcast import given_filter
from service.api.messages.enums import STATES
from service.api.messages.times import duration_message, given_duration, time_message
from service.api.playback.board import Board
from service.api.playback.handles import Handles
from service.api.playback.keep_alive import KeepAlives
from service.api.playback.sessions import Sessions
from service.api.streams.playback import PlaybackWatches
from service.domain.broadcast import Broadcast, Target
from service.domain.errors import (
    Outcome,
    ProviderError,
    ProviderUnavailable,
    SessionInvalid,
    StateForbids,
    ViewerLimit,
    ViewerRevoked,
)
from service.domain.ports import ViewerTokens
from service.domain.provider import ROOMS
from service.domain.reasons import ConditionReason
from service.domain.reporting.handle import handle_of
from service.domain.reporting.playback import Hls, InTheRoom, NotYet, Over, Way, way_of
from service.store.audience.counts import AudienceCounts
from service.store.past_starts import PastStarts
from service.store.shown import Shown
from service.store.viewers import Full, Viewers

_Context = grpc.aio.ServicerContext[Any, Any]

_LEASE = timedelta(minutes=10)
# Seconds after which the viewer asks again: how soon the answer may be another one.
_WHILE_IT_PLAYS_S = 30
_WHILE_INTERRUPTED_S = 5
_SOON_S = 5
_SOME_TIME_S = 10
_NOT_STARTED_S = 30
_WHILE_RECORDING_S = 15
_FOR_GOOD_S = 600
_LONGEST_PAUSE = timedelta(seconds=30)
_DEFAULT_HEARTBEAT_S = 15.0
_LIMITED_FOR = timedelta(seconds=1)
_PLAIN_KEPT = 10_000
_MOST_REVOKED = 10_000
"""Of one broadcast. They are read once a second while anybody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """What a viewer of HLS was answered, which is the same for the next one but for the session."""

    shown: Shown
    answer: rpc.JoinBroadcastResponse
    until: datetime
    """Sessions that end later need tokens that end later."""


class PutsOut(Protocol):
    async def remove(self, name: str, identity: str) -> None:
        """Put *identity* out of the room *name*. Raises ProviderError; the outcome is MISSING if it is not there."""
        ...


class PlaybackApi(PlaybackServiceServicer):
    def __init__(
        self,
        *,
        board: Board,
        viewers: Viewers,
        tokens: ViewerTokens,
        sessions: Sessions,
        handles: Handles,
        watches: PlaybackWatches,
        audience: AudienceCounts,
        saw: Callable[[str, str], None],
        rooms: PutsOut,
        spare: Callable[[], Awaitable[bool]],
        past_starts: PastStarts,
        keep_alive_s: float,
    ) -> None:
        """*saw*: told the broadcast and the viewer of each sign. *spare*: as of StageApi. *keep_alive_s*: seconds from
        one sign of a viewer to the next, at most.
        """
        self._board = board
        self._viewers = viewers
        self._tokens = tokens
        self._sessions = sessions
        self._handles = handles
        self._watches = watches
        self._audience = audience
        self._saw = saw
        self._rooms = rooms
        self._spare = spare
        self._keep_alive_s = keep_alive_s
        self._interval = duration_message(keep_alive_s)
        self._plain: dict[str, _Plain] = {}
        self._past_starts = past_starts
        self._keep_alives = KeepAlives(
            board=board,
            sessions=sessions,
            handles=handles,
            past_starts=past_starts,
            saw=saw,
            every_s=keep_alive_s,
        )

    async def JoinBroadcast(self, request: rpc.JoinBroadcastRequest, context: _Context) -> rpc.JoinBroadcastResponse:
        broadcast_id, viewer_id = request.broadcast_id, request.viewer_id
        shown = await self._board.one(broadcast_id)
        if viewer_id in shown.revoked:
            raise ViewerRevoked(broadcast_id, viewer_id)
        broadcast, now = shown.broadcast, self._board.now(shown)
        session, expires = self._sessions.issue(broadcast_id, viewer_id, now)
        plain = self._plain.get(broadcast_id)
        if plain is not None and plain.shown is shown and plain.until >= expires:
            answer = rpc.JoinBroadcastResponse()
            answer.CopyFrom(plain.answer)
            answer.session = session
            answer.session_expire_time.seconds = int(expires.timestamp())
            self._saw(broadcast_id, viewer_id)
            return answer
        way = way_of(broadcast, now, await self._past_starts.takes())
        answer = rpc.JoinBroadcastResponse(
            state=STATES.number[broadcast.state],
            session=session,
            session_expire_time=time_message(expires),
            handle_generation=handle_of(broadcast, now).generation,
            keep_alive_interval=self._interval,
        )
        if isinstance(way, InTheRoom):
            try:
                answer.webrtc.CopyFrom(await self._enter(broadcast, viewer_id))
            except ViewerLimit:
                if not way.hls:
                    raise
                answer.hls.CopyFrom(self._handles.hls(broadcast, until=expires))
        else:
            self._handles.fill(answer, broadcast, way, until=expires)
        refresh_s: float = _refresh_s(way)
        if broadcast.target is Target.LIVE:
            # Who waits for the start counts too: an egress may be started for it.
            self._saw(broadcast_id, viewer_id)
            refresh_s = min(refresh_s, self._keep_alive_s)
        answer.refresh_after.CopyFrom(duration_message(refresh_s))
        if way == Hls() and broadcast.target is Target.LIVE:
            self._keep(shown, answer)
        return answer

    def _keep(self, shown: Shown, answer: rpc.JoinBroadcastResponse) -> None:
        """Answer those who come next alike, until the broadcast is read again."""
        if len(self._plain) >= _PLAIN_KEPT:
            self._plain.clear()
        signed = answer.hls.HasField("tokens")
        until = answer.hls.tokens.expire_time.ToDatetime(tzinfo=UTC) if signed else datetime.max.replace(tzinfo=UTC)
        self._plain[shown.broadcast.id] = _Plain(shown=shown, answer=answer, until=until)

    async def KeepAlive(self, request: rpc.KeepAliveRequest, context: _Context) -> rpc.KeepAliveResponse:
        return await self._keep_alives.answer(request)

    async def ReportAudience(self, request: rpc.ReportAudienceRequest, context: _Context) -> rpc.ReportAudienceResponse:
        await self._audience.report(request.broadcast_id, request.viewers)
        return rpc.ReportAudienceResponse()

    async def LeaveBroadcast(self, request: rpc.LeaveBroadcastRequest, context: _Context) -> rpc.LeaveBroadcastResponse:
        session = self._sessions.read(request.session)
        if session is None:
            raise SessionInvalid("the session was not signed by this service for this environment, or is damaged")
        # A viewer of HLS has no place. Who has one may have been told of another handle since.
        await self._viewers.leave(session.broadcast_id, session.viewer_id)
        return rpc.LeaveBroadcastResponse()

    async def RevokeViewer(self, request: rpc.RevokeViewerRequest, context: _Context) -> rpc.RevokeViewerResponse:
        broadcast_id, viewer_id = request.broadcast_id, request.viewer_id
        if request.reinstate:
            await self._viewers.reinstate(broadcast_id, viewer_id)
            self._board.forget(broadcast_id)
            return rpc.RevokeViewerResponse()
        if not await self._viewers.revoke(broadcast_id, viewer_id, most=_MOST_REVOKED):
            raise StateForbids(f"{_MOST_REVOKED} viewers are revoked already", broadcast_id=broadcast_id)
        self._board.forget(broadcast_id)
        shown = await self._board.one(broadcast_id)
        if not shown.broadcast.state.at_rest and shown.broadcast.status.room_sid:
            await self._put_out(broadcast_id, viewer_id)
        return rpc.RevokeViewerResponse()

    def WatchPlayback(  # pyright: ignore[reportIncompatibleMethodOverride] - messages come serialised
        self, request: rpc.WatchPlaybackRequest, context: _Context
    ) -> AsyncIterator[bytes]:
        heartbeat = given_duration(request.heartbeat_interval, "heartbeat_interval").total_seconds()
        return self._watches.follow(
            given_filter(request.filter), request.resume_token, heartbeat or _DEFAULT_HEARTBEAT_S
        )

    async def _put_out(self, broadcast_id: str, viewer_id: str) -> None:
        """Raises ProviderUnavailable. The viewer is revoked all the same, and a repetition tries again."""
        if not await self._spare():
            unavailable = ProviderUnavailable(
                f"the viewer is revoked, and may still be in the room: the limit of calls to {ROOMS.display_name} is "
                "used up for now",
                provider=ROOMS,
            )
            unavailable.retry_after = _LIMITED_FOR
            raise unavailable
        try:
            await self._rooms.remove(broadcast_id, viewer_identity(viewer_id))
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                return
            unavailable = ProviderUnavailable(
                f"the viewer is revoked, and may still be in the room: {error.message}", provider=error.provider
            )
            unavailable.retry_after = error.retry_after
            raise unavailable from error

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


def _refresh_s(way: Way) -> int:
    match way:
        case Hls(interrupted=interrupted):
            return _WHILE_INTERRUPTED_S if interrupted else _WHILE_IT_PLAYS_S
        case InTheRoom():
            return _WHILE_IT_PLAYS_S
        case NotYet(reason=reason, eta=eta):
            if reason == ConditionReason.NOT_STARTED:
                return _NOT_STARTED_S
            return _SOON_S if eta is not None else _SOME_TIME_S
        case Over(pending=pending):
            return _WHILE_RECORDING_S if pending else _FOR_GOOD_S
