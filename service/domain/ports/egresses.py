"""Egresses: the jobs that send a room to live streams and destinations, or write it to a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.domain.broadcast import Encoding
from service.domain.resources import EgressStatus, OutputState
from service.domain.secret import Secret


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
class OutputSeen:
    address: str
    """Redacted url, the form in which LiveKit shows it: the key is its first and last three characters."""
    state: OutputState
    message: str = ""
    started_at: datetime | None = None
    """When it connected first, by LiveKit's clock."""
    ended_at: datetime | None = None
    """When it ended, by LiveKit's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSeen:
    id: str
    room_name: str
    status: EgressStatus
    started_at: datetime | None = None
    """When it was asked for, by LiveKit's clock."""
    ended_at: datetime | None = None
    """When it ended, by LiveKit's clock. None: it did not."""
    updated_ns: int = 0
    """The last change by LiveKit's clock, in Unix nanoseconds. 0: not known."""
    outputs: tuple[OutputSeen, ...] = ()
    error: str = ""
    file: str = ""
    """Object key in the storage. Empty: the egress streams and makes no file."""
    file_bytes: int = 0
    """Size and duration are 0 until the egress has ended."""
    file_duration_s: float = 0.0


class Egresses(Protocol):
    async def start(self, wanted: EgressWanted) -> EgressSeen:
        """Not safe to repeat: each call starts one more."""
        ...

    async def record(self, wanted: RecordingWanted) -> EgressSeen:
        """Not safe to repeat, as `start`. Without a storage the call is not sent, and the outcome is REFUSED."""
        ...

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        """All egresses of the room, also those that ended in the last 24 hours."""
        ...

    async def get(self, egress_id: str) -> EgressSeen | None:
        """None: asked for this id, the provider answered that there is none. An empty answer is a ProviderError."""
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
