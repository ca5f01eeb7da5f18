"""to_observe(): the resources to look at before planning. Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime

from service.domain.broadcast import Broadcast, Target, seconds
from service.domain.resource_set import ResourceSet, host_deadline, next_recording_look
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.timing import Timing


def to_observe(
    broadcast: Broadcast, resources: Sequence[AnyResource], now: datetime, timing: Timing
) -> frozenset[tuple[Kind, int]]:
    """The resources to look at before planning, as (kind, ordinal).

    These are resources of unknown existence, resources that are becoming or ending, resources that the observer saw
    to differ from their rows, and resources that were not looked at for `replan_s`.
    """
    look = _Look(broadcast, ResourceSet(resources), now, timing)
    return frozenset((resource.kind, resource.ordinal) for resource in resources if look.wanted(resource))


def suspected_since(
    broadcast: Broadcast, resources: Sequence[AnyResource], which: Collection[tuple[Kind, int]]
) -> datetime | None:
    """Since when one of *which*, as (kind, ordinal), is not known to be as stored: a webhook or the observer said that
    it changed, or a list lacked it, and no look answered that yet. None: a look would be routine.
    """
    since: list[datetime] = []
    for each in resources:
        if (each.kind, each.ordinal) not in which:
            continue
        if each.absent_since is not None:
            since.append(each.absent_since)
        dirty = broadcast.dirty_at
        if dirty is not None and (each.observed_at or each.changed_at) < dirty:
            since.append(dirty)
    return min(since, default=None)


class _Look:
    def __init__(self, broadcast: Broadcast, resource_set: ResourceSet, now: datetime, timing: Timing) -> None:
        self.broadcast = broadcast
        self.resource_set = resource_set
        self.now = now
        self.timing = timing

    def wanted(self, resource: AnyResource) -> bool:  # noqa: PLR0911 - one answer a phase
        match resource.phase:
            case Phase.INTENDED | Phase.UNKNOWN if isinstance(resource, Upload):
                return self.now >= next_recording_look(resource.intended_at, resource.observed_at)
            case Phase.INTENDED | Phase.UNKNOWN:
                # A room needs no look: it is created again.
                return not isinstance(resource, Room) and self.older(resource, self.timing.lookup_s)
            case Phase.DELETING:
                return self.leaving(resource)
            case Phase.PRESENT if isinstance(resource, Upload):
                return self.pending(resource)
            case Phase.GONE if isinstance(resource, Stream) and self.broadcast.target is Target.ENDED:
                return self.pending(resource)
            case Phase.PRESENT if self.broadcast.target is Target.LIVE:
                return self.suspect(resource) or self.on_its_way(resource)
            case Phase.PRESENT if self.broadcast.target is Target.ENDED:
                if isinstance(resource, Stream) and resource.only_recordings_matter:
                    return self.pending(resource)
                # A step may fail because its resource is gone.
                return resource.failures > 0 and self.older(resource, self.timing.lookup_s)
            case _:
                return False

    def pending(self, resource: Stream | Upload) -> bool:
        """Whether a recording that is still being prepared is to be looked at."""
        since = resource.changed_at
        if isinstance(resource, Stream):
            settled, since = all(recording.settled for recording in resource.recordings), resource.ended_at or since
        else:
            settled = resource.recording is None or resource.recording.settled
        if settled or self.broadcast.deleted:
            return False
        dirty = self.broadcast.dirty_at
        asked = resource.observed_at or since
        return asked < (dirty or asked) or self.now >= next_recording_look(since, resource.observed_at)

    def older(self, resource: AnyResource, age_s: float) -> bool:
        """Whether it was not looked at for so long, or never."""
        return resource.observed_at is None or self.now - resource.observed_at >= seconds(age_s)

    def settled_for(self, resource: AnyResource, age_s: float) -> bool:
        """The same, and what was just created is as good as looked at."""
        return self.now - (resource.observed_at or resource.changed_at) >= seconds(age_s)

    def leaving(self, resource: AnyResource) -> bool:
        if resource.acked and (resource.observed_at is None or resource.observed_at < resource.changed_at):
            return True
        if not self.older(resource, self.timing.lookup_s):
            return False
        # An egress that never answers a stop: whether it ended is seen in the list only.
        overdue = self.now >= resource.changed_at + seconds(self.timing.lookup_s)
        return resource.acked or (isinstance(resource, Egress | LocalRecording) and overdue)

    def suspect(self, resource: AnyResource) -> bool:
        dirty = self.broadcast.dirty_at
        # A new egress that the list does not show yet would be taken for one that ended.
        if isinstance(resource, Egress | LocalRecording) and self.now < resource.changed_at + seconds(
            self.timing.list_lag_s
        ):
            return False
        if resource.absent_since is not None:
            return self.older(resource, self.timing.lookup_s)
        if dirty is not None and (resource.observed_at or resource.changed_at) < dirty:
            return True
        retry = resource.retry_at
        if retry is not None and self.now >= retry and (resource.observed_at is None or resource.observed_at < retry):
            # A failed call may have had its effect all the same, or part of it.
            return True
        return self.settled_for(resource, self.timing.replan_s)

    def on_its_way(self, resource: AnyResource) -> bool:
        match resource:
            case Egress():
                return not resource.delivering and self.settled_for(resource, self.timing.watch_s)
            case LocalRecording():
                running = resource.status is EgressStatus.ACTIVE
                return not running and self.settled_for(resource, self.timing.watch_s)
            case Upload():
                return False
            case Stream():
                egress = self.resource_set.egress
                return (
                    egress is not None
                    and egress.status is EgressStatus.ACTIVE
                    and resource.status is not StreamStatus.ACTIVE
                    and self.settled_for(resource, self.timing.ingest_watch_s)
                )
            case Room():
                return self.host_awaited(resource)

    def host_awaited(self, room: Room) -> bool:
        every = self.resource_set.roll_call_s(self.timing)
        if every is not None and self.older(room, every):
            return True
        if room.host_publishing is None:
            return self.older(room, self.timing.lookup_s)
        # A broadcast is not ended because of an old look.
        deadline = host_deadline(self.broadcast, self.resource_set, self.timing)
        return (
            deadline is not None and self.now >= deadline and (room.observed_at is None or room.observed_at < deadline)
        )
