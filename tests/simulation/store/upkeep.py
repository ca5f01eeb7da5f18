"""A clock of the database that was set back, in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation.store.tables import transactions

if TYPE_CHECKING:
    from tests.simulation.store.tables import Line, Tables

_STEP = timedelta(seconds=1)


@transactions
class Upkeep:
    def __init__(self, tables: Tables, line: Line, *, lease: timedelta) -> None:
        self._tables = tables
        self._line = line
        self._lease = lease

    async def look_at_clock(self) -> timedelta:
        await self._line.begin("look_at_clock")
        tables, now = self._tables, self._tables.now()
        back = timedelta() if tables.clock_seen is None else tables.clock_seen - now
        tables.clock_seen = now
        if back < _STEP:
            return timedelta()
        for row in tables.rows.values():
            if row.due is None:
                continue
            if row.due_at is not None and row.due_at > now:
                row.due_at = max(row.due_at - back, now)
            if row.turn_at is not None:
                row.turn_at -= back
            if row.dirty_at is not None:
                row.dirty_at = min(row.dirty_at, now)
            if row.lease_until is not None and row.lease_until > now + 2 * self._lease:
                row.lease_until = now
        tables.audience = {key: slot for key, slot in tables.audience.items() if key[1] <= now}
        tables.counting = {replica: told for replica, told in tables.counting.items() if told[1] <= now}
        for name, (owner, until) in tables.duties.items():
            if until > now:
                tables.duties[name] = (owner, until - back)
        await self._line.commit("look_at_clock")
        return back
