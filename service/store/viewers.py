"""Slots for viewers in the room, while the fallback DIRECT_WEBRTC is in use, as many as the broadcast's spec allows;
and the viewers who were revoked.

A slot is held until it expires or is renewed. Never more than the limit are held at once, however many viewers come in
the same moment: new slots are given out one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.errors import BroadcastNotFound
from service.store.database import AT_ONCE, Database, changed_rows

# A slot that is about to expire is not renewed here: a statement that began later may count it as free already.
_KEEP = """
UPDATE viewer SET expire_time = now() + $3::interval
WHERE broadcast_id = $1 AND viewer_id = $2 AND expire_time > now() + interval '30 s'
RETURNING expire_time
"""
_FULL = """
SELECT count(*) >= $3 FROM viewer WHERE broadcast_id = $1 AND viewer_id <> $2 AND expire_time > now()
"""
# A lock that lets viewers who want a new slot pass one by one. Locking the row of the broadcast would do as well, and
# would hold up its passes when all viewers come at once.
_GATE = """
INSERT INTO viewer (broadcast_id, viewer_id, expire_time) VALUES ($1, '', '-infinity')
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET expire_time = '-infinity'
"""
# A statement of its own, so that its snapshot is taken after the lock and has the slots given out before.
_TAKE = """
INSERT INTO viewer (broadcast_id, viewer_id, expire_time)
SELECT $1, $2, now() + $4::interval
WHERE (SELECT count(*) FROM viewer WHERE broadcast_id = $1 AND viewer_id <> $2 AND expire_time > now()) < $3
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET expire_time = excluded.expire_time
RETURNING expire_time
"""
_REVOKE = """
INSERT INTO revoked_viewer (broadcast_id, viewer_id)
SELECT $1, $2 WHERE (SELECT count(*) FROM revoked_viewer WHERE broadcast_id = $1 AND viewer_id <> $2) < $3
ON CONFLICT (broadcast_id, viewer_id) DO UPDATE SET revoke_time = revoked_viewer.revoke_time
RETURNING true
"""
_NEXT_FREE = """
SELECT min(expire_time) - now() FROM viewer WHERE broadcast_id = $1 AND expire_time > now()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    next_free: timedelta
    """Until the first slot expires, if its viewer does not renew it. Zero if that is now."""


class Viewers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def enter(self, broadcast_id: str, viewer_id: str, *, slots: int, lease: timedelta) -> datetime | Full:
        """Renew the viewer's slot, or take a free one, for *lease*: until when it is held, by the database clock.

        *slots*: so many may be held at once. Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            kept = await connection.fetchval(_KEEP, broadcast_id, viewer_id, lease)
            if kept is not None:
                return kept
            # Asked without the lock first: a viewer who finds the room full need not wait for the others.
            if not await connection.fetchval(_FULL, broadcast_id, viewer_id, slots):
                async with connection.transaction():
                    await connection.execute(_GATE, broadcast_id)
                    taken = await connection.fetchval(_TAKE, broadcast_id, viewer_id, slots, lease)
                if taken is not None:
                    return taken
            return Full(next_free=await connection.fetchval(_NEXT_FREE, broadcast_id) or timedelta())

    async def leave(self, broadcast_id: str, viewer_id: str) -> None:
        """Give the viewer's slot back, if there is one. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM viewer WHERE broadcast_id = $1 AND viewer_id = $2", broadcast_id, viewer_id
            )

    async def revoke(self, broadcast_id: str, viewer_id: str, *, most: int) -> bool:
        """Shut the viewer out until it is reinstated, and give its slot back. False: *most* viewers of the broadcast
        are revoked, give or take those of calls at the same moment. Raises BroadcastNotFound, StoreUnavailable.
        """
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT true FROM broadcast WHERE id = $1 AND NOT deleted", broadcast_id):
                raise BroadcastNotFound(broadcast_id)
            revoked = await connection.fetchval(_REVOKE, broadcast_id, viewer_id, most)
            await connection.execute(
                "DELETE FROM viewer WHERE broadcast_id = $1 AND viewer_id = $2", broadcast_id, viewer_id
            )
        return bool(revoked)

    async def reinstate(self, broadcast_id: str, viewer_id: str) -> None:
        """The opposite of `revoke`. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM revoked_viewer WHERE broadcast_id = $1 AND viewer_id = $2", broadcast_id, viewer_id
            )

    async def forget(self) -> int:
        """Delete slots that expired more than an hour ago, AT_ONCE at most. Answers how many were deleted. Raises
        StoreUnavailable.
        """
        async with self._database.connection() as connection:
            tag = await connection.execute(
                "DELETE FROM viewer WHERE (broadcast_id, viewer_id) IN (SELECT broadcast_id, viewer_id FROM viewer "
                "WHERE expire_time < now() - interval '1 hour' LIMIT $1)",
                AT_ONCE,
            )
        return changed_rows(tag)
