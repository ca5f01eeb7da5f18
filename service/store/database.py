"""The pool of connections, transactions, and the errors of a database that is away.

No provider is called while a transaction is open. The database clock is the only clock. No session state is left on a
connection of the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import structlog

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

# The errors of restarts, failovers, full pools, and statements or locks that took too long: a later try may succeed.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)
# The transaction was rolled back and may be run again.
RETRYABLE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

_NAME = "broadcast-service"
# asyncpg sends a statement in two messages, parse and execute. A process that stands still between the two holds its
# locks for as long: Postgres counts that time neither as a statement nor as idle in a transaction, so neither of its
# limits ends the session.
_END_STUCK = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = $1
  AND state = 'active' AND wait_event = 'ClientRead' AND xact_start < now() - interval '10 s'
"""


class _PooledConnection(_Base):
    def get_reset_query(self) -> str:
        # There is no session state to reset, and the reset would be a round trip for each use.
        return ""


class Database:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> None:
        self._pool = pool
        self.dsn = dsn

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        size: int = 10,
        statement_timeout: timedelta = timedelta(seconds=5),
        lock_timeout: timedelta = timedelta(seconds=3),
    ) -> Database:
        """Open two connections of at most *size*. The timeouts are those of Postgres, for every statement of the pool.

        Raises StoreUnavailable; OSError if the server cannot be reached.
        """
        create = asyncpg.create_pool(
            dsn,
            min_size=2,
            max_size=size,
            timeout=5,
            command_timeout=statement_timeout.total_seconds() + 5,
            connection_class=_PooledConnection,
            init=_json_codec,
            server_settings={
                "application_name": _NAME,
                "statement_timeout": str(int(statement_timeout.total_seconds() * 1000)),
                "lock_timeout": str(int(lock_timeout.total_seconds() * 1000)),
                "idle_in_transaction_session_timeout": "10000",
            },
        )
        try:
            pool = await create
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            # asyncpg's own errors about an address quote pieces of it, the password among them: neither the message nor
            # the chain of errors goes on.
            raise StoreUnavailable(f"DATABASE_URL cannot be used: {type(error).__name__}") from None
        return cls(pool, dsn)

    async def close(self) -> None:
        """Wait up to three seconds for connections in use, then cut them off."""
        try:
            await asyncio.wait_for(self._pool.close(), 3)
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection of the pool. Errors of a database that is away become StoreUnavailable, in the body too."""
        with available():
            async with self._pool.acquire(timeout=5) as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection in a transaction that commits at the end of the body. Raises StoreUnavailable."""
        async with self.connection() as connection, connection.transaction():
            yield connection

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
        return await asyncpg.connect(self.dsn, timeout=5)


@contextlib.contextmanager
def available() -> Generator[None]:
    """Turns the errors of a database that is away into StoreUnavailable."""
    try:
        yield
    except StoreUnavailable:
        raise
    except UNAVAILABLE as error:
        log.warning("store_unavailable", error=type(error).__name__)
        unavailable = StoreUnavailable("the database does not answer")
        unavailable.retry_after = timedelta(seconds=1)
        raise unavailable from error


async def _json_codec(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    def encode(value: Any) -> bytes:
        return b"\x01" + msgspec.json.encode(value)

    def decode(value: bytes) -> Any:
        return msgspec.json.decode(value[1:])

    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=encode, decoder=decode, format="binary")
