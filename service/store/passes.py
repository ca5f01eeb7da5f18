"""What a pass reads and writes. Every write carries the fence; where it is not the present one, LeaseLost is raised
and the pass stops without cleaning up, because nothing of it is ours any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from service.domain.broadcast import Broadcast, EndReason, Fallback, ProviderTrouble, Target
from service.domain.errors import LeaseLost, Overtaken
from service.domain.lifecycle import Event
from service.domain.reasons import Actor
from service.domain.reporting.record import Derive, tell, with_outcome
from service.domain.resources import AnyResource
from service.domain.situation import Availability, Situation
from service.failpoints import failpoint
from service.store.broadcasts import lane_of
from service.store.changes import append
from service.store.database import Database
from service.store.leases import Claim
from service.store.rows import (
    BROADCAST_COLUMNS,
    HEARD,
    OUTAGES,
    PLAYED,
    RESOURCE_COLUMNS,
    Row,
    Rows,
    availability_of,
    heard_of,
    played_of,
)

if TYPE_CHECKING:
    from service.store.database import Connection

_RENEW = f"""
UPDATE broadcast SET lease_until = now() + $3::interval WHERE id = $1 AND fence = $2
RETURNING {BROADCAST_COLUMNS}, secrets, now() AS read_at, {OUTAGES}, {HEARD}, {PLAYED}
"""  # noqa: S608 - a constant
_LOCK = f"""
SELECT {BROADCAST_COLUMNS}, secrets, now() AS read_at, {OUTAGES} FROM broadcast
WHERE id = $1 AND fence = $2 FOR NO KEY UPDATE
"""  # noqa: S608 - a constant
_RESOURCES = f"SELECT {RESOURCE_COLUMNS} FROM resource WHERE broadcast_id = $1 ORDER BY kind, ordinal"  # noqa: S608
_UPSERT = f"""
INSERT INTO resource (broadcast_id, {RESOURCE_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (broadcast_id, kind, ordinal) DO UPDATE SET
  phase = excluded.phase, external_id = excluded.external_id, intended_at = excluded.intended_at,
  observed_at = excluded.observed_at, changed_at = excluded.changed_at, failures = excluded.failures,
  retry_at = excluded.retry_at, acked = excluded.acked, refused = excluded.refused, detail = excluded.detail,
  secret = excluded.secret
"""  # noqa: S608 - a constant


class Passes:
    def __init__(self, database: Database, rows: Rows, *, derive: Derive, storage: bool = False) -> None:
        """*derive*: what callers are told of a situation; part of every write, so it is never behind. *storage*:
        whether there is one for local recordings.
        """
        self._database = database
        self._rows = rows
        self._derive = derive
        self._storage = storage

    async def load(self, claim: Claim, lease: timedelta) -> Situation:
        """Read, and renew the lease to *lease* from now."""
        async with self._database.transaction() as connection:
            read = asyncio.get_running_loop().time()
            row = await connection.fetchrow(_RENEW, claim.broadcast_id, claim.fence, lease)
            if row is None:
                raise LeaseLost(claim.broadcast_id)
            broadcast = self._rows.broadcast(row, row["secrets"])
            return Situation(
                broadcast=broadcast,
                resources=await self._resources(connection, claim.broadcast_id),
                now=row["read_at"],
                availability=self._availability(row),
                read=read,
                probe=played_of(row),
                heard=heard_of(row),
            )

    async def intend(
        self, claim: Claim, resource: AnyResource, lease: timedelta, *, planned_for: Target | None = None
    ) -> None:
        """Commit that a call is about to be made, and renew the lease to cover it.

        *planned_for*: raises Overtaken where the callers want something else by now.
        """
        async with self._database.transaction() as connection:
            target = await connection.fetchval(
                "UPDATE broadcast SET lease_until = greatest(lease_until, now() + $3::interval) "
                "WHERE id = $1 AND fence = $2 RETURNING target",
                claim.broadcast_id,
                claim.fence,
                lease,
            )
            if target is None:
                raise LeaseLost(claim.broadcast_id)
            if planned_for is not None and target != planned_for:
                raise Overtaken(claim.broadcast_id)
            await self._upsert(connection, claim.broadcast_id, resource)

    async def record(
        self,
        claim: Claim,
        resources: Sequence[AnyResource] = (),
        *,
        events: Sequence[Event] = (),
        trouble: ProviderTrouble | None = None,
        recovered: str = "",
        end: EndReason | None = None,
        fallback: Fallback | None = None,
        heard: Sequence[int] = (),
        actor: Actor = Actor.RECONCILER,
    ) -> Situation:
        """Store what came of a step or a look, and what callers are told now, in one transaction.

        *trouble* becomes `last_error`; *recovered* is the provider whose trouble is over. *end* sets the target.
        *heard* are the webhooks that were taken into account.
        """
        async with self._database.transaction() as connection:
            read = asyncio.get_running_loop().time()
            row = await connection.fetchrow(_LOCK, claim.broadcast_id, claim.fence)
            if row is None:
                raise LeaseLost(claim.broadcast_id)
            stored = self._rows.broadcast(row, row["secrets"])
            for resource in resources:
                await self._upsert(connection, claim.broadcast_id, resource)
            situation = Situation(
                broadcast=with_outcome(stored, trouble=trouble, recovered=recovered, end=end, fallback=fallback),
                resources=await self._resources(connection, claim.broadcast_id),
                now=row["read_at"],
                availability=self._availability(row),
                read=read,
            )
            if heard:
                await connection.execute("UPDATE webhook SET apply_time = now() WHERE id = ANY($1)", list(heard))
            situation = await self._tell(connection, stored, situation, events, actor)
            failpoint("status.before_commit")
        failpoint("status.after_commit")
        return situation

    async def release(self, claim: Claim, due: datetime | None, *, turn: datetime | None = None) -> bool:
        """Give the lease back. A wake that came meanwhile is in due_at already, and the earlier of the two holds.

        *turn*: given by a budget, to be shown when it is asked again; the next pass goes on with the same call. Answers
        whether it is due again now: nobody was told of a wake that came while nobody could claim.
        """
        async with self._database.connection() as connection:
            due_now = await connection.fetchval(
                "UPDATE broadcast SET lease_until = NULL, lease_owner = NULL, due_at = least(due_at, $3), "
                "turn_at = $4, trace_context = coalesce(trace_context, $5) "
                "WHERE id = $1 AND fence = $2 RETURNING coalesce(due_at <= now(), false)",
                claim.broadcast_id,
                claim.fence,
                due,
                turn,
                None if turn is None else claim.trace_context,
            )
        if due_now is None:
            raise LeaseLost(claim.broadcast_id)
        return due_now

    async def give_up(self, claim: Claim, after: timedelta) -> None:
        """A pass that failed for a reason of our own: the next may try after *after*. Said while another failure is
        handled, so it raises no LeaseLost.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE broadcast SET lease_until = now() + $3::interval WHERE id = $1 AND fence = $2",
                claim.broadcast_id,
                claim.fence,
                after,
            )

    async def _tell(
        self,
        connection: Connection,
        stored: Broadcast,
        situation: Situation,
        events: Sequence[Event],
        actor: Actor,
    ) -> Situation:
        broadcast, told = tell(stored, situation, events, self._derive)
        if not told:
            return replace(situation, broadcast=broadcast)
        await connection.execute(
            "UPDATE broadcast SET target = $2, end_reason = $3, state = $4, status = $5, ready_time = $6, "
            "live_time = $7, end_time = $8, lane = $9, fallback = $11, update_time = now(), "
            # What woke it on the way to its end wakes nothing any more.
            "due_at = CASE WHEN $10 THEN NULL ELSE due_at END WHERE id = $1",
            broadcast.id,
            broadcast.target,
            broadcast.end_reason,
            broadcast.state,
            msgspec.to_builtins(broadcast.status),
            broadcast.ready_time,
            broadcast.live_time,
            broadcast.end_time,
            lane_of(broadcast.target, ready=broadcast.ready_time is not None),
            broadcast.state.over and broadcast.status.next_attempt_time is None,
            msgspec.to_builtins(broadcast.fallback, builtin_types=(datetime,)),
        )
        await append(connection, broadcast.id, told, actor=actor, before=stored)
        return replace(situation, broadcast=broadcast)

    def _availability(self, row: Row) -> Availability:
        return availability_of(row, storage=self._storage)

    async def _resources(self, connection: Connection, broadcast_id: str) -> tuple[AnyResource, ...]:
        rows = await connection.fetch(_RESOURCES, broadcast_id)
        return tuple(self._rows.resource(broadcast_id, row) for row in rows)

    async def _upsert(self, connection: Connection, broadcast_id: str, resource: AnyResource) -> None:
        await connection.execute(_UPSERT, broadcast_id, *self._rows.resource_values(broadcast_id, resource))
