"""Generated facts: rows in any state, with whatever was measured and told, and the status that a pass would store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from hypothesis import strategies as st

from service.domain.broadcast import (
    Broadcast,
    EndReason,
    Fallback,
    FallbackMode,
    PlaybackPolicy,
    ProviderTrouble,
    Target,
    seconds,
)
from service.domain.errors import Outcome
from service.domain.facts import Facts, Told
from service.domain.lifecycle import Event
from service.domain.measurements import Probe, Unseen
from service.domain.planning.plan import plan
from service.domain.ports import RoomPeople
from service.domain.provider import Provider
from service.domain.reasons import Actor, EventReason, FallbackReason, Fault, Operation
from service.domain.reporting.status import status_of
from service.domain.resources import AnyResource, Egress, Kind, Phase, Room, Stream, StreamStatus
from service.domain.timing import Timing
from tests.simulation.environment import T0
from tests.unit.health_facts import CAMERA, MICROPHONE, NOW, PLAYLIST, ago, ann, away
from tests.unit.plan_strategies import (
    Case,
    anything,
    delivering,
    ending,
    in_trouble,
    moments,
    on_air,
    recovered,
    written_off,
)
from tests.unit.situations import SITUATIONS

TIMING = Timing()
outages = st.sampled_from(
    [away("livekit"), away("mux"), away("mux", "401"), away("livekit", "credentials"), away("mux", "")]
)
maybe = st.none() | moments
_PEOPLE = (
    RoomPeople(),
    ann(),
    ann(MICROPHONE),
    ann(replace(CAMERA, muted=True), MICROPHONE),
)
probes = st.builds(
    Probe,
    people=st.none() | st.sampled_from(_PEOPLE),
    people_at=maybe,
    playlist=st.none()
    | st.sampled_from(
        [PLAYLIST, replace(PLAYLIST, ended=True), *(replace(PLAYLIST, status=status) for status in (403, 412))]
    ),
    playlist_at=maybe,
    advanced_at=maybe,
    standing_since=maybe,
    unseen=st.sampled_from([None, None, Unseen(since=T0 - seconds(12), at=T0 - seconds(4), code="503", message="503")]),
)
_OPERATIONS = {
    Provider.LIVEKIT: (Operation.CREATE_ROOM, Operation.START_EGRESS, Operation.STOP_EGRESS, Operation.SET_LAYOUT),
    Provider.MUX: (Operation.CREATE_STREAM, Operation.DELETE_STREAM, Operation.RESET_KEY),
}


@st.composite
def troubles(draw: st.DrawFn) -> ProviderTrouble:
    provider = draw(st.sampled_from(list(_OPERATIONS)))
    return ProviderTrouble(
        provider=provider,
        operation=draw(st.sampled_from(_OPERATIONS[provider])),
        code=draw(st.sampled_from(["503", "401", "timeout", "429", ""])),
        message=draw(st.sampled_from(["503 Service Unavailable", "no answer in time", ""])),
        retryable=True,
        time=draw(moments),
        outcome=draw(st.sampled_from(Outcome)),
    )


reasons = st.sampled_from(
    [
        EventReason.STATE_LIVE,
        EventReason.STATE_INTERRUPTED,
        EventReason.ROOM_LOST,
        EventReason.KEY_RESET_OUTSIDE,
        EventReason.HOST_STOPPED,
        EventReason.EGRESS_CONNECTED,
        EventReason.STREAM_LOST,
        EventReason.OFF_AIR_REQUESTED,
    ]
)
stories = st.lists(st.tuples(reasons, moments), max_size=5).map(
    lambda told: tuple(
        Told(event=Event(reason=reason, message=""), time=time, actor=Actor.RECONCILER)
        for reason, time in sorted(told, key=lambda each: each[1])
    )
)


def _seen(draw: st.DrawFn, row: AnyResource, now: datetime) -> AnyResource:
    """*row* with what only a look brings: an absence, an egress that is not in the room, a stall."""
    rarely = st.sampled_from([None, None, None, now - seconds(3), now - seconds(10)])
    if row.phase is Phase.PRESENT:
        row = replace(row, absent_since=draw(rarely))
    match row:
        case Room() if (away := draw(rarely)) is not None:
            return replace(row, missing=dict.fromkeys(("e", "id-0", "id-1", "EG_1"), away))
        case Stream() if row.phase is not Phase.PRESENT:
            # A live stream that was never seen has no status, and one that is being deleted gets no media.
            return replace(row, status=StreamStatus.UNKNOWN if row.unresolved else StreamStatus.IDLE)
        case Stream():
            return replace(row, stalled_since=draw(rarely), connected=draw(st.sampled_from([None, True, False])))
        case Egress() if row.phase is Phase.GONE:
            return replace(row, fault=draw(st.sampled_from(Fault)))
        case _:
            return row


@st.composite
def facts(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Facts:
    case = draw(cases)
    resources = tuple(_seen(draw, row, T0) for row in case.resources)
    broadcast = _broadcast(draw, case.broadcast, resources)
    decided = plan(broadcast, resources, T0, TIMING, case.availability)
    state, status = status_of(broadcast, resources, decided, T0, case.availability)
    return Facts(
        broadcast=replace(broadcast, state=state, status=status),
        resources=resources,
        now=T0,
        availability=case.availability,
        looked_at=draw(st.dictionaries(st.sampled_from(["livekit", "mux"]), moments)),
        probe=draw(probes),
        story=draw(stories),
        claimable_since=draw(st.sampled_from([None, None, T0 - seconds(1), T0 - seconds(31)])),
    )


def _broadcast(draw: st.DrawFn, broadcast: Broadcast, resources: tuple[AnyResource, ...]) -> Broadcast:
    target = draw(st.sampled_from([broadcast.target, broadcast.target, broadcast.target, Target.ENDED]))
    if target is Target.ENDED:
        broadcast = replace(broadcast, end_reason=draw(st.sampled_from(EndReason)))
    live = draw(st.sampled_from([True, False]))
    spec = replace(broadcast.spec, playback_policy=draw(st.sampled_from(PlaybackPolicy)))
    streams = [row for row in resources if row.kind is Kind.STREAM]
    return replace(
        broadcast,
        spec=spec,
        target=target,
        start_time=T0 - seconds(6000),
        # What was made once was ready once.
        ready_time=broadcast.ready_time or (T0 - seconds(5000) if streams and live else None),
        turn_at=draw(st.sampled_from([None, None, T0 + seconds(9), T0 - seconds(9)])),
        generation=draw(st.sampled_from([1, 2])),
        status=replace(
            broadcast.status,
            last_error=draw(st.none() | troubles()),
            observed_generation=1,
            state_time=draw(moments),
        ),
    )


def _rows_seen_otherwise(draw: st.DrawFn, was: Facts) -> Facts:
    return replace(was, resources=tuple(_seen(draw, row, NOW) for row in was.resources))


def _outage(draw: st.DrawFn, was: Facts) -> Facts:
    return replace(was, availability=draw(outages))


def _probe_of_another(draw: st.DrawFn, was: Facts) -> Facts:
    return replace(was, probe=draw(st.sampled_from([each.probe for each in SITUATIONS.values()])))


def _another_event(draw: st.DrawFn, was: Facts) -> Facts:
    told = Told(event=Event(reason=draw(reasons)), time=ago(9), actor=Actor.RECONCILER)
    return replace(was, story=(*was.story, told))


def _due(draw: st.DrawFn, was: Facts) -> Facts:
    return replace(was, claimable_since=draw(st.sampled_from([NOW - seconds(1), NOW - seconds(31)])))


def _turn(draw: st.DrawFn, was: Facts) -> Facts:
    turn_at = NOW + seconds(draw(st.sampled_from([-9, 9])))
    return replace(was, broadcast=replace(was.broadcast, turn_at=turn_at))


def _updated(_draw: st.DrawFn, was: Facts) -> Facts:
    spec = replace(was.broadcast.spec, layout="speaker")
    return replace(was, broadcast=replace(was.broadcast, generation=2, spec=spec))


def _failed_call(draw: st.DrawFn, was: Facts) -> Facts:
    status = replace(was.broadcast.status, last_error=replace(draw(troubles()), time=ago(12)))
    return replace(was, broadcast=replace(was.broadcast, status=status))


def _fallback(draw: st.DrawFn, was: Facts) -> Facts:
    modes = (draw(st.sampled_from([*FallbackMode])),)
    fallback = Fallback(modes=modes, reason=FallbackReason.EGRESS_FAILING, since=ago(40))
    return replace(was, broadcast=replace(was.broadcast, fallback=fallback))


def _seen_long_ago(draw: st.DrawFn, was: Facts) -> Facts:
    resources = tuple(replace(each, observed_at=ago(draw(st.sampled_from([5, 60])))) for each in was.resources)
    return replace(was, looked_at={}, resources=resources)


_CHANGES = (
    _rows_seen_otherwise,
    _outage,
    _probe_of_another,
    _another_event,
    _due,
    _turn,
    _updated,
    _failed_call,
    _fallback,
    _seen_long_ago,
)


@st.composite
def changed(draw: st.DrawFn) -> Facts:
    """A situation of the table in which one or two things are otherwise: most of it is well in most of these."""
    now = SITUATIONS[draw(st.sampled_from([*SITUATIONS]))]
    for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=2)):
        now = change(draw, now)
    decided = plan(now.broadcast, now.resources, NOW, TIMING, now.availability)
    state, status = status_of(now.broadcast, now.resources, decided, NOW, now.availability)
    return replace(now, broadcast=replace(now.broadcast, state=state, status=status))


FACTS = (
    *(facts(cases) for cases in (anything, on_air(), delivering(), in_trouble(), recovered(), written_off(), ending())),
    changed(),
)
