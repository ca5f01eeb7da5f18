"""The loop at its end: what it has claimed it sees to its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from service.domain.errors import Outcome
from service.domain.provider import Provider
from service.providers.refusals import Refusals
from service.reconciler.loop import Loop
from service.store.leases import Claim

if TYPE_CHECKING:
    from service.reconciler.reconciler import Reconciler
    from service.store.leases import Leases


class Slow:
    """Leases and reconciler in one: a claim and a pass last until they are let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.ended: list[str] = []
        self.overdue: list[timedelta] = []

    async def claim(self, lane: int, *, limit: int, overdue: timedelta) -> list[Claim]:
        if lane or not limit:
            return []
        self.overdue.append(overdue)
        self.asked.set()
        await self.answer.wait()
        return [Claim(broadcast_id="b", fence=1, trace_context=None, claimed_at=datetime(2026, 1, 1, tzinfo=UTC))]

    async def next_due(self) -> timedelta | None:
        return None

    async def run(self, claim: Claim) -> bool:
        for _ in range(10):
            await asyncio.sleep(0)
        self.ended.append(claim.broadcast_id)
        return False


async def test_what_is_claimed_while_it_ends_is_waited_for() -> None:
    slow = Slow()
    loop = Loop(cast("Leases", slow), cast("Reconciler", slow))
    running = asyncio.create_task(loop.run())
    await slow.asked.wait()
    draining = asyncio.create_task(loop.drain(timedelta(seconds=60)))
    await asyncio.sleep(0)
    slow.answer.set()
    await draining
    assert slow.ended == ["b"]
    await running


async def test_a_claim_without_an_answer_does_not_hold_up_the_end() -> None:
    slow = Slow()
    loop = Loop(cast("Leases", slow), cast("Reconciler", slow))
    running = asyncio.create_task(loop.run())
    await slow.asked.wait()
    await asyncio.wait_for(loop.drain(timedelta(seconds=0.05)), 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_replica_that_is_refused_leaves_what_is_due_to_others_first() -> None:
    for refused, overdue_s in ((True, 3), (False, 0)):
        slow, refusals = Slow(), Refusals()
        refusals.note(Provider.MUX, Outcome.AMBIGUOUS)
        if refused:
            refusals.note(Provider.MUX, Outcome.CREDENTIALS)
        loop = Loop(cast("Leases", slow), cast("Reconciler", slow), refusals)
        running = asyncio.create_task(loop.run())
        await slow.asked.wait()
        assert slow.overdue == [timedelta(seconds=overdue_s)]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_refusal_counts_until_an_answer_or_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    refusals = Refusals()
    refusals.note(Provider.MUX, Outcome.CREDENTIALS)
    refusals.note(Provider.PLAYBACK, Outcome.CREDENTIALS)
    assert refusals.refused == (Provider.MUX,), "a playlist is looked at without credentials"
    refusals.answered(Provider.LIVEKIT)
    assert refusals.refused
    refusals.answered(Provider.MUX)
    assert not refusals.refused
    refusals.note(Provider.MUX, Outcome.CREDENTIALS)
    now += 60.1
    assert not refusals.refused
