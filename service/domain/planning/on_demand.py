"""From what a pass knows of a broadcast to the inputs of the decision about its delivery. Pure."""

from datetime import datetime

from service.domain.audience.watching import Watching
from service.domain.broadcast import Broadcast, IdlePolicy, RecordingPolicy
from service.domain.delivery import Inputs, Limits
from service.domain.resource_set import ResourceSet
from service.domain.timing import Timing


def inputs_of(
    broadcast: Broadcast, resource_set: ResourceSet, now: datetime, timing: Timing, watching: Watching
) -> Inputs:
    """*broadcast*: of the policy ON_DEMAND."""
    spec, room = broadcast.spec, resource_set.room
    kept = spec.recording_policy is RecordingPolicy.KEEP and spec.idle_policy is IdlePolicy.KEEP_RECORDING
    return Inputs(
        now=now,
        before=broadcast.delivery.decided,
        watching=watching,
        limits=Limits(
            linger_s=timing.linger_s if spec.linger_s is None else spec.linger_s,
            window_s=timing.audience_window_s,
            min_run_s=timing.min_run_s,
            stale_s=timing.audience_stale_s,
            hold_s=timing.audience_hold_s,
            warm_s=timing.warm_s,
            flap_s=timing.flap_s,
            starts=timing.flap_starts,
        ),
        running=resource_set.egress is not None,
        host=room is not None and bool(room.host_publishing),
        recording=kept and broadcast.live_time is not None,
        scheduled_at=spec.scheduled_start_time,
    )
