"""`livekit.RoomService` of the simulated LiveKit (livekit/livekit pkg/service/roomservice.go)."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from livekit import api
from livekit.protocol import models
from livekit.protocol import room as proto

from broadcast_sandbox.livekit.egress.service import EgressService
from broadcast_sandbox.livekit.rooms import NewRoom, Room, Rooms
from broadcast_sandbox.livekit.twirp import Method, TwirpError, nobody_holds, psrpc_error
from broadcast_sandbox.livekit.world import World

_MAX_NAME_BYTES = 256
_MAX_METADATA_BYTES = 512 * 1024

Allowed = Callable[[api.VideoGrants, Any], bool]


class RoomService:
    def __init__(self, world: World, rooms: Rooms, egress: EgressService) -> None:
        self._world = world
        self._rooms = rooms
        self._egress = egress

    def methods(self) -> Mapping[str, Method]:
        table: dict[str, tuple[type[Message], Allowed, Callable[[Any], Any]]] = {
            "CreateRoom": (proto.CreateRoomRequest, _may_create, self._create),
            "ListRooms": (proto.ListRoomsRequest, _may_list, self._list),
            "DeleteRoom": (proto.DeleteRoomRequest, _may_create, self._delete),
            "ListParticipants": (proto.ListParticipantsRequest, _may_administer, self._list_participants),
            "GetParticipant": (proto.RoomParticipantIdentity, _may_administer, self._get_participant),
            "RemoveParticipant": (proto.RoomParticipantIdentity, _may_administer, self._remove_participant),
            "MutePublishedTrack": (proto.MuteRoomTrackRequest, _may_administer, self._mute),
            "UpdateParticipant": (proto.UpdateParticipantRequest, _may_administer, self._update_participant),
            "UpdateSubscriptions": (proto.UpdateSubscriptionsRequest, _may_administer, self._update_subscriptions),
            "SendData": (proto.SendDataRequest, _may_administer, self._send_data),
            "UpdateRoomMetadata": (proto.UpdateRoomMetadataRequest, _may_administer, self._update_metadata),
            "ForwardParticipant": (proto.ForwardParticipantRequest, _may_administer, _cloud_only),
            "MoveParticipant": (proto.MoveParticipantRequest, _may_administer, _cloud_only),
            "PerformRpc": (proto.PerformRpcRequest, _may_administer, _cloud_only),
        }
        return {
            f"livekit.RoomService/{name}": Method(request=request, allowed=allowed, call=call, target=_target)
            for name, (request, allowed, call) in table.items()
        }

    async def _create(self, request: proto.CreateRoomRequest) -> models.Room:
        if not request.name:
            raise psrpc_error("invalid_argument", "no room name")
        if len(request.name.encode()) > _MAX_NAME_BYTES:
            raise psrpc_error("invalid_argument", "room name length exceeds limits")
        _check_metadata(request.metadata)
        wanted = NewRoom(
            name=request.name,
            empty_timeout_s=request.empty_timeout,
            departure_timeout_s=request.departure_timeout,
            max_participants=request.max_participants,
            metadata=request.metadata,
        )
        room, created = self._rooms.create(wanted)
        if created and request.egress.HasField("room"):
            # If this fails the room stays: the next CreateRoom answers 200, without an egress.
            request.egress.room.room_name = room.name
            await self._egress.start(request.egress.room)
        return room.info()

    async def _list(self, request: proto.ListRoomsRequest) -> proto.ListRoomsResponse:
        rooms = self._rooms.stored.values()
        return proto.ListRoomsResponse(
            rooms=[room.info() for room in rooms if not request.names or room.name in request.names]
        )

    async def _delete(self, request: proto.DeleteRoomRequest) -> proto.DeleteRoomResponse:
        self._rooms.delete(self._room(request.room))
        return proto.DeleteRoomResponse()

    async def _list_participants(self, request: proto.ListParticipantsRequest) -> proto.ListParticipantsResponse:
        """An unknown room is an empty list (livekit/livekit pkg/service/redisstore.go)."""
        room = self._rooms.living.get(request.room)
        return proto.ListParticipantsResponse(participants=room.listed if room is not None else [])

    async def _get_participant(self, request: proto.RoomParticipantIdentity) -> models.ParticipantInfo:
        return self._person(request.room, request.identity)[1]

    async def _remove_participant(self, request: proto.RoomParticipantIdentity) -> proto.RemoveParticipantResponse:
        """The token stays valid: the participant may come back."""
        room, person = self._person(request.room, request.identity)
        self._rooms.leave(room, person, models.DisconnectReason.PARTICIPANT_REMOVED)
        return proto.RemoveParticipantResponse()

    async def _mute(self, request: proto.MuteRoomTrackRequest) -> proto.MuteRoomTrackResponse:
        room, person = await self._held(request.room, request.identity)
        track = next((track for track in person.tracks if track.sid == request.track_sid), None)
        if track is None:
            return proto.MuteRoomTrackResponse()
        if track.muted and not request.muted:
            raise psrpc_error("failed_precondition", "remote unmute not enabled")
        self._rooms.mute(room, person, track, muted=request.muted)
        return proto.MuteRoomTrackResponse(track=track)

    async def _update_participant(self, request: proto.UpdateParticipantRequest) -> models.ParticipantInfo:
        _check_metadata(request.metadata)
        room, person = self._person(request.room, request.identity)
        if request.metadata:
            person.metadata = request.metadata
        if request.name:
            person.name = request.name
        for key, value in request.attributes.items():
            if value:
                person.attributes[key] = value
            else:
                person.attributes.pop(key, None)
        if request.HasField("permission"):
            self._rooms.set_permission(room, person, request.permission)
        self._rooms.update(room, person)
        return person

    async def _update_subscriptions(
        self, request: proto.UpdateSubscriptionsRequest
    ) -> proto.UpdateSubscriptionsResponse:
        await self._held(request.room, request.identity)
        return proto.UpdateSubscriptionsResponse()

    async def _send_data(self, request: proto.SendDataRequest) -> proto.SendDataResponse:
        room = self._rooms.living.get(request.room)
        if room is None:
            raise await nobody_holds(self._world)
        self._world.effects.append("data.sent", room.name, topic=request.topic, bytes=len(request.data))
        return proto.SendDataResponse()

    async def _update_metadata(self, request: proto.UpdateRoomMetadataRequest) -> models.Room:
        _check_metadata(request.metadata)
        room = self._room(request.room)
        room.base.metadata = request.metadata
        self._world.effects.append("room.updated", room.name, sid=room.base.sid)
        return room.info()

    def _room(self, name: str) -> Room:
        room = self._rooms.stored.get(name)
        if room is None:
            raise psrpc_error("not_found", "requested room does not exist")
        return room

    def _person(self, room_name: str, identity: str) -> tuple[Room, models.ParticipantInfo]:
        """As the store has it. Raises TwirpError."""
        room = self._rooms.living.get(room_name)
        person = next((each for each in room.listed if each.identity == identity), None) if room is not None else None
        if room is None or person is None:
            raise psrpc_error("not_found", "participant does not exist")
        return room, person

    async def _held(self, room_name: str, identity: str) -> tuple[Room, models.ParticipantInfo]:
        """For requests that go to the server that holds the participant. Raises TwirpError."""
        room = self._rooms.living.get(room_name)
        person = room.participants.get(identity) if room is not None else None
        if room is None or person is None:
            raise await nobody_holds(self._world)
        return room, person


def _may_create(grants: api.VideoGrants, _: Message) -> bool:
    return bool(grants.room_create)


def _may_list(grants: api.VideoGrants, _: Message) -> bool:
    return bool(grants.room_list)


def _may_administer(grants: api.VideoGrants, request: Any) -> bool:
    return bool(grants.room_admin) and grants.room == request.room


def _target(request: Any) -> str:
    if isinstance(request, proto.ListRoomsRequest):
        return " ".join(request.names)
    return str(request.name if isinstance(request, proto.CreateRoomRequest) else request.room)


def _check_metadata(metadata: str) -> None:
    if len(metadata.encode()) > _MAX_METADATA_BYTES:
        raise psrpc_error("invalid_argument", "metadata size exceeds limits")


async def _cloud_only(_: Message) -> Message:
    raise TwirpError("unimplemented", "twirp error unknown: not implemented")
