"""The broadcast row as a work queue: claim, wake, lease.

A row is claimable when coalesce(lease_until, due_at) <= now(). Three columns carry the invariant:
- A claim sets the lease, adds one to `fence` (more, if it is the first of a new history) and clears `due_at`. Every
  write of a pass names its fence, so a pass whose lease was taken over changes nothing (see `passes`): at most one
  pass at a time has an effect.
- A wake sets `due_at` and never touches the lease. It cannot start a second pass beside one that runs, and it cannot
  get lost: it is found when the lease is given back or has ended.
- A crash leaves its lease behind, and the end of the lease is the retry.

The database clock is the only clock: a lease does not depend on the clocks of replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING

from service.domain.broadcast import Target
from service.store.database import Database
from service.store.history import NEXT_FENCE, SETTLED

if TYPE_CHECKING:
    from service.store.database import Connection

# One lane at a time, so that the index gives the due rows in order. SKIP LOCKED: no replica waits for another. NO KEY:
# a foreign key to the row (a new viewer, say) locks it FOR KEY SHARE, and such a row must not be skipped. The trace
# context is taken along and cleared: it belongs to the pass that serves the call, not to later ones. Nothing is claimed
# on a server that may have lost commits, see `history`.
CLAIM = f"""
WITH due AS MATERIALIZED (
  SELECT id, trace_context FROM broadcast
  WHERE lane = $3 AND coalesce(lease_until, due_at) <= now() - $5::interval
  ORDER BY coalesce(lease_until, due_at)
  LIMIT $4
  FOR NO KEY UPDATE SKIP LOCKED)
UPDATE broadcast SET
  lease_owner = $1, lease_until = now() + $2::interval, fence = {NEXT_FENCE}, due_at = NULL, trace_context = NULL
FROM due WHERE broadcast.id = due.id AND {SETTLED}
RETURNING broadcast.id, fence, due.trace_context, now() AS claimed_at
"""  # noqa: S608 - constants

# A broadcast that is over is woken only while it is queued: its recordings are still being waited for.
WAKE = """
UPDATE broadcast SET due_at = least(due_at, now()), dirty_at = now()
WHERE id = ANY({ids}) AND target <> 'CREATED'
  AND (state NOT IN ('ENDED', 'FAILED') OR coalesce(lease_until, due_at) IS NOT NULL)
"""
# Transactions that notify wait for each other at their commit, and each notification makes every replica look. So none
# is sent for a row that was due already, or that nobody can claim while it is leased.
NEWS = "lease_until IS NULL AND due_at = now()"
_WAKE_MANY = f"""
WITH woken AS ({WAKE.format(ids="$1::text[]")} RETURNING {NEWS} AS news)
SELECT pg_notify('broadcast_due', '') FROM woken WHERE news LIMIT 1
"""  # noqa: S608 - a constant


_RETRY = "UPDATE broadcast SET retry_from = now() WHERE id = ANY($1::text[])"
_AT_ONCE = timedelta()


class Lane(IntEnum):
    """A part of the queue with its own number of passes at once in each replica, so that no lane starves another."""

    STOP = 0
    START = 1
    OTHER = 2


def lane_of(target: Target, *, ready: bool) -> Lane:
    """*ready*: whether the broadcast has been READY, so that its start is over."""
    match target:
        case Target.ENDED:
            return Lane.STOP
        case Target.CREATED:
            # It is due only where it is scheduled.
            return Lane.START
        case Target.LIVE if not ready:
            return Lane.START
        case _:
            return Lane.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to work on one broadcast until its lease ends or the fence moves on."""

    broadcast_id: str
    fence: int
    trace_context: str | None
    """W3C traceparent of the call that asked for this pass. None: no call did, or it was not traced."""
    claimed_at: datetime
    """By the database clock."""


async def wake(connection: Connection, broadcast_ids: Sequence[str]) -> None:
    """`Leases.wake` as a part of a transaction. *broadcast_ids* in one order everywhere, or two callers deadlock."""
    await connection.execute(_WAKE_MANY, list(broadcast_ids))


class Leases:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, *, owner: str, ttl: timedelta) -> None:
        """*owner*: the name of this replica. *ttl*: how long a claim holds unless it is renewed."""
        self._database = database
        self.owner = owner
        self.ttl = ttl

    async def claim(self, lane: int, *, limit: int, overdue: timedelta = _AT_ONCE) -> list[Claim]:
        """Claim at most *limit* due broadcasts of a Lane, those first that are due longest. *overdue*: only those that
        are due for so long, which other replicas could have claimed.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(CLAIM, self.owner, self.ttl, lane, limit, overdue)
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
        """How long until the next broadcast becomes claimable; not above zero if one is. None: none is queued."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT min(due) - now() FROM unnest(ARRAY[0, 1, 2]::smallint[]) AS l (lane), LATERAL ("
                "SELECT coalesce(lease_until, due_at) AS due FROM broadcast "
                "WHERE lane = l.lane AND coalesce(lease_until, due_at) IS NOT NULL "
                "ORDER BY coalesce(lease_until, due_at) LIMIT 1) AS first"
            )

    async def wake(self, broadcast_ids: Sequence[str], *, retry: bool = False) -> None:
        """Make these due now, because the providers were seen to disagree with what is stored. *retry*: a person asks
        for it, so calls that failed before are made without their back-off.

        It never touches a lease, so it is safe at any time and for any id. A broadcast at rest stays at rest.
        """
        if not broadcast_ids:
            return
        async with self._database.transaction() as connection:
            if retry:
                await connection.execute(_RETRY, list(broadcast_ids))
            await wake(connection, broadcast_ids)

    async def take_duty(self, name: str, ttl: timedelta) -> bool:
        """Take or renew the duty *name* for *ttl*. False: another replica has it.

        A duty only saves work: two replicas that do the same at once do no harm.
        """
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    "INSERT INTO duty (name, owner, lease_until) VALUES ($1, $2, now() + $3::interval) "
                    "ON CONFLICT (name) DO UPDATE SET owner = $2, lease_until = excluded.lease_until "
                    # One that holds for longer than any round takes was taken before the clock was set back. The bound
                    # is not *ttl*: during a change of that setting one replica would take the duty from the other.
                    "WHERE duty.owner = $2 OR duty.lease_until <= now() OR duty.lease_until > now() + interval '5 min' "
                    "RETURNING true",
                    name,
                    self.owner,
                    ttl,
                )
            )

    async def give_up_duty(self, name: str) -> None:
        """Let another replica take the duty *name* now. Nothing happens if this one does not have it."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE duty SET lease_until = now() WHERE name = $1 AND owner = $2 AND lease_until > now()",
                name,
                self.owner,
            )
