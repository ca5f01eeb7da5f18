"""Health of the egress, and of the destinations it sends to."""

from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import Carrier, DeliveryPolicy, Destination, DestinationState, DestinationStatus, seconds
from service.domain.facts import Facts
from service.domain.health.common import believed, resting, still_there
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.reasons import Fault
from service.domain.resource_set import wants_egress
from service.domain.resources import Egress, EgressStatus, OutputState
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
    Fault.LOST: "LiveKit does not know it any more",
}


def egress(facts: Facts, timing: Timing) -> PartHealth:
    if (rest := resting(facts, ChainPart.EGRESS)) is not None:
        return rest
    current = facts.view.egress
    if not wants_egress(facts.broadcast, facts.view):
        return still_there(facts, ChainPart.EGRESS) or _unwanted(facts)
    if current is None:
        return _missing(facts)
    part = PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.PENDING,
        reason="STARTING",
        message="it was asked for and is not active yet",
        since=current.status_since or current.changed_at,
        evidence=egress_evidence(current),
    )
    if current.unresolved:
        if facts.now < current.intended_at + seconds(timing.list_lag_s):
            return part
        message = "its start was not answered: it is being looked for"
        return replace(part, state=HealthState.UNKNOWN, reason="UNANSWERED", message=message)
    return believed(facts, current, _running(facts, current, part, timing))


def _running(facts: Facts, egress: Egress, part: PartHealth, timing: Timing) -> PartHealth:
    if (since := facts.view.missing_since(egress)) is not None:
        message = "LiveKit lists it as active, and it is not in its room"
        return replace(part, state=HealthState.DEGRADED, reason="NOT_IN_ROOM", message=message, since=since)
    if egress.delivering:
        return replace(part, state=HealthState.OK, reason="DELIVERING", message="")
    if egress.status is EgressStatus.ACTIVE:
        return _connecting(facts, egress, part, timing)
    if egress.status is EgressStatus.ENDING:
        return replace(part, state=HealthState.DOWN, reason="ENDING", message=egress.error)
    late = facts.now >= egress.intended_at + seconds(timing.egress_start_s / 2)
    return replace(part, state=HealthState.DEGRADED, reason="STARTING_SLOWLY") if late else part


def _connecting(facts: Facts, egress: Egress, part: PartHealth, timing: Timing) -> PartHealth:
    output = next((output for output in egress.outputs if output.name == ""), None)
    if output is not None and output.state in (OutputState.FAILED, OutputState.FINISHED):
        return replace(part, state=HealthState.DOWN, reason="DISCONNECTED", message=output.message)
    if (since := unconnected_since(facts, egress, timing)) is not None:
        message = "it runs and has no connection to the live stream"
        return replace(part, state=HealthState.DOWN, reason=Fault.NOT_CONNECTED, message=message, since=since)
    return replace(part, reason="CONNECTING", message="it connects to the live stream")


def unconnected_since(facts: Facts, egress: Egress, timing: Timing) -> datetime | None:
    """Since when it runs and tries to connect to the live stream. None: it does not, or not for long."""
    push = next((output.state for output in egress.outputs if output.name == ""), None)
    since = egress.status_since or egress.changed_at
    late = facts.now > since + seconds(timing.connect_s / 4)
    return since if egress.status is EgressStatus.ACTIVE and push is OutputState.CONNECTING and late else None


def _unwanted(facts: Facts) -> PartHealth:
    broadcast, egresses = facts.broadcast, facts.view.egresses
    manual = broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL and not broadcast.on_air
    return PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.IDLE,
        reason="NOT_ON_AIR" if manual else "NOT_WANTED",
        message="it is started when SetOnAir is called" if manual else "it is started when a host publishes",
        since=egresses[-1].changed_at if egresses else broadcast.ready_time,
    )


def _missing(facts: Facts) -> PartHealth:
    """One is wanted and none is there."""
    last = facts.view.egresses[-1] if facts.view.egresses else None
    stuck = still_there(facts, ChainPart.EGRESS)
    if stuck is not None and last is not None and not last.fault:
        return stuck
    if last is None:
        return PartHealth(
            part=ChainPart.EGRESS,
            state=HealthState.PENDING,
            reason="STARTING",
            message="it is about to be started",
            since=facts.view.room.host_since if facts.view.room is not None else None,
        )
    failed = last.fault or last.failures > 0 or (last.end_seen and last.status.terminal)
    return PartHealth(
        part=ChainPart.EGRESS,
        state=HealthState.DOWN if failed else HealthState.PENDING,
        reason=(last.fault or "ENDED") if failed else "STARTING",
        message=_ended_how(last) if failed else "it is about to be started",
        since=last.changed_at,
        observed_at=last.observed_at,
        evidence=egress_evidence(last),
    )


def _ended_how(egress: Egress) -> str:
    """What it failed of, in our words and in LiveKit's."""
    return ": ".join(filter(None, (_FAULTS.get(egress.fault), egress.error))) or "the last one ended"


def egress_evidence(egress: Egress) -> tuple[Evidence, ...]:
    return noted(
        ("egress_start", egress.phase, egress.intended_at),
        ("livekit_egress_id", egress.external_id, egress.intended_at),
        ("egress_status", egress.status, egress.status_since),
        ("egress_fault", egress.fault, egress.changed_at),
        ("egress_error", egress.error, egress.observed_at),
        *((f"output_{output.name or 'live_stream'}", output.state, egress.observed_at) for output in egress.outputs),
    )


def destinations(facts: Facts) -> tuple[PartHealth, ...]:
    states = {each.name: each for each in facts.broadcast.status.destinations}
    return tuple(
        resting(facts, ChainPart.DESTINATION, each.name) or _destination(facts, each, states.get(each.name))
        for each in facts.broadcast.spec.destinations
    )


def _destination(facts: Facts, destination: Destination, status: DestinationStatus | None) -> PartHealth:
    part = PartHealth(part=ChainPart.DESTINATION, name=destination.name, state=HealthState.IDLE, reason="IDLE")
    current = facts.view.stream if destination.carrier is Carrier.MUX else facts.view.egress
    if status is None or current is None:
        return part
    states = {
        DestinationState.IDLE: HealthState.IDLE,
        DestinationState.CONNECTING: HealthState.PENDING,
        DestinationState.ACTIVE: HealthState.OK,
        DestinationState.FAILED: HealthState.DOWN,
    }
    told = replace(part, state=states[status.state], reason=status.state.name, message=status.message)
    return told if told.state in (HealthState.IDLE, HealthState.DOWN) else believed(facts, current, told)
