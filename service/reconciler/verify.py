"""The first look after the database lost commits: what was done since is missing in the rows, and is looked for.

What the service did is looked for here. What callers asked for, such as a stop, cannot be: they are told by the end of
their streams. Invariant: until both providers were asked, nothing is started that could become a second publisher.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from service.domain.broadcast import Target
from service.domain.planning.steps import CreateStream, CutStream, ResetKey, StartEgress, StopEgress
from service.domain.resource_set import ResourceSet, next_ordinal
from service.domain.resources import Egress, Kind, Phase, Stream

if TYPE_CHECKING:
    from datetime import datetime

    from service.domain.broadcast import Broadcast
    from service.domain.planning.steps import Step
    from service.domain.resources import AnyResource
    from service.domain.situation import Situation
    from service.providers.budget import Rank
    from service.reconciler.observe import Look, Looker
    from service.store.leases import Claim
    from service.store.passes import Passes

log = structlog.get_logger(__name__)


_WITHHELD = CreateStream | StartEgress | StopEgress | ResetKey | CutStream


class Verifier:
    def __init__(self, passes: Passes, looker: Looker) -> None:
        self._passes = passes
        self._looker = looker

    async def verify(self, claim: Claim, situation: Situation, since: datetime, rank: Rank) -> tuple[Situation, bool]:
        """Look at all that exists, and hold what may have been started as unknown. Answers the situation as it is
        stored then, and whether both providers answered. *since*: when the database was found to lack commits. Raises
        LeaseLost, StoreUnavailable.
        """
        if (stream := _perhaps_created(situation, since)) is not None:
            situation = await self._passes.record(claim, [stream])
        if (egress := _perhaps_given_a_key(situation)) is not None:
            situation = await self._passes.record(claim, [egress])
        # The live stream first: an egress is known as ours by the key that it pushes with, and the rows may have an
        # older one.
        any_key = replace(situation, resources=tuple(map(_with_any_key, situation.resources)))
        streams = _held(situation, Kind.STREAM)
        if streams:
            seen, missed = await self._looker.look(claim, any_key, streams, rank)
            if missed:
                return situation, False
            situation = seen
        if _unresolved(situation):
            return situation, False
        # The egresses are listed also where no row says that one runs.
        others = _held(situation, Kind.ROOM, Kind.EGRESS, Kind.RECORDING) | {(Kind.EGRESS, 0)}
        situation, missed = await self._looker.look(claim, situation, others, rank)
        if missed:
            return situation, False
        situation = await self._passes.record(claim, _perhaps_started(situation), verified=True)
        log.info("verified", broadcast_id=claim.broadcast_id)
        return situation, True


def allowed(steps: tuple[Step, ...], broadcast: Broadcast) -> tuple[Step, ...]:
    """The steps that are harmless while it is not known what runs: of a broadcast that is to be live, those that leave
    its egresses and live streams as they are; of one that is to end, all.
    """
    if broadcast.target is Target.ENDED:
        return steps
    return tuple(step for step in steps if not isinstance(step, _WITHHELD))


def _with_any_key(resource: AnyResource) -> AnyResource:
    """A live stream whose look takes over the provider's key, whatever reset was under way."""
    return replace(resource, key_stale=False) if isinstance(resource, Stream) else resource


def _unresolved(situation: Situation) -> bool:
    """Whether room and live stream are yet to be found or made: without them an egress cannot be told from a stray."""
    held = ResourceSet(situation.resources)
    if situation.broadcast.target is Target.LIVE and (held.room is None or held.room.unresolved):
        return True
    return held.stream is not None and held.stream.unresolved


def _held(situation: Situation, *kinds: Kind) -> frozenset[Look]:
    return frozenset(
        (each.kind, each.ordinal)
        for each in situation.resources
        if each.kind in kinds and each.phase is not Phase.GONE and not (each.kind is Kind.ROOM and each.unresolved)
    )


# All answer rows as of calls without an answer, for what may have been made by a pass whose commits are lost.


def _perhaps_created(situation: Situation, since: datetime) -> Stream | None:
    """At the end only where no live stream was ever made: one that is gone has no successor then."""
    broadcast, held = situation.broadcast, ResourceSet(situation.resources)
    known = held.stream is not None or any(each.changed_at >= since for each in held.streams)
    if broadcast.target is not Target.LIVE:
        known = bool(held.streams) or broadcast.start_time is None or broadcast.state.over
    if known:
        return None
    return Stream(
        ordinal=next_ordinal(held.streams),
        phase=Phase.UNKNOWN,
        intended_at=broadcast.start_time or broadcast.create_time,
        changed_at=situation.now,
    )


def _perhaps_given_a_key(situation: Situation) -> Egress | None:
    """Of a broadcast that is to end: with this row its live stream is disabled before it is deleted. It is written
    before the looks, because the end does not wait for them.
    """
    broadcast, held = situation.broadcast, ResourceSet(situation.resources)
    ends = broadcast.target is Target.ENDED and not broadcast.state.over
    if held.stream is None or held.stream.disabled or held.egresses or not ends:
        return None
    return _unanswered_start(situation, held, held.stream)


def _perhaps_started(situation: Situation) -> list[Egress]:
    """Of a broadcast that is to be live: it is looked for, and fenced by a key reset, before another is started."""
    held, stream = ResourceSet(situation.resources), ResourceSet(situation.resources).stream
    wanted = situation.broadcast.target is Target.LIVE and stream is not None and stream.phase is Phase.PRESENT
    if stream is None or not wanted or held.egress is not None:
        return []
    return [_unanswered_start(situation, held, stream)]


def _unanswered_start(situation: Situation, held: ResourceSet, stream: Stream) -> Egress:
    return Egress(
        ordinal=next_ordinal(held.egresses),
        phase=Phase.UNKNOWN,
        intended_at=situation.now,
        changed_at=situation.now,
        layout=situation.broadcast.spec.layout,
        key_epoch=stream.key_epoch,
    )
