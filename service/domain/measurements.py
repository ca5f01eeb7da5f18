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
UNSEEN_S = 1.5
"""Seconds between two looks that did not see the playlist, after which it is out of sight although it was seen lately.
One look that fails says nothing: it is repeated."""
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
class Unseen:
    """Looks in a row that did not see the playlist: the edge answered with an error or with something else, or not at
    all. They say nothing of the playlist itself, which may move on or not.
    """

    since: datetime
    at: datetime
    """When the last of them was made."""
    code: str
    """The HTTP status, or a word for what came instead of an answer."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The people in the room and the playlist of the player, as the prober saw both last."""

    people: RoomPeople | None = None
    people_at: datetime | None = None
    playlist: PlaylistSeen | None = None
    """As it was seen last. A look that did not see it changes nothing here."""
    playlist_at: datetime | None = None
    advanced_at: datetime | None = None
    """When the playlist was last seen to have moved on since the look before. None: never."""
    standing_since: datetime | None = None
    """When its newest segment was first seen, or that the live stream is not on air."""
    unseen: Unseen | None = None
    """The looks since then that did not see it. None: the last look saw it, or none was made."""

    def out_of_sight(self, now: datetime) -> Unseen | None:
        """The looks because of which nobody knows what viewers get. None: the playlist was seen lately, or nobody looks
        any more.
        """
        unseen = self.unseen
        if unseen is None or now - unseen.at > seconds(PROBED_S):
            return None
        seen_lately = self.playlist_at is not None and now - self.playlist_at <= seconds(PROBED_S)
        once = unseen.at - unseen.since < seconds(UNSEEN_S)
        return None if seen_lately and once else unseen

    @property
    def stalled(self) -> bool:
        """Whether a player got nothing new for too long when it was last looked at."""
        return self.stands(self.standing_since)

    def stands(self, since: datetime | None) -> bool:
        """The same, counted from *since*."""
        if self.playlist is None or self.playlist_at is None or since is None:
            return False
        return self.playlist_at - since > seconds(MOVES_WITHIN * (self.playlist.target_duration_s or 1.0))
