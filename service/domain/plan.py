"""plan(): from what is wanted and what was seen to what to do next. Pure: no clock, no I/O, no chance.

Invariants, each a property test:
- at most one step per resource;
- nothing that runs is created once the target is ENDED; a file that was recorded may be uploaded still;
- an egress is started only when no other can publish: every earlier one was seen to end, or holds a dead key and is
  not connected;
- nothing is given up for want of an answer: what ends a wait is a look that was made after its time;
- a plan whose steps succeed reaches `done` in a bounded number of rounds, from any state, once the target is ENDED;
- planning twice from the same facts gives the same plan; one without steps waits for a later moment, or is done.
"""

from collections.abc import Sequence
from datetime import datetime

from service.domain import fallback
from service.domain.broadcast import (
    AnyResource,
    Broadcast,
    Egress,
    EgressStatus,
    EndReason,
    FallbackMode,
    Kind,
    LocalRecording,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
    Target,
    Upload,
    seconds,
)
from service.domain.step import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DisableStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDestinations,
    SetFallback,
    SetLayout,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.surroundings import Surroundings
from service.domain.timing import Timing
from service.domain.view import (
    View,
    host_deadline,
    next_ordinal,
    next_recording_look,
    output_changes,
    wants_egress,
)

GHOST = "GHOST"


def plan(
    broadcast: Broadcast,
    resources: Sequence[AnyResource],
    now: datetime,
    timing: Timing,
    around: Surroundings | None = None,
) -> Plan:
    view, around = View(resources), around or Surroundings()
    match broadcast.target:
        case Target.CREATED:
            return Plan()
        case Target.LIVE:
            return _Live(broadcast, view, now, timing, around).plan()
        case Target.ENDED:
            return _End(broadcast, view, now, timing, around).plan()


class _Planner:
    def __init__(self, broadcast: Broadcast, view: View, now: datetime, timing: Timing, around: Surroundings) -> None:
        self.broadcast = broadcast
        self.view = view
        self.now = now
        self.timing = timing
        self.around = around
        self.steps: list[Step] = []
        self.waits: list[datetime] = []
        self.blocked = ""

    def due(self, resource: AnyResource) -> bool:
        """Whether its back-off is over; if not, the plan waits for it."""
        if resource.retry_at is not None and resource.retry_at > self.now:
            self.waits.append(resource.retry_at)
            return False
        return True

    def reached(self, moment: datetime) -> bool:
        if moment <= self.now:
            return True
        self.waits.append(moment)
        return False

    def look_again(self, resource: AnyResource, every_s: float) -> None:
        look = (resource.observed_at or resource.changed_at) + seconds(every_s)
        # A look that is overdue was tried just now and got no answer.
        self.waits.append(look if look > self.now else self.now + seconds(every_s))

    def in_vain(self, resource: AnyResource, moment: datetime, every_s: float) -> bool:
        """Whether what is awaited was not seen by a look after its time. An older look proves nothing: the provider may
        not have answered since.
        """
        if resource.observed_at is not None and resource.observed_at >= moment:
            return True
        self.reached(moment)
        self.look_again(resource, every_s)
        return False

    def finish(self, *, done: bool = False) -> Plan:
        if not done:
            self.waits.append(self.now + seconds(self.timing.replan_s))
        return Plan(
            steps=tuple(self.steps),
            wait_until=min(self.waits, default=None),
            done=done,
            blocked=self.blocked,
        )

    def plan_uploads(self) -> None:
        """Files of fallbacks that are over go to Mux as soon as it answers."""
        attempts = {upload.ordinal: upload for upload in self.view.uploads}
        for recording in self.view.recordings:
            upload = attempts.get(recording.ordinal)
            if upload is not None and upload.unresolved:
                self.resolve_upload(upload)
                continue
            wanted = upload is None or (upload.phase is Phase.GONE and not upload.refused)
            if not wanted or recording.phase is not Phase.GONE or not recording.complete:
                continue
            if "mux" in self.around.outages:
                # Nothing else may keep one in the queue that is over.
                self.waits.append(self.now + seconds(self.timing.replan_s))
            elif upload is None or self.due(upload):
                self.steps.append(UploadRecording(ordinal=recording.ordinal))

    def resolve_upload(self, upload: Upload) -> None:
        """As `resolve`, and rarely: each look reads a list of assets."""
        moment = upload.intended_at + seconds(self.timing.upload_grace_s)
        if upload.observed_at is not None and upload.observed_at >= moment:
            self.write_off(upload)
        else:
            self.waits.append(next_recording_look(upload.intended_at, upload.observed_at, self.now))

    def resolve(self, resource: Stream | Egress | LocalRecording, grace_s: float) -> None:
        """A create without an answer: looks go on until it is found or its grace is over."""
        if self.in_vain(resource, resource.intended_at + seconds(grace_s), self.timing.lookup_s):
            self.write_off(resource)

    def write_off(self, resource: Stream | Egress | LocalRecording | Upload) -> None:
        self.steps.append(
            WriteOff(kind=resource.kind, ordinal=resource.ordinal, why="no list showed it within its grace")
        )

    def delete(self, resource: Room | Stream) -> None:
        """Call the delete, and again while it is not confirmed, or when what it should have removed is still there."""
        stale = resource.changed_at + seconds(self.timing.delete_retry_s)
        still_there = resource.observed_at is not None and resource.observed_at >= stale
        if resource.phase is Phase.DELETING and resource.acked and not still_there:
            self.look_again(resource, self.timing.lookup_s)
        elif self.due(resource):
            self.steps.append((DeleteRoom if isinstance(resource, Room) else DeleteStream)(ordinal=resource.ordinal))

    def stop_recording(self, recording: LocalRecording) -> None:
        """As with an egress, but what is ending may put its file into the storage for long. One that nobody saw to end
        makes no file, and does no harm.
        """
        match recording.phase:
            case Phase.PRESENT:
                self.steps.append(StopRecording(ordinal=recording.ordinal))
            case Phase.DELETING:
                writing = recording.status is EgressStatus.ENDING
                within = self.timing.file_stop_s if writing else self.timing.egress_stop_s
                gave_up = recording.changed_at + seconds(within)
                if self.in_vain(recording, gave_up, self.timing.lookup_s) and (recording.acked or recording.failures):
                    self.steps.append(
                        WriteOff(kind=Kind.RECORDING, ordinal=recording.ordinal, why="it was not seen to end")
                    )
                elif not recording.acked and self.due(recording):
                    self.steps.append(StopRecording(ordinal=recording.ordinal))
            case Phase.INTENDED | Phase.UNKNOWN:
                self.resolve(recording, self.timing.egress_grace_s)
            case Phase.GONE:
                pass

    def stop(self, egress: Egress, why: str, fault: str = "") -> None:
        """Towards the end of one egress, whatever phase it is in."""
        match egress.phase:
            case Phase.PRESENT:
                # At once: what it may have to back off from is a change of its outputs, which matters no more.
                self.steps.append(StopEgress(ordinal=egress.ordinal, why=why, fault=fault))
            case Phase.DELETING:
                # A worker that died leaves a record that stays ACTIVE for ever and answers every stop with 408
                # (livekit/egress#950): after its time it is written off, and the key fences it.
                within = self.timing.ghost_stop_s if egress.fault == GHOST else self.timing.egress_stop_s
                gave_up = egress.changed_at + seconds(within)
                # Neither: the process died before the call, and nobody told it to stop.
                answered = egress.acked or egress.failures > 0
                if self.in_vain(egress, gave_up, self.timing.lookup_s) and answered:
                    self.steps.append(
                        WriteOff(kind=Kind.EGRESS, ordinal=egress.ordinal, why="it was not seen to end after its stop")
                    )
                elif not egress.acked and self.due(egress):
                    self.steps.append(StopEgress(ordinal=egress.ordinal, why=why, fault=egress.fault))
            case Phase.INTENDED | Phase.UNKNOWN:
                self.resolve(egress, self.timing.egress_grace_s)
            case Phase.GONE:
                pass


class _Live(_Planner):
    def plan(self) -> Plan:
        reason = self.end_reason()
        if reason is not None:
            self.steps.append(EndBroadcast(reason=reason))
            return self.finish()
        decision = fallback.decide(self.broadcast, self.view, self.now, self.timing, self.around)
        if decision.end is not None:
            self.steps.append(EndBroadcast(reason=decision.end))
            return self.finish()
        if decision.look_at is not None:
            self.waits.append(decision.look_at)
        if decision.fallback != self.broadcast.fallback:
            self.steps.append(SetFallback(fallback=decision.fallback))
        self.plan_room()
        self.plan_stream()
        self.plan_egress()
        self.plan_recording()
        self.plan_uploads()
        return self.finish()

    def end_reason(self) -> EndReason | None:
        broadcast, view = self.broadcast, self.view
        latest: list[AnyResource] = [*view.rooms[-1:], *view.streams[-1:]]
        if broadcast.live_time is None:
            # Later it worked once, and what was changed since can be changed again.
            latest += view.egresses[-1:]
        if any(resource.refused for resource in latest):
            return EndReason.PROVIDER_REFUSED
        if broadcast.ready_time is None:
            overdue = self.start_overdue(view.rooms) or self.start_overdue(view.streams)
            return EndReason.START_TIMEOUT if overdue else None
        return self.stream_end() or self.time_end()

    def stream_end(self) -> EndReason | None:
        stream = self.view.stream
        if stream is None or stream.phase is Phase.DELETING:
            return EndReason.STREAM_LOST
        if stream.status is StreamStatus.DISABLED and not stream.cutting:
            return EndReason.TEST_LIMIT if self.broadcast.spec.test else EndReason.STREAM_DISABLED
        return None

    def time_end(self) -> EndReason | None:
        broadcast, room = self.broadcast, self.view.room
        live = broadcast.live_time
        if live is not None and self.reached(live + seconds(broadcast.spec.max_duration_s)):
            return EndReason.MAX_DURATION
        deadline = host_deadline(broadcast, self.view, self.timing)
        if deadline is None or not self.reached(deadline):
            return None
        if room is not None and room.phase is Phase.PRESENT and not self.in_vain(room, deadline, self.timing.lookup_s):
            return None
        return EndReason.NO_HOST if live is None else EndReason.HOST_LEFT

    def start_overdue(self, resources: Sequence[Room] | Sequence[Stream]) -> bool:
        if not resources or any(resource.phase is Phase.PRESENT for resource in resources):
            return False
        return self.reached(resources[0].intended_at + seconds(self.timing.start_deadline_s))

    def plan_room(self) -> None:
        room = self.view.room
        if room is None:
            self.steps.append(CreateRoom(ordinal=next_ordinal(self.view.rooms)))
        elif room.unresolved and self.due(room):
            # Creating a room of the same name again answers the same room, so an unknown one is simply created again.
            self.steps.append(CreateRoom(ordinal=room.ordinal))
        elif room.phase is Phase.PRESENT and room.host_publishing is None:
            self.look_again(room, self.timing.lookup_s)

    def plan_stream(self) -> None:
        view = self.view
        for extra in view.streams:
            if extra.phase is Phase.DELETING or (extra.phase is Phase.PRESENT and extra is not view.stream):
                self.delete(extra)
        stream = view.stream
        if stream is None:
            if not view.streams or self.due(view.streams[-1]):
                self.steps.append(CreateStream(ordinal=next_ordinal(view.streams)))
        elif stream.unresolved:
            self.resolve(stream, self.timing.stream_grace_s)

    def plan_egress(self) -> None:
        view = self.view
        current = view.egress
        for egress in view.egresses:
            if egress is not current:
                self.stop(egress, "it is not the one in use")
        if not wants_egress(self.broadcast, view):
            if current is not None:
                self.stop(current, "it is not wanted now")
            return
        if current is None:
            self.start_egress()
        elif current.phase is Phase.PRESENT:
            self.keep_egress(current)
        else:
            self.resolve_start(current)

    def resolve_start(self, egress: Egress) -> None:
        """A start without an answer. It need not be waited for until its grace is over: once no list shows it, the key
        is reset, and whatever lands later cannot publish.
        """
        if self.in_vain(egress, egress.intended_at + seconds(self.timing.list_lag_s), self.timing.lookup_s):
            self.reset_key()

    def reset_key(self) -> None:
        stream = self.view.stream
        if stream is not None and stream.phase is Phase.PRESENT and self.due(stream):
            self.steps.append(ResetKey(ordinal=stream.ordinal))

    def start_egress(self) -> None:
        view, timing = self.view, self.timing
        stream, room = view.stream, view.room
        if stream is None or stream.phase is not Phase.PRESENT or room is None or room.phase is not Phase.PRESENT:
            return
        recent = [e for e in view.egresses if e.intended_at > self.now - seconds(timing.starts_window_s)]
        if len(recent) >= timing.starts_limit:
            self.blocked = "START_LIMIT"
            self.waits.append(recent[-timing.starts_limit].intended_at + seconds(timing.starts_window_s))
            return
        # Of one that never started, or ended by itself. Stops that failed must not hold up the next start.
        over = [egress for egress in view.egresses if egress.end_seen or not egress.external_id]
        if over and not self.due(over[-1]):
            self.blocked = "BACK_OFF"
            return
        able = [egress for egress in view.egresses if view.can_publish(egress)]
        leaving = [egress for egress in able if egress.phase is Phase.DELETING]
        connected = [egress for egress in able if view.may_be_connected(egress, stream)]
        if stream.key_stale or any(e.key_epoch >= stream.key_epoch for e in able if e not in leaving):
            self.reset_key()
        elif leaving:
            # stop() looks at it until it has ended or is written off; a written-off one is fenced by the others.
            self.blocked = "PREVIOUS_ENDING"
        elif connected and stream.status is not StreamStatus.ACTIVE and not stream.cutting:
            # Idle already, as it seems: a look that is newer than the write-off spares the recording the cut.
            self.blocked = "FENCING"
            self.look_again(stream, timing.lookup_s)
        elif connected or stream.cutting:
            self.blocked = "CUTTING_OFF"
            if self.due(stream):
                self.steps.append(CutStream(ordinal=stream.ordinal))
        elif not self.fenced(stream):
            self.blocked = "FENCING"
        else:
            self.steps.append(StartEgress(ordinal=next_ordinal(view.egresses)))

    def fenced(self, stream: Stream) -> bool:
        """Whether starts without an answer were looked for again after the key was reset: one that came between the
        look before and the reset may be connected, and a reset cuts nobody off.
        """
        if stream.key_reset_at is None:
            return True
        shown = stream.key_reset_at + seconds(self.timing.list_lag_s)
        return all(
            self.in_vain(egress, shown, self.timing.lookup_s) for egress in self.view.egresses if egress.unresolved
        )

    def keep_egress(self, egress: Egress) -> None:
        timing, stream = self.timing, self.view.stream
        since = egress.status_since or egress.changed_at
        if egress.status in (EgressStatus.UNKNOWN, EgressStatus.STARTING):
            if self.in_vain(egress, egress.intended_at + seconds(timing.egress_start_s), timing.watch_s):
                self.stop(egress, f"it did not start within {timing.egress_start_s:g} s", "START_TIMEOUT")
            return
        if egress.status is EgressStatus.ENDING:
            if self.in_vain(egress, since + seconds(timing.egress_stop_s), timing.watch_s):
                self.stop(egress, f"it did not end within {timing.egress_stop_s:g} s", "END_TIMEOUT")
            return
        # It stays ACTIVE for its other destinations and never tries this one again.
        if any(o.name == "" and o.state in (OutputState.FAILED, OutputState.FINISHED) for o in egress.outputs):
            self.stop(egress, "its connection to the live stream failed", "DISCONNECTED")
            return
        if self.is_ghost(egress, since):
            self.stop(egress, "it is not in its room", GHOST)
            return
        if stream is not None and stream.status is not StreamStatus.ACTIVE:
            began = max(since, stream.status_since or since)
            # What it fed once and does not any more needs no time to begin: so looks a worker that died, for ever.
            settled = (egress.delivering_since or since) + seconds(timing.reconnect_s)
            fed = stream.fed_at is not None and stream.status_since is not None and stream.status_since >= settled
            within = timing.ingest_lost_s if fed else timing.ingest_start_s
            if self.in_vain(stream, began + seconds(within), timing.ingest_watch_s):
                fault = "INGEST_LOST" if fed else "NO_MEDIA"
                self.stop(egress, f"the live stream got no media within {within:g} s", fault)
                return
        if not egress.delivering:
            self.look_again(egress, timing.watch_s)
        self.keep_outputs(egress)

    def is_ghost(self, egress: Egress, since: datetime) -> bool:
        """Listed as active, and not in the room by two looks. A file egress that is there hides it."""
        room, timing = self.view.room, self.timing
        if room is None or room.recorded is not False or room.recorded_since is None:
            return False
        if egress.status is not EgressStatus.ACTIVE:
            return False
        return self.in_vain(room, max(since, room.recorded_since) + seconds(timing.ghost_s), timing.watch_s)

    def plan_recording(self) -> None:
        """A file egress runs while the fallback asks for it and there is something to record."""
        view, room = self.view, self.view.room
        current = view.recording
        for recording in view.recordings:
            if recording is not current:
                self.stop_recording(recording)
        asked = FallbackMode.LOCAL_RECORDING in self.broadcast.fallback.modes
        if current is not None:
            self.keep_recording(current, asked=asked)
        elif asked and room is not None and room.host_publishing:
            self.start_recording()

    def keep_recording(self, recording: LocalRecording, *, asked: bool) -> None:
        timing = self.timing
        if recording.unresolved:
            self.resolve(recording, timing.egress_grace_s)
            return
        starting = recording.status in (EgressStatus.UNKNOWN, EgressStatus.STARTING)
        since = recording.status_since or recording.changed_at
        overdue = recording.intended_at + seconds(timing.egress_start_s)
        if recording.status is EgressStatus.ENDING:
            overdue = since + seconds(timing.file_stop_s)
        elif not starting:
            overdue = None
        if not asked or (overdue is not None and self.in_vain(recording, overdue, timing.watch_s)):
            self.stop_recording(recording)

    def start_recording(self) -> None:
        view = self.view
        recent = [e for e in view.recordings if e.intended_at > self.now - seconds(self.timing.starts_window_s)]
        if len(recent) >= self.timing.starts_limit:
            first = recent[-self.timing.starts_limit].intended_at
            self.waits.append(first + seconds(self.timing.starts_window_s))
        elif not view.recordings or self.due(view.recordings[-1]):
            self.steps.append(StartRecording(ordinal=next_ordinal(view.recordings)))

    def keep_outputs(self, egress: Egress) -> None:
        add, remove = output_changes(self.broadcast, egress)
        if (add or remove) and self.due(egress):
            self.steps.append(SetDestinations(ordinal=egress.ordinal, add=add, remove=remove))
        elif not add and not remove and self.broadcast.spec.layout != egress.layout and self.due(egress):
            self.steps.append(SetLayout(ordinal=egress.ordinal))


class _End(_Planner):
    """Take-down in the order that leaves no gap: the live stream refuses publishers first, then the egress stops, then
    the room goes, then the live stream; each is gone only when seen absent.
    """

    def plan(self) -> Plan:
        self.plan_streams()
        self.plan_egresses()
        for recording in self.view.recordings:
            self.stop_recording(recording)
        self.plan_rooms()
        done = all(resource.phase is Phase.GONE for resource in self.view.running)
        if not self.broadcast.deleted:
            self.plan_uploads()
            self.await_recordings()
        return self.finish(done=done)

    def await_recordings(self) -> None:
        """Nothing runs any more, but callers want to know what became of the recordings."""
        for stream in self.view.streams:
            if stream.phase is Phase.GONE and any(not recording.settled for recording in stream.recordings):
                self.waits.append(next_recording_look(stream.changed_at, stream.observed_at, self.now))
        for upload in self.view.uploads:
            recording = upload.recording
            if upload.phase is Phase.PRESENT and recording is not None and not recording.settled:
                self.waits.append(next_recording_look(upload.changed_at, upload.observed_at, self.now))

    @property
    def pushing(self) -> list[Egress]:
        """Egresses that were not told to stop yet."""
        return [
            egress
            for egress in self.view.egresses
            if egress.phase is Phase.PRESENT or (egress.phase is Phase.DELETING and not egress.acked)
        ]

    def plan_streams(self) -> None:
        for stream in self.view.streams:
            match stream.phase:
                case Phase.INTENDED | Phase.UNKNOWN:
                    self.resolve(stream, self.timing.stream_grace_s)
                case Phase.PRESENT:
                    self.take_down_stream(stream)
                case Phase.DELETING:
                    self.delete(stream)
                case Phase.GONE:
                    self.settle_lost(stream)

    def settle_lost(self, stream: Stream) -> None:
        """Deleted by somebody else: what it recorded is there all the same."""
        lost = stream.external_id and not stream.recordings_settled
        if lost and stream.fed_at is not None and not self.broadcast.deleted and self.due(stream):
            self.steps.append(SettleRecordings(ordinal=stream.ordinal))

    def take_down_stream(self, stream: Stream) -> None:
        # Nobody was ever given the key of a stream that no egress was started for.
        used = bool(self.view.egresses)
        if not self.due(stream):
            return
        if used and not stream.disabled:
            self.steps.append(DisableStream(ordinal=stream.ordinal))
        elif self.pushing:
            pass
        elif used and not stream.recordings_settled:
            self.steps.append(SettleRecordings(ordinal=stream.ordinal))
        else:
            self.delete(stream)

    def plan_egresses(self) -> None:
        # A disable that fails or has to wait must not keep the egress running, which is what costs.
        closed = all(
            stream.disabled or stream.failures > 0 or not self.due(stream)
            for stream in self.view.streams
            if stream.phase is Phase.PRESENT
        )
        for egress in self.view.egresses:
            if closed or egress.phase is not Phase.PRESENT:
                self.stop(egress, "the broadcast ends")

    def plan_rooms(self) -> None:
        for room in self.view.rooms:
            if room.phase is Phase.DELETING or (room.phase is not Phase.GONE and not self.pushing):
                self.delete(room)
