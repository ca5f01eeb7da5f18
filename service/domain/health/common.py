"""What holds for every part of the chain: when it rests, when it is not there, and when nothing is known of it."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.broadcast import Target
from service.domain.facts import Facts, provider_of
from service.domain.health.model import ChainPart, HealthState, PartHealth, noted
from service.domain.resources import Phase, Resource


def resting(facts: Facts, part: ChainPart, name: str = "") -> PartHealth | None:
    """A part of a broadcast that is not wanted live. None: it is."""
    broadcast = facts.broadcast
    since = broadcast.status.state_time or broadcast.create_time
    match broadcast.target:
        case Target.CREATED:
            return PartHealth(
                part=part, name=name, state=HealthState.IDLE, reason="NOT_STARTED", since=broadcast.create_time
            )
        case Target.ENDED if broadcast.state.over:
            return PartHealth(part=part, name=name, state=HealthState.IDLE, reason="OVER", since=since)
        case Target.ENDED:
            return still_there(facts, part) or PartHealth(
                part=part, name=name, state=HealthState.IDLE, reason="STOPPING", message="being taken down", since=since
            )
        case Target.LIVE:
            return None


def still_there(facts: Facts, part: ChainPart) -> PartHealth | None:
    """What is to end and does not. None: nothing of this part."""
    view = facts.view
    resources: dict[ChainPart, Sequence[Resource]] = {
        ChainPart.ROOM: view.rooms,
        ChainPart.EGRESS: view.egresses,
        ChainPart.INGEST: view.streams,
        ChainPart.RECORDING: view.recordings,
    }
    stuck = next((each for each in resources.get(part, ()) if facts.does_not_go(each)), None)
    if stuck is None:
        return None
    trouble = facts.trouble_with(stuck)
    told = f"{trouble.operation}: {trouble.code} {trouble.message}".rstrip() if trouble is not None else ""
    return PartHealth(
        part=part,
        state=HealthState.DOWN,
        reason="STOP_FAILED",
        message=f"it does not go: {told}" if told else "it does not go",
        since=stuck.changed_at,
        observed_at=stuck.observed_at,
        evidence=noted(
            ("external_id", stuck.external_id, stuck.intended_at),
            ("stops_failed", stuck.failures, stuck.changed_at),
            ("last_error", told, trouble.time if trouble is not None else None),
        ),
    )


def believed(facts: Facts, resource: Resource, part: PartHealth) -> PartHealth:
    """*part* rests on what was seen of *resource*: as it is while that is known, UNKNOWN after."""
    seen = facts.seen_at(resource)
    part = replace(part, observed_at=seen)
    if facts.known(resource):
        return part
    provider = provider_of(resource)
    away = facts.around.outages.get(provider)
    message = "nobody looked lately" if away is None else f"{provider} does not answer: {away.code} {away.message}"
    return replace(
        part,
        state=HealthState.UNKNOWN,
        reason="NOT_OBSERVED" if away is None else f"{provider.upper()}_UNREACHABLE",
        message=f"{message.strip()}; the last that was seen: {part.state} {part.reason}",
        since=away.since if away is not None else seen,
    )


def existence(facts: Facts, part: ChainPart, resources: Sequence[Resource], what: str) -> PartHealth | None:
    """A part whose room or live stream is not there. None: it is."""
    broadcast = facts.broadcast
    last = resources[-1] if resources else None
    trouble = broadcast.status.last_error
    told, told_at = "", None
    if trouble is not None:
        told = f"{trouble.provider} {trouble.operation}: {trouble.code} {trouble.message}"
        told_at = trouble.time
    if last is None:
        since = broadcast.start_time or broadcast.create_time
        return PartHealth(
            part=part, state=HealthState.PENDING, reason="CREATING", message=f"{what} is being made", since=since
        )
    if last.phase is Phase.PRESENT:
        return None
    evidence = noted(("external_id", last.external_id, last.changed_at), ("last_error", told, told_at))
    made = PartHealth(
        part=part,
        state=HealthState.PENDING,
        reason="CREATING",
        message=f"{what} is being made",
        since=last.changed_at,
        observed_at=last.observed_at,
        evidence=evidence,
    )
    if last.phase is Phase.UNKNOWN:
        message = "its creation was not answered: it is being looked for"
        return replace(made, state=HealthState.UNKNOWN, reason="UNANSWERED", message=message)
    if last.failures:
        return replace(made, state=HealthState.DOWN, reason="CREATE_FAILED", message=told)
    if last.phase in (Phase.GONE, Phase.DELETING):
        return replace(made, state=HealthState.DOWN, reason="LOST", message=f"{what} is gone, not by our doing")
    return made
