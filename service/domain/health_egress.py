"""Health of the egress, and of the destinations it sends to."""

from dataclasses import replace

from service.domain.broadcast import Carrier, DeliveryPolicy, Destination, DestinationState, DestinationStatus, seconds
from service.domain.chain import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.facts import Facts
from service.domain.health_ground import believed, resting
from service.domain.resources import Egress, EgressStatus, OutputState
from service.domain.timing import Timing
from service.domain.view import wants_egress


def egress(facts: Facts, timing: Timing) -> PartHealth:
    if (rest := resting(facts, ChainPart.EGRESS)) is not None:
        return rest
    broadcast, view = facts.broadcast, facts.view
    current = view.egress
    last = view.egresses[-1] if view.egresses else None
    wanted = wants_egress(broadcast, view)
    if current is None and wanted:
        return _missing(facts, last)
    if current is None or not wanted:
        manual = broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL and not broadcast.on_air
        reason = "NOT_ON_AIR" if manual else "NOT_WANTED"
        message = "it is started when SetOnAir is called" if manual else "it is started when a host publishes"
        since = last.changed_at if last is not None else broadcast.ready_time
        return PartHealth(part=ChainPart.EGRESS, state=HealthState.IDLE, reason=reason, message=message, since=since)
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
    if egress.delivering:
        return replace(part, state=HealthState.OK, reason="DELIVERING", message="")
    if egress.status is EgressStatus.ACTIVE:
        output = next((output for output in egress.outputs if output.name == ""), None)
        if output is not None and output.state in (OutputState.FAILED, OutputState.FINISHED):
            return replace(part, state=HealthState.DOWN, reason="DISCONNECTED", message=output.message)
        return replace(part, reason="CONNECTING", message="it connects to the live stream")
    if egress.status is EgressStatus.ENDING:
        return replace(part, state=HealthState.DOWN, reason="ENDING", message=egress.error)
    late = facts.now >= egress.intended_at + seconds(timing.egress_start_s / 2)
    return replace(part, state=HealthState.DEGRADED, reason="STARTING_SLOWLY") if late else part


def _missing(facts: Facts, last: Egress | None) -> PartHealth:
    """One is wanted and none is there."""
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
        message=last.error or ("the last one ended" if failed else "it is about to be started"),
        since=last.changed_at,
        observed_at=last.observed_at,
        evidence=egress_evidence(last),
    )


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
