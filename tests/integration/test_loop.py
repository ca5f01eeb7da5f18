"""The loop on a real queue: what comes due while a pass runs."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import cast

import pytest

from service.domain.lifecycle import stop
from service.domain.timing import Timing
from service.reconciler import loop as reconciler_loop
from service.reconciler.act.requests import Providers
from service.reconciler.loop import Loop
from service.reconciler.reconciler import Reconciler, derive
from service.store.leases import Claim, Leases
from service.store.passes import Passes
from service.store.rows import Rows
from service.store.sealing import Sealer
from tests.integration.store_stage import KEYS, NOBODYS, store
from tests.waiting import eventually

LEASE = timedelta(seconds=60)


class WokenMeanwhile(Passes):
    """The first pass is woken by another replica after it has read and before it gives its lease back."""

    waker: Leases
    released = 0

    async def release(self, claim: Claim, due: datetime | None, *, turn: datetime | None = None) -> bool:
        if not self.released:
            await self.waker.wake([claim.broadcast_id])
        self.released += 1
        return await super().release(claim, due, turn=turn)


async def test_a_wake_during_a_pass_does_not_wait_for_the_poll(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_loop, "_POLL_S", 60.0)
    async with store(database_url, ttl=LEASE) as one, store(database_url, owner="two") as two:
        await one.started("first")
        # Nothing was made of it yet, so its end asks no provider.
        await one.broadcasts.change("first", lambda stored, at: stop(stored, at, ""), NOBODYS)
        passes = WokenMeanwhile(one.database, Rows(Sealer(KEYS)), derive=derive(Timing()))
        passes.waker = two.leases
        loop = Loop(one.leases, Reconciler(passes, cast("Providers", None), Timing(), lease=LEASE))
        running = asyncio.create_task(loop.run())
        await eventually(lambda: passes.released == 2)
        row = await one.row("first")
        assert (row["fence"], row["due_at"], row["state"]) == (2, None, "ENDED")
        await loop.drain(timedelta(seconds=5))
        await running
