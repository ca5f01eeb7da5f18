"""Places in the room: as many as the policy has, each held until it expires."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.database import Database

# Not at the last moment: who is counted as gone by another must not come back by a statement that began before.
_KEEP = """
UPDATE viewer SET expire_time = now() + $3::interval
WHERE broadcast_id = $1 AND viewer_id = $2 AND expire_time > now() + interval '30 s'
RETURNING expire_time
"""
_FULL = """
SELECT count(*) >= $3 FROM viewer WHERE broadcast_id = $1 AND viewer_id <> $2 AND expire_time > now()
"""
# Everybody who wants a new place passes here one by one. The row of the broadcast would do as well, and would hold up
# its passes when all viewers come at once.
_GATE = """
INSERT INTO viewer (broadcast_id, viewer_id, expire_time) VALUES ($1, '', '-infinity')
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET expire_time = '-infinity'
"""
# A statement of its own: it must see what those before committed.
_TAKE = """
INSERT INTO viewer (broadcast_id, viewer_id, expire_time)
SELECT $1, $2, now() + $4::interval
WHERE (SELECT count(*) FROM viewer WHERE broadcast_id = $1 AND viewer_id <> $2 AND expire_time > now()) < $3
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET expire_time = excluded.expire_time
RETURNING expire_time
"""
_NEXT_FREE = """
SELECT min(expire_time) - now() FROM viewer WHERE broadcast_id = $1 AND expire_time > now()
"""
_FORGOTTEN_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    next_free: timedelta
    """Until the first place expires, if nobody asks to keep it."""


class Viewers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def enter(self, broadcast_id: str, viewer_id: str, *, places: int, lease: timedelta) -> datetime | Full:
        """Until when the place is held: one's own, held on to, or a free one. Raises StoreUnavailable.

        Never more than *places* are held at a time, whoever comes at once.
        """
        async with self._database.connection() as connection:
            kept = await connection.fetchval(_KEEP, broadcast_id, viewer_id, lease)
            if kept is not None:
                return kept
            # Who finds it full need not queue for the answer.
            if not await connection.fetchval(_FULL, broadcast_id, viewer_id, places):
                async with connection.transaction():
                    await connection.execute(_GATE, broadcast_id)
                    taken = await connection.fetchval(_TAKE, broadcast_id, viewer_id, places, lease)
                if taken is not None:
                    return taken
            return Full(next_free=await connection.fetchval(_NEXT_FREE, broadcast_id) or timedelta())

    async def forget(self) -> None:
        """Places that expired. Some thousand at once."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM viewer WHERE (broadcast_id, viewer_id) IN (SELECT broadcast_id, viewer_id FROM viewer "
                "WHERE expire_time < now() - interval '1 hour' LIMIT $1)",
                _FORGOTTEN_AT_ONCE,
            )
