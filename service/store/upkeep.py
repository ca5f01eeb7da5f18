"""Upkeep of the tables: how old their oldest rows are, and a clock of the database that was set back.

Old rows are deleted by the classes that write them, AT_ONCE at most in a statement: a statement that deletes a backlog
would run into its time limit, and would hold its locks until then.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from service.store.database import Database

log = structlog.get_logger(__name__)

# By the table. Each is the first row of an index, whatever the size of the table.
_OLDEST = """
SELECT 'event' AS name, now() - (
  SELECT time FROM event WHERE revision > (SELECT floor FROM head) ORDER BY revision LIMIT 1) AS age
UNION ALL SELECT 'request', now() - (SELECT min(create_time) FROM request)
UNION ALL SELECT 'webhook', now() - (SELECT min(receive_time) FROM webhook)
UNION ALL SELECT 'audience_slot', now() - (SELECT min(slot) FROM audience_slot)
UNION ALL SELECT 'broadcast', now() - (SELECT min(update_time) FROM broadcast WHERE deleted)
"""
_LOOK = """
UPDATE clock SET seen_at = clock_timestamp() FROM (SELECT seen_at FROM clock FOR UPDATE) AS before
RETURNING before.seen_at - clock.seen_at
"""
# A lease that was given just before the step would hold for its length and the step. Its holder keeps working until
# another replica claims the row, and then its fence is old.
_MOVE_BACK = """
UPDATE broadcast SET
  due_at = CASE WHEN due_at > now() THEN greatest(due_at - $1::interval, now()) ELSE due_at END,
  turn_at = turn_at - $1::interval,
  dirty_at = least(dirty_at, now()),
  lease_until = CASE WHEN lease_until > now() + $2::interval THEN now() ELSE lease_until END
WHERE coalesce(lease_until, due_at) IS NOT NULL
"""
# Whoever had it may be dead, and nobody else would do it for the length of the step. An owner that lives renews it.
_DUTIES_BACK = "UPDATE duty SET lease_until = lease_until - $1::interval WHERE lease_until > now()"
# A viewer who left would hold the slot for the step longer.
_SLOTS_BACK = "UPDATE viewer SET expire_time = expire_time - $1::interval WHERE expire_time > now()"
# Viewers who were seen in a time that is still to come would be present until it has come, and what is watched until
# then would not be added to the total.
_AUDIENCE_BACK = (
    "DELETE FROM audience_slot WHERE slot > now()",
    "DELETE FROM audience_replica WHERE alive_at > now()",
    "UPDATE audience_total SET up_to = least(up_to, now()), seen_at = least(seen_at, now()) WHERE up_to > now()",
    "UPDATE audience_count SET due_at = least(due_at, now()), counted_at = least(counted_at, now())",
)
_STEP = timedelta(seconds=1)
"""A clock that is less behind was slowed down, not set back."""


class Upkeep:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, *, lease: timedelta) -> None:
        """*lease*: how long a claim holds unless it is renewed."""
        self._database = database
        self._lease = lease

    async def oldest(self) -> dict[str, timedelta]:
        """The age of the oldest row by table; of `broadcast`, of those that were deleted. Empty tables are left out."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OLDEST)
        return {row["name"]: row["age"] for row in rows if row["age"] is not None}

    async def look_at_clock(self) -> timedelta:
        """If the database clock was set back since the last look of any replica, bring forward what waits for a time
        that is now further away: due times, turns at budgets, leases, duties, slots of viewers. Answers how far the
        clock went back.
        """
        async with self._database.transaction() as connection:
            back: timedelta = await connection.fetchval(_LOOK) or timedelta()
            if back < _STEP:
                return timedelta()
            await connection.execute(_MOVE_BACK, back, self._lease * 2)
            await connection.execute(_DUTIES_BACK, back)
            await connection.execute(_SLOTS_BACK, back)
            for each in _AUDIENCE_BACK:
                await connection.execute(each)
        log.warning("database_clock_set_back", seconds=round(back.total_seconds(), 1))
        return back
