"""Rooms of LiveKit, and who is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit import api

from service.domain.errors import Outcome, ProviderError
from service.domain.reasons import Operation
from service.providers.livekit.calls import LiveKitCalls, each_seen, not_empty
from service.providers.livekit.observed import inside_seen, participants_seen, people_seen, room_seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livekit.protocol import models

    from service.domain.ports import ParticipantSeen, RoomInside, RoomPeople, RoomSeen, RoomWanted


class Rooms:
    def __init__(self, lk: api.LiveKitAPI, calls: LiveKitCalls) -> None:
        self._rooms = lk.room
        self._call = calls

    async def create(self, wanted: RoomWanted) -> RoomSeen:
        room = await self._call(
            Operation.CREATE_ROOM,
            self._rooms.create_room(
                api.CreateRoomRequest(
                    name=wanted.name,
                    metadata=wanted.tag,
                    # Zero would mean the server's default, not "none".
                    empty_timeout=max(1, int(wanted.empty_timeout.total_seconds())),
                    departure_timeout=max(1, int(wanted.departure_timeout.total_seconds())),
                )
            ),
        )
        not_empty(room.name, Operation.CREATE_ROOM)
        return room_seen(room)

    async def get(self, name: str) -> RoomSeen | None:
        found = await self._call(Operation.LIST_ROOMS, self._rooms.list_rooms(api.ListRoomsRequest(names=[name])))
        return next((room_seen(room) for room in found.rooms if room.name == name), None)

    async def list(self, names: Sequence[str] = ()) -> Sequence[RoomSeen]:
        found = await self._call(Operation.LIST_ROOMS, self._rooms.list_rooms(api.ListRoomsRequest(names=names)))
        return await each_seen(found.rooms, room_seen)

    async def delete(self, name: str) -> bool:
        try:
            await self._call(Operation.DELETE_ROOM, self._rooms.delete_room(api.DeleteRoomRequest(room=name)))
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise
            return False
        return True

    async def people(self, name: str) -> RoomPeople:
        return people_seen(await self._participants(name))

    async def inside(self, name: str) -> RoomInside:
        return inside_seen(await self._participants(name))

    async def participants(self, name: str) -> Sequence[ParticipantSeen]:
        return participants_seen(await self._participants(name))

    async def remove(self, name: str, identity: str) -> None:
        """LiveKit revokes no token: `revoke_token_ts` is read nowhere in the server."""
        await self._call(
            Operation.REMOVE_PARTICIPANT,
            self._rooms.remove_participant(api.RoomParticipantIdentity(room=name, identity=identity)),
        )

    async def mute(self, name: str, identity: str, track_sid: str, *, muted: bool) -> bool:
        """An unmute is answered with 412 unless `room.enable_remote_unmute` is set on the server."""
        answer = await self._call(
            Operation.MUTE_TRACK,
            self._rooms.mute_published_track(
                api.MuteRoomTrackRequest(room=name, identity=identity, track_sid=track_sid, muted=muted)
            ),
        )
        return answer.track.sid == track_sid

    async def _participants(self, name: str) -> Sequence[models.ParticipantInfo]:
        """What the server's store last heard of them: it is written when a participant changes, and a room that it
        does not know is an empty list (livekit/livekit pkg/service/redisstore.go).
        """
        try:
            found = await self._call(
                Operation.LIST_PARTICIPANTS, self._rooms.list_participants(api.ListParticipantsRequest(room=name))
            )
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                return ()
            raise
        return found.participants
