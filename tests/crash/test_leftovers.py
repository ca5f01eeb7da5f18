"""What cannot be done must not hold up what can: the end of a broadcast, and the removal of what nobody owns."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from broadcast.v1.broadcast_pb2 import BroadcastSpec, Destination
from broadcast_client import state_name
from broadcast_sandbox.faults import Fault
from tests.stack import MUX_SECRET, running_stack
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from broadcast_client import BroadcastClient
    from tests.stack import Stack


@pytest.fixture
async def stack(database_url: str) -> AsyncIterator[Stack]:
    # A change of destinations without an answer is left alone for longer than any of these tests takes.
    async with running_stack(database_url, BROADCAST_TIMING_UPDATE_GRACE_S="60") as stack:
        yield stack


async def on_air(stack: Stack, *destinations: Destination) -> tuple[BroadcastClient, str]:
    replica = await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"])
    client = await stack.client(replica.target)
    broadcast = await client.create(BroadcastSpec(destinations=destinations), title="A show")
    await client.start(broadcast.id, wait=10)
    await stack.host_joins(broadcast.id)
    await client.wait_until(broadcast.id, "LIVE", timeout=40)
    return client, broadcast.id


def destination(name: str) -> Destination:
    return Destination(name=name, url="rtmp://93.184.215.14/app", stream_key=f"key-of-{name}")


async def test_a_change_without_an_answer_does_not_hold_up_the_stop(stack: Stack) -> None:
    # The first destination keeps the egress running when the live stream refuses it.
    client, broadcast_id = await on_air(stack, destination("first"))
    stack.livekit.add_fault(Fault(kind="reset", operation="UpdateStream"))
    spec = BroadcastSpec(destinations=[destination("first"), destination("second")])
    await client.update(broadcast_id, spec=spec, mask=["spec.destinations"])
    await eventually(lambda: stack.livekit.faults.hits.get("reset"))
    ended = await client.stop(broadcast_id, wait=50)
    assert state_name(ended.status.state) == "ENDED"
    await eventually(lambda: not +stack.census())


async def test_an_egress_that_answers_no_stop_hides_no_other_orphan(stack: Stack) -> None:
    client, broadcast_id = await on_air(stack)
    [egress] = stack.livekit.effects.of("egress.started")
    # The record of a dead worker stays active for ever and answers every stop with 408.
    await stack.control("egress", egress_id=egress.id, end="ghost")
    ended = await client.stop(broadcast_id, wait=50)
    assert state_name(ended.status.state) == "ENDED"
    await eventually(lambda: not stack.census()["streams"])
    credentials = base64.b64encode(f"token:{MUX_SECRET}".encode()).decode()
    async with stack.http.post(
        f"{stack.mux.base_url}/video/v1/live-streams",
        json={"passthrough": f"bs1:test:{broadcast_id}:7", "playback_policies": ["public"]},
        headers={"Authorization": f"Basic {credentials}"},
    ) as answer:
        assert answer.status == 201
    assert stack.census()["streams"] == 1
    await eventually(lambda: not stack.census()["streams"])
