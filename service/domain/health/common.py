"""The rules that hold for every part of the chain, and how a part's own rule is put behind them.

A part's own rule answers with an `Answer`, which is no `PartHealth`: only `chain_part` makes one of it. So a part
cannot be told as healthy without the common rules: the broadcast is not wanted live, the resource does not exist, the
resource was not looked at lately.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from service.domain.broadcast import Target
from service.domain.facts import Facts
from service.domain.health.model import ChainPart, HealthState, PartHealth, noted
from service.domain.provider import OWNER, Provider, health_reason_away
from service.domain.reasons import HealthReason
from service.domain.resources import Kind, Phase, Resource
from service.domain.sentences import clock, coded, failed_call, no_answer
from service.domain.situation import Outage
from service.domain.timing import Timing


@dataclass(frozen=True, slots=True)
class Answer:
    """The health of a part by its own rule."""

    health: PartHealth
    rests_on: Resource | None = None
    """The resource at which the health was seen: it is UNKNOWN when that resource was not looked at lately. None: the
    health does not depend on a look at a resource.
    """


PartRule = Callable[[Facts, Timing], PartHealth]
OwnRule = Callable[[Facts, Timing], Answer]
_LISTED: Final = (ChainPart.ROOM, ChainPart.EGRESS, ChainPart.INGEST, ChainPart.RECORDING)
"""The parts that are unknown while a list lacks the resource they rest on. Who publishes is not read from that list."""
_MADE_OF: Final[Mapping[ChainPart, Kind]] = {ChainPart.ROOM: Kind.ROOM, ChainPart.INGEST: Kind.STREAM}
"""The kind of the resource of each part that is nothing but that resource."""
_R = TypeVar("_R", bound=Resource)


def chain_part(
    part: ChainPart, *, first: Callable[[Facts], PartHealth | None] | None = None
) -> Callable[[OwnRule], PartRule]:
    """Put the common rules around the own rule of *part*, which is asked only while the broadcast is wanted live.

    *first* is asked before the common rules, whatever the broadcast's target. It answers None where it has nothing to
    tell.
    """

    def wrap(own: OwnRule) -> PartRule:
        def told(facts: Facts, timing: Timing) -> PartHealth:
            before = first(facts) if first is not None else None
            return before or with_common_rules(facts, part, lambda: own(facts, timing))

        return told

    return wrap


def with_common_rules(facts: Facts, part: ChainPart, own: Callable[[], Answer], name: str = "") -> PartHealth:
    """The health of *part* by the common rules, and by *own* where they leave it open. *name*: of a destination."""
    if (rest := _resting(facts, part, name)) is not None:
        return rest if facts.broadcast.state.over else _worked_on(facts, rest)
    answer = own()
    health = answer.health if answer.rests_on is None else _believed(facts, answer.rests_on, answer.health)
    return _worked_on(facts, health)


def _worked_on(facts: Facts, health: PartHealth) -> PartHealth:
    """*health* as it is while passes do their work; UNKNOWN if a fault of our own ends every pass. The host and what
    viewers get are measured apart from the passes.
    """
    fault = facts.broadcast.fault
    if fault is None or health.part not in _LISTED or health.state is HealthState.DOWN:
        return health
    message = f"the service's own work on it fails: {fault.message}"
    return replace(
        health, state=HealthState.UNKNOWN, reason=HealthReason.SERVICE_FAULT, message=message, since=fault.since
    )


def of_a_resource(
    part: ChainPart, called: str, resources: Callable[[Facts], Sequence[_R]]
) -> Callable[[Callable[[Facts, Timing, _R], Answer]], OwnRule]:
    """Ask the own rule only if the last of *resources* is PRESENT, and hand it over. *called* names it in messages."""

    def wrap(own: Callable[[Facts, Timing, _R], Answer]) -> OwnRule:
        def told(facts: Facts, timing: Timing) -> Answer:
            last = next(reversed(resources(facts)), None)
            if last is None or last.phase is not Phase.PRESENT:
                return Answer(_not_there(facts, part, last, called))
            return own(facts, timing, last)

        return told

    return wrap


def still_there(facts: Facts, part: ChainPart) -> PartHealth | None:
    """The health of a part whose resource is to end, while the calls that end it fail. None: the part has no such
    resource.
    """
    resource_set = facts.resource_set
    resources: dict[ChainPart, Sequence[Resource]] = {
        ChainPart.ROOM: resource_set.rooms,
        ChainPart.EGRESS: resource_set.egresses,
        ChainPart.INGEST: resource_set.streams,
        ChainPart.RECORDING: resource_set.recordings,
    }
    stuck = next((each for each in resources.get(part, ()) if facts.does_not_go(each)), None)
    if stuck is None:
        return None
    trouble = facts.trouble_with(stuck)
    told = failed_call(trouble) if trouble is not None else ""
    return PartHealth(
        part=part,
        state=HealthState.DOWN,
        reason=HealthReason.STOP_FAILED,
        message=f"it does not go: {told}" if told else "it does not go",
        since=stuck.changed_at,
        observed_at=stuck.observed_at,
        evidence=noted(
            ("external_id", stuck.external_id, stuck.intended_at),
            ("stops_failed", stuck.failures, stuck.changed_at),
            ("last_error", told, trouble.time if trouble is not None else None),
        ),
    )


def _resting(facts: Facts, part: ChainPart, name: str) -> PartHealth | None:
    """The health of a part of a broadcast that is not wanted live. None: the broadcast is wanted live."""
    broadcast = facts.broadcast
    if broadcast.target is Target.LIVE:
        return None
    idle = PartHealth(
        part=part,
        name=name,
        state=HealthState.IDLE,
        reason=HealthReason.OVER,
        since=broadcast.status.state_time or broadcast.create_time,
    )
    match broadcast.target:
        case Target.CREATED:
            return replace(idle, reason=HealthReason.NOT_STARTED, since=broadcast.create_time)
        case Target.ENDED if broadcast.state.over:
            return still_there(facts, part) or _kept(facts, idle)
        case Target.ENDED:
            being = replace(idle, reason=HealthReason.STOPPING, message="being taken down")
            return still_there(facts, part) or being


def _kept(facts: Facts, over: PartHealth) -> PartHealth:
    """*over*, the health of a part of a broadcast that is over, with the live stream that is not deleted yet."""
    kept = next((each for each in facts.resource_set.streams if each.phase is not Phase.GONE), None)
    if over.part is not ChainPart.INGEST or kept is None:
        return over
    message = "the live stream takes no encoder, and is deleted when the slowest viewer has seen the end"
    return replace(over, message=message, evidence=noted(("external_id", kept.external_id, kept.disabled_at)))


def _believed(facts: Facts, resource: Resource, part: PartHealth) -> PartHealth:
    """*part* as it is while *resource* was looked at lately and its provider answers; UNKNOWN otherwise, with what was
    seen last in the message.
    """
    listed = part.part is not ChainPart.HOST
    seen = facts.seen_at(resource, listed=listed)
    looked = noted(("seen_by", "pass" if seen == resource.observed_at else "observer", seen)) if seen else ()
    part = replace(part, observed_at=seen, evidence=(*part.evidence, *looked))
    known, absent = facts.known(resource, listed=listed), resource.absent_since if part.part in _LISTED else None
    if known and absent is None:
        return part
    away = facts.availability.outages.get(OWNER[resource.kind])
    if away is not None:
        unknown = _away(part, OWNER[resource.kind], away)
    elif known and absent is not None:
        message = f"not listed since {clock(absent)}"
        unknown = replace(part, reason=HealthReason.NOT_LISTED, message=message, since=absent)
    else:
        unknown = replace(part, reason=HealthReason.NOT_OBSERVED, message="nobody looked lately", since=seen)
    last = f"the last that was seen: {coded(part.state, part.reason)}"
    return replace(unknown, state=HealthState.UNKNOWN, message=f"{unknown.message}; {last}")


def _away(part: PartHealth, provider: Provider, away: Outage) -> PartHealth:
    """*part*, which is unknown while *provider* does not answer."""
    return replace(
        part,
        state=HealthState.UNKNOWN,
        reason=health_reason_away(provider, away),
        message=no_answer(provider, away),
        since=away.since,
    )


def _not_there(facts: Facts, part: ChainPart, last: Resource | None, called: str) -> PartHealth:
    """The health of a part whose resource is not PRESENT. *last*: its latest attempt; None: there was none yet."""
    broadcast = facts.broadcast
    made = PartHealth(
        part=part,
        state=HealthState.PENDING,
        reason=HealthReason.CREATING,
        message=f"{called} is being made",
        since=broadcast.start_time or broadcast.create_time,
    )
    provider = OWNER[_MADE_OF[part]]
    trouble = broadcast.status.last_error
    told, told_at = "", None
    if trouble is not None and trouble.provider is provider:
        told, told_at = failed_call(trouble), trouble.time
    if last is not None:
        made = replace(
            made,
            since=last.changed_at,
            observed_at=last.observed_at,
            evidence=noted(("external_id", last.external_id, last.changed_at), ("last_error", told, told_at)),
        )
    away = facts.availability.outages.get(provider)
    if away is not None and (last is None or last.unresolved):
        return _away(made, provider, away)
    if last is None:
        return made
    state, reason, message = made.state, made.reason, made.message
    if last.phase is Phase.UNKNOWN:
        state, reason = HealthState.UNKNOWN, HealthReason.UNANSWERED
        message = "its creation was not answered: it is being looked for"
    elif last.failures:
        state, reason, message = HealthState.DOWN, HealthReason.CREATE_FAILED, told
    elif last.phase is Phase.GONE and not last.external_id:
        message = f"{called} is made again: its creation was not answered, and it was not found"
    elif last.phase in (Phase.GONE, Phase.DELETING):
        state, reason, message = HealthState.DOWN, HealthReason.LOST, f"{called} is gone, not by our doing"
    return replace(made, state=state, reason=reason, message=message)
