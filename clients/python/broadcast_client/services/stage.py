"""BroadcastService: the calls about the people in the room."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from broadcast.v1.broadcast_service_pb2 import (
    ListParticipantsRequest,
    ListParticipantsResponse,
    MuteParticipantRequest,
    RemoveParticipantRequest,
)
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast.v1.health_pb2 import TrackHealth
from broadcast_client.caller import Caller
from broadcast_client.connection import Connection
from broadcast_client.retry import Safety

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceAsyncStub


class StageCalls:
    """The calls about the room. A part of `BroadcastClient`, which says what holds for every call."""

    def __init__(self, connection: Connection, call: Caller) -> None:
        self._connection = connection
        self._call = call

    @property
    def _stub(self) -> "BroadcastServiceAsyncStub":
        return self._connection.stub(BroadcastServiceStub)

    async def participants(
        self, broadcast_id: str, *, publishers_only: bool = False, timeout: float | None = None
    ) -> ListParticipantsResponse:
        """Answer everybody in the room, with the tracks that each publishes.

        Args:
            broadcast_id: id of the broadcast.
            publishers_only: leave out those who publish nothing.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            StateForbids: it was not started, or is over.
            ProviderUnavailable: LiveKit did not answer.
        """
        request = ListParticipantsRequest(broadcast_id=broadcast_id, publishers_only=publishers_only)
        return await self._call(self._stub.ListParticipants, request, "ListParticipants", Safety.READ, timeout=timeout)

    async def remove_participant(
        self,
        broadcast_id: str,
        identity: str,
        *,
        note: str = "",
        allow_missing: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Put a participant out of the room. It may come back with the token that it has, until that expires.

        Without *allow_missing* a lost answer is not tried again, because the second try would find nobody.

        Args:
            broadcast_id: id of the broadcast.
            identity: its identity in the room.
            note: who asks for it, or why, for the events.
            allow_missing: somebody who is not there counts as removed.
            timeout: deadline of one try, in seconds.

        Raises:
            ParticipantNotFound: nobody of that identity is there, and *allow_missing* is False.
            InvalidField: it is an egress.
            BroadcastNotFound, StateForbids, ProviderUnavailable: as `participants`.
        """
        request = RemoveParticipantRequest(
            broadcast_id=broadcast_id, identity=identity, note=note, allow_missing=allow_missing
        )
        safety = Safety.REPEATABLE if allow_missing else Safety.ONCE
        await self._call(self._stub.RemoveParticipant, request, "RemoveParticipant", safety, timeout=timeout)

    async def mute_participant(
        self,
        broadcast_id: str,
        identity: str,
        *,
        track_sids: Iterable[str] = (),
        unmute: bool = False,
        note: str = "",
        timeout: float | None = None,
    ) -> Sequence[TrackHealth]:
        """Mute tracks of a participant. Answers these tracks as they are now.

        Args:
            broadcast_id: id of the broadcast.
            identity: its identity in the room.
            track_sids: the tracks, by their sid. Empty: every track with sound.
            unmute: unmute them instead.
            note: who asks for it, or why, for the events.
            timeout: deadline of one try, in seconds.

        Raises:
            ParticipantNotFound: nobody of that identity is there, or it does not publish that track.
            UnmuteRefused: LiveKit's setting `room.enable_remote_unmute` is not on.
            BroadcastNotFound, StateForbids, ProviderUnavailable: as `participants`.
        """
        request = MuteParticipantRequest(
            broadcast_id=broadcast_id, identity=identity, track_sids=track_sids, unmute=unmute, note=note
        )
        answer = await self._call(
            self._stub.MuteParticipant, request, "MuteParticipant", Safety.REPEATABLE, timeout=timeout
        )
        return answer.tracks
