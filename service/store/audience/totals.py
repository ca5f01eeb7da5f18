"""What is left of the slots that are over: the seconds watched by all viewers of a broadcast together, an estimate.

Invariant: the viewers of a slot are added exactly once. `up_to` says which slots are in the total. One transaction,
which holds the row of the total, adds the slots that follow, moves `up_to` over them, and deletes those that are not
needed any more.

A viewer is seen at each KeepAlive, and two of them may have a slot between them. So a viewer counts in a slot if it was
seen in it, or in both of its neighbours. Only unions of sketches can be counted, and the number follows from them:
|A or (B and C)| = |A or B| + |A or C| - |A or B or C|. So a slot is folded when the next one is over too, and it is
deleted after the next one was folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.audience.sketches import distinct
from service.store.audience.slots import SLOT, WINDOW
from service.store.database import Database, changed_rows

_BROADCASTS, SLOTS = 100, 20
"""Broadcasts and slots that one transaction folds at most. Each has a row for each replica, of up to 8 kB."""
LATE = timedelta(seconds=30)
"""A flush brings no viewers of a slot that is out of the window; its statement may take some seconds more."""

# $1: the length of a slot. $2: how long ago a slot began that gets no more viewers.
_HORIZON = "date_bin($1::interval, now() - $2::interval, timestamptz '2000-01-01 00:00+00')"
_DUE = f"""
SELECT broadcast_id FROM audience_slot WHERE slot < {_HORIZON} - $1::interval GROUP BY broadcast_id LIMIT $3
"""  # noqa: S608 - a constant
_ROOM = "INSERT INTO audience_total (broadcast_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
# Whoever has the row folds. The others take what is left at their next round.
_LOCK = """
SELECT broadcast_id, up_to FROM audience_total WHERE broadcast_id = ANY($1)
ORDER BY broadcast_id FOR NO KEY UPDATE SKIP LOCKED
"""
# A statement of its own, so that its snapshot is taken after the lock. A backlog is folded piece by piece, the oldest
# first.
_READ = f"""
WITH bound AS (
  SELECT least({_HORIZON}, min(slot) + $1::interval * $4::int) AS horizon
  FROM audience_slot WHERE broadcast_id = ANY($3))
SELECT horizon, broadcast_id, slot, sketch, seen_at FROM bound, audience_slot
WHERE broadcast_id = ANY($3) AND slot <= horizon ORDER BY broadcast_id, slot
"""  # noqa: S608 - a constant
_ADD = """
UPDATE audience_total t SET
  viewer_s = t.viewer_s + g.viewer_s, up_to = greatest(t.up_to, $4), seen_at = greatest(t.seen_at, g.seen_at)
FROM unnest($1::text[], $2::float8[], $3::timestamptz[]) AS g (broadcast_id, viewer_s, seen_at)
WHERE t.broadcast_id = g.broadcast_id
"""
_DELETE = "DELETE FROM audience_slot WHERE broadcast_id = ANY($1) AND slot < $2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    viewer_s: float
    """Seconds watched by all viewers together, of the slots that are over."""
    up_to: datetime
    """The total has what was watched before this time, and nothing later."""


class AudienceTotals:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, *, slot: timedelta = SLOT, window: timedelta = WINDOW) -> None:
        self._database = database
        self._slot = slot
        self._closed = window + slot + LATE
        """A slot that began so long ago gets no more viewers."""

    async def of(self, broadcast_ids: Sequence[str]) -> dict[str, Watched]:
        """What was watched, without those broadcasts of which no slot is over yet."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT broadcast_id, viewer_s, up_to FROM audience_total "
                "WHERE broadcast_id = ANY($1) AND up_to IS NOT NULL",
                list(broadcast_ids),
            )
        return {row["broadcast_id"]: Watched(viewer_s=row["viewer_s"], up_to=row["up_to"]) for row in rows}

    async def fold(self) -> int:
        """Add slots that are over to the totals of their broadcasts, and delete them. Answers how many rows were
        deleted; zero: no more are to be, or other replicas are at it.
        """
        async with self._database.transaction() as connection:
            due = await connection.fetch(_DUE, self._slot, self._closed, _BROADCASTS)
            await connection.execute(_ROOM, sorted(row["broadcast_id"] for row in due))
            held = await connection.fetch(_LOCK, [row["broadcast_id"] for row in due])
            up_to: dict[str, datetime | None] = {row["broadcast_id"]: row["up_to"] for row in held}
            rows = await connection.fetch(_READ, self._slot, self._closed, list(up_to), SLOTS)
            if not rows:
                return 0
            horizon: datetime = rows[0]["horizon"]
            slots = slots_of((row["broadcast_id"], row["slot"], row["sketch"]) for row in rows)
            seen_at: dict[str, datetime] = {}
            for row in rows:
                seen_at[row["broadcast_id"]] = max(row["seen_at"], seen_at.get(row["broadcast_id"], row["seen_at"]))
            watched = {each: watched_s(slots.get(each, {}), up_to[each], horizon, self._slot) for each in up_to}
            await connection.execute(
                _ADD, list(watched), list(watched.values()), list(map(seen_at.get, watched)), horizon
            )
            tag = await connection.execute(_DELETE, list(up_to), horizon - self._slot)
        return changed_rows(tag)


Slots = Mapping[datetime, Sequence[bytes]]
"""The sketches of all replicas by the begin of their slot."""


def slots_of(rows: Iterable[tuple[str, datetime, bytes]]) -> dict[str, dict[datetime, list[bytes]]]:
    """By the broadcast: its slots with their sketches."""
    slots: dict[str, dict[datetime, list[bytes]]] = {}
    for broadcast_id, slot, sketch in rows:
        slots.setdefault(broadcast_id, {}).setdefault(slot, []).append(sketch)
    return slots


def watched_s(slots: Slots, begin: datetime | None, end: datetime, length: timedelta) -> float:
    """Seconds watched in the slots from *begin* on that begin before *end*. None: in all before *end*.

    *slots* has their neighbours too. *length*: of a slot.
    """
    between = {slot + length for slot in slots if slot + 2 * length in slots}
    counted = [each for each in slots.keys() | between if each < end and (begin is None or each >= begin)]
    return length.total_seconds() * sum(_viewers(slots, each, length) for each in counted)


def _viewers(slots: Slots, slot: datetime, length: timedelta) -> int:
    """Those who were seen in *slot*, or both before and after it."""
    own, before, after = slots.get(slot, ()), slots.get(slot - length, ()), slots.get(slot + length, ())
    if not before or not after:
        return distinct(own)
    return max(distinct([*own, *before]) + distinct([*own, *after]) - distinct([*own, *before, *after]), 0)
