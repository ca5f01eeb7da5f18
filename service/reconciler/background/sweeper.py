"""Removes orphans and deletes old rows. Every removal is counted, and the count should stay zero.

An orphan is removed when two rounds in a row saw it and it has a minimum age: a list may shift between its pages, and a
create may be under way.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service.domain.resources import Kind
from service.reconciler.background.orphans import PER_CALL, UPLOAD_GRACE, Reaper
from service.reconciler.background.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.reconciler.act.requests import Providers
    from service.store.broadcasts import Broadcasts
    from service.store.changes import Changes
    from service.store.leases import Leases
    from service.store.owned_ids import OwnedIds

log = structlog.get_logger(__name__)

REQUESTS_KEPT = timedelta(days=7)
EVENTS_KEPT = timedelta(days=30)
UPLOADS_EVERY = 10
"""Uploads are looked for in every tenth round only: it reads all assets of a day."""


class Sweeper(Rounds):
    name = "sweeper"
    waits_first = True

    def __init__(
        self,
        leases: Leases,
        owned_ids: OwnedIds,
        broadcasts: Broadcasts,
        changes: Changes,
        providers: Providers,
        *,
        every: timedelta,
        grace: timedelta,
        upload_grace: timedelta = UPLOAD_GRACE,
        forget: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """*forget*: deletes of old rows that are done at every round too. *grace*, *upload_grace*: see `Reaper`."""
        super().__init__(leases, every=every)
        self._broadcasts = broadcasts
        self._changes = changes
        self._reaper = Reaper(owned_ids, providers, grace=grace, upload_grace=upload_grace)
        self._forget = forget
        self._suspects: set[tuple[Kind, str]] = set()
        self._rounds = 0

    async def round(self) -> None:
        await self.sweep()
        await self._broadcasts.forget_requests(older_than=REQUESTS_KEPT)
        await self._changes.trim(older_than=EVENTS_KEPT)
        for forget in self._forget:
            await forget()

    async def sweep(self) -> int:
        """One round. Answers the number of orphans that were removed. Raises StoreUnavailable."""
        uploads = self._rounds % UPLOADS_EVERY == 0
        self._rounds += 1
        found = await self._reaper.find(uploads=uploads)
        orphans = [orphan for orphan in found.orphans if orphan.removable]
        due = [orphan for orphan in orphans if (orphan.kind, orphan.external_id) in self._suspects]
        kept = {suspect for suspect in self._suspects if suspect[0] is Kind.UPLOAD and not uploads}
        self._suspects = kept | {(orphan.kind, orphan.external_id) for orphan in orphans}
        return len(await self._reaper.remove(due[:PER_CALL]))
