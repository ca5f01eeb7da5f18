"""The viewers that each replica saw, by slots of some seconds: written by flushes, read as the union of the last ones.

A viewer counts as present from the flush that tells of them for at least the window and at most a slot longer.

Invariant: a row belongs to one replica, which replaces it as a whole, so a flush that is repeated changes nothing. The
database clock says in which slot a flush falls: a replica counts the slots on from the one that it was told last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.audience.watching import Watching
from service.store.audience.sketches import distinct
from service.store.database import Database
from service.store.leases import NEWS

SLOT = timedelta(seconds=15)
WINDOW = timedelta(seconds=60)
GAP_S = 10
"""Seconds without a flush, after which a replica that flushes again may have missed signs of viewers."""

# $2 to $5: one element a sighting. A sighting that came too late to count is left out, because its slot may be folded
# already. A broadcast that is over has no audience.
#
# ON_DEMAND ones that are watched and have no egress are woken: only `due_at`, as by every wake. A row that a writer
# holds is not waited for, since all other broadcasts would wait too: it is answered as busy.
_FLUSH = f"""
WITH given AS (
  SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::bytea[], $5::int[]) AS g (id, slot, sketch, viewers)),
present AS (SELECT date_bin($6::interval, now(), timestamptz '2000-01-01 00:00+00') AS slot),
kept AS (
  INSERT INTO audience_slot (broadcast_id, slot, replica, sketch, seen_at, viewers)
  SELECT b.id, coalesce(g.slot, present.slot), $1, g.sketch, now(), g.viewers
  FROM given g CROSS JOIN present JOIN broadcast b ON b.id = g.id
  WHERE b.target <> 'ENDED' AND NOT b.deleted AND (g.slot IS NULL OR g.slot > now() - $7::interval - $6::interval)
  ORDER BY b.id
  ON CONFLICT (broadcast_id, slot, replica) DO UPDATE SET
    sketch = excluded.sketch, seen_at = excluded.seen_at, viewers = excluded.viewers),
alive AS (
  INSERT INTO audience_replica AS r (replica, alive_at, counted_since) VALUES ($1, now(), now())
  ON CONFLICT (replica) DO UPDATE SET alive_at = now(), counted_since =
    CASE WHEN r.alive_at > now() - interval '{GAP_S} s' THEN least(r.counted_since, now()) ELSE now() END),
waiting AS MATERIALIZED (
  SELECT id FROM broadcast WHERE id IN (SELECT id FROM given) AND target = 'LIVE'
    AND spec ->> 'delivery_policy' = 'on_demand' AND (delivery #>> '{{decided,wanted}}') IS DISTINCT FROM 'true'),
free AS MATERIALIZED (
  SELECT id FROM broadcast WHERE id IN (SELECT id FROM waiting) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
woken AS (
  UPDATE broadcast SET due_at = least(due_at, now()) WHERE id IN (SELECT id FROM free) RETURNING {NEWS} AS news),
told AS MATERIALIZED (SELECT pg_notify('broadcast_due', '') FROM woken WHERE news LIMIT 1)
SELECT slot, slot + $6::interval - now() AS lasts, (SELECT count(*) FROM told) AS told,
  array(SELECT id FROM waiting EXCEPT SELECT id FROM free) AS busy
FROM present
"""  # noqa: S608 - a constant
_PRESENT = """
SELECT broadcast_id, array_agg(sketch) AS sketches, max(seen_at) AS seen_at, now() AS read_at FROM audience_slot
WHERE broadcast_id = ANY($1) AND slot > now() - $2::interval AND slot <= now() + $3::interval
GROUP BY broadcast_id
"""
LAST_SEEN = """greatest(
  (SELECT max(seen_at) FROM audience_slot WHERE audience_slot.broadcast_id = broadcast.id),
  (SELECT seen_at FROM audience_total WHERE audience_total.broadcast_id = broadcast.id))"""
"""SQL, of a row of `broadcast`: when a viewer was seen last, by any replica. NULL: none ever was."""
_HEARD_OF = "alive_at > (SELECT max(alive_at) FROM audience_replica) - interval '60 s'"
COUNTED_UP_TO = f"(SELECT min(alive_at) FROM audience_replica WHERE {_HEARD_OF})"  # noqa: S608 - a constant
"""SQL: up to when all replicas told what they saw. NULL: none counts.

A replica that died keeps this time back for a minute: its viewers may not have come to another one yet.
"""
COUNTED_SINCE = f"(SELECT min(counted_since) FROM audience_replica WHERE {_HEARD_OF})"  # noqa: S608 - a constant
"""SQL: since when at least one replica has told what it saw without a gap. NULL: none counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The viewers of one broadcast that a replica saw in one slot."""

    broadcast_id: str
    slot: datetime | None
    """The begin of the slot, counted on from the one that an earlier flush was told. None: the present one."""
    sketch: bytes
    viewers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    slot: datetime
    """The begin of the slot that is open now."""
    lasts: timedelta
    """How long it is still open."""
    busy: frozenset[str]
    """Broadcasts that are to be woken and could not be now: a writer holds their row. They are to be told of again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The viewers of one broadcast that are present."""

    viewers: int
    seen_at: datetime
    """When one of them was seen last."""
    read_at: datetime


class AudienceSlots:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, *, slot: timedelta = SLOT, window: timedelta = WINDOW) -> None:
        self._database = database
        self._slot = slot
        self._window = window

    async def flush(self, replica: str, seen: Sequence[Sighting]) -> Flushed:
        """Keep what *replica* saw and that it is alive, in one statement. With nothing seen it says so.

        Each sighting replaces what the replica told before of that broadcast and slot, so it has all viewers of its
        slot. Broadcasts that are delivered on demand and have no egress are woken.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                _FLUSH,
                replica,
                [each.broadcast_id for each in seen],
                [each.slot for each in seen],
                [each.sketch for each in seen],
                [each.viewers for each in seen],
                self._slot,
                self._window,
            )
        if row is None:
            raise AssertionError("a SELECT of one row")
        return Flushed(slot=row["slot"], lasts=row["lasts"], busy=frozenset(row["busy"]))

    async def leave(self, replica: str) -> None:
        """The replica counts no more, and has told all: nobody need wait to hear from it."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM audience_replica WHERE replica = $1", replica)

    async def present(self, broadcast_ids: Sequence[str]) -> dict[str, Present]:
        """The viewers of the window by broadcast, without those broadcasts of which no viewer was seen in it."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_PRESENT, list(broadcast_ids), self._window + self._slot, self._slot)
        return {
            row["broadcast_id"]: Present(
                viewers=distinct(row["sketches"]), seen_at=row["seen_at"], read_at=row["read_at"]
            )
            for row in rows
        }

    async def watching(self, broadcast_id: str) -> Watching:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {LAST_SEEN} AS last_seen, {COUNTED_UP_TO} AS counted_up_to, "  # noqa: S608 - constants
                f"{COUNTED_SINCE} AS counted_since "
                "FROM (SELECT $1::text AS id) AS broadcast",
                broadcast_id,
            )
        return Watching() if row is None else Watching(**dict(row))

    async def forget(self) -> int:
        """Delete the replicas that were not heard of for a day. Answers how many were deleted."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "DELETE FROM audience_replica WHERE alive_at < now() - interval '1 day' RETURNING 1"
            )
        return len(rows)
