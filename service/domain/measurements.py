"""Measurements of one broadcast by the prober and by the hosts' browsers, and how long a measurement counts.

Every datetime is a moment of the database's clock. None means not measured, never zero.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.domain.broadcast import seconds
from service.domain.ports import PlaylistSeen, RoomPeople

SEEN_S = 30.0
"""Seconds for which a look of the observer counts: three of its rounds. Later the state is unknown."""
PROBED_S = 30.0
"""Seconds for which a look of the prober counts: three of its rounds."""
MOVES_WITHIN = 3
"""Target durations of a playlist: one that stood still for longer is stalled (RFC 8216, 6.2: a new segment is there
within one and a half)."""
REPORTED_S = 30.0
"""Seconds for which a report of a host's browser counts."""


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
    """The people in the room and the playlist of the player, as the prober saw both last."""

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
        """The same, counted from *since*."""
        if self.playlist is None or self.playlist_at is None or since is None:
            return False
        return self.playlist_at - since > seconds(MOVES_WITHIN * (self.playlist.target_duration_s or 1.0))
