"""The rounds that ask how many watch: only of what is LIVE, inside the budget, once an interval for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import STREAMS
from service.domain.reasons import Operation
from service.providers.budget import Budget, Limit, Limits
from service.reconciler.background.engagement import EngagementRounds
from service.store.audience.counts import AudienceCounts
from service.store.audience.engagement import EngagementCounts
from service.store.audience.slots import AudienceSlots
from service.store.budgets import Budgets
from tests.integration.store_stage import Store, store

PLENTY = Limits(mux_other=Limit(rate=1000, burst=1000))


class Engagement:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    async def viewers(self, stream_id: str, *, now: datetime) -> int:
        del now
        self.asked.append(stream_id)
        if self.away:
            raise ProviderError(
                "away", provider=STREAMS, operation=Operation.COUNT_VIEWERS, outcome=Outcome.AMBIGUOUS, code="timeout"
            )
        return 94


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        yield opened


def rounds(one: Store, engagement: Engagement | None, limits: Limits = PLENTY) -> EngagementRounds:
    budget = Budget(Budgets(one.database).take, limits)
    return EngagementRounds(one.leases, EngagementCounts(one.database), engagement, budget)


async def live(one: Store, broadcast_id: str, state: str = "LIVE") -> None:
    await one.started(broadcast_id)
    await one.sql(
        "UPDATE broadcast SET state = $2, status = status || jsonb_build_object('stream_id', 'LS-' || id) "
        "WHERE id = $1",
        broadcast_id,
        state,
    )


async def counted(one: Store, broadcast_id: str) -> int | None:
    return (await AudienceCounts(one.database, AudienceSlots(one.database)).of([broadcast_id]))[broadcast_id].viewers


async def test_only_what_is_live_is_asked_about_and_its_count_is_told(one: Store) -> None:
    for state in ("READY", "LIVE", "INTERRUPTED", "ENDED"):
        await live(one, state.lower(), state)
    engagement = Engagement()
    await rounds(one, engagement).round()
    assert engagement.asked == ["LS-live"]
    assert await counted(one, "live") == 94
    assert await counted(one, "ready") is None


async def test_all_replicas_together_ask_once_an_interval(one: Store) -> None:
    await live(one, "show")
    engagement = Engagement()
    await asyncio.gather(*(rounds(one, engagement).round() for _ in range(4)))
    await rounds(one, engagement).round()
    assert engagement.asked == ["LS-show"]
    await one.sql("UPDATE audience_count SET due_at = due_at - interval '15 s'")
    await rounds(one, engagement).round()
    assert engagement.asked == ["LS-show"] * 2


async def test_without_a_token_to_spare_nobody_is_asked(one: Store) -> None:
    """Calls of passes go first: a bucket that is not full has none to spare for a count."""
    for n in range(5):
        await live(one, f"show-{n}")
    engagement = Engagement()
    await rounds(one, engagement, Limits(mux_other=Limit(rate=0.001, burst=5))).round()
    assert len(engagement.asked) == 2


async def test_an_answer_that_does_not_come_leaves_the_last_count_and_ends_no_round(one: Store) -> None:
    await live(one, "show")
    engagement = Engagement()
    await rounds(one, engagement).round()
    engagement.away = True
    await one.sql("UPDATE audience_count SET due_at = now()")
    await rounds(one, engagement).round()
    assert len(engagement.asked) == 2
    assert await counted(one, "show") == 94
    await one.sql("UPDATE audience_count SET counted_at = counted_at - interval '61 s'")
    assert await counted(one, "show") is None


async def test_without_a_signing_key_nothing_is_done(one: Store) -> None:
    await live(one, "show")
    await rounds(one, None).round()
    assert await one.sql("SELECT count(*) FROM audience_count") == 0


async def test_a_deleted_broadcast_takes_its_counts_with_it(one: Store) -> None:
    await live(one, "show")
    await rounds(one, Engagement()).round()
    await one.sql(
        "UPDATE broadcast SET deleted = true, target = 'ENDED', state = 'ENDED', due_at = NULL, lease_until = NULL, "
        "update_time = now() - interval '40 d'"
    )
    assert await one.broadcasts.forget_deleted(older_than=timedelta(days=30)) == 1
    assert await one.sql("SELECT count(*) FROM audience_count") == 0
