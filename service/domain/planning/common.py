"""The common part of the plan of a running broadcast and of the plan of its end: waits, looks, stops. Pure."""

from datetime import datetime

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast, seconds
from service.domain.cost.cap import Costs
from service.domain.planning.steps import (
    AskForRoom,
    DeleteRoom,
    DeleteStream,
    DeleteUpload,
    Plan,
    SetTitle,
    Step,
    StopEgress,
    StopRecording,
    StreamStep,
    UploadRecording,
    Wait,
    WriteOff,
)
from service.domain.provider import OWNER, STREAMS, Provider
from service.domain.reasons import Action, Blocked, Fault
from service.domain.resource_set import ResourceSet, next_recording_look
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    LocalRecording,
    Phase,
    Room,
    Stream,
    Upload,
)
from service.domain.situation import Availability
from service.domain.timing import Timing

_NOT_LISTED = "no list showed it within its grace"


def retried_since(
    provider: Provider, broadcast: Broadcast, now: datetime, availability: Availability
) -> datetime | None:
    """The latest moment from which calls to *provider* that failed before are made without back-off: it has answered
    every look since, or a person asked for it then. None: there is none.
    """
    moments = (availability.answering_since.get(provider), broadcast.retry_from)
    # A moment to come is of a database clock that was set back.
    return max((moment for moment in moments if moment is not None and moment <= now), default=None)


def back_off_ended(resource: AnyResource, broadcast: Broadcast, now: datetime, availability: Availability) -> bool:
    """Whether the back-off of *resource* is over before its time, because what its call failed for is over. The outputs
    of an egress are not changed again without a look, for a change that failed may have been made in part.
    """
    failed_at, since = resource.failed_at, retried_since(OWNER[resource.kind], broadcast, now, availability)
    changing = isinstance(resource, Egress) and resource.phase is Phase.PRESENT
    return failed_at is not None and since is not None and failed_at < since and not changing


def queued_s(
    resource: Room | Stream, broadcast: Broadcast, now: datetime, timing: Timing, availability: Availability
) -> float:
    """Seconds that the creates up to that of *resource*, and the one that follows a failure of it, have waited for
    their turn in the service until *now*, although they were due. Nothing waits for us while its provider is away.
    """
    provider = OWNER[resource.kind]
    if provider in availability.outages:
        return resource.queued_s
    due_at = resource.retry_at or resource.changed_at
    if back_off_ended(resource, broadcast, now, availability):
        due_at = min(due_at, retried_since(provider, broadcast, now, availability) or due_at)
    if isinstance(resource, Stream) and resource.unresolved:
        # It is looked for until then, and made again.
        due_at = resource.intended_at + seconds(timing.stream_grace_s)
    return resource.queued_s + max((now - due_at).total_seconds(), 0.0)


class Planner:
    """Collects the steps and the waits of one plan.

    Invariant: whatever is not done now is awaited. A method that finds that something is not due adds the moment at
    which it is, so a plan without steps has a moment to plan again. Each method adds at most one step for a resource.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        resource_set: ResourceSet,
        now: datetime,
        timing: Timing,
        availability: Availability,
        *,
        costs: Costs | None = None,
        watching: Watching = NOBODY_KNOWS,
    ) -> None:
        self.broadcast = broadcast
        self.resource_set = resource_set
        self.now = now
        self.timing = timing
        self.availability = availability
        self.costs = costs or Costs()
        self.watching = watching
        self.steps: list[Step] = []
        self.waits: list[datetime] = []
        self.blocked = Blocked.NOTHING
        self.awaited: list[Wait] = []

    def due(self, resource: AnyResource) -> bool:
        """Whether its back-off is over; if not, the plan waits for it."""
        retry_at = resource.retry_at
        if retry_at is None or back_off_ended(resource, self.broadcast, self.now, self.availability):
            return True
        return self.reached(retry_at, action=Action.RETRY, message=f"the {resource.kind} is tried again")

    def reached(self, moment: datetime, *, action: Action = Action.NONE, message: str = "") -> bool:
        """Whether *moment* has come; if not, the plan waits for it, and people are told what happens then if *action*
        says it.
        """
        if moment <= self.now:
            return True
        self.waits.append(moment)
        if action is not Action.NONE:
            self.awaited.append(Wait(action=action, message=message, until=moment))
        return False

    def look_again(self, resource: AnyResource, every_s: float) -> None:
        look = (resource.observed_at or resource.changed_at) + seconds(every_s)
        # A look that is overdue was tried just now and got no answer.
        self.waits.append(look if look > self.now else self.now + seconds(every_s))

    def in_vain(
        self,
        resource: AnyResource,
        moment: datetime,
        every_s: float,
        *,
        action: Action = Action.NONE,
        message: str = "",
    ) -> bool:
        """Whether the awaited change was not there at a look after *moment*. An older look proves nothing: the provider
        may not have answered since. If there was no such look, the plan waits for one, made every *every_s* seconds.
        """
        if resource.observed_at is not None and resource.observed_at >= moment:
            return True
        self.reached(moment, action=action, message=message)
        self.look_again(resource, every_s)
        return False

    def finish(self, *, done: bool = False) -> Plan:
        if not done:
            self.waits.append(self.now + seconds(self.timing.replan_s))
            for absent in self.resource_set.absent:
                self.look_again(absent, self.timing.lookup_s)
        return Plan(
            steps=tuple(self.steps),
            wait_until=min(self.waits, default=None),
            done=done,
            blocked=self.blocked,
            waits=tuple(self.awaited),
        )

    def plan_title(self) -> None:
        """A title that was changed on air, or the names of a live stream that was made ahead. Any other step of the
        live stream goes first.
        """
        stream, steps = self.resource_set.stream, self.steps
        if stream is None or stream.phase is not Phase.PRESENT:
            return
        if stream.title == self.broadcast.spec.title and not stream.unnamed:
            return
        if any(isinstance(step, StreamStep) and step.ordinal == stream.ordinal for step in steps):
            return
        retry_at = stream.title_retry_at
        if self.due(stream) and (retry_at is None or self.reached(retry_at)):
            self.steps.append(SetTitle(ordinal=stream.ordinal))

    def plan_uploads(self) -> None:
        """Files of fallbacks that are over are handed over as soon as the provider of live streams answers."""
        attempts = {upload.ordinal: upload for upload in self.resource_set.uploads}
        for upload in self.resource_set.uploads:
            self.follow_upload(upload)
        for recording in self.resource_set.recordings:
            upload = attempts.get(recording.ordinal)
            wanted = upload is None or (upload.phase is Phase.GONE and not upload.refused)
            if not wanted or recording.phase is not Phase.GONE or not recording.complete:
                continue
            if STREAMS in self.availability.outages:
                # This wait may be the only one that keeps a finished broadcast in the queue.
                self.waits.append(self.now + seconds(self.timing.replan_s))
            elif upload is None or self.due(upload):
                self.steps.append(UploadRecording(ordinal=recording.ordinal))

    def follow_upload(self, upload: Upload) -> None:
        match upload.phase:
            case Phase.INTENDED | Phase.UNKNOWN:
                self.resolve_upload(upload)
            case Phase.DELETING:
                self.delete(upload)
            case Phase.PRESENT if upload.recording is not None and not upload.recording.settled:
                self.waits.append(next_recording_look(upload.changed_at, upload.observed_at, self.now))
            case _:
                pass

    def resolve_upload(self, upload: Upload) -> None:
        """As `resolve`, and rarely: each look reads a list of assets."""
        moment = upload.intended_at + seconds(self.timing.upload_grace_s)
        if upload.observed_at is not None and upload.observed_at >= moment:
            self.write_off(upload, _NOT_LISTED)
        else:
            self.waits.append(next_recording_look(upload.intended_at, upload.observed_at, self.now))

    def resolve(self, resource: Stream | Egress | LocalRecording, grace_s: float) -> None:
        """A create without an answer is looked for until it is found or its grace, *grace_s* seconds, is over. One that
        nobody tries any more is over at the first look that must show it.
        """
        gone_at, message = resource.intended_at + seconds(grace_s), f"an answer or a sight of the {resource.kind}"
        if not isinstance(resource, Stream) and resource.tries_over_at is not None:
            gone_at = resource.tries_over_at + seconds(self.timing.list_lag_s)
        if self.in_vain(
            resource,
            gone_at,
            self.timing.lookup_s,
            action=Action.LOOK_AGAIN,
            message=f"{message}, or it is tried again then",
        ):
            self.write_off(resource, _NOT_LISTED)

    def write_off(self, resource: Stream | Egress | LocalRecording | Upload, why: str) -> None:
        self.steps.append(WriteOff(kind=resource.kind, ordinal=resource.ordinal, why=why))

    def await_end(self, leaving: Egress | LocalRecording, within_s: float, again: Step, why: str) -> None:
        """*leaving* was told to stop. It is told again while the stop is not confirmed, and written off after
        *within_s* seconds.
        """
        # No answer and no failure: the process died before the call, so the egress was never told to stop.
        answered = leaving.acked or leaving.failures > 0
        given_up_at, message = (
            leaving.changed_at + seconds(within_s),
            f"its end; or the {leaving.kind} is written off then",
        )
        if (
            self.in_vain(leaving, given_up_at, self.timing.lookup_s, action=Action.WAIT_FOR_END, message=message)
            and answered
        ):
            self.write_off(leaving, why)
        elif not leaving.acked and self.due(leaving):
            self.steps.append(again)

    def delete(self, resource: Room | Stream | Upload) -> None:
        """Call the delete, and again while it is not confirmed, or when the resource is still there afterwards."""
        stale = resource.changed_at + seconds(self.timing.delete_retry_s)
        still_there = resource.observed_at is not None and resource.observed_at >= stale
        if resource.phase is Phase.DELETING and resource.acked and not still_there:
            self.look_again(resource, self.timing.lookup_s)
        elif self.due(resource):
            match resource:
                case Room() if resource.doubted:
                    self.steps.append(AskForRoom(ordinal=resource.ordinal))
                case Room():
                    self.steps.append(DeleteRoom(ordinal=resource.ordinal))
                case Stream():
                    self.steps.append(DeleteStream(ordinal=resource.ordinal))
                case Upload():
                    self.steps.append(DeleteUpload(ordinal=resource.ordinal))

    def stop_recording(self, recording: LocalRecording, fault: Fault = Fault.NONE) -> None:
        """As with an egress, but one that is ending may take long to put its file into the storage. A recording that
        was never seen to end makes no file, and does no harm.
        """
        match recording.phase:
            case Phase.PRESENT:
                self.steps.append(StopRecording(ordinal=recording.ordinal, fault=fault))
            case Phase.DELETING:
                within, why = self.timing.egress_stop_s, "it was not seen to end"
                if recording.status is EgressStatus.ENDING:
                    within = self.timing.file_stop_s
                elif recording.fault is Fault.GHOST:
                    within, why = self.timing.ghost_stop_s, "its worker is gone, and what it had written with it"
                self.await_end(recording, within, StopRecording(ordinal=recording.ordinal, fault=recording.fault), why)
            case Phase.INTENDED | Phase.UNKNOWN:
                self.resolve(recording, self.timing.egress_grace_s)
            case Phase.GONE:
                pass

    def stop(self, egress: Egress, why: str, fault: Fault = Fault.NONE) -> None:
        """Towards the end of one egress, whatever phase it is in."""
        match egress.phase:
            case Phase.PRESENT:
                # Without its back-off: that is about a change of its outputs, which does not matter any more.
                self.steps.append(StopEgress(ordinal=egress.ordinal, why=why, fault=fault))
            case Phase.DELETING:
                # A worker that died leaves a record that stays ACTIVE for ever and answers every stop with 408
                # (livekit/egress#950): after its time it is written off, and the key fences it.
                within = self.timing.ghost_stop_s if egress.fault is Fault.GHOST else self.timing.egress_stop_s
                again = StopEgress(ordinal=egress.ordinal, why=why, fault=egress.fault)
                self.await_end(egress, within, again, "it was not seen to end after its stop")
            case Phase.INTENDED | Phase.UNKNOWN:
                self.resolve(egress, self.timing.egress_grace_s)
            case Phase.GONE:
                pass
