"""The end of a show: whom the live stream waits for, and when it is deleted."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.broadcast import Broadcast, LatencyMode, Spec, State, seconds
from service.domain.explain.explain import explain
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.health.model import ChainPart
from service.domain.planning.plan import plan
from service.domain.planning.steps import DeleteRoom, DeleteStream, DisableStream, Plan, SettleRecordings, StopEgress
from service.domain.planning.what_to_observe import to_observe
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Action, Fault
from service.domain.reporting.status import status_of
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    Output,
    OutputState,
    Phase,
    Recording,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.situation import Availability, Outage
from tests.simulation.environment import T0
from tests.unit.test_plan import LONG_AGO, TIMING, a_room, a_stream, an_egress, ended

STOP = StopEgress(ordinal=0, why="the broadcast ends")
DISABLE = DisableStream(ordinal=0)
FED = a_stream(status=StreamStatus.ACTIVE, fed_at=T0)
TOLD = {"phase": Phase.DELETING, "acked": True, "changed_at": T0 - seconds(1)}
RETIRED = a_stream(disabled=True, disabled_at=T0, recordings_settled=True, fed_at=T0)
GONE: tuple[AnyResource, ...] = (a_room(phase=Phase.GONE), an_egress(phase=Phase.GONE, end_seen=True))


def planned(*resources: AnyResource, broadcast: Broadcast | None = None, after_s: float = 0.0, away: str = "") -> Plan:
    outages = {away: Outage(since=T0 - seconds(60))} if away else {}
    now = T0 + seconds(after_s)
    return plan(broadcast or ended(), resources, now, TIMING, Availability(outages=outages))


def test_the_egress_of_a_healthy_show_is_stopped_and_nothing_else() -> None:
    assert planned(a_room(), FED, an_egress()).steps == (STOP,)


def test_the_live_stream_waits_until_the_egress_was_seen_to_end() -> None:
    draining = planned(a_room(), FED, an_egress(**TOLD, status=EgressStatus.ENDING))
    assert not draining.steps
    assert [wait.action for wait in draining.waits][:1] == [Action.WAIT_FOR_END]
    over = planned(a_room(), FED, an_egress(phase=Phase.GONE, end_seen=True))
    assert set(over.steps) == {DISABLE, DeleteRoom(ordinal=0)}


def test_the_wait_for_the_egress_is_bound() -> None:
    leaving = an_egress(**TOLD, status=EgressStatus.ENDING)
    assert not planned(a_room(), FED, leaving, after_s=TIMING.drain_s - 1.5).steps
    assert DISABLE in planned(a_room(), FED, leaving, after_s=TIMING.drain_s).steps


UNTRUSTED: dict[str, tuple[AnyResource, ...]] = {
    "its start was not answered": (FED, an_egress(phase=Phase.UNKNOWN, external_id="")),
    "it is not on air yet": (FED, an_egress(status=EgressStatus.STARTING)),
    "its connection failed": (FED, an_egress(outputs=(Output(name="", state=OutputState.FAILED),))),
    "it counts as failed": (FED, an_egress(fault=Fault.NO_MEDIA)),
    "a call about it failed": (FED, an_egress(failures=1)),
    "it is not listed": (FED, an_egress(absent_since=T0 - seconds(1))),
    "the live stream gets nothing": (a_stream(), an_egress()),
    "the playlist stands still": (replace(FED, stalled_since=T0 - seconds(9)), an_egress()),
    "the encoder left": (
        replace(FED, connected=False, connected_at=T0 - seconds(5)),
        an_egress(delivering_since=T0 - seconds(60)),
    ),
    "a cut is under way": (replace(FED, cutting=True), an_egress()),
    "another was never seen to end": (FED, an_egress(phase=Phase.GONE, external_id="lost"), an_egress(ordinal=1)),
    "another runs beside it": (FED, an_egress(), an_egress(ordinal=1, external_id="f")),
    "it answers no stop": (FED, an_egress(phase=Phase.DELETING, failures=1, retry_at=T0 + seconds(2))),
}


@pytest.mark.parametrize("why", UNTRUSTED)
def test_the_live_stream_is_disabled_first_where_the_egress_cannot_be_trusted(why: str) -> None:
    steps = planned(a_room(), *UNTRUSTED[why]).steps
    assert DISABLE in steps
    assert not [step for step in steps if isinstance(step, StopEgress)]


def test_the_live_stream_is_disabled_first_where_no_stop_would_be_answered() -> None:
    assert planned(a_room(), FED, an_egress(), away=ROOMS).steps == (DISABLE,)
    # Nobody could disable it now, and the egress is what costs.
    assert planned(a_room(), FED, an_egress(), away=STREAMS).steps == (STOP,)


def test_an_encoder_that_left_long_ago_is_back_where_the_live_stream_is_active() -> None:
    """The webhook of its return was lost."""
    window_s = Spec().reconnect_window_s
    back = replace(FED, connected=False, connected_at=T0 - seconds(window_s + 1))
    assert planned(a_room(), back, an_egress(delivering_since=LONG_AGO)).steps == (STOP,)


def test_a_stop_that_died_before_its_call_is_made_again() -> None:
    intended = an_egress(phase=Phase.DELETING, changed_at=T0 - seconds(1))
    assert planned(a_room(), FED, intended).steps == (STOP,)


@pytest.mark.parametrize("mode", LatencyMode)
def test_the_live_stream_is_deleted_when_the_slowest_viewer_has_seen_the_end(mode: LatencyMode) -> None:
    broadcast = replace(ended(), spec=Spec(latency_mode=mode))
    viewers_s = TIMING.viewers_s(mode)
    waiting = planned(*GONE, RETIRED, broadcast=broadcast, after_s=viewers_s - 1)
    assert (waiting.done, waiting.steps) == (True, ())
    assert waiting.wait_until == T0 + seconds(viewers_s)
    due = planned(*GONE, RETIRED, broadcast=broadcast, after_s=viewers_s)
    assert (due.done, due.steps) == (True, (DeleteStream(ordinal=0),))


def test_viewers_of_a_slower_mode_are_further_behind() -> None:
    assert TIMING.viewers_s(LatencyMode.LOW) >= 10
    assert TIMING.viewers_s(LatencyMode.REDUCED) >= 20 + 5
    assert TIMING.viewers_s(LatencyMode.STANDARD) >= 30 + 5


def test_a_row_that_an_older_version_disabled_goes_on_as_it_began() -> None:
    old = replace(RETIRED, disabled_at=None)
    assert planned(*GONE, replace(old, recordings_settled=False)).steps == (SettleRecordings(ordinal=0),)
    assert planned(*GONE, old).steps == (DeleteStream(ordinal=0),)
    # It had told the egress to stop after the disable.
    steps = planned(a_room(), replace(old, recordings_settled=False), an_egress(**TOLD)).steps
    assert set(steps) == {SettleRecordings(ordinal=0), DeleteRoom(ordinal=0)}


def told(*resources: AnyResource, after_s: float = 1.0, **fields: Any) -> Facts:
    broadcast = replace(ended(), **fields)
    now = T0 + seconds(after_s)
    state, status = status_of(broadcast, resources, plan(broadcast, resources, now, TIMING), now)
    return Facts(broadcast=replace(broadcast, state=state, status=status), resources=resources, now=now)


@pytest.mark.parametrize(
    ("stream", "state"),
    [
        (FED, State.STOPPING),
        (replace(RETIRED, disabled=False, disabled_at=None), State.STOPPING),
        (replace(RETIRED, recordings_settled=False), State.STOPPING),
        (RETIRED, State.ENDED),
        (replace(RETIRED, phase=Phase.DELETING), State.ENDED),
        (replace(RETIRED, phase=Phase.GONE), State.ENDED),
    ],
)
def test_it_is_over_when_nothing_runs_costs_money_or_takes_a_publisher(stream: Stream, state: State) -> None:
    assert told(*GONE, stream).broadcast.state is state


@pytest.mark.parametrize("left", [a_room(), an_egress(**TOLD)])
def test_what_runs_keeps_it_from_being_over(left: Room | Egress) -> None:
    assert told(left, RETIRED).broadcast.state is State.STOPPING


def test_a_live_stream_that_is_kept_is_told_as_such() -> None:
    facts = told(*GONE, RETIRED)
    status, health = facts.broadcast.status, health_of(facts, TIMING)
    due = T0 + seconds(TIMING.viewers_s(LatencyMode.REDUCED))
    assert status.stream_id == RETIRED.external_id
    assert status.next_attempt_time == due
    [ready] = [each for each in status.conditions if each.type == "STREAM_READY"]
    assert (ready.met, ready.reason) == (False, "DISABLED")
    assert "deleted when" in ready.message
    part = health.part(ChainPart.INGEST)
    assert part.reason == "OVER"
    assert "deleted when" in part.message
    assert (health.next_action.action, health.next_action.time) == (Action.DELETE_STREAM, due)
    gone = health_of(told(*GONE, replace(RETIRED, phase=Phase.GONE)), TIMING)
    assert "deleted" not in gone.part(ChainPart.INGEST).message
    assert gone.next_action.action is Action.NONE


def test_a_deletion_that_fails_after_the_end_is_told() -> None:
    stays = replace(RETIRED, phase=Phase.DELETING, failures=2, retry_at=T0 + seconds(9))
    facts = told(*GONE, stays)
    assert facts.broadcast.state is State.ENDED
    assert health_of(facts, TIMING).part(ChainPart.INGEST).reason == "STOP_FAILED"
    codes = [cause.code for cause in explain(facts, TIMING).causes]
    assert codes[-1] == "TAKE_DOWN_BLOCKED"
    assert codes[0] == "STOPPED_BY_CALLER"


def test_recordings_are_looked_at_while_the_live_stream_is_kept() -> None:
    preparing = replace(RETIRED, recordings=(Recording(asset_id="a"),), observed_at=T0 - seconds(30))
    resources = (*GONE, preparing)
    looks = to_observe(replace(ended(), state=State.ENDED), resources, T0 + seconds(6), TIMING)
    assert looks == {(Kind.STREAM, 0)}
    assert preparing.only_recordings_matter
    assert not replace(preparing, failures=1).only_recordings_matter
