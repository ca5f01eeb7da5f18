"""The plan of a broadcast that is to be live. Pure."""

from collections.abc import Sequence
from datetime import datetime

from service.domain.audience.decide import decide
from service.domain.broadcast import Carrier, DeliveryPolicy, EndReason, seconds
from service.domain.delivery import UNDECIDED, Delivery, DeliveryReason
from service.domain.destinations import lost_outputs, next_try
from service.domain.measurements import PROBED_S
from service.domain.planning import fallback
from service.domain.planning.common import queued_s, retried_since
from service.domain.planning.cost import CostPlanner
from service.domain.planning.on_demand import inputs_of
from service.domain.planning.recording import RecordingPlanner
from service.domain.planning.steps import (
    AskForRoom,
    CreateRoom,
    CreateStream,
    CutStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDelivery,
    SetDestinations,
    SetFallback,
    SetLayout,
    StartEgress,
    Wait,
)
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Action, Blocked, Fault
from service.domain.resource_set import (
    backoff_s,
    failed,
    host_deadline,
    never_ran,
    next_ordinal,
    on_air,
    output_changes,
    recent_failures,
    recent_starts,
    unwatched,
    wants_egress,
)
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.schedule import ahead_s

_CERTAIN = "an egress is started when it is certain that no earlier one is connected"
_OR_REPLACED = "or the egress is replaced then"


class Live(CostPlanner, RecordingPlanner):
    def plan(self) -> Plan:
        reason = self.end_reason()
        if reason is not None:
            self.steps.append(EndBroadcast(reason=reason))
            return self.finish()
        if self.spends_too_much():
            self.steps.append(EndBroadcast(reason=EndReason.COST_CAP))
            return self.finish()
        decision = fallback.decide(self.broadcast, self.resource_set, self.now, self.timing, self.availability)
        if decision.end is not None:
            self.steps.append(EndBroadcast(reason=decision.end))
            return self.finish()
        for wait in decision.waits:
            self.reached(wait.until or self.now, action=wait.action, message=wait.message)
        if decision.fallback != self.broadcast.fallback:
            self.steps.append(SetFallback(fallback=decision.fallback))
        self.plan_room()
        self.plan_stream()
        if not self.plan_delivery():
            # With a decision that is not stored yet nothing is started or stopped.
            self.plan_egress()
        self.plan_title()
        self.plan_recording()
        self.plan_uploads()
        return self.finish()

    def plan_delivery(self) -> bool:
        """Decide whether an egress is to run for viewers. Answers whether the decision is to be stored first."""
        broadcast, stored = self.broadcast, self.broadcast.delivery
        if broadcast.spec.delivery_policy is not DeliveryPolicy.ON_DEMAND:
            if stored != UNDECIDED:
                self.steps.append(SetDelivery(delivery=UNDECIDED))
            return stored != UNDECIDED
        inputs = inputs_of(broadcast, self.resource_set, self.now, self.timing, self.watching)
        decision = decide(inputs)
        if decision.decided != stored.decided:
            self.steps.append(SetDelivery(delivery=Delivery(decided=decision.decided, inputs=inputs)))
            return True
        if not stored.wanted:
            message = "an egress is started when somebody watches"
            self.awaited.append(Wait(action=Action.WAIT_FOR_VIEWER, message=message))
        if decision.until is not None:
            stops = stored.wanted and stored.decided.reason is not DeliveryReason.HOLD
            action = Action.STOP_EGRESS if stops else Action.NONE
            self.reached(decision.until, action=action, message="the egress is stopped, if nobody watches until then")
        return False

    def end_reason(self) -> EndReason | None:
        broadcast, resource_set = self.broadcast, self.resource_set
        latest: list[AnyResource] = [*resource_set.rooms[-1:], *resource_set.streams[-1:]]
        if broadcast.live_time is None:
            # Once it was live, a refused egress is due to a later change of the spec, which can be changed again.
            latest += resource_set.egresses[-1:]
        if any(resource.refused for resource in latest):
            return EndReason.PROVIDER_REFUSED
        if broadcast.ready_time is None:
            overdue = self.start_overdue(resource_set.rooms) or self.start_overdue(resource_set.streams)
            return EndReason.START_TIMEOUT if overdue else None
        return self.stream_end() or self.time_end()

    def stream_end(self) -> EndReason | None:
        stream = self.resource_set.stream
        if stream is None or stream.phase is Phase.DELETING:
            return EndReason.STREAM_LOST
        if stream.status is StreamStatus.DISABLED and not stream.cutting:
            return EndReason.TEST_LIMIT if self.broadcast.spec.test else EndReason.STREAM_DISABLED
        return None

    def time_end(self) -> EndReason | None:
        broadcast, room = self.broadcast, self.resource_set.room
        live = broadcast.live_time
        if live is not None and self.reached(
            live + seconds(broadcast.spec.max_duration_s),
            action=Action.END_BROADCAST,
            message="when its maximum duration is over",
        ):
            return EndReason.MAX_DURATION
        deadline = host_deadline(broadcast, self.resource_set, self.timing)
        if deadline is None or not self.reached(
            deadline, action=Action.WAIT_FOR_HOST, message="or the broadcast is ended then"
        ):
            return None
        if room is not None and room.phase is Phase.PRESENT and not self.in_vain(room, deadline, self.timing.lookup_s):
            return None
        return EndReason.NO_HOST if live is None else EndReason.HOST_LEFT

    def start_overdue(self, resources: Sequence[Room] | Sequence[Stream]) -> bool:
        if not resources or any(resource.phase is Phase.PRESENT for resource in resources):
            return False
        waited_s = queued_s(resources[-1], self.broadcast, self.now, self.timing, self.availability)
        waited_s += ahead_s(self.broadcast.spec, resources[0].intended_at)
        overdue_at = resources[0].intended_at + seconds(self.timing.start_deadline_s + waited_s)
        message = f"if no {resources[0].kind} could be made by then"
        return self.reached(overdue_at, action=Action.END_BROADCAST, message=message)

    def plan_room(self) -> None:
        room = self.resource_set.room
        if room is None:
            self.steps.append(CreateRoom(ordinal=next_ordinal(self.resource_set.rooms)))
        elif room.unresolved and self.due(room):
            # Creating a room of the same name again answers the same room, so an unknown one is simply created again.
            self.steps.append(CreateRoom(ordinal=room.ordinal))
        elif room.forgotten_at is not None and room.absent_since is not None:
            if self.due(room):
                self.steps.append(AskForRoom(ordinal=room.ordinal))
        elif room.phase is Phase.PRESENT and room.host_publishing is None:
            self.look_again(room, self.timing.lookup_s)
        elif (every := self.resource_set.roll_call_s(self.timing)) is not None:
            self.look_again(room, every)

    def plan_stream(self) -> None:
        resource_set = self.resource_set
        for extra in resource_set.streams:
            if extra.phase is Phase.DELETING or (extra.phase is Phase.PRESENT and extra is not resource_set.stream):
                self.delete(extra)
        stream = resource_set.stream
        if stream is None:
            if not resource_set.streams or self.due(resource_set.streams[-1]):
                self.steps.append(CreateStream(ordinal=next_ordinal(resource_set.streams)))
        elif stream.unresolved:
            self.resolve(stream, self.timing.stream_grace_s)

    def plan_egress(self) -> None:
        resource_set = self.resource_set
        current = resource_set.egress
        for egress in resource_set.egresses:
            if egress is not current:
                self.stop(egress, "it is not the one in use")
        if not wants_egress(self.broadcast, resource_set):
            if self.broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL and not on_air(self.broadcast):
                message = "an egress is started when SetOnAir is called"
                self.awaited.append(Wait(action=Action.WAIT_FOR_ON_AIR, message=message))
            if current is not None:
                self.stop(current, "nobody watches" if unwatched(self.broadcast) else "it is not wanted now")
            return
        if current is None:
            self.start_egress()
        elif current.phase is Phase.PRESENT:
            self.keep_egress(current)
        else:
            self.resolve_start(current)

    def resolve_start(self, egress: Egress) -> None:
        """A start without an answer. There is no need to wait until its grace is over: once no list shows it, the key
        is reset, and a start that lands later cannot publish. One that was refused for now needs no reset: the list
        that does not show it confirms that it has no effect.
        """
        if egress.tries_over_at is not None:
            self.resolve(egress, self.timing.egress_grace_s)
            return
        if self.in_vain(egress, egress.intended_at + seconds(self.timing.list_lag_s), self.timing.lookup_s):
            self.reset_key()

    def reset_key(self) -> None:
        stream = self.resource_set.stream
        if stream is not None and stream.phase is Phase.PRESENT and self.due(stream):
            self.steps.append(ResetKey(ordinal=stream.ordinal))

    def start_egress(self) -> None:
        resource_set = self.resource_set
        stream, room = resource_set.stream, resource_set.room
        if stream is None or stream.phase is not Phase.PRESENT or room is None or room.phase is not Phase.PRESENT:
            return
        if room.absent_since is not None:
            # Whether there is a room to record is asked first: `finish` waits for the look.
            return
        if not self.limit_allows():
            self.blocked = Blocked.START_LIMIT
            return
        if self.backs_off():
            self.blocked = Blocked.BACK_OFF
            return
        able = [egress for egress in resource_set.egresses if resource_set.can_publish(egress)]
        # An egress that ends as it was told to is waited for: nobody has to be cut off then.
        leaving = [
            egress
            for egress in able
            if egress.phase is Phase.DELETING and not (egress.fault.mistrusted and self.fences)
        ]
        connected = [e for e in able if e not in leaving and resource_set.may_be_connected(e, stream)]
        if stream.key_stale or any(e.key_epoch >= stream.key_epoch for e in able if e not in leaving):
            self.reset_key()
        elif leaving:
            # stop() looks at it until it has ended or is written off; one that is written off is cut off.
            self.blocked = Blocked.PREVIOUS_ENDING
        elif connected or stream.cutting:
            self.blocked = Blocked.CUTTING_OFF
            if self.due(stream):
                self.steps.append(CutStream(ordinal=stream.ordinal))
        elif not self.fenced(stream):
            self.blocked = Blocked.FENCING
        else:
            self.steps.append(StartEgress(ordinal=next_ordinal(resource_set.egresses)))

    def limit_allows(self) -> bool:
        """Whether the limit of failed starts, and that of all starts, allows another one now."""
        egresses, timing = self.resource_set.egresses, self.timing
        for counted, limit in (
            (recent_failures(egresses, self.now, timing), timing.starts_limit),
            (recent_starts(egresses, self.now, timing), timing.starts_spent),
        ):
            if len(counted) >= limit:
                allowed_at = counted[-limit].intended_at + seconds(timing.starts_window_s)
                message = "an egress is started again when the limit of starts allows it"
                if not self.reached(allowed_at, action=Action.START_EGRESS, message=message):
                    return False
        return True

    def backs_off(self) -> bool:
        """Whether the next start has to wait, after a refused start or after egresses that failed lately."""
        refused = [egress for egress in self.resource_set.egresses if never_ran(egress)]
        if refused and not self.slot_is_free_since(refused[-1]) and not self.due(refused[-1]):
            return True
        recent = recent_starts(self.resource_set.egresses, self.now, self.timing)
        if not recent or not failed(recent[-1]):
            return False
        recent = recent_failures(recent, self.now, self.timing)
        again_at = recent[-1].changed_at + seconds(backoff_s(len(recent), self.timing))
        if self.failed_for_an_outage(recent[-1]):
            return False
        return not self.reached(again_at, action=Action.RETRY, message="an egress is started again")

    def failed_for_an_outage(self, egress: Egress) -> bool:
        """Whether *egress* failed before the last outage of any provider was over, or before a person asked for
        another try.
        """
        moments = [retried_since(each, self.broadcast, self.now, self.availability) for each in (ROOMS, STREAMS)]
        return any(moment is not None and egress.changed_at < moment for moment in moments)

    def fenced(self, stream: Stream) -> bool:
        """Whether starts without an answer were looked for again after the key was reset. An egress that landed between
        the look before and the reset may be connected, and a reset does not cut it off.
        """
        if stream.key_reset_at is None:
            return True
        shown = stream.key_reset_at + seconds(self.timing.list_lag_s)
        return all(
            self.in_vain(egress, shown, self.timing.lookup_s, action=Action.RETRY, message=_CERTAIN)
            for egress in self.resource_set.egresses
            if egress.unresolved
        )

    def keep_egress(self, egress: Egress) -> None:
        timing, stream = self.timing, self.resource_set.stream
        since = egress.status_since or egress.changed_at
        if egress.status in (EgressStatus.UNKNOWN, EgressStatus.STARTING):
            late = egress.intended_at + seconds(timing.egress_start_s)
            if self.in_vain(egress, late, timing.watch_s, action=Action.WAIT_FOR_EGRESS, message=_OR_REPLACED):
                self.stop(egress, f"it did not start within {timing.egress_start_s:g} s", Fault.START_TIMEOUT)
            return
        if egress.status is EgressStatus.ENDING:
            late = since + seconds(timing.egress_stop_s)
            if self.in_vain(egress, late, timing.watch_s, action=Action.WAIT_FOR_END, message=_OR_REPLACED):
                self.stop_and_fence(egress, f"it did not end within {timing.egress_stop_s:g} s", Fault.END_TIMEOUT)
            return
        push = next((output.state for output in egress.outputs if output.name == ""), None)
        if push in (OutputState.FAILED, OutputState.FINISHED):
            # It stays ACTIVE for its other destinations and never tries this one again.
            self.stop(egress, "its connection to the live stream failed", Fault.DISCONNECTED)
            return
        if self.is_ghost(egress):
            self.stop_and_fence(egress, "it is not in its room", Fault.GHOST)
            return
        if push is OutputState.CONNECTING and self.in_vain(
            egress,
            since + seconds(timing.connect_s),
            timing.watch_s,
            action=Action.WAIT_FOR_CONNECTION,
            message=_OR_REPLACED,
        ):
            self.stop_and_fence(egress, f"it did not connect within {timing.connect_s:g} s", Fault.NOT_CONNECTED)
            return
        if stream is not None and (self.lost(egress, stream, since) or self.stalls(egress, stream, since)):
            return
        if not egress.delivering:
            self.look_again(egress, timing.watch_s)
        self.keep_outputs(egress)

    def lost(self, egress: Egress, stream: Stream, since: datetime) -> bool:
        """Whether the live stream gets no media of *egress*. If so, *egress* is stopped."""
        timing = self.timing
        if stream.status is StreamStatus.ACTIVE:
            return False
        began = max(since, stream.status_since or since)
        # An egress that fed the stream before needs no time to begin: a worker that died looks like this for ever.
        settled = (egress.delivering_since or since) + seconds(timing.reconnect_s)
        fed = stream.fed_at is not None and stream.status_since is not None and stream.status_since >= settled
        within = timing.ingest_lost_s if fed else timing.ingest_start_s
        lost_at = began + seconds(within)
        if not self.in_vain(stream, lost_at, timing.ingest_watch_s, action=Action.WAIT_FOR_MEDIA, message=_OR_REPLACED):
            return False
        self.stop_and_fence(
            egress, f"the live stream got no media within {within:g} s", Fault.INGEST_LOST if fed else Fault.NO_MEDIA
        )
        return True

    def stalls(self, egress: Egress, stream: Stream, since: datetime) -> bool:
        """Whether *egress* sends and the playlist does not move on. If so, *egress* is stopped."""
        if stream.stalled_since is None:
            return False
        # Planned again when what is known of it is too old.
        self.waits.append(self.now + seconds(PROBED_S))
        fed_since = max(stream.stalled_since, egress.delivering_since or since)
        if not self.reached(
            fed_since + seconds(self.timing.stalled_s), action=Action.WAIT_FOR_MEDIA, message=_OR_REPLACED
        ):
            return False
        self.stop_and_fence(egress, "it sends, and the playlist does not move on", Fault.STALLED)
        return True

    def stop_and_fence(self, egress: Egress, why: str, fault: Fault) -> None:
        """Stop *egress*, which does not do what it says, and reset the key at the same time. Its successor does not
        wait for its end: a wedged egress drains for 30 s, and one whose worker died answers nothing.
        """
        self.stop(egress, why, fault)
        if self.fences:
            self.reset_key()

    @property
    def fences(self) -> bool:
        """Whether an egress can be fenced and replaced now. In an outage its end is waited for, and the key stays."""
        return not self.availability.outages

    def keep_outputs(self, egress: Egress) -> None:
        add, remove = output_changes(self.broadcast, egress)
        if (add or remove) and self.due(egress):
            self.steps.append(SetDestinations(ordinal=egress.ordinal, add=add, remove=remove))
        elif not add and not remove and self.broadcast.spec.layout != egress.layout and self.due(egress):
            self.steps.append(SetLayout(ordinal=egress.ordinal))
        elif not add and not remove and (again := self.outputs_due(egress)) and self.due(egress):
            self.steps.append(SetDestinations(ordinal=egress.ordinal, again=again))

    def outputs_due(self, egress: Egress) -> tuple[str, ...]:
        """The destinations that *egress* lost and that are to be given to it again now; the others are awaited."""
        statuses = {each.name: each for each in self.broadcast.status.destinations}
        wanted = [each.name for each in self.broadcast.spec.carried_by(Carrier.EGRESS) if each.name in statuses]
        moments = {name: next_try(statuses[name], self.broadcast, self.timing) for name in lost_outputs(egress, wanted)}
        return tuple(name for name, moment in moments.items() if moment is not None and self.reached(moment))
