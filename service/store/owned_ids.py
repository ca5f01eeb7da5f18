"""Which ids at the providers belong to which broadcast: the observer compares them, the sweeper looks for owners.

Each answer is one read, however many broadcasts there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.resources import Kind
from service.store.database import Database
from service.store.history import SETTLED

# Until a replica has looked at a server that may have lost commits, every broadcast may be searching.
_SEARCHING = f"""
SELECT id FROM broadcast b WHERE id = ANY($2) AND NOT deleted AND (
  EXISTS (SELECT FROM resource WHERE broadcast_id = b.id AND kind = $1 AND phase IN ('intended', 'unknown'))
  OR unverified_since IS NOT NULL OR {SETTLED} IS NOT TRUE)
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedResource:
    """One resource of a broadcast that is wanted live. An egress that failed is listed although it is gone: a provider
    may list it for ever, and it must not be taken for a stranger's.
    """

    broadcast_id: str
    kind: str
    phase: str
    external_id: str
    status: str
    host_publishing: bool | None
    recorded: bool | None
    """Of a room, as `host_publishing`: None of other kinds, and while it was not seen."""
    updated_ns: int
    """Of an egress: its last change by LiveKit's clock, in Unix nanoseconds. 0: not known."""


class OwnedIds:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """By the database clock."""
        return await self._database.now()

    async def of_running(self) -> list[OwnedResource]:
        """The resources of all broadcasts that are wanted live."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT r.broadcast_id, r.kind, r.phase, r.external_id, coalesce(r.detail ->> 'status', '') AS status, "
                "(r.detail ->> 'host_publishing')::boolean AS host_publishing, "
                "(r.detail ->> 'recorded')::boolean AS recorded, "
                "coalesce((r.detail ->> 'updated_ns')::bigint, 0) AS updated_ns "
                "FROM resource r JOIN broadcast b ON b.id = r.broadcast_id "
                "WHERE b.target = 'LIVE' AND (r.phase <> 'gone' OR r.detail ->> 'fault' <> '')"
            )
        return [OwnedResource(**dict(row)) for row in rows]

    async def over(self, broadcast_ids: Sequence[str]) -> tuple[set[str], set[str]]:
        """Of these broadcasts: those that exist, and those among them that are over, so that nothing of theirs may be
        left.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, state IN ('ENDED', 'FAILED') OR (state = 'CREATED' AND deleted) AS over "
                "FROM broadcast WHERE id = ANY($1)",
                list(broadcast_ids),
            )
        return {row["id"] for row in rows}, {row["id"] for row in rows if row["over"]}

    async def owned(self, kind: Kind, external_ids: Sequence[str]) -> set[str]:
        """Of these ids of the provider: those that belong to a resource that is not gone.

        A deleted broadcast owns only what is present, its recordings, and its live stream until that is gone: no pass
        looks for anything else of it any more.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT r.external_id FROM resource r JOIN broadcast b ON b.id = r.broadcast_id "
                "WHERE r.kind = $1 AND r.external_id = ANY($2) AND r.external_id <> '' AND r.kind <> 'room' "
                "AND r.phase <> 'gone' AND (r.phase = 'present' OR r.kind = 'stream' OR NOT b.deleted)",
                kind.value,
                list(external_ids),
            )
        return {row["external_id"] for row in rows}

    async def pooled(self, entry_ids: Sequence[str]) -> set[str]:
        """Of these entries of the pool: those that are there. One that a broadcast has taken is not."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT id FROM pool_stream WHERE id = ANY($1)", list(entry_ids))
        return {row["id"] for row in rows}

    async def started(self, egress_ids: Sequence[str]) -> set[str]:
        """Of these egresses: those that the service started or adopted, also those whose row is gone."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT external_id FROM resource WHERE kind IN ('egress', 'recording') AND external_id = ANY($1)",
                list(egress_ids),
            )
        return {row["external_id"] for row in rows} - {""}

    async def searching(self, kind: Kind, broadcast_ids: Sequence[str]) -> set[str]:
        """Of these broadcasts: those that made a call of *kind* without an answer, and those that may have made one
        whose commit is lost. Anything with their mark may be what that call made.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SEARCHING, kind.value, list(broadcast_ids))
        return {row["id"] for row in rows}

    async def uploaded_since(self, moment: datetime) -> bool:
        """Whether any upload was begun since *moment*, by the database clock. If not, none can have left an asset."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT EXISTS (SELECT FROM resource WHERE kind = 'upload' AND intended_at >= $1)", moment
            )
