"""The part of the plan of a running broadcast that is about its local recording. Pure.

Delivery comes before recording: a recording that may hold the slot that delivery needs gives way.
"""

from service.domain.broadcast import FallbackMode, seconds
from service.domain.planning.common import Planner
from service.domain.planning.steps import StartRecording
from service.domain.reasons import Action, Fault
from service.domain.resource_set import next_ordinal, on_air, refused_for_want_of_a_slot
from service.domain.resources import Egress, EgressStatus, LocalRecording, Phase


class RecordingPlanner(Planner):
    def plan_recording(self) -> None:
        """A file egress runs while the fallback asks for it and there is something to record."""
        resource_set, room = self.resource_set, self.resource_set.room
        current = resource_set.recording
        for recording in resource_set.recordings:
            if recording is not current:
                self.stop_recording(recording)
        asked = FallbackMode.LOCAL_RECORDING in self.broadcast.fallback.modes
        if current is not None:
            self.keep_recording(current, asked=asked and not self.gives_way(current))
        elif asked and not self.delivery_is_next() and room is not None and room.host_publishing:
            self.start_recording()

    def gives_way(self, recording: LocalRecording) -> bool:
        """Whether *recording* ends because it may hold the slot that delivery needs: a start was refused for want of
        one since it began. It does so once in a window, or a recording would end every minute where the slots are
        held by others.
        """
        refused, timing = refused_for_want_of_a_slot(self.resource_set.egresses), self.timing
        if refused is None or not self.delivery_is_wanted() or refused.intended_at <= recording.intended_at:
            return False
        began = self.now - seconds(timing.starts_window_s)
        earlier = (each for each in self.resource_set.recordings if each is not recording)
        return not any(each.external_id and each.changed_at > began for each in earlier)

    def delivery_is_next(self) -> bool:
        """Whether the slot of a recording that gives way, or did, is for delivery, which was not tried since."""
        refused = refused_for_want_of_a_slot(self.resource_set.egresses)
        return refused is not None and self.delivery_is_wanted() and bool(self.gave_way(refused))

    def delivery_is_wanted(self) -> bool:
        return on_air(self.broadcast) and not self.resource_set.egress and not self.availability.outages

    def slot_is_free_since(self, refused: Egress) -> bool:
        """Whether a recording of ours that held a slot when *refused* was refused has ended since."""
        return any(each.end_seen for each in self.gave_way(refused))

    def gave_way(self, refused: Egress) -> list[LocalRecording]:
        """The recordings that ran when *refused* was refused, and were told to stop or ended since."""
        return [
            each
            for each in self.resource_set.recordings
            if each.external_id
            and each.phase in (Phase.DELETING, Phase.GONE)
            and each.intended_at <= refused.intended_at <= each.changed_at
        ]

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
        if self.is_ghost(recording):
            self.stop_recording(recording, Fault.GHOST)
        elif not asked or (overdue is not None and self.in_vain(recording, overdue, timing.watch_s)):
            self.stop_recording(recording)

    def start_recording(self) -> None:
        resource_set = self.resource_set
        recent = [e for e in resource_set.recordings if e.intended_at > self.now - seconds(self.timing.starts_window_s)]
        if len(recent) >= self.timing.starts_limit:
            first = recent[-self.timing.starts_limit].intended_at
            self.waits.append(first + seconds(self.timing.starts_window_s))
        elif not resource_set.recordings or self.due(resource_set.recordings[-1]):
            self.steps.append(StartRecording(ordinal=next_ordinal(resource_set.recordings)))

    def is_ghost(self, egress: Egress | LocalRecording) -> bool:
        """Whether it is listed as active, and two looks did not find it in the room."""
        room, since, timing = self.resource_set.room, self.resource_set.missing_since(egress), self.timing
        if room is None or since is None:
            return False
        message = f"the {egress.kind} is stopped, for it is not in its room"
        return self.in_vain(
            room, since + seconds(timing.ghost_s), timing.watch_s, action=Action.STOP_GHOST, message=message
        )
