"""What a pass reads and writes. Every write names the fence of its claim.

A row has one fence, and every claim adds one to it. A write whose fence is not the present one finds no row and raises
LeaseLost: another replica has claimed the broadcast since. The pass then stops without cleaning up, because whatever it
would undo may be the other's by now. So at most one pass at a time has an effect, however late a paused replica wakes.
A pass does not go on either on a server that may have lost commits, see `history`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from service.domain.broadcast import Broadcast, DeliveryPolicy, EndReason, Fallback, ProviderTrouble, Target
from service.domain.cost.entries import entries_of
from service.domain.cost.idle import idle_since
from service.domain.cost.money import CostLevel
from service.domain.cost.prices import Prices
from service.domain.delivery import UNDECIDED, Delivery
from service.domain.errors import LeaseLost, Overtaken
from service.domain.lifecycle import Event
from service.domain.observing.set_back import moved_back
from service.domain.observing.streams import taken_stream
from service.domain.provider import Provider
from service.domain.reasons import Actor, EventReason
from service.domain.reporting.record import Derive, tell, with_outcome
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource
from service.domain.situation import Availability, Situation
from service.failpoints import failpoint
from service.store.changes import append
from service.store.database import Database
from service.store.history import SETTLED
from service.store.leases import Claim, lane_of
from service.store.ledger import write_entries, write_idle
from service.store.pool import take
from service.store.rows import (
    BROADCAST_COLUMNS,
    DELIVERED,
    HEARD,
    OUTAGES,
    PLAYED,
    RESOURCE_COLUMNS,
    WATCHED,
    Row,
    Rows,
    availability_of,
    costs_of,
    heard_of,
    played_of,
    watching_of,
)

if TYPE_CHECKING:
    from service.domain.pool import Profile
    from service.store.database import Connection

_RENEW = f"""
UPDATE broadcast SET lease_until = now() + $3::interval WHERE id = $1 AND fence = $2 AND {SETTLED}
RETURNING {BROADCAST_COLUMNS}, secrets, unverified_since, now() AS read_at, {OUTAGES}, {HEARD}, {PLAYED}, {WATCHED},
  {DELIVERED}
"""  # noqa: S608 - a constant
_LOCK = f"""
SELECT {BROADCAST_COLUMNS}, secrets, now() AS read_at, {OUTAGES}, {WATCHED}, {DELIVERED} FROM broadcast
WHERE id = $1 AND fence = $2 AND {SETTLED} FOR NO KEY UPDATE
"""  # noqa: S608 - a constant
_HOLD = f"""
UPDATE broadcast SET lease_until = greatest(lease_until, now() + $3::interval)
WHERE id = $1 AND fence = $2 AND {SETTLED} RETURNING target
"""  # noqa: S608 - a constant
_RESOURCES = f"SELECT {RESOURCE_COLUMNS} FROM resource WHERE broadcast_id = $1 ORDER BY kind, ordinal"  # noqa: S608
_UPSERT = f"""
INSERT INTO resource (broadcast_id, {RESOURCE_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (broadcast_id, kind, ordinal) DO UPDATE SET
  phase = excluded.phase, external_id = excluded.external_id, intended_at = excluded.intended_at,
  observed_at = excluded.observed_at, changed_at = excluded.changed_at, failures = excluded.failures,
  retry_at = excluded.retry_at, acked = excluded.acked, refused = excluded.refused, detail = excluded.detail,
  secret = coalesce(excluded.secret, resource.secret)
"""  # noqa: S608 - a constant


# The longer it fails, the rarer it is tried: after four times the wait at most.
_GIVE_UP = f"""
WITH before AS (SELECT fault FROM broadcast WHERE id = $1)
UPDATE broadcast SET
  lease_until = now() + $3::interval * least(power(2, coalesce((before.fault ->> 'count')::int, 0)), 4),
  fault = jsonb_build_object(
    'code', $4::text, 'message', $5::text, 'count', coalesce((before.fault ->> 'count')::int, 0) + 1,
    'since', coalesce(CASE WHEN before.fault ->> 'code' = $4 THEN before.fault -> 'since' END, to_jsonb(now())))
FROM before WHERE id = $1 AND fence = $2
RETURNING {BROADCAST_COLUMNS.replace("fault", "broadcast.fault")}, before.fault ->> 'code' IS DISTINCT FROM $4 AS new
"""  # noqa: S608 - a constant


class Passes:
    def __init__(
        self,
        database: Database,
        rows: Rows,
        *,
        derive: Derive,
        storage: bool = False,
        signing: bool = False,
        prices: Prices | None = None,
    ) -> None:
        """*derive*: makes the status that callers are told; every write stores it, so it is never behind. *storage*:
        whether a storage for local recordings is configured. *signing*: whether a key for playback tokens is.
        *prices*: of the cost that a cap is compared with.
        """
        self._database = database
        self._rows = rows
        self._derive = derive
        self._storage = storage
        self._signing = signing
        self._prices = prices or Prices()

    async def load(self, claim: Claim, lease: timedelta) -> Situation:
        """Read everything that a pass decides on, and renew the lease to *lease* from now. After the database's clock
        was set back, times of resources that lie ahead of it are moved.

        Raises LeaseLost, StoreUnavailable.
        """
        async with self._database.transaction() as connection:
            read = asyncio.get_running_loop().time()
            row = await connection.fetchrow(_RENEW, claim.broadcast_id, claim.fence, lease)
            if row is None:
                raise LeaseLost(claim.broadcast_id)
            broadcast = self._opened(row)
            resources = await self._resources(connection, broadcast)
            if moved := moved_back(resources, row["read_at"]):
                for each in moved:
                    await self._upsert(connection, claim.broadcast_id, each)
                resources = await self._resources(connection, broadcast)
            return Situation(
                broadcast=broadcast,
                resources=resources,
                now=row["read_at"],
                availability=self._availability(row),
                costs=costs_of(row, self._prices),
                read=read,
                probe=played_of(row),
                watching=watching_of(row),
                heard=heard_of(row),
                unverified_since=row["unverified_since"],
            )

    async def intend(
        self, claim: Claim, resource: AnyResource, lease: timedelta, *, planned_for: Target | None = None
    ) -> None:
        """Commit that a call is about to be made, and renew the lease to cover it.

        After a crash the next pass finds *resource* and looks for what the call may have made. *planned_for*: the
        target that the call was planned for; Overtaken is raised if callers want another one by now. Raises LeaseLost,
        StoreUnavailable.
        """
        async with self._database.transaction(proves=True) as connection:
            target = await self._renew(connection, claim, lease)
            if planned_for is not None and target != planned_for:
                raise Overtaken(claim.broadcast_id)
            await self._upsert(connection, claim.broadcast_id, resource)

    async def renew(self, claim: Claim, lease: timedelta) -> Target:
        """Renew the lease to *lease* from now, in the middle of a call that takes long. Answers the target that the
        callers want now. Raises LeaseLost, StoreUnavailable.
        """
        async with self._database.connection() as connection:
            return await self._renew(connection, claim, lease)

    async def record(
        self,
        claim: Claim,
        resources: Sequence[AnyResource] = (),
        *,
        events: Sequence[Event] = (),
        trouble: ProviderTrouble | None = None,
        recovered: Provider | None = None,
        end: EndReason | None = None,
        fallback: Fallback | None = None,
        cost_level: CostLevel | None = None,
        delivery: Delivery | None = None,
        begun: datetime | None = None,
        heard: Sequence[int] = (),
        verified: bool = False,
        fault_over: bool = False,
        actor: Actor = Actor.RECONCILER,
    ) -> Situation:
        """Store what came of a step or a look, and the status that follows from it, in one transaction.

        The entries of the ledger that follow from *resources* are written with them. *trouble* becomes `last_error`;
        *recovered* is the provider whose trouble is over. *end* sets the target to ENDED, *fallback* and *delivery* are
        those from now on, *cost_level* is what was told of the cost, *begun* is the scheduled time that is near, which
        sets the target to LIVE (see `with_outcome`). *heard*: ids of the webhooks that were taken into account, which
        are marked as applied. *verified*: the rows are up to date with the providers again, see
        `Situation.unverified_since`. *fault_over*: the pass ended well, and the one before did not. Raises LeaseLost,
        StoreUnavailable.
        """
        async with self._database.transaction(proves=True) as connection:
            read = asyncio.get_running_loop().time()
            row = await connection.fetchrow(_LOCK, claim.broadcast_id, claim.fence)
            if row is None:
                raise LeaseLost(claim.broadcast_id)
            stored = self._opened(row)
            for resource in resources:
                await self._upsert(connection, claim.broadcast_id, resource)
            situation = Situation(
                broadcast=with_outcome(
                    stored,
                    trouble=trouble,
                    recovered=recovered,
                    end=end,
                    fallback=fallback,
                    delivery=delivery,
                    cost_level=cost_level,
                    begun=begun,
                ),
                resources=await self._resources(connection, stored),
                now=row["read_at"],
                availability=self._availability(row),
                costs=costs_of(row, self._prices),
                read=read,
                watching=watching_of(row),
            )
            if written := entries_of(stored, situation.resources, of=resources):
                await write_entries(connection, stored, written)
            if stored.spec.delivery_policy is DeliveryPolicy.ON_DEMAND or stored.delivery != UNDECIDED:
                since = idle_since(situation.broadcast, ResourceSet(situation.resources))
                await write_idle(connection, situation.broadcast, since)
            if heard:
                await connection.execute("UPDATE webhook SET apply_time = now() WHERE id = ANY($1)", list(heard))
            if verified:
                await connection.execute("UPDATE broadcast SET unverified_since = NULL WHERE id = $1", stored.id)
            if fault_over:
                await connection.execute("UPDATE broadcast SET fault = NULL WHERE id = $1", stored.id)
            situation = await self._tell(connection, stored, situation, events, actor)
            failpoint("status.before_commit")
        failpoint("status.after_commit")
        return situation

    async def take_pooled(self, claim: Claim, ordinal: int, profile: Profile) -> bool:
        """Make an idle live stream of *profile* the broadcast's live stream *ordinal*, in one transaction: no other
        broadcast can take it. Answers whether there was one. Raises Overtaken if callers do not want the broadcast live
        any more, LeaseLost, StoreUnavailable.
        """
        async with self._database.transaction() as connection:
            read = asyncio.get_running_loop().time()
            row = await connection.fetchrow(_LOCK, claim.broadcast_id, claim.fence)
            if row is None:
                raise LeaseLost(claim.broadcast_id)
            stored, now = self._opened(row), row["read_at"]
            if stored.target is not Target.LIVE:
                raise Overtaken(claim.broadcast_id)
            pooled = await take(connection, profile)
            key = None if pooled is None else self._rows.pooled_key(pooled)
            if pooled is None or key is None:
                return False
            stream = taken_stream(ordinal, pooled["external_id"], pooled["playback_id"], key, now)
            await self._upsert(connection, claim.broadcast_id, stream)
            situation = Situation(
                broadcast=stored,
                resources=await self._resources(connection, stored),
                now=now,
                availability=self._availability(row),
                costs=costs_of(row, self._prices),
                read=read,
                watching=watching_of(row),
            )
            event = Event(reason=EventReason.STREAM_TAKEN, message=stream.external_id)
            await self._tell(connection, stored, situation, [event], Actor.RECONCILER)
        return True

    async def release(self, claim: Claim, due: datetime | None, *, turn: datetime | None = None) -> bool:
        """Give the lease back.

        *due*: when the next pass should run, by the database clock; None: none is needed. A wake that came during the
        pass is in `due_at` already, and the earlier of the two holds. *turn*: the turn that a budget gave, kept for the
        next pass, which asks for the same call. Answers whether the broadcast is due again now: a wake during the pass
        sent no notification. Raises LeaseLost, StoreUnavailable.
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

    async def give_up(self, claim: Claim, after: timedelta, *, code: str = "", message: str = "") -> None:
        """End a pass that failed by a fault of ours, tell it, and let the next one try when *after* has passed, or up
        to four times as much where it failed before. *code*, *message*: see `PassFault`.

        Runs inside an `except`, so a lost lease is ignored here instead of replacing the first error. Raises
        StoreUnavailable.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_GIVE_UP, claim.broadcast_id, claim.fence, after, code, message)
            if row is not None and row["new"]:
                event = Event(reason=EventReason.PASS_FAILED, message=f"{code}: {message}")
                before = self._rows.broadcast(row)
                await append(connection, claim.broadcast_id, [event], actor=Actor.RECONCILER, before=before)

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
            "live_time = $7, end_time = $8, lane = $9, fallback = $11, delivery = $12, cost_level = $13, "
            "start_time = $14, update_time = now(), "
            # A wake that came before the end would only claim a broadcast at rest.
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
            msgspec.to_builtins(broadcast.delivery, builtin_types=(datetime,)),
            broadcast.cost_level,
            broadcast.start_time,
        )
        await append(connection, broadcast.id, told, actor=actor, before=stored)
        return replace(situation, broadcast=broadcast)

    def _availability(self, row: Row) -> Availability:
        return availability_of(row, storage=self._storage, signing=self._signing)

    def _opened(self, row: Row) -> Broadcast:
        """With the keys of its destinations, unless it is to end: for that none is needed. Raises CannotOpen."""
        return self._rows.broadcast(row, None if row["target"] == Target.ENDED else row["secrets"])

    async def _resources(self, connection: Connection, broadcast: Broadcast) -> tuple[AnyResource, ...]:
        rows = await connection.fetch(_RESOURCES, broadcast.id)
        needed = broadcast.target is not Target.ENDED
        return tuple(self._rows.resource(broadcast.id, row, needs_secret=needed) for row in rows)

    @staticmethod
    async def _renew(connection: Connection, claim: Claim, lease: timedelta) -> Target:
        target = await connection.fetchval(_HOLD, claim.broadcast_id, claim.fence, lease)
        if target is None:
            raise LeaseLost(claim.broadcast_id)
        return Target(target)

    async def _upsert(self, connection: Connection, broadcast_id: str, resource: AnyResource) -> None:
        await connection.execute(_UPSERT, broadcast_id, *self._rows.resource_values(broadcast_id, resource))
