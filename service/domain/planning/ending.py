"""The plan of a broadcast that is to end. Pure.

A healthy show ends in the order that loses nothing: the egress is told to stop and sends what it holds, then the live
stream is disabled, which ends its playlist and its recording, then the room goes. Only an egress that can be trusted is
waited for. Where any other may publish, the live stream is disabled first, so that nobody can publish whatever the
egress does.

The broadcast is over when nothing runs, costs money or can be published to. The live stream is disabled by then, and is
deleted when the slowest viewer has seen the end of the playlist: after that the playlist answers 404.
"""

from service.domain.broadcast import seconds
from service.domain.planning.common import Planner
from service.domain.planning.steps import (
    DisableStream,
    Plan,
    SettleRecordings,
)
from service.domain.provider import ROOMS
from service.domain.reasons import Action
from service.domain.resource_set import (
    next_recording_look,
)
from service.domain.resources import Egress, EgressStatus, OutputState, Phase, Stream, StreamStatus


class End(Planner):
    """Invariant: a live stream is deleted only after it was disabled, unless no egress was ever given its key, and an
    egress that is not waited for is stopped only after the disable was tried.
    """

    drains: bool = False
    """The live stream waits for the egress that delivers to send what it holds."""

    def plan(self) -> Plan:
        self.drains = self.egress_drains()
        self.plan_streams()
        self.plan_egresses()
        for recording in self.resource_set.recordings:
            self.stop_recording(recording)
        self.plan_rooms()
        done = not self.resource_set.left
        if not self.broadcast.deleted:
            self.plan_uploads()
            self.await_recordings()
        return self.finish(done=done)

    def await_recordings(self) -> None:
        """Nothing runs any more, but callers want to know whether the recordings can be played."""
        for stream in self.resource_set.streams:
            ended_at = stream.ended_at
            if ended_at is not None and any(not recording.settled for recording in stream.recordings):
                self.waits.append(next_recording_look(ended_at, stream.observed_at, self.now))

    def egress_drains(self) -> bool:
        """Whether one egress may publish, which can be trusted and was not told to stop `drain_s` ago or earlier."""
        able = [each for each in self.resource_set.egresses if self.resource_set.can_publish(each)]
        stream = self.resource_set.stream
        if len(able) != 1 or stream is None or not self.takes_media(stream) or not self.trusted(able[0], stream):
            return False
        [egress] = able
        message = "the egress sends what it holds; or the live stream is disabled before it ended"
        overdue_at = egress.changed_at + seconds(self.timing.drain_s)
        return egress.phase is Phase.PRESENT or not self.reached(
            overdue_at, action=Action.WAIT_FOR_END, message=message
        )

    def takes_media(self, stream: Stream) -> bool:
        """Whether the live stream gets media and viewers see it move on, as it was seen last."""
        active = stream.phase is Phase.PRESENT and stream.status is StreamStatus.ACTIVE
        return active and stream.stalled_since is None and not stream.disabled and not stream.cutting

    def trusted(self, egress: Egress, stream: Stream) -> bool:
        """Whether *egress* can be trusted to send what it holds and to end when it is told to: nothing contradicts that
        it delivers, and no call about it failed.
        """
        doubts = (
            bool(egress.fault),
            egress.failures > 0,
            egress.absent_since is not None,
            self.resource_set.missing_since(egress) is not None,
            ROOMS in self.availability.outages,
            self.encoder_left(egress, stream),
        )
        if any(doubts):
            return False
        if egress.phase is Phase.DELETING:
            failed = any(output.name == "" and output.state is OutputState.FAILED for output in egress.outputs)
            return egress.status in (EgressStatus.ACTIVE, EgressStatus.ENDING) and not failed
        return egress.phase is Phase.PRESENT and egress.delivering

    def encoder_left(self, egress: Egress, stream: Stream) -> bool:
        """Whether a webhook said that the encoder left after *egress* was seen to connect. A live stream that is active
        when the reconnect window is over has another one, whose webhook was lost.
        """
        at, since = stream.connected_at, egress.delivering_since
        if stream.connected is not False or at is None or (since is not None and at <= since):
            return False
        return self.now <= at + seconds(self.broadcast.spec.reconnect_window_s)

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
            if not self.drains:
                self.steps.append(DisableStream(ordinal=stream.ordinal))
        elif self.pushing:
            pass
        elif used and not stream.recordings_settled:
            self.steps.append(SettleRecordings(ordinal=stream.ordinal))
        elif self.seen_to_the_end(stream):
            self.delete(stream)

    def seen_to_the_end(self, stream: Stream) -> bool:
        """Whether every viewer of *stream* has seen the end of its playlist."""
        if stream.disabled_at is None:
            return True
        done_at = stream.disabled_at + seconds(self.timing.viewers_s(self.broadcast.spec.latency_mode))
        message = "the live stream, which takes no encoder, is deleted when the slowest viewer has seen the end"
        return self.reached(done_at, action=Action.DELETE_STREAM, message=message)

    def plan_egresses(self) -> None:
        # A disable that fails or has to wait must not keep the egress running, which is what costs.
        closed = self.drains or all(
            stream.disabled or stream.failures > 0 or not self.due(stream)
            for stream in self.resource_set.streams
            if stream.phase is Phase.PRESENT
        )
        for egress in self.resource_set.egresses:
            if closed or egress.phase is not Phase.PRESENT:
                self.stop(egress, "the broadcast ends")

    def plan_rooms(self) -> None:
        quiet = not self.pushing and not self.drains
        for room in self.resource_set.rooms:
            if room.phase is Phase.DELETING or (room.phase is not Phase.GONE and quiet):
                self.delete(room)
