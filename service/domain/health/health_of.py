"""health_of(): the health of every part of the chain, from the host to the viewers, with its evidence. Pure.

A part is OK only if that was seen, and seen lately. A part that nobody looked at is UNKNOWN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import PlaybackPolicy, State
from service.domain.facts import Facts
from service.domain.health.common import PartRule
from service.domain.health.delivery import ingest, playback
from service.domain.health.egress import destinations, egress
from service.domain.health.model import ChainPart, HealthState, PartHealth
from service.domain.health.recording import recording
from service.domain.health.room import host, people, room, viewers
from service.domain.measurements import REPORTED_S, Quality, ReportedStats
from service.domain.planning.plan import plan
from service.domain.planning.steps import Plan
from service.domain.ports import PublisherSeen
from service.domain.reporting.next_action import NextAction, next_action
from service.domain.timing import Timing

_BEFORE_DESTINATIONS: tuple[PartRule, ...] = (room, host, egress, ingest, playback, recording)
_WORST_FIRST = (HealthState.DOWN, HealthState.UNKNOWN, HealthState.DEGRADED, HealthState.PENDING, HealthState.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherHealth:
    seen: PublisherSeen
    quality: Quality
    reported: ReportedStats | None
    """None: no report that still counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    broadcast_id: str
    title: str
    owner_id: str
    labels: Mapping[str, str]
    state: State
    state_reason: str
    overall: HealthState
    parts: tuple[PartHealth, ...]
    publishers: tuple[PublisherHealth, ...]
    plan: Plan
    """What the service would do now."""
    next_action: NextAction
    turn: datetime | None
    """When the next step has its turn at a provider's rate limit. None: no step waits for one."""
    time: datetime

    def part(self, which: ChainPart) -> PartHealth:
        return next(part for part in self.parts if part.part is which)


def health_of(facts: Facts, timing: Timing) -> Health:
    broadcast = facts.broadcast
    decided = plan(
        broadcast,
        facts.resources,
        facts.now,
        timing,
        facts.availability,
        watching=facts.watching,
        costs=facts.costs,
    )
    parts = (
        *(rule(facts, timing) for rule in _BEFORE_DESTINATIONS),
        *destinations(facts),
        viewers(facts, timing),
    )
    turn = broadcast.turn_at if decided.steps and broadcast.turn_at and broadcast.turn_at > facts.now else None
    return Health(
        broadcast_id=broadcast.id,
        title=broadcast.spec.title,
        owner_id=broadcast.spec.owner_id,
        labels=broadcast.labels,
        state=broadcast.state,
        state_reason=broadcast.status.state_reason,
        overall=_overall(facts, parts, turn),
        parts=parts,
        publishers=_publishers(facts),
        plan=decided,
        next_action=next_action(facts, decided),
        turn=turn,
        time=facts.now,
    )


def _overall(facts: Facts, parts: tuple[PartHealth, ...], turn: datetime | None) -> HealthState:
    """The worst of the parts that should work now, and of the service's own work on the broadcast. What nobody can know
    of this broadcast does not count, and a destination or recording that is lost is a show that goes on. Of what is
    over, nothing should work. OK means that the show is on.
    """
    if facts.broadcast.state.over:
        return HealthState.IDLE
    counted = _own_work(facts, turn)
    for part in parts:
        if part.part is ChainPart.VIEWERS or (part.part is ChainPart.PLAYBACK and _signed_away(facts)):
            continue
        beside = part.part in (ChainPart.DESTINATION, ChainPart.RECORDING) and part.state is HealthState.DOWN
        counted.add(HealthState.DEGRADED if beside else part.state)
    worst = next((state for state in _WORST_FIRST if state in counted), HealthState.IDLE)
    return HealthState.IDLE if worst is HealthState.OK and facts.broadcast.state is not State.LIVE else worst


def _signed_away(facts: Facts) -> bool:
    return facts.broadcast.spec.playback_policy is PlaybackPolicy.SIGNED and not facts.availability.signing


def _own_work(facts: Facts, turn: datetime | None) -> set[HealthState]:
    """What the service has to do for the broadcast and does not, or not yet, while every part may be well. *turn*: of
    its next step.
    """
    counted: set[HealthState] = set()
    held_up = facts.change_held_up and facts.broadcast.state is State.LIVE
    if facts.behind_since is not None or facts.broadcast.fallback.modes or held_up:
        counted.add(HealthState.DEGRADED)
    if turn is not None:
        counted.add(HealthState.PENDING)
    return counted


def _publishers(facts: Facts) -> tuple[PublisherHealth, ...]:
    there = people(facts)
    return () if there is None else tuple(_publisher(facts, seen) for seen in there.publishers)


def _publisher(facts: Facts, seen: PublisherSeen) -> PublisherHealth:
    reported = facts.stats.get(seen.identity)
    if reported is None or not facts.fresh(reported.time, REPORTED_S):
        return PublisherHealth(seen=seen, quality=Quality.UNKNOWN, reported=None)
    return PublisherHealth(seen=seen, quality=reported.stats.quality, reported=reported)
