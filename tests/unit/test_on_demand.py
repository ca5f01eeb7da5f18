"""The plan of a broadcast that is delivered while somebody watches: decided, stored, then done."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.audience.decide import decide
from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast, DeliveryPolicy, IdlePolicy, RecordingPolicy, Spec, State, seconds
from service.domain.delivery import UNDECIDED, Decided, Delivery, DeliveryReason
from service.domain.planning.plan import plan
from service.domain.planning.steps import Plan, SetDelivery, StartEgress, StopEgress, Wait
from service.domain.reasons import Action, Blocked, Fault
from service.domain.reporting.delivery import delivery_event
from service.domain.reporting.status import status_of
from service.domain.resources import AnyResource, Phase, StreamStatus
from service.domain.timing import Timing
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, live, starting

TIMING = Timing()
COUNTED = Watching(counted_up_to=T0, counted_since=LONG_AGO)
GONE = replace(COUNTED, last_seen=T0 - seconds(60))
THERE = replace(COUNTED, last_seen=T0 - seconds(59))
FED = a_stream(status=StreamStatus.ACTIVE)
PLAYING = (a_room(), FED, an_egress(delivering_since=LONG_AGO))
DRAINS = an_egress(phase=Phase.DELETING, acked=True, changed_at=T0, observed_at=T0)


def on_demand(*, wanted: bool | None = None, **fields: Any) -> Broadcast:
    """*wanted*: as it is decided. None: nothing is."""
    delivery = UNDECIDED
    if wanted is not None:
        reason = DeliveryReason.VIEWERS if wanted else DeliveryReason.NO_VIEWER
        delivery = Delivery(decided=Decided(wanted=wanted, reason=reason, since=LONG_AGO))
    given: dict[str, Any] = {"spec": Spec(delivery_policy=DeliveryPolicy.ON_DEMAND), "delivery": delivery, **fields}
    return live(**given)


def planned(broadcast: Broadcast, watching: Watching, *resources: AnyResource, after_s: float = 0) -> Plan:
    return plan(broadcast, resources, T0 + seconds(after_s), TIMING, watching=watching)


def decided(current: Plan) -> Decided:
    [step] = current.steps
    assert isinstance(step, SetDelivery)
    assert step.delivery.inputs is not None
    # It replays to itself.
    assert decide(step.delivery.inputs).decided == step.delivery.decided
    return step.delivery.decided


def test_without_a_viewer_no_egress_starts_and_nothing_is_awaited_but_a_viewer() -> None:
    first = decided(planned(on_demand(), COUNTED, a_room(), a_stream()))
    assert (first.wanted, first.reason, first.since) == (False, "NO_VIEWER", T0)
    current = planned(on_demand(wanted=False), COUNTED, a_room(), a_stream())
    assert current.steps == ()
    assert Wait(action=Action.WAIT_FOR_VIEWER, message="an egress is started when somebody watches") in current.waits
    assert current.wait_until == T0 + seconds(TIMING.replan_s), "it is not polled"


def test_the_first_viewer_starts_one_egress_when_it_is_decided() -> None:
    assert decided(planned(on_demand(wanted=False), THERE, a_room(), a_stream())).wanted
    assert planned(on_demand(wanted=True), THERE, a_room(), a_stream()).steps == (StartEgress(ordinal=0),)
    assert planned(on_demand(wanted=True), THERE, a_room(host_publishing=False), a_stream()).steps == ()


def test_an_egress_is_warm_some_seconds_before_the_scheduled_time() -> None:
    at = T0 + seconds(100)
    scheduled = on_demand(
        wanted=False, spec=Spec(delivery_policy=DeliveryPolicy.ON_DEMAND, scheduled_start_time=at), live_time=None
    )
    early = planned(scheduled, COUNTED, a_room(), a_stream())
    assert (early.steps, early.wait_until) == ((), at - seconds(TIMING.warm_s))
    warm = decided(planned(scheduled, COUNTED, a_room(), a_stream(), after_s=100 - TIMING.warm_s))
    assert (warm.wanted, warm.reason) == (True, "SCHEDULE")


def test_it_is_planned_again_when_the_linger_time_is_over_and_stops_then() -> None:
    current = planned(on_demand(wanted=True), THERE, *PLAYING)
    assert (current.steps, current.wait_until) == ((), T0 + seconds(1))
    assert not decided(planned(on_demand(wanted=True), GONE, *PLAYING)).wanted
    [step] = planned(on_demand(wanted=False), GONE, *PLAYING).steps
    assert step == StopEgress(ordinal=0, why="nobody watches", fault=Fault.NONE)


def test_a_viewer_who_comes_while_the_egress_drains_gets_another_one_when_it_has_ended() -> None:
    """Never two publishers: the drain is waited for, and nobody is cut off."""
    current = planned(on_demand(wanted=True), THERE, a_room(), FED, DRAINS)
    assert (current.steps, current.blocked) == ((), Blocked.PREVIOUS_ENDING)
    ended = replace(DRAINS, phase=Phase.GONE, end_seen=True)
    assert planned(on_demand(wanted=True), THERE, a_room(), FED, ended).steps == (StartEgress(ordinal=1),)


def test_a_viewer_who_comes_between_the_decision_and_the_stop_keeps_the_egress() -> None:
    assert decided(planned(on_demand(wanted=False), THERE, *PLAYING)).wanted


@pytest.mark.parametrize(
    ("idle", "recording", "was_live", "wanted"),
    [
        (IdlePolicy.STOP, RecordingPolicy.KEEP, True, False),
        (IdlePolicy.KEEP_RECORDING, RecordingPolicy.KEEP, True, True),
        (IdlePolicy.KEEP_RECORDING, RecordingPolicy.KEEP, False, False),
        (IdlePolicy.KEEP_RECORDING, RecordingPolicy.DISCARD, True, False),
    ],
)
def test_a_recording_that_began_is_kept_whole_if_the_caller_wants_it(
    idle: IdlePolicy, recording: RecordingPolicy, *, was_live: bool, wanted: bool
) -> None:
    spec = Spec(delivery_policy=DeliveryPolicy.ON_DEMAND, idle_policy=idle, recording_policy=recording)
    broadcast = on_demand(wanted=True, spec=spec, live_time=LONG_AGO if was_live else None)
    assert decided(planned(broadcast, GONE, *PLAYING)).wanted is wanted


def test_nothing_stops_while_nobody_knows_of_viewers() -> None:
    current = decided(planned(on_demand(wanted=True), NOBODY_KNOWS, *PLAYING))
    assert (current.wanted, current.reason) == (True, "HOLD")


def test_of_another_policy_the_decision_is_forgotten_and_the_egress_runs() -> None:
    usual = replace(on_demand(wanted=False), spec=Spec())
    [step] = planned(usual, NOBODY_KNOWS, *PLAYING).steps
    assert step == SetDelivery(delivery=UNDECIDED)
    assert planned(replace(usual, delivery=UNDECIDED), NOBODY_KNOWS, *PLAYING).steps == ()
    # And back: the egress that runs is not stopped for want of a viewer who was never counted.
    assert decided(planned(on_demand(), COUNTED, *PLAYING)).wanted


def test_the_dark_hours_without_a_viewer_do_not_count_as_a_failure() -> None:
    """A fallback, or the end, comes of what fails while somebody watches."""
    dark = a_stream(status_since=LONG_AGO)
    just_now = Delivery(decided=Decided(wanted=True, reason=DeliveryReason.VIEWERS, since=T0 - seconds(30)))
    failed = [
        an_egress(ordinal=n, external_id=f"e{n}", phase=Phase.GONE, end_seen=True, fault=Fault.FAILED, changed_at=T0)
        for n in range(3)
    ]
    spec = Spec(delivery_policy=DeliveryPolicy.ON_DEMAND, fallback_modes=())
    current = planned(on_demand(spec=spec, delivery=just_now), THERE, a_room(), dark, *failed)
    assert not [step for step in current.steps if type(step).__name__ == "EndBroadcast"]


@pytest.mark.parametrize(
    ("before", "wanted", "resources", "state"),
    [
        (State.LIVE, True, PLAYING, State.LIVE),
        (State.LIVE, False, (a_room(), FED, DRAINS), State.READY),
        (State.READY, True, (a_room(), FED, starting()), State.READY),
        (State.LIVE, True, (a_room(), FED, starting()), State.INTERRUPTED),
        (State.INTERRUPTED, False, (a_room(), FED), State.READY),
    ],
)
def test_an_idle_broadcast_is_ready_and_not_interrupted(
    before: State, *, wanted: bool, resources: tuple[AnyResource, ...], state: State
) -> None:
    broadcast = on_demand(wanted=wanted, state=before, live_time=LONG_AGO)
    found, status = status_of(broadcast, resources, None, T0)
    assert found is state
    assert (status.state_reason == "NO_VIEWER") is (not wanted)


def test_the_event_says_why() -> None:
    step = planned(on_demand(wanted=True), GONE, *PLAYING).steps[0]
    assert isinstance(step, SetDelivery)
    event = delivery_event(step.delivery)
    assert event.reason == "DELIVERY_IDLE"
    assert event.message.startswith("NO_VIEWER: a viewer was seen ")
    assert event.message.endswith("; the linger time is 60 s")
