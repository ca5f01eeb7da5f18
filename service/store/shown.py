"""What viewers are shown of broadcasts: the broadcast and who was revoked for it. Many broadcasts are one statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import Broadcast
from service.store.database import Database
from service.store.rows import BROADCAST_COLUMNS, Rows

_READ = f"""
SELECT {BROADCAST_COLUMNS}, now() AS read_at,
  (SELECT array_agg(viewer_id) FROM revoked_viewer r WHERE r.broadcast_id = broadcast.id) AS revoked
FROM broadcast WHERE id = ANY($1) AND NOT deleted
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    broadcast: Broadcast
    revoked: frozenset[str]
    """The ids of viewers who may not watch it."""
    read_at: datetime
    """By the database clock."""


class ShownBroadcasts:
    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows

    async def read(self, broadcast_ids: Collection[str]) -> Mapping[str, Shown]:
        """Those of the broadcasts that exist. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_READ, list(broadcast_ids))
        return {
            row["id"]: Shown(
                broadcast=self._rows.broadcast(row),
                revoked=frozenset(row["revoked"] or ()),
                read_at=row["read_at"],
            )
            for row in rows
        }
