"""What a record tells callers: the state, the status, the times and the events that follow from a situation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.domain.broadcast import Broadcast, EndReason, Fallback, ProviderTrouble, State, Status, Target
from service.domain.lifecycle import Event
from service.domain.ports import Heard
from service.domain.resources import AnyResource
from service.domain.status import same_but_for_time
from service.domain.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One broadcast as it is stored at one moment of the database's clock."""

    broadcast: Broadcast
    resources: tuple[AnyResource, ...]
    now: datetime
    around: Surroundings = field(default_factory=Surroundings)
    read: float = 0.0
    """Our own clock, the event loop's, just before it was read."""
    heard: tuple[tuple[int, Heard], ...] = ()
    """Webhooks about it that no pass has taken into account yet, by their number in the inbox."""


Derive = Callable[[Situation], tuple[State, Status]]


def with_outcome(
    stored: Broadcast,
    *,
    trouble: ProviderTrouble | None,
    recovered: str,
    end: EndReason | None,
    fallback: Fallback | None,
) -> Broadcast:
    """*trouble* becomes `last_error`; *recovered* is the provider whose trouble is over. *end* sets the target."""
    broadcast = stored
    last = stored.status.last_error
    if trouble is not None:
        broadcast = replace(broadcast, status=replace(broadcast.status, last_error=trouble))
    elif last is not None and last.provider == recovered and not (stored.end_reason and stored.end_reason.failed):
        # What a broadcast failed of is not overcome by taking it down.
        broadcast = replace(broadcast, status=replace(broadcast.status, last_error=None))
    if end is not None and stored.target is not Target.ENDED:
        broadcast = replace(broadcast, target=Target.ENDED, end_reason=end)
    if fallback is not None:
        broadcast = replace(broadcast, fallback=fallback)
    return broadcast


def tell(
    stored: Broadcast, situation: Situation, events: Sequence[Event], derive: Derive
) -> tuple[Broadcast, tuple[Event, ...]]:
    """The broadcast as it is to be stored, and the events to append. No events: nothing is to be written."""
    broadcast, now = situation.broadcast, situation.now
    state, status = derive(situation)
    told = [*events]
    if state is not stored.state:
        told.append(Event(reason=f"STATE_{state}", message=status.state_reason))
    if not told and same_but_for_time(status, stored.status) and broadcast.target is stored.target:
        return stored, ()
    if not told:
        told.append(Event(reason="STATUS_CHANGED", message=_differences(stored.status, status)))
    broadcast = replace(
        broadcast,
        state=state,
        status=status,
        update_time=now,
        ready_time=broadcast.ready_time or (now if state in (State.READY, State.LIVE) else None),
        live_time=broadcast.live_time or (now if state is State.LIVE else None),
        end_time=broadcast.end_time or (now if state.over else None),
    )
    return broadcast, tuple(told)


def _differences(before: Status, after: Status) -> str:
    earlier = {condition.type: condition for condition in before.conditions}
    changed = [
        f"{condition.type} {condition.reason}"
        for condition in after.conditions
        if condition.type not in earlier or earlier[condition.type].reason != condition.reason
    ]
    if before.last_error != after.last_error and after.last_error is not None:
        changed.append(f"{after.last_error.provider}: {after.last_error.message}")
    others = [
        name
        for name in ("playback_id", "destinations", "room_sid", "egress_id", "stream_id", "asset_id", "recordings")
        if getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(changed + others)
