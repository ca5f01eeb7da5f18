"""Page and resume tokens: opaque to callers, versioned, and bound to the filter they were made for.

They hold positions and nothing secret, so they are not signed: who forges one reads what it could have asked for.
"""

import base64
import binascii
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from service.domain.errors import PageTokenInvalid, ResumeTokenInvalid
from service.store.broadcasts import Filter
from service.store.webhooks import WebhookFilter

_DEFAULT_PAGE = 50
_MAX_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Micros = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The last broadcast of a page: create time in microseconds since 1970, and id."""

    micros: _Micros
    id: _Id

    @classmethod
    def of(cls, create_time: datetime, broadcast_id: str) -> "Place":
        return cls((create_time - _EPOCH) // timedelta(microseconds=1), broadcast_id)

    @property
    def key(self) -> tuple[datetime, str]:
        return _EPOCH + timedelta(microseconds=self.micros), self.id


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="page", tag_field="t"):
    v: int
    filter: str
    place: Place
    revision: _Count
    """Of the first page."""


class StoryPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="story", tag_field="t"):
    v: int
    broadcast_id: _Id
    revision: _Count
    """Of the last event that was told."""


class InboxPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="inbox", tag_field="t"):
    v: int
    filter: str
    id: _Count
    """Of the last webhook of the page."""


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="resume", tag_field="t"):
    v: int
    filter: str
    revision: _Count
    place: Place | None = None
    """The snapshot was told up to here; the rest of it comes first."""


_Token = TypeVar("_Token", Page, StoryPage, InboxPage, Resume)


def filter_hash(filter: Filter) -> str:
    """The same for filters that mean the same, whatever the order of their values."""
    meant = (
        sorted(set(filter.ids)),
        sorted({str(state) for state in filter.states}),
        sorted(filter.labels),
        filter.owner_id,
        filter.created_after.isoformat() if filter.created_after is not None else "",
    )
    return _digest(meant)


def webhook_filter_hash(filter: WebhookFilter) -> str:
    return _digest((filter.provider, filter.broadcast_id, filter.type, filter.outcome))


def page_size(asked: int) -> int:
    """How many are told where so many are asked for. 0: not said."""
    return min(asked or _DEFAULT_PAGE, _MAX_PAGE)


def page_token(filter_is: str, place: Place, revision: int) -> str:
    return _encode(Page(_VERSION, filter_is, place, revision))


def read_page_token(text: str, filter_is: str) -> Page:
    page = _decode(text, Page)
    if page is None:
        raise PageTokenInvalid("the page token is damaged")
    if page.filter != filter_is:
        raise PageTokenInvalid("the page token belongs to another filter")
    return page


def story_token(broadcast_id: str, revision: int) -> str:
    return _encode(StoryPage(_VERSION, broadcast_id, revision))


def read_story_token(text: str, broadcast_id: str) -> StoryPage:
    page = _decode(text, StoryPage)
    if page is None:
        raise PageTokenInvalid("the page token is damaged")
    if page.broadcast_id != broadcast_id:
        raise PageTokenInvalid("the page token belongs to another broadcast")
    return page


def inbox_token(filter_is: str, last_id: int) -> str:
    return _encode(InboxPage(_VERSION, filter_is, last_id))


def read_inbox_token(text: str, filter_is: str) -> InboxPage:
    page = _decode(text, InboxPage)
    if page is None:
        raise PageTokenInvalid("the page token is damaged")
    if page.filter != filter_is:
        raise PageTokenInvalid("the page token belongs to another filter")
    return page


def resume_token(filter_is: str, revision: int, place: Place | None = None) -> str:
    return _encode(Resume(_VERSION, filter_is, revision, place))


def read_resume_token(text: str, filter_is: str) -> Resume:
    token = _decode(text, Resume)
    if token is None:
        raise ResumeTokenInvalid("the resume token is damaged")
    if token.filter != filter_is:
        raise ResumeTokenInvalid("the resume token belongs to another filter")
    return token


def _digest(meant: tuple[object, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(meant)).hexdigest()[:16]


def _encode(token: Page | StoryPage | InboxPage | Resume) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _decode(text: str, kind: type[_Token]) -> _Token | None:
    try:
        # The standard decoder skips characters that are not of its alphabet, and damage must not go unseen.
        token = msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), type=kind
        )
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None
    return token if token.v == _VERSION else None
