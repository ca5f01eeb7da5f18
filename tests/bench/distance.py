"""Creates a second while the database is a round trip of 100 ms away, against the same without a distance."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from service.domain.broadcast import Spec
from tests.bench.figures import Figure
from tests.failover import Address
from tests.integration.store_stage import NOBODYS, Store, store

if TYPE_CHECKING:
    from tests.stack import Process, Stack

ROUND_TRIP_S = 0.1
CALLERS, FOR_S = 48, 8.0
REPLICAS = 4


async def distance(stack: Stack, _process: Process, run: int) -> list[Figure]:
    """Four replicas with twelve connections each, and twelve callers for each."""
    url = urlsplit(stack.environment["DATABASE_URL"])
    address = Address(url.port or 0, delay_s=ROUND_TRIP_S / 2)
    await address.start()
    try:
        far = await _rate(urlunsplit(url._replace(netloc=f"postgres@127.0.0.1:{address.port}")), f"far-{run}")
        near = await _rate(stack.environment["DATABASE_URL"], f"near-{run}")
    finally:
        await address.stop()
    name = f"CreateBroadcast of {REPLICAS} replicas, {ROUND_TRIP_S * 1000:g} ms away"
    return [Figure(name=name, value=far, unit="calls/s", ceiling=near, ceiling_name="beside the database")]


async def _rate(dsn: str, prefix: str) -> float:
    done = 0

    async def create(of: Store, number: int) -> None:
        nonlocal done
        n = 0
        while True:
            await of.broadcasts.create(f"{prefix}-{number}-{n}", Spec(), {}, {}, NOBODYS)
            done, n = done + 1, n + 1

    async with (
        store(dsn, size=12) as one,
        store(dsn, size=12) as two,
        store(dsn, size=12) as three,
        store(dsn, size=12) as four,
    ):
        replicas = [one, two, three, four]
        calls = [asyncio.create_task(create(replicas[n % REPLICAS], n)) for n in range(CALLERS)]
        await asyncio.sleep(2)
        before, began = done, time.perf_counter()
        await asyncio.sleep(FOR_S)
        rate = (done - before) / (time.perf_counter() - began)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    return rate
