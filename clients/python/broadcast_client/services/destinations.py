"""BroadcastService: destinations, one at a time."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from broadcast.v1.broadcast_pb2 import Broadcast, Destination
from broadcast.v1.broadcast_service_pb2 import AddDestinationRequest, RemoveDestinationRequest
from broadcast_client.retry import Safety
from broadcast_client.services.stage import StageCalls
from broadcast_client.values import made_request_id


class DestinationCalls(StageCalls):
    """The calls about destinations. A part of `BroadcastClient`, which says what holds for every call."""

    async def add_destination(
        self,
        broadcast_id: str,
        destination: Destination,
        *,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """Add a destination: by EGRESS also on air. Answers the broadcast as it is stored now.

        Args:
            broadcast_id: id of the broadcast.
            destination: with its stream key, which is never returned.
            etag: the etag of the broadcast that the caller read. Empty: it is added whatever the etag is.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds.

        Raises:
            DestinationExists: there is one of that name.
            InvalidField: `violations` name the fields.
            FieldImmutable: it is by MUX, and the broadcast was started.
            StateForbids: the broadcast was stopped.
            BroadcastNotFound, EtagMismatch, RequestIdReused: as of `update`.
        """
        request = AddDestinationRequest(
            request_id=made_request_id(request_id),
            broadcast_id=broadcast_id,
            etag=etag,
            destination=destination,
        )
        answer = await self._call(
            self._stub.AddDestination, request, "AddDestination", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def remove_destination(
        self,
        broadcast_id: str,
        name: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """Remove a destination: by EGRESS also on air. Answers the broadcast as it is stored now.

        Args:
            broadcast_id: id of the broadcast.
            name: of the destination.
            etag: the etag of the broadcast that the caller read. Empty: it is removed whatever the etag is.
            allow_missing: a destination that does not exist counts as removed.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds.

        Raises:
            DestinationNotFound: there is none of that name, and *allow_missing* is False.
            FieldImmutable: it is by MUX, and the broadcast was started.
            StateForbids: the broadcast was stopped.
            BroadcastNotFound, EtagMismatch, RequestIdReused: as of `update`.
        """
        request = RemoveDestinationRequest(
            request_id=made_request_id(request_id),
            broadcast_id=broadcast_id,
            etag=etag,
            name=name,
            allow_missing=allow_missing,
        )
        answer = await self._call(
            self._stub.RemoveDestination, request, "RemoveDestination", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast
