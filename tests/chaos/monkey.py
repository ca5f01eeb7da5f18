"""What happens to Postgres: restarts of every kind, and backends that are ended under everybody."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broadcast_sandbox.postgres.server import EmbeddedPostgres

_ENDS_WITHIN_S = 20.0
_STORM = 10
_STORM_S = 0.8


class How(StrEnum):
    FAST = "restart -m fast"
    IMMEDIATE = "restart -m immediate"
    KILL = "kill -9"
    """Of the postmaster alone: its backends see it, and one may commit meanwhile."""
    TERMINATE = "pg_terminate_backend"
    """Of all, and of all who came back."""


_SIGNALS = {How.FAST: signal.SIGINT, How.IMMEDIATE: signal.SIGQUIT, How.KILL: signal.SIGKILL}


@dataclass(slots=True, kw_only=True)
class Harm:
    how: How
    began: float
    """Unix seconds, as the other times."""
    back: float
    """Postgres takes connections again."""
    ready: float = 0.0
    """Every replica says that it is ready, and took a write."""

    @property
    def recovery_s(self) -> float:
        return self.ready - self.back


async def harm(
    server: EmbeddedPostgres, database: str, how: How, *, down_s: float, meanwhile: Callable[[], Awaitable[None]]
) -> Harm:
    """*meanwhile*: what is waited for while Postgres is down, beside the time."""
    began = time.time()
    if how is How.TERMINATE:
        await _terminate_all(server, database)
    else:
        pid = server.pid
        assert pid is not None, "Postgres ended by itself"
        os.kill(pid, _SIGNALS[how])
        async with asyncio.timeout(_ENDS_WITHIN_S):
            # Looking is what takes note of its end.
            while server.pid is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.gather(asyncio.sleep(down_s), meanwhile())
        await server.start()
    return Harm(how=how, began=began, back=time.time())


async def _terminate_all(server: EmbeddedPostgres, database: str) -> None:
    connection = await asyncpg.connect(server.dsn, timeout=5)
    try:
        ended = 0
        for _ in range(_STORM):
            await asyncio.sleep(_STORM_S / _STORM)
            ended += len(
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
                )
            )
    finally:
        await connection.close()
    assert ended > _STORM, "hardly anybody was connected"
