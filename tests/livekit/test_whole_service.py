"""The whole service on a real livekit-server, with real hosts: how soon callers are told what happened in the room.

Mux is simulated. The waits are those of production.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broadcast.v1.broadcast_pb2 import (
    CONDITION_TYPE_HOST_PUBLISHING,
    DELIVERY_POLICY_MANUAL,
    DELIVERY_POLICY_ON_PUBLISH,
    BroadcastSpec,
    DeliveryPolicy,
)
from broadcast_client import BroadcastClient
from tests.livekit import server
from tests.livekit.test_real_livekit import executable
from tests.livekit.worlds import KEY, SECRET, RealHost
from tests.stack import WAITS, Stack, running_stack
from tests.waiting import eventually

__all__ = ["executable"]

pytestmark = [pytest.mark.real_livekit, pytest.mark.timeout(240)]

_ROUNDS = {True: 3, False: 1}
"""With webhooks, and without, where a round takes 20 s."""
_TOLD_S = {True: 1.0, False: 12.0}
"""The same."""
_NO_WORKER_S = 40.0
"""livekit-server refuses a start that no worker takes after 21.7 to 24.3 s."""


@dataclass
class Show:
    client: BroadcastClient
    id: str
    host: RealHost

    async def publishing(self) -> bool | None:
        """Whether a host publishes, as callers are told."""
        broadcast = await self.client.get(self.id)
        [condition] = [each for each in broadcast.status.conditions if each.type == CONDITION_TYPE_HOST_PUBLISHING]
        return condition.met if condition.HasField("met") else None

    async def told(self, *, publishing: bool, within: float) -> float:
        """Seconds until callers are told so."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def told() -> bool:
            return await self.publishing() is publishing

        await eventually(told, within=within, every=0.01)
        return loop.time() - began


async def _show(stack: Stack, url: str, webhook_port: str, policy: DeliveryPolicy.ValueType) -> Show:
    # What WAITS makes shorter is as in production: an empty text is a default.
    replica = await stack.replica(
        **dict.fromkeys(WAITS, ""),
        LIVEKIT_URL=url,
        LIVEKIT_API_KEY=KEY,
        LIVEKIT_API_SECRET=SECRET,
        HTTP_PORT=webhook_port,
    )
    client = await stack.client(replica.target)
    broadcast = await client.create(BroadcastSpec(delivery_policy=policy), title="A show")
    started = await client.start(broadcast.id, wait=20, host_identity="ann")
    host = await RealHost.start(url, started.host_access.token)
    stack.cleanup.push_async_callback(host.kill)
    await host.answered()
    return Show(client, broadcast.id, host)


@contextlib.asynccontextmanager
async def _show_on_a_real_server(
    executable: Path,
    database_url: str,
    log: Path,
    *,
    webhooks: bool,
    policy: DeliveryPolicy.ValueType,
    redis: str | None = None,
) -> AsyncGenerator[Show]:
    async with running_stack(database_url, scale=1) as stack:
        port = stack.environment["WEBHOOK_PORT"]
        async with server.running(
            key=KEY,
            secret=SECRET,
            webhook_url=f"http://127.0.0.1:{port}/webhooks/livekit" if webhooks else None,
            log=log,
            executable=executable,
            redis=redis,
        ) as url:
            yield await _show(stack, url, port, policy)


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no_webhooks"])
async def test_a_host_who_unpublishes_and_returns_is_told(
    *, webhooks: bool, executable: Path, database_url: str, tmp_path: Path
) -> None:
    """A host publishes, unpublishes and stays in the room."""
    log = tmp_path / "livekit-server.log"
    async with _show_on_a_real_server(
        executable, database_url, log, webhooks=webhooks, policy=DELIVERY_POLICY_MANUAL
    ) as show:
        for _ in range(_ROUNDS[webhooks]):
            for deed, publishing in ((show.host.publish, True), (show.host.unpublish, False)):
                asked = asyncio.create_task(deed("camera"))
                took = await show.told(publishing=publishing, within=_TOLD_S[webhooks])
                await asked
                print(f"webhooks={webhooks} publishing={publishing}: told after {took:.2f} s")


async def test_a_server_without_workers_is_told_as_such(executable: Path, database_url: str, tmp_path: Path) -> None:
    """A livekit-server with a Redis, which offers starts of egresses, and no worker that takes them."""
    async with contextlib.AsyncExitStack() as cleanup:
        try:
            redis = await cleanup.enter_async_context(server.redis(tmp_path / "redis.log"))
        except server.ServerMissing as missing:
            pytest.skip(f"!!! no egress without Redis: {missing} !!!")
        show = await cleanup.enter_async_context(
            _show_on_a_real_server(
                executable,
                database_url,
                tmp_path / "livekit-server.log",
                webhooks=True,
                policy=DELIVERY_POLICY_ON_PUBLISH,
                redis=redis,
            )
        )
        await show.host.publish("camera")
        began = asyncio.get_running_loop().time()

        async def told() -> bool:
            explained = await show.client.explain(show.id)
            return bool(explained.causes) and explained.causes[0].code == "EGRESS_NO_WORKER"

        # While the start is still under way.
        await eventually(told, within=_NO_WORKER_S, every=0.1)
        print(f"no worker: told after {asyncio.get_running_loop().time() - began:.1f} s")

        async def refused() -> bool:
            broadcast = await show.client.get(show.id)
            return broadcast.status.last_error.provider == "livekit" and broadcast.status.last_error.retryable

        await eventually(refused, within=_NO_WORKER_S, every=0.1)
