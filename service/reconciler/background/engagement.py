"""Asks the provider of streams how many watch, of those whose player reports to it: only what is LIVE.

A count decides nothing: it stands beside the others in the status. So it is left out where the budget has no token to
spare, and an answer that does not come leaves the last count to grow old. Every replica asks. What is due is claimed,
so each live stream is asked about once an interval, however many replicas there are.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from service.domain.errors import ProviderError
from service.providers.budget import Bucket, Rank
from service.reconciler.background.rounds import Rounds

if TYPE_CHECKING:
    from service.domain.ports.engagement import Engagement
    from service.providers.budget import Budget
    from service.store.audience.engagement import EngagementCounts
    from service.store.leases import Leases

log = structlog.get_logger(__name__)

_EVERY: Final = timedelta(seconds=15)
_TICK: Final = timedelta(seconds=2)
_AT_ONCE: Final = 10
"""Live streams of one round: a provider that does not answer holds up no more than them."""


class EngagementRounds(Rounds):
    name = "engagement"
    shared = True

    def __init__(self, leases: Leases, counts: EngagementCounts, engagement: Engagement | None, budget: Budget) -> None:
        """*engagement*: None: there is no key to ask with, and nothing is done."""
        super().__init__(leases, every=_TICK)
        self._counts = counts
        self._engagement = engagement
        self._budget = budget

    async def round(self) -> None:
        if self._engagement is None:
            return
        for due in await self._counts.claim(limit=_AT_ONCE, every=_EVERY):
            if not await self._budget.spare(Bucket.STREAMS_OTHER, Rank.SWEEP):
                return
            try:
                viewers = await self._engagement.viewers(due.stream_id, now=due.read_at)
            except ProviderError as error:
                log.info("engagement_not_counted", broadcast_id=due.broadcast_id, code=error.code)
                continue
            await self._counts.counted(due.broadcast_id, viewers)
