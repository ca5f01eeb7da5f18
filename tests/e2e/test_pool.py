"""Live streams that were made ahead, on the whole service: starts that need no Mux, and a sweeper that lets them be."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from broadcast.v1.broadcast_pb2 import BroadcastSpec
from broadcast_client import state_name
from broadcast_sandbox.faults import Fault
from tests.e2e.show import Show
from tests.stack import Stack, running_stack
from tests.waiting import eventually

LIVEKIT_S = 2.0


async def idle(stack: Stack, database_url: str, count: int) -> set[str]:
    """Ids of the live streams that wait for a broadcast, when there are *count*."""
    connection = await asyncpg.connect(database_url)

    async def enough() -> set[str] | None:
        rows = await connection.fetch("SELECT external_id FROM pool_stream WHERE phase = 'present'")
        return {row["external_id"] for row in rows} if len(rows) == count else None

    try:
        # The keeper rests for a minute after a call that failed.
        return await eventually(enough, within=90)
    finally:
        await connection.close()


@pytest.mark.parametrize("mux", ["answers", "is away"])
async def test_a_start_lasts_as_long_as_livekit_answers(database_url: str, mux: str) -> None:
    async with running_stack(database_url, BROADCAST_POOL="reduced:public=2", BROADCAST_LEASE_S="20") as stack:
        client = await stack.client((await stack.replica()).target)
        waiting = await idle(stack, database_url, 2)
        shows = [await Show.create(stack, client, broadcast_id=f"show-{n}") for n in range(2)]
        stack.livekit.add_fault(Fault(kind="latency", operation="CreateRoom", delay_s=LIVEKIT_S, times=-1))
        if mux == "is away":
            stack.mux.faults.add(Fault(kind="reset", operation="*", times=-1))
        took: list[float] = []
        for show in shows:
            began = time.monotonic()
            answer = await client.start(show.id, wait=20)
            took.append(time.monotonic() - began)
            assert state_name(answer.broadcast.status.state) == "READY"
            assert answer.broadcast.status.provider_ids.mux_live_stream_id in waiting
        assert min(took) <= 1.2 * LIVEKIT_S, took
        stack.mux.faults.clear()
        for show in shows:
            stream_id = (await client.get(show.id)).status.provider_ids.mux_live_stream_id

            def named(stream_id: str = stream_id, name: str = show.id) -> bool:
                return stack.mux.store.streams[stream_id].passthrough == f"bs1:test:{name}:0"

            await eventually(named, within=60)
            assert stack.mux.store.streams[stream_id].new_asset_settings["meta"]["external_id"] == show.id
        fresh = await idle(stack, database_url, 2)
        assert not fresh & waiting
        # Long enough for the sweeper, which has a grace of two seconds here.
        await asyncio.sleep(6)
        assert await idle(stack, database_url, 2) == fresh
        assert not [effect for effect in stack.mux.effects.of("stream.deleted") if effect.id in fresh]


async def test_a_show_of_the_pool_is_recorded_and_ends_like_any_other(database_url: str) -> None:
    async with running_stack(database_url, BROADCAST_POOL="reduced:public=1") as stack:
        client = await stack.client((await stack.replica()).target)
        await idle(stack, database_url, 1)
        show = await Show.create(stack, client, BroadcastSpec(owner_id="ann"))
        await show.live()
        await client.stop(show.id, wait=30)
        broadcast = await show.until("ENDED")
        assert [each.playback_id for each in broadcast.status.recordings]
        events = [event.reason async for event in client.events_all(show.id)]
        assert events.count("STREAM_TAKEN") == events.count("STREAM_NAMED") == 1
