"""What the removal of old events costs those who write: five million events, one million of them too old.

In a database of its own, so that no sweeper of a service takes part.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg

from service.domain.lifecycle import Event
from service.domain.reasons import Actor, EventReason
from service.reconciler.background.sweeper import forget_all
from service.store.changes import append
from service.store.database import AT_ONCE
from service.store.migrate import migrate
from tests.bench.figures import Figure
from tests.integration.store_stage import Store, store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stack import Process, Stack

EVENTS, OLD = 5_000_000, 1_000_000
WRITERS = 8
ALONE_S = 10.0
_MONTH = timedelta(days=30)
# A row has about 700 bytes, as a change of a broadcast without destinations has.
_FILL = """
INSERT INTO event (revision, broadcast_id, time, reason, actor, state, snapshot)
SELECT n, 'b' || n % 20000, now() - CASE WHEN n <= $2::bigint THEN interval '31 days' ELSE interval '20 days' END
  + make_interval(secs => n / 100000.0), 'SEEN', 'reconciler', 'LIVE',
  jsonb_build_object('spec', repeat('x', 300 + (n % 300)::int))
FROM generate_series($1::bigint, $1 + 249999) AS n
"""


async def retention(stack: Stack, _process: Process, run: int) -> list[Figure]:
    name = f"bench_{run}_retention_rows"
    server = await asyncpg.connect(stack.environment["DATABASE_URL"])
    try:
        await server.execute(f'CREATE DATABASE "{name}"')
    finally:
        await server.close()
    dsn = stack.environment["DATABASE_URL"].rpartition("/")[0] + f"/{name}"
    await migrate(dsn)
    async with store(dsn, size=WRITERS + 2) as filled:
        return await _measured(filled)


async def _measured(filled: Store) -> list[Figure]:
    async with filled.database.connection() as connection:
        await connection.execute("SET statement_timeout = 0; SET synchronous_commit = off")
        for first in range(1, EVENTS, 250_000):
            await connection.execute(_FILL, first, OLD, timeout=600)
        await connection.execute("UPDATE head SET revision = $1", EVENTS)
        await connection.execute("ANALYZE event", timeout=600)
        await connection.execute("RESET statement_timeout; RESET synchronous_commit")
    for n in range(WRITERS):
        await filled.started(f"writer-{n}")
    alone: list[float] = []
    writing = [asyncio.create_task(_write(filled, n, alone)) for n in range(WRITERS)]
    await asyncio.sleep(ALONE_S)
    await _ended(writing)
    beside: list[float] = []
    writing = [asyncio.create_task(_write(filled, n, beside)) for n in range(WRITERS)]
    removed, began = 0, time.perf_counter()

    async def trim() -> int:
        nonlocal removed
        batch = await filled.changes.trim(older_than=_MONTH)
        removed += batch
        return batch

    while removed < OLD:
        await forget_all(trim)
    spent = time.perf_counter() - began
    await _ended(writing)
    written = len(beside) / spent
    return [
        Figure(
            name=f"rows of {EVENTS:,} removed, {AT_ONCE:,} in a statement",
            value=removed / spent,
            unit="rows/s",
            ceiling=written,
            ceiling_name="written beside it",
        ),
        _figure("a write, longest, while rows are removed", max, alone, beside),
        _figure("a write, p99, while rows are removed", _p99, alone, beside),
    ]


def _figure(name: str, of: Callable[[list[float]], float], alone: list[float], beside: list[float]) -> Figure:
    return Figure(name=name, value=of(beside), unit="ms", ceiling=of(alone), ceiling_name="while none is")


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def _write(filled: Store, number: int, spent_ms: list[float]) -> None:
    """What every change does: lock a row, write it, and take the counter row last."""
    broadcast_id = f"writer-{number}"
    while True:
        began = time.perf_counter()
        async with filled.database.transaction() as connection:
            await connection.execute("UPDATE broadcast SET update_time = now() WHERE id = $1", broadcast_id)
            event = Event(reason=EventReason.STATUS_CHANGED)
            await append(connection, broadcast_id, [event], actor=Actor.RECONCILER, before=None)
        spent_ms.append((time.perf_counter() - began) * 1000)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
