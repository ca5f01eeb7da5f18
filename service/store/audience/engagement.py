"""Which live streams are to be asked about, and what the provider of streams counted of their viewers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from service.domain.audience.audience import Source

if TYPE_CHECKING:
    from service.store.database import Database

_LIVE = "b.target = 'LIVE' AND b.state = 'LIVE' AND b.status ->> 'stream_id' <> ''"
_ENTER = f"""
INSERT INTO audience_count (broadcast_id, source, due_at) SELECT b.id, $1, now() FROM broadcast b WHERE {_LIVE}
ON CONFLICT DO NOTHING
"""  # noqa: S608 - a constant
_CLAIM = f"""
WITH due AS MATERIALIZED (
  SELECT c.broadcast_id, b.status ->> 'stream_id' AS stream_id
  FROM audience_count c JOIN broadcast b ON b.id = c.broadcast_id
  WHERE c.source = $1 AND c.due_at <= now() AND {_LIVE}
  ORDER BY c.due_at LIMIT $2 FOR NO KEY UPDATE OF c SKIP LOCKED)
UPDATE audience_count c SET due_at = now() + $3::interval FROM due
WHERE c.broadcast_id = due.broadcast_id AND c.source = $1
RETURNING due.broadcast_id, due.stream_id, now() AS read_at
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class EngagementDue:
    broadcast_id: str
    stream_id: str
    read_at: datetime
    """By the database clock."""


class EngagementCounts:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, *, limit: int, every: timedelta) -> list[EngagementDue]:
        """At most *limit* live streams of LIVE broadcasts that are due, those first that wait longest. The next count
        of each is due after *every*, whether this one is made or not.
        """
        async with self._database.connection() as connection:
            await connection.execute(_ENTER, Source.ENGAGEMENT.value)
            rows = await connection.fetch(_CLAIM, Source.ENGAGEMENT.value, limit, every)
        return [EngagementDue(**dict(row)) for row in rows]

    async def counted(self, broadcast_id: str, viewers: int) -> None:
        """Keep *viewers* as the latest count of the provider."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE audience_count SET viewers = $3, counted_at = now() WHERE broadcast_id = $1 AND source = $2",
                broadcast_id,
                Source.ENGAGEMENT.value,
                viewers,
            )
