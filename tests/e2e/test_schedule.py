"""Scheduled starts on the whole service: many of one time, within the rate limit of Mux, and one that is waited for."""

from __future__ import annotations

import asyncio
import time

from broadcast.v1.broadcast_pb2 import BroadcastSpec
from broadcast_client import BroadcastClient
from broadcast_client.values import state_name
from tests.stack import running_stack
from tests.waiting import eventually

CROWD, RATE, BURST = 60, 4.0, 5


async def test_sixty_of_one_time_are_ready_before_it_and_mux_refuses_none(database_url: str) -> None:
    async with running_stack(
        database_url,
        mux={"post_rate": RATE, "post_burst": BURST},
        BROADCAST_LIMIT_MUX_POST=f"{RATE:g}/{BURST}",
    ) as stack:
        client = await stack.client((await stack.replica()).target)
        scheduled = int(time.time()) + 60
        spec = BroadcastSpec(title="one of many")
        spec.scheduled_start_time.FromSeconds(scheduled)
        names = [f"show-{n}" for n in range(CROWD)]
        await asyncio.gather(*(client.create(spec, broadcast_id=name) for name in names))

        async def all_ready() -> bool:
            return all([await _is_ready(client, name) for name in names])

        await eventually(all_ready, within=scheduled - time.time() + 0.0, every=1.0)
        created = [effect.time for effect in stack.mux.effects.of("stream.created")]
        assert len(created) == CROWD, "one live stream each"
        for window_s in (1.0, 5.0):
            most = max(sum(each <= other < each + window_s for other in created) for each in created)
            assert most <= BURST + RATE * window_s + 2


async def _is_ready(client: BroadcastClient, name: str) -> bool:
    broadcast = await client.get(name)
    return state_name(broadcast.status.state) == "READY"
