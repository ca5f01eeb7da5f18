"""Page and resume tokens: opaque to callers, versioned, and bound to the filter they were made for.

A token holds positions and nothing secret, so it is not signed: a forged one reads nothing that the caller could not
ask for. Callers keep resume tokens over restarts and new versions of the service, so names in a token do not change.
"""

import base64
import binascii
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from service.domain.errors import PageTokenInvalid, ResumeTokenInvalid
from service.store.broadcasts import Filter
from service.store.ledger import CostQuery
from service.store.webhooks.stored import WebhookFilter

_DEFAULT_PAGE = 50
_MAX_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Micros = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Where a broadcast is in a list, which goes by create time and id. The time: microseconds since 1970, UTC."""

    micros: _Micros
    id: _Id

    @classmethod
    def of(cls, create_time: datetime, broadcast_id: str) -> "Position":
        return cls((create_time - _EPOCH) // timedelta(microseconds=1), broadcast_id)

    @property
    def key(self) -> tuple[datetime, str]:
        return _EPOCH + timedelta(microseconds=self.micros), self.id


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="page", tag_field="t"):
    v: int
    filter: str
    last: Position = msgspec.field(name="place")
    """Of the last broadcast of the page."""
    revision: _Count
    """Of the change log when the first page was read."""
    history: str = ""
    """The history of the database that `revision` is of. Empty: an earlier version made the token."""


class StoryPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="story", tag_field="t"):
    v: int
    broadcast_id: _Id
    revision: _Count
    """Of the last event of the page."""


class InboxPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="inbox", tag_field="t"):
    v: int
    filter: str
    id: _Count
    """Of the last webhook of the page."""


class CostPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="costs", tag_field="t"):
    v: int
    filter: str
    key: Annotated[str, msgspec.Meta(max_length=128)]
    """Of the last group of the page."""
    until: _Micros
    """The end of the period, which is the same for all pages: microseconds since 1970, UTC."""


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="resume", tag_field="t"):
    v: int
    filter: str
    revision: _Count
    last: Position | None = msgspec.field(name="place", default=None)
    """The last broadcast of the snapshot that was sent: the rest of the snapshot comes before the changes. None: the
    whole snapshot was sent.
    """
    history: str = ""
    """As of Page."""


_Filtered = TypeVar("_Filtered", Page, InboxPage, CostPage)
_Token = TypeVar("_Token", Page, StoryPage, InboxPage, CostPage, Resume)


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
    return _digest((filter.provider or "", filter.broadcast_id, filter.type, filter.outcome))


def cost_hash(query: CostQuery) -> str:
    """The same for queries that mean the same."""
    since, until = (each.isoformat() if each is not None else "" for each in (query.since, query.until))
    return _digest(
        (query.grouping, query.label, sorted(set(query.ids)), query.owner_id, sorted(query.labels), since, until)
    )


def page_size(asked: int) -> int:
    """The size of a page for a caller that asks for *asked* entries. 0: the caller leaves it to the service."""
    return min(asked or _DEFAULT_PAGE, _MAX_PAGE)


def page_token(digest: str, last: Position, revision: int, *, history: str = "") -> str:
    return _encode(Page(_VERSION, digest, last, revision, history))


def read_page_token(text: str, digest: str) -> Page:
    """Raises PageTokenInvalid."""
    return _page(text, Page, digest)


def story_token(broadcast_id: str, revision: int) -> str:
    return _encode(StoryPage(_VERSION, broadcast_id, revision))


def read_story_token(text: str, broadcast_id: str) -> StoryPage:
    """Raises PageTokenInvalid."""
    page = _decode(text, StoryPage)
    if page is None:
        raise PageTokenInvalid("the page token is damaged")
    if page.broadcast_id != broadcast_id:
        raise PageTokenInvalid("the page token belongs to another broadcast")
    return page


def inbox_token(digest: str, last_id: int) -> str:
    return _encode(InboxPage(_VERSION, digest, last_id))


def read_inbox_token(text: str, digest: str) -> InboxPage:
    """Raises PageTokenInvalid."""
    return _page(text, InboxPage, digest)


def cost_token(digest: str, last_key: str, until: datetime) -> str:
    return _encode(CostPage(_VERSION, digest, last_key, (until - _EPOCH) // timedelta(microseconds=1)))


def read_cost_token(text: str, digest: str) -> CostPage:
    """Raises PageTokenInvalid."""
    return _page(text, CostPage, digest, of="request")


def until(query: CostQuery, page: CostPage) -> CostQuery:
    """*query* with the end of the period that the first page had."""
    return replace(query, until=_EPOCH + timedelta(microseconds=page.until))


def resume_token(digest: str, revision: int, last: Position | None = None, *, history: str = "") -> str:
    return _encode(Resume(_VERSION, digest, revision, last, history))


def read_resume_token(text: str, digest: str) -> Resume:
    """Raises ResumeTokenInvalid."""
    token = _decode(text, Resume)
    if token is None:
        raise ResumeTokenInvalid("the resume token is damaged")
    if token.filter != digest:
        raise ResumeTokenInvalid("the resume token belongs to another filter")
    return token


def _page(text: str, kind: type[_Filtered], digest: str, *, of: str = "filter") -> _Filtered:
    page = _decode(text, kind)
    if page is None:
        raise PageTokenInvalid("the page token is damaged")
    if page.filter != digest:
        raise PageTokenInvalid(f"the page token belongs to another {of}")
    return page


def _digest(meant: tuple[object, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(meant)).hexdigest()[:16]


def _encode(token: Page | StoryPage | InboxPage | CostPage | Resume) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _decode(text: str, kind: type[_Token]) -> _Token | None:
    """None: *text* is no token of this kind and version."""
    try:
        # The standard decoder skips characters that are not of its alphabet, and damage must not go unseen.
        token = msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), type=kind
        )
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return None
    return token if token.v == _VERSION else None
