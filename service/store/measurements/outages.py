"""Whether the providers answer, as the observer sees it: one row a provider, read by every pass.

Two failed looks in a row, five seconds apart or more, are an outage (see OUTAGES in `rows`). Its begin and its end wake
every running broadcast.
"""

from collections.abc import Sequence
from datetime import datetime

from service.domain.provider import Provider
from service.store.database import Database
from service.store.rows import OUTAGES, outages_of

# An outage may need a fallback, and its end may end one. Broadcasts that are over may wait in the queue for its end, to
# upload what was recorded meanwhile.
_WAKE = """
WITH woken AS (
  UPDATE broadcast SET due_at = least(due_at, now())
  WHERE target = 'LIVE' OR (target = 'ENDED' AND coalesce(lease_until, due_at) IS NOT NULL)
  RETURNING 1)
SELECT pg_notify('broadcast_due', '') FROM woken LIMIT 1
"""
# The time since when it is so is kept from look to look. If the last look is more than a minute old, the state between
# is not known, and the time begins anew. `least`: the clock of the database may have been set back meanwhile.
_REPORT = """
INSERT INTO provider AS p (name, unreachable_since, answering_since, checked_at, code, message)
VALUES ($1, CASE WHEN $2 THEN now() END, CASE WHEN NOT $2 THEN now() END, now(), $3, $4)
ON CONFLICT (name) DO UPDATE SET code = $3, message = $4, checked_at = now(),
  unreachable_since = CASE WHEN $2 THEN
    coalesce(CASE WHEN p.checked_at > now() - interval '60 s' THEN least(p.unreachable_since, now()) END, now()) END,
  answering_since = CASE WHEN NOT $2 THEN
    coalesce(CASE WHEN p.checked_at > now() - interval '60 s' THEN least(p.answering_since, now()) END, now()) END
"""


class Outages:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def compared(self, providers: Sequence[Provider], began: datetime) -> None:
        """Store that a round which began at *began*, by the database clock, compared with the rows everything that
        these providers show, and woke whatever differs. Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE provider SET compared_at = $2 WHERE name = ANY($1::text[])", list(providers), began
            )

    async def report(self, provider: Provider, failure: tuple[str, str] | None) -> None:
        """Store what a look at *provider* found. *failure*: its code and its message. None: the provider answered.

        Raises StoreUnavailable.
        """
        code, message = failure or ("", "")
        async with self._database.transaction() as connection:
            before = await connection.fetchrow(f"SELECT {OUTAGES}")
            await connection.execute(_REPORT, provider, failure is not None, code, message)
            after = await connection.fetchrow(f"SELECT {OUTAGES}")
            if before is not None and after is not None and outages_of(before).keys() != outages_of(after).keys():
                await connection.execute(_WAKE)
