"""A worker that dies leaves an egress that is listed as active for ever."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.observing.egresses import found_running
from service.domain.observing.recordings import recordings_seen
from service.domain.observing.rooms import room_seen
from service.domain.planning.steps import (
    Plan,
    ResetKey,
    StartEgress,
    StartRecording,
    StopEgress,
    StopRecording,
    WriteOff,
)
from service.domain.ports import EgressSeen, RoomInside
from service.domain.reasons import Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Egress, EgressStatus, Kind, LocalRecording, Phase, Room, StreamStatus
from service.domain.timing import Timing
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, live, looks, planned, seconds
from tests.unit.test_seen_recordings import a_recording, recording_live

TIMING = Timing()
BEGAN = T0 - seconds(600)
PLAYING = an_egress(status_since=BEGAN, changed_at=BEGAN, delivering_since=BEGAN, observed_at=T0)
WRITING = a_recording()
ACTIVE = a_stream(status=StreamStatus.ACTIVE)


def without(*ids: str, **fields: Any) -> Room:
    """A room in which these are not since 15 s."""
    given: dict[str, Any] = {"recorded": True, "missing": dict.fromkeys(ids, T0 - seconds(TIMING.ghost_s)), **fields}
    return a_room(**given)


def stops(current: Plan) -> list[object]:
    return [step for step in current.steps if isinstance(step, StopEgress | StopRecording)]


@pytest.mark.parametrize("beside", [[], [WRITING]], ids=["alone", "beside a recording"])
def test_one_that_left_its_room_is_stopped_as_a_ghost(beside: list[AnyResource]) -> None:
    room = without("e", recorded=bool(beside))
    assert stops(planned(recording_live(), room, ACTIVE, PLAYING, *beside)) == [
        StopEgress(ordinal=0, why="it is not in its room", fault=Fault.GHOST)
    ]


@pytest.mark.parametrize("beside", [[], [PLAYING]], ids=["alone", "beside the egress"])
def test_a_recording_that_left_its_room_is_stopped_and_another_begun(beside: list[AnyResource]) -> None:
    room = without("f", recorded=bool(beside))
    assert stops(planned(recording_live(), room, ACTIVE, WRITING, *beside)) == [
        StopRecording(ordinal=0, fault=Fault.GHOST)
    ]
    leaving = replace(WRITING, phase=Phase.DELETING, fault=Fault.GHOST, failures=1, retry_at=T0, changed_at=T0)
    assert StartRecording(ordinal=1) in planned(recording_live(), room, ACTIVE, leaving, *beside).steps
    # It is not begun where nobody asks for it any more.
    assert StartRecording(ordinal=1) not in planned(live(), room, ACTIVE, leaving, *beside).steps


@pytest.mark.parametrize(("row", "id_"), [(PLAYING, "e"), (WRITING, "f")], ids=["egress", "recording"])
def test_one_look_is_no_proof(row: Egress | LocalRecording, id_: str) -> None:
    before = without(id_, observed_at=T0 - seconds(1))
    current = planned(recording_live(), before, ACTIVE, row)
    assert stops(current) == []
    assert current.wait_until is not None
    assert current.wait_until <= T0 + seconds(TIMING.watch_s)
    seen_before = replace(before, observed_at=T0 - seconds(TIMING.watch_s))
    assert (Kind.ROOM, 0) in looks(recording_live(), seen_before, ACTIVE, row)


def test_one_that_is_there_or_of_which_nobody_knows_is_none() -> None:
    for recorded in (True, False, None):
        room = a_room(observed_at=T0, recorded=recorded)
        assert stops(planned(recording_live(), room, ACTIVE, PLAYING, WRITING)) == []


def test_a_new_one_has_its_time_to_enter() -> None:
    fresh = an_egress(status_since=T0 - seconds(5), changed_at=T0 - seconds(6), observed_at=T0)
    assert stops(planned(live(), without("e", recorded=False), a_stream(), fresh)) == []
    starting = replace(fresh, status=EgressStatus.STARTING, intended_at=T0 - seconds(20))
    assert stops(planned(live(), without("e", recorded=False), a_stream(), starting)) == []


def test_a_ghost_is_written_off_soon() -> None:
    leaving = replace(
        PLAYING,
        phase=Phase.DELETING,
        changed_at=T0 - seconds(15),
        failures=2,
        fault=Fault.GHOST,
        retry_at=T0 + seconds(9),
    )
    room = without("e")
    assert any(isinstance(step, WriteOff) for step in planned(live(), room, a_stream(), leaving).steps)
    asked = replace(leaving, fault=Fault.DISCONNECTED)
    assert not any(isinstance(step, WriteOff) for step in planned(live(), room, a_stream(), asked).steps)


def test_a_dead_recording_is_written_off_soon_and_says_what_is_lost() -> None:
    leaving = a_recording(
        phase=Phase.DELETING, changed_at=T0 - seconds(15), failures=2, fault=Fault.GHOST, retry_at=T0 + seconds(9)
    )
    [step] = [step for step in planned(live(), without("f"), ACTIVE, leaving).steps if isinstance(step, WriteOff)]
    assert step.why == "its worker is gone, and what it had written with it"
    for other in (replace(leaving, fault=Fault.NONE), replace(leaving, status=EgressStatus.ENDING)):
        # The second one lives: it puts its file into the storage.
        assert not any(isinstance(step, WriteOff) for step in planned(live(), without("f"), ACTIVE, other).steps)


@pytest.mark.parametrize("fault", ["GHOST", "NOT_STOPPED"])
def test_the_record_of_a_dead_worker_is_not_taken_for_one_that_came_back(fault: str) -> None:
    dead = a_recording(phase=Phase.GONE, fault=fault)

    def listed(status: EgressStatus) -> tuple[AnyResource, ...]:
        seen = EgressSeen(id="f", room_name="b", status=status, file=dead.file, updated_ns=5)
        return recordings_seen([dead], [seen], now=T0, timing=TIMING).resources

    assert listed(EgressStatus.ACTIVE) == ()
    [living] = listed(EgressStatus.ENDING)
    assert living.phase is Phase.PRESENT
    [written] = listed(EgressStatus.COMPLETE)
    assert isinstance(written, LocalRecording)
    assert written.complete


# How it is known.


def test_since_when_each_is_missing_is_kept_for_each() -> None:
    room = a_room()
    for moment, inside, missing in (
        (0, {"e", "f"}, {}),
        (5, {"f"}, {"e": T0 + seconds(5)}),
        (9, set[str](), {"e": T0 + seconds(5), "f": T0 + seconds(9)}),
        (12, {"f"}, {"e": T0 + seconds(5)}),
    ):
        now = T0 + seconds(moment)
        resource_set = ResourceSet((room, PLAYING, WRITING))
        seen = RoomInside(recorders=frozenset(inside), recorded=bool(inside), anybody=True)
        [learned] = room_seen(room, seen, now, missing=resource_set.missing(frozenset(inside), now)).resources
        assert isinstance(learned, Room)
        assert (learned.missing, learned.recorded) == (missing, bool(inside))
        room = learned


def test_the_only_one_that_may_be_there_is_who_is_there() -> None:
    gone = replace(WRITING, phase=Phase.GONE, fault=Fault.GHOST)
    room = without("e", "f")
    resource_set = ResourceSet((room, PLAYING, gone))
    assert resource_set.may_be_inside == [PLAYING]
    assert resource_set.missing(frozenset({"e"}), T0) == {"f": T0 - seconds(15)}


@pytest.mark.parametrize(
    ("beside", "may"),
    [
        (WRITING, True),
        (a_recording(phase=Phase.UNKNOWN, external_id="", status=EgressStatus.UNKNOWN), True),
        (replace(WRITING, phase=Phase.DELETING), True),
        # Written off, and never seen to leave.
        (replace(WRITING, phase=Phase.GONE), True),
        (replace(WRITING, phase=Phase.GONE, status=EgressStatus.COMPLETE, end_seen=True), False),
        (a_recording(phase=Phase.GONE, external_id="", end_seen=True), False),
        (replace(WRITING, external_id="g", phase=Phase.DELETING), False),
        (replace(WRITING, external_id="g", phase=Phase.GONE), False),
        (replace(WRITING, external_id="g"), True),
    ],
)
def test_who_is_in_the_room_is_asked_where_several_may_be(beside: LocalRecording, may: bool) -> None:  # noqa: FBT001
    """And often enough: the list of rooms does not change when one of them goes."""
    room = without("g", observed_at=T0 - seconds(TIMING.watch_s))
    beside = replace(beside, status=EgressStatus.STARTING) if beside.phase is Phase.PRESENT else beside
    resource_set = ResourceSet((room, PLAYING, beside))
    assert (len(resource_set.may_be_inside) > 1) is may
    assert resource_set.roll_call_s(TIMING) == (TIMING.roll_call_s if may else None)
    broadcast = recording_live()
    wait = planned(broadcast, room, ACTIVE, PLAYING, beside).wait_until
    assert wait is not None
    due = room.observed_at
    assert due is not None
    assert (wait <= due + seconds(TIMING.roll_call_s)) or not may
    late = replace(room, observed_at=T0 - seconds(TIMING.roll_call_s))
    assert ((Kind.ROOM, 0) in looks(broadcast, late, ACTIVE, PLAYING, beside)) is may


def test_nobody_is_looked_for_where_none_should_be() -> None:
    room = a_room(recorded=False, observed_at=LONG_AGO)
    assert ResourceSet((room, ACTIVE)).roll_call_s(TIMING) is None
    assert ResourceSet((room, ACTIVE, replace(PLAYING, status=EgressStatus.STARTING))).roll_call_s(TIMING) is None
    assert ResourceSet((replace(room, phase=Phase.UNKNOWN), ACTIVE, PLAYING)).roll_call_s(TIMING) is None
    # Looked at before it was active: whether it came in is not known.
    assert ResourceSet((room, ACTIVE, PLAYING)).roll_call_s(TIMING) == TIMING.watch_s


# One that was given up, and runs.


GIVEN_UP: list[Egress | LocalRecording] = [
    replace(PLAYING, phase=Phase.GONE, fault=Fault.NOT_STOPPED, changed_at=T0),
    replace(WRITING, phase=Phase.GONE, fault=Fault.NOT_STOPPED, changed_at=T0),
]


@pytest.mark.parametrize("row", GIVEN_UP, ids=["egress", "recording"])
@pytest.mark.parametrize(("returns", "after_s"), [(0, 20), (1, 40), (3, 160), (20, 3600)])
def test_one_that_is_in_its_room_is_told_again_ever_more_rarely(
    row: Egress | LocalRecording, returns: int, after_s: float
) -> None:
    room, held = a_room(observed_at=T0), replace(row, returns=returns)
    resource_set, inside = ResourceSet((room, held)), frozenset({row.external_id})
    assert resource_set.roll_call_s(TIMING) == after_s
    assert resource_set.still_running(inside, T0 + seconds(after_s - 1), TIMING) == []
    assert resource_set.still_running(inside, T0 + seconds(after_s), TIMING) == [held]
    again = found_running([held], T0 + seconds(after_s))
    [now] = again.resources
    assert (now.phase, now.acked, now.failures, now.changed_at) == (Phase.DELETING, False, 0, T0 + seconds(after_s))
    assert [event.reason for event in again.events] == ["EGRESS_STILL_RUNS"]
    [step] = stops(planned(live(), room, ACTIVE, now, after_s=after_s))
    assert isinstance(step, StopEgress | StopRecording)


@pytest.mark.parametrize("row", GIVEN_UP, ids=["egress", "recording"])
def test_one_that_ended_or_left_its_room_is_not_looked_for(row: Egress | LocalRecording) -> None:
    for room, held in ((without(row.external_id), row), (a_room(), replace(row, end_seen=True))):
        resource_set = ResourceSet((room, held))
        assert resource_set.roll_call_s(TIMING) is None
        assert resource_set.given_up == []


def test_one_that_is_told_again_holds_up_no_start() -> None:
    """Its key is dead and it was cut off, or both are done first: neither waits for its end."""
    [now] = found_running(GIVEN_UP[:1], T0).resources
    cut = a_stream(key_epoch=1, cut_epoch=1)
    assert StartEgress(ordinal=1) in planned(live(), a_room(), cut, now, after_s=200).steps
    steps = planned(live(), a_room(), a_stream(), now, after_s=200).steps
    assert ResetKey(ordinal=0) in steps
