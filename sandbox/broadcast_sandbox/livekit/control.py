"""The hand that moves the simulated world: people, faults, the clock, and what really happened.

None of it is LiveKit's. Bad input is answered 400 with `{"error": text naming the field}`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jwt
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from livekit import api
from livekit.protocol import models

from broadcast_sandbox.livekit.egress import Egress
from broadcast_sandbox.livekit.egress_service import EgressService
from broadcast_sandbox.livekit.rooms import SOURCES, NewRoom, RefusedError, Room, Rooms
from broadcast_sandbox.livekit.world import World

_T = TypeVar("_T")
Body = Mapping[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_KINDS: dict[str, models.ParticipantInfo.Kind] = {
    "egress": models.ParticipantInfo.EGRESS,
    "ingress": models.ParticipantInfo.INGRESS,
    "sip": models.ParticipantInfo.SIP,
    "agent": models.ParticipantInfo.AGENT,
}


class ControlError(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joining:
    wanted: NewRoom
    person: models.ParticipantInfo


class Control:
    def __init__(
        self,
        world: World,
        rooms: Rooms,
        egress: EgressService,
        *,
        changed: Callable[[], None],
        cleared: Callable[[], None],
    ) -> None:
        """*changed* is called after a fault was added, *cleared* after all were removed."""
        self._world = world
        self._rooms = rooms
        self._egress = egress
        self._changed = changed
        self._cleared = cleared
        self._verifier = api.TokenVerifier(world.settings.api_key, world.settings.api_secret)

    def routes(self) -> list[web.RouteDef]:
        posts: dict[str, Callable[[Body], Any]] = {
            "/_control": self._set,
            "/_control/join": self._join,
            "/_control/publish": self._publish,
            "/_control/unpublish": self._unpublish,
            "/_control/mute": self._mute,
            "/_control/leave": self._leave,
            "/_control/drop": self._drop,
            "/_control/egress": self._end_egress,
            "/_faults": self._add_faults,
        }
        return [
            *(web.post(path, _answering(act)) for path, act in posts.items()),
            web.get("/_control", self._get(lambda _: self._settings())),
            web.get("/_faults", self._get(lambda _: self._faults())),
            web.delete("/_faults", self._get(lambda _: self._clear_faults())),
            web.get("/_effects", self._get(self._effects)),
            web.get("/_state", self._get(lambda _: self._state())),
        ]

    def _get(self, read: Callable[[web.Request], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return web.json_response(read(request))
            except ControlError as error:
                return web.json_response({"error": str(error)}, status=error.status)

        return handle

    def _set(self, body: Body) -> Any:
        unknown = set(body) - {"time_scale", "latency_ms", "webhooks", "workers"}
        if unknown:
            raise ControlError(f"unknown field(s): {', '.join(sorted(unknown))}")
        scale = _number(body, "time_scale", self._world.clock.scale)
        latency_ms = _number(body, "latency_ms", self._world.latency_ms)
        workers = _typed(body, "workers", int, self._world.workers)
        webhooks = _typed(body, "webhooks", bool, self._world.webhooks.sender.enabled)
        if scale <= 0:
            raise ControlError("time_scale: has to be greater than 0")
        if latency_ms < 0:
            raise ControlError("latency_ms: has to be 0 or more")
        self._world.clock.scale = scale
        self._world.latency_ms = latency_ms
        self._world.workers = workers
        self._world.webhooks.sender.enabled = webhooks
        return self._settings()

    def _settings(self) -> Any:
        return {
            "time_scale": self._world.clock.scale,
            "latency_ms": self._world.latency_ms,
            "webhooks": self._world.webhooks.sender.enabled,
            "workers": self._world.workers,
        }

    def _join(self, body: Body) -> Any:
        joining = self._by_token(body) if "token" in body else self._by_name(body)
        sources, simulcast = _sources(body, "publish", []), _typed(body, "simulcast", bool, True)
        room = self._rooms.living.get(joining.wanted.name)
        if room is None and not self._world.settings.auto_create:
            raise ControlError("room: requested room does not exist", 404)
        if room is None:
            room, _ = self._rooms.create(joining.wanted, auto=True)
        person = self._rooms.join(room, joining.person)
        self._rooms.publish(room, person, sources, simulcast=simulcast)
        return {"room": room.name, "room_sid": room.base.sid, "identity": person.identity, "sid": person.sid}

    def _by_token(self, body: Body) -> _Joining:
        """As the signal endpoint: signature, life time (60 s of leeway), `roomJoin` and the room of the grant."""
        try:
            claims = self._verifier.verify(_text(body, "token"))
        except jwt.PyJWTError as error:
            raise ControlError(f"token: {error}", 401) from None
        grants = claims.video
        if grants is None or not grants.room_join or not grants.room or not claims.identity:
            raise ControlError("token: permissions denied", 401)
        person = models.ParticipantInfo(
            identity=claims.identity,
            name=_typed(body, "name", str, claims.name),
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
            identity=_text(body, "identity"),
            name=_typed(body, "name", str, ""),
            permission=_permission(api.VideoGrants()),
        )
        return _Joining(wanted=NewRoom(name=_text(body, "room")), person=person)

    def _publish(self, body: Body) -> Any:
        room, person = self._person(body)
        simulcast = _typed(body, "simulcast", bool, True)
        self._rooms.publish(room, person, _sources(body, "sources"), simulcast=simulcast)
        return _shown(person)

    def _unpublish(self, body: Body) -> Any:
        room, person = self._person(body)
        gone = {SOURCES[source][1] for source in _sources(body, "sources")}
        self._rooms.unpublish(room, person, [track for track in person.tracks if track.source in gone])
        return _shown(person)

    def _mute(self, body: Body) -> Any:
        room, person = self._person(body)
        source, muted = _text(body, "source"), _typed(body, "muted", bool)
        track = next((track for track in person.tracks if track.name == source), None)
        if track is None:
            raise ControlError(f"source: {person.identity} does not publish {source}", 404)
        self._rooms.mute(room, person, track, muted=muted)
        return _shown(person)

    def _leave(self, body: Body) -> Any:
        room, person = self._person(body)
        self._rooms.leave(room, person, models.DisconnectReason.CLIENT_INITIATED)
        return _shown(person)

    def _drop(self, body: Body) -> Any:
        """The server notices only after a while, and not at all when the same identity is back by then."""
        room, person = self._person(body)
        self._world.background.spawn(self._lose(room, person))
        return _shown(person)

    async def _lose(self, room: Room, person: models.ParticipantInfo) -> None:
        await self._world.clock.sleep(self._world.settings.drop_timeout_s)
        self._rooms.leave(room, person, models.DisconnectReason.CONNECTION_TIMEOUT)

    def _end_egress(self, body: Body) -> Any:
        """Ends that the service did not ask for."""
        record = self._egress.records.get(_text(body, "egress_id"))
        if record is None:
            raise ControlError("egress_id: egress does not exist", 404)
        ends: dict[str, Callable[[Egress], None]] = {
            "source_closed": lambda egress: egress.stop("Source closed"),
            "killed": lambda egress: egress.stop("Process killed"),
            "cpu_exhausted": lambda egress: egress.stop("CPU exhausted"),
            "limit_reached": Egress.limit_reached,
            "failed": lambda egress: egress.fail("Internal error", 500),
            "aborted": lambda egress: egress.abort("Start signal not received"),
            "ghost": Egress.become_ghost,
        }
        end = ends.get(_text(body, "end"))
        if end is None:
            raise ControlError(f"end: one of {', '.join(ends)}")
        end(record)
        return MessageToDict(record.info(), preserving_proto_field_name=True)

    def _add_faults(self, body: Any) -> Any:
        try:
            self._world.faults.add_json(body)
        except ValueError as error:
            raise ControlError(str(error)) from None
        self._changed()
        return self._faults()

    def _clear_faults(self) -> Any:
        self._world.faults.clear()
        self._cleared()
        return self._faults()

    def _faults(self) -> Any:
        return {"faults": self._world.faults.as_json(), "hits": self._world.faults.hits}

    def _effects(self, request: web.Request) -> Any:
        after = request.query.get("after", "0")
        if not after.isdecimal():
            raise ControlError("after: a sequence number")
        return {"effects": [effect.as_json() for effect in self._world.effects.after(int(after))]}

    def _state(self) -> Any:
        return {
            "rooms": [
                {
                    **MessageToDict(room.info(), preserving_proto_field_name=True),
                    "participants": [_shown(person) for person in room.participants.values()],
                }
                for room in self._rooms.living.values()
            ],
            "egresses": [
                {**MessageToDict(record.info(), preserving_proto_field_name=True), "ghost": record.ghost}
                for record in self._egress.records.values()
            ],
        }

    def _person(self, body: Body) -> tuple[Room, models.ParticipantInfo]:
        room = self._rooms.living.get(_text(body, "room"))
        if room is None:
            raise ControlError("room: requested room does not exist", 404)
        person = room.participants.get(_text(body, "identity"))
        if person is None:
            raise ControlError("identity: participant does not exist", 404)
        return room, person


def _answering(act: Callable[[Any], Any]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(act(await _json(request)))
        except (ControlError, RefusedError) as error:
            return web.json_response({"error": str(error)}, status=error.status)

    return handle


async def _json(request: web.Request) -> Any:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise ControlError("body: not JSON") from None
    if not isinstance(body, dict) and request.path != "/_faults":
        raise ControlError("body: a JSON object")
    return cast("Any", body)


def _text(body: Body, name: str) -> str:
    value = _typed(body, name, str)
    if not value:
        raise ControlError(f"{name}: must not be empty")
    return value


def _typed(body: Body, name: str, kind: type[_T], default: _T | None = None) -> _T:
    value = body.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ControlError(f"{name}: {kind.__name__} expected")
    return value


def _number(body: Body, name: str, default: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ControlError(f"{name}: number expected")
    return float(value)


def _sources(body: Body, name: str, default: list[str] | None = None) -> list[str]:
    values = cast("list[Any]", _typed(body, name, list, default))
    for value in values:
        if value not in SOURCES:
            raise ControlError(f"{name}: each one of {', '.join(SOURCES)}")
    return values


def _permission(grants: api.VideoGrants) -> models.ParticipantPermission:
    """A list of sources says who may publish by itself (livekit/protocol auth/grants.go)."""
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


def _shown(person: models.ParticipantInfo) -> Any:
    return MessageToDict(person, preserving_proto_field_name=True)
