"""The rows as a queue, in memory: claim, wake and duties."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from service.store.leases import Claim
from tests.simulation.store.tables import Line, Tables, transactions

_AT_ONCE = timedelta()


@transactions
class Leases:
    def __init__(self, tables: Tables, line: Line, *, owner: str, ttl: timedelta) -> None:
        self._tables = tables
        self._line = line
        self.owner = owner
        self.ttl = ttl

    async def claim(self, lane: int, *, limit: int, overdue: timedelta = _AT_ONCE) -> list[Claim]:
        await self._line.begin("claim")
        now = self._tables.now()
        due = [
            (row.due, row)
            for row in self._tables.rows.values()
            if row.lane == lane and row.due is not None and row.due <= now - overdue
        ]
        due.sort(key=lambda each: each[0])
        claims: list[Claim] = []
        for _, row in due[:limit]:
            fence = max(row.fence, self._tables.fence_base) + 1
            row.lease_owner, row.lease_until, row.fence, row.due_at = self.owner, now + self.ttl, fence, None
            trace_context, row.trace_context = row.trace_context, None
            claims.append(
                Claim(broadcast_id=row.broadcast.id, fence=row.fence, trace_context=trace_context, claimed_at=now)
            )
        await self._line.commit("claim")
        return claims

    async def next_due(self) -> timedelta | None:
        await self._line.begin("next_due")
        due = [due for row in self._tables.rows.values() if (due := row.due) is not None]
        return min(due) - self._tables.now() if due else None

    async def wake(self, broadcast_ids: Sequence[str], *, retry: bool = False) -> None:
        if not broadcast_ids:
            return
        await self._line.begin("wake")
        for broadcast_id in broadcast_ids if retry else ():
            if (row := self._tables.rows.get(broadcast_id)) is not None:
                row.retry_from = self._tables.now()
        self._tables.wake(broadcast_ids)
        await self._line.commit("wake")

    async def take_duty(self, name: str, ttl: timedelta) -> bool:
        await self._line.begin("take_duty")
        now = self._tables.now()
        owner, until = self._tables.duties.get(name, (self.owner, now))
        taken = owner == self.owner or until <= now or until > now + timedelta(minutes=5)
        if taken:
            self._tables.duties[name] = (self.owner, now + ttl)
        await self._line.commit("take_duty")
        return taken

    async def give_up_duty(self, name: str) -> None:
        await self._line.begin("give_up_duty")
        owner, _ = self._tables.duties.get(name, ("", None))
        if owner == self.owner:
            self._tables.duties[name] = (owner, self._tables.now())
        await self._line.commit("give_up_duty")
