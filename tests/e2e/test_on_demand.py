"""Delivery while somebody watches, on the whole service: no viewer, a crowd that joins at once, none again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broadcast.v1.broadcast_pb2 import DELIVERY_POLICY_ON_DEMAND, BroadcastSpec
from tests.e2e.show import Show, webhook_replica
from tests.stack import Stack, running_stack, serving

if TYPE_CHECKING:
    from broadcast_client import BroadcastClient

QUICK = {
    "BROADCAST_TIMING_AUDIENCE_WINDOW_S": "8",
    "BROADCAST_TIMING_AUDIENCE_SLOT_S": "2",
    "BROADCAST_TIMING_LINGER_S": "8",
    "BROADCAST_TIMING_MIN_RUN_S": "2",
    "BROADCAST_TIMING_AUDIENCE_HOLD_S": "4",
}
WITHIN_S = 75.0
"""A replica that died keeps back for a minute whether nobody watches."""


async def backstage(stack: Stack, client: BroadcastClient) -> Show:
    show = await Show.create(stack, client, BroadcastSpec(delivery_policy=DELIVERY_POLICY_ON_DEMAND))
    await show.ready()
    await stack.host_joins(show.id)
    await show.until_told("HOST_PUBLISHING")
    assert (await show.get()).status.state_reason == "NO_VIEWER"
    assert show.count("egress.started") == 0
    return show


async def joined(clients: list[BroadcastClient], show: Show, viewers: range) -> None:
    """All of them within five seconds; each gets a handle."""
    places = asyncio.Semaphore(50)

    async def one(n: int) -> None:
        async with places:
            answer = await clients[n % len(clients)].playback.join(show.id, f"viewer-{n}")
        assert answer.WhichOneof("handle") in ("starting", "hls"), answer

    await asyncio.gather(*(one(n) for n in viewers))


async def watched_and_left(clients: list[BroadcastClient], show: Show, viewers: int) -> None:
    await joined(clients, show, range(viewers))
    await show.until("LIVE")
    await joined(clients, show, range(20))
    assert show.count("egress.started") == 1
    idle = await show.until("READY", within=WITHIN_S)
    await show.until_effect("egress.ended")
    assert (idle.status.state_reason, idle.status.delivery.reason) == ("NO_VIEWER", "NO_VIEWER")
    assert show.count("egress.started") == 1


@pytest.mark.parametrize("how", ["webhooks", "no webhooks", "two replicas"])
@pytest.mark.parametrize("viewers", [300, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_crowd_that_joins_at_once_starts_one_egress(database_url: str, how: str, viewers: int) -> None:
    async with running_stack(database_url, webhooks=how != "no webhooks") as stack:
        stack.environment.update(QUICK)
        clients = [await stack.client((await webhook_replica(stack)).target)]
        if how == "two replicas":
            clients.append(await stack.client((await stack.replica()).target))
        show = await backstage(stack, clients[0])
        await watched_and_left(clients, show, viewers)
        await show.ended()


async def test_a_crowd_whose_replica_is_killed_is_served_by_the_other(database_url: str, tmp_path: Path) -> None:
    async with running_stack(database_url, webhooks=False) as stack:
        stack.environment.update(QUICK)
        dies = await stack.process(tmp_path / "dies")
        await serving(dies)
        stays = await stack.client((await stack.replica()).target)
        show = await backstage(stack, stays)
        await joined([await stack.client(dies.target)], show, range(100))
        await dies.end()
        await watched_and_left([stays], show, 100)
        await show.ended()
