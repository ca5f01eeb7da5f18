"""decide(): whether an egress is to run for the viewers of a broadcast of the policy ON_DEMAND. Pure.

idle --(a viewer gave a sign within the window)-----------------> running, VIEWERS
idle --(the scheduled start is near)----------------------------> running, SCHEDULE
running --(no sign for the linger time)-------------------------> idle, NO_VIEWER
     unless it runs for less than the minimum run --------------> running, MIN_RUN
     or a recording is not to be interrupted -------------------> running, RECORDING
     or nobody knows whether somebody watches ------------------> running, HOLD
running --(too many starts in an hour)--------------------------> running until the end, FLAPPING

Invariants, each a property test:
- nothing stops while a viewer may be there: one who gave a sign within the window, or one whose sign may be missing;
- nothing runs for ever without a viewer but for FLAPPING, RECORDING and HOLD;
- a later sign of a viewer never turns a run into a stop;
- a decision follows from its inputs alone, so a stored one replays to itself, and made again from its own result at
  the same moment it changes nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.broadcast import seconds
from service.domain.delivery import Decided, DeliveryReason, Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    decided: Decided
    """The same as before: nothing changes."""
    until: datetime | None = None
    """The next moment at which it may be another one although no viewer comes. None: only a viewer changes it, or
    nothing does.
    """


def decide(inputs: Inputs) -> Decision:
    before, now = inputs.before, inputs.now
    if before.since is None and inputs.running:
        # The policy was another one until now, and there may be viewers who were never counted for it.
        before = replace(before, wanted=True, reason=DeliveryReason.VIEWERS, since=now)
    if before.wanted:
        reason, until = _running(inputs, before)
        wanted = reason is not DeliveryReason.NO_VIEWER
        since = before.since if wanted else now
        return Decision(decided=replace(before, wanted=wanted, reason=reason, since=since), until=until)
    if _begins(inputs):
        return _begun(inputs)
    warm = _warm(inputs)
    until = warm[0] if warm is not None and now < warm[0] else None
    return Decision(decided=replace(before, reason=DeliveryReason.NO_VIEWER, since=before.since or now), until=until)


def linger_s(inputs: Inputs) -> float:
    """Seconds from the last sign of a viewer to the stop: not less than a viewer who watches may be silent for."""
    return max(inputs.limits.linger_s, inputs.limits.window_s)


def _begins(inputs: Inputs) -> bool:
    seen, warm = inputs.watching.last_seen, _warm(inputs)
    watched = seen is not None and inputs.now < seen + seconds(inputs.limits.window_s)
    return watched or (warm is not None and warm[0] <= inputs.now < warm[1])


def _begun(inputs: Inputs) -> Decision:
    """A run that begins now."""
    now, limits = inputs.now, inputs.limits
    starts = tuple(each for each in inputs.before.starts if now - seconds(limits.flap_s) < each <= now)
    begun = Decided(
        wanted=True, reason=DeliveryReason.VIEWERS, since=now, starts=(*starts, now) if inputs.host else starts
    )
    if len(begun.starts) >= limits.starts:
        return Decision(decided=replace(begun, reason=DeliveryReason.FLAPPING))
    reason, until = _running(inputs, begun)
    return Decision(decided=replace(begun, reason=reason), until=until)


def _running(inputs: Inputs, before: Decided) -> tuple[DeliveryReason, datetime | None]:
    """The reason to run on, or NO_VIEWER, and the moment to which it holds."""
    now, seen, warm = inputs.now, inputs.watching.last_seen, _warm(inputs)
    if before.reason is DeliveryReason.FLAPPING:
        return DeliveryReason.FLAPPING, None
    if seen is not None and now < (stop_at := seen + seconds(linger_s(inputs))):
        return DeliveryReason.VIEWERS, stop_at
    if warm is not None and warm[0] <= now < warm[1]:
        return DeliveryReason.SCHEDULE, warm[1]
    return _unwatched(inputs, before)


def _unwatched(inputs: Inputs, before: Decided) -> tuple[DeliveryReason, datetime | None]:
    """The same where nobody was seen for the linger time."""
    ran = (before.since or inputs.now) + seconds(inputs.limits.min_run_s)
    if inputs.recording:
        return DeliveryReason.RECORDING, None
    if inputs.now < ran:
        return DeliveryReason.MIN_RUN, ran
    if (doubted_until := _doubted_until(inputs)) is not None:
        return DeliveryReason.HOLD, doubted_until
    return DeliveryReason.NO_VIEWER, None


def _warm(inputs: Inputs) -> tuple[datetime, datetime] | None:
    """From when until when an egress runs without a viewer, because the show is to begin. None: nothing says so."""
    if inputs.scheduled_at is None:
        return None
    return (
        inputs.scheduled_at - seconds(inputs.limits.warm_s),
        inputs.scheduled_at + seconds(linger_s(inputs)),
    )


def _doubted_until(inputs: Inputs) -> datetime | None:
    """When to ask again, because signs of viewers may be missing now. None: nobody is there, as is known."""
    now, watching, limits = inputs.now, inputs.watching, inputs.limits
    if watching.counted_up_to is None or now - watching.counted_up_to > seconds(limits.stale_s):
        return now + seconds(limits.stale_s)
    if watching.counted_since is not None and now < (held := watching.counted_since + seconds(limits.hold_s)):
        return held
    return None
