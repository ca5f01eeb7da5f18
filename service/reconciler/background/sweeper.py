"""Removes orphans and deletes old rows. Every removal of an orphan is counted, and the count should stay zero.

Old rows are deleted table by table, each in batches and apart from the others: a table that cannot be cleaned up now
keeps none of the others from it.

An orphan is removed when two rounds in a row saw it and it has a minimum age: a list may shift between its pages, and a
create may be under way.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.errors import StoreUnavailable
from service.domain.resources import Kind
from service.reconciler.background.orphans import PER_CALL, UPLOAD_GRACE, Reaper
from service.reconciler.background.rounds import RefusedHere, Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from service.reconciler.act.requests import Providers
    from service.store.broadcasts import Broadcasts
    from service.store.changes import Changes
    from service.store.leases import Leases
    from service.store.owned_ids import OwnedIds

log = structlog.get_logger(__name__)

_BATCHES = 40
"""Batches of one table in a round: with 5,000 rows in each, 200,000 rows a minute."""
_PAUSE_S = 0.02
_PATIENCE_S = 5.0
"""A page of a list waits so long for its token: a sweep that takes longer is better than one that sees a part."""
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
        requests_kept: timedelta = timedelta(days=7),
        events_kept: timedelta = timedelta(days=30),
        forget: Sequence[Callable[[], Awaitable[int | None]]] = (),
        oldest: Callable[[], Awaitable[Mapping[str, timedelta]]] | None = None,
    ) -> None:
        """*forget*: deletes of old rows that are done at every round too, each answering how many rows it deleted, with
        None for "not known". *oldest*: reads the age of the oldest row by table, for the metric. *requests_kept*,
        *events_kept*: older request ids and events are deleted. *grace*, *upload_grace*: see `Reaper`.
        """
        super().__init__(leases, every=every)
        self._providers = providers
        self._reaper = Reaper(owned_ids, providers, grace=grace, upload_grace=upload_grace, patience_s=_PATIENCE_S)
        self._forget: list[Callable[[], Awaitable[int | None]]] = [
            lambda: broadcasts.forget_requests(older_than=requests_kept),
            lambda: changes.trim(older_than=events_kept),
            *forget,
        ]
        self._oldest = oldest
        self._measured: set[str] = set()
        self._suspects: set[tuple[Kind, str]] = set()
        self._rounds = 0

    async def round(self) -> None:
        for each in (self.sweep, *(partial(forget_all, forget) for forget in self._forget), self._measure):
            try:
                await each()
            except StoreUnavailable:
                # The next round tries again.
                log.warning("sweeper_skips")
            except Exception:
                log.exception("sweeper_failed")
        # Only now: old rows are deleted without any provider.
        if refused := self._providers.refusals.refused:
            raise RefusedHere(refused[0])

    async def _measure(self) -> None:
        if self._oldest is None:
            return
        ages = await self._oldest()
        self._measured |= set(ages)
        for table in self._measured:
            # A gauge keeps its last value: a table that is empty by now is set to zero.
            telemetry.OLDEST_KEPT.set(ages.get(table, timedelta()).total_seconds(), {"table": table})

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


async def forget_all(forget: Callable[[], Awaitable[int | None]]) -> None:
    """Delete batch after batch, until nothing is deleted or it is time for the other tables. Between two batches
    writers have their turn. Raises StoreUnavailable.
    """
    for _ in range(_BATCHES):
        if not await forget():
            return
        await asyncio.sleep(_PAUSE_S)
