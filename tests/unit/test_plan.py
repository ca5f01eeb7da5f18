"""The rules of the plan, one by one."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.broadcast import Broadcast, DeliveryPolicy, Destination, EndReason, Spec, Target, seconds
from service.domain.planning.plan import plan
from service.domain.planning.steps import (
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
    SetLayout,
    StartEgress,
    Step,
    StopEgress,
    WriteOff,
)
from service.domain.planning.what_to_observe import to_observe
from service.domain.provider import STREAMS
from service.domain.reasons import Fault
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    Output,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.secret import Secret
from service.domain.situation import Availability, Outage
from service.domain.timing import Timing
from tests.simulation.environment import T0

TIMING = Timing()
LONG_AGO = T0 - seconds(3600)


def live(**fields: Any) -> Broadcast:
    given: dict[str, Any] = {"spec": Spec(), "target": Target.LIVE, "ready_time": T0 - seconds(10), **fields}
    return Broadcast(id="b", create_time=LONG_AGO, update_time=LONG_AGO, start_time=LONG_AGO, **given)


OLD: dict[str, Any] = {
    "ordinal": 0,
    "phase": Phase.PRESENT,
    "intended_at": LONG_AGO,
    "changed_at": LONG_AGO,
    "observed_at": T0,
}


def ended() -> Broadcast:
    return live(target=Target.ENDED, end_reason=EndReason.STOPPED)


def a_room(**fields: Any) -> Room:
    given: dict[str, Any] = {**OLD, "host_publishing": True, "host_since": LONG_AGO, **fields}
    return Room(**given)


def a_stream(**fields: Any) -> Stream:
    shown: dict[str, Any] = {"external_id": "s", "status": StreamStatus.IDLE, "status_since": LONG_AGO}
    given: dict[str, Any] = {**OLD, **shown, **fields}
    return Stream(**given)


def an_egress(**fields: Any) -> Egress:
    outputs = (Output(name="", state=OutputState.ACTIVE),)
    shown: dict[str, Any] = {"status": EgressStatus.ACTIVE, "status_since": LONG_AGO, "outputs": outputs}
    given: dict[str, Any] = {**OLD, "external_id": "e", "layout": "grid", **shown, **fields}
    return Egress(**given)


def starting(**fields: Any) -> Egress:
    given: dict[str, Any] = {"status": EgressStatus.STARTING, "outputs": (), **fields}
    return an_egress(**given)


def planned(broadcast: Broadcast, *resources: AnyResource, after_s: float = 0) -> Plan:
    return plan(broadcast, resources, T0 + seconds(after_s), TIMING)


def looks(broadcast: Broadcast, *resources: AnyResource, after_s: float = 0) -> set[tuple[Kind, int]]:
    return set(to_observe(broadcast, resources, T0 + seconds(after_s), TIMING))


# Start.


def test_nothing_is_done_before_the_start() -> None:
    assert planned(live(target=Target.CREATED)) == Plan()


def test_room_and_stream_are_created_at_the_same_time() -> None:
    assert planned(live(ready_time=None)).steps == (CreateRoom(ordinal=0), CreateStream(ordinal=0))


def test_an_unknown_room_is_created_again_and_an_unknown_stream_is_looked_for() -> None:
    room = a_room(phase=Phase.UNKNOWN, intended_at=T0)
    stream = a_stream(phase=Phase.UNKNOWN, intended_at=T0, changed_at=T0, observed_at=T0)
    current = planned(live(ready_time=None), room, stream)
    assert current.steps == (CreateRoom(ordinal=0),)
    assert current.wait_until == T0 + seconds(TIMING.lookup_s)


def test_a_stream_that_no_list_shows_is_written_off_and_created_again() -> None:
    stream = a_stream(phase=Phase.UNKNOWN, intended_at=T0 - seconds(TIMING.stream_grace_s))
    [step] = planned(live(ready_time=None), a_room(), stream).steps
    assert step == WriteOff(kind=Kind.STREAM, ordinal=0, why="no list showed it within its grace")
    gone = replace(stream, phase=Phase.GONE)
    assert planned(live(ready_time=None), a_room(), gone).steps == (CreateStream(ordinal=1),)


def test_an_egress_starts_when_the_host_publishes() -> None:
    assert planned(live(), a_room(host_publishing=False), a_stream()).steps == ()
    assert planned(live(), a_room(), a_stream()).steps == (StartEgress(ordinal=0),)


def test_manual_delivery_waits_for_on_air_and_ends_with_it() -> None:
    spec = Spec(delivery_policy=DeliveryPolicy.MANUAL)
    backstage, on_air = live(spec=spec), live(spec=spec, on_air=True)
    assert planned(backstage, a_room(), a_stream()).steps == ()
    assert planned(on_air, a_room(), a_stream()).steps == (StartEgress(ordinal=0),)
    [step] = planned(backstage, a_room(), a_stream(), an_egress()).steps
    assert isinstance(step, StopEgress)


def test_a_host_who_left_may_come_back_to_a_running_egress() -> None:
    away = a_room(host_publishing=False, host_since=T0)
    stream = a_stream(status=StreamStatus.ACTIVE)
    assert planned(live(live_time=T0 - seconds(60)), away, stream, an_egress()).steps == ()


def test_a_room_nobody_looked_at_is_looked_at() -> None:
    room = a_room(host_publishing=None, host_since=None, changed_at=T0, observed_at=None)
    assert looks(live(), room, a_stream()) == {(Kind.ROOM, 0)}
    # And when that fails, soon again.
    wait = planned(live(), room, a_stream()).wait_until
    assert wait == T0 + seconds(TIMING.lookup_s)


# Ends that nobody asked for.


def test_no_host_ends_it_after_the_wait() -> None:
    broadcast = live(ready_time=T0 - seconds(TIMING.host_wait_s))
    room = a_room(host_publishing=False)
    assert planned(broadcast, room, a_stream()).steps == (EndBroadcast(reason=EndReason.NO_HOST),)
    assert planned(broadcast, room, a_stream(), after_s=-1).steps == ()


def test_the_wait_for_a_host_begins_anew_when_one_left_backstage() -> None:
    broadcast = live(spec=Spec(delivery_policy=DeliveryPolicy.MANUAL), ready_time=LONG_AGO)
    left = a_room(host_publishing=False, host_since=T0 - seconds(1))
    assert planned(broadcast, left, a_stream()).steps == ()


def test_a_lost_room_is_created_again_however_long_it_was_there() -> None:
    lost = a_room(phase=Phase.GONE, changed_at=T0)
    current = planned(live(ready_time=LONG_AGO), lost, a_stream())
    assert current.steps == (CreateRoom(ordinal=1),)


def test_a_host_who_does_not_return_ends_it() -> None:
    broadcast = live(live_time=LONG_AGO)
    away = a_room(host_publishing=False, host_since=T0 - seconds(TIMING.host_return_s))
    assert planned(broadcast, away, a_stream()).steps == (EndBroadcast(reason=EndReason.HOST_LEFT),)
    assert planned(broadcast, away, a_stream(), after_s=-1).steps == ()


def test_nobody_is_sent_away_for_what_was_seen_long_ago() -> None:
    """The service was down, and the host may be back."""
    broadcast = live(live_time=LONG_AGO)
    away = a_room(host_publishing=False, host_since=T0 - seconds(700), observed_at=T0 - seconds(650))
    assert looks(broadcast, away, a_stream()) == {(Kind.ROOM, 0)}
    assert planned(broadcast, away, a_stream()).steps == ()
    seen = replace(away, observed_at=T0)
    assert looks(broadcast, seen, a_stream()) == set()
    assert planned(broadcast, seen, a_stream()).steps == (EndBroadcast(reason=EndReason.HOST_LEFT),)


def test_max_duration_counts_from_live() -> None:
    broadcast = live(live_time=T0 - seconds(60), spec=Spec(max_duration_s=60))
    assert planned(broadcast, a_room(), a_stream()).steps == (EndBroadcast(reason=EndReason.MAX_DURATION),)
    assert planned(broadcast, a_room(), a_stream(), an_egress(), after_s=-1).wait_until == T0


def test_start_timeout_counts_from_the_first_attempt() -> None:
    broadcast = live(ready_time=None)
    trying = a_stream(phase=Phase.GONE, intended_at=T0 - seconds(TIMING.start_deadline_s))
    again = a_stream(ordinal=1, phase=Phase.UNKNOWN, intended_at=T0)
    assert planned(broadcast, a_room(), trying, again).steps == (EndBroadcast(reason=EndReason.START_TIMEOUT),)
    # Nothing was intended yet: it waits for a budget, however long.
    assert planned(broadcast, a_room()).steps == (CreateStream(ordinal=0),)


LATE_S = TIMING.start_deadline_s + 200
DUE = T0 - seconds(LATE_S - 1)


@pytest.mark.parametrize(
    ("resources", "steps"),
    [
        # Due since 319 s: no replica took it up, or no token was left.
        (
            (a_room(), a_stream(phase=Phase.GONE, intended_at=T0 - seconds(LATE_S), failures=1, retry_at=DUE)),
            (CreateStream(ordinal=1),),
        ),
        (
            (a_room(phase=Phase.INTENDED, intended_at=T0 - seconds(LATE_S), failures=1, retry_at=DUE), a_stream()),
            (CreateRoom(ordinal=0),),
        ),
        # It waited for 300 s before the last try, and is tried in vain since 20 s.
        (
            (a_room(), a_stream(phase=Phase.GONE, intended_at=T0, queued_s=300.0, retry_at=T0 + seconds(5))),
            (),
        ),
        # It was due for a second only.
        (
            (
                a_room(),
                a_stream(
                    phase=Phase.GONE,
                    intended_at=T0 - seconds(LATE_S),
                    failures=9,
                    retry_at=T0 - seconds(1),
                    queued_s=2.0,
                ),
            ),
            (EndBroadcast(reason=EndReason.START_TIMEOUT),),
        ),
        # No replica was there when it was to be looked for.
        (
            (a_room(), a_stream(phase=Phase.UNKNOWN, intended_at=T0 - seconds(LATE_S), observed_at=T0)),
            (WriteOff(kind=Kind.STREAM, ordinal=0, why="no list showed it within its grace"),),
        ),
    ],
)
def test_start_timeout_does_not_count_the_wait_in_the_service(
    resources: tuple[AnyResource, ...], steps: tuple[Step, ...]
) -> None:
    assert planned(live(ready_time=None), *resources).steps == steps


def test_start_timeout_counts_while_the_provider_is_away() -> None:
    """Nothing waits for us then, however late the next try is."""
    lost = a_stream(phase=Phase.UNKNOWN, intended_at=T0 - seconds(LATE_S))
    away = Availability(outages={STREAMS: Outage(since=T0 - seconds(LATE_S))})
    current = plan(live(ready_time=None), (a_room(), lost), T0, TIMING, away)
    assert current.steps == (EndBroadcast(reason=EndReason.START_TIMEOUT),)


@pytest.mark.parametrize(
    "resources",
    [
        (a_room(phase=Phase.INTENDED, refused=True), a_stream()),
        (a_room(), a_stream(phase=Phase.GONE, refused=True)),
        (a_room(), a_stream(), an_egress(phase=Phase.GONE, refused=True)),
    ],
)
def test_what_a_provider_refuses_is_not_tried_again(resources: tuple[AnyResource, ...]) -> None:
    assert planned(live(), *resources).steps == (EndBroadcast(reason=EndReason.PROVIDER_REFUSED),)


def test_a_lost_stream_ends_it() -> None:
    gone = a_stream(phase=Phase.GONE)
    assert planned(live(), a_room(), gone).steps == (EndBroadcast(reason=EndReason.STREAM_LOST),)


@pytest.mark.parametrize(("test", "reason"), [(True, EndReason.TEST_LIMIT), (False, EndReason.STREAM_DISABLED)])
def test_a_disabled_stream_ends_it(test: bool, reason: EndReason) -> None:  # noqa: FBT001 - a parameter
    stream = a_stream(status=StreamStatus.DISABLED)
    assert planned(live(spec=Spec(test=test)), a_room(), stream).steps == (EndBroadcast(reason=reason),)


# One publisher.


def test_one_that_answers_no_stop_and_may_be_connected_is_cut_off() -> None:
    deaf = an_egress(phase=Phase.GONE, key_epoch=0)
    active = a_stream(key_epoch=1, status=StreamStatus.ACTIVE)
    current = planned(live(), a_room(), active, deaf)
    assert (current.steps, current.blocked) == ((CutStream(ordinal=0),), "CUTTING_OFF")
    # Cut off half-way: it goes on, and a stream that we disabled ourselves is not the end.
    half = replace(active, status=StreamStatus.DISABLED, cutting=True)
    assert planned(live(), a_room(), half, deaf).steps == (CutStream(ordinal=0),)
    done = replace(active, cut_epoch=1, status=StreamStatus.IDLE)
    assert planned(live(), a_room(), done, deaf).steps == (StartEgress(ordinal=1),)
    # Nor does silence free it: who is connected may send again.
    idle = replace(active, status=StreamStatus.IDLE, silent_at=T0)
    assert planned(live(), a_room(), idle, deaf).steps == (CutStream(ordinal=0),)


def test_an_egress_that_is_ending_holds_up_the_next() -> None:
    leaving = an_egress(phase=Phase.DELETING, acked=True, changed_at=T0 - seconds(5))
    current = planned(live(), a_room(), a_stream(), leaving)
    assert (current.steps, current.blocked) == ((), "PREVIOUS_ENDING")
    # A new key cuts off nobody who is connected.
    assert planned(live(), a_room(), a_stream(key_epoch=1), leaving).blocked == "PREVIOUS_ENDING"


def test_what_was_written_off_is_fenced_first() -> None:
    written_off = an_egress(phase=Phase.GONE)
    assert planned(live(), a_room(), a_stream(), written_off).steps == (ResetKey(ordinal=0),)
    ended_by_itself = replace(written_off, end_seen=True)
    assert planned(live(), a_room(), a_stream(), ended_by_itself).steps == (StartEgress(ordinal=1),)


def test_a_reset_without_an_answer_is_repeated() -> None:
    assert planned(live(), a_room(), a_stream(key_stale=True)).steps == (ResetKey(ordinal=0),)


def test_an_egress_nobody_told_to_stop_is_not_written_off() -> None:
    """The process died between the commit of DELETING and the call."""
    leaving = an_egress(phase=Phase.DELETING)
    for broadcast in (live(), ended()):
        steps = planned(broadcast, a_room(), a_stream(disabled=True), leaving).steps
        assert [type(step) for step in steps if not isinstance(step, ResetKey)] == [StopEgress]
    asked = replace(leaving, failures=1)
    assert any(isinstance(step, WriteOff) for step in planned(live(), a_room(), a_stream(), asked).steps)


def test_a_new_egress_is_not_looked_for_before_a_list_must_show_it() -> None:
    new = starting(changed_at=T0 - seconds(1), observed_at=None)
    assert looks(live(dirty_at=T0), a_room(), a_stream(), new) == set()
    assert looks(live(dirty_at=T0), a_room(), a_stream(), new, after_s=1) == {(Kind.EGRESS, 0)}


def test_what_was_created_after_the_hint_is_not_looked_at_for_it() -> None:
    room = a_room(changed_at=T0 - seconds(1), observed_at=None)
    assert looks(live(dirty_at=T0 - seconds(5)), room, a_stream()) == set()


def test_starts_have_a_limit() -> None:
    ends = [
        an_egress(ordinal=n, phase=Phase.GONE, end_seen=True, fault=Fault.FAILED, intended_at=T0 - seconds(100 - n))
        for n in range(TIMING.starts_limit)
    ]
    current = planned(live(), a_room(), a_stream(), *ends)
    assert (current.steps, current.blocked) == ((), "START_LIMIT")
    later = TIMING.starts_window_s - 100
    assert planned(live(), a_room(), a_stream(), *ends, after_s=later).steps == (StartEgress(ordinal=5),)


def test_a_start_that_was_refused_is_tried_when_its_back_off_is_over() -> None:
    refused = an_egress(phase=Phase.GONE, external_id="", end_seen=True, retry_at=T0 + seconds(4))
    current = planned(live(), a_room(), a_stream(), refused)
    assert (current.steps, current.blocked, current.wait_until) == ((), "BACK_OFF", T0 + seconds(4))
    assert planned(live(), a_room(), a_stream(), refused, after_s=4).steps == (StartEgress(ordinal=1),)


WITHOUT = Spec(fallback_modes=())


def gone(ordinal: int, *, fault: Fault = Fault.FAILED, **fields: Any) -> Egress:
    given: dict[str, Any] = {"phase": Phase.GONE, "external_id": f"e{ordinal}", "end_seen": True, **fields}
    return an_egress(ordinal=ordinal, intended_at=T0 - seconds(50 - ordinal), changed_at=T0, fault=fault, **given)


@pytest.mark.parametrize(("failed", "wait_s"), [(1, 0), (2, 10), (3, 40), (4, 160)])
def test_starts_that_fail_are_spread_over_their_window(failed: int, wait_s: float) -> None:
    """Trouble of half a minute must not use up what there is for ten."""
    rows = [gone(n) for n in range(failed)]
    if wait_s:
        early = planned(live(spec=WITHOUT), a_room(host_since=T0), a_stream(), *rows, after_s=wait_s - 0.1)
        assert (early.steps, early.blocked, early.wait_until) == ((), "BACK_OFF", T0 + seconds(wait_s))
    assert planned(live(spec=WITHOUT), a_room(host_since=T0), a_stream(), *rows, after_s=wait_s).steps == (
        StartEgress(ordinal=failed),
    )


def test_starts_without_an_answer_back_off_as_those_that_fail() -> None:
    """A fleet without a worker answers none of them."""
    lost = gone(1, phase=Phase.UNKNOWN, external_id="", end_seen=False, fault=Fault.NONE, observed_at=T0 + seconds(5))
    rows = (a_room(host_since=T0), a_stream(key_epoch=1, key_reset_at=T0), gone(0), lost)
    assert planned(live(spec=WITHOUT), *rows, after_s=9.9).blocked == "BACK_OFF"
    assert planned(live(spec=WITHOUT), *rows, after_s=10).steps == (StartEgress(ordinal=2),)


def test_what_was_stopped_because_it_was_not_wanted_delays_nothing() -> None:
    rows = [gone(n, fault=Fault.NONE) for n in range(3)]
    assert planned(live(), a_room(), a_stream(), *rows).steps == (StartEgress(ordinal=3),)
    old = [gone(0), gone(1), gone(2, fault=Fault.NONE)]
    assert planned(live(), a_room(), a_stream(), *old).steps == (StartEgress(ordinal=3),)


def test_who_used_up_the_limit_is_given_one_more_start_before_the_end() -> None:
    assert TIMING.hopeless_s > TIMING.starts_window_s + TIMING.egress_start_s + TIMING.ingest_start_s


# An egress that does not do its work.


def test_an_egress_that_never_gets_its_connection_is_stopped() -> None:
    connecting = an_egress(outputs=(Output(name="", state=OutputState.CONNECTING),), status_since=T0, intended_at=T0)
    # Mux calls the live stream active through its reconnect window, whoever fed it.
    rows = (a_room(), a_stream(status=StreamStatus.ACTIVE))
    soon, late = (replace(connecting, observed_at=T0 + seconds(after_s)) for after_s in (39.9, 40))
    assert planned(live(), *rows, soon, after_s=40).steps == ()
    step, fence = planned(live(), *rows, late, after_s=40).steps
    assert isinstance(step, StopEgress)
    assert fence == ResetKey(ordinal=0)
    assert step.fault == "NOT_CONNECTED"


@pytest.mark.parametrize(
    "egress",
    [
        starting(intended_at=T0 - seconds(60)),
        an_egress(status=EgressStatus.ENDING, status_since=T0 - seconds(45), intended_at=T0 - seconds(100)),
        an_egress(status_since=T0 - seconds(75)),
    ],
    ids=["never active", "never ended", "no media"],
)
def test_an_egress_that_does_not_get_on_is_stopped(egress: Egress) -> None:
    step, *fence = planned(live(), a_room(), a_stream(), egress).steps
    assert isinstance(step, StopEgress)
    # One that never started has nothing that could be connected.
    assert fence == ([] if egress.status is EgressStatus.STARTING else [ResetKey(ordinal=0)])
    # But not because nobody could look.
    blind = replace(egress, observed_at=T0 - seconds(20))
    current = planned(live(), a_room(), a_stream(observed_at=T0 - seconds(20)), blind)
    assert current.steps == ()
    assert current.wait_until is not None
    assert current.wait_until > T0


def test_an_egress_whose_output_failed_is_replaced_although_it_serves_others() -> None:
    outputs = (Output(name="", state=OutputState.FAILED), Output(name="other", state=OutputState.ACTIVE))
    stream = a_stream(status=StreamStatus.ACTIVE)
    [step] = planned(live(), a_room(), stream, an_egress(outputs=outputs)).steps
    assert isinstance(step, StopEgress)


def test_a_stranger_in_the_room_is_stopped() -> None:
    stream = a_stream(status=StreamStatus.ACTIVE)
    [step] = planned(live(), a_room(), stream, an_egress(), an_egress(ordinal=1, key_epoch=-1)).steps
    assert step == StopEgress(ordinal=1, why="it is not the one in use")


def test_layout_and_destinations_follow_the_spec() -> None:
    spec = Spec(layout="speaker", destinations=(Destination(name="new", url="rtmp://new"),))
    stream = a_stream(status=StreamStatus.ACTIVE)
    egress = an_egress(destinations=("old",), pushes={"old": Secret("rtmp://old/key")})
    assert planned(live(spec=spec), a_room(), stream, egress).steps == (
        SetDestinations(ordinal=0, add=("new",), remove=("old",)),
    )
    assert planned(live(spec=spec), a_room(), stream, replace(egress, destinations=("new",))).steps == (
        SetLayout(ordinal=0),
    )


def test_a_destination_that_somebody_else_added_is_left_alone() -> None:
    """It cannot be removed without its whole url, and trying at every look told that it was."""
    stream, egress = a_stream(status=StreamStatus.ACTIVE), an_egress(destinations=("rtmp://theirs/{abc...xyz}",))
    assert planned(live(), a_room(), stream, egress).steps == ()


# Surplus.


def test_a_surplus_stream_is_deleted() -> None:
    surplus = a_stream(ordinal=1)
    assert planned(live(), a_room(host_publishing=False), a_stream(), surplus).steps == (DeleteStream(ordinal=1),)


def test_a_delete_is_not_repeated_before_its_back_off_is_over() -> None:
    surplus = a_stream(ordinal=1, phase=Phase.DELETING, acked=True, retry_at=T0 + seconds(5))
    current = planned(live(), a_room(host_publishing=False), a_stream(), surplus)
    assert current.steps == ()
    assert planned(live(), a_room(host_publishing=False), a_stream(), surplus, after_s=5).steps == (
        DeleteStream(ordinal=1),
    )


def test_a_stream_whose_delete_was_not_confirmed_is_not_in_use() -> None:
    leaving = a_stream(phase=Phase.DELETING, intended_at=T0)
    steps = planned(live(ready_time=None), a_room(), leaving).steps
    assert steps == (DeleteStream(ordinal=0),)


# The end.


@pytest.mark.parametrize("stream", [a_stream(failures=1), a_stream(failures=0, retry_at=T0 + seconds(9))])
def test_a_disable_that_fails_or_has_to_wait_does_not_keep_the_egress_running(stream: Stream) -> None:
    steps = planned(ended(), a_room(), stream, an_egress()).steps
    assert StopEgress(ordinal=0, why="the broadcast ends") in steps


def test_an_egress_that_feeds_nothing_is_stopped_after_the_disable() -> None:
    assert planned(ended(), a_room(), a_stream(), an_egress()).steps == (DisableStream(ordinal=0),)


def test_what_fails_at_the_end_is_looked_at() -> None:
    """A stream deleted by somebody else cannot be disabled."""
    assert looks(ended(), a_stream(failures=1, observed_at=LONG_AGO)) == {(Kind.STREAM, 0)}
    assert looks(ended(), a_stream(observed_at=LONG_AGO)) == set()


def test_an_unused_stream_is_deleted_without_a_disable() -> None:
    assert planned(ended(), a_stream()).steps == (DeleteStream(ordinal=0),)


def test_a_deletion_is_done_when_its_absence_was_seen() -> None:
    confirmed = a_room(phase=Phase.DELETING, acked=True, changed_at=T0)
    current = planned(ended(), confirmed)
    assert not current.done
    assert current.wait_until == T0 + seconds(TIMING.lookup_s)
    still_there = replace(confirmed, changed_at=T0 - seconds(TIMING.delete_retry_s))
    assert planned(ended(), still_there).steps == (DeleteRoom(ordinal=0),)
    assert planned(ended(), replace(confirmed, phase=Phase.GONE)).done


def test_the_end_of_what_never_began() -> None:
    assert planned(ended()).done


# Waiting.


def test_what_nobody_looked_at_for_long_is_looked_at() -> None:
    stream, egress = a_stream(status=StreamStatus.ACTIVE), an_egress()
    broadcast = live(live_time=T0)
    assert planned(broadcast, a_room(), stream, egress).wait_until == T0 + seconds(TIMING.replan_s)
    assert looks(broadcast, a_room(), stream, egress, after_s=TIMING.replan_s - 1) == set()
    assert len(looks(broadcast, a_room(), stream, egress, after_s=TIMING.replan_s)) == 3


def test_a_look_that_fails_is_not_repeated_at_once() -> None:
    unknown = a_stream(phase=Phase.UNKNOWN, intended_at=T0 - seconds(20), observed_at=T0 - seconds(10))
    current = planned(live(ready_time=None), a_room(host_publishing=False), unknown)
    assert current.wait_until == T0 + seconds(TIMING.lookup_s)


def test_starts_that_were_refused_cost_nothing_and_use_up_no_limit() -> None:
    refused = [
        an_egress(ordinal=n, phase=Phase.GONE, end_seen=True, external_id="", intended_at=T0 - seconds(60 - n))
        for n in range(9)
    ]
    current = planned(live(), a_room(), a_stream(), *refused)
    assert (current.steps, current.blocked) == ((StartEgress(ordinal=9),), "")
