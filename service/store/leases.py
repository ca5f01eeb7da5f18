"""The row as a queue: claim, wake. A crash leaves its lease behind, and the end of the lease is the retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from service.store.database import Database

if TYPE_CHECKING:
    from service.store.database import Connection

# One lane at a time, so that the index gives the due rows in order. SKIP LOCKED: no replica waits for another. NO KEY:
# a row is not skipped for one that only refers to it, such as a place of a viewer. The trace of a call is taken along:
# the passes after the one that serves it are no part of it.
CLAIM = """
WITH due AS MATERIALIZED (
  SELECT id, trace_context FROM broadcast
  WHERE lane = $3 AND coalesce(lease_until, due_at) <= now()
  ORDER BY coalesce(lease_until, due_at)
  LIMIT $4
  FOR NO KEY UPDATE SKIP LOCKED)
UPDATE broadcast SET
  lease_owner = $1, lease_until = now() + $2::interval, fence = fence + 1, due_at = NULL, trace_context = NULL
FROM due WHERE broadcast.id = due.id
RETURNING broadcast.id, fence, due.trace_context, now() AS claimed_at
"""

# What is over may still be queued: its recordings are being waited for.
WAKE = """
UPDATE broadcast SET due_at = least(due_at, now()), dirty_at = now()
WHERE id = ANY({ids}) AND target <> 'CREATED'
  AND (state NOT IN ('ENDED', 'FAILED') OR coalesce(lease_until, due_at) IS NOT NULL)
"""
# Commits that notify wait for each other, and every one makes all replicas look: not for what was due already, nor for
# what nobody can claim now.
NEWS = "lease_until IS NULL AND due_at = now()"
_WAKE_MANY = f"""
WITH woken AS ({WAKE.format(ids="$1::text[]")} RETURNING {NEWS} AS news)
SELECT pg_notify('broadcast_due', '') FROM woken WHERE news LIMIT 1
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on one broadcast until its lease ends or the fence moves on."""

    broadcast_id: str
    fence: int
    trace_context: str | None
    """Of the call that asked for this pass, if one did."""
    claimed_at: datetime


async def wake(connection: Connection, broadcast_ids: Sequence[str]) -> None:
    """`Leases.wake` as a part of a transaction."""
    await connection.execute(_WAKE_MANY, list(broadcast_ids))


class Leases:
    def __init__(self, database: Database, *, owner: str, ttl: timedelta) -> None:
        self._database = database
        self.owner = owner
        self.ttl = ttl

    async def claim(self, lane: int, *, limit: int) -> list[Claim]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(CLAIM, self.owner, self.ttl, lane, limit)
        return [
            Claim(
                broadcast_id=row["id"],
                fence=row["fence"],
                trace_context=row["trace_context"],
                claimed_at=row["claimed_at"],
            )
            for row in rows
        ]

    async def next_due(self) -> timedelta | None:
        """How long until the next row becomes claimable."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT min(due) - now() FROM unnest(ARRAY[0, 1, 2]::smallint[]) AS l (lane), LATERAL ("
                "SELECT coalesce(lease_until, due_at) AS due FROM broadcast "
                "WHERE lane = l.lane AND coalesce(lease_until, due_at) IS NOT NULL "
                "ORDER BY coalesce(lease_until, due_at) LIMIT 1) AS first"
            )

    async def wake(self, broadcast_ids: Sequence[str]) -> None:
        """Look at these again: somebody saw the providers disagree with what is stored.

        Never touches a lease, so it is safe at any time and for anything; what is at rest stays at rest.
        """
        if not broadcast_ids:
            return
        async with self._database.connection() as connection:
            await wake(connection, broadcast_ids)

    async def take_duty(self, name: str, ttl: timedelta) -> bool:
        """Whether this replica does *name* for the next *ttl*. It saves work; two at once would do no harm."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    "INSERT INTO duty (name, owner, lease_until) VALUES ($1, $2, now() + $3::interval) "
                    "ON CONFLICT (name) DO UPDATE SET owner = $2, lease_until = excluded.lease_until "
                    "WHERE duty.owner = $2 OR duty.lease_until <= now() RETURNING true",
                    name,
                    self.owner,
                    ttl,
                )
            )
