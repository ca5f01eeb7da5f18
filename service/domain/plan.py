"""plan(): from what is wanted and what was seen to what to do next. Pure: no clock, no I/O, no chance.

Invariants, each a property test:
- at most one step per resource;
- nothing is created once the target is ENDED;
- an egress is started only when no other can publish: every earlier one was seen to end, or holds a dead key;
- nothing is given up for want of an answer: what ends a wait is a look that was made after its time;
- a plan whose steps succeed reaches `done` in a bounded number of rounds, from any state, once the target is ENDED;
- planning twice from the same facts gives the same plan; one without steps waits for a later moment, or is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import (
    AnyResource,
    Broadcast,
    Carrier,
    DeliveryPolicy,
    Egress,
    EgressStatus,
    EndReason,
    Kind,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
    Target,
    seconds,
)
from service.domain.step import (
    CreateRoom,
    CreateStream,
    DeleteRoom,
    DeleteStream,
    DisableStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDestinations,
    SetLayout,
    SettleRecordings,
    StartEgress,
    Step,
    StopEgress,
    WriteOff,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long we wait for what. Seconds."""

    start_deadline_s: float = 120.0
    """For room and live stream, from the first attempt to create them (not from the wait for a budget)."""
    host_wait_s: float = 1800.0
    """How long one that was never live waits for a host, the first or one who left; then it ends with NO_HOST."""
    host_return_s: float = 300.0
    """A host who was live and left may come back this long; then the broadcast ends with HOST_LEFT."""
    egress_start_s: float = 60.0
    """From the start of an egress to ACTIVE. Room composite waits for its page without a limit of its own
    (livekit/egress pkg/pipeline/controller.go), so this is the only one."""
    ingest_start_s: float = 75.0
    """From an ACTIVE egress to an active live stream."""
    egress_stop_s: float = 45.0
    """From StopEgress, or from an end of its own, to a terminal status: the encoder drains for at most 30 s."""
    list_lag_s: float = 2.0
    """A list may lag behind a create by this much."""
    stream_grace_s: float = 30.0
    """A create without an answer that no list shows after this time did not happen."""
    egress_grace_s: float = 90.0
    """The same for an egress: LiveKit tries a start for 10 + 20 + 40 s after the caller has left
    (livekit/protocol rpc/egress_client.go)."""
    update_grace_s: float = 20.0
    """A destination that was added without an answer may still come, and a second one beside it would send twice.
    LiveKit tries for 3 + 5 + 7 s (livekit/protocol rpc/typed_api.go)."""
    lookup_s: float = 2.0
    """Between two looks for something whose existence is not known, or whose absence is awaited."""
    watch_s: float = 3.0
    """Between two looks at an egress that is on its way."""
    ingest_watch_s: float = 5.0
    """Between two looks at a live stream whose media should come any moment."""
    delete_retry_s: float = 10.0
    """A delete that was confirmed but not seen is called again after this time."""
    replan_s: float = 300.0
    """A broadcast in its wanted state is looked at and planned again this often, whatever anybody noticed."""
    starts_window_s: float = 600.0
    starts_limit: int = 5
    """Egress starts of one broadcast in a window: a loop of failing starts costs money."""


class View:
    """The resources of one broadcast, sorted into the questions that planning asks."""

    def __init__(self, resources: Sequence[AnyResource]) -> None:
        self.rooms = sorted((r for r in resources if isinstance(r, Room)), key=lambda r: r.ordinal)
        self.streams = sorted((r for r in resources if isinstance(r, Stream)), key=lambda r: r.ordinal)
        self.egresses = sorted((r for r in resources if isinstance(r, Egress)), key=lambda r: r.ordinal)

    @property
    def room(self) -> Room | None:
        return next((room for room in reversed(self.rooms) if room.phase is not Phase.GONE), None)

    @property
    def stream(self) -> Stream | None:
        """The one in use: the first that is there, or else the latest attempt."""
        living = [stream for stream in self.streams if stream.phase is not Phase.GONE]
        return next((stream for stream in living if stream.phase is Phase.PRESENT), living[-1] if living else None)

    def can_publish(self, egress: Egress) -> bool:
        """Whether media of this egress may reach the live stream, now or when a late start lands."""
        stream = self.stream
        if egress.end_seen or stream is None:
            return False
        # A new key keeps out who comes; who is connected already stays connected.
        ours = egress.key_epoch >= 0 and egress.phase in (Phase.PRESENT, Phase.DELETING)
        return ours or egress.key_epoch >= stream.key_epoch

    @property
    def egress(self) -> Egress | None:
        """The one that delivers or is to deliver."""
        return next(
            (
                egress
                for egress in reversed(self.egresses)
                if egress.phase in (Phase.INTENDED, Phase.UNKNOWN, Phase.PRESENT) and self.can_publish(egress)
            ),
            None,
        )


def plan(broadcast: Broadcast, resources: Sequence[AnyResource], now: datetime, timing: Timing) -> Plan:
    view = View(resources)
    match broadcast.target:
        case Target.CREATED:
            return Plan()
        case Target.LIVE:
            return _Live(broadcast, view, now, timing).plan()
        case Target.ENDED:
            return _End(broadcast, view, now, timing).plan()


def next_ordinal(resources: Sequence[AnyResource]) -> int:
    return max((resource.ordinal for resource in resources), default=-1) + 1


def host_deadline(broadcast: Broadcast, view: View, timing: Timing) -> datetime | None:
    """When the wait for a host is over; None: one publishes, or none is waited for.

    A room that is lost says nothing of a host who was live.
    """
    if broadcast.ready_time is None or not view.rooms:
        return None
    room = view.rooms[-1]
    there, live = room.phase is Phase.PRESENT, broadcast.live_time is not None
    if (there and room.host_publishing) or (live and not there):
        return None
    since = room.intended_at if room.unresolved else room.changed_at
    if there and room.host_since is not None:
        since = room.host_since
    if live:
        return since + seconds(timing.host_return_s)
    return max(since, broadcast.ready_time) + seconds(timing.host_wait_s)


def wants_egress(broadcast: Broadcast, view: View) -> bool:
    """Whether an egress should run: a host publishes, or one ran already and the host may come back to it."""
    if broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL and not broadcast.on_air:
        return False
    room = view.room
    if room is None or room.phase is not Phase.PRESENT:
        return False
    return bool(room.host_publishing) or view.egress is not None


def output_changes(broadcast: Broadcast, egress: Egress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Destinations to add to an egress, and to remove from it.

    A name that was removed and given to another place before we could see either is removed first and added after it.
    """
    wanted = {each.name: broadcast.push_url(each) for each in broadcast.spec.carried_by(Carrier.EGRESS)}
    has = egress.destinations
    stays = {name for name in has if name in wanted and egress.pushes.get(name, wanted[name]) == wanted[name]}
    return tuple(name for name in wanted if name not in has), tuple(name for name in has if name not in stays)


class _Planner:
    def __init__(self, broadcast: Broadcast, view: View, now: datetime, timing: Timing) -> None:
        self.broadcast = broadcast
        self.view = view
        self.now = now
        self.timing = timing
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
        self.waits.append(self.now + seconds(self.timing.replan_s))
        return Plan(
            steps=tuple(self.steps),
            wait_until=None if done else min(self.waits),
            done=done,
            blocked=self.blocked,
        )

    def resolve(self, resource: Stream | Egress, grace_s: float) -> None:
        """A create without an answer: looks go on until it is found or its grace is over."""
        if self.in_vain(resource, resource.intended_at + seconds(grace_s), self.timing.lookup_s):
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

    def stop(self, egress: Egress, why: str) -> None:
        """Towards the end of one egress, whatever phase it is in."""
        match egress.phase:
            case Phase.PRESENT:
                # At once: what it may have to back off from is a change of its outputs, which matters no more.
                self.steps.append(StopEgress(ordinal=egress.ordinal, why=why))
            case Phase.DELETING:
                # A worker that died leaves a record that stays ACTIVE for ever and answers every stop with 408
                # (livekit/egress#950): after its time it is written off, and the key fences it.
                gave_up = egress.changed_at + seconds(self.timing.egress_stop_s)
                # Neither: the process died before the call, and nobody told it to stop.
                answered = egress.acked or egress.failures > 0
                if self.in_vain(egress, gave_up, self.timing.lookup_s) and answered:
                    self.steps.append(
                        WriteOff(kind=Kind.EGRESS, ordinal=egress.ordinal, why="it was not seen to end after its stop")
                    )
                elif not egress.acked and self.due(egress):
                    self.steps.append(StopEgress(ordinal=egress.ordinal, why=why))
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
        self.plan_room()
        self.plan_stream()
        self.plan_egress()
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
        if stream.status is StreamStatus.DISABLED:
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
        if stream.key_stale or (able and not leaving):
            self.reset_key()
        elif leaving:
            # stop() looks at it until it has ended or is written off; a written-off one is fenced by the branch above.
            self.blocked = "PREVIOUS_ENDING"
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
                self.stop(egress, f"it did not start within {timing.egress_start_s:g} s")
            return
        if egress.status is EgressStatus.ENDING:
            if self.in_vain(egress, since + seconds(timing.egress_stop_s), timing.watch_s):
                self.stop(egress, f"it did not end within {timing.egress_stop_s:g} s")
            return
        # It stays ACTIVE for its other destinations and never tries this one again.
        if any(o.name == "" and o.state in (OutputState.FAILED, OutputState.FINISHED) for o in egress.outputs):
            self.stop(egress, "its connection to the live stream failed")
            return
        if stream is not None and stream.status is not StreamStatus.ACTIVE:
            began = max(since, stream.status_since or since)
            if self.in_vain(stream, began + seconds(timing.ingest_start_s), timing.ingest_watch_s):
                self.stop(egress, f"the live stream got no media within {timing.ingest_start_s:g} s")
                return
        if not egress.delivering:
            self.look_again(egress, timing.watch_s)
        self.keep_outputs(egress)

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
        self.plan_rooms()
        everything = (*self.view.rooms, *self.view.streams, *self.view.egresses)
        return self.finish(done=all(resource.phase is Phase.GONE for resource in everything))

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
                    pass

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
