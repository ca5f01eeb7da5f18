"""Viewers of one broadcast: they come and go, and give signs to whichever replica answers.

What they really do is the truth that deliveries are checked against (I-22, I-23). A crowd draws from a generator of its
own, so a world without viewers is the same as if there were none of this.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from service.domain.audience.rhythm import RECOVERY_S, keep_alive_s
from service.domain.broadcast import Target
from service.domain.delivery import DeliveryReason
from service.domain.planning.steps import SetDelivery, StopEgress
from service.domain.resources import Phase

if TYPE_CHECKING:
    from tests.simulation.checks.plan_rules import Planned
    from tests.simulation.world import World

COMES_S = 40.0
"""A viewer counts as live so long after its first sign was taken: the replica may die with it, and the next one comes
after an interval and a retry."""
LEAVES_S = 300.0
"""From the last viewer of calm to the end of the egress: signs that count, the minimum run, a gap in the counting, a
drain that is waited for."""


class Crowd:
    def __init__(self, world: World, broadcast_id: str, *, seed: int) -> None:
        self._world = world
        self._loop = world.env.loop
        self._id = broadcast_id
        self.rng = Random(f"viewers of {broadcast_id}, {seed}")
        self._first: dict[str, float] = {}
        """By viewer who watches: when its first sign was taken."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: list[tuple[float, float]] = []
        self.left_at = 0.0
        """When the last viewer left."""
        self._before = world.shared.planned
        world.shared.planned = self._planned

    @property
    def watches(self) -> bool:
        return bool(self._tasks)

    def comes(self, viewer: str, for_s: float) -> asyncio.Task[None]:
        task = self._loop.create_task(self._watch(viewer, for_s), name=f"viewer {viewer}")
        self._tasks.add(task)
        task.add_done_callback(self._left)
        return task

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.left_at = self._loop.time()

    def all_leave(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def come_and_go(self) -> None:
        """Until it is cancelled: nobody for a while, then one or more, who flap, stay or look in."""
        n = 0
        while True:
            await asyncio.sleep(self.rng.choice((1, 20, 70, 150)) * self.rng.uniform(0.5, 1.5))
            for _ in range(self.rng.choice((1, 1, 2, 5))):
                n += 1
                self.comes(f"{n}", self.rng.choice((3, 30, 90, 240)) * self.rng.uniform(0.5, 1.5))

    async def _watch(self, viewer: str, for_s: float) -> None:
        ends, every_s = self._loop.time() + for_s, keep_alive_s(self._world.shared.timing)
        try:
            while (left := ends - self._loop.time()) > 0:
                if self._sign(viewer):
                    self._first.setdefault(viewer, self._loop.time())
                    await asyncio.sleep(min(left, every_s * self.rng.uniform(0.9, 1.0)))
                else:
                    await asyncio.sleep(min(left, self.rng.uniform(0.5, RECOVERY_S / 2)))
        finally:
            self._first.pop(viewer, None)

    def _sign(self, viewer: str) -> bool:
        """JoinBroadcast or KeepAlive. Answers whether it was answered with success: no replica answers one while the
        database is away, for it could not say how the broadcast is watched.
        """
        shared = self._world.shared
        replica = self.rng.choice(self._world.replicas) if self._world.replicas else None
        away = shared.env.faults.enabled and self._loop.time() < shared.database_away_until
        if replica is None or replica.halted or away or replica.collector is None:
            return False
        replica.collector.saw(self._id, viewer)
        return True

    def _planned(self, planned: Planned) -> None:
        """I-22, at every plan of every replica."""
        self._before(planned)
        broadcast = planned.broadcast
        if broadcast.id != self._id or broadcast.target is not Target.LIVE:
            return
        for step in planned.plan.steps:
            stops = isinstance(step, StopEgress) and step.why == "nobody watches"
            if isinstance(step, SetDelivery):
                stops = broadcast.delivery.wanted and not step.delivery.wanted
                self._world.invariants.seen["stopped for want of viewers"] += stops
                self._world.invariants.seen["started for a viewer"] += step.delivery.wanted
                held = step.delivery.decided.reason is DeliveryReason.HOLD
                self._world.invariants.seen["held for want of counts"] += held
            watched_s = max((self._loop.time() - first for first in self._first.values()), default=0.0)
            if stops and watched_s > COMES_S:
                self._world.invariants.violate(
                    "I-22", f"{self._id}: {type(step).__name__} under a viewer of {watched_s:.0f} s"
                )

    def check_idle(self) -> None:
        """I-23, in calm."""
        row = self._world.tables.rows.get(self._id)
        if row is None:
            # The commit that created it was lost in a failover.
            return
        reason = row.broadcast.delivery.decided.reason
        idle_s = self._loop.time() - self.left_at
        if self.watches or idle_s < LEAVES_S or reason in (DeliveryReason.FLAPPING, DeliveryReason.RECORDING):
            return
        # One that answers no stop runs on, and is stopped ever again (I-12).
        kept = {each.external_id for each in row.resources.values() if each.phase is Phase.PRESENT}
        for egress in self._world.shared.livekit.ours:
            if egress.runs and egress.room.name == self._id and egress.id in kept and not egress.file:
                self._world.invariants.violate("I-23", f"{self._id}: {egress.id} runs {idle_s:.0f} s without a viewer")
