"""Everything that is known of one broadcast at one moment: what health and explanation are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from service.domain.broadcast import Broadcast, Target, seconds
from service.domain.lifecycle import Event
from service.domain.ports import PlaylistSeen, RoomPeople
from service.domain.resources import AnyResource, Kind, Resource
from service.domain.surroundings import Surroundings
from service.domain.view import View

SEEN_S = 30.0
"""What was not looked at for so long is not known any more: three rounds of the observer."""
PROBED_S = 30.0
"""The same of what the prober sees: three of its rounds."""
REPORTED_S = 30.0
"""The same of what the hosts' browsers report."""


class Quality(StrEnum):
    """LiveKit's measure of a connection, as the host's browser reports it."""

    UNKNOWN = "UNKNOWN"
    EXCELLENT = "EXCELLENT"
    GOOD = "GOOD"
    POOR = "POOR"
    LOST = "LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStats:
    """One report of a host's browser. None: not measured."""

    quality: Quality = Quality.UNKNOWN
    video_bitrate_bps: int | None = None
    audio_bitrate_bps: int | None = None
    frame_rate: float | None = None
    packet_loss_ratio: float | None = None
    round_trip_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedStats:
    stats: HostStats
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the prober last saw at the two ends of the chain."""

    people: RoomPeople | None = None
    people_at: datetime | None = None
    playlist: PlaylistSeen | None = None
    playlist_at: datetime | None = None
    advanced_at: datetime | None = None
    """When the playlist was last seen to have moved on since the look before. None: never."""
    standing_since: datetime | None = None
    """When its newest segment was first seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event of the story."""

    event: Event
    time: datetime
    actor: str = ""

    @property
    def reason(self) -> str:
        return self.event.reason

    @property
    def message(self) -> str:
        return self.event.message


@dataclass(frozen=True, kw_only=True)
class Facts:
    broadcast: Broadcast
    resources: tuple[AnyResource, ...]
    now: datetime
    """By the database's clock, when all of this was read."""
    around: Surroundings = field(default_factory=Surroundings)
    looked_at: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """When the observer last asked a provider for everything, by provider."""
    probe: Probe = field(default_factory=Probe)
    stats: Mapping[str, ReportedStats] = field(default_factory=dict[str, ReportedStats])
    """By the host's identity."""
    story: tuple[Told, ...] = ()
    """Its last events, oldest first."""
    viewers: int | None = None
    """Who watches in the room, by the places that are taken. None: viewers do not watch there."""
    claimable_since: datetime | None = None
    """Since when a replica could have taken it up. None: it is not due, or one works on it."""

    @cached_property
    def view(self) -> View:
        return View(self.resources)

    def last(self, *reasons: str) -> Told | None:
        """The latest event with one of these reasons."""
        return next((told for told in reversed(self.story) if told.reason in reasons), None)

    def fresh(self, moment: datetime | None, within_s: float) -> bool:
        return moment is not None and self.now - moment <= seconds(within_s)

    def seen_at(self, resource: Resource) -> datetime | None:
        """Until when it is known that a resource is as stored: it was looked at, or the observer, who compares all of
        them with what is stored, had nothing to object.
        """
        seen = resource.observed_at
        provider = provider_of(resource)
        compared = self.looked_at.get(provider)
        dirty = self.broadcast.dirty_at
        objected = dirty is not None and (seen is None or seen < dirty)
        if (
            compared is None
            or seen is None
            or objected
            or provider in self.around.outages
            or self.broadcast.target is not Target.LIVE
        ):
            return seen
        return max(seen, compared)

    def known(self, resource: Resource) -> bool:
        """Whether what is stored of it may be told as what is."""
        return self.fresh(self.seen_at(resource), SEEN_S)


def provider_of(resource: Resource) -> str:
    return "mux" if resource.kind in (Kind.STREAM, Kind.UPLOAD) else "livekit"
