"""What the hosts' browsers report of their own connection: the latest report of each identity.

A report is a measurement and decides nothing. At most REPORTERS identities of a broadcast are kept.
"""

from __future__ import annotations

import msgspec

from service.domain.measurements import HostStats
from service.store.database import AT_ONCE, Database, changed_rows
from service.store.measurements.refused import refused

_REPORT = """
INSERT INTO host_stats (broadcast_id, identity, stats) SELECT id, $2, $3 FROM broadcast
WHERE id = $1 AND target = 'LIVE' AND NOT deleted
ON CONFLICT (broadcast_id, identity) DO UPDATE SET stats = excluded.stats, report_time = now()
RETURNING xmax = 0
"""
# Each new identity removes at most one. SKIP LOCKED, so that reports at the same time cannot deadlock.
_CROWD_OUT = """
DELETE FROM host_stats WHERE broadcast_id = $1 AND identity IN (
  SELECT identity FROM host_stats
  WHERE broadcast_id = $1 AND identity <> $2 AND (SELECT count(*) FROM host_stats WHERE broadcast_id = $1) > $3
  ORDER BY report_time LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
REPORTERS = 100
"""Identities of a broadcast whose latest report is kept. A host may join under any identity, so no report is refused:
the identity that reported longest ago is dropped.
"""


class HostReports:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, broadcast_id: str, identity: str, stats: HostStats) -> None:
        """Keep *stats* as the latest report of *identity*.

        Raises BroadcastNotFound; StateForbids unless the broadcast is wanted live; StoreUnavailable.
        """
        async with self._database.connection() as connection:
            new = await connection.fetchval(_REPORT, broadcast_id, identity, msgspec.to_builtins(stats))
            if new:
                await connection.execute(_CROWD_OUT, broadcast_id, identity, REPORTERS)
            if new is not None:
                return
            error = await refused(connection, broadcast_id)
        raise error

    async def forget(self) -> int:
        """Delete the reports of more than a day ago, AT_ONCE at most. Answers how many were deleted. Raises
        StoreUnavailable.
        """
        async with self._database.connection() as connection:
            tag = await connection.execute(
                "DELETE FROM host_stats WHERE (broadcast_id, identity) IN ("
                "SELECT broadcast_id, identity FROM host_stats WHERE report_time < now() - interval '1 day' LIMIT $1)",
                AT_ONCE,
            )
        return changed_rows(tag)
