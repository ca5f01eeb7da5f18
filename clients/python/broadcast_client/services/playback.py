"""PlaybackService: one method an RPC, for the backend of a player."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import Iterable
from typing import TYPE_CHECKING

from broadcast.v1.playback_service_pb2 import (
    JoinBroadcastRequest,
    JoinBroadcastResponse,
    KeepAliveRequest,
    KeepAliveResponse,
    LeaveBroadcastRequest,
    LiveSession,
    ReportAudienceRequest,
    RevokeViewerRequest,
)
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceStub
from broadcast_client.caller import Caller
from broadcast_client.connection import Connection
from broadcast_client.retry import Safety

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub


class Playback:
    """PlaybackService. Errors, `timeout` and further tries are as in BroadcastClient."""

    def __init__(self, connection: Connection, call: Caller) -> None:
        self._connection = connection
        self._call = call

    @property
    def stub(self) -> "PlaybackServiceAsyncStub":
        return self._connection.stub(PlaybackServiceStub)

    async def join(self, broadcast_id: str, viewer_id: str, *, timeout: float | None = None) -> JoinBroadcastResponse:
        """Answer how one viewer watches now, and a session for `keep_alive`. Tokens and the session are secrets.

        Args:
            broadcast_id: id of the broadcast.
            viewer_id: the caller's id of the viewer, one for each device or tab. Another call with it keeps the place.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            ViewerLimit: all places in the room are taken.
            ViewerRevoked: the viewer may not watch.
        """
        request = JoinBroadcastRequest(broadcast_id=broadcast_id, viewer_id=viewer_id)
        return await self._call(self.stub.JoinBroadcast, request, "JoinBroadcast", Safety.READ, timeout=timeout)

    async def report_audience(self, broadcast_id: str, viewers: int, *, timeout: float | None = None) -> None:
        """Tell how many watch, if you count them yourself. The number counts for a minute.

        Args:
            broadcast_id: id of the broadcast.
            viewers: the number of people who watch now.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            StateForbids: the broadcast is not wanted live.
        """
        request = ReportAudienceRequest(broadcast_id=broadcast_id, viewers=viewers)
        await self._call(self.stub.ReportAudience, request, "ReportAudience", Safety.REPEATABLE, timeout=timeout)

    async def keep_alive(
        self, sessions: Iterable[LiveSession | tuple[str, int]], *, timeout: float | None = None
    ) -> KeepAliveResponse:
        """Say that viewers still watch, and answer what is new for them. A bad session fails none of the others.

        Args:
            sessions: 1 to 1,000: a session with the generation of the handle that its viewer has, or a LiveSession with
                a report too.
            timeout: deadline of one try, in seconds.

        Raises:
            InvalidField: there are none, or more than 1,000.
        """
        given = [
            each if isinstance(each, LiveSession) else LiveSession(session=each[0], handle_generation=each[1])
            for each in sessions
        ]
        request = KeepAliveRequest(sessions=given)
        return await self._call(self.stub.KeepAlive, request, "KeepAlive", Safety.REPEATABLE, timeout=timeout)

    async def leave(self, session: str, *, timeout: float | None = None) -> None:
        """Say that a viewer left: a place in the room is free at once.

        Raises SessionInvalid.
        """
        request = LeaveBroadcastRequest(session=session)
        await self._call(self.stub.LeaveBroadcast, request, "LeaveBroadcast", Safety.REPEATABLE, timeout=timeout)

    async def revoke(
        self, broadcast_id: str, viewer_id: str, *, reinstate: bool = False, timeout: float | None = None
    ) -> None:
        """Shut a viewer out of a broadcast, or with *reinstate* let one back in.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            ProviderUnavailable: the viewer is revoked, and may still be in the room. Call again.
        """
        request = RevokeViewerRequest(broadcast_id=broadcast_id, viewer_id=viewer_id, reinstate=reinstate)
        await self._call(self.stub.RevokeViewer, request, "RevokeViewer", Safety.REPEATABLE, timeout=timeout)
