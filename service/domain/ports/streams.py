"""Live streams, their keys and the recordings of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.domain.broadcast import LatencyMode, PlaybackPolicy, StaticRendition
from service.domain.ports.pages import NextPage, at_once
from service.domain.resources import Output, Recording, StreamStatus
from service.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A destination that the live stream itself sends to."""

    name: str
    url: str
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWanted:
    tag: str
    title: str
    playback_policy: PlaybackPolicy
    latency_mode: LatencyMode
    reconnect_window_s: float
    max_duration_s: int
    test: bool
    audio_only: bool
    owner_id: str = ""
    """The caller's id of the owner, for the recordings."""
    broadcast_id: str = ""
    """For the recordings."""
    relays: tuple[Relay, ...] = ()
    static_rendition: StaticRendition | None = None
    """The file to download that is made of each recording. None: no file is made."""
    captions_language: str = ""
    """Empty: no captions are generated."""
    slate_url: str = ""
    """Empty: the provider's own image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSeen:
    id: str
    tag: str
    status: StreamStatus
    created_at: datetime
    key: Secret
    playback_id: str = ""
    active_asset_id: str = ""
    relays: tuple[Output, ...] = ()
    """The destinations that the live stream itself sends to."""


class Streams(Protocol):
    async def create(self, wanted: StreamWanted) -> StreamSeen:
        """Not safe to repeat: each call creates one more."""
        ...

    async def get(self, stream_id: str) -> StreamSeen | None:
        """None: there is no such live stream."""
        ...

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        """All with exactly this tag that were created after *since*, oldest first."""
        ...

    async def list_active(self, *, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        """All that get media, also those that are not ours."""
        ...

    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        """One page, newest first, of those whose tag begins with *prefix*; and whether there are more pages."""
        ...

    async def disable(self, stream_id: str) -> None:
        """The live stream refuses encoders from now on, and cuts off a connected one. A missing stream counts as
        disabled.
        """
        ...

    async def enable(self, stream_id: str) -> None: ...
    async def set_title(self, stream_id: str, title: str, *, owner_id: str, broadcast_id: str, tag: str = "") -> None:
        """Give the live stream, and the recordings that begin from now on, another title. *tag*: the mark of the live
        stream from now on; empty: it stays. Safe to repeat.
        """
        ...

    async def delete(self, stream_id: str) -> None:
        """A stream that does not exist counts as deleted."""
        ...

    async def reset_key(self, stream_id: str) -> Secret:
        """Answers the new key; the old one is refused from now on. Repeating it is safe: the last answer is the key."""
        ...

    async def list_recordings(self, stream_id: str, *, page: int) -> tuple[Sequence[Recording], bool]:
        """One page of the recordings of the live stream, each page oldest first, the first page the newest; and whether
        there are more pages. A live stream without a reconnect window makes one with every blip.
        """
        ...

    async def recording(self, asset_id: str) -> Recording | None: ...
    async def delete_recording(self, asset_id: str) -> None: ...
    def push_url(self, key: Secret) -> Secret:
        """The address that an egress pushes to, with *key* in it."""
        ...
