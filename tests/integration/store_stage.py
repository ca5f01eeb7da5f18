"""The store by itself: what a replica does with it, without a replica."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from service.domain.broadcast import Broadcast, Spec
from service.domain.lifecycle import start
from service.domain.resources import Egress, Phase, Room, Stream
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.reconciler.reconciler import derive
from service.store.broadcasts import Broadcasts, Request
from service.store.changes import Changes
from service.store.database import Database
from service.store.leases import Claim, Leases
from service.store.passes import Derive, Passes
from service.store.rows import Rows
from service.store.sealing import Sealer

KEYS = (b"k" * 32,)
NOBODYS = Request(id="", method="Test", digest=b"")
T0 = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Store:
    """What one replica has of the store."""

    database: Database
    broadcasts: Broadcasts
    changes: Changes
    leases: Leases
    passes: Passes

    async def sql(self, statement: str, *values: object) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def all(self, statement: str, *values: object) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *values)]

    async def row(self, broadcast_id: str) -> dict[str, Any]:
        [row] = await self.all("SELECT * FROM broadcast WHERE id = $1", broadcast_id)
        return row

    async def add(self, broadcast_id: str, *, due_in_s: float | None = None, lane: int = 2, **columns: str) -> None:
        """A row as it is, whether a service would write it so or not."""
        values = {"target": "LIVE", "state": "STARTING", **columns}
        await self.sql(
            "INSERT INTO broadcast (id, spec, target, state, due_at, lane) "
            "VALUES ($1, '{}', $2, $3, now() + make_interval(secs => $4), $5)",
            broadcast_id,
            values["target"],
            values["state"],
            due_in_s,
            lane,
        )

    async def started(
        self, broadcast_id: str, spec: Spec | None = None, keys: dict[str, Secret] | None = None
    ) -> Broadcast:
        await self.broadcasts.create(broadcast_id, spec or Spec(), keys or {}, {}, NOBODYS)
        return await self.broadcasts.change(broadcast_id, start, NOBODYS)

    async def claimed(self, broadcast_id: str, lane: int = 1) -> Claim:
        [claim] = await self.leases.claim(lane, limit=1)
        assert claim.broadcast_id == broadcast_id
        return claim

    async def lease_ends(self, broadcast_id: str) -> None:
        """As after the death of its owner, and without the wait."""
        await self.sql("UPDATE broadcast SET lease_until = now() - interval '1 ms' WHERE id = $1", broadcast_id)

    async def everything(self) -> list[list[dict[str, Any]]]:
        """Every row of every table that a pass may write."""
        return [
            await self.all("SELECT * FROM broadcast ORDER BY id"),
            await self.all("SELECT * FROM resource ORDER BY broadcast_id, kind, ordinal"),
            await self.all("SELECT * FROM event ORDER BY revision"),
            await self.all("SELECT * FROM head"),
        ]


@contextlib.asynccontextmanager
async def store(
    dsn: str,
    *,
    owner: str = "one",
    ttl: timedelta = timedelta(seconds=20),
    keys: Sequence[bytes] = KEYS,
    size: int = 10,
    told: Derive | None = None,
    database: type[Database] = Database,
) -> AsyncGenerator[Store]:
    opened = await database.connect(dsn, size=size)
    rows = Rows(Sealer(keys))
    try:
        yield Store(
            database=opened,
            broadcasts=Broadcasts(opened, rows),
            changes=Changes(opened, rows),
            leases=Leases(opened, owner=owner, ttl=ttl),
            passes=Passes(opened, rows, derive=told or derive(Timing())),
        )
    finally:
        await opened.close()


def room(**changes: Any) -> Room:
    values: dict[str, Any] = {"external_id": "first", "sid": "RM_1"}
    return Room(ordinal=0, phase=Phase.PRESENT, intended_at=T0, changed_at=T0, **{**values, **changes})


def stream(**changes: Any) -> Stream:
    values: dict[str, Any] = {"ordinal": 0, "external_id": "LS1", "phase": Phase.PRESENT, "playback_id": "PB1"}
    return Stream(intended_at=T0, changed_at=T0, **{**values, **changes})


def egress(**changes: Any) -> Egress:
    values: dict[str, Any] = {"ordinal": 0, "phase": Phase.INTENDED}
    return Egress(intended_at=T0, changed_at=T0, **{**values, **changes})
