"""The playlists that players get."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaylistSeen:
    status: int
    """HTTP status; the rest is known with 200 alone. 412: the stream is not on air."""
    media_sequence: int | None = None
    last_segment: str = ""
    """Without its query, which may be a token."""
    segments: int = 0
    discontinuities: int = 0
    """Since the beginning: those that have left the playlist are counted too."""
    ended: bool = False
    target_duration_s: float = 0.0


class Playlists(Protocol):
    async def look(self, url: str) -> PlaylistSeen:
        """The playlist that a viewer's player gets from *url* now, of the first rendition."""
        ...
