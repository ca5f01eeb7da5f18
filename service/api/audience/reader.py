"""The audience of broadcasts for those who ask: read at most once a second, together for all who ask at the same time.

So a thousand calls of GetBroadcast a second cost the database as much as one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from service.domain.broadcast import Target
from service.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.domain.audience.audience import Audience
    from service.domain.broadcast import Broadcast
    from service.store.audience.counts import AudienceCounts

log = structlog.get_logger(__name__)

FRESH_S: Final = 1.0
_KEPT: Final = 10_000
"""Broadcasts that are remembered. Those that were read first are forgotten first."""


class AudienceReader:
    def __init__(self, counts: AudienceCounts, *, clock: Callable[[], float] = time.monotonic) -> None:
        """*clock*: seconds, for lengths of time alone."""
        self._counts = counts
        self._clock = clock
        self._known: dict[str, tuple[float, Audience]] = {}
        """By broadcast: when it was read, by our clock, and what."""
        self._asked: set[str] = set()
        """Those that the next reading reads."""
        self._next: asyncio.Task[None] | None = None
        self._under_way: asyncio.Task[None] | None = None

    async def of(self, broadcasts: Sequence[Broadcast]) -> dict[str, Audience]:
        """The audience of those that are wanted live. Where the database does not answer they are left out: a caller
        gets the rest of the broadcast all the same.
        """
        wanted = [each.id for each in broadcasts if each.target is Target.LIVE]
        since = self._clock() - FRESH_S
        if missing := [each for each in wanted if not self._fresh(each, since)]:
            await self._read(missing)
        return {each: self._known[each][1] for each in wanted if self._fresh(each, since)}

    def _fresh(self, broadcast_id: str, since: float) -> bool:
        known = self._known.get(broadcast_id)
        return known is not None and known[0] >= since

    async def _read(self, broadcast_ids: Sequence[str]) -> None:
        """Together with all who ask before the reading that is under way has ended."""
        self._asked.update(broadcast_ids)
        if self._next is None:
            self._next = asyncio.create_task(self._read_asked(self._under_way))
        # A caller who is cancelled must not cut off the others.
        await asyncio.shield(self._next)

    async def _read_asked(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        self._under_way, self._next = self._next, None
        asked, self._asked = self._asked, set()
        began = self._clock()
        try:
            read = await self._counts.of(sorted(asked))
        except StoreUnavailable:
            return
        except Exception:
            log.exception("audience_not_read")
            return
        for broadcast_id, audience in read.items():
            self._known.pop(broadcast_id, None)
            self._known[broadcast_id] = (began, audience)
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
