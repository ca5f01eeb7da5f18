"""Whether the providers answer, as the observer sees it: one row a provider, read by every pass.

Two failed looks in a row, five seconds apart or more, are an outage (see OUTAGES in `rows`). Its begin and its end wake
every running broadcast. A replica whose credentials are refused proves no outage: another one may be answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from service.domain.provider import Provider
from service.store.database import Database
from service.store.rows import OUTAGES, outages_of

if TYPE_CHECKING:
    from service.store.database import Connection

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
  refused_since = CASE WHEN $2 THEN p.refused_since END,
  unreachable_since = CASE WHEN $2 THEN
    coalesce(CASE WHEN p.checked_at > now() - interval '60 s' THEN least(p.unreachable_since, now()) END, now()) END,
  answering_since = CASE WHEN NOT $2 THEN
    coalesce(CASE WHEN p.checked_at > now() - interval '60 s' THEN least(p.answering_since, now()) END, now()) END
"""


# The first refusal counts from its own time on, unless a minute passed without another. A row that is new here was not
# checked yet. Another replica asks for the duty within ten seconds, and the one that was refused again after fifteen.
_REFUSED = """
INSERT INTO provider AS p (name, checked_at, refused_since, refused_at)
VALUES ($1, to_timestamp(0), now(), now())
ON CONFLICT (name) DO UPDATE SET refused_at = now(), refused_since = CASE
  WHEN p.refused_at > now() - interval '60 s' THEN coalesce(least(p.refused_since, now()), now()) ELSE now() END
RETURNING now() - refused_since >= interval '25 s'
"""
_REFUSED_SINCE = """
UPDATE provider SET unreachable_since = least(unreachable_since, refused_since) WHERE name = $1
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
        async with self._database.transaction() as connection:
            await self._report(connection, provider, failure)

    async def refused(self, provider: Provider, failure: tuple[str, str]) -> None:
        """Store that *provider* refused the credentials of this replica. It is an outage if no replica was answered
        since the first refusal 25 s ago. Raises StoreUnavailable.
        """
        async with self._database.transaction() as connection:
            if await connection.fetchval(_REFUSED, provider):
                await self._report(connection, provider, failure, since_refusal=True)

    async def _report(
        self,
        connection: Connection,
        provider: Provider,
        failure: tuple[str, str] | None,
        *,
        since_refusal: bool = False,
    ) -> None:
        code, message = failure or ("", "")
        before = await connection.fetchrow(f"SELECT {OUTAGES}")
        await connection.execute(_REPORT, provider, failure is not None, code, message)
        if since_refusal:
            await connection.execute(_REFUSED_SINCE, provider)
        after = await connection.fetchrow(f"SELECT {OUTAGES}")
        if before is not None and after is not None and outages_of(before).keys() != outages_of(after).keys():
            await connection.execute(_WAKE)
