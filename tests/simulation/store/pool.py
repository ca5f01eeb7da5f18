"""The rows of the warm pool, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.pool import PoolEntry, PoolPhase
from tests.simulation.store.tables import Line, Pooled, Tables, transactions

if TYPE_CHECKING:
    from service.domain.pool import Profile
    from service.domain.ports import StreamSeen


@transactions
class Pool:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def entries(self) -> list[PoolEntry]:
        await self._line.begin("pool_entries")
        now = self._tables.now()
        pool = sorted(self._tables.pool.items(), key=lambda each: (each[1].intended_at, each[0]))
        return [
            PoolEntry(
                id=entry_id,
                profile=row.profile,
                phase=row.phase,
                external_id=row.external_id,
                age=now - row.intended_at,
                unseen=now - row.looked_at,
            )
            for entry_id, row in pool
        ]

    async def intend(self, entry_id: str, profile: Profile) -> None:
        await self._line.begin("pool_intend")
        now = self._tables.now()
        self._tables.pool[entry_id] = Pooled(
            profile=profile.text, phase=PoolPhase.INTENDED, intended_at=now, looked_at=now
        )
        await self._line.commit("pool_intend")

    async def made(self, entry_id: str, seen: StreamSeen) -> None:
        await self._line.begin("pool_made")
        row = self._tables.pool.get(entry_id)
        if row is not None and row.phase is PoolPhase.INTENDED:
            row.phase, row.external_id, row.playback_id = PoolPhase.PRESENT, seen.id, seen.playback_id
            row.key, row.looked_at = seen.key, self._tables.now()
        await self._line.commit("pool_made")

    async def looked(self, entry_id: str) -> None:
        await self._line.begin("pool_looked")
        if (row := self._tables.pool.get(entry_id)) is not None:
            row.looked_at = self._tables.now()
        await self._line.commit("pool_looked")

    async def leave(self, entry_id: str) -> bool:
        await self._line.begin("pool_leave")
        row = self._tables.pool.get(entry_id)
        if row is not None:
            row.phase = PoolPhase.LEAVING
        await self._line.commit("pool_leave")
        return row is not None

    async def drop(self, entry_id: str) -> None:
        await self._line.begin("pool_drop")
        row = self._tables.pool.get(entry_id)
        if row is not None and row.phase is not PoolPhase.PRESENT:
            del self._tables.pool[entry_id]
        await self._line.commit("pool_drop")
