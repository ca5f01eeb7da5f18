"""The fence keeps out who comes with the old key. Who is connected with it stays, and is not to be forgotten."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest
from livekit import api

from broadcast_client import BroadcastClient, state_name
from broadcast_sandbox.faults import Fault
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, running_stack
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from broadcast.v1.broadcast_pb2 import Broadcast
    from tests.stack import Stack


@pytest.fixture
async def stack(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Stack]:
    # An encoder that drains for long: who starts another one beside it is seen.
    async with running_stack(
        database_url,
        livekit={"egress_stop_s": 20.0},
        BROADCAST_TIMING_LOOKUP_S=getattr(request, "param", "0.2"),
        # A call may take as long as the reset does here.
        BROADCAST_LEASE_S="12",
    ) as stack:
        yield stack


async def started(stack: Stack) -> tuple[BroadcastClient, Broadcast]:
    replica = await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"])
    client = await stack.client(replica.target)
    created = await client.create(title="A show")
    return client, (await client.start(created.id, wait=10)).broadcast


async def on_air(client: BroadcastClient, broadcast_id: str) -> bool:
    return state_name((await client.get(broadcast_id)).status.state) == "LIVE"


def key_of(stack: Stack) -> str:
    [stream] = stack.mux.store.streams.values()
    return stream.stream_key


async def start_egress(stack: Stack, room: str) -> None:
    livekit = api.LiveKitAPI(stack.livekit.base_url, "sandbox", LIVEKIT_SECRET)
    output = api.StreamOutput(protocol=api.StreamProtocol.RTMP, urls=[f"mux://{key_of(stack)}"])
    request = api.RoomCompositeEgressRequest(room_name=room, stream_outputs=[output])
    await livekit.egress.start_room_composite_egress(request)
    await livekit.aclose()


async def holds(stack: Stack, seconds: float) -> None:
    """One publisher, never two and never none, for so long: the new encoder of a restart would be up by then."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert not stack.doubles()
        effects = stack.mux.effects
        assert len(effects.of("ingest.connected")) - len(effects.of("ingest.disconnected")) == 1
        await asyncio.sleep(0.02)


# Looks are seldom: none happens by itself between the reset and the next start.
@pytest.mark.parametrize("stack", ["0.2", "1.5"], indirect=True)
async def test_a_start_that_lands_between_the_look_and_the_reset(stack: Stack) -> None:
    client, broadcast = await started(stack)
    stack.livekit.add_fault(Fault(kind="reset", operation="StartRoomCompositeEgress"))
    stack.mux.faults.add(Fault(kind="latency", operation="reset_stream_key", delay_s=4.0))
    await stack.host_joins(broadcast.id)
    await eventually(lambda: stack.mux.faults.hits.get("latency"))
    # The look is over and showed nothing, the reset is on its way, and now LiveKit gets to the start.
    await start_egress(stack, broadcast.id)
    await eventually(lambda: stack.mux.effects.of("ingest.connected"))
    assert not stack.mux.effects.of("stream.key_reset")
    await eventually(lambda: stack.mux.effects.of("stream.key_reset"))
    await eventually(lambda: on_air(client, broadcast.id))
    await holds(stack, 1.0)
    assert len(stack.livekit.effects.of("egress.started")) == 1, "it was adopted"


async def test_a_reset_by_somebody_else_interrupts_nobody(stack: Stack, database_url: str) -> None:
    client, broadcast = await started(stack)
    await stack.host_joins(broadcast.id)
    await eventually(lambda: on_air(client, broadcast.id))
    [stream_id] = stack.mux.store.streams
    credentials = base64.b64encode(f"token:{MUX_SECRET}".encode()).decode()
    address = f"{stack.mux.base_url}/video/v1/live-streams/{stream_id}/reset-stream-key"
    async with stack.http.post(address, headers={"Authorization": f"Basic {credentials}"}) as answer:
        assert answer.status == 201
    connection = await asyncpg.connect(database_url)
    noticed = "SELECT count(*) FROM resource WHERE kind = 'stream' AND (detail ->> 'key_epoch')::int = 1"
    await eventually(lambda: connection.fetchval(noticed))
    await connection.close()
    await holds(stack, 1.0)
    assert await on_air(client, broadcast.id)
    # What comes after it comes with the new key.
    [egress] = stack.livekit.effects.of("egress.started")
    await stack.control("egress", egress_id=egress.id, end="failed")
    await eventually(lambda: len(stack.mux.effects.of("ingest.connected")) == 2)
    await eventually(lambda: on_air(client, broadcast.id))
    assert not stack.mux.effects.of("ingest.rejected")
    assert not stack.doubles()
