"""What callers read and write: the desired state of broadcasts.

A write, its events and its request id are one transaction, so a retry with the same id finds either all of them or
nothing. No provider is called here: a write makes the broadcast due, and a pass does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from service.domain.broadcast import Broadcast, Spec, State, Status
from service.domain.errors import BroadcastExists, BroadcastNotFound, RequestIdReused, StoreUnavailable
from service.domain.lifecycle import Change, Event, scheduled
from service.domain.reasons import Actor, EventReason
from service.domain.secret import Secret
from service.failpoints import failpoint
from service.store.changes import append
from service.store.database import AT_ONCE, Database, changed_rows
from service.store.leases import lane_of
from service.store.rows import BROADCAST_COLUMNS, Row, Rows
from service.store.sealing import CannotOpen

if TYPE_CHECKING:
    from service.store.database import Connection

_INSERT = f"""
INSERT INTO broadcast (id, spec, labels, secrets, status) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO NOTHING RETURNING {BROADCAST_COLUMNS}
"""  # noqa: S608 - a constant
_WRITE = """
UPDATE broadcast SET
  spec = $2, labels = $3, secrets = CASE WHEN $18 THEN $4 ELSE secrets END,
  generation = $5, version = $6, target = $7, on_air = $8, state = $9,
  status = $10, end_reason = $11, start_time = $12, end_time = $13, deleted = $14, update_time = now(),
  due_at = CASE WHEN $15 THEN now() WHEN $19 THEN $20 ELSE due_at END,
  lane = CASE WHEN $15 OR $19 THEN $16 ELSE lane END,
  trace_context = coalesce($17, trace_context)
WHERE id = $1
"""
# At the commit of the transaction that created it, which is the first that shows it.
_SCHEDULE = f"""
UPDATE broadcast SET status = $2, due_at = $3, lane = $4 WHERE id = $1 RETURNING {BROADCAST_COLUMNS}
"""  # noqa: S608 - a constant

_FORGET_REQUESTS = """
DELETE FROM request WHERE request_id IN (
  SELECT request_id FROM request WHERE create_time < now() - $1::interval ORDER BY create_time LIMIT $2)
"""
# The sweeper looks at the uploads of about a day.
_FORGET_DELETED = """
WITH old AS MATERIALIZED (
  SELECT id FROM broadcast
  WHERE deleted AND update_time < now() - $1::interval AND coalesce(lease_until, due_at) IS NULL
    AND NOT EXISTS (
      SELECT FROM resource WHERE broadcast_id = id AND phase <> 'gone'
        AND (phase <> 'present' OR kind <> 'upload' OR intended_at > now() - interval '3 days'))
  ORDER BY update_time LIMIT $2 FOR UPDATE SKIP LOCKED),
former AS (
  INSERT INTO former_broadcast (id, create_time, owner_id, labels, live_time, end_time, viewer_s)
  SELECT b.id, b.create_time, coalesce(b.spec ->> 'owner_id', ''), b.labels, b.live_time, b.end_time,
    (SELECT viewer_s FROM audience_total t WHERE t.broadcast_id = b.id AND up_to IS NOT NULL)
  FROM broadcast b JOIN old ON old.id = b.id
  WHERE EXISTS (SELECT FROM ledger l WHERE l.broadcast_id = b.id AND l.broadcast_time = b.create_time)
  ON CONFLICT DO NOTHING),
resources AS (DELETE FROM resource USING old WHERE broadcast_id = old.id),
probes AS (DELETE FROM probe USING old WHERE broadcast_id = old.id),
reports AS (DELETE FROM host_stats USING old WHERE broadcast_id = old.id),
viewers AS (DELETE FROM viewer USING old WHERE broadcast_id = old.id),
revoked AS (DELETE FROM revoked_viewer USING old WHERE broadcast_id = old.id),
slots AS (DELETE FROM audience_slot USING old WHERE broadcast_id = old.id),
counts AS (DELETE FROM audience_count USING old WHERE broadcast_id = old.id),
totals AS (DELETE FROM audience_total USING old WHERE broadcast_id = old.id),
removed AS (DELETE FROM broadcast USING old WHERE broadcast.id = old.id RETURNING 1)
SELECT count(*) FROM removed
"""
_DELETED_AT_ONCE = 500
"""Each has a handful of rows in other tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What makes the retry of a write recognisable. With an empty id every copy is a write of its own."""

    id: str
    method: str
    """What was asked, in the words of the interface. Stored and compared, and of no other meaning here."""
    digest: bytes
    """SHA-256 of the content without the id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is empty or None matches every broadcast."""

    ids: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    owner_id: str = ""
    created_after: datetime | None = None
    """Inclusive, by the database clock."""

    def matches(self, *, id: str, state: State, labels: dict[str, str], owner_id: str, create_time: datetime) -> bool:
        return (
            (not self.ids or id in self.ids)
            and (not self.states or state in self.states)
            and all(labels.get(key) == value for key, value in self.labels)
            and (not self.owner_id or owner_id == self.owner_id)
            and (self.created_after is None or create_time >= self.created_after)
        )


class Broadcasts:
    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows

    async def create(
        self, broadcast_id: str, spec: Spec, keys: dict[str, Secret], labels: dict[str, str], request: Request
    ) -> Broadcast:
        """Store a broadcast that is not started, or answer what an earlier copy of the request made.

        *keys*: stream keys of the destinations, by their names. One with a scheduled start is queued for it. Raises
        InvalidField, BroadcastExists, RequestIdReused, StoreUnavailable.
        """
        async with self._database.transaction(proves=True) as connection:
            if (earlier := await self._replayed(connection, request, broadcast_id)) is not None:
                return await self._read(connection, earlier)
            row = await connection.fetchrow(
                _INSERT,
                broadcast_id,
                msgspec.to_builtins(spec),
                labels,
                self._rows.seal_keys(broadcast_id, keys),
                msgspec.to_builtins(Status(), builtin_types=(datetime,)),
            )
            if row is None:
                raise BroadcastExists(broadcast_id)
            if spec.scheduled_start_time is not None:
                row = await self._schedule(connection, row)
            await append(connection, broadcast_id, [Event(reason=EventReason.CREATED)], actor=Actor.CALLER, before=None)
            failpoint("api.create.before_commit")
        failpoint("api.create.after_commit")
        return self._rows.broadcast(row)

    async def _schedule(self, connection: Connection, row: Row) -> Row:
        created = scheduled(self._rows.broadcast(row), row["create_time"])
        queued = await connection.fetchrow(
            _SCHEDULE,
            created.id,
            msgspec.to_builtins(created.status, builtin_types=(datetime,)),
            created.due_at,
            lane_of(created.target, ready=False),
        )
        assert queued is not None  # noqa: S101 - inserted above
        return queued

    async def change(
        self,
        broadcast_id: str,
        decide: Callable[[Broadcast, datetime], Change | None],
        request: Request,
        point: str = "",
        *,
        trace_context: str | None = None,
    ) -> Broadcast:
        """Apply *decide* to what is stored, while the row is locked.

        *decide* gets the broadcast and the time by the database clock; None from it changes nothing. *point*: the
        names of the failpoints of this write begin with it; empty: it has none. *trace_context*: W3C traceparent of
        the call, for the pass that serves it. Raises what *decide* raises, BroadcastNotFound, RequestIdReused,
        StoreUnavailable.
        """
        async with self._database.transaction(proves=True) as connection:
            if (earlier := await self._replayed(connection, request, broadcast_id)) is not None:
                return await self._read(connection, earlier)
            row = await connection.fetchrow(
                f"SELECT {BROADCAST_COLUMNS}, secrets, now() AS read_at FROM broadcast "  # noqa: S608 - a constant
                "WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE",
                broadcast_id,
            )
            if row is None:
                raise BroadcastNotFound(broadcast_id)
            stored, opened = self._opened(row)
            change = decide(stored, row["read_at"])
            if change is not None:
                if not opened and change.broadcast.destination_keys != stored.destination_keys:
                    # In a rotation another replica may have the key.
                    raise StoreUnavailable("this replica has no key for what is stored of the destinations")
                await self._write(connection, change, trace_context, keys=opened)
                await append(connection, broadcast_id, change.events, actor=Actor.CALLER, before=stored)
            if point:
                failpoint(f"{point}.before_commit")
        if point:
            failpoint(f"{point}.after_commit")
        if change is None:
            return stored
        due_at = row["read_at"] if change.wake else change.broadcast.due_at
        return replace(change.broadcast, update_time=row["read_at"], due_at=due_at)

    def _opened(self, row: Row) -> tuple[Broadcast, bool]:
        """With the keys of its destinations, and whether they could be opened: a stop needs none."""
        try:
            return self._rows.broadcast(row, row["secrets"]), True
        except CannotOpen:
            return self._rows.broadcast(row), False

    async def _write(self, connection: Connection, change: Change, trace_context: str | None, *, keys: bool) -> None:
        new = change.broadcast
        await connection.execute(
            _WRITE,
            new.id,
            msgspec.to_builtins(new.spec),
            new.labels,
            self._rows.seal_keys(new.id, new.destination_keys),
            new.generation,
            new.version,
            new.target,
            new.on_air,
            new.state,
            msgspec.to_builtins(new.status),
            new.end_reason,
            new.start_time,
            new.end_time,
            new.deleted,
            change.wake,
            lane_of(new.target, ready=new.ready_time is not None),
            trace_context,
            keys,
            change.requeue,
            new.due_at,
        )
        if change.wake:
            await connection.execute("SELECT pg_notify('broadcast_due', '')")

    async def _replayed(self, connection: Connection, request: Request, broadcast_id: str) -> str | None:
        """The id of the broadcast that an earlier request with this id was about. None: this is the first.

        A copy that arrives while the first is under way waits here for its commit. Raises RequestIdReused.
        """
        if not request.id:
            return None
        first = await connection.fetchval(
            "INSERT INTO request (request_id, method, digest, broadcast_id) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (request_id) DO NOTHING RETURNING true",
            request.id,
            request.method,
            request.digest,
            broadcast_id,
        )
        if first:
            return None
        row = await connection.fetchrow(
            "SELECT method, digest, broadcast_id FROM request WHERE request_id = $1", request.id
        )
        if row is None or row["method"] != request.method or row["digest"] != request.digest:
            raise RequestIdReused(request.id, method=request.method)
        return row["broadcast_id"]

    async def _read(self, connection: Connection, broadcast_id: str) -> Broadcast:
        row = await connection.fetchrow(
            f"SELECT {BROADCAST_COLUMNS} FROM broadcast WHERE id = $1",  # noqa: S608 - a constant
            broadcast_id,
        )
        if row is None:
            raise BroadcastNotFound(broadcast_id)
        return self._rows.broadcast(row)

    async def get(self, broadcast_id: str) -> Broadcast:
        """Without the stream keys of its destinations. Raises BroadcastNotFound, StoreUnavailable."""
        async with self._database.connection() as connection:
            broadcast = await self._read(connection, broadcast_id)
        if broadcast.deleted:
            raise BroadcastNotFound(broadcast_id)
        return broadcast

    async def list(
        self, filter: Filter, *, limit: int, before: tuple[datetime, str] | None = None
    ) -> tuple[Sequence[Broadcast], int]:
        """Newest first; and the revision of the change log that the answer is up to date with.

        *before*: create time and id of the last broadcast of the page before. Raises StoreUnavailable.
        """
        where: list[str] = ["NOT deleted"]
        values: list[Any] = []

        def bind(value: Any) -> str:
            values.append(value)
            return f"${len(values)}"

        if filter.ids:
            where.append(f"id = ANY({bind(list(filter.ids))})")
        if filter.states:
            where.append(f"state = ANY({bind([str(state) for state in filter.states])})")
        if filter.labels:
            where.append(f"labels @> {bind(dict(filter.labels))}")
        if filter.owner_id:
            where.append(f"spec ->> 'owner_id' = {bind(filter.owner_id)}")
        if filter.created_after is not None:
            where.append(f"create_time >= {bind(filter.created_after)}")
        if before is not None:
            where.append(f"(create_time, id) < ({bind(before[0])}, {bind(before[1])})")
        query = (
            f"SELECT {BROADCAST_COLUMNS} FROM broadcast WHERE {' AND '.join(where)} "  # noqa: S608 - values are bound
            f"ORDER BY create_time DESC, id DESC LIMIT {bind(limit)}"
        )
        # One snapshot for both, so a change that the page does not show has a higher revision.
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            revision = await connection.fetchval("SELECT revision FROM head")
            rows = await connection.fetch(query, *values)
        return [self._rows.broadcast(row) for row in rows], revision

    async def forget_requests(self, *, older_than: timedelta) -> int:
        """Delete request ids, AT_ONCE at most; a retry of one that is deleted is a new request. Answers how many were
        deleted. Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            return changed_rows(await connection.execute(_FORGET_REQUESTS, older_than, AT_ONCE))

    async def forget_deleted(self, *, older_than: timedelta) -> int:
        """Remove the rows of broadcasts that were deleted more than *older_than* ago, with all that hangs on them, some
        hundred at most. Answers how many. Raises StoreUnavailable.

        A broadcast stays while anything of it may be left at a provider. Its recordings stay at the provider, and so
        does its row while the sweeper might take a recording without an owner for an orphan.
        """
        async with self._database.connection() as connection:
            return await connection.fetchval(_FORGET_DELETED, older_than, _DELETED_AT_ONCE)
