"""The ledger: what each broadcast is charged for. Written with the rows that it follows from, read for people.

An entry that goes on has no end in the table; a reader cuts it at the database's time. So nothing has to be written
while nothing happens, and what is read is never behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from service.domain.cost.bill import Quantity
from service.domain.cost.entries import Entry
from service.domain.cost.idle import idle_entry
from service.domain.cost.prices import EGRESS_STEP_US, CostKind, Prices, Tier
from service.domain.errors import BroadcastNotFound
from service.store.database import AT_ONCE, Database, changed_rows
from service.store.rows import BROADCAST_COLUMNS, DELIVERED, Row, Rows, costs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.domain.broadcast import Broadcast
    from service.domain.cost.cap import Costs
    from service.store.database import Connection

# An entry that is as it was is not written: most looks find nothing new.
_WRITE = """
INSERT INTO ledger AS l (broadcast_id, broadcast_time, kind, ref, tier, from_time, to_time, quantity_s, basis)
SELECT $1, $2, e.* FROM unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
  $8::double precision[], $9::text[]) AS e
ON CONFLICT (broadcast_id, broadcast_time, kind, ref) DO UPDATE SET
  tier = excluded.tier, from_time = excluded.from_time, to_time = excluded.to_time,
  quantity_s = excluded.quantity_s, basis = excluded.basis
WHERE (l.tier, l.from_time, l.to_time, l.quantity_s, l.basis)
  IS DISTINCT FROM (excluded.tier, excluded.from_time, excluded.to_time, excluded.quantity_s, excluded.basis)
"""
_ONE = f"SELECT {BROADCAST_COLUMNS}, now() AS read_at, {DELIVERED} FROM broadcast WHERE id = $1"  # noqa: S608 - a constant
_IDLE_ENDS = """
UPDATE ledger SET to_time = greatest(from_time, now())
WHERE broadcast_id = $1 AND broadcast_time = $2 AND kind = 'idle' AND to_time IS NULL
  AND from_time IS DISTINCT FROM $3::timestamptz
"""
_ENTRIES = """
SELECT kind, ref, tier, from_time, to_time, quantity_s, basis FROM ledger
WHERE broadcast_id = $1 AND broadcast_time = $2 ORDER BY from_time, kind, ref
"""
# $1 and $2: the period. A span is cut to it; a quantity of one moment belongs to the period that the moment is in. What
# viewers were sent is known as one sum, and is spread evenly over the time on air.
_CUT = """
WITH account AS (
  SELECT b.id, create_time, coalesce(spec ->> 'owner_id', '') AS owner_id, labels, live_time, end_time, viewer_s
  FROM broadcast b LEFT JOIN audience_total t ON t.broadcast_id = b.id AND up_to IS NOT NULL
  UNION ALL SELECT id, create_time, owner_id, labels, live_time, end_time, viewer_s FROM former_broadcast),
chosen AS MATERIALIZED (SELECT {key} COLLATE "C" AS key, a.* FROM account a WHERE {where}),
part AS MATERIALIZED (
  SELECT a.key, a.id, a.create_time, l.kind, l.tier,
    CASE WHEN l.quantity_s IS NULL THEN (extract(epoch FROM
      least(coalesce(l.to_time, now()), $2) - greatest(l.from_time, $1)) * 1000000)::bigint
      ELSE round(l.quantity_s * 1000000)::bigint END AS micros
  FROM ledger l JOIN chosen a ON a.id = l.broadcast_id AND a.create_time = l.broadcast_time
  WHERE l.from_time < $2 AND (l.from_time >= $1 OR (l.quantity_s IS NULL AND coalesce(l.to_time, now()) > $1))
  UNION ALL
  SELECT a.key, a.id, a.create_time, 'delivery', l.tier, round(a.viewer_s * 1000000 * greatest(0, extract(epoch FROM
    least(coalesce(a.end_time, now()), $2) - greatest(a.live_time, $1)) / extract(epoch FROM
    greatest(coalesce(a.end_time, now()), a.live_time + interval '1 us') - a.live_time)))::bigint
  FROM chosen a JOIN LATERAL (
    SELECT tier FROM ledger WHERE broadcast_id = a.id AND broadcast_time = a.create_time AND kind = 'input' LIMIT 1
  ) l ON true
  WHERE a.viewer_s > 0 AND a.live_time < $2 AND coalesce(a.end_time, now()) > $1),
page AS (SELECT DISTINCT key FROM part WHERE {after} ORDER BY key LIMIT $3)
"""
_GROUPS = """
SELECT key, kind, tier, sum(greatest(micros, 0))::bigint AS micros,
  sum(CASE WHEN kind IN ('egress', 'file_egress') THEN ceil(greatest(micros, 0) / $4::numeric) * $4
      ELSE greatest(micros, 0) END)::bigint AS billed,
  (SELECT count(DISTINCT (p.id, p.create_time)) FROM part p WHERE p.key = part.key) AS broadcasts
FROM part JOIN page USING (key) GROUP BY key, kind, tier ORDER BY key, kind, tier
"""
_FORGET = """
DELETE FROM ledger WHERE (broadcast_id, broadcast_time, kind, ref) IN (
  SELECT l.broadcast_id, l.broadcast_time, l.kind, l.ref FROM former_broadcast f
  JOIN ledger l ON l.broadcast_id = f.id AND l.broadcast_time = f.create_time
  WHERE f.forget_time < now() - $1::interval ORDER BY f.forget_time LIMIT $2)
"""
_FORGET_FORMER = """
DELETE FROM former_broadcast WHERE (id, create_time) IN (
  SELECT f.id, f.create_time FROM former_broadcast f WHERE f.forget_time < now() - $1::interval
    AND NOT EXISTS (SELECT FROM ledger l WHERE l.broadcast_id = f.id AND l.broadcast_time = f.create_time)
  ORDER BY f.forget_time LIMIT $2)
"""


class Grouping(StrEnum):
    """How costs are added up."""

    BROADCAST = "broadcast"
    OWNER = "owner"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """What is empty matches every broadcast."""

    grouping: Grouping = Grouping.BROADCAST
    label: str = ""
    """The key of the label, with Grouping.LABEL."""
    ids: tuple[str, ...] = ()
    owner_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    since: datetime | None = None
    """The period begins here. None: with the oldest entry."""
    until: datetime | None = None
    """The period ends just before this. None: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    key: str
    broadcasts: int
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The entries of one broadcast, as they are at one moment."""

    broadcast: Broadcast
    entries: tuple[Entry, ...]
    costs: Costs
    now: datetime
    """By the database's clock."""


async def write_idle(connection: Connection, broadcast: Broadcast, since: datetime | None) -> None:
    """Write within the transaction of *connection* that an idle time goes on since *since*, and end every other one.
    *since* None: none goes on.
    """
    if since is not None:
        await write_entries(connection, broadcast, [idle_entry(broadcast, since)])
    await connection.execute(_IDLE_ENDS, broadcast.id, broadcast.create_time, since)


async def write_entries(connection: Connection, broadcast: Broadcast, entries: Sequence[Entry]) -> None:
    """Write *entries* within the transaction of *connection*, which holds the row of *broadcast*."""
    await connection.execute(
        _WRITE,
        broadcast.id,
        broadcast.create_time,
        [entry.kind for entry in entries],
        [entry.ref for entry in entries],
        [entry.tier for entry in entries],
        [entry.from_time for entry in entries],
        [entry.to_time for entry in entries],
        [entry.quantity_s for entry in entries],
        [entry.basis for entry in entries],
    )


class Ledger:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, rows: Rows, *, prices: Prices) -> None:
        self._database = database
        self._rows = rows
        self._prices = prices

    async def of(self, broadcast_id: str) -> Account:
        """Also of a broadcast that was deleted, while its row is kept. Raises BroadcastNotFound."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(_ONE, broadcast_id)
            if row is None:
                raise BroadcastNotFound(broadcast_id)
            broadcast = self._rows.broadcast(row)
            found = await connection.fetch(_ENTRIES, broadcast.id, broadcast.create_time)
        return Account(
            broadcast=broadcast,
            entries=tuple(_entry(each) for each in found),
            costs=costs_of(row, self._prices),
            now=row["read_at"],
        )

    async def groups(self, query: CostQuery, *, limit: int, after: str | None = None) -> tuple[list[Group], datetime]:
        """The groups whose keys follow *after*, at most *limit*, in the order of their keys; and the end of the period.

        *after* None: from the first. The order is that of the bytes of the keys.
        """
        values: list[Any] = []

        def bind(value: Any) -> str:
            values.append(value)
            return f"${len(values) + 4}"

        match query.grouping:
            case Grouping.BROADCAST:
                key = "a.id"
            case Grouping.OWNER:
                key = "a.owner_id"
            case Grouping.LABEL:
                key = f"coalesce(a.labels ->> {bind(query.label)}, '')"
        where = ["true"]
        if query.ids:
            where.append(f"a.id = ANY({bind(list(query.ids))})")
        if query.owner_id:
            where.append(f"a.owner_id = {bind(query.owner_id)}")
        if query.labels:
            where.append(f"a.labels @> {bind(dict(query.labels))}")
        later = "true" if after is None else f"key > {bind(after)}"
        statement = _CUT.format(key=key, where=" AND ".join(where), after=later) + _GROUPS
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            now: datetime = await connection.fetchval("SELECT now()")
            until = min(query.until or now, now)
            since = query.since or datetime(1970, 1, 1, tzinfo=now.tzinfo)
            rows = await connection.fetch(statement, since, until, limit, EGRESS_STEP_US, *values)
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row["key"], []).append(row)
        return [
            Group(key=key, broadcasts=lines[0]["broadcasts"], quantities=tuple(_quantity(line) for line in lines))
            for key, lines in groups.items()
        ], until

    async def forget(self, *, older_than: timedelta) -> int:
        """Delete the entries of broadcasts whose rows were removed more than *older_than* ago, AT_ONCE at most. Answers
        how many were deleted.
        """
        async with self._database.connection() as connection:
            entries = changed_rows(await connection.execute(_FORGET, older_than, AT_ONCE))
            await connection.execute(_FORGET_FORMER, older_than, AT_ONCE)
        return entries


def _entry(row: Row) -> Entry:
    return msgspec.convert(dict(row), Entry)


def _quantity(row: Row) -> Quantity:
    return Quantity(kind=CostKind(row["kind"]), tier=Tier(row["tier"]), micros=row["micros"], billed=row["billed"])
