"""What the reconciler needs of the providers, in the words of the domain.

Every method raises ProviderError and nothing else; each ends within its own timeout, which is shorter than a lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from service.domain.broadcast import (
    EgressStatus,
    Encoding,
    LatencyMode,
    Output,
    OutputState,
    PlaybackPolicy,
    Recording,
    StreamStatus,
)
from service.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSeen:
    name: str
    sid: str
    tag: str = ""
    """Our mark: environment and broadcast. Empty: not ours."""
    publishers: int = 0
    """People who publish; an egress is none."""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSeen:
    address: str
    """Redacted url, the form in which LiveKit shows it: the key is its first and last three characters."""
    state: OutputState
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSeen:
    id: str
    room_name: str
    status: EgressStatus
    started_at: datetime | None = None
    updated_ns: int = 0
    outputs: tuple[OutputSeen, ...] = ()
    error: str = ""


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
    """What the destinations by MUX are doing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomWanted:
    name: str
    tag: str
    empty_timeout: timedelta
    departure_timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Where an egress pushes to, with the key in it. `name` is the destination's, or "" for the live stream."""

    name: str
    url: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressWanted:
    room_name: str
    encoding: Encoding
    audio_only: bool
    layout: str
    pushes: tuple[Push, ...]


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
    relays: tuple[Relay, ...] = ()


class Rooms(Protocol):
    async def create(self, wanted: RoomWanted) -> RoomSeen:
        """Repeating it is safe: the same name is the same room."""
        ...

    async def get(self, name: str) -> RoomSeen | None: ...
    async def list(self) -> Sequence[RoomSeen]: ...
    async def delete(self, name: str) -> None:
        """A room that is not there is deleted."""
        ...


class Egresses(Protocol):
    async def start(self, wanted: EgressWanted) -> EgressSeen:
        """Not safe to repeat: each call starts one more."""
        ...

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        """All of the room, the ended of the last 24 hours too."""
        ...

    async def list_active(self) -> Sequence[EgressSeen]: ...
    async def stop(self, egress_id: str) -> None:
        """What has ended or is not there is stopped. Answers before the end: see `list_room`."""
        ...

    async def set_layout(self, egress_id: str, layout: str) -> None: ...
    async def set_pushes(self, egress_id: str, *, add: Sequence[Push], remove: Sequence[Push]) -> EgressSeen: ...
    def address_of(self, push: Push) -> str:
        """The form in which `OutputSeen.address` shows this push."""
        ...


class Streams(Protocol):
    async def create(self, wanted: StreamWanted) -> StreamSeen:
        """Not safe to repeat: each call creates one more."""
        ...

    async def get(self, stream_id: str) -> StreamSeen | None: ...
    async def find(self, tag: str, *, since: datetime) -> Sequence[StreamSeen]:
        """Those with exactly this tag that were created after *since*, oldest first."""
        ...

    async def list_active(self) -> Sequence[StreamSeen]: ...
    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        """One page, newest first, of those whose tag begins with *prefix*; and whether there are more pages."""
        ...

    async def disable(self, stream_id: str) -> None:
        """It refuses publishers from now on, and cuts off one that is there. A stream that is not there is disabled."""
        ...

    async def delete(self, stream_id: str) -> None:
        """A stream that is not there is deleted."""
        ...

    async def reset_key(self, stream_id: str) -> Secret:
        """The key before is dead from now on. Repeating it is safe, the last answer holds."""
        ...

    async def list_recordings(self, stream_id: str) -> Sequence[Recording]: ...
    async def delete_recording(self, asset_id: str) -> None: ...
    def push_url(self, key: Secret) -> Secret:
        """Where an egress pushes to."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostToken:
    livekit_url: str
    token: Secret
    expire_time: datetime


class HostTokens(Protocol):
    def issue(self, *, room_name: str, identity: str, display_name: str, ttl: timedelta) -> HostToken:
        """Signed here, no call is made."""
        ...
