"""Rooms and the people in them, and the tokens with which they enter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from service.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomWanted:
    name: str
    tag: str
    empty_timeout: timedelta
    departure_timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSeen:
    name: str
    sid: str
    tag: str = ""
    """Our mark: environment and broadcast. Empty: not ours."""
    publishers: int = 0
    """How many of the people inside ever published, as `num_publishers` says: LiveKit never clears its flag at an
    unpublish, and refreshes this count every 5 s at best (livekit/livekit pkg/rtc/participant.go, room.go). So a count
    above 0 shows nothing. `RoomInside` shows who publishes.
    """
    participants: int = 0
    """How many people are inside, as late as `publishers`. Egresses are not among them."""
    recorded: bool = False
    """Whether an egress is in the room, as LiveKit's `active_recording` says, as late as the count."""
    created_at: datetime | None = None


class TrackKind(StrEnum):
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSeen:
    quality: str
    """low, medium, high or off."""
    width: int
    height: int
    bitrate_bps: int
    """The bit rate that the host's browser declared at the start. It is not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSeen:
    sid: str
    source: str
    """camera, microphone, screen_share, screen_share_audio or unknown."""
    kind: TrackKind
    muted: bool
    simulcast: bool
    width: int
    height: int
    mime_type: str
    layers: tuple[LayerSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSeen:
    identity: str
    name: str
    joined_at: datetime | None
    tracks: tuple[TrackSeen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomPeople:
    """The people in a room. An egress, an agent and a hidden participant are not among them."""

    publishers: tuple[PublisherSeen, ...] = ()
    viewers: int = 0
    """The number of people who publish nothing."""
    watching: int = 0
    """The number of those among them who came by themselves (kind STANDARD) and may not publish: a host who publishes
    nothing now is no viewer.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomInside:
    """The participants of a room now. One of them proves that the room exists; an empty list proves nothing."""

    people: RoomPeople = RoomPeople()
    recorders: frozenset[str] = frozenset()
    """Ids of the egresses that are in it, of any application."""
    recorded: bool = False
    """Whether anything records it: an egress, or a recorder of another kind."""
    anybody: bool = False
    """Whether anything is in it: a person, an egress, an agent, or somebody hidden."""


class ParticipantKind(StrEnum):
    """What a participant is. A person who only watches is a PERSON too: `may_publish` tells the two apart."""

    PERSON = "person"
    INGRESS = "ingress"
    """Media that an encoder sends, by WHIP or RTMP."""
    SIP = "sip"
    """A telephone."""
    RECORDER = "recorder"
    """An egress, or a recorder of another kind. It only receives."""
    AGENT = "agent"
    HIDDEN = "hidden"
    """One whom the others do not see, such as a monitor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantSeen:
    identity: str
    name: str
    kind: ParticipantKind | None
    """None: a kind that is newer than the service."""
    joined_at: datetime | None
    may_publish: tuple[str, ...]
    """The sources that it may publish now, in the words of `TrackSeen.source`."""
    tracks: tuple[TrackSeen, ...]


class Rooms(Protocol):
    async def create(self, wanted: RoomWanted) -> RoomSeen:
        """Repeating it is safe: the same name is the same room. The answer is of the server that holds the room, and
        the other calls read its store: a store that lost its data does not know a room that a create answers with
        (measured, livekit-server 1.13.5).
        """
        ...

    async def get(self, name: str) -> RoomSeen | None:
        """None: there is no such room."""
        ...

    async def list(self, names: Sequence[str] = ()) -> Sequence[RoomSeen]:
        """Those of the rooms *names* that exist. Without names: all rooms, also those that are not ours."""
        ...

    async def delete(self, name: str) -> bool:
        """Whether the room was deleted. False: the provider answers that there is no such room, which is no proof: see
        `create`.
        """
        ...

    async def people(self, name: str) -> RoomPeople:
        """The people in the room. Empty: the room is empty or does not exist."""
        ...

    async def inside(self, name: str) -> RoomInside:
        """Everybody in the room. Nobody: the room is empty or does not exist."""
        ...


class Moderation(Protocol):
    """What callers ask of the people in a room. Every call may be repeated, and nothing of it is our state, so an
    interface may call it itself.
    """

    async def participants(self, name: str) -> Sequence[ParticipantSeen]:
        """Everybody in the room, of every kind. Nobody: the room is empty or does not exist."""
        ...

    async def remove(self, name: str, identity: str) -> None:
        """Put *identity* out of the room. Its token stays valid, so it may come back. The outcome is MISSING if it is
        not there.
        """
        ...

    async def mute(self, name: str, identity: str, track_sid: str, *, muted: bool) -> bool:
        """Mute a track, or unmute it: the outcome is REFUSED where the server does not allow that. False: the
        participant has no such track. For one who is not there the outcome is UNAVAILABLE, after 3 s, so ask
        `participants` before.
        """
        ...


class HostRole(StrEnum):
    """What a token lets somebody do who publishes."""

    HOST = "host"
    """Camera, microphone, screen with its sound, and messages to the others."""
    CO_HOST = "co_host"
    """Camera and microphone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostToken:
    url: str
    """The address of the rooms, for a browser."""
    token: Secret
    expire_time: datetime


class HostTokens(Protocol):
    def issue(
        self, *, room_name: str, identity: str, display_name: str, ttl: timedelta, role: HostRole = HostRole.HOST
    ) -> HostToken:
        """Signed here, no call is made."""
        ...


class ViewerTokens(Protocol):
    def issue_viewer(self, *, room_name: str, identity: str, ttl: timedelta) -> HostToken:
        """A token with which a viewer can watch in the room and do nothing else. It is signed here, no call is made."""
        ...
