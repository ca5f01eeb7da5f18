"""`migrate` is broken like the rest: the next one finds what was committed, and does what is left, once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.points import Case, Mode
from tests.crash.replicas import stopped
from tests.waiting import eventually

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from tests.stack import Stack

_WITHIN_S = 40.0
_WAITS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def migrate(case: Case, pool: asyncpg.Pool[asyncpg.Record], stack: Stack, directory: Path) -> float:
    """Of an empty database. Answers when it was broken (monotonic)."""
    migrations = await pool.fetchval("SELECT count(*) FROM migration")
    await pool.execute("DROP SCHEMA public CASCADE")
    await pool.execute("CREATE SCHEMA public")
    point, log = case.point, directory / "migrate.log"
    first = await _begin(stack, log, FAILPOINTS=f"{point.name}={case.mode}@{point.passing}")
    await eventually(lambda: f"failpoint {point.name}: {case.mode}\n" in log.read_text(), within=_WITHIN_S)
    hit_at = time.monotonic()
    if case.mode is Mode.STOP:
        await eventually(lambda: stopped(first.pid))
    else:
        code = await asyncio.wait_for(first.wait(), _WITHIN_S)
        assert code == (-signal.SIGKILL if case.mode is Mode.KILL else 1), log.read_text()
    second = await _begin(stack, directory / "migrate-again.log")
    if case.mode is Mode.STOP:
        # Whoever comes second waits for whoever stands still.
        await eventually(lambda: pool.fetchval(_WAITS), within=_WITHIN_S)
        assert second.returncode is None
        first.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(first.wait(), _WITHIN_S) == 0, log.read_text()
    assert await asyncio.wait_for(second.wait(), _WITHIN_S) == 0, (directory / "migrate-again.log").read_text()
    assert await pool.fetchval("SELECT count(*) FROM migration") == migrations
    return hit_at


async def _begin(stack: Stack, log: Path, **environment: str) -> Process:
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            "migrate",
            env={**os.environ, **stack.environment, **environment},
            stdout=output,
            stderr=output,
        )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()

    stack.cleanup.push_async_callback(end)
    return process
