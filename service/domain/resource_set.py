"""The resources of one broadcast, and the questions about them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from service.domain.broadcast import Broadcast, Carrier, DeliveryPolicy, seconds
from service.domain.destinations import stopped_names
from service.domain.reasons import Fault
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    LocalRecording,
    Phase,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.timing import Timing

_NOBODY: Mapping[str, datetime] = {}


class ResourceSet:
    """The resources of one broadcast, and the questions that planning asks about them.

    Invariant: it holds every row that is stored for the broadcast, of every phase, in the order of the ordinals, and
    never changes. An answer depends on these rows alone, or on the moment that is given with the question.
    """

    def __init__(self, resources: Sequence[AnyResource]) -> None:
        self.all = tuple(resources)
        self.rooms = sorted((r for r in resources if isinstance(r, Room)), key=lambda r: r.ordinal)
        self.streams = sorted((r for r in resources if isinstance(r, Stream)), key=lambda r: r.ordinal)
        self.egresses = sorted((r for r in resources if isinstance(r, Egress)), key=lambda r: r.ordinal)
        self.recordings = sorted((r for r in resources if isinstance(r, LocalRecording)), key=lambda r: r.ordinal)
        self.uploads = sorted((r for r in resources if isinstance(r, Upload)), key=lambda r: r.ordinal)

    @property
    def room(self) -> Room | None:
        return next((room for room in reversed(self.rooms) if room.phase is not Phase.GONE), None)

    @property
    def stream(self) -> Stream | None:
        """The live stream in use: the first that is PRESENT, or else the latest attempt. None: all are gone."""
        living = [stream for stream in self.streams if stream.phase is not Phase.GONE]
        return next((stream for stream in living if stream.phase is Phase.PRESENT), living[-1] if living else None)

    def can_publish(self, egress: Egress) -> bool:
        """Whether media of this egress may reach the live stream, now or when a late start lands."""
        stream = self.stream
        if egress.end_seen or stream is None:
            return False
        if egress.key_epoch >= stream.key_epoch or self.may_be_connected(egress, stream):
            return True
        return egress.key_epoch >= 0 and egress.phase is Phase.PRESENT

    def may_be_connected(self, egress: Egress, stream: Stream) -> bool:
        """A key reset stops new encoders but not connected ones. An egress that was told to stop or written off, and
        never seen to end, may still be connected until the live stream is disabled. An idle live stream proves nothing:
        a connected encoder may be silent and send again.
        """
        if egress.phase not in (Phase.DELETING, Phase.GONE) or egress.end_seen or not egress.external_id:
            return False
        return egress.key_epoch >= 0 and egress.key_epoch >= stream.cut_epoch

    @property
    def egress(self) -> Egress | None:
        """The egress that delivers or is to deliver. None: none runs that may publish."""
        return next(
            (
                egress
                for egress in reversed(self.egresses)
                if egress.phase in (Phase.INTENDED, Phase.UNKNOWN, Phase.PRESENT) and self.can_publish(egress)
            ),
            None,
        )

    @property
    def recording(self) -> LocalRecording | None:
        """The local recording that runs or is to run. None: none does."""
        alive = (Phase.INTENDED, Phase.UNKNOWN, Phase.PRESENT)
        return next((each for each in reversed(self.recordings) if each.phase in alive), None)

    @property
    def recorders(self) -> list[Egress | LocalRecording]:
        return [*self.egresses, *self.recordings]

    @property
    def given_up(self) -> list[Egress | LocalRecording]:
        """Egresses that were given up without having been seen to end: each may run on and cost. One that a look has
        missed in the room since does not run, unless it never came into it.
        """
        return [
            each
            for each in self.recorders
            if each.phase is Phase.GONE
            and _may_run(each)
            and (each.external_id not in self._missing or _never_came(each))
        ]

    def still_running(self, inside: frozenset[str], now: datetime, timing: Timing) -> list[Egress | LocalRecording]:
        """Egresses that were given up and are in the room, or never came into it, each as soon as it is to be told to
        stop again. *inside*: ids of the egresses in the room.
        """
        return [
            each
            for each in self.recorders
            if each.phase is Phase.GONE
            and _may_run(each)
            and (each.external_id in inside or _never_came(each))
            and now >= each.changed_at + seconds(stop_again_s(each, timing))
        ]

    @property
    def may_be_inside(self) -> list[Egress | LocalRecording]:
        """Egresses whose worker may be in the room. One that was told to stop and is gone does not come back."""
        return [
            each
            for each in self.recorders
            if each.unresolved
            or each.phase is Phase.PRESENT
            or (_may_run(each) and each.external_id not in self._missing)
        ]

    def missing(self, inside: frozenset[str], now: datetime) -> dict[str, datetime]:
        """Which egresses are not in the room, by id, and since when. *inside*: ids of the egresses in the room."""
        away = {each.external_id for each in self.recorders if _may_run(each)} - inside
        return {id_: self._missing.get(id_, now) for id_ in sorted(away)}

    def missing_since(self, egress: Egress | LocalRecording) -> datetime | None:
        """Since when an egress that is listed as active is not in its room. None: it is in it, or it is not known."""
        missing = self._missing.get(egress.external_id)
        if missing is None or egress.status is not EgressStatus.ACTIVE:
            return None
        return max(missing, egress.status_since or egress.changed_at)

    @property
    def _missing(self) -> Mapping[str, datetime]:
        return self.room.missing if self.room is not None else _NOBODY

    def roll_call_s(self, timing: Timing) -> float | None:
        """Seconds between two looks at the participants of the room. None: the observer's list of rooms is enough."""
        room = self.room
        active = [each for each in self.recorders if each.phase is Phase.PRESENT and each.status is EgressStatus.ACTIVE]
        if room is None or room.phase is not Phase.PRESENT:
            return None
        if active and (room.recorded is False or any(map(self.missing_since, active))):
            return timing.watch_s
        if active and len(self.may_be_inside) > 1:
            return timing.roll_call_s
        return min((stop_again_s(each, timing) for each in self.given_up), default=None)

    @property
    def running(self) -> list[AnyResource]:
        """Everything that must be gone at last. An uploaded file stays, as a recording."""
        return [*self.rooms, *self.streams, *self.egresses, *self.recordings]

    @property
    def left(self) -> list[AnyResource]:
        """The resources that keep a broadcast from being over: each may run, cost money or take a publisher. A live
        stream that is retired does none of it, and is deleted later.
        """
        return [
            each
            for each in self.running
            if each.phase is not Phase.GONE and not (isinstance(each, Stream) and each.retired)
        ]

    @property
    def playable(self) -> bool:
        """Moving pictures need all of it: the live stream has media and its playlist moves on, the egress is connected
        now, somebody publishes. The live stream alone stays active through its reconnect window while viewers see a
        slate.
        """
        room, stream, egress = self.room, self.stream, self.egress
        host = room is not None and room.phase is Phase.PRESENT and bool(room.host_publishing)
        sent = egress is not None and egress.delivering
        taken = stream is not None and not stream.disabled and stream.status is StreamStatus.ACTIVE
        moves = stream is not None and stream.stalled_since is None
        return host and sent and taken and moves

    @property
    def absent(self) -> list[AnyResource]:
        """Resources that the last look should have shown and did not: whether they exist is not known."""
        return [each for each in self.running if each.phase is Phase.PRESENT and each.absent_since is not None]

    @property
    def fed(self) -> bool:
        """Whether the live stream gets media, as it was seen last."""
        stream = self.stream
        return stream is not None and not stream.disabled and stream.status is StreamStatus.ACTIVE

    @property
    def delivered(self) -> bool:
        """Whether the live stream gets media that only an egress of this room can bring: one that delivered when it was
        seen last, and was not seen to end. While it does, room and egress are there, whatever a list lacks.
        """
        return self.fed and self.feeding is not None

    @property
    def source_closed(self) -> bool:
        """Whether the last egress ended as if it had been told to, and was not: LiveKit ends it so with its room."""
        last = self.egresses[-1] if self.egresses else None
        return last is not None and last.phase is Phase.GONE and last.end_seen and last.fault is Fault.COMPLETE

    @property
    def feeding(self) -> Egress | None:
        """The latest egress that delivered when it was seen last. None: none did."""
        return next(
            (each for each in reversed(self.egresses) if each.phase is not Phase.GONE and each.delivering), None
        )

    @property
    def whole_since(self) -> datetime | None:
        """Since when host, live stream and egress are what they are now, the latest of the three."""
        room, stream, egress = self.room, self.stream, self.egress
        began = (room and room.host_since, stream and stream.status_since, egress and egress.delivering_since)
        return max((moment for moment in began if moment is not None), default=None)


def _may_run(egress: Egress | LocalRecording) -> bool:
    return bool(egress.external_id) and not egress.end_seen


def _never_came(given_up: Egress | LocalRecording) -> bool:
    """Whether it was starting when it was seen last. A worker that still starts it is not in the room yet, so a look
    that misses it there shows nothing.
    """
    return given_up.status is EgressStatus.STARTING


def stop_again_s(given_up: Egress | LocalRecording, timing: Timing) -> float:
    """Seconds from the moment at which an egress was given up to the next stop, if it may still run then. Each time
    it answers no stop the next one comes later, so that it costs few calls and few events.
    """
    return min(timing.roll_call_s * 2.0 ** min(given_up.returns, 30), timing.stop_again_s)


def never_ran(egress: Egress) -> bool:
    """A start that was refused before any worker took it: it cost nothing."""
    return egress.phase is Phase.GONE and egress.end_seen and not egress.external_id


def failed(egress: Egress) -> bool:
    """Whether *egress* failed, or may have: its start was not answered. One that was stopped because it was not wanted
    did not fail, whether or not it answered.
    """
    return egress.unresolved or (bool(egress.fault) and egress.fault is not Fault.NOT_STOPPED and not never_ran(egress))


def recent_starts(egresses: Iterable[Egress], now: datetime, timing: Timing) -> list[Egress]:
    """The starts of the window that some worker took or may have taken: each cost something."""
    began = now - seconds(timing.starts_window_s)
    return [egress for egress in egresses if egress.intended_at > began and not never_ran(egress)]


def recent_failures(egresses: Iterable[Egress], now: datetime, timing: Timing) -> list[Egress]:
    """Those of `recent_starts` that failed: they count against the limit, and the back-off grows with them."""
    return [egress for egress in recent_starts(egresses, now, timing) if failed(egress)]


def refused_for_want_of_a_slot(egresses: Sequence[Egress]) -> Egress | None:
    """The latest start, if LiveKit refused it because it takes no more egresses or no worker is free. None: it did
    not.
    """
    last = egresses[-1] if egresses else None
    full = last is not None and never_ran(last) and last.fault in (Fault.THROTTLED, Fault.UNAVAILABLE)
    return last if full else None


def backoff_s(starts: int, timing: Timing) -> float:
    """Seconds from an egress that failed to the next start, by the number of failed starts in the window."""
    return 0.0 if starts <= 1 else min(timing.starts_backoff_s * 4.0 ** (starts - 2), timing.starts_window_s)


def next_ordinal(resources: Sequence[AnyResource]) -> int:
    return max((resource.ordinal for resource in resources), default=-1) + 1


def host_deadline(broadcast: Broadcast, resource_set: ResourceSet, timing: Timing) -> datetime | None:
    """When the wait for a host is over. None: a host publishes, or no host is waited for. A host who was never there is
    not missed before the scheduled time.

    A lost room says nothing of a host who was live, so that host is not waited for.
    """
    if broadcast.ready_time is None or not resource_set.rooms:
        return None
    room = resource_set.room or resource_set.rooms[-1]
    there, live = room.phase is Phase.PRESENT, broadcast.live_time is not None
    if (there and room.host_publishing) or (live and not there):
        return None
    since = room.intended_at if room.unresolved else room.changed_at
    if there and room.host_since is not None:
        since = room.host_since
    if live:
        return since + seconds(timing.host_return_s)
    scheduled = broadcast.spec.scheduled_start_time or broadcast.ready_time
    return max(since, broadcast.ready_time, scheduled) + seconds(timing.host_wait_s)


def on_air(broadcast: Broadcast) -> bool:
    """Whether an egress may run by the delivery policy."""
    match broadcast.spec.delivery_policy:
        case DeliveryPolicy.ON_PUBLISH:
            return True
        case DeliveryPolicy.MANUAL:
            return broadcast.on_air
        case DeliveryPolicy.ON_DEMAND:
            return broadcast.delivery.wanted


def unwatched(broadcast: Broadcast) -> bool:
    """Whether no egress runs because nobody watches: that is no fault."""
    return broadcast.spec.delivery_policy is DeliveryPolicy.ON_DEMAND and not broadcast.delivery.wanted


def wants_egress(broadcast: Broadcast, resource_set: ResourceSet) -> bool:
    """Whether an egress should run: a host publishes, or one ran already and the host may come back to it."""
    if not on_air(broadcast):
        return False
    room = resource_set.room
    if room is None or room.phase is not Phase.PRESENT:
        return False
    return bool(room.host_publishing) or resource_set.egress is not None


def output_changes(broadcast: Broadcast, egress: Egress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Destinations to add to an egress, and to remove from it.

    A name that was removed and given to another place before we could see either is removed first and added after it.
    A destination that somebody else added stays: removing it needs its whole url, which only its adder knows.
    """
    wanted = {each.name: broadcast.push_url(each) for each in broadcast.spec.carried_by(Carrier.EGRESS)}
    has = egress.destinations
    stays = {name for name in has if name in wanted and egress.pushes.get(name, wanted[name]) == wanted[name]}
    goes = tuple(name for name in has if name not in stays and name in egress.pushes)
    # One that was stopped stays with an egress that has it, and is not given to one that has it not.
    given_up = stopped_names(broadcast)
    return tuple(name for name in wanted if name not in has and name not in given_up), goes


def next_recording_look(since: datetime, observed_at: datetime | None, now: datetime | None = None) -> datetime:
    """When to ask next for a recording that is being prepared: often at first, rarely later.

    *since*: when the wait began. *now*: the question was due and got no answer, so the next moment is after it.
    """
    asked = observed_at or since
    due = asked + _rarer(asked - since)
    return due if now is None or due > now else now + _rarer(now - since)


def _rarer(age: timedelta) -> timedelta:
    return min(max(age / 4, seconds(5)), seconds(300))
