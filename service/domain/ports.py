"""The interfaces of the providers that the reconciler uses, in the words of the domain.

Every method raises ProviderError and nothing else; each ends within its own timeout, which is shorter than a lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from service.domain.broadcast import Encoding, LatencyMode, PlaybackPolicy
from service.domain.resources import EgressStatus, Output, OutputState, Recording, StreamStatus
from service.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSeen:
    name: str
    sid: str
    tag: str = ""
    """Our mark: environment and broadcast. Empty: not ours."""
    publishers: int = 0
    """The number of people who publish. An egress does not count."""
    recorded: bool = False
    """Whether an egress is in it, as LiveKit's `active_recording` says."""
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
    file: str = ""
    """Object key in the storage. Empty: it makes no file, it streams."""
    file_bytes: int = 0
    """Known when it has ended, as is the duration."""
    file_duration_s: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomWanted:
    name: str
    tag: str
    empty_timeout: timedelta
    departure_timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """An address that an egress pushes to, with its key. `name` is the destination's, or "" for the live stream."""

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
class RecordingWanted:
    """An egress that makes a file in our storage instead of a stream."""

    room_name: str
    encoding: Encoding
    audio_only: bool
    layout: str
    file: str
    """Object key."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadWanted:
    tag: str
    """Differs from the live stream's tag, which the recordings of the live stream carry."""
    url: Secret
    """Mux fetches the file within minutes after the call."""
    title: str
    playback_policy: PlaybackPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSeen:
    id: str
    tag: str
    created_at: datetime


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
    """People alone: no egress, no agent, nobody hidden."""

    publishers: tuple[PublisherSeen, ...] = ()
    viewers: int = 0
    """The number of people who publish nothing."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The content of one webhook. A field that it does not have is empty or None."""

    event_id: str
    """The same for every delivery of one event."""
    type: str
    provider_time: datetime | None
    """When it happened, by the provider's clock. LiveKit's has whole seconds: order egresses by `updated_ns`."""
    environment: str = ""
    """Mux's id of the environment."""
    broadcast_hint: str = ""
    """LiveKit: the room's name. Mux: the tag."""
    egress: EgressSeen | None = None
    stream: StreamSeen | None = None
    """Without its key. Only where the event carries the whole stream."""
    recording: Recording | None = None
    room_sid: str = ""
    stream_id: str = ""
    connected: bool | None = None
    """Whether an encoder is connected to the live stream. No answer of the API tells it. None: the webhook does not
    tell it."""


class Unreadable(ValueError):
    """A webhook that is not what the provider sends."""


class Rooms(Protocol):
    async def create(self, wanted: RoomWanted) -> RoomSeen:
        """Repeating it is safe: the same name is the same room."""
        ...

    async def get(self, name: str) -> RoomSeen | None: ...
    async def list(self) -> Sequence[RoomSeen]: ...
    async def delete(self, name: str) -> None:
        """A room that does not exist counts as deleted."""
        ...

    async def people(self, name: str) -> RoomPeople:
        """The people in the room. Empty: the room is empty or does not exist."""
        ...

    async def recorders(self, name: str) -> frozenset[str]:
        """Ids of the egresses that are in it."""
        ...


class Egresses(Protocol):
    async def start(self, wanted: EgressWanted) -> EgressSeen:
        """Not safe to repeat: each call starts one more."""
        ...

    async def record(self, wanted: RecordingWanted) -> EgressSeen:
        """Not safe to repeat, as `start`. Without a storage the call is not sent, and the outcome is REFUSED."""
        ...

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        """All of the room, the ended of the last 24 hours too."""
        ...

    async def list_active(self) -> Sequence[EgressSeen]: ...
    async def stop(self, egress_id: str) -> None:
        """An egress that has ended or does not exist counts as stopped. Answers before the end: see `list_room`."""
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
        """All with exactly this tag that were created after *since*, oldest first."""
        ...

    async def list_active(self) -> Sequence[StreamSeen]: ...
    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        """One page, newest first, of those whose tag begins with *prefix*; and whether there are more pages."""
        ...

    async def disable(self, stream_id: str) -> None:
        """The live stream refuses encoders from now on, and cuts off a connected one. A missing stream counts as
        disabled.
        """
        ...

    async def enable(self, stream_id: str) -> None: ...
    async def delete(self, stream_id: str) -> None:
        """A stream that does not exist counts as deleted."""
        ...

    async def reset_key(self, stream_id: str) -> Secret:
        """The key before is dead from now on. Repeating it is safe, the last answer holds."""
        ...

    async def list_recordings(self, stream_id: str) -> Sequence[Recording]:
        """Oldest first."""
        ...

    async def recording(self, asset_id: str) -> Recording | None: ...
    async def delete_recording(self, asset_id: str) -> None: ...
    def push_url(self, key: Secret) -> Secret:
        """The address that an egress pushes to, with *key* in it."""
        ...


class Uploads(Protocol):
    """Assets made of files of our storage. A recording of a live stream is not among them."""

    async def create(self, wanted: UploadWanted) -> Recording:
        """Not safe to repeat: each call makes one more. The answer says nothing of the file: see `get`."""
        ...

    async def find(self, tag: str, *, since: datetime) -> Sequence[Recording]:
        """All with exactly this tag that were created after *since*, oldest first."""
        ...

    async def list_tagged(self, prefix: str, *, since: datetime, page: int) -> tuple[Sequence[UploadSeen], bool]:
        """One page, newest first, of those whose tag begins with *prefix*; and whether there are more pages with what
        was created after *since*.
        """
        ...

    async def get(self, asset_id: str) -> Recording | None: ...


class Storage(Protocol):
    """The storage that an egress writes files to."""

    def url_of(self, file: str) -> Secret:
        """An address with which the file can be read for 24 hours. It is signed here, no call is made."""
        ...


class Playlists(Protocol):
    async def look(self, url: str) -> PlaylistSeen:
        """The playlist that a viewer's player gets from *url* now, of the first rendition."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostToken:
    url: str
    """The address of the rooms, for a browser."""
    token: Secret
    expire_time: datetime


class HostTokens(Protocol):
    def issue(self, *, room_name: str, identity: str, display_name: str, ttl: timedelta) -> HostToken:
        """Signed here, no call is made."""
        ...


class ViewerTokens(Protocol):
    def issue_viewer(self, *, room_name: str, identity: str, ttl: timedelta) -> HostToken:
        """A token with which a viewer can watch in the room and do nothing else. It is signed here, no call is made."""
        ...
