"""From a situation to the broadcast that callers are shown: its state, status and times, and the events of the change.

Pure. Invariant: nothing is written without an event, so every change of a broadcast is in its story.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from service.domain.broadcast import (
    Broadcast,
    Condition,
    DestinationState,
    EndReason,
    Fallback,
    ProviderTrouble,
    State,
    Status,
    Target,
)
from service.domain.cost.money import CostLevel
from service.domain.delivery import Delivery
from service.domain.lifecycle import Event
from service.domain.provider import Provider
from service.domain.reasons import EventReason
from service.domain.reporting.status import same_but_for_time
from service.domain.sentences import clock, dated, failed_call
from service.domain.situation import Situation

STATE_ENTERED: Final[Mapping[State, EventReason]] = {
    State.CREATED: EventReason.STATE_CREATED,
    State.STARTING: EventReason.STATE_STARTING,
    State.READY: EventReason.STATE_READY,
    State.LIVE: EventReason.STATE_LIVE,
    State.INTERRUPTED: EventReason.STATE_INTERRUPTED,
    State.STOPPING: EventReason.STATE_STOPPING,
    State.ENDED: EventReason.STATE_ENDED,
    State.FAILED: EventReason.STATE_FAILED,
}
_DESTINATION_SEEN: Final[Mapping[DestinationState, EventReason]] = {
    DestinationState.ACTIVE: EventReason.DESTINATION_ACTIVE,
    DestinationState.FAILED: EventReason.DESTINATION_FAILED,
    DestinationState.STOPPED: EventReason.DESTINATION_STOPPED,
}
"""The states of a destination that have an event of their own."""
Derive = Callable[[Situation], tuple[State, Status]]
"""From what one pass knows to the state and the status of its broadcast."""


def with_outcome(
    stored: Broadcast,
    *,
    trouble: ProviderTrouble | None,
    recovered: Provider | None,
    end: EndReason | None,
    fallback: Fallback | None,
    cost_level: CostLevel | None = None,
    delivery: Delivery | None = None,
    begun: datetime | None = None,
) -> Broadcast:
    """*stored* with the outcome of a step or a look; None leaves that part as it is.

    *trouble*: becomes `last_error`; the same error again keeps the time of the first. *recovered*: the provider that
    answered, whose `last_error` is cleared. *end*: why the broadcast ends; it sets the target, once. *fallback*,
    *delivery*: those from now on. *cost_level*: how near the cost is to its cap, as it is told now.
    *begun*: the scheduled time that is near; it sets the target, unless callers have started, stopped or moved the
    broadcast meanwhile.
    """
    broadcast = stored
    last = stored.status.last_error
    # The error that a broadcast failed with stays, even if the provider answers while it is taken down.
    failed = stored.end_reason is not None and stored.end_reason.failed
    if trouble is not None:
        same = last is not None and replace(last, time=trouble.time) == trouble
        broadcast = replace(broadcast, status=replace(broadcast.status, last_error=last if same else trouble))
    elif last is not None and last.provider == recovered and not failed:
        broadcast = replace(broadcast, status=replace(broadcast.status, last_error=None))
    if end is not None and stored.target is not Target.ENDED:
        broadcast = replace(broadcast, target=Target.ENDED, end_reason=end)
    if begun is not None and stored.target is Target.CREATED and stored.spec.scheduled_start_time == begun:
        broadcast = replace(broadcast, target=Target.LIVE)
    if fallback is not None:
        broadcast = replace(broadcast, fallback=fallback)
    if cost_level is not None:
        broadcast = replace(broadcast, cost_level=cost_level)
    if delivery is not None:
        broadcast = replace(broadcast, delivery=delivery)
    return broadcast


def tell(
    stored: Broadcast, situation: Situation, events: Sequence[Event], derive: Derive
) -> tuple[Broadcast, tuple[Event, ...]]:
    """The broadcast to store, and the events to append. No events: nothing is to be written.

    *stored*: the broadcast in the row. *situation*: what the pass knows now. *events*: those of the step or look, which
    come first. The broadcast is written if there is an event, if the status differs by more than its times, or if the
    target changed.
    """
    broadcast, now = situation.broadcast, situation.now
    state, status = derive(situation)
    told = [*events, *_news(stored.status, status)]
    # Callers write the other starts, and no pass goes on with a target that they changed.
    began = stored.target is Target.CREATED and broadcast.target is Target.LIVE
    if began and (scheduled := broadcast.spec.scheduled_start_time) is not None:
        told.insert(0, Event(reason=EventReason.SCHEDULE_BEGUN, message=dated(scheduled)))
    if state is not stored.state:
        told.append(Event(reason=STATE_ENTERED[state], message=status.state_reason))
    if not told and same_but_for_time(status, stored.status) and broadcast.target is stored.target:
        return stored, ()
    if not told:
        told.append(Event(reason=EventReason.STATUS_CHANGED, message=_differences(stored.status, status)))
    broadcast = replace(
        broadcast,
        state=state,
        status=status,
        update_time=now,
        start_time=now if began else broadcast.start_time,
        ready_time=broadcast.ready_time or (now if state in (State.READY, State.LIVE) else None),
        live_time=broadcast.live_time or (now if state is State.LIVE else None),
        end_time=broadcast.end_time or (now if state.over else None),
    )
    return broadcast, tuple(told)


def _news(before: Status, after: Status) -> list[Event]:
    """The changes of the status that have an event of their own. A call that fails as before adds none."""
    news: list[Event] = []
    error = after.last_error
    if error is not None and error != before.last_error:
        news.append(Event(reason=EventReason.CALL_FAILED, message=failed_call(error)))
    earlier = {destination.name: destination.state for destination in before.destinations}
    for each in after.destinations:
        reason = _DESTINATION_SEEN.get(each.state)
        if each.state is not earlier.get(each.name) and reason is not None:
            message = f"{each.name}: {each.message}" if each.message else each.name
            news.append(Event(reason=reason, message=message))
    return news


def _differences(before: Status, after: Status) -> str:
    """The conditions and fields that changed and what they are now, for the message of STATUS_CHANGED."""
    earlier = {each.type: (each.reason, each.message) for each in before.conditions}
    changed = [_condition(each) for each in after.conditions if (each.reason, each.message) != earlier.get(each.type)]
    others = [say(after) for name, say in FIELDS_TOLD.items() if getattr(before, name) != getattr(after, name)]
    return "; ".join(changed + others)


def _condition(condition: Condition) -> str:
    met = {True: "met", False: "not met", None: "unknown"}[condition.met]
    told = f"{condition.type} is {met} ({condition.reason})"
    return f"{told}: {condition.message}" if condition.message else told


def _named(what: str, id_: str) -> str:
    return f"{what} is {id_}" if id_ else f"{what} is not known any more"


def _handle(status: Status) -> str:
    handle = status.playback_handle
    if handle is None:
        return "how viewers watch is not known any more"
    return f"viewers watch by {handle.kind.upper()} since {clock(handle.since)}, generation {handle.generation}"


FIELDS_TOLD: Final[Mapping[str, Callable[[Status], str]]] = {
    "state_reason": lambda status: (
        f"the reason of the state is {status.state_reason}" if status.state_reason else "the state has no reason now"
    ),
    "state_time": lambda _: "the time of the state is known",
    "observed_generation": lambda status: f"the providers have generation {status.observed_generation} of the spec",
    "playback_id": lambda status: _named("the playback id", status.playback_id),
    "destinations": lambda status: (
        ", ".join(f"destination {each.name} is {each.state}" for each in status.destinations)
        or "no destination is left"
    ),
    "room_sid": lambda status: _named("the sid of the room", status.room_sid),
    "egress_id": lambda status: _named("the id of the egress", status.egress_id),
    "stream_id": lambda status: _named("the id of the live stream", status.stream_id),
    "asset_id": lambda status: _named("the asset that is recorded", status.asset_id),
    "recordings": lambda status: (
        ", ".join(f"recording {each.asset_id} is {each.status}" for each in status.recordings) or "no recording is left"
    ),
    "last_error": lambda status: (
        "no call fails any more" if status.last_error is None else f"a call failed: {failed_call(status.last_error)}"
    ),
    "playback_handle": _handle,
}
"""How each field of the status is told when it changed, but the conditions and the time of the next attempt. A test
holds that every field is here.
"""
