"""What it costs to count viewers: signs told by sketches, beside one upsert a sign in the same run.

In a database of its own, so that no service takes part. A sign is what JoinBroadcast and KeepAlive hand to the
collector.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import asyncpg

from service.api.audience.collector import Collector
from service.domain.audience.rhythm import keep_alive_s
from service.domain.timing import Timing
from service.store.audience.slots import AudienceSlots
from service.store.migrate import migrate
from tests.bench.figures import Figure
from tests.integration.store_stage import Store, store
from tests.integration.test_query_plans import Listening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.stack import Process, Stack

SIGNS, BROADCASTS = 50_000, 1_000
MANY = 500_000
RUN_S = 10
WRITERS = 12
"""As many as a replica has connections."""
_UPSERT = """
INSERT INTO session (broadcast_id, viewer_id, seen_at) VALUES ($1, $2, now())
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET seen_at = excluded.seen_at
"""


async def audience(stack: Stack, _process: Process, run: int) -> list[Figure]:
    server, _, _ = stack.environment["DATABASE_URL"].rpartition("/")
    admin = await asyncpg.connect(stack.environment["DATABASE_URL"])
    await admin.execute(f"CREATE DATABASE bench_audience_alone_{run}")
    await admin.close()
    dsn = f"{server}/bench_audience_alone_{run}"
    await migrate(dsn)
    async with store(dsn, database=Listening, size=WRITERS) as opened:
        assert isinstance(opened.database, Listening)
        opened.database.asked = []
        await opened.sql(
            "INSERT INTO broadcast (id, spec, target, state) SELECT 'b' || n, '{}', 'LIVE', 'LIVE' "
            "FROM generate_series(0, $1::int - 1) AS n",
            BROADCASTS,
        )
        await opened.sql(
            "CREATE TABLE session (broadcast_id text, viewer_id text, seen_at timestamptz, "
            "PRIMARY KEY (broadcast_id, viewer_id)) WITH (fillfactor = 50)"
        )
        upserts = await _upserts(dsn)
        signs, told = await _signs(opened)
        few = await _running(opened, SIGNS)
        many = await _running(opened, MANY)
    return [
        Figure(
            name=f"signs of {SIGNS:,} viewers until all are told",
            value=signs,
            unit="signs/s",
            ceiling=upserts,
            ceiling_name="one upsert a sign",
        ),
        Figure(
            name=f"statements for {SIGNS:,} signs",
            value=told,
            unit="statements",
            ceiling=SIGNS,
            ceiling_name="one upsert a sign",
        ),
        Figure(
            name=f"statements for {MANY:,} viewers of {BROADCASTS:,} broadcasts",
            value=many[0],
            unit="statements/s",
            ceiling=few[0],
            ceiling_name=f"for {SIGNS:,} viewers of them",
        ),
        Figure(
            name="one flush of them",
            value=many[1] * 1000,
            unit="ms",
            ceiling=few[1] * 1000,
            ceiling_name=f"for {SIGNS:,} viewers of them",
        ),
    ]


def _viewers(count: int) -> list[tuple[str, str]]:
    return [(f"b{n % BROADCASTS}", f"viewer {n}") for n in range(count)]


async def _upserts(dsn: str) -> float:
    """Signs a second with a statement for each, of viewers who gave one before."""
    viewers = _viewers(SIGNS)

    async def write(own: Sequence[tuple[str, str]]) -> None:
        connection = await asyncpg.connect(dsn)
        for broadcast_id, viewer_id in own:
            await connection.execute(_UPSERT, broadcast_id, viewer_id)
        await connection.close()

    async def all_of_them() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(write(viewers[n::WRITERS]) for n in range(WRITERS)))
        return SIGNS / (time.perf_counter() - began)

    await all_of_them()
    return await all_of_them()


async def _signs(opened: Store) -> tuple[float, int]:
    """Signs a second and the statements that told them, on a replica that flushes as in production."""
    viewers, collector = _viewers(SIGNS), Collector(AudienceSlots(opened.database), replica="burst")
    await collector.flush()
    before = statements(opened)
    flushing = asyncio.create_task(collector.run())
    began = time.perf_counter()
    for n, (broadcast_id, viewer_id) in enumerate(viewers):
        collector.saw(broadcast_id, viewer_id)
        if n % 1000 == 0:
            # As between two calls of KeepAlive.
            await asyncio.sleep(0)
    await collector.drain()
    took = time.perf_counter() - began
    await flushing
    return SIGNS / took, statements(opened) - before


async def _running(opened: Store, count: int) -> tuple[float, float]:
    """Statements a second while *count* viewers give signs in the rhythm that they are told, and the seconds that a
    flush of all broadcasts takes.
    """
    viewers, collector = _viewers(count), Collector(AudienceSlots(opened.database), replica=f"of {count}")
    a_tick = count / keep_alive_s(Timing()) / 10
    flushing = asyncio.create_task(collector.run())
    await asyncio.sleep(0.2)
    before, began, at = statements(opened), time.perf_counter(), 0.0
    for tick in range(RUN_S * 10):
        for broadcast_id, viewer_id in viewers[int(at) : int(at + a_tick)]:
            collector.saw(broadcast_id, viewer_id)
        at += a_tick
        await asyncio.sleep(max(began + (tick + 1) / 10 - time.perf_counter(), 0.0))
    a_second = (statements(opened) - before) / (time.perf_counter() - began)
    await collector.drain()
    await flushing
    times: list[float] = []
    for _ in range(5):
        for broadcast_id, viewer_id in viewers[: max(count // 20, BROADCASTS)]:
            collector.saw(broadcast_id, viewer_id)
        started = time.perf_counter()
        await collector.flush()
        times.append(time.perf_counter() - started)
    return a_second, statistics.median(times)


def statements(opened: Store) -> int:
    """So many told of viewers. Without what the driver asks about types."""
    assert isinstance(opened.database, Listening)
    return sum("audience" in each.query for each in opened.database.asked)
