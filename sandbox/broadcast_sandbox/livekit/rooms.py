"""Rooms, participants and tracks of the simulated LiveKit, with the webhooks in the order the real server sends them.

A room is closed by DeleteRoom, `empty_timeout` after its creation when no standard participant ever joined, or
`departure_timeout` after the last of them left (livekit/livekit pkg/rtc/room.go, CloseIfEmpty).

The server holds its rooms in memory, and its store (Redis) has what was written there of each. A store that lost its
data knows of a room or of a participant again when something of it changes. Until then only CreateRoom, which the
memory answers, shows that the room is there (measured with livekit-server 1.13.5).
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from livekit.protocol import models

from broadcast_sandbox.livekit.world import World, new_id

SOURCES: dict[str, tuple[models.TrackType, models.TrackSource, str]] = {
    "camera": (models.TrackType.VIDEO, models.TrackSource.CAMERA, "TR_VC"),
    "microphone": (models.TrackType.AUDIO, models.TrackSource.MICROPHONE, "TR_AM"),
    "screen_share": (models.TrackType.VIDEO, models.TrackSource.SCREEN_SHARE, "TR_VS"),
    "screen_share_audio": (models.TrackType.AUDIO, models.TrackSource.SCREEN_SHARE_AUDIO, "TR_AS"),
}
"""Source name as in tokens -> track type, source, start of the track sid."""

_DEPENDENT_KINDS = (models.ParticipantInfo.EGRESS, models.ParticipantInfo.AGENT)


class RefusedError(Exception):
    """The server does not allow a join or a publish. *status* is the HTTP status of the signal endpoint."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Room:
    base: models.Room
    """Everything, with the counts as they were at the last refresh."""
    participants: dict[str, models.ParticipantInfo] = field(default_factory=dict[str, models.ParticipantInfo])
    media: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while any participant publishes a track. An egress waits for it before it becomes ACTIVE."""
    idle_timer: asyncio.Task[None] | None = None
    counted_at: float = -math.inf
    """When the counts were refreshed last, by the clock of the simulator."""
    recount: asyncio.Task[None] | None = None
    closed: bool = False
    stored: bool = True
    """Whether the store knows of it."""
    unstored: set[str] = field(default_factory=set[str])
    """Sids of the participants that the store does not know of."""

    @property
    def name(self) -> str:
        return self.base.name

    def info(self) -> models.Room:
        info = models.Room()
        info.CopyFrom(self.base)
        return info

    @property
    def listed(self) -> list[models.ParticipantInfo]:
        """The participants that the store knows of."""
        return [person for person in self.participants.values() if person.sid not in self.unstored]

    def count(self) -> None:
        """Egresses and agents are not counted. A publisher is counted by the flag, which an unpublish leaves set."""
        counted = [person for person in self.participants.values() if not dependent(person)]
        self.base.num_participants = len(counted)
        self.base.num_publishers = sum(1 for person in counted if person.is_publisher)
        self.base.active_recording = any(
            person.kind == models.ParticipantInfo.EGRESS for person in self.participants.values()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoom:
    name: str
    empty_timeout_s: int = 0
    departure_timeout_s: int = 0
    max_participants: int = 0
    metadata: str = ""


Left = Callable[[Room, models.ParticipantInfo, models.DisconnectReason], None]


class Rooms:
    def __init__(self, world: World) -> None:
        self._world = world
        self.living: dict[str, Room] = {}
        self.on_left: list[Left] = []
        self.on_closed: list[Callable[[Room], None]] = []

    def create(self, wanted: NewRoom, *, auto: bool = False) -> tuple[Room, bool]:
        """A new room and True, or the living room of that name and False: then the rest of *wanted* is ignored."""
        if (room := self.living.get(wanted.name)) is not None:
            return room, False
        settings, now_ms = self._world.settings, int(time.time() * 1000)
        base = models.Room(
            sid=new_id("RM_"),
            name=wanted.name,
            empty_timeout=wanted.empty_timeout_s or settings.empty_timeout_s,
            departure_timeout=wanted.departure_timeout_s or settings.departure_timeout_s,
            max_participants=wanted.max_participants,
            creation_time=now_ms // 1000,
            creation_time_ms=now_ms,
            metadata=wanted.metadata,
            turn_password=secrets.token_urlsafe(16),
            enabled_codecs=[models.Codec(mime=mime) for mime in _CODECS],
        )
        room = self.living[wanted.name] = Room(base=base, counted_at=self._world.clock.now())
        self._world.effects.append("room.created", room.name, sid=base.sid, auto=auto)
        self._world.webhooks.room_started(room.info())
        self._arm(room, base.empty_timeout, "empty")
        return room, True

    @property
    def stored(self) -> dict[str, Room]:
        """The rooms that the store knows of, by their names. Every call but CreateRoom looks here."""
        return {name: room for name, room in self.living.items() if room.stored}

    def forget(self) -> None:
        """The store loses its data. The rooms, and who is in them, stay as they are."""
        for room in self.living.values():
            room.stored = False
            room.unstored = {person.sid for person in room.participants.values()}

    def delete(self, room: Room) -> None:
        self._close(room, "api", models.DisconnectReason.ROOM_DELETED, models.RoomEndReason.ROOM_END_API_DELETE)

    def join(self, room: Room, person: models.ParticipantInfo) -> models.ParticipantInfo:
        """The same identity twice evicts the first (livekit/livekit pkg/service/roommanager.go)."""
        limit = room.base.max_participants
        others = [other for name, other in room.participants.items() if name != person.identity]
        if limit and not dependent(person) and sum(not dependent(other) for other in others) >= limit:
            raise RefusedError(403, "room has exceeded its max participants")
        if (before := room.participants.get(person.identity)) is not None:
            self.leave(room, before, models.DisconnectReason.DUPLICATE_IDENTITY)
        now_ms = int(time.time() * 1000)
        person.sid = new_id("PA_")
        person.state = models.ParticipantInfo.ACTIVE
        person.joined_at, person.joined_at_ms = now_ms // 1000, now_ms
        room.participants[person.identity] = person
        self._changed(room, person)
        if not dependent(person):
            self._disarm(room)
        self._recount(room)
        self._log("participant.joined", room, person)
        self._world.webhooks.participant("participant_joined", room.info(), person)
        return person

    def leave(self, room: Room, person: models.ParticipantInfo, reason: models.DisconnectReason) -> None:
        if room.participants.get(person.identity) is not person:
            return
        for track in list(person.tracks):
            self._unpublish(room, person, track)
        del room.participants[person.identity]
        person.state = models.ParticipantInfo.DISCONNECTED
        person.disconnect_reason = reason
        self._log("participant.left", room, person, reason=models.DisconnectReason.Name(reason))
        self._world.webhooks.participant("participant_left", room.info(), person)
        self._count(room)
        room.unstored.discard(person.sid)
        if not room.closed and not dependent(person) and all(map(dependent, room.participants.values())):
            self._arm(room, room.base.departure_timeout, "departure")
        for listener in self.on_left:
            listener(room, person, reason)

    def publish(
        self, room: Room, person: models.ParticipantInfo, sources: Sequence[str], *, simulcast: bool = True
    ) -> None:
        """Publish all of *sources* or none. A source that is published already stays. Raises RefusedError."""
        for source in sources:
            if not may_publish(person.permission, SOURCES[source][1]):
                raise RefusedError(403, f"{person.identity} may not publish {source}")
        for source in sources:
            kind, track_source, prefix = SOURCES[source]
            if any(track.source == track_source for track in person.tracks):
                continue
            track = person.tracks.add(
                sid=new_id(prefix), type=kind, source=track_source, name=source, mime_type=_mime(kind)
            )
            track.mid = str(len(person.tracks))
            track.stream = _STREAMS[track_source]
            track.version.unix_micro = time.time_ns() // 1000
            if kind == models.TrackType.VIDEO:
                _add_layers(track, simulcast=simulcast and source == "camera")
            else:
                track.backup_codec_policy = models.BackupCodecPolicy.SIMULCAST
                _add_codec(track)
            self._changed(room, person)
            person.is_publisher = True
            self._recount(room)
            room.media.set()
            self._log("track.published", room, person, source=source, track=track.sid)
            self._world.webhooks.track("track_published", room.base, person, track)

    def unpublish(self, room: Room, person: models.ParticipantInfo, tracks: Iterable[models.TrackInfo]) -> None:
        for track in list(tracks):
            self._unpublish(room, person, track)

    def mute(self, room: Room, person: models.ParticipantInfo, track: models.TrackInfo, *, muted: bool) -> None:
        track.muted = muted
        self._changed(room, person)
        self._log("track.muted" if muted else "track.unmuted", room, person, track=track.sid)

    def set_permission(
        self, room: Room, person: models.ParticipantInfo, permission: models.ParticipantPermission
    ) -> None:
        """Tracks that are no longer allowed are taken down. Only this clears the flag of a publisher."""
        person.permission.CopyFrom(permission)
        person.is_publisher = person.is_publisher and permission.can_publish
        self._recount(room)
        self._changed(room, person)
        self.unpublish(room, person, [track for track in person.tracks if not may_publish(permission, track.source)])

    def update(self, room: Room, person: models.ParticipantInfo) -> None:
        self._changed(room, person)
        self._log("participant.updated", room, person, can_publish=person.permission.can_publish)

    def _unpublish(self, room: Room, person: models.ParticipantInfo, track: models.TrackInfo) -> None:
        gone = models.TrackInfo()
        gone.CopyFrom(track)
        person.tracks.remove(track)
        self._changed(room, person)
        if not any(other.tracks for other in room.participants.values()):
            room.media.clear()
        self._log("track.unpublished", room, person, source=gone.name, track=gone.sid)
        self._world.webhooks.track("track_unpublished", room.base, person, gone)

    def _recount(self, room: Room) -> None:
        """Refresh the counts, but not within `counts_every_s` of the last refresh."""
        due = room.counted_at + self._world.settings.counts_every_s
        wait = due - self._world.clock.now()
        if wait <= 0:
            self._count(room)
        elif room.recount is None:
            room.recount = self._world.background.spawn(self._recount_later(room, wait))

    async def _recount_later(self, room: Room, seconds: float) -> None:
        await self._world.clock.sleep(seconds)
        room.recount = None
        self._count(room)

    def _count(self, room: Room) -> None:
        room.count()
        room.stored = True
        room.counted_at = self._world.clock.now()

    def _changed(self, room: Room, person: models.ParticipantInfo) -> None:
        room.unstored.discard(person.sid)
        person.version += 1

    def _log(self, kind: str, room: Room, person: models.ParticipantInfo, **detail: object) -> None:
        name = models.ParticipantInfo.Kind.Name(person.kind)
        self._world.effects.append(
            kind, room.name, identity=person.identity, sid=person.sid, participant_kind=name, **detail
        )

    def _arm(self, room: Room, seconds: int, reason: str) -> None:
        self._disarm(room)
        room.idle_timer = self._world.background.spawn(self._close_idle(room, seconds, reason))

    def _disarm(self, room: Room) -> None:
        if room.idle_timer is not None:
            room.idle_timer.cancel()
            room.idle_timer = None

    async def _close_idle(self, room: Room, seconds: int, reason: str) -> None:
        await self._world.clock.sleep(seconds)
        room.idle_timer = None
        self._close(room, reason, models.DisconnectReason.ROOM_CLOSED, models.RoomEndReason.ROOM_END_IDLE_TIMEOUT)

    def _close(self, room: Room, reason: str, left: models.DisconnectReason, ended: models.RoomEndReason) -> None:
        room.closed = True
        self._disarm(room)
        if room.recount is not None:
            room.recount.cancel()
        del self.living[room.name]
        for person in list(room.participants.values()):
            self.leave(room, person, left)
        self._world.effects.append("room.deleted", room.name, sid=room.base.sid, reason=reason)
        self._world.webhooks.room_finished(room.info(), ended if self._world.settings.room_end_reason else None)
        for listener in self.on_closed:
            listener(room)


def dependent(person: models.ParticipantInfo) -> bool:
    """Whether the participant neither keeps a room open nor is counted (livekit/livekit pkg/rtc/participant.go,
    IsDependent).
    """
    return person.kind in _DEPENDENT_KINDS or person.permission.recorder or person.permission.agent


def may_publish(permission: models.ParticipantPermission, source: models.TrackSource) -> bool:
    """A list of sources narrows `can_publish` down (livekit/protocol auth/grants.go)."""
    return permission.can_publish and (not permission.can_publish_sources or source in permission.can_publish_sources)


def _mime(kind: models.TrackType) -> str:
    return "video/VP8" if kind == models.TrackType.VIDEO else "audio/red"


_CODECS = (
    "audio/PCMU",
    "audio/PCMA",
    "audio/opus",
    "audio/red",
    "video/VP8",
    "video/H264",
    "video/VP9",
    "video/AV1",
    "video/H265",
    "video/rtx",
)
"""Those that livekit-server enables by default."""
_STREAMS = {
    models.TrackSource.CAMERA: "camera",
    models.TrackSource.MICROPHONE: "camera",
    models.TrackSource.SCREEN_SHARE: "screen",
    models.TrackSource.SCREEN_SHARE_AUDIO: "screen",
}
"""Tracks that a player is to keep in step are of one stream."""


_RIDS = {models.VideoQuality.LOW: "q", models.VideoQuality.MEDIUM: "h", models.VideoQuality.HIGH: "f"}
# The layers that livekit-client declares at 720p.
_LAYERS = (
    (models.VideoQuality.LOW, 320, 180, 160_000),
    (models.VideoQuality.MEDIUM, 640, 360, 450_000),
    (models.VideoQuality.HIGH, 1280, 720, 1_700_000),
)


def _add_codec(track: models.TrackInfo) -> models.SimulcastCodecInfo:
    return track.codecs.add(
        mime_type=track.mime_type,
        mid=track.mid,
        cid=new_id("C_"),
        video_layer_mode=models.VideoLayer.Mode.ONE_SPATIAL_LAYER_PER_STREAM,
    )


def _add_layers(track: models.TrackInfo, *, simulcast: bool) -> None:
    """In `codecs` and in the deprecated `layers`, which is still filled. Bit rates are declared, never measured."""
    track.width, track.height, track.simulcast = 1280, 720, simulcast
    codec = _add_codec(track)
    for quality, width, height, bitrate in _LAYERS if simulcast else _LAYERS[-1:]:
        for layers in (codec.layers, track.layers):
            layers.add(
                quality=quality,
                width=width,
                height=height,
                bitrate=bitrate,
                ssrc=1 + int(quality),
                rid=_RIDS[quality] if simulcast else "",
            )
