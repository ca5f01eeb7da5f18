"""Plain SQL files, applied in the order of their names, each once and in a transaction of its own.

A migration that waits for a lock holds up everybody who comes after it. So it waits a moment only, gives way, and tries
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from importlib import resources

import asyncpg
import structlog

from service.failpoints import failpoint
from service.store.database import UNAVAILABLE, Connection
from service.store.migrations.digest import digest, is_of

log = structlog.get_logger(__name__)

# Two replicas may start at once: the second waits here and finds everything applied. The lock is that of a transaction
# which stays open on a connection of its own: a lock of a session would be left behind in a pooler.
_LOCK = 7_426_310_511
# Callers that come while a migration waits for its lock wait behind it, as long as their own lock_timeout of 3 s.
_LOCK_TIMEOUT_MS = 1000
_PAUSE_S = (2.0, 4.0)
_TRIES = 40


class MigrationFailed(Exception):
    """The database could not be brought up to date."""


class MigrationChanged(MigrationFailed):
    """The SQL of an applied migration is not the one in this version of the service. Comments and blanks may differ."""


def _files() -> list[tuple[str, str]]:
    folder = resources.files("service.store") / "migrations"
    return sorted((f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".sql"))


async def migrate(dsn: str) -> list[str]:
    """Bring the database up to date and answer the names of the files that were applied now.

    Raises MigrationFailed; its message shows no part of *dsn*.
    """
    async with contextlib.AsyncExitStack() as opened:
        try:
            guard, connection = [await _connect(dsn, opened) for _ in range(2)]
        except (*UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
            # Not `from error`: asyncpg's own errors about an address quote pieces of it, the password among them.
            raise MigrationFailed(f"cannot connect: {type(error).__name__}") from None
        try:
            async with guard.transaction():
                await guard.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                await guard.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                return await _apply(connection)
        except asyncpg.PostgresError as error:
            raise MigrationFailed(f"{type(error).__name__}: {error}") from error


async def _connect(dsn: str, opened: contextlib.AsyncExitStack) -> asyncpg.Connection[asyncpg.Record]:
    # No statement is kept prepared, and everything is in transactions: it may be a pooler that answers.
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    opened.push_async_callback(connection.close)
    return connection


async def _apply(connection: Connection) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS migration "
        "(name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    async with connection.transaction():
        applied = {row["name"]: row["digest"] for row in await connection.fetch("SELECT name, digest FROM migration")}
    done: list[str] = []
    for name, sql in _files():
        if name in applied:
            if not is_of(applied[name], name, sql):
                raise MigrationChanged(f"{name} was applied with other content")
            continue
        await _apply_patiently(connection, name, sql)
        failpoint("migrate.after_commit")
        done.append(name)
    return done


async def _apply_patiently(connection: Connection, name: str, sql: str) -> None:
    """Apply one file. Between two tries the statements that came meanwhile have their turn. Raises MigrationFailed."""
    for attempt in range(1, _TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
                await connection.execute(sql)
                failpoint("migrate.before_commit")
                await connection.execute("INSERT INTO migration (name, digest) VALUES ($1, $2)", name, digest(sql))
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            log.warning("migration_waits_for_a_lock", migration=name, attempt=attempt, attempts=_TRIES)
            if attempt < _TRIES:
                await asyncio.sleep(random.uniform(*_PAUSE_S))
        else:
            return
    raise MigrationFailed(
        f"{name}: a long transaction holds a lock that it needs (xact_start in pg_stat_activity names it); nothing was "
        "changed, and it can be tried again"
    )


async def pending(connection: Connection) -> list[str]:
    """Names of migrations that are not applied yet."""
    if await connection.fetchval("SELECT to_regclass('migration')") is None:
        return [name for name, _ in _files()]
    applied = {row["name"] for row in await connection.fetch("SELECT name FROM migration")}
    return [name for name, _ in _files() if name not in applied]
