"""audience_of(): the one number of viewers, from the counts of all who count them. Pure.

No counter sees all viewers: sessions are those who give signs to the service, engagement those whose player reports to
the provider of live streams, the room those who are in it. The parts overlap, so they are never added. The largest is
the nearest to the truth, because none counts somebody who is not there. Only a caller who reports a number says that it
is the whole.

A part that is zero says nothing of the others. So zero is told only if a caller reports it, or if viewers of this
broadcast gave signs before, so that those who watch now would give signs too. Otherwise there is no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from service.domain.broadcast import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNTS_S: Final = 60.0
"""Seconds for which a count counts. An older one is left out."""


class Source(StrEnum):
    """Who counted."""

    SESSIONS = "SESSIONS"
    """The service, the viewers who joined and give signs."""
    ENGAGEMENT = "ENGAGEMENT"
    """The provider of live streams, the players that report to it."""
    ROOM = "ROOM"
    """The rooms' provider, the people in the room who may not publish."""
    REPORTED = "REPORTED"
    """A caller, who knows it from elsewhere."""


_PARTS: Final = (Source.SESSIONS, Source.ENGAGEMENT, Source.ROOM)
"""Of two that are equally large the first is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    source: Source
    viewers: int
    counted_at: datetime
    """By the database clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    viewers: int | None = None
    """None: nobody measured it."""
    rule: Source | None = None
    """Whose count it is. None: there is no number."""
    counts: tuple[Count, ...] = ()
    """All that count now, at most one of each source."""
    read_at: datetime
    """The time of this reading, by the database clock: the ages of the counts are counted up to it."""


def audience_of(counts: Iterable[Count], read_at: datetime) -> Audience:
    """*counts*: the latest of each source, however old."""
    fresh = {each.source: each for each in counts if read_at - each.counted_at <= seconds(COUNTS_S)}
    all_ = tuple(fresh[source] for source in Source if source in fresh)
    parts = [fresh[source] for source in _PARTS if source in fresh]
    telling = [each for each in parts if each.viewers or each.source is Source.SESSIONS]
    chosen = fresh.get(Source.REPORTED) or max(telling, key=lambda each: each.viewers, default=None)
    if chosen is None:
        return Audience(counts=all_, read_at=read_at)
    return Audience(viewers=chosen.viewers, rule=chosen.source, counts=all_, read_at=read_at)
