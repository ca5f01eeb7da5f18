"""A crowd: everybody starts at once, within the provider's rate limits, and a stop does not wait behind them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from broadcast_client import BroadcastClient
from broadcast_sandbox.faults import Fault
from broadcast_sandbox.mux.api import rest as mux_rest
from service.providers.budget import Rank
from service.providers.mux import calls as mux_calls
from service.store.budgets import Budgets, Reservation
from tests.e2e.show import in_background
from tests.stack import Stack, running_stack
from tests.waiting import eventually

BURST = 10
STARTS = 24
PLACES = 16 + STARTS + 16
"""Passes that a replica has under way at most: see the loop."""


@dataclass
class Refusals:
    """What Mux answered with 429."""

    count: int = 0


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Refusals:
    refused = Refusals()
    take = mux_rest.TokenBucket.take

    def counted(bucket: mux_rest.TokenBucket) -> bool:
        taken = take(bucket)
        refused.count += not taken
        return taken

    monkeypatch.setattr(mux_rest.TokenBucket, "take", counted)
    return refused


@dataclass
class Turns:
    """How far away the turns were that stops were given, in tokens of the bucket, by the database's clock."""

    ahead: list[float] = field(default_factory=list[float])
    granted: int = 0


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    noted = Turns()
    take = Budgets.take

    async def watched(self: Budgets, name: str, **asked: Any) -> Reservation:
        given = await take(self, name, **asked)
        if asked["floor"] == Rank.STOP and asked["queues"]:
            noted.granted += given.granted
            if not given.granted:
                now = await self._database.now()  # pyright: ignore[reportPrivateUsage]
                noted.ahead.append((given.come_back - now).total_seconds() * asked["rate"])
        return given

    monkeypatch.setattr(Budgets, "take", watched)
    return noted


@dataclass
class Crowd:
    stack: Stack
    client: BroadcastClient
    names: list[str]
    asked: list[str] = field(default_factory=list[str])
    """In the order of their starts."""
    passes: int = 0
    """Most at the same time."""

    async def start(self) -> None:
        for name in self.names:
            await self.client.create(broadcast_id=name, title="one of many")
        gate = asyncio.Semaphore(50)

        async def one(name: str) -> None:
            async with gate:
                self.asked.append(name)
                await self.client.start(name, timeout=60)

        await asyncio.gather(*(one(name) for name in self.names))

    @property
    def served(self) -> list[str]:
        """In the order of their live streams."""
        effects = self.stack.mux.effects.of("stream.created")
        return [str(effect.detail["passthrough"]).split(":")[2] for effect in effects]

    async def stops(self, name: str) -> int:
        """How many starts were served between the call and its end."""
        before = len(self.served)
        stopped = await self.client.stop(name, wait=50)
        assert stopped.status.state_reason == "STOPPED"
        assert stopped.status.HasField("end_time"), "it is not over"
        return len(self.served) - before

    async def count_passes(self) -> None:
        while True:
            running = sum(task.get_name().startswith("pass ") for task in asyncio.all_tasks())
            self.passes = max(self.passes, running)
            await asyncio.sleep(0.05)

    def check_order(self) -> None:
        """Roughly as they came: fifty ask at the same time, and each may find its token gone to another."""
        place = {name: number for number, name in enumerate(self.asked)}
        served = [place[name] for name in self.served]
        late = [number for n, number in enumerate(served) if n - number > len(served) // 4 + 50]
        assert len(late) <= len(served) // 20, f"served a quarter of the queue too late: {late}"


async def crowd(
    database_url: str, refusals: Refusals, turns: Turns, *, count: int, rate: float, deadline_s: float
) -> None:
    async with running_stack(
        database_url,
        webhooks=False,
        # Those who had their tokens when the machine had no time for them come all at once.
        mux={"post_rate": rate, "post_burst": BURST + PLACES, "other_rate": 200, "other_burst": 40 + PLACES},
        BROADCAST_LIMIT_MUX_POST=f"{rate:g}/{BURST}",
        BROADCAST_LIMIT_MUX_OTHER="180/40",
        # For a stop to compete with starts for.
        BROADCAST_LIMIT_LIVEKIT=f"{1.2 * rate:g}/{BURST}",
        # Shorter than the queue is long: waiting for a turn is no attempt.
        BROADCAST_TIMING_START_DEADLINE_S=f"{deadline_s:g}",
        # A call that is given up because the machine had no time for it would have to queue again.
        BROADCAST_LEASE_S="30",
    ) as stack:
        client = await stack.client((await stack.replica()).target)
        everybody = Crowd(stack, client, [f"crowd-{n}" for n in range(count)])
        connection = await asyncpg.connect(database_url)

        async def all_ready() -> bool:
            rows = await connection.fetch("SELECT state, count(*) AS count FROM broadcast GROUP BY state")
            states = Counter({row["state"]: row["count"] for row in rows})
            assert states == {"READY": count - 2, "ENDED": 2}, states
            return True

        async with in_background(everybody.count_passes):
            began = time.monotonic()
            await everybody.start()
            await eventually(lambda: len(everybody.served) >= count // 6, within=60)
            # One that has everything already, and one that still waits for its turn.
            waiting = next(name for name in reversed(everybody.asked) if name not in everybody.served)
            queue = count - len(everybody.served)
            await asyncio.gather(*map(everybody.stops, (everybody.served[0], waiting)))
            # Of two stops one may wait for the other. How many starts are served meanwhile is for the machine to say:
            # it may have no time for a stop that has its token.
            assert turns.granted
            assert max(turns.ahead, default=0) <= 2 < queue // 4, f"so far behind the starts: {turns.ahead}"
            assert len(everybody.served) < count * 0.9, "the queue was over before the stops: this proves nothing"
            await eventually(all_ready, within=count / rate + 60, every=0.25)
        took = time.monotonic() - began
        await connection.close()
        assert took > deadline_s, "the queue was shorter than a start may take: this proves nothing"
        assert waiting not in everybody.served, "stopped before its turn, and made all the same"
        assert sorted(everybody.served) == sorted(set(everybody.names) - {waiting}), "one live stream each"
        assert len(stack.livekit.effects.of("room.created")) <= count
        assert took >= (count - BURST - 2) / rate * 0.9, "faster than Mux allows: it did not limit"
        assert refusals.count <= count // 100, f"{refusals.count} calls were refused by Mux"
        assert 0 < everybody.passes <= PLACES
        everybody.check_order()


@pytest.mark.timeout(180)
async def test_a_hundred_and_fifty_start_at_once(database_url: str, refusals: Refusals, turns: Turns) -> None:
    await crowd(database_url, refusals, turns, count=150, rate=8, deadline_s=15)


async def test_a_stop_does_not_wait_for_slow_starts(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold every place that a replica has for starts, and more wait for one."""
    for limit in ("_READ", "_WITHIN"):
        monkeypatch.setattr(mux_calls, limit, 60)
    async with running_stack(database_url, webhooks=False, BROADCAST_LEASE_S="80") as stack:
        client = await stack.client((await stack.replica()).target)
        everybody = Crowd(stack, client, [f"crowd-{n}" for n in range(60)])
        await client.create(broadcast_id="early", title="one of few")
        await client.start("early", wait=10)
        stack.mux.faults.add(Fault(kind="latency", operation="create_live_stream", delay_s=60, times=-1))
        calls = stack.mux.faults.hits
        async with in_background(everybody.count_passes):
            await everybody.start()
            await eventually(lambda: everybody.passes >= STARTS and calls.get("latency") == STARTS)
            assert await everybody.stops("early") == 0
            assert calls.get("latency") == STARTS, "a start gave its place up before"
        assert everybody.served == ["early"], "the crowd was served before: this proves nothing"


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_thousand_start_at_once(database_url: str, refusals: Refusals, turns: Turns) -> None:
    await crowd(database_url, refusals, turns, count=1000, rate=50, deadline_s=4)
