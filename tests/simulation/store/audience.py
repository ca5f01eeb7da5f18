"""The viewers that replicas saw, in memory. Worlds are short, so no slot is folded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from service.domain.audience.watching import Watching
from service.domain.broadcast import DeliveryPolicy, Target
from service.store.audience.sketches import distinct
from service.store.audience.slots import GAP_S, SLOT, WINDOW, Flushed, Present, Sighting
from tests.simulation.store.tables import Slot, transactions

if TYPE_CHECKING:
    from tests.simulation.store.tables import Line, Tables

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HEARD = timedelta(seconds=60)
_GAP = timedelta(seconds=GAP_S)


@transactions
class AudienceSlots:
    def __init__(self, tables: Tables, line: Line, *, slot: timedelta = SLOT, window: timedelta = WINDOW) -> None:
        self._tables = tables
        self._line = line
        self._slot = slot
        self._window = window

    async def flush(self, replica: str, seen: Sequence[Sighting]) -> Flushed:
        await self._line.begin("flush")
        tables, now = self._tables, self._tables.now()
        opened = now - (now - _EPOCH) % self._slot
        for each in seen:
            row, slot = tables.rows.get(each.broadcast_id), each.slot or opened
            if row is None or row.broadcast.target is Target.ENDED or row.broadcast.deleted:
                continue
            if each.slot is None or slot > now - self._window - self._slot:
                tables.audience[each.broadcast_id, slot, replica] = Slot(
                    sketch=each.sketch, viewers=each.viewers, seen_at=now
                )
        since, last = tables.counting.get(replica, (now, now))
        tables.counting[replica] = (since if now - last < _GAP else now, now)
        self._wake([each.broadcast_id for each in seen])
        await self._line.commit("flush")
        return Flushed(slot=opened, lasts=opened + self._slot - now, busy=frozenset())

    def _wake(self, watched: Sequence[str]) -> None:
        now, woken = self._tables.now(), False
        for broadcast_id in watched:
            row = self._tables.rows.get(broadcast_id)
            if row is None or row.broadcast.target is not Target.LIVE:
                continue
            demanded = row.broadcast.spec.delivery_policy is DeliveryPolicy.ON_DEMAND
            if demanded and not row.broadcast.delivery.wanted:
                row.due_at = now if row.due_at is None else min(row.due_at, now)
                woken = True
        if woken:
            self._tables.notify("broadcast_due")

    async def leave(self, replica: str) -> None:
        await self._line.begin("leave")
        self._tables.counting.pop(replica, None)
        await self._line.commit("leave")

    async def present(self, broadcast_ids: Sequence[str]) -> dict[str, Present]:
        await self._line.begin("present")
        now = self._tables.now()
        found: dict[str, list[Slot]] = {}
        for (broadcast_id, slot, _), each in self._tables.audience.items():
            if broadcast_id in broadcast_ids and now - self._window - self._slot < slot <= now + self._slot:
                found.setdefault(broadcast_id, []).append(each)
        await self._line.commit("present")
        return {
            broadcast_id: Present(
                viewers=distinct(each.sketch for each in slots),
                seen_at=max(each.seen_at for each in slots),
                read_at=now,
            )
            for broadcast_id, slots in found.items()
        }

    async def watching(self, broadcast_id: str) -> Watching:
        await self._line.begin("watching")
        await self._line.commit("watching")
        return watching(self._tables, broadcast_id)

    async def forget(self) -> int:
        """Worlds are short, so nothing is old."""
        await self._line.begin("forget_replicas")
        return 0


def watching(tables: Tables, broadcast_id: str) -> Watching:
    """What a pass reads of who watches."""
    last = max((last for _, last in tables.counting.values()), default=None)
    told = [each for each in tables.counting.values() if last is not None and each[1] > last - _HEARD]
    return Watching(
        last_seen=max((each.seen_at for key, each in tables.audience.items() if key[0] == broadcast_id), default=None),
        counted_up_to=min((last for _, last in told), default=None),
        counted_since=min((since for since, _ in told), default=None),
    )
