"""The rows of the warm pool. A live stream is in this table or belongs to one broadcast: see `Passes.take_pooled`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.domain.pool import PoolEntry, PoolPhase

if TYPE_CHECKING:
    from service.domain.pool import Profile
    from service.domain.ports import StreamSeen
    from service.store.database import Connection, Database
    from service.store.rows import Row
    from service.store.sealing import Sealer

_LIST: Final = """
SELECT id, profile, phase, external_id, now() - intended_at AS age, now() - looked_at AS unseen
FROM pool_stream ORDER BY intended_at, id
"""
# Whoever takes one at the same time takes the next.
_TAKE: Final = """
DELETE FROM pool_stream WHERE id = (
  SELECT id FROM pool_stream WHERE profile = $1 AND phase = 'present' ORDER BY intended_at, id
  LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, external_id, playback_id, secret
"""


async def take(connection: Connection, profile: Profile) -> Row | None:
    """Delete the row of the oldest idle live stream of *profile*, in a transaction that makes it a broadcast's. None:
    there is none.
    """
    return await connection.fetchrow(_TAKE, profile.text)


def sealed_as(entry_id: str) -> str:
    """What the key of the row *entry_id* is bound to."""
    return f"pool/{entry_id}"


class Pool:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def entries(self) -> list[PoolEntry]:
        """Oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LIST)
        return [
            PoolEntry(
                id=row["id"],
                profile=row["profile"],
                phase=PoolPhase(row["phase"]),
                external_id=row["external_id"],
                age=row["age"],
                unseen=row["unseen"],
            )
            for row in rows
        ]

    async def intend(self, entry_id: str, profile: Profile) -> None:
        """Commit that a live stream of *profile* is about to be made."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO pool_stream (id, profile, phase) VALUES ($1, $2, 'intended')", entry_id, profile.text
            )

    async def made(self, entry_id: str, seen: StreamSeen) -> None:
        """It exists, and may be taken. Nothing happens if the row is gone by now: then it is nobody's."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE pool_stream SET phase = 'present', external_id = $2, playback_id = $3, secret = $4, "
                "looked_at = now() WHERE id = $1 AND phase = 'intended'",
                entry_id,
                seen.id,
                seen.playback_id,
                self._sealer.seal(seen.key.reveal(), row=sealed_as(entry_id)),
            )

    async def looked(self, entry_id: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute("UPDATE pool_stream SET looked_at = now() WHERE id = $1", entry_id)

    async def leave(self, entry_id: str) -> bool:
        """No broadcast takes it from now on. False: one has."""
        async with self._database.connection() as connection:
            left = await connection.fetchval(
                "UPDATE pool_stream SET phase = 'leaving' WHERE id = $1 RETURNING true", entry_id
            )
        return bool(left)

    async def drop(self, entry_id: str) -> None:
        """It does not exist any more. Nothing happens if a broadcast has taken it."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM pool_stream WHERE id = $1 AND phase <> 'present'", entry_id)
