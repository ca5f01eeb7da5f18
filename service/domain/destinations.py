"""When a destination that failed is tried again, and when it is given up. Pure.

LiveKit tries a connection that broke again for 30 s at most, and one that never stood not at all; then the egress has
lost that destination for good (livekit/egress pkg/pipeline/builder/stream.go). The service gives it to the egress
again, ever more rarely. One that failed `destination_failures` times within `destination_window_s` is stopped: nothing
is sent to it any more, by this egress or the next, until a person wants it tried again (WakeBroadcast), or it is
removed and added.

The memory of the failures is the status of the destination, so it lasts over egresses and goes with the destination. A
failure is an output that the record of the egress shows as failed: the record keeps every one.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import Broadcast, DestinationState, DestinationStatus, seconds
from service.domain.resources import Egress, OutputState
from service.domain.timing import Timing


def with_failures(
    told: DestinationStatus, broadcast: Broadcast, egress: Egress | None, now: datetime, timing: Timing
) -> DestinationStatus:
    """*told*, which has state and message of now, with the memory of its failures. *egress*: the one that sends to it.
    None: none does.
    """
    before = next((each for each in broadcast.status.destinations if each.name == told.name), None)
    told = _remembering(told, before)
    if egress is None:
        return _stopped_if(told, before is not None and stopped(before, broadcast))
    counted = _failed_outputs(egress, told.name)
    new = counted - told.counted if told.egress == egress.ordinal else counted
    if before is None:
        # Nothing is remembered, so how many of them are new is not known.
        new = min(new, 1)
    # A report may lack what an earlier one had.
    highest = max(counted, told.counted) if told.egress == egress.ordinal else counted
    told = replace(told, egress=egress.ordinal, counted=highest)
    if new > 0:
        kept = [moment for moment in told.failed_at if moment > now - seconds(timing.destination_window_s)]
        if _asked_again(broadcast, told.error_time):
            kept = []
        failed_at = (*kept, *[now] * new)[-timing.destination_failures :]
        told = replace(told, failed_at=failed_at, error_time=now, error=told.message or told.error)
        if len(failed_at) >= timing.destination_failures:
            return _stopped_if(told, True)
    return _stopped_if(told, before is not None and stopped(before, broadcast))


def with_relayed_failures(told: DestinationStatus, broadcast: Broadcast, now: datetime) -> DestinationStatus:
    """As `with_failures`, of a destination that the live stream relays to. Its provider tries it again, and the service
    cannot stop it.
    """
    before = next((each for each in broadcast.status.destinations if each.name == told.name), None)
    told = _remembering(told, before)
    if told.state is DestinationState.FAILED and (before is None or before.state is not DestinationState.FAILED):
        told = replace(told, error_time=now, error=told.message)
    return told


def stopped(status: DestinationStatus, broadcast: Broadcast) -> bool:
    """Whether nothing is to be sent to it any more."""
    return status.state is DestinationState.STOPPED and not _asked_again(broadcast, status.error_time)


def stopped_names(broadcast: Broadcast) -> frozenset[str]:
    return frozenset(each.name for each in broadcast.status.destinations if stopped(each, broadcast))


def next_try(status: DestinationStatus, broadcast: Broadcast, timing: Timing) -> datetime | None:
    """When a destination that failed is given to the egress again. None: it is not, or it did not fail."""
    if status.error_time is None or stopped(status, broadcast):
        return None
    if _asked_again(broadcast, status.error_time):
        return status.error_time
    pause = timing.destination_pause_s * 2.0 ** min(max(len(status.failed_at) - 1, 0), 30)
    return status.error_time + seconds(min(pause, timing.destination_longest_pause_s))


def lost_outputs(egress: Egress, names: Sequence[str]) -> list[str]:
    """Those of *names* that *egress* was given and has lost: every output of that name failed."""
    return [
        name
        for name in names
        if name in egress.destinations
        and (states := {output.state for output in egress.outputs if output.name == name})
        and states == {OutputState.FAILED}
    ]


def _failed_outputs(egress: Egress, name: str) -> int:
    return sum(output.name == name and output.state is OutputState.FAILED for output in egress.outputs)


def _remembering(told: DestinationStatus, before: DestinationStatus | None) -> DestinationStatus:
    if before is None:
        return told
    return replace(
        told,
        failed_at=before.failed_at,
        error=before.error,
        error_time=before.error_time,
        egress=before.egress,
        counted=before.counted,
    )


def _stopped_if(told: DestinationStatus, stopped: bool) -> DestinationStatus:  # noqa: FBT001 - one question
    if not stopped:
        return told
    failures = len(told.failed_at)
    message = f"stopped after {failures} failures, the last: {told.error or 'no message'}"
    return replace(told, state=DestinationState.STOPPED, message=message)


def _asked_again(broadcast: Broadcast, error_time: datetime | None) -> bool:
    """Whether a person asked for everything to be tried again since the last failure."""
    retry = broadcast.retry_from
    return retry is not None and error_time is not None and retry > error_time
