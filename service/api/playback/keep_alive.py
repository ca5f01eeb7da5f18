"""KeepAlive: what is new for many sessions at once.

A bad entry is answered by itself and fails no other. Only a session that is genuine, not expired and not revoked counts
as watching.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from broadcast.v1 import playback_service_pb2 as rpc
from service import telemetry
from service.api.messages.times import duration_message, time_message
from service.api.playback.board import Board
from service.api.playback.handles import Handles
from service.api.playback.sessions import Sessions, ViewerSession
from service.domain.broadcast import Target
from service.domain.reporting.handle import handle_of
from service.domain.reporting.playback import Over, StartTakes, way_of
from service.store.past_starts import PastStarts
from service.store.shown import Shown


@dataclass(slots=True, kw_only=True)
class _Call:
    """What one call has come to know."""

    takes: StartTakes
    response: rpc.KeepAliveResponse
    told: set[str] = field(default_factory=set[str])
    """Broadcasts whose handle is in the response."""
    statuses: Counter[rpc.SessionStatus.ValueType] = field(default_factory=Counter[rpc.SessionStatus.ValueType])
    """How many sessions had which status, for the metrics."""


class KeepAlives:
    def __init__(
        self,
        *,
        board: Board,
        sessions: Sessions,
        handles: Handles,
        past_starts: PastStarts,
        saw: Callable[[str, str], None],
        every_s: float,
    ) -> None:
        """*saw*: as of PlaybackApi. *every_s*: seconds from one KeepAlive of a session to the next."""
        self._board = board
        self._sessions = sessions
        self._handles = handles
        self._past_starts = past_starts
        self._saw = saw
        self._every_s = every_s

    async def answer(self, request: rpc.KeepAliveRequest) -> rpc.KeepAliveResponse:
        """Raises StoreUnavailable."""
        sessions = [self._sessions.read(each.session) for each in request.sessions]
        shown = await self._board.look({each.broadcast_id for each in sessions if each is not None})
        interval = duration_message(self._every_s)
        call = _Call(
            takes=await self._past_starts.takes(), response=rpc.KeepAliveResponse(keep_alive_interval=interval)
        )
        nows = {id_: self._board.now(each) for id_, each in shown.items() if each is not None}
        for index, (live, session) in enumerate(zip(request.sessions, sessions, strict=True)):
            if session is None:
                result = rpc.SessionResult(status=rpc.SESSION_STATUS_INVALID)
            else:
                result = self._kept(call, live, session, shown[session.broadcast_id], nows.get(session.broadcast_id))
            status = result.status if result is not None else rpc.SESSION_STATUS_UNSPECIFIED
            call.statuses[status] += 1
            if result is not None:
                result.index = index
                call.response.results.append(result)
        for status, count in call.statuses.items():
            name = rpc.SessionStatus.Name(rpc.SessionStatus.ValueType(status))
            telemetry.SESSIONS.add(
                count, {"status": name.removeprefix("SESSION_STATUS_").replace("UNSPECIFIED", "ALIVE")}
            )
        return call.response

    def _kept(
        self, call: _Call, live: rpc.LiveSession, session: ViewerSession, shown: Shown | None, now: datetime | None
    ) -> rpc.SessionResult | None:
        """What is new for a genuine session. None: nothing. *shown* and *now* are None where the broadcast is gone."""
        result = rpc.SessionResult(broadcast_id=session.broadcast_id, viewer_id=session.viewer_id)
        if shown is None or now is None:
            result.status = rpc.SESSION_STATUS_OVER
            return result
        new = live.handle_generation != handle_of(shown.broadcast, now).generation
        if (ended := _ended(session, shown, now, new=new)) is not None:
            result.status = ended
            return result
        if shown.broadcast.target is Target.LIVE:
            self._saw(session.broadcast_id, session.viewer_id)
        if live.HasField("report"):
            _count(live.report)
        left_s = session.expires - now.timestamp()
        renews = left_s < self._sessions.life.total_seconds() / 2
        if not new and not renews:
            return None
        result.status = rpc.SESSION_STATUS_NEW_HANDLE if new else rpc.SESSION_STATUS_RENEWED
        text, expires = self._sessions.issue(session.broadcast_id, session.viewer_id, now)
        if renews:
            result.session = text
            result.session_expire_time.MergeFrom(time_message(expires) or result.session_expire_time)
        if session.broadcast_id not in call.told:
            call.told.add(session.broadcast_id)
            way = way_of(shown.broadcast, now, call.takes)
            # No session of the call ends after one that is issued now, so the tokens outlive them all.
            call.response.handles.append(self._handles.state(shown.broadcast, way, now, until=expires))
        return result


def _ended(session: ViewerSession, shown: Shown, now: datetime, *, new: bool) -> rpc.SessionStatus.ValueType | None:
    """The status of a session that does not go on. None: it does. *new*: whether its viewer has an older handle."""
    if session.expires <= now.timestamp():
        return rpc.SESSION_STATUS_EXPIRED
    if session.viewer_id in shown.revoked:
        return rpc.SESSION_STATUS_REVOKED
    if shown.broadcast.state.over and not new:
        way = way_of(shown.broadcast, now)
        if isinstance(way, Over) and not way.pending:
            return rpc.SESSION_STATUS_OVER
    return None


def _count(report: rpc.PlaybackReport) -> None:
    telemetry.PLAYBACK_REPORTS.add(1, {"error": bool(report.error)})
    if report.HasField("rebuffering"):
        telemetry.REBUFFERING.record(max(report.rebuffering.seconds + report.rebuffering.nanos / 1e9, 0.0))
