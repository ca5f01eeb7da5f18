"""The people of the simulated LiveKit, as `/_control` moves them: join, publish, mute, leave, lose the connection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jwt
from google.protobuf.json_format import MessageToDict
from livekit import api
from livekit.protocol import models

from broadcast_sandbox.control_input import Body, ControlError, text, typed
from broadcast_sandbox.livekit.rooms import SOURCES, NewRoom, Room, Rooms
from broadcast_sandbox.livekit.world import World

_KINDS: dict[str, models.ParticipantInfo.Kind] = {
    "egress": models.ParticipantInfo.EGRESS,
    "ingress": models.ParticipantInfo.INGRESS,
    "sip": models.ParticipantInfo.SIP,
    "agent": models.ParticipantInfo.AGENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joining:
    wanted: NewRoom
    person: models.ParticipantInfo


class People:
    def __init__(self, world: World, rooms: Rooms) -> None:
        self._world = world
        self._rooms = rooms
        self._verifier = api.TokenVerifier(world.settings.api_key, world.settings.api_secret)

    def actions(self) -> dict[str, Callable[[Body], Any]]:
        """Path -> what a POST to it does; each raises ControlError, or RefusedError if the server does not allow it."""
        return {
            "/_control/join": self._join,
            "/_control/publish": self._publish,
            "/_control/unpublish": self._unpublish,
            "/_control/mute": self._mute,
            "/_control/leave": self._leave,
            "/_control/drop": self._drop,
        }

    def _join(self, body: Body) -> Any:
        joining = self._by_token(body) if "token" in body else self._by_name(body)
        sources, simulcast = _sources(body, "publish", []), typed(body, "simulcast", bool, True)
        room = self._rooms.living.get(joining.wanted.name)
        if room is None and not self._world.settings.auto_create:
            raise ControlError("room: requested room does not exist", 404)
        if room is None:
            room, _ = self._rooms.create(joining.wanted, auto=True)
        person = self._rooms.join(room, joining.person)
        self._rooms.publish(room, person, sources, simulcast=simulcast)
        return {"room": room.name, "room_sid": room.base.sid, "identity": person.identity, "sid": person.sid}

    def _by_token(self, body: Body) -> _Joining:
        """Checked as by the signal endpoint: signature, expiry (60 s of leeway), `roomJoin`, room of the grant."""
        try:
            claims = self._verifier.verify(text(body, "token"))
        except jwt.PyJWTError as error:
            raise ControlError(f"token: {error}", 401) from None
        grants = claims.video
        if grants is None or not grants.room_join or not grants.room or not claims.identity:
            raise ControlError("token: permissions denied", 401)
        person = models.ParticipantInfo(
            identity=claims.identity,
            name=typed(body, "name", str, claims.name),
            metadata=claims.metadata,
            attributes=claims.attributes or {},
            kind=_KINDS.get(claims.kind, models.ParticipantInfo.STANDARD),
            permission=_permission(grants),
        )
        config = claims.room_config
        wanted = NewRoom(
            name=grants.room,
            empty_timeout_s=config.empty_timeout if config else 0,
            departure_timeout_s=config.departure_timeout if config else 0,
            max_participants=config.max_participants if config else 0,
            metadata=config.metadata if config else "",
        )
        return _Joining(wanted=wanted, person=person)

    def _by_name(self, body: Body) -> _Joining:
        person = models.ParticipantInfo(
            identity=text(body, "identity"),
            name=typed(body, "name", str, ""),
            permission=_permission(api.VideoGrants()),
        )
        return _Joining(wanted=NewRoom(name=text(body, "room")), person=person)

    def _publish(self, body: Body) -> Any:
        room, person = self._person(body)
        simulcast = typed(body, "simulcast", bool, True)
        self._rooms.publish(room, person, _sources(body, "sources"), simulcast=simulcast)
        return shown(person)

    def _unpublish(self, body: Body) -> Any:
        room, person = self._person(body)
        gone = {SOURCES[source][1] for source in _sources(body, "sources")}
        self._rooms.unpublish(room, person, [track for track in person.tracks if track.source in gone])
        return shown(person)

    def _mute(self, body: Body) -> Any:
        room, person = self._person(body)
        source, muted = text(body, "source"), typed(body, "muted", bool)
        track = next((track for track in person.tracks if track.name == source), None)
        if track is None:
            raise ControlError(f"source: {person.identity} does not publish {source}", 404)
        self._rooms.mute(room, person, track, muted=muted)
        return shown(person)

    def _leave(self, body: Body) -> Any:
        room, person = self._person(body)
        self._rooms.leave(room, person, models.DisconnectReason.CLIENT_INITIATED)
        return shown(person)

    def _drop(self, body: Body) -> Any:
        """The server notices a lost connection after `drop_timeout_s`, and not if the identity is back by then."""
        room, person = self._person(body)
        self._world.background.spawn(self._lose(room, person))
        return shown(person)

    async def _lose(self, room: Room, person: models.ParticipantInfo) -> None:
        await self._world.clock.sleep(self._world.settings.drop_timeout_s)
        self._rooms.leave(room, person, models.DisconnectReason.CONNECTION_TIMEOUT)

    def _person(self, body: Body) -> tuple[Room, models.ParticipantInfo]:
        room = self._rooms.living.get(text(body, "room"))
        if room is None:
            raise ControlError("room: requested room does not exist", 404)
        person = room.participants.get(text(body, "identity"))
        if person is None:
            raise ControlError("identity: participant does not exist", 404)
        return room, person


def _sources(body: Body, name: str, default: list[str] | None = None) -> list[str]:
    values = cast("list[Any]", typed(body, name, list, default))
    for value in values:
        if value not in SOURCES:
            raise ControlError(f"{name}: each one of {', '.join(SOURCES)}")
    return values


def _permission(grants: api.VideoGrants) -> models.ParticipantPermission:
    """A list of sources narrows `can_publish` down in `rooms.may_publish` (livekit/protocol auth/grants.go)."""
    named = grants.can_publish_sources or []
    sources = [SOURCES[name][1] if name in SOURCES else models.TrackSource.UNKNOWN for name in named]
    return models.ParticipantPermission(
        can_subscribe=grants.can_subscribe,
        can_publish=grants.can_publish,
        can_publish_data=grants.can_publish_data,
        can_publish_sources=sources,
        hidden=bool(grants.hidden),
        recorder=bool(grants.recorder),
        agent=bool(grants.agent),
        can_update_metadata=bool(grants.can_update_own_metadata),
    )


def shown(person: models.ParticipantInfo) -> Any:
    return MessageToDict(person, preserving_proto_field_name=True)
