"""What is known of the number of viewers of a broadcast: the sketches of the replicas beside the counts of others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from service.domain.audience.audience import Audience, Count, Source, audience_of
from service.store.audience.slots import COUNTED_UP_TO, LAST_SEEN
from service.store.measurements.refused import refused

if TYPE_CHECKING:
    from service.store.audience.slots import AudienceSlots, Present
    from service.store.database import Database
    from service.store.rows import Row

# Without a row of `broadcast` for each: what is counted of one that is gone does no harm.
_READ = f"""
SELECT broadcast.id, now() AS read_at, {LAST_SEEN} AS last_seen, {COUNTED_UP_TO} AS counted_up_to,
  (probe.people ->> 'watching')::int AS in_the_room, probe.people_at,
  (SELECT jsonb_agg(jsonb_build_object('source', source, 'viewers', viewers, 'counted_at', counted_at))
   FROM audience_count c WHERE c.broadcast_id = broadcast.id AND counted_at IS NOT NULL) AS counts
FROM unnest($1::text[]) AS broadcast (id) LEFT JOIN probe ON probe.broadcast_id = broadcast.id
"""  # noqa: S608 - constants
_REPORT = """
INSERT INTO audience_count (broadcast_id, source, viewers, counted_at) SELECT id, $2, $3, now() FROM broadcast
WHERE id = $1 AND target = 'LIVE' AND NOT deleted
ON CONFLICT (broadcast_id, source) DO UPDATE SET viewers = excluded.viewers, counted_at = excluded.counted_at
RETURNING true
"""


class AudienceCounts:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, slots: AudienceSlots) -> None:
        self._database = database
        self._slots = slots

    async def of(self, broadcast_ids: Sequence[str]) -> dict[str, Audience]:
        """The audience of each of them, in two statements however many they are."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_READ, list(broadcast_ids))
        present = await self._slots.present(broadcast_ids)
        return {row["id"]: audience_of(_counts(row, present.get(row["id"])), row["read_at"]) for row in rows}

    async def report(self, broadcast_id: str, viewers: int) -> None:
        """Keep *viewers* as the latest count that a caller reports.

        Raises BroadcastNotFound; StateForbids unless the broadcast is wanted live.
        """
        async with self._database.connection() as connection:
            if await connection.fetchval(_REPORT, broadcast_id, Source.REPORTED.value, viewers):
                return
            error = await refused(connection, broadcast_id)
        raise error


def _counts(row: Row, present: Present | None) -> list[Count]:
    counts = msgspec.convert(row["counts"] or [], list[Count])
    up_to: datetime | None = row["counted_up_to"]
    # Zero is known of those that were watched before: otherwise nobody may have asked their viewers for signs.
    if up_to is not None and row["last_seen"] is not None:
        counts.append(Count(source=Source.SESSIONS, viewers=present.viewers if present else 0, counted_at=up_to))
    if row["in_the_room"] is not None and row["people_at"] is not None:
        counts.append(Count(source=Source.ROOM, viewers=row["in_the_room"], counted_at=row["people_at"]))
    return counts
