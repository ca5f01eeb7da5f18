"""The plan of a broadcast that is to be live. Pure."""

from collections.abc import Sequence
from datetime import datetime

from service.domain import fallback
from service.domain.broadcast import EndReason, FallbackMode, seconds
from service.domain.planner import GHOST, Planner
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    LocalRecording,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.step import (
    CreateRoom,
    CreateStream,
    CutStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDestinations,
    SetFallback,
    SetLayout,
    StartEgress,
    StartRecording,
)
from service.domain.view import (
    host_deadline,
    next_ordinal,
    output_changes,
    recent_starts,
    wants_egress,
)


class Live(Planner):
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
        recent = recent_starts(view.egresses, self.now, timing)
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
