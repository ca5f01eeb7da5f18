"""How viewers are served while the normal way fails: desired state, decided here. Pure.

normal --(three egresses failed in 10 min, nothing playable)--------> DIRECT_WEBRTC, LOCAL_RECORDING
normal --(nothing playable for 15 min, whatever fails)--------------> DIRECT_WEBRTC, LOCAL_RECORDING
normal --(Mux unreachable for 2 min)--> LOCAL_RECORDING; DIRECT_WEBRTC too where nothing is playable
either --(the normal way was healthy for 2 min)---------------------> normal
either --(no mode is left, and nothing playable for 15 min)---------> the end, with the reason
"""

from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.broadcast import Broadcast, EndReason, Fallback, FallbackMode, RecordingPolicy, seconds
from service.domain.planning.common import Planner
from service.domain.planning.steps import Wait
from service.domain.provider import STREAMS
from service.domain.reasons import Action, FallbackReason, Fault
from service.domain.resource_set import ResourceSet, never_ran, on_air
from service.domain.resources import Egress, Phase, StreamStatus
from service.domain.situation import Availability
from service.domain.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    fallback: Fallback
    """The fallback that is wanted. The same as before: nothing changes."""
    end: EndReason | None = None
    """The broadcast is to end with this reason, because nothing is left to try. None: it goes on."""
    waits: tuple[Wait, ...] = ()
    """The waits that lead to another decision if nothing happens before."""


def decide(
    broadcast: Broadcast, resource_set: ResourceSet, now: datetime, timing: Timing, availability: Availability
) -> Decision:
    return _Decider(broadcast, resource_set, now, timing, availability).decide()


class _Decider(Planner):
    def decide(self) -> Decision:
        if self.broadcast.fallback.modes:
            if not on_air(self.broadcast):
                return Decision(fallback=Fallback(reason=FallbackReason.OFF_AIR, since=self.now))
            return self.returned() if self.over() else self.widen()
        reason = self.trouble()
        if reason is None:
            return self.stay()
        modes = self.modes(reason)
        if modes:
            return Decision(fallback=Fallback(modes=modes, reason=reason, since=self.now))
        return self.give_up(reason)

    def stay(self) -> Decision:
        return Decision(fallback=self.broadcast.fallback, waits=tuple(self.awaited))

    def returned(self) -> Decision:
        return Decision(fallback=Fallback(reason=FallbackReason.RETURNED, since=self.now))

    def trouble(self) -> FallbackReason | None:
        """Why a fallback is needed now. None: it is not."""
        room = self.resource_set.room
        if self.broadcast.ready_time is None or not on_air(self.broadcast) or room is None or not room.host_publishing:
            return None
        if self.streams_are_away():
            return FallbackReason.STREAMS_UNREACHABLE
        if self.resource_set.playable:
            return None
        began = self.now - seconds(self.timing.starts_window_s)
        # Failures from before the return were answered by the fallback before it.
        since = began if self.broadcast.fallback.since is None else max(began, self.broadcast.fallback.since)
        failed = [egress for egress in self.resource_set.egresses if self.failed(egress) and egress.changed_at > since]
        refused = [egress for egress in failed if never_ran(egress)]
        if len(failed) < self.timing.fallback_faults:
            return FallbackReason.EGRESS_FAILING if self.tried_in_vain() else None
        if len(failed) - len(refused) >= self.timing.fallback_faults:
            return FallbackReason.EGRESS_FAILING
        lasts = self.reached(
            refused[0].changed_at + seconds(self.timing.fallback_refused_s),
            action=Action.SET_FALLBACK,
            message="if starts are refused until then",
        )
        return FallbackReason.EGRESS_FAILING if lasts else None

    def tried_in_vain(self) -> bool:
        """Whether nothing was playable for `hopeless_s`, whatever fails. The count of failed egresses is not enough:
        while a key reset fails, no egress is started that could fail too.
        """
        dark, began = self.dark_since(FallbackReason.EGRESS_FAILING), None
        for egress in reversed(self.resource_set.egresses):
            unwanted = egress.phase in (Phase.DELETING, Phase.GONE) and egress.fault in (Fault.NONE, Fault.NOT_STOPPED)
            if unwanted or egress.delivering:
                break
            began = egress.intended_at
        if dark is None or began is None:
            return False
        return self.reached(
            max(dark, began) + seconds(self.timing.hopeless_s),
            action=Action.SET_FALLBACK,
            message="if nothing is playable until then",
        )

    def failed(self, egress: Egress) -> bool:
        """Whether *egress* counts as failed. A surplus egress does not, nor does one that was not wanted any more and
        did not stop. A start without an answer has failed when its key is dead: it can never publish.
        """
        if egress.unresolved:
            stream = self.resource_set.stream
            return stream is not None and 0 <= egress.key_epoch < stream.key_epoch
        return bool(egress.fault) and egress.fault is not Fault.NOT_STOPPED and egress.key_epoch >= 0

    def streams_are_away(self) -> bool:
        outage = self.availability.outages.get(STREAMS)
        return outage is not None and self.reached(
            outage.since + seconds(self.timing.fallback_outage_s),
            action=Action.SET_FALLBACK,
            message=f"if {STREAMS.display_name} does not answer until then",
        )

    def modes(self, reason: FallbackReason) -> tuple[FallbackMode, ...]:
        """The modes to enter for *reason*. An outage of Mux's API does not stop the media that flows, so viewers are
        moved only when nothing is playable.
        """
        spec = self.broadcast.spec
        possible = {
            FallbackMode.DIRECT_WEBRTC: reason is FallbackReason.EGRESS_FAILING or not self.resource_set.playable,
            FallbackMode.LOCAL_RECORDING: self.availability.storage and spec.recording_policy is RecordingPolicy.KEEP,
        }
        return tuple(mode for mode in spec.fallback_modes if possible[mode])

    def over(self) -> bool:
        """Whether the normal way was healthy for long enough. It cannot be healthy while no host publishes, and nobody
        knows whether it is while the playlist cannot be seen.
        """
        stream = self.resource_set.stream
        if not self.resource_set.playable or stream is None or stream.unseen_since is not None:
            return False
        answering = self.availability.answering_since.values()
        if self.availability.outages or None in answering:
            return False
        began = (self.broadcast.fallback.since, self.resource_set.whole_since, stream.resumed_at, *answering)
        healthy = max(moment for moment in began if moment is not None)
        return self.reached(
            healthy + seconds(self.timing.fallback_return_s),
            action=Action.SET_FALLBACK,
            message="viewers are sent back, if all is well until then",
        )

    def widen(self) -> Decision:
        """A fallback that began with media flowing may need another mode too. A mode that the caller took back ends."""
        reason = self.trouble()
        modes = {*self.broadcast.fallback.modes, *(self.modes(reason) if reason is not None else ())}
        kept = tuple(mode for mode in FallbackMode if mode in modes and mode in self.broadcast.spec.fallback_modes)
        if kept == self.broadcast.fallback.modes:
            return self.stay()
        return Decision(fallback=replace(self.broadcast.fallback, modes=kept)) if kept else self.returned()

    def give_up(self, reason: FallbackReason) -> Decision:
        dark = self.dark_since(reason)
        if dark is None or not self.reached(
            dark + seconds(self.timing.hopeless_s),
            action=Action.END_BROADCAST,
            message="if nothing is playable until then",
        ):
            return self.stay()
        end = EndReason.STREAMS_UNREACHABLE if reason is FallbackReason.STREAMS_UNREACHABLE else EndReason.EGRESS_FAILED
        return Decision(fallback=self.broadcast.fallback, end=end)

    def dark_since(self, reason: FallbackReason) -> datetime | None:
        """Since when a host publishes and nothing is playable. None: it is playable as far as is known, or no host
        publishes.
        """
        room, stream = self.resource_set.room, self.resource_set.stream
        if self.resource_set.playable or room is None or room.host_since is None or stream is None:
            return None
        # While nobody watched, nothing was to be playable.
        wanted_since = self.broadcast.delivery.decided.since or room.host_since
        if reason is FallbackReason.STREAMS_UNREACHABLE:
            return max(room.host_since, wanted_since, self.availability.outages[STREAMS].since)
        if stream.status is StreamStatus.ACTIVE:
            return stream.stalled_since
        return max(room.host_since, wanted_since, stream.status_since or stream.changed_at)
