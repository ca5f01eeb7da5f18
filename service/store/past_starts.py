"""How long the last starts of this service took, from stored facts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from service.domain.errors import StoreUnavailable
from service.domain.reporting.playback import USUAL, StartTakes

if TYPE_CHECKING:
    from service.store.database import Database

_LAST: Final = 50
_ENOUGH: Final = 10
_KEPT_S: Final = 60.0
_AGAIN_S: Final = 5.0
# Of each broadcast: the egress that made it LIVE first, which is the last one that was asked for before.
_MEDIANS = """
SELECT count(*) AS starts, percentile_cont(0.5) WITHIN GROUP (ORDER BY live_time - intended_at) AS whole,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY live_time - greatest(least(delivering_since, live_time), intended_at))
    FILTER (WHERE delivering_since IS NOT NULL) AS ingest
FROM (SELECT id, live_time FROM broadcast WHERE live_time IS NOT NULL ORDER BY live_time DESC LIMIT $1) AS lately
JOIN LATERAL (
  SELECT intended_at, (detail ->> 'delivering_since')::timestamptz AS delivering_since FROM resource
  WHERE broadcast_id = lately.id AND kind = 'egress' AND intended_at <= live_time ORDER BY ordinal DESC LIMIT 1
) AS egress ON true
"""


class PastStarts:
    """The median of the last starts, read once a minute a replica."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._takes = USUAL
        self._until = 0.0

    async def takes(self) -> StartTakes:
        """The usual values until ten starts were seen. While the database is away, the last known. Raises nothing."""
        if time.monotonic() < self._until:
            return self._takes
        # Callers who come meanwhile get what was known.
        self._until = time.monotonic() + _AGAIN_S
        try:
            self._takes = await self._read()
        except StoreUnavailable:
            return self._takes
        self._until = time.monotonic() + _KEPT_S
        return self._takes

    async def _read(self) -> StartTakes:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_MEDIANS, _LAST)
        if row is None or row["starts"] < _ENOUGH:
            return USUAL
        return StartTakes(whole=row["whole"], ingest=min(row["ingest"] or row["whole"] / 2, row["whole"]))
