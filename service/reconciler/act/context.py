"""What every step of a pass has in common: its claim, its situation, and the writes that carry the fence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from service.domain.broadcast import seconds
from service.domain.errors import LeaseLost, Overtaken, StoreUnavailable
from service.domain.planning.common import queued_s
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Phase, Room, Stream
from service.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from service.domain.broadcast import Broadcast, EndReason, Fallback, ProviderTrouble
    from service.domain.cost.money import CostLevel
    from service.domain.delivery import Delivery
    from service.domain.lifecycle import Event
    from service.domain.provider import Provider
    from service.domain.situation import Situation
    from service.domain.timing import Timing
    from service.reconciler.act.requests import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes


_T = TypeVar("_T")
_ASKED_EVERY_S = 0.5
"""During a call that may last long: so soon after it a stop is noticed."""


@dataclass(frozen=True, kw_only=True)
class PassContext:
    """One situation of one claim, and what its steps need. Every write goes through it and carries the claim's fence,
    so after another replica took over nothing more is written: LeaseLost is raised instead.
    """

    claim: Claim
    situation: Situation
    passes: Passes
    providers: Providers
    timing: Timing
    lease: timedelta
    """How long the claim lasts from each intent on."""
    turn: datetime | None = None
    """The turn at a budget that an earlier step of this pass was given. None: that of the pass before, in the row."""

    @property
    def broadcast(self) -> Broadcast:
        return self.situation.broadcast

    @cached_property
    def resources(self) -> ResourceSet:
        return ResourceSet(self.situation.resources)

    def now(self) -> datetime:
        """The database's time: that of the situation, moved on by the event loop's clock since it was read. So a
        result is as old as the end of its call.

        Counted from the read: looks may have taken long since, and an egress that seems older than it is would be
        missed in a list that cannot show it yet.
        """
        return self.situation.now + seconds(asyncio.get_running_loop().time() - self.situation.read)

    def queued_s(self, before: Room | Stream) -> float:
        """Seconds that the creates up to that of *before*, and the one that is made now, waited in the service."""
        situation = self.situation
        return queued_s(before, situation.broadcast, self.now(), self.timing, situation.availability)

    async def intend(self, resource: AnyResource, point: str, *, creates: bool = False) -> None:
        """Commit the intent, and check the clock a last time before the call.

        *creates*: a stop that was committed since the plan was made must prevent the call, as it prevents every create.
        Raises Overtaken in that case. Raises LeaseLost where this process stood still for too long: another replica may
        have looked, so the call must not be made any more.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        planned_for = self.broadcast.target if creates or resource.phase is Phase.INTENDED else None
        await self.passes.intend(self.claim, resource, self.lease, planned_for=planned_for)
        failpoint(f"{point}.after_intent")
        if loop.time() - began > self.lease.total_seconds() / 2:
            raise LeaseLost(self.claim.broadcast_id)
        failpoint(f"{point}.before_call")

    async def while_wanted(self, call: Coroutine[Any, Any, _T]) -> _T:
        """The answer of *call*, which may take longer than the lease: the lease is renewed meanwhile. The call is cut
        off where callers change the target, which raises Overtaken unless it was answered in that moment.

        Raises LeaseLost, and StoreUnavailable where the lease could not be renewed in time.
        """
        loop, planned_for = asyncio.get_running_loop(), self.broadcast.target
        task = loop.create_task(call)
        held_until = loop.time() + self.lease.total_seconds() / 2
        every_s = min(_ASKED_EVERY_S, self.lease.total_seconds() / 4)
        try:
            while not (await asyncio.wait({task}, timeout=every_s))[0]:
                asked = loop.time()
                try:
                    target = await self.passes.renew(self.claim, self.lease)
                except StoreUnavailable:
                    if loop.time() >= held_until:
                        raise
                    continue
                held_until = asked + self.lease.total_seconds() / 2
                if target is not planned_for:
                    break
        finally:
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            raise Overtaken(self.claim.broadcast_id)
        return task.result()

    async def record(
        self,
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
    ) -> None:
        """`Passes.record` of this claim. A *trouble* with our credentials is noted for this replica."""
        if trouble is not None:
            self.providers.refusals.note(trouble.provider, trouble.outcome)
        await self.passes.record(
            self.claim,
            resources,
            events=events,
            trouble=trouble,
            recovered=recovered,
            end=end,
            fallback=fallback,
            cost_level=cost_level,
            delivery=delivery,
            begun=begun,
        )
