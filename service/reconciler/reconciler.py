"""One pass over one broadcast: look, plan, act, until there is nothing to do now; then give the lease back.

Level-triggered: a pass knows nothing of what woke it, and everything it needs is in the rows. A pass that is cut off
anywhere leaves rows from which the next one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.broadcast import State, Status, Target, seconds
from service.domain.errors import LeaseLost, StoreUnavailable
from service.domain.lifecycle import Event
from service.domain.planning.plan import plan
from service.domain.planning.steps import SettleRecordings
from service.domain.planning.what_to_observe import suspected_since, to_observe
from service.domain.reasons import EventReason
from service.domain.reporting.status import same_but_for_time, status_of
from service.domain.resources import Kind
from service.failpoints import failpoint
from service.providers.budget import Rank
from service.reconciler.act.actor import Actor
from service.reconciler.act.context import PassContext
from service.reconciler.observe import Looker
from service.reconciler.verify import Verifier, allowed
from service.store.sealing import CannotOpen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from service.domain.broadcast import Broadcast
    from service.domain.planning.steps import Step
    from service.domain.situation import Situation
    from service.domain.timing import Timing
    from service.reconciler.act.requests import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes

log = structlog.get_logger(__name__)

# A pass ends by itself. One that does not is a bug, and must not keep its place in the lane for ever.
_ROUNDS = 40


def derive(timing: Timing) -> Callable[[Situation], tuple[State, Status]]:
    """Makes state and status, as callers are told them, of a situation."""

    def told(situation: Situation) -> tuple[State, Status]:
        broadcast, resources, now, availability = (
            situation.broadcast,
            situation.resources,
            situation.now,
            situation.availability,
        )
        decided = plan(
            broadcast,
            resources,
            now,
            timing,
            availability,
            watching=situation.watching,
            costs=situation.costs,
        )
        return status_of(broadcast, resources, decided, now, availability, timing=timing)

    return told


def rank_of(broadcast: Broadcast) -> Rank:
    if broadcast.state.over:
        # What is left to do costs nothing while it waits: recordings are looked at, a live stream is deleted.
        return Rank.HEAL
    if broadcast.target is Target.ENDED:
        return Rank.STOP
    return Rank.START if broadcast.ready_time is None else Rank.HEAL


def _again_in(unverified: timedelta) -> timedelta:
    """The longer the providers have not answered, the later: all running broadcasts wait for them."""
    return random.uniform(0.5, 1.0) * min(max(unverified, seconds(3)), seconds(30))


def _due_again(situation: Situation, missed: Collection[tuple[Kind, int]], planned: datetime) -> datetime:
    """When a pass whose looks were *missed* is due again. *planned*: when the plan would be.

    A look that is due at once is not made in every pass while a provider is away. One at a resource that somebody said
    to have changed, or that a list lacked, is repeated within seconds: nothing else would bring the pass back before
    the next planned one. The longer it is missed, the rarer it is repeated.
    """
    now = situation.now
    doubted = suspected_since(situation.broadcast, situation.resources, missed)
    soon_s = random.uniform(1.5, 3.0)
    if doubted is None:
        return max(planned, now + seconds(soon_s))
    patience_s = min((now - doubted).total_seconds() * random.uniform(0.1, 0.3), 30.0)
    return min(max(planned, now + seconds(soon_s)), now + seconds(max(soon_s, patience_s)))


@dataclass(slots=True)
class _Tally:
    """For the one log line of a pass."""

    steps: list[str] = field(default_factory=list[str])
    put_off: int = 0
    state: str = ""
    outcome: str = "ok"
    failed_before: bool = False
    """The pass before this one ended with a fault of ours."""


class _DoesNotSettle(Exception):
    """A pass found something to do again and again."""


def fault_of(error: Exception) -> tuple[str, str]:
    """Code and message of a fault of our own. The text of a foreign error is left out: it may quote a secret."""
    match error:
        case CannotOpen():
            return "CANNOT_OPEN", f"no key of BROADCAST_SECRET_KEYS of this replica opens {error}"
        case _DoesNotSettle():
            return "DOES_NOT_SETTLE", "a pass finds something to do again and again"
        case _:
            at = [frame for frame in traceback.extract_tb(error.__traceback__) if "/service/" in frame.filename]
            where = f" in {at[-1].filename.rpartition('/service/')[2]}, line {at[-1].lineno}" if at else ""
            return type(error).__name__, f"an error of the service itself{where}; its log has the rest"


class Reconciler:
    def __init__(self, passes: Passes, providers: Providers, timing: Timing, *, lease: timedelta) -> None:
        self._passes = passes
        self._providers = providers
        self._timing = timing
        self._lease = lease
        self._looker = Looker(passes, providers, timing)
        self._verifier = Verifier(passes, self._looker)
        self._derive = derive(timing)

    async def run(self, claim: Claim) -> bool:
        """One pass. Answers whether the row is due again now. Raises only CancelledError. On any other error the row is
        scheduled again.
        """
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
                if tally.failed_before:
                    recovered = Event(reason=EventReason.PASS_RECOVERED)
                    await self._passes.record(claim, events=[recovered], fault_over=True)
                failpoint("lease.before_release")
                due_now = await self._passes.release(claim, due, turn=turn)
            except LeaseLost:
                tally.outcome = "lease_lost"
                telemetry.LEASES_LOST.add(1)
            except StoreUnavailable:
                # The row comes due again when its lease ends.
                tally.outcome = "store_unavailable"
            except Exception as error:
                # A bug of ours, a key that is missing, or an answer that no provider should give. Tried again after
                # some seconds, so that no other row waits for it.
                tally.outcome = "error"
                if not isinstance(error, _DoesNotSettle):
                    log.exception("pass_failed", broadcast_id=claim.broadcast_id)
                code, message = fault_of(error)
                # Where this fails too, the row comes due when its lease ends.
                with contextlib.suppress(Exception):
                    await self._passes.give_up(claim, seconds(random.uniform(4, 8)), code=code, message=message)
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
        """Look, plan and act until nothing is to be done. Answers two times by the database's clock: when the row comes
        due by itself (None: only a wake brings it back), and the turn at a budget that it waits for (None: none).
        """
        blind: frozenset[tuple[Kind, int]] = frozenset()
        now = claim.claimed_at
        turn: datetime | None = None
        rounds = 0
        while rounds < _ROUNDS:
            loaded = await self._passes.load(claim, self._lease)
            tally.failed_before = loaded.broadcast.fault is not None
            situation = await self._looker.listen(claim, loaded)
            rank = rank_of(situation.broadcast)
            unverified = loaded.unverified_since
            if unverified is not None:
                situation, verified = await self._verifier.verify(claim, situation, unverified, rank)
                unverified = None if verified else unverified
            wanted = to_observe(situation.broadcast, situation.resources, situation.now, self._timing) - blind
            if wanted:
                situation, missed = await self._looker.look(claim, situation, wanted, rank)
                blind |= missed
            tally.state = situation.broadcast.state
            decided = plan(
                situation.broadcast,
                situation.resources,
                situation.now,
                self._timing,
                situation.availability,
                costs=situation.costs,
                watching=situation.watching,
            )
            now = situation.now
            steps = decided.steps if unverified is None else allowed(decided.steps, situation.broadcast)
            if unverified is not None and not steps:
                await self._tell(claim, situation)
                return now + _again_in(now - unverified), None
            if not steps:
                await self._tell(claim, situation)
                if blind and decided.wait_until is not None:
                    return _due_again(situation, blind, decided.wait_until), None
                return decided.wait_until, None
            put_off = await self._act(claim, situation, steps, rank, tally, turn=turn)
            if len(put_off) == len(steps):
                return min(put_off), min(put_off)
            # What was put off is planned again in this pass, and keeps its turn.
            turn = min(put_off, default=turn)
            # Recordings that are listed or deleted one by one may be many.
            rounds += not all(isinstance(step, SettleRecordings) for step in steps)
        log.error("pass_does_not_settle", broadcast_id=claim.broadcast_id, steps=tally.steps)
        raise _DoesNotSettle

    async def _tell(self, claim: Claim, situation: Situation) -> None:
        """Store a change of state or status that needs no step, such as a stop before anything was made."""
        state, status = self._derive(situation)
        stored = situation.broadcast
        if state is not stored.state or not same_but_for_time(status, stored.status):
            await self._passes.record(claim)

    async def _act(
        self,
        claim: Claim,
        situation: Situation,
        steps: tuple[Step, ...],
        rank: Rank,
        tally: _Tally,
        *,
        turn: datetime | None,
    ) -> list[datetime]:
        """Carry out *steps*, which are of different resources, at the same time. *turn*: the turn of a step that was
        put off in this pass. Answers the turns of the steps that found no token, as times by the database's clock.
        """
        actor = Actor(
            PassContext(
                claim=claim,
                situation=situation,
                passes=self._passes,
                providers=self._providers,
                timing=self._timing,
                lease=self._lease,
                turn=turn,
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
