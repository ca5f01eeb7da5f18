"""A crowd: everybody starts at once, within the provider's rate limits, and a stop does not wait behind them."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from broadcast_client import BroadcastClient
from tests.stack import Stack, running_stack
from tests.waiting import eventually


async def _start(client: BroadcastClient, name: str) -> None:
    await client.create(broadcast_id=name, title="one of many", timeout=60)
    await client.start(name, timeout=60)


async def _states(database_url: str) -> dict[str, int]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT state, count(*) AS n FROM broadcast GROUP BY state")
    finally:
        await connection.close()
    return {row["state"]: row["n"] for row in rows}


async def crowd(database_url: str, *, count: int, post_rate: float) -> None:
    burst = 10
    async with running_stack(
        database_url,
        webhooks=False,
        # What the provider takes is a little more than what we allow ourselves: both count by clocks of their own.
        mux={"post_rate": post_rate * 1.05, "post_burst": burst * 2, "other_rate": 60.0, "other_burst": 40},
        BROADCAST_LIMIT_MUX_POST=f"{post_rate}/{burst}",
        BROADCAST_LIMIT_MUX_OTHER="50/20",
        # Shorter than the queue is long: waiting for a turn is no attempt.
        BROADCAST_TIMING_START_DEADLINE_S="5",
        DATABASE_POOL="10",
        LOG_LEVEL="warning",
    ) as stack:
        replica = await stack.replica()
        client = await stack.client(replica.target)
        names = [f"crowd-{n}" for n in range(count)]
        gate = asyncio.Semaphore(50)

        async def one(name: str) -> None:
            async with gate:
                await _start(client, name)

        began = time.monotonic()
        await asyncio.gather(*(one(name) for name in names))
        await eventually(lambda: len(stack.mux.effects.of("stream.created")) >= count // 10, within=60)

        created = len(stack.mux.effects.of("stream.created"))
        assert created < count * 0.8, "the queue was over before the stop came: this proves nothing"
        stopping = time.monotonic()
        waited = await client.stop(names[0], wait=20)
        took = time.monotonic() - stopping
        assert waited.status.state_reason == "STOPPED"
        assert waited.HasField("status")
        still_queued = count - len(stack.mux.effects.of("stream.created"))
        assert still_queued > 0, "the stop was answered after the queue was over"
        queue_s = still_queued / post_rate
        assert took < max(queue_s, 8), f"the stop took {took:.1f} s, the queue behind it {queue_s:.1f} s"

        async def all_ready() -> bool:
            states = await _states(database_url)
            assert states.get("FAILED", 0) == 0, states
            return states.get("READY", 0) == count - 1 and states.get("ENDED", 0) == 1

        await eventually(all_ready, within=count / post_rate + 60, every=0.5)
        elapsed = time.monotonic() - began
        assert len(stack.mux.effects.of("stream.created")) == count, "one live stream each, and none twice"
        assert len(stack.livekit.effects.of("room.created")) == count
        assert elapsed < count / post_rate * 1.5 + 20, f"{elapsed:.0f} s: turns were wasted"
        _served_in_order(stack, count)


def _served_in_order(stack: Stack, count: int) -> None:
    """Roughly: nobody who came among the first tenth is served among the last tenth."""
    served = [str(effect.detail["passthrough"]).split(":")[2] for effect in stack.mux.effects.of("stream.created")]
    last = served[-count // 10 :]
    assert not [name for name in last if int(name.rpartition("-")[2]) < count // 10]


async def test_a_hundred_and_fifty_start_at_once(database_url: str) -> None:
    await crowd(database_url, count=150, post_rate=15)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_thousand_start_at_once(database_url: str) -> None:
    await crowd(database_url, count=1000, post_rate=25)
