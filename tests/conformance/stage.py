"""One database with two replicas on it, real or in memory: what the simulation runs on does what Postgres does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

from service.domain.broadcast import Broadcast, Spec
from service.domain.lifecycle import start
from service.domain.ports import Heard
from service.domain.provider import Provider
from service.domain.timing import Timing
from service.reconciler.reconciler import derive
from service.store.audience.slots import AudienceSlots
from service.store.broadcasts import Broadcasts, Request
from service.store.budgets import Budgets
from service.store.changes import Changes
from service.store.database import Database
from service.store.leases import Claim, Leases
from service.store.measurements.outages import Outages
from service.store.measurements.probes import Probes
from service.store.owned_ids import OwnedIds
from service.store.passes import Derive, Passes
from service.store.pool import Pool
from service.store.rows import Rows
from service.store.sealing import Sealer
from service.store.webhooks.inbox import Inbox, Reading
from service.store.webhooks.stored import WebhookOutcome
from tests.simulation import store

LEASE = timedelta(seconds=20)
NOBODYS = Request(id="", method="Test", digest=b"")
_KEYS = (b"k" * 32,)
_MOMENTS = {
    "broadcast": ("due_at", "lease_until", "dirty_at", "create_time"),
    "budget": ("refilled_at",),
    "duty": ("lease_until",),
    "audience_replica": ("alive_at", "counted_since"),
    "audience_slot": ("seen_at", "slot"),
    "audience_total": ("seen_at", "up_to"),
    "probe": ("look_due_at",),
    "provider": ("unreachable_since", "answering_since", "checked_at", "refused_since", "refused_at"),
    "request": ("create_time",),
    "event": ("time",),
    "pool_stream": ("intended_at", "looked_at"),
}


class Ground(Protocol):
    """What a test does to the database behind the service's back."""

    async def now(self) -> datetime: ...
    async def time_passes(self, seconds: float) -> None:
        """As if everything in it had happened so much earlier."""
        ...

    async def deliver(self, heard: Heard, broadcast_id: str) -> bool:
        """A webhook. Whether it was new."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    leases: Leases
    passes: Passes

    async def claimed(self, broadcast_id: str, lane: int = 1) -> Claim:
        [claim] = await self.leases.claim(lane, limit=1)
        assert claim.broadcast_id == broadcast_id
        return claim

    async def claimed_ids(self, lane: int, *, limit: int = 100) -> list[str]:
        return [claim.broadcast_id for claim in await self.leases.claim(lane, limit=limit)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    one: Replica
    two: Replica
    broadcasts: Broadcasts
    changes: Changes
    budgets: Budgets
    owned_ids: OwnedIds
    pool: Pool
    outages: Outages
    probes: Probes
    audience: AudienceSlots
    ground: Ground

    async def started(self, broadcast_id: str, spec: Spec | None = None) -> Broadcast:
        await self.broadcasts.create(broadcast_id, spec or Spec(), {}, {}, NOBODYS)
        return await self.broadcasts.change(broadcast_id, start, NOBODYS)

    async def seen(self, broadcast_id: str) -> object:
        """All that callers and the next pass would find of it."""
        found = await self.broadcasts.get(broadcast_id)
        return found, await self.changes.story(broadcast_id, after=0, limit=1000), await self.changes.bounds()


class _Postgres:
    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def now(self) -> datetime:
        return await self._database.now()

    async def time_passes(self, seconds: float) -> None:
        async with self._database.connection() as connection:
            for table, columns in _MOMENTS.items():
                moved = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
                await connection.execute(f"UPDATE {table} SET {moved}", seconds)  # noqa: S608 - constants
            await connection.execute(
                "UPDATE budget SET next_turns = (SELECT array_agg(t - make_interval(secs => $1) ORDER BY n) "
                "FROM unnest(next_turns) WITH ORDINALITY AS each (t, n))",
                seconds,
            )

    async def deliver(self, heard: Heard, broadcast_id: str) -> bool:
        def read(_provider: Provider, _body: bytes) -> Reading:
            return Reading(
                event_id=heard.event_id,
                type=heard.type,
                outcome=WebhookOutcome.ACCEPTED,
                heard=heard,
                broadcast_id=broadcast_id,
            )

        return not (await Inbox(self._database, self._sealer, read).store(Provider.MUX, b"{}")).duplicate


class _Memory(store.Line):
    """Its time stands still but for beginnings: no two transactions of a database see the same moment."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 1, tzinfo=UTC)
        self.tables = store.Tables(lambda: self._now)

    async def begin(self, operation: str) -> None:
        del operation
        self._now += timedelta(milliseconds=1)

    async def now(self) -> datetime:
        await self.begin("now")
        return self._now

    async def time_passes(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    async def deliver(self, heard: Heard, broadcast_id: str) -> bool:
        return await store.Inbox(self.tables, self).store("mux", heard, broadcast_id)


@contextlib.asynccontextmanager
async def in_postgres(dsn: str, told: Derive | None = None) -> AsyncGenerator[Stage]:
    database = await Database.connect(dsn, size=4)
    sealer = Sealer(_KEYS)
    rows = Rows(sealer)
    try:
        one, two = (
            Replica(
                leases=Leases(database, owner=owner, ttl=LEASE),
                passes=Passes(database, rows, derive=told or derive(Timing())),
            )
            for owner in ("one", "two")
        )
        yield Stage(
            one=one,
            two=two,
            broadcasts=Broadcasts(database, rows),
            changes=Changes(database, rows),
            budgets=Budgets(database),
            owned_ids=OwnedIds(database),
            pool=Pool(database, sealer),
            outages=Outages(database),
            probes=Probes(database),
            audience=AudienceSlots(database),
            ground=_Postgres(database, sealer),
        )
    finally:
        await database.close()


def in_memory(told: Derive | None = None) -> Stage:
    ground = line = _Memory()
    tables = ground.tables
    one, two = (
        Replica(
            leases=cast("Leases", store.Leases(tables, line, owner=owner, ttl=LEASE)),
            passes=cast("Passes", store.Passes(tables, line, derive=told or derive(Timing()))),
        )
        for owner in ("one", "two")
    )
    return Stage(
        one=one,
        two=two,
        broadcasts=cast("Broadcasts", store.Broadcasts(tables, line)),
        changes=cast("Changes", store.Changes(tables, line)),
        budgets=cast("Budgets", store.Budgets(tables, line)),
        owned_ids=cast("OwnedIds", store.OwnedIds(tables, line)),
        pool=cast("Pool", store.Pool(tables, line)),
        outages=cast("Outages", store.Outages(tables, line)),
        probes=cast("Probes", store.Probes(tables, line)),
        audience=cast("AudienceSlots", store.AudienceSlots(tables, line)),
        ground=ground,
    )
