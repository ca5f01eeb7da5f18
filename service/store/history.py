"""The history of the database: whether it still holds every commit that was made.

A standby that was promoted without the last commits, or a backup that was restored, is a database that went back in
time. Revisions and fences that were given out would be given out again, and resources that were made at the providers
are missing in the rows. So each history has an id of its own, which is part of every resume token.

Invariant: while the server is another one than the row `head` names, nothing is claimed, no pass goes on and no change
is read. One
replica then begins a new history, in one transaction: it takes a new id, lifts all fences above those that were given
out before, ends all leases, and marks running broadcasts as unverified, so that passes look at the providers first.

A claim of the earlier history writes nothing any more, also where this server has its fence: its pass does not know
what was lost, and would go on as if nothing had been done since.
"""

from __future__ import annotations

import contextlib
from typing import Final

import structlog

from service.domain.errors import StoreUnavailable
from service.store.database import Database, changed_rows

log = structlog.get_logger(__name__)

SETTLED: Final = "(SELECT server IS NULL OR server = server_history() FROM head)"
"""SQL: whether this is the server that `head` names. NULL: it is a standby."""
HISTORY: Final = "CASE WHEN server IS NULL OR server = server_history() THEN history::text END"
"""SQL, of `head`: the id of the history. NULL: the server is another one, and no replica has begun a new one yet."""
NEXT_FENCE: Final = "greatest(fence, (SELECT fence_base FROM head)) + 1"
"""SQL: the fence of a claim on a row of `broadcast`."""
# Microseconds since 1970: two histories that begin on the same backup have bases of their own. A row is claimed far
# less often than once a microsecond, so no fence of the earlier history reaches the base.
_NEXT_BASE: Final = "greatest(fence_base + 1000000, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"

_LOOK = "SELECT history::text, server, server_history() AS present FROM head"
# In the order of ids, as everybody who locks many rows; and before `head`, which every writer locks last. The base that
# `head` gets after that is not lower, and the next claim is above both.
_UNVERIFIED = f"""
UPDATE broadcast SET unverified_since = now(), dirty_at = now(), due_at = now(), lease_until = NULL, lease_owner = NULL,
  fence = (SELECT {_NEXT_BASE} FROM head)
WHERE id IN (
  SELECT id FROM broadcast
  WHERE target <> 'CREATED' AND (state NOT IN ('ENDED', 'FAILED') OR coalesce(lease_until, due_at) IS NOT NULL)
  ORDER BY id FOR NO KEY UPDATE)
"""  # noqa: S608 - a constant
_BEGIN = f"""
UPDATE head SET history = gen_random_uuid(), history_begin = now(), server = server_history(), fence_base = {_NEXT_BASE}
WHERE history = $1::uuid AND server_history() IS NOT NULL RETURNING history::text
"""  # noqa: S608 - a constant
_BIND = "UPDATE head SET server = $2 WHERE history = $1::uuid AND server IS NULL"


class History:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self) -> bool:
        """Begin a new history if the server is another one than before. Answers whether one was begun here.

        The first look at a new database only remembers its server.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_LOOK)
            if row is None or row["present"] in (None, row["server"]):
                return False
            if row["server"] is None:
                await connection.execute(_BIND, row["history"], row["present"])
                return False
        return await self.begin(row["history"], why="the server is another one")

    async def lost(self) -> bool:
        """Begin a new history because somebody says that commits are lost. False: another replica has meanwhile."""
        async with self._database.connection() as connection:
            earlier = await connection.fetchval("SELECT history::text FROM head")
        return await self.begin(earlier, why="an operator said that commits are lost")

    async def begin(self, earlier: str, *, why: str) -> bool:
        """Begin a new history after that with the id *earlier*. False: another replica has, or this is a standby."""
        with contextlib.suppress(_Begun):
            async with self._database.transaction() as connection:
                if await connection.fetchval("SELECT history::text FROM head") != earlier:
                    return False
                unverified = changed_rows(await connection.execute(_UNVERIFIED))
                # A broadcast may have taken one in a commit that is lost, and an egress may push to it.
                await connection.execute("DELETE FROM pool_stream")
                begun = await connection.fetchval(_BEGIN, earlier)
                if begun is None:
                    raise _Begun
            log.warning("history_begun", history=begun, earlier=earlier, why=why, unverified=unverified)
            return True
        return False


class _Begun(Exception):
    """Another replica has begun the new history meanwhile. Raised to roll back."""


def settled(history: str | None) -> str:
    """The id of the history, as HISTORY found it. Raises StoreUnavailable while no replica has begun the new one."""
    if history is None:
        raise StoreUnavailable("the database was replaced, and no replica has looked at it yet")
    return history
