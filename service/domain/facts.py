"""Everything that is known of one broadcast at one moment: what health and explanation are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from service.domain.broadcast import Broadcast, ProviderTrouble, Target, seconds
from service.domain.lifecycle import Event
from service.domain.ports import PlaylistSeen, RoomPeople
from service.domain.provider import OWNER, Provider
from service.domain.reasons import Actor, EventReason
from service.domain.resource_set import View
from service.domain.resources import AnyResource, Kind, Phase, Resource
from service.domain.situation import Surroundings

SEEN_S = 30.0
"""What was not looked at for so long is not known any more: three rounds of the observer."""
PROBED_S = 30.0
"""The same of what the prober sees: three of its rounds."""
MOVES_WITHIN = 3
"""Target durations of a playlist: one that stood still for longer is stalled (RFC 8216, 6.2: a new segment is there
within one and a half)."""
REPORTED_S = 30.0
"""The same of what the hosts' browsers report."""


_ENDED_BY = {
    Kind.ROOM: ("DeleteRoom",),
    Kind.STREAM: ("disable_live_stream", "delete_live_stream", "list_assets", "get_asset", "delete_asset"),
    Kind.EGRESS: ("StopEgress",),
    Kind.RECORDING: ("StopEgress",),
}


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
    """When its newest segment was first seen, or that there is no playlist."""

    @property
    def stalled(self) -> bool:
        """Whether a player got nothing new for too long when it was last looked at."""
        return self.stands(self.standing_since)

    def stands(self, since: datetime | None) -> bool:
        """The same, of what happened from *since* on."""
        if self.playlist is None or self.playlist_at is None or since is None:
            return False
        return self.playlist_at - since > seconds(MOVES_WITHIN * (self.playlist.target_duration_s or 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event of the story."""

    event: Event
    time: datetime
    actor: Actor

    @property
    def reason(self) -> EventReason:
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

    def last(self, *reasons: EventReason) -> Told | None:
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
        return provider_of(resource) not in self.around.outages and self.fresh(self.seen_at(resource), SEEN_S)

    def does_not_go(self, resource: Resource) -> bool:
        """Whether the calls that are to end it fail: it runs, as far as anybody knows. A live stream is disabled
        before it is deleted.
        """
        ends = self.broadcast.target is Target.ENDED and resource.kind is Kind.STREAM
        leaving = resource.phase is Phase.DELETING or (ends and resource.phase is Phase.PRESENT)
        return leaving and resource.failures > 0

    def trouble_with(self, resource: Resource) -> ProviderTrouble | None:
        """The last error, if it is about the end of this."""
        trouble = self.broadcast.status.last_error
        return trouble if trouble is not None and trouble.operation in _ENDED_BY.get(resource.kind, ()) else None


def provider_of(resource: Resource) -> Provider:
    return OWNER[resource.kind]
