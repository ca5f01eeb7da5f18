"""The reads and writes of a pass, in memory. As with Postgres, the domain decides what a record tells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import DeliveryPolicy, EndReason, Fallback, PassFault, ProviderTrouble, Target
from service.domain.cost.cap import Costs
from service.domain.cost.entries import entries_of
from service.domain.cost.idle import idle_entry, idle_since
from service.domain.cost.money import CostLevel
from service.domain.cost.prices import CostKind, Prices
from service.domain.delivery import Delivery
from service.domain.errors import LeaseLost, Overtaken
from service.domain.lifecycle import Event
from service.domain.measurements import Probe
from service.domain.observing.set_back import moved_back
from service.domain.observing.streams import taken_stream
from service.domain.pool import PoolPhase, Profile
from service.domain.provider import Provider
from service.domain.reasons import Actor, EventReason
from service.domain.reporting.record import Derive, tell, with_outcome
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource
from service.domain.situation import Availability, Situation
from service.store.leases import Claim
from tests.simulation.store.audience import watching
from tests.simulation.store.tables import Line, Row, Tables, Written, lane, transactions


@transactions
class Passes:
    def __init__(
        self,
        tables: Tables,
        line: Line,
        *,
        derive: Derive,
        storage: bool = False,
        signing: bool = False,
        prices: Prices | None = None,
    ) -> None:
        self._tables = tables
        self._line = line
        self._derive = derive
        self._storage = storage
        self._signing = signing
        self._costs = Costs(prices=prices or Prices())

    async def load(self, claim: Claim, lease: timedelta) -> Situation:
        read = asyncio.get_running_loop().time()
        await self._line.begin("load")
        row = self._held(claim)
        now = self._tables.now()
        row.lease_until = now + lease
        self._tables.put_resources(row, moved_back(row.sorted_resources(), now))
        heard = [
            (webhook.id, webhook.heard)
            for webhook in self._tables.webhooks
            if not webhook.applied and webhook.broadcast_id == claim.broadcast_id
        ]
        situation = Situation(
            broadcast=row.read(),
            resources=row.sorted_resources(),
            now=now,
            availability=self._availability(),
            costs=self._costs,
            watching=self._watching(row),
            read=read,
            probe=self._tables.probes.get(claim.broadcast_id, Probe()),
            heard=tuple(heard[:50]),
            unverified_since=row.unverified_since,
        )
        await self._line.commit("load")
        return situation

    async def intend(
        self, claim: Claim, resource: AnyResource, lease: timedelta, *, planned_for: Target | None = None
    ) -> None:
        await self._line.begin("intend")
        row = self._held(claim)
        if planned_for is not None and row.broadcast.target is not planned_for:
            raise Overtaken(claim.broadcast_id)
        self._tables.check_resources(claim.broadcast_id, [resource])
        until = self._tables.now() + lease
        row.lease_until = until if row.lease_until is None else max(row.lease_until, until)
        self._tables.put_resources(row, [resource])
        self._tables.written(
            Written(claim=claim, row=row, before=row.broadcast, after=row.broadcast, events=(), intended=resource)
        )
        await self._line.commit("intend")

    async def renew(self, claim: Claim, lease: timedelta) -> Target:
        await self._line.begin("renew")
        row = self._held(claim)
        until = self._tables.now() + lease
        row.lease_until = until if row.lease_until is None else max(row.lease_until, until)
        target = row.broadcast.target
        await self._line.commit("renew")
        return target

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
        read = asyncio.get_running_loop().time()
        await self._line.begin("record")
        row = self._held(claim)
        self._tables.check_resources(claim.broadcast_id, resources)
        stored = row.read()
        if fault_over:
            stored = replace(stored, fault=None)
        after = row.resources | {(resource.kind, resource.ordinal): resource for resource in resources}
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
            resources=tuple(after[key] for key in sorted(after)),
            now=self._tables.now(),
            availability=self._availability(),
            costs=self._costs,
            watching=self._watching(row),
            read=read,
        )
        broadcast, told = tell(stored, situation, events, self._derive)
        if told:
            self._tables.check_forward(stored, broadcast)
        self._tables.put_resources(row, resources)
        for entry in entries_of(stored, situation.resources, of=resources):
            row.ledger[entry.kind, entry.ref] = entry
        self._idle(row, situation)
        if verified:
            row.unverified_since = None
        if heard:
            for webhook in self._tables.webhooks:
                webhook.applied = webhook.applied or webhook.id in heard
        if told:
            row.broadcast = broadcast
            row.lane = lane(row)
            if broadcast.state.over and broadcast.status.next_attempt_time is None:
                # A wake from before its end is of no use any more.
                row.due_at = None
            self._tables.append(row, told, actor=actor, before=stored)
        self._tables.written(
            Written(claim=claim, row=row, before=stored, after=row.broadcast, events=told, heard=tuple(heard))
        )
        await self._line.commit("record")
        return replace(situation, broadcast=broadcast)

    async def take_pooled(self, claim: Claim, ordinal: int, profile: Profile) -> bool:
        read = asyncio.get_running_loop().time()
        await self._line.begin("take_pooled")
        row = self._held(claim)
        stored, tables, now = row.read(), self._tables, self._tables.now()
        if stored.target is not Target.LIVE:
            raise Overtaken(claim.broadcast_id)
        idle = sorted(
            (each.intended_at, entry_id)
            for entry_id, each in tables.pool.items()
            if each.profile == profile.text and each.phase is PoolPhase.PRESENT
        )
        if not idle:
            return False
        pooled = tables.pool[idle[0][1]]
        stream = taken_stream(ordinal, pooled.external_id, pooled.playback_id, pooled.key, now)
        tables.check_resources(claim.broadcast_id, [stream])
        after = row.resources | {(stream.kind, stream.ordinal): stream}
        situation = Situation(
            broadcast=stored,
            resources=tuple(after[key] for key in sorted(after)),
            now=now,
            availability=self._availability(),
            costs=self._costs,
            watching=self._watching(row),
            read=read,
        )
        event = Event(reason=EventReason.STREAM_TAKEN, message=stream.external_id)
        broadcast, told = tell(stored, situation, [event], self._derive)
        del tables.pool[idle[0][1]]
        tables.taken(stream.external_id, claim.broadcast_id)
        tables.put_resources(row, [stream])
        row.broadcast = broadcast
        row.lane = lane(row)
        tables.append(row, told, actor=Actor.RECONCILER, before=stored)
        tables.written(Written(claim=claim, row=row, before=stored, after=row.broadcast, events=told))
        await self._line.commit("take_pooled")
        return True

    async def release(self, claim: Claim, due: datetime | None, *, turn: datetime | None = None) -> bool:
        await self._line.begin("release")
        row = self._held(claim)
        row.lease_until = row.lease_owner = None
        row.due_at = self._earlier(row, due)
        row.turn_at = turn
        if turn is not None:
            row.trace_context = row.trace_context or claim.trace_context
        due_now = row.due_at is not None and row.due_at <= self._tables.now()
        await self._line.commit("release")
        return due_now

    async def give_up(self, claim: Claim, after: timedelta, *, code: str = "", message: str = "") -> None:
        await self._line.begin("give_up")
        row = self._tables.held(claim)
        if row is not None:
            now, stored, fault = self._tables.now(), row.read(), row.broadcast.fault
            count = fault.count if fault is not None else 0
            new = fault is None or fault.code != code
            since = now if fault is None or new else fault.since
            row.lease_until = now + after * min(2**count, 4)
            fault = PassFault(code=code, message=message, since=since, count=count + 1)
            row.broadcast = replace(row.broadcast, fault=fault)
            if new:
                event = Event(reason=EventReason.PASS_FAILED, message=f"{code}: {message}")
                self._tables.append(row, [event], actor=Actor.RECONCILER, before=stored)
        await self._line.commit("give_up")

    def _idle(self, row: Row, situation: Situation) -> None:
        since = idle_since(situation.broadcast, ResourceSet(situation.resources))
        if since is not None:
            entry = idle_entry(situation.broadcast, since)
            row.ledger[entry.kind, entry.ref] = entry
        for key, entry in row.ledger.items():
            if entry.kind is CostKind.IDLE and entry.to_time is None and entry.from_time != since:
                row.ledger[key] = replace(entry, to_time=max(entry.from_time, situation.now))

    def _availability(self) -> Availability:
        answering = {name: looked.answering_since for name, looked in self._tables.looked.items()}
        return Availability(
            outages=self._tables.outages(), answering_since=answering, storage=self._storage, signing=self._signing
        )

    def _watching(self, row: Row) -> Watching:
        on_demand = row.broadcast.spec.delivery_policy is DeliveryPolicy.ON_DEMAND
        return watching(self._tables, row.broadcast.id) if on_demand else NOBODY_KNOWS

    @staticmethod
    def _earlier(row: Row, due: datetime | None) -> datetime | None:
        return min((each for each in (row.due_at, due) if each is not None), default=None)

    def _held(self, claim: Claim) -> Row:
        row = self._tables.held(claim)
        if row is None:
            raise LeaseLost(claim.broadcast_id)
        return row
