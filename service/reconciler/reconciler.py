"""One pass over one broadcast: look, plan, act, until there is nothing to do now; then give the lease back.

Level-triggered: a pass knows nothing of what woke it, and everything it needs is in the rows. A pass that is cut off
anywhere leaves rows from which the next one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.broadcast import State, Status, Target, seconds
from service.domain.errors import LeaseLost, StoreUnavailable
from service.domain.planning.plan import plan
from service.domain.planning.what_to_observe import to_observe
from service.domain.reporting.status import same_but_for_time, status_of
from service.domain.resources import Kind
from service.failpoints import failpoint
from service.providers.budget import Rank
from service.reconciler.act.actor import Actor
from service.reconciler.act.call import PassContext
from service.reconciler.observe import Looker

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.broadcast import Broadcast
    from service.domain.planning.steps import Step
    from service.domain.situation import Situation
    from service.domain.timing import Timing
    from service.reconciler.act.requests import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes

log = structlog.get_logger(__name__)

# A pass ends by itself; what does not is a bug, and must not hold a place for ever.
_ROUNDS = 40


def derive(timing: Timing) -> Callable[[Situation], tuple[State, Status]]:
    """What callers are told of a situation."""

    def told(situation: Situation) -> tuple[State, Status]:
        broadcast, resources, now, availability = (
            situation.broadcast,
            situation.resources,
            situation.now,
            situation.availability,
        )
        return status_of(broadcast, resources, plan(broadcast, resources, now, timing, availability), now, availability)

    return told


def rank_of(broadcast: Broadcast) -> Rank:
    if broadcast.target is Target.ENDED:
        return Rank.STOP
    return Rank.START if broadcast.ready_time is None else Rank.HEAL


@dataclass(slots=True)
class _Tally:
    """For the one log line of a pass."""

    steps: list[str] = field(default_factory=list[str])
    put_off: int = 0
    state: str = ""
    outcome: str = "ok"


class Reconciler:
    def __init__(self, passes: Passes, providers: Providers, timing: Timing, *, lease: timedelta) -> None:
        self._passes = passes
        self._providers = providers
        self._timing = timing
        self._lease = lease
        self._looker = Looker(passes, providers, timing)
        self._derive = derive(timing)

    async def run(self, claim: Claim) -> bool:
        """Whether the row is due again now. Never raises but for cancellation: whatever happens, it comes due."""
        due_now = False
        began = time.perf_counter()
        tally = _Tally()
        with telemetry.tracer.start_as_current_span(
            "pass",
            context=telemetry.context_of(claim.trace_context),
            attributes={"broadcast.id": claim.broadcast_id, "broadcast.fence": claim.fence},
        ):
            try:
                failpoint("lease.after_claim")
                due, turn = await self._rounds(claim, tally)
                failpoint("lease.before_release")
                due_now = await self._passes.release(claim, due, turn=turn)
            except LeaseLost:
                tally.outcome = "lease_lost"
                telemetry.LEASES_LOST.add(1)
            except StoreUnavailable:
                # The end of the lease brings it back.
                tally.outcome = "store_unavailable"
            except Exception:
                # A fault of ours, or something no provider should answer: not at once again, and no other waits for it.
                tally.outcome = "error"
                log.exception("pass_failed", broadcast_id=claim.broadcast_id)
                with contextlib.suppress(StoreUnavailable):
                    await self._passes.give_up(claim, seconds(random.uniform(4, 8)))
            duration = time.perf_counter() - began
            telemetry.PASS_DURATION.record(duration, {"outcome": tally.outcome})
            report = log.info if tally.steps or tally.outcome != "ok" else log.debug
            report(
                "pass",
                broadcast_id=claim.broadcast_id,
                fence=claim.fence,
                state=tally.state,
                steps=tally.steps,
                put_off=tally.put_off,
                outcome=tally.outcome,
                duration_ms=round(duration * 1000, 1),
            )
        return due_now

    async def _rounds(self, claim: Claim, tally: _Tally) -> tuple[datetime | None, datetime | None]:
        """When the row is to come due by itself (None: not before somebody wakes it), and the turn it waits for."""
        blind: frozenset[tuple[Kind, int]] = frozenset()
        now = claim.claimed_at
        for _ in range(_ROUNDS):
            situation = await self._looker.listen(claim, await self._passes.load(claim, self._lease))
            rank = rank_of(situation.broadcast)
            wanted = to_observe(situation.broadcast, situation.resources, situation.now, self._timing) - blind
            if wanted:
                situation, missed = await self._looker.look(claim, situation, wanted, rank)
                blind |= missed
            tally.state = situation.broadcast.state
            decided = plan(
                situation.broadcast, situation.resources, situation.now, self._timing, situation.availability
            )
            now = situation.now
            if not decided.steps:
                await self._tell(claim, situation)
                if blind and decided.wait_until is not None:
                    # What could not be looked at is due at once, and would be so for as long as a provider is away.
                    return max(decided.wait_until, situation.now + seconds(random.uniform(1.5, 3.0))), None
                return decided.wait_until, None
            put_off = await self._act(claim, situation, decided.steps, rank, tally)
            if len(put_off) == len(decided.steps):
                return min(put_off), min(put_off)
        log.error("pass_does_not_settle", broadcast_id=claim.broadcast_id, steps=tally.steps)
        return now + seconds(5), None

    async def _tell(self, claim: Claim, situation: Situation) -> None:
        """Store what follows without a step: of a stop before anything was made, of a change of the title."""
        state, status = self._derive(situation)
        stored = situation.broadcast
        if state is not stored.state or not same_but_for_time(status, stored.status):
            await self._passes.record(claim)

    async def _act(
        self, claim: Claim, situation: Situation, steps: tuple[Step, ...], rank: Rank, tally: _Tally
    ) -> list[datetime]:
        """Steps of different resources, at the same time. Answers the turns of those that found no token."""
        actor = Actor(
            PassContext(
                claim=claim,
                situation=situation,
                passes=self._passes,
                providers=self._providers,
                timing=self._timing,
                lease=self._lease,
            )
        )
        # Not a TaskGroup: one that fails must not cut off another between its call and its record.
        results = await asyncio.gather(*(actor.carry_out(step, rank=rank) for step in steps), return_exceptions=True)
        put_off: list[datetime] = []
        for step, result in zip(steps, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            name = type(step).__name__
            if result is None:
                tally.steps.append(name)
                telemetry.STEPS.add(1, {"step": name})
            else:
                put_off.append(result)
        tally.put_off += len(put_off)
        return put_off
