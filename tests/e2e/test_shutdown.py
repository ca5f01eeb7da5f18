"""Ending and returning: a replica that is told to go, one that takes over, a database that is away for a moment."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from broadcast.v1.broadcast_service_pb2 import WatchBroadcastsRequest
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast_client import (
    BroadcastClient,
    BroadcastError,
    Change,
    RetryPolicy,
    Snapshot,
    broadcast_filter,
    state_name,
)
from broadcast_client.errors import from_rpc_error
from broadcast_sandbox.faults import Fault
from broadcast_sandbox.postgres.server import EmbeddedPostgres
from service.store.migrate import migrate
from tests.e2e.show import Show
from tests.ports import free_port
from tests.stack import running_stack, serving
from tests.waiting import eventually

DRAIN_S = 1.5
ANSWERED_S = 8.0
"""After this a call is answered that nobody is to wait for: long after the drain, before its lease ends."""


async def test_a_replica_that_drains_is_not_ready_from_the_first_moment(database_url: str) -> None:
    """While calls under way are waited for, an orchestrator must send new ones elsewhere."""
    async with running_stack(database_url, webhooks=False, BROADCAST_DRAIN_S="3") as stack:
        fault = Fault(kind="latency", operation="CreateRoom", delay_s=2.0)
        stack.livekit.faults.add(fault)
        replica = await stack.replica()
        probe = f"http://127.0.0.1:{replica.ports.http}"

        async def ready() -> int:
            async with stack.http.get(f"{probe}/readyz") as answer:
                return answer.status

        show = await Show.create(stack, await stack.client(replica.target))
        assert await ready() == 200
        await show.client.start(show.id)
        await eventually(lambda: fault.times == 0, within=30)
        replica.stop.set()
        statuses = [await ready()]
        while not replica.task.done():
            with contextlib.suppress(aiohttp.ClientError):
                statuses.append(await ready())
            await asyncio.sleep(0.05)
        assert len(statuses) > 5, "it did not drain"
        assert set(statuses[1:]) == {503}


async def test_a_replica_that_is_told_to_go_goes_at_once(database_url: str, tmp_path: Path) -> None:
    """With open watches, a call that waits, a pass that ends in time, one that does not, and no collector of traces."""
    async with running_stack(database_url, webhooks=False) as stack:
        leaving = await stack.process(
            tmp_path / "leaving.log",
            BROADCAST_DRAIN_S=str(DRAIN_S),
            BROADCAST_LEASE_S="10",
            LOG_LEVEL="debug",
            # Nobody is there who would take the traces.
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        )
        await serving(leaving)
        client = await stack.client(leaving.target)
        in_time, too_late = [await Show.create(stack, client) for _ in range(2)]
        latencies = [
            Fault(kind="latency", operation="create_live_stream", match=show.id, delay_s=delay_s)
            for show, delay_s in ((in_time, DRAIN_S / 2), (too_late, ANSWERED_S))
        ]
        for fault in latencies:
            stack.mux.faults.add(fault)
        async with grpc.aio.insecure_channel(leaving.target) as channel:
            stub = BroadcastServiceStub(channel)
            watches = [stub.WatchBroadcasts(WatchBroadcastsRequest()) for _ in range(20)]
            for watch in watches:
                await watch.read()
            waiting = asyncio.create_task(client.start(too_late.id, wait=30))
            await client.start(in_time.id)
            await eventually(lambda: all(fault.times == 0 for fault in latencies))
            leaving.tell(signal.SIGTERM)
            reasons = await asyncio.gather(*map(_sent_away, watches))
            assert await asyncio.wait_for(leaving.process.wait(), 40) == 0
            assert too_late.count("stream.created") == 0, "it waited for an answer"
        assert set(reasons) == {"SHUTTING_DOWN"}
        assert state_name((await waiting).broadcast.status.state) == "STARTING"
        assert "Traceback" not in leaving.output.read_text()
        assert in_time.count("stream.created") == 1

        there = await stack.client((await stack.replica()).target)
        for show in (in_time, too_late):
            show.client = there
            await show.live()
            # Its answer came to nobody.
            assert show.count("stream.created") == 1
            await show.ended()
        assert stack.doubles() == []


_Watch = grpc.aio.UnaryStreamCall[WatchBroadcastsRequest, Any]


async def _sent_away(watch: _Watch) -> str:
    """The reason."""
    with pytest.raises(grpc.aio.AioRpcError) as away:
        await _read(watch)
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE
    return from_rpc_error(away.value, method="WatchBroadcasts").reason


async def _read(watch: _Watch) -> None:
    while await watch.read() is not grpc.aio.EOF:
        pass


async def test_a_watch_lives_through_a_restart(database_url: str, tmp_path: Path) -> None:
    async with running_stack(database_url, webhooks=False) as stack:
        process = await stack.process(tmp_path / "first.log")
        await serving(process)
        client = await stack.client(process.target)
        show = await Show.create(stack, client)
        seen: list[tuple[int, str]] = []

        async def watch() -> None:
            async for item in client.watch(broadcast_filter(ids=[show.id])):
                if isinstance(item, Change | Snapshot):
                    revision = item.revision if isinstance(item, Change) else 0
                    seen.append((revision, state_name(item.broadcast.status.state)))

        watching = asyncio.create_task(watch())
        await eventually(lambda: bool(seen))
        await show.ready()
        await eventually(lambda: seen[-1][1] == "READY")
        await process.end(signal.SIGKILL)
        again = await stack.process(tmp_path / "second.log", GRPC_PORT=str(process.grpc_port))
        again.grpc_port = process.grpc_port
        await serving(again)
        # The watch goes on by itself. Who asks anew must not share its connection, as channels of one process to one
        # address do: it waits before it is tried again.
        asking = BroadcastClient(again.target, options=[("grpc.use_local_subchannel_pool", 1)])
        show.client = await stack.cleanup.enter_async_context(asking)
        await stack.host_joins(show.id)
        await show.until("LIVE", within=40)
        await show.ended()
        await eventually(lambda: seen[-1][1] == "ENDED")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        revisions = [revision for revision, _ in seen if revision]
        assert revisions == sorted(set(revisions)), "told twice, or out of order"
        states = [state for _, state in seen]
        assert [s for n, s in enumerate(states) if n == 0 or states[n - 1] != s] == [
            "CREATED",
            "STARTING",
            "READY",
            "LIVE",
            "STOPPING",
            "ENDED",
        ]


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_the_database_goes_and_comes_back(how: str, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(data_dir=tmp_path / "postgres")
    database_url = await postgres.start()
    try:
        await migrate(database_url)
        async with running_stack(database_url, webhooks=False) as stack:
            replica = await stack.replica()
            client = await stack.client(replica.target)
            show = await Show.create(stack, client)
            await show.live()
            await (postgres.kill() if how == "kill" else postgres.stop())
            with pytest.raises(BroadcastError) as refused:
                await _once(replica.target, show.id)
            assert refused.value.reason == "STORE_UNAVAILABLE"
            await postgres.start()

            async def serves() -> bool:
                with contextlib.suppress(BroadcastError):
                    await _once(replica.target, show.id)
                    return True
                return False

            # How soon is measured by the drill of two minutes.
            await eventually(serves)
            await show.until("LIVE")
            await show.ended()
            assert stack.doubles() == []
            assert len(stack.livekit.effects.of("egress.started")) == 1, "what delivered was left alone"
    finally:
        await postgres.stop()


async def _once(target: str, broadcast_id: str) -> None:
    async with BroadcastClient(target, retry=RetryPolicy(attempts=1)) as client:
        await client.get(broadcast_id)
