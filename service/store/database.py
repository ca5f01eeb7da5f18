"""The pool of connections, transactions, and the errors of a database that cannot serve.

An error that the server, or the way to it, is to blame for becomes StoreUnavailable: callers get UNAVAILABLE, and loops
try again. An error that every later try would meet too, such as a violated constraint, is left as it is.

No provider is called while a transaction is open. The database clock is the only clock. No session state is left on a
connection of the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec
import structlog
from asyncpg.connect_utils import SessionAttribute

from service.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    _Base = asyncpg.Connection[asyncpg.Record]
else:
    # The stubs are generic, the classes are not.
    Connection = asyncpg.Connection
    _Base = asyncpg.Connection

log = structlog.get_logger(__name__)

# A later try may succeed, at once or when somebody has repaired the server. Each class of asyncpg includes the more
# special errors of its SQLSTATE class.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    # 08: the connection. 28: password or user refused. 3D: the database is gone, as while it is restored.
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # 40: the transaction was rolled back and may be run again.
    asyncpg.TransactionRollbackError,
    # 53: disk, memory or connections used up. 57: shut down or cancelled. 58: input and output. F0, XX: the server.
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ConfigFileError,
    asyncpg.InternalServerError,
    # 25006: a standby. 42501: a right was revoked. 55P03: a lock was not to be had. 0A000: a migration changed a table
    # under a prepared statement.
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
    # 26, 42P05: a pooler gave the statement to another session than the one that prepared it.
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_WRITES_REFUSED = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
)
"""Errors that a write may meet while reads are still answered."""
_SET_POOLER = "a pooler stands before the database: set DATABASE_POOLER=true"
_REASONS = {
    asyncpg.InvalidSQLStatementNameError: _SET_POOLER,
    asyncpg.DuplicatePreparedStatementError: _SET_POOLER,
    asyncpg.DiskFullError: "the disk of the database is full",
    asyncpg.InvalidAuthorizationSpecificationError: "the database refuses the user or the password of DATABASE_URL",
    asyncpg.InsufficientPrivilegeError: "the user of DATABASE_URL lacks a right in the database",
    asyncpg.ReadOnlySQLTransactionError: "the database is read-only",
    asyncpg.TargetServerAttributeNotMatched: "no server of DATABASE_URL takes writes",
}
"""For people. The first that fits is told."""
_TOLD_EVERY_S = 60.0
_REFUSED_FOR_S = 10.0

_STATEMENTS = 100
"""Prepared statements that a connection keeps."""
AT_ONCE = 5_000
"""Old rows that one statement deletes at most."""

_ACQUIRE_S = 4.0
"""Seconds for which a free connection is waited for."""
_FROZEN_S = 1.0
"""Seconds after `statement_timeout` for which a statement is waited for. A server that has not ended it by then is
frozen or cut off. Callers wait for ten seconds, and are to be told before.
"""
_NAME = "broadcast-service"
# asyncpg sends a statement in two messages, parse and execute. A process that stands still between the two holds its
# locks for as long: Postgres counts that time neither as a statement nor as idle in a transaction, so neither of its
# limits ends the session.
_END_STUCK = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = $1
  AND state = 'active' AND wait_event = 'ClientRead' AND xact_start < now() - interval '10 s'
"""
_WRITABLE = """
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off',
       has_table_privilege('broadcast', 'INSERT') AND has_table_privilege('broadcast', 'UPDATE')
       AND has_table_privilege('event', 'INSERT') AND has_table_privilege('head', 'UPDATE')
"""


class _PooledConnection(_Base):
    def get_reset_query(self) -> str:
        # There is no session state to reset, and the reset would be a round trip for each use.
        return ""


class _ThroughPooler(_PooledConnection):
    """Behind a pooler in transaction mode, two messages outside of a transaction may reach two sessions of the server.

    asyncpg sends a statement in two messages, so each one outside of a transaction gets a transaction of its own.
    """

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_session():
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_session():
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_session():
            return await super().fetchval(query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        # Without arguments it is one message.
        async with self._one_session() if args else contextlib.nullcontext():
            return await super().execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        async with self._one_session():
            await super().executemany(command, args, **options)

    def _one_session(self) -> contextlib.AbstractAsyncContextManager[object]:
        return contextlib.nullcontext() if self.is_in_transaction() else cast("Any", self.transaction())


class Database:
    """Invariant: a connection that turned out to be read-only is not used again, nor is any that was opened before."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> None:
        """*dsn*: of Postgres itself, for `listen_connection`."""
        self._pool = pool
        self.dsn = dsn
        self._told: dict[str, float] = {}
        """By the name of an error: when it was logged last, by the monotonic clock."""
        self._refused_at = -_REFUSED_FOR_S
        """When a write was refused last, by the monotonic clock. A transaction that proves it wrong takes it back."""

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        size: int = 10,
        statement_timeout: timedelta = timedelta(seconds=5),
        lock_timeout: timedelta = timedelta(seconds=3),
        pooler: bool = False,
        listen_dsn: str = "",
    ) -> Database:
        """Open two connections of at most *size*. The timeouts are those of Postgres, for every statement of the pool.

        *pooler*: *dsn* leads to a pooler in transaction mode, which takes no timeouts: those of the role hold. It is
        right without one too, and slower. *listen_dsn*: of Postgres itself, if *dsn* is not.

        Raises StoreUnavailable; OSError if the server cannot be reached.
        """
        timeouts = {
            "application_name": _NAME,
            "statement_timeout": str(int(statement_timeout.total_seconds() * 1000)),
            "lock_timeout": str(int(lock_timeout.total_seconds() * 1000)),
            "idle_in_transaction_session_timeout": "10000",
        }
        create = asyncpg.create_pool(
            dsn,
            target_session_attrs=_session_attributes(dsn),
            min_size=2,
            max_size=size,
            timeout=5,
            command_timeout=statement_timeout.total_seconds() + _FROZEN_S,
            connection_class=_ThroughPooler if pooler else _PooledConnection,
            statement_cache_size=0 if pooler else _STATEMENTS,
            init=_json_codec,
            server_settings={"application_name": _NAME} if pooler else timeouts,
        )
        try:
            pool = await create
        except (
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            ValueError,
        ) as error:
            if "startup parameter" in str(error):
                raise StoreUnavailable(f"DATABASE_URL: {_SET_POOLER}") from None
            # asyncpg's own errors about an address quote pieces of it, the password among them: neither the message nor
            # the chain of errors goes on.
            raise StoreUnavailable(f"DATABASE_URL cannot be used: {type(error).__name__}") from None
        return cls(pool, listen_dsn or dsn)

    async def close(self) -> None:
        """Wait up to three seconds for connections in use, then cut them off."""
        try:
            await asyncio.wait_for(self._pool.close(), 3)
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection of the pool. Errors of a database that cannot serve become StoreUnavailable, in the body too."""
        try:
            async with self._pool.acquire(timeout=_ACQUIRE_S) as connection:
                try:
                    yield connection
                except TimeoutError:
                    # The server does not answer. To give the connection back would wait for its answer, of the request
                    # to cancel the statement, for as long again.
                    connection.terminate()
                    raise
        except StoreUnavailable:
            raise
        except UNAVAILABLE as error:
            self._note(error)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                await self._pool.expire_connections()
            unavailable = StoreUnavailable(_reason(error))
            unavailable.retry_after = timedelta(seconds=1)
            raise unavailable from error

    @contextlib.asynccontextmanager
    async def transaction(self, *, proves: bool = False) -> AsyncGenerator[Connection]:
        """A connection in a transaction that commits at the end of the body. Raises StoreUnavailable.

        *proves*: its commit shows that the server takes writes again, because it always adds rows. One that reads, or
        deletes, commits on a full disk too.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection
        if proves:
            self._refused_at = -_REFUSED_FOR_S

    async def writable(self) -> bool:
        """Whether the server takes writes, as far as can be seen without one: it is no standby and not read-only, our
        user may write, and no write was refused within the last ten seconds. Raises StoreUnavailable.
        """
        async with self.connection() as connection:
            read_write, allowed = await connection.fetchrow(_WRITABLE) or (False, False)
        if not read_write:
            # Its address may lead to another server by now.
            await self._pool.expire_connections()
        return read_write and allowed and time.monotonic() - self._refused_at >= _REFUSED_FOR_S

    def _note(self, error: Exception) -> None:
        """Remember a refused write, and log an error once a minute: while the database is away every call meets it."""
        now, name = time.monotonic(), type(error).__name__
        if isinstance(error, _WRITES_REFUSED):
            self._refused_at = now
        if now - self._told.get(name, -_TOLD_EVERY_S) >= _TOLD_EVERY_S:
            self._told[name] = now
            log.warning("store_unavailable", error=name, reason=_reason(error))

    async def now(self) -> datetime:
        """By the database clock, in UTC. Raises StoreUnavailable."""
        async with self.connection() as connection:
            return await connection.fetchval("SELECT now()")

    async def end_stuck(self) -> int:
        """End the sessions of replicas that stand still with a transaction open for more than ten seconds.

        Answers how many were ended. Raises StoreUnavailable.
        """
        async with self.connection() as connection:
            return len(await connection.fetch(_END_STUCK, _NAME))

    async def listen_connection(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside of the pool, to be closed by the caller: LISTEN is session state."""
        return await asyncpg.connect(self.dsn, timeout=5, target_session_attrs=_session_attributes(self.dsn))


def changed_rows(tag: str) -> int:
    """How many rows a DELETE removed or an UPDATE changed, from what Postgres answers to it."""
    return int(tag.rpartition(" ")[2])


def _reason(error: Exception) -> str:
    return next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "the database does not answer")


def _session_attributes(dsn: str) -> SessionAttribute | None:
    """A server that takes writes, unless the address asks for another. None: as the address says.

    After a failover an address may lead to the former primary for some seconds, which is a standby by then. Without the
    demand the pool would keep the connections that it made to it.
    """
    return None if "target_session_attrs=" in dsn else SessionAttribute.read_write


async def _json_codec(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    def encode(value: Any) -> bytes:
        return b"\x01" + msgspec.json.encode(value)

    def decode(value: bytes) -> Any:
        return msgspec.json.decode(value[1:])

    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=encode, decoder=decode, format="binary")
