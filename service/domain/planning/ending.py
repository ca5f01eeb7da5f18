"""The plan of a broadcast that is to end. Pure."""

from service.domain.planning.common import Planner
from service.domain.planning.steps import (
    DisableStream,
    Plan,
    SettleRecordings,
)
from service.domain.resource_set import (
    next_recording_look,
)
from service.domain.resources import Egress, Phase, Stream


class End(Planner):
    """Take-down in the order that leaves no gap: the live stream refuses publishers first, then the egress stops, then
    the room goes, then the live stream; each is gone only when seen absent.
    """

    def plan(self) -> Plan:
        self.plan_streams()
        self.plan_egresses()
        for recording in self.resource_set.recordings:
            self.stop_recording(recording)
        self.plan_rooms()
        done = all(resource.phase is Phase.GONE for resource in self.resource_set.running)
        if not self.broadcast.deleted:
            self.plan_uploads()
            self.await_recordings()
        return self.finish(done=done)

    def await_recordings(self) -> None:
        """Nothing runs any more, but callers want to know whether the recordings can be played."""
        for stream in self.resource_set.streams:
            if stream.phase is Phase.GONE and any(not recording.settled for recording in stream.recordings):
                self.waits.append(next_recording_look(stream.changed_at, stream.observed_at, self.now))

    @property
    def pushing(self) -> list[Egress]:
        """Egresses that were not told to stop yet."""
        return [
            egress
            for egress in self.resource_set.egresses
            if egress.phase is Phase.PRESENT or (egress.phase is Phase.DELETING and not egress.acked)
        ]

    def plan_streams(self) -> None:
        for stream in self.resource_set.streams:
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
        """A live stream that somebody else deleted: its recordings exist all the same."""
        lost = stream.external_id and not stream.recordings_settled
        # A stream that was never seen active may have been active: it may have been deleted before the first look.
        fed = stream.fed_at is not None or bool(self.resource_set.egresses)
        if lost and fed and not self.broadcast.deleted and self.due(stream):
            self.steps.append(SettleRecordings(ordinal=stream.ordinal))

    def take_down_stream(self, stream: Stream) -> None:
        # Nobody was ever given the key of a stream that no egress was started for.
        used = bool(self.resource_set.egresses)
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
            for stream in self.resource_set.streams
            if stream.phase is Phase.PRESENT
        )
        for egress in self.resource_set.egresses:
            if closed or egress.phase is not Phase.PRESENT:
                self.stop(egress, "the broadcast ends")

    def plan_rooms(self) -> None:
        for room in self.resource_set.rooms:
            if room.phase is Phase.DELETING or (room.phase is not Phase.GONE and not self.pushing):
                self.delete(room)
