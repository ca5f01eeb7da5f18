"""How soon a webhook is answered while callers keep the service's own pool full."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
import asyncpg

from broadcast.v1 import broadcast_pb2
from broadcast_client import BroadcastClient
from tests.bench.figures import Figure
from tests.stack import LIVEKIT_SECRET, WEBHOOK_SECRET, Process, Stack
from tests.waiting import eventually
from tests.webhook_bodies import encoded, livekit, livekit_headers, mux, mux_headers

COUNT, RATE, WRITERS, RUNNING = 2000, 200, 20, 200
# Under a lease for the time being: they are woken and nobody comes, or the passes would be what is measured.
_RUNNING = """
INSERT INTO broadcast (id, spec, target, state, lease_owner, lease_until)
SELECT 'running-' || n, '{}', 'LIVE', 'LIVE', 'bench', now() + interval '1 hour' FROM generate_series(0, $1 - 1) AS n
"""
_TABLE = "CREATE TABLE IF NOT EXISTS bench_webhook (id text PRIMARY KEY, body bytea)"


async def webhook(stack: Stack, process: Process, run: int) -> list[Figure]:
    """Deliveries at a fixed rate, timed from the moment each was to be sent, against plain INSERTs of the same bodies
    that are sent the same way at the same time: one round trip each, nothing verified.
    """
    url = f"http://127.0.0.1:{stack.environment['WEBHOOK_PORT']}/webhooks"
    bodies = [_signed(n, f"running-{n % RUNNING}") for n in range(COUNT)]
    pool = await asyncpg.create_pool(stack.environment["DATABASE_URL"], min_size=4, max_size=4)
    await pool.execute(_TABLE)
    await pool.execute(_RUNNING, RUNNING)
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    put_off: list[int] = []

    async def deliver(n: int) -> None:
        provider, body, headers = bodies[n]
        async with http.post(f"{url}/{provider}", data=body, headers=headers) as answer:
            assert answer.status in (200, 503), await answer.text()
            if answer.status == 503:
                put_off.append(n)

    async def insert(n: int) -> None:
        await pool.execute("INSERT INTO bench_webhook VALUES ($1, $2)", f"{run}-{n}", bodies[n][1])

    async with http, _writers(process) as writes:
        before, began = writes[0], time.perf_counter()
        inserted, delivered = await asyncio.gather(_at_rate(insert), _at_rate(deliver))
        rate = (writes[0] - before) / (time.perf_counter() - began)
        refused = len(put_off)
        while put_off:
            await deliver(put_off.pop())
    stored = await pool.fetchval("SELECT count(*) FROM webhook WHERE event_id LIKE 'bench-%'")
    await pool.close()
    assert stored == COUNT, f"{stored} of {COUNT} are stored"
    name = f"webhook answered, {RATE}/s, {WRITERS} writers"
    return [
        Figure(
            name=f"{name} ({percentile})",
            value=_percentile(delivered, percentile),
            unit="ms",
            ceiling=_percentile(inserted, percentile),
            ceiling_name=f"plain INSERT ({percentile})",
        )
        for percentile in ("p50", "p99")
    ] + [
        Figure(name="UpdateBroadcast meanwhile", value=rate, unit="calls/s", ceiling=RATE, ceiling_name="webhooks"),
        Figure(name="put off with 503", value=refused, unit="", ceiling=COUNT, ceiling_name="webhooks sent"),
    ]


def _signed(n: int, broadcast_id: str) -> tuple[str, bytes, dict[str, str]]:
    event_id = f"bench-{n:06}"
    if n % 2:
        body = encoded(mux("video.live_stream.active", broadcast_id, event_id))
        return "mux", body, mux_headers(body, secret=WEBHOOK_SECRET)
    body = encoded(livekit("egress_updated", broadcast_id, event_id))
    return "livekit", body, livekit_headers(body, key="sandbox", secret=LIVEKIT_SECRET)


@contextlib.asynccontextmanager
async def _writers(process: Process) -> AsyncGenerator[list[int]]:
    """Writers of one broadcast, who wait for each other with every connection of the pool; and how often they wrote."""
    count = [0]
    async with BroadcastClient(process.target) as client:

        async def write(n: int) -> None:
            while True:
                spec = broadcast_pb2.BroadcastSpec(title=f"{n} {count[0]}")
                await client.update("written", spec=spec, mask=["spec.title"])
                count[0] += 1

        await client.create(broadcast_id="written")
        async with asyncio.TaskGroup() as tasks:
            writers = [tasks.create_task(write(n)) for n in range(WRITERS)]
            await eventually(lambda: count[0] >= 5 * WRITERS, within=60)
            yield count
            for writer in writers:
                writer.cancel()


async def _at_rate(send: Callable[[int], Awaitable[None]]) -> list[float]:
    """Seconds each took. What is late in being sent was late in being answered."""
    began = time.perf_counter() + 0.1

    async def one(n: int) -> float:
        at = began + n / RATE
        await asyncio.sleep(at - time.perf_counter())
        await send(n)
        return time.perf_counter() - at

    return list(await asyncio.gather(*(one(n) for n in range(COUNT))))


def _percentile(seconds: list[float], percentile: str) -> float:
    """Milliseconds."""
    return statistics.quantiles(seconds, n=100)[int(percentile[1:]) - 1] * 1000
