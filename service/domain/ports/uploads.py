"""The storage that an egress writes files to, and the assets that are made of these files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.domain.broadcast import PlaybackPolicy, StaticRendition
from service.domain.ports.pages import NextPage, at_once
from service.domain.resources import Recording
from service.domain.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadWanted:
    tag: str
    """Differs from the live stream's tag, which the recordings of the live stream carry."""
    url: Secret
    """Mux fetches the file within minutes after the call."""
    title: str
    playback_policy: PlaybackPolicy
    owner_id: str = ""
    broadcast_id: str = ""
    static_rendition: StaticRendition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSeen:
    id: str
    tag: str
    created_at: datetime


class Uploads(Protocol):
    """Assets made of files of our storage. A recording of a live stream is not among them."""

    async def create(self, wanted: UploadWanted) -> Recording:
        """Not safe to repeat: each call makes one more. The answer says nothing of the file: see `get`."""
        ...

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[Recording]:
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
