"""Removes what carries our mark and has no owner, and forgets what is old. What it removes is counted; it should be
nothing.

Two sights and a minimum age before anything is removed, because a list may shift between its pages and a create may
be under way. What does not carry the mark of this environment is never touched.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.errors import ProviderError, StoreUnavailable
from service.failpoints import failpoint
from service.providers.budget import Bucket, Rank

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from service.domain.ports import StreamSeen
    from service.reconciler.asking import Providers
    from service.store.broadcasts import Broadcasts
    from service.store.census import Census
    from service.store.changes import Changes
    from service.store.leases import Leases

log = structlog.get_logger(__name__)

REQUESTS_KEPT = timedelta(days=7)
EVENTS_KEPT = timedelta(days=30)
_PAGES = 50
_PER_ROUND = 20
"""Removals a round: a mistake of ours must not empty an account."""


class Sweeper:
    def __init__(
        self,
        leases: Leases,
        census: Census,
        broadcasts: Broadcasts,
        changes: Changes,
        providers: Providers,
        *,
        every: timedelta,
        grace: timedelta,
    ) -> None:
        self._leases = leases
        self._census = census
        self._broadcasts = broadcasts
        self._changes = changes
        self._providers = providers
        self._every = every
        self._grace = grace
        self._suspects: set[tuple[str, str]] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every.total_seconds())
            try:
                if await self._leases.take_duty("sweeper", self._every * 3):
                    await self.sweep()
                    await self._broadcasts.forget_requests(older_than=REQUESTS_KEPT)
                    await self._changes.trim(older_than=EVENTS_KEPT)
            except StoreUnavailable:
                pass
            except ProviderError as error:
                log.warning("sweep_broken_off", provider=error.provider, operation=error.operation, code=error.code)
            except Exception:
                # As the observer's: it must not take the replica down.
                log.exception("sweeper_failed")

    async def sweep(self) -> int:
        """One round. Answers how many were removed."""
        rooms, egresses, streams = self._providers.rooms, self._providers.egresses, self._providers.streams
        orphans: list[tuple[str, str, Callable[[str], Awaitable[None]], Bucket]] = [
            *[("egress", egress_id, egresses.stop, Bucket.LIVEKIT) for egress_id in await self._egresses()],
            *[("room", name, rooms.delete, Bucket.LIVEKIT) for name in await self._rooms()],
            *[("stream", stream_id, streams.delete, Bucket.MUX_OTHER) for stream_id in await self._streams()],
        ]
        due = [orphan for orphan in orphans if orphan[:2] in self._suspects]
        self._suspects = {orphan[:2] for orphan in orphans}
        removed = 0
        for kind, external_id, remove, bucket in due[:_PER_ROUND]:
            if not await self._providers.budget.spare(bucket, Rank.SWEEP):
                break
            failpoint("sweep.before_remove")
            try:
                await remove(external_id)
            except ProviderError as error:
                # Such as an egress whose worker is gone, which answers no stop: the others must not wait behind it.
                log.warning("orphan_stays", kind=kind, external_id=external_id, code=error.code)
                continue
            failpoint("sweep.after_remove")
            removed += 1
            telemetry.ORPHANS_SWEPT.add(1, {"kind": kind})
            log.warning("orphan_swept", kind=kind, external_id=external_id)
        return removed

    async def _rooms(self) -> list[str]:
        if not await self._providers.budget.spare(Bucket.LIVEKIT, Rank.SWEEP):
            return []
        tag = self._providers.tag
        # One without any mark was made by a token that somebody kept: it is ours if its broadcast is, and is over.
        rooms = [room for room in await self._providers.rooms.list() if room.tag in ("", f"{tag}{room.name}")]
        exist, over = await self._census.over([room.name for room in rooms])
        return [
            room.name
            for room in rooms
            if (room.name in over or (room.tag and room.name not in exist)) and self._old(room.created_at)
        ]

    async def _egresses(self) -> list[str]:
        """Active in a room of a broadcast that is over. Whose room we do not know, it is not ours to judge."""
        if not await self._providers.budget.spare(Bucket.LIVEKIT, Rank.SWEEP):
            return []
        active = await self._providers.egresses.list_active()
        _, over = await self._census.over([egress.room_name for egress in active])
        return [egress.id for egress in active if egress.room_name in over and self._old(egress.started_at)]

    async def _streams(self) -> list[str]:
        tagged: list[StreamSeen] = []
        for page in range(1, _PAGES + 1):
            if not await self._providers.budget.spare(Bucket.MUX_OTHER, Rank.SWEEP):
                break
            streams, more = await self._providers.streams.list_tagged(self._providers.tag, page=page)
            tagged.extend(streams)
            if not more:
                break
        owned = await self._census.owned_streams([stream.id for stream in tagged])
        searching = await self._census.searching(sorted(self._owners(tagged)))
        return [
            stream.id
            for stream in tagged
            if stream.id not in owned and self._owner(stream) not in searching and self._old(stream.created_at)
        ]

    def _owners(self, streams: Iterable[StreamSeen]) -> set[str]:
        return {self._owner(stream) for stream in streams}

    def _owner(self, stream: StreamSeen) -> str:
        return stream.tag.removeprefix(self._providers.tag).rpartition(":")[0]

    def _old(self, created_at: datetime | None) -> bool:
        return created_at is not None and datetime.now(UTC) - created_at >= self._grace
