"""status_of(): the state and the status that callers are told, from the resources. Pure.

No other module decides a state.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import (
    Broadcast,
    Carrier,
    Condition,
    ConditionType,
    DeliveryPolicy,
    DestinationState,
    DestinationStatus,
    EndReason,
    FallbackMode,
    PlaybackPolicy,
    ReasonOfCondition,
    State,
    Status,
    Target,
)
from service.domain.destinations import with_failures, with_relayed_failures
from service.domain.planning.steps import Plan
from service.domain.provider import OWNER, ROOMS, UNREACHABLE, reason_away
from service.domain.reasons import Blocked, ConditionReason
from service.domain.reporting.handle import with_handle
from service.domain.resource_set import ResourceSet, output_changes, unwatched
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    OutputState,
    Phase,
    Resource,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.sentences import clock, dated
from service.domain.situation import Availability
from service.domain.timing import Timing
from service.domain.validation import alike_of

_Fact = tuple[bool | None, ReasonOfCondition, str]
"""Whether a condition is met (None: unknown), why, and a message for people."""


def state_of(
    broadcast: Broadcast, resources: Sequence[AnyResource], availability: Availability | None = None
) -> tuple[State, str]:
    """The state and its reason. The reason is empty where nothing is to be explained."""
    resource_set = ResourceSet(resources)
    match broadcast.target:
        case Target.CREATED:
            waits = broadcast.spec.scheduled_start_time is not None
            return State.CREATED, ConditionReason.SCHEDULED.value if waits else ""
        case Target.ENDED:
            reason = broadcast.end_reason or EndReason.STOPPED
            if resource_set.left:
                return State.STOPPING, reason
            return (State.FAILED if reason.failed else State.ENDED), reason
        case Target.LIVE:
            return _live_state(broadcast, resource_set, availability or Availability())


def _live_state(broadcast: Broadcast, resource_set: ResourceSet, availability: Availability) -> tuple[State, str]:
    outages = availability.outages
    away = next((reason_away(provider, outages[provider]) for provider in UNREACHABLE if provider in outages), "")
    if resource_set.playable:
        # While a provider does not answer, the broadcast stays LIVE as it was seen last, with the outage as the reason.
        # So it does while the playlist cannot be seen.
        return State.LIVE, away or _out_of_sight(resource_set.stream)
    _, reason, _ = _playable(broadcast, resource_set, availability)
    if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
        return State.INTERRUPTED, FallbackMode.DIRECT_WEBRTC
    there = _there(resource_set.room) and _there(resource_set.stream)
    if broadcast.live_time is not None and not (there and _idles(broadcast)):
        return State.INTERRUPTED, reason
    if there:
        return State.READY, reason
    return State.STARTING, away


def _idles(broadcast: Broadcast) -> bool:
    """Whether nothing is playable because nobody watched, which is no interruption: nobody watches now, or a viewer
    came and the egress that was started is not playable yet.
    """
    on_demand = broadcast.spec.delivery_policy is DeliveryPolicy.ON_DEMAND
    return on_demand and (unwatched(broadcast) or broadcast.state is State.READY)


def status_of(
    broadcast: Broadcast,
    resources: Sequence[AnyResource],
    plan: Plan | None,
    now: datetime,
    availability: Availability | None = None,
    *,
    timing: Timing | None = None,
) -> tuple[State, Status]:
    """*plan*: the steps and waits that follow from the same rows; None: nothing was planned, and the generation that
    was observed stays. *now*: of the database's clock, the time of every transition that is found.
    """
    resource_set, availability = ResourceSet(resources), availability or Availability()
    state, reason = state_of(broadcast, resources, availability)
    before = broadcast.status
    stream, egress, room = resource_set.stream, resource_set.egress, resource_set.room
    at_rest = state.at_rest
    recordings = (
        *(recording for each in resource_set.streams for recording in each.recordings),
        *(each.recording for each in resource_set.uploads if each.recording is not None),
    )
    moved = state is not broadcast.state
    status = Status(
        state_reason=reason,
        state_time=now if moved or before.state_time is None else before.state_time,
        observed_generation=_observed_generation(broadcast, resource_set, plan),
        conditions=() if state is State.CREATED else _conditions(broadcast, resource_set, plan, now, availability),
        playback_id=stream.playback_id if stream is not None and not at_rest else "",
        destinations=tuple(_destinations(broadcast, resource_set, now, timing or Timing())),
        room_sid=room.sid if room is not None else "",
        egress_id=next((each.external_id for each in (egress, _told_to_stop(resource_set)) if each is not None), ""),
        stream_id=stream.external_id if stream is not None else "",
        asset_id=stream.active_asset_id if stream is not None else "",
        recordings=recordings,
        last_error=before.last_error,
        next_attempt_time=None if plan is None else plan.wait_until,
        playback_handle=before.playback_handle,
    )
    return state, with_handle(broadcast, replace(broadcast, state=state, status=status), now).status


def same_but_for_time(left: Status, right: Status) -> bool:
    """Whether the two differ in nothing but the time of the next attempt. That alone is not worth an event."""
    return replace(left, next_attempt_time=None) == replace(right, next_attempt_time=None)


def _there(resource: Resource | None) -> bool:
    return resource is not None and resource.phase is Phase.PRESENT


def _observed_generation(broadcast: Broadcast, resource_set: ResourceSet, plan: Plan | None) -> int:
    """The generation of the spec that the providers have: the newest one if no step is left that brings it to them."""
    egress, stream = resource_set.egress, resource_set.stream
    behind = egress is not None and (
        egress.layout != broadcast.spec.layout or output_changes(broadcast, egress) != ((), ())
    )
    if broadcast.target is Target.LIVE and stream is not None:
        behind = behind or stream.unnamed or stream.title != broadcast.spec.title
    if broadcast.target is Target.CREATED or behind or plan is None:
        return broadcast.status.observed_generation
    return broadcast.generation


def _conditions(
    broadcast: Broadcast, resource_set: ResourceSet, plan: Plan | None, now: datetime, availability: Availability
) -> tuple[Condition, ...]:
    blocked = plan.blocked if plan is not None else Blocked.NOTHING
    facts: dict[ConditionType, _Fact] = {
        ConditionType.ROOM_READY: _forgotten(resource_set.room)
        or _listed(resource_set.room, _existence(resource_set.room)),
        ConditionType.STREAM_READY: _listed(resource_set.stream, _existence(resource_set.stream)),
        ConditionType.HOST_PUBLISHING: _confirmed(resource_set.room, _host(resource_set), availability),
        ConditionType.EGRESS_RUNNING: _confirmed(
            resource_set.egress,
            _leaving(resource_set, blocked) or _listed(resource_set.egress, _egress(broadcast, resource_set, blocked)),
            availability,
        ),
        ConditionType.INGEST_ACTIVE: _confirmed(resource_set.stream, _ingest(resource_set.stream), availability),
        ConditionType.PLAYABLE: _playable(broadcast, resource_set, availability),
    }
    earlier = {condition.type: condition for condition in broadcast.status.conditions}
    conditions: list[Condition] = []
    for type_, (met, reason, message) in facts.items():
        last = earlier.get(type_)
        since = last.transition_time if last is not None and last.met is met else now
        conditions.append(Condition(type=type_, met=met, reason=reason, message=message, transition_time=since))
    return tuple(conditions)


def _confirmed(resource: Resource | None, fact: _Fact, availability: Availability) -> _Fact:
    """*fact*, or unknown if it was seen at *resource* and the provider of that does not answer any more. A fact about a
    missing or disabled resource stays: no provider is needed to know it.
    """
    if resource is None:
        return fact
    provider = OWNER[resource.kind]
    outage = availability.outages.get(provider)
    if outage is None or fact[0] is None or not _there(resource) or _disabled(resource):
        return fact
    if outage.refuses_us:
        return None, reason_away(provider, outage), f"our credentials are refused since {dated(outage.since)}"
    return None, reason_away(provider, outage), f"no answer since {dated(outage.since)} {outage.code}".rstrip()


def _listed(resource: Resource | None, fact: _Fact) -> _Fact:
    """*fact*, unless the last look should have shown *resource* and did not: then nobody knows."""
    if resource is None or resource.absent_since is None or not _there(resource):
        return fact
    return None, ConditionReason.NOT_LISTED, f"not listed since {dated(resource.absent_since)}"


def _forgotten(room: Room | None) -> _Fact | None:
    """The fact about a room whose provider contradicts itself about it. None: it does not."""
    if room is None or room.forgotten_at is None or room.phase is Phase.GONE:
        return None
    since = dated(room.forgotten_at)
    message = f"{ROOMS.display_name} says that there is none, and answers a create with it, since {since}"
    return None, ConditionReason.FORGOTTEN, message


def _disabled(resource: Resource | None) -> bool:
    return isinstance(resource, Stream) and resource.disabled


def _existence(resource: Resource | None) -> _Fact:
    if resource is None:
        return False, ConditionReason.ABSENT, ""
    match resource.phase:
        case Phase.PRESENT if isinstance(resource, Stream) and resource.retired:
            return False, ConditionReason.DISABLED, "it is deleted when the slowest viewer has seen the end"
        case Phase.PRESENT:
            return True, ConditionReason.PRESENT, ""
        case Phase.INTENDED | Phase.UNKNOWN:
            return None, ConditionReason.UNKNOWN, "created, and no answer came: it is being looked for"
        case Phase.DELETING:
            return False, ConditionReason.DELETING, ""
        case Phase.GONE:
            return False, ConditionReason.ABSENT, ""


def _host(resource_set: ResourceSet) -> _Fact:
    room = resource_set.room
    if room is None or room.phase is not Phase.PRESENT:
        return False, ConditionReason.NO_ROOM, ""
    if room.host_publishing is None and (forgotten := _forgotten(room)) is not None:
        return forgotten
    if room.host_publishing is None:
        return None, ConditionReason.NOT_OBSERVED, "nobody looked yet"
    if room.host_publishing:
        return True, ConditionReason.PUBLISHING, ""
    return False, ConditionReason.NO_HOST, "nobody publishes in the room"


def _no_egress(broadcast: Broadcast, resource_set: ResourceSet, blocked: Blocked) -> _Fact:
    if unwatched(broadcast):
        return False, ConditionReason.NO_VIEWER, "nobody watches: the next viewer starts an egress"
    last = resource_set.egresses[-1] if resource_set.egresses else None
    return False, blocked or ConditionReason.NOT_RUNNING, last.error if last is not None else ""


def _egress(broadcast: Broadcast, resource_set: ResourceSet, blocked: Blocked) -> _Fact:
    egress = resource_set.egress
    if egress is None:
        return _no_egress(broadcast, resource_set, blocked)
    if egress.unresolved:
        return None, ConditionReason.UNKNOWN, "started, and no answer came: it is being looked for"
    if egress.delivering:
        return True, ConditionReason.DELIVERING, ""
    if egress.status is EgressStatus.ACTIVE:
        output = next((output for output in egress.outputs if output.name == ""), None)
        if output is None:
            return False, ConditionReason.CONNECTING, ""
        lost = output.state in (OutputState.FAILED, OutputState.FINISHED)
        return False, ConditionReason.DISCONNECTED if lost else ConditionReason.CONNECTING, output.message
    return False, egress.status or ConditionReason.STARTING, egress.error


def _told_to_stop(resource_set: ResourceSet) -> Egress | None:
    """The last egress that was told to stop and was not seen to end. None: there is none."""
    return next((egress for egress in reversed(resource_set.egresses) if egress.phase is Phase.DELETING), None)


def _leaving(resource_set: ResourceSet, blocked: Blocked) -> _Fact | None:
    """The fact about an egress that was told to stop while no other one is to deliver. None: there is none."""
    leaving = _told_to_stop(resource_set)
    if resource_set.egress is not None or leaving is None:
        return None
    if leaving.failures:
        return None, ConditionReason.STOP_FAILED, f"told to stop {leaving.failures} times in vain: it may still run"
    return False, blocked or ConditionReason.STOPPING, leaving.error


def _ingest(stream: Stream | None) -> _Fact:
    if stream is None:
        return False, ConditionReason.NO_STREAM, ""
    if stream.disabled:
        # The service disabled it after the last look, so the status of that look is out of date.
        return False, ConditionReason.DISABLED, ""
    match stream.status:
        case StreamStatus.ACTIVE:
            return True, ConditionReason.ACTIVE, ""
        case StreamStatus.IDLE:
            return False, ConditionReason.IDLE, ""
        case StreamStatus.DISABLED:
            return False, ConditionReason.DISABLED, ""
        case StreamStatus.UNKNOWN:
            return None, ConditionReason.NOT_OBSERVED, ""


def _out_of_sight(stream: Stream | None) -> str:
    unseen = stream is not None and stream.unseen_since is not None
    return ConditionReason.PLAYBACK_UNREACHABLE if unseen else ""


def _movement(stream: Stream | None, policy: PlaybackPolicy, availability: Availability) -> _Fact:
    if policy is PlaybackPolicy.SIGNED and not availability.signing:
        return None, ConditionReason.SIGNED, "the service has no viewer's token to look at the playlist with"
    if stream is not None and stream.stalled_since is None and stream.unseen_since is not None:
        message = f"the playlist cannot be seen since {clock(stream.unseen_since)}: {stream.unseen}"
        return None, ConditionReason.PLAYBACK_UNREACHABLE, message
    if stream is None or stream.stalled_since is None:
        return True, ConditionReason.PLAYING, ""
    message = f"the playlist does not move on since {clock(stream.stalled_since)}"
    return False, ConditionReason.PLAYLIST_STALLED, message


def _playable(broadcast: Broadcast, resource_set: ResourceSet, availability: Availability) -> _Fact:
    facts = (
        _confirmed(resource_set.room, _host(resource_set), availability),
        _confirmed(resource_set.egress, _egress(broadcast, resource_set, Blocked.NOTHING), availability),
        _confirmed(resource_set.stream, _ingest(resource_set.stream), availability),
        _movement(resource_set.stream, broadcast.spec.playback_policy, availability),
    )
    for met, reason, message in sorted(facts, key=lambda fact: fact[0] is None):
        if not met:
            return met, reason, message
    return True, ConditionReason.PLAYING, ""


def _destinations(
    broadcast: Broadcast, resource_set: ResourceSet, now: datetime, timing: Timing
) -> Sequence[DestinationStatus]:
    egress, stream = resource_set.egress, resource_set.stream
    pushed = egress.outputs if egress is not None else ()
    relayed = stream.relays if stream is not None else ()
    states = {
        OutputState.CONNECTING: DestinationState.CONNECTING,
        OutputState.ACTIVE: DestinationState.ACTIVE,
        OutputState.FAILED: DestinationState.FAILED,
        OutputState.FINISHED: DestinationState.IDLE,
    }
    told: list[DestinationStatus] = []
    for each in broadcast.spec.destinations:
        sent = pushed if each.carrier is Carrier.EGRESS else relayed
        output = next((output for output in sent if output.name == each.name), None)
        state = states[output.state] if output is not None else DestinationState.IDLE
        told.append(
            DestinationStatus(name=each.name, state=state, message=output.message if output is not None else "")
        )
    relays = {each.name for each in broadcast.spec.carried_by(Carrier.STREAM)}
    return [
        with_relayed_failures(each, broadcast, now)
        if each.name in relays
        else with_failures(_for_sure(each, broadcast, told), broadcast, egress, now, timing)
        for each in told
    ]


def _for_sure(one: DestinationStatus, broadcast: Broadcast, told: Sequence[DestinationStatus]) -> DestinationStatus:
    """*one*, or that it is one of several where the provider shows them alike and any of them failed. New ones are
    refused (`look_alikes`); a row of an earlier version may have them.
    """
    alike = alike_of(one.name, broadcast.spec.destinations, broadcast.destination_keys)
    failed = [each for each in told if each.name in alike and each.state is DestinationState.FAILED]
    if len(alike) <= 1 or not failed:
        return one
    names = " and ".join(sorted(alike))
    message = f"one of {names} failed, and their keys look alike, so it is not known which: {failed[0].message}"
    return replace(one, state=DestinationState.FAILED, message=message.removesuffix(": "))
