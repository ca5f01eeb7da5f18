"""PlaybackService: one method an RPC, for the backend of a player."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from typing import TYPE_CHECKING

from broadcast.v1.playback_service_pb2 import (
    JoinBroadcastRequest,
    JoinBroadcastResponse,
    ReportAudienceRequest,
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
    def _stub(self) -> "PlaybackServiceAsyncStub":
        return self._connection.stub(PlaybackServiceStub)

    async def join(self, broadcast_id: str, viewer_id: str, *, timeout: float | None = None) -> JoinBroadcastResponse:
        """Answer how one viewer watches now. Call again after `refresh_after`. A token in the answer is a secret.

        Args:
            broadcast_id: id of the broadcast.
            viewer_id: the caller's id of the viewer, one for each device or tab. Another call with it keeps the place.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            ViewerLimit: all places in the room are taken.
        """
        request = JoinBroadcastRequest(broadcast_id=broadcast_id, viewer_id=viewer_id)
        return await self._call(self._stub.JoinBroadcast, request, "JoinBroadcast", Safety.READ, timeout=timeout)

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
        await self._call(self._stub.ReportAudience, request, "ReportAudience", Safety.REPEATABLE, timeout=timeout)
