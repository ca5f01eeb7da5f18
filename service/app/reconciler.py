"""The role that reconciles: passes over due broadcasts, and the rounds of observer, prober and sweeper.

Any number of replicas may have it. A broadcast is worked on by the holder of its lease, and a round is done by the
holder of its duty.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import seconds
from service.providers.hls import Hls
from service.providers.mux.engagement import Counts
from service.reconciler.background.engagement import EngagementRounds
from service.reconciler.background.observer import Observer
from service.reconciler.background.pool import PoolKeeper
from service.reconciler.background.prober import Prober
from service.reconciler.background.sweeper import Sweeper
from service.reconciler.loop import Loop
from service.reconciler.reconciler import Reconciler, derive
from service.store.audience.engagement import EngagementCounts
from service.store.audience.slots import AudienceSlots
from service.store.audience.totals import AudienceTotals
from service.store.ledger import Ledger
from service.store.measurements.host_stats import HostReports
from service.store.measurements.outages import Outages
from service.store.measurements.probes import Probes
from service.store.passes import Passes
from service.store.pool import Pool
from service.store.viewers import Viewers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from service.app.shared import Shared
    from service.reconciler.background.rounds import Rounds


class ReconcilerRole:
    def __init__(self, loop: Loop, background: Sequence[Rounds]) -> None:
        self._loop = loop
        self._background = background
        self._passing: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look for due broadcasts now instead of at the next poll."""
        self._loop.wake()

    def start(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the passes and the rounds; the tasks of the rounds, which end when they are cancelled."""
        self._passing = tasks.create_task(self._loop.run(), name="loop")
        return [tasks.create_task(each.run(), name=each.name) for each in self._background]

    async def drain(self, within: timedelta) -> None:
        """No new passes. Those under way may take *within*, and are then cut off, which is safe at any line."""
        await self._loop.drain(within)
        if self._passing is not None:
            await self._passing


@contextlib.asynccontextmanager
async def reconciler_role(
    shared: Shared, forget: Sequence[Callable[[], Awaitable[int | None]]]
) -> AsyncGenerator[ReconcilerRole]:
    """*forget*: what the other roles want to have done at each round of the sweeper, to delete what is old."""
    settings, database = shared.settings, shared.database
    passes = Passes(
        database,
        shared.rows,
        derive=derive(settings.timing),
        storage=shared.providers.storage is not None,
        signing=shared.playback_tokens is not None,
        prices=settings.prices,
    )
    ledger = Ledger(database, shared.rows, prices=settings.prices)
    probes = Probes(database)
    reconciler = Reconciler(passes, shared.providers, settings.timing, lease=settings.lease)
    slot, window = seconds(settings.timing.audience_slot_s), seconds(settings.timing.audience_window_s)
    playlists = Hls(longest_call=shared.longest_call)
    tokens = shared.playback_tokens
    counts = (
        Counts(tokens, base_url=settings.mux_stats_url, longest_call=shared.longest_call)
        if tokens is not None
        else None
    )
    try:
        yield ReconcilerRole(
            Loop(shared.leases, reconciler, shared.providers.refusals),
            [
                Observer(
                    shared.leases, shared.owned_ids, Outages(database), shared.providers, every=settings.observe_every
                ),
                Prober(
                    shared.leases,
                    probes,
                    shared.providers,
                    playlists,
                    playback_base_url=settings.playback_base_url,
                    every=settings.probe_every,
                    tokens=shared.playback_tokens,
                ),
                EngagementRounds(shared.leases, EngagementCounts(database), counts, shared.providers.budget),
                PoolKeeper(
                    shared.leases,
                    Pool(database, shared.sealer),
                    shared.owned_ids,
                    shared.providers,
                    dict(settings.pool),
                    every=settings.observe_every,
                    grace=seconds(settings.timing.stream_grace_s),
                ),
                Sweeper(
                    shared.leases,
                    shared.owned_ids,
                    shared.broadcasts,
                    shared.changes,
                    shared.providers,
                    every=settings.sweep_every,
                    grace=settings.sweep_grace,
                    requests_kept=settings.requests_kept,
                    events_kept=settings.events_kept,
                    forget=[
                        *forget,
                        Viewers(database).forget,
                        probes.forget,
                        HostReports(database).forget,
                        AudienceTotals(database, slot=slot, window=window).fold,
                        AudienceSlots(database).forget,
                        lambda: shared.broadcasts.forget_deleted(older_than=settings.deleted_kept),
                        lambda: ledger.forget(older_than=settings.costs_kept),
                    ],
                    oldest=shared.upkeep.oldest,
                ),
            ],
        )
    finally:
        await playlists.close()
        if counts is not None:
            await counts.close()
