"""Tokens with which players, and the service itself, read what the provider of streams gives to token holders alone."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from service.domain.secret import Secret


class TokenUse(StrEnum):
    """What a token may be used for. A token for one use is refused for every other."""

    VIDEO = "video"
    """The playlists and segments of a playback id."""
    THUMBNAIL = "thumbnail"
    """Still pictures of a playback id."""
    STORYBOARD = "storyboard"
    """The pictures along the time line of a playback id."""
    COUNTS = "counts"
    """The number of people who watch a live stream, by the id of the live stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackToken:
    token: Secret
    expire_time: datetime
    """When the provider refuses it. A player that is playing stops then."""


class PlaybackTokens(Protocol):
    def sign(self, subject: str, use: TokenUse, *, until: datetime) -> PlaybackToken:
        """A token for *subject*: a playback id, or for COUNTS the id of a live stream.

        It is signed here, no call is made. It holds no viewer, so everybody who asks for the same within some minutes
        gets the same token. *until*: it expires then, or up to five minutes later.
        """
        ...
