"""Health of the egress, and of the destinations it sends to."""

from dataclasses import replace
from datetime import datetime
from functools import partial

from service.domain.broadcast import Carrier, Destination, DestinationState, DestinationStatus, seconds
from service.domain.facts import Facts
from service.domain.health.common import Answer, chain_part, still_there, with_common_rules
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.provider import ROOMS
from service.domain.reasons import Fault, HealthReason
from service.domain.resource_set import on_air, unwatched, wants_egress
from service.domain.resources import Egress, EgressStatus, LocalRecording, OutputState
from service.domain.timing import Timing

_FAULTS = {
    Fault.GHOST: "it was listed as active and was not in its room: its worker is gone",
    Fault.NOT_STOPPED: "it was told to stop and was not seen to end",
    Fault.NOT_CONNECTED: "it never got its connection to the live stream",
    Fault.START_TIMEOUT: "it did not start in time",
    Fault.START_LOST: "its start was not answered, and nobody saw it",
    Fault.END_TIMEOUT: "it began to end and never did",
    Fault.DISCONNECTED: "its connection to the live stream failed",
    Fault.NO_MEDIA: "the live stream got no media of it",
    Fault.INGEST_LOST: "it said that it sends, and nothing arrived any more",
    Fault.STALLED: "it sent, and the playlist did not move on",
    Fault.LOST: f"{ROOMS.display_name} does not know it any more",
}


@chain_part(ChainPart.EGRESS)
def egress(facts: Facts, timing: Timing) -> Answer:
    current = facts.resource_set.egress
    if not wants_egress(facts.broadcast, facts.resource_set):
        return Answer(still_there(facts, ChainPart.EGRESS) or _unwanted(facts))
    if current is None:
        return Answer(_missing(facts))
    part = PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.PENDING,
        reason=HealthReason.STARTING,
        message="it was asked for and is not active yet",
        since=current.status_since or current.changed_at,
        evidence=egress_evidence(current),
    )
    if current.unresolved:
        if facts.now < current.intended_at + seconds(timing.list_lag_s):
            return Answer(part)
        message = "its start was not answered: it is being looked for"
        return Answer(replace(part, state=HealthState.UNKNOWN, reason=HealthReason.UNANSWERED, message=message))
    return Answer(_running(facts, current, part, timing), rests_on=current)


def ghost_since(facts: Facts, egress: Egress | LocalRecording, timing: Timing) -> datetime | None:
    """Since when an egress that is listed as active has not been in its room. None: it is in it, it is not known, or it
    has been away for less than a quarter of `ghost_s`, because an egress that ends leaves its room first.
    """
    since = facts.resource_set.missing_since(egress)
    return since if since is not None and facts.now >= since + seconds(timing.ghost_s / 4) else None


def _running(facts: Facts, egress: Egress, part: PartHealth, timing: Timing) -> PartHealth:
    if (since := ghost_since(facts, egress, timing)) is not None:
        message = f"{ROOMS.display_name} lists it as active, and it is not in its room"
        return replace(part, state=HealthState.DEGRADED, reason=HealthReason.NOT_IN_ROOM, message=message, since=since)
    if egress.delivering:
        return replace(part, state=HealthState.OK, reason=HealthReason.DELIVERING, message="")
    if egress.status is EgressStatus.ACTIVE:
        return _connecting(facts, egress, part, timing)
    if egress.status is EgressStatus.ENDING:
        return replace(part, state=HealthState.DOWN, reason=HealthReason.ENDING, message=egress.error)
    late = facts.now >= egress.intended_at + seconds(timing.egress_start_s / 2)
    return replace(part, state=HealthState.DEGRADED, reason=HealthReason.STARTING_SLOWLY) if late else part


def _connecting(facts: Facts, egress: Egress, part: PartHealth, timing: Timing) -> PartHealth:
    output = next((output for output in egress.outputs if output.name == ""), None)
    if output is not None and output.state in (OutputState.FAILED, OutputState.FINISHED):
        return replace(part, state=HealthState.DOWN, reason=HealthReason.DISCONNECTED, message=output.message)
    if (since := unconnected_since(facts, egress, timing)) is not None:
        message = "it runs and has no connection to the live stream"
        return replace(part, state=HealthState.DOWN, reason=Fault.NOT_CONNECTED, message=message, since=since)
    return replace(part, reason=HealthReason.CONNECTING, message="it connects to the live stream")


def unconnected_since(facts: Facts, egress: Egress, timing: Timing) -> datetime | None:
    """Since when an active egress has tried to connect to the live stream. None: it is connected, it failed, or it has
    tried for less than a quarter of `connect_s`.
    """
    push = next((output.state for output in egress.outputs if output.name == ""), None)
    since = egress.status_since or egress.changed_at
    late = facts.now > since + seconds(timing.connect_s / 4)
    return since if egress.status is EgressStatus.ACTIVE and push is OutputState.CONNECTING and late else None


def _unwanted(facts: Facts) -> PartHealth:
    broadcast, egresses = facts.broadcast, facts.resource_set.egresses
    reason, message = HealthReason.NOT_WANTED, "it is started when a host publishes"
    if unwatched(broadcast):
        reason, message = HealthReason.NO_VIEWER, "nobody watches: it is started for the next viewer"
    elif not on_air(broadcast):
        reason, message = HealthReason.NOT_ON_AIR, "it is started when SetOnAir is called"
    return PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.IDLE,
        reason=reason,
        message=message,
        since=egresses[-1].changed_at if egresses else broadcast.ready_time,
    )


def _missing(facts: Facts) -> PartHealth:
    """The health of the egress where one is wanted and none is there."""
    last = facts.resource_set.egresses[-1] if facts.resource_set.egresses else None
    stuck = still_there(facts, ChainPart.EGRESS)
    if stuck is not None and last is not None and not last.fault:
        return stuck
    if last is None:
        return PartHealth(
            part=ChainPart.EGRESS,
            state=HealthState.PENDING,
            reason=HealthReason.STARTING,
            message="it is about to be started",
            since=facts.resource_set.room.host_since if facts.resource_set.room is not None else None,
        )
    failed = last.fault or last.failures > 0 or (last.end_seen and last.status.terminal)
    return PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.DOWN if failed else HealthState.PENDING,
        reason=(last.fault or HealthReason.ENDED) if failed else HealthReason.STARTING,
        message=_ended_how(last) if failed else "it is about to be started",
        since=last.changed_at,
        observed_at=last.observed_at,
        evidence=egress_evidence(last),
    )


def _ended_how(egress: Egress) -> str:
    """The fault, and the error that the provider tells, for people."""
    return ": ".join(filter(None, (_FAULTS.get(egress.fault), egress.error))) or "the last one ended"


def egress_evidence(egress: Egress) -> tuple[Evidence, ...]:
    return noted(
        ("egress_start", egress.phase, egress.intended_at),
        (f"{ROOMS}_egress_id", egress.external_id, egress.intended_at),
        ("egress_status", egress.status, egress.status_since),
        ("egress_fault", egress.fault, egress.changed_at),
        ("egress_error", egress.error, egress.observed_at),
        *((f"output_{output.name or 'live_stream'}", output.state, egress.observed_at) for output in egress.outputs),
    )


_DESTINATION_HEALTH = {
    DestinationState.IDLE: (HealthState.IDLE, HealthReason.IDLE),
    DestinationState.CONNECTING: (HealthState.PENDING, HealthReason.CONNECTING),
    DestinationState.ACTIVE: (HealthState.OK, HealthReason.ACTIVE),
    DestinationState.FAILED: (HealthState.DOWN, HealthReason.FAILED),
    DestinationState.STOPPED: (HealthState.DOWN, HealthReason.STOPPED),
}


def destinations(facts: Facts) -> tuple[PartHealth, ...]:
    """One part for each destination of the spec, in its order."""
    states = {each.name: each for each in facts.broadcast.status.destinations}
    return tuple(
        with_common_rules(
            facts, ChainPart.DESTINATION, partial(_destination, facts, each, states.get(each.name)), each.name
        )
        for each in facts.broadcast.spec.destinations
    )


def _destination(facts: Facts, destination: Destination, status: DestinationStatus | None) -> Answer:
    part = PartHealth(
        part=ChainPart.DESTINATION, name=destination.name, state=HealthState.IDLE, reason=HealthReason.IDLE
    )
    current = facts.resource_set.egress if destination.carrier is Carrier.EGRESS else facts.resource_set.stream
    if status is None or current is None:
        return Answer(part)
    state, reason = _DESTINATION_HEALTH[status.state]
    told = replace(part, state=state, reason=reason, message=status.message)
    # Idle and failed are told as they were seen last, however long ago that was.
    return Answer(told, rests_on=None if state in (HealthState.IDLE, HealthState.DOWN) else current)
