"""A worker that dies leaves an egress that is listed as active for ever."""

from dataclasses import replace

from service.domain.observation import to_observe
from service.domain.ports import RoomSeen
from service.domain.resources import Phase, Room, StreamStatus
from service.domain.seen import room_seen
from service.domain.step import StopEgress, WriteOff
from service.domain.timing import Timing
from tests.unit.test_plan import T0, a_room, a_stream, an_egress, live, planned, seconds

PLAYING = an_egress(status_since=T0 - seconds(600), changed_at=T0 - seconds(600), observed_at=T0)
ACTIVE = a_stream(status=StreamStatus.ACTIVE)
LEFT = {"recorded": False, "recorded_since": T0 - seconds(15)}


def test_one_that_left_its_room_is_stopped_as_a_ghost() -> None:
    ghost = planned(live(), a_room(observed_at=T0, **LEFT), ACTIVE, PLAYING)
    assert ghost.steps == (StopEgress(ordinal=0, why="it is not in its room", fault="GHOST"),)


def test_one_look_is_no_proof() -> None:
    before = a_room(observed_at=T0 - seconds(1), **LEFT)
    current = planned(live(), before, ACTIVE, PLAYING)
    assert current.steps == ()
    assert current.wait_until is not None
    assert current.wait_until <= T0 + seconds(3)
    assert (before.kind, 0) in to_observe(
        live(), (replace(before, observed_at=T0 - seconds(3)), ACTIVE, PLAYING), T0, Timing()
    )


def test_one_that_is_there_or_of_which_nobody_says_is_none() -> None:
    for recorded in (True, None):
        room = a_room(observed_at=T0, recorded=recorded, recorded_since=T0 - seconds(99))
        assert planned(live(), room, ACTIVE, PLAYING).steps == ()


def test_a_new_one_has_its_time_to_enter() -> None:
    fresh = an_egress(status_since=T0 - seconds(5), changed_at=T0 - seconds(6), observed_at=T0)
    room = a_room(observed_at=T0, recorded=False, recorded_since=T0 - seconds(600))
    assert planned(live(), room, a_stream(), fresh).steps == ()


def test_a_ghost_is_written_off_soon() -> None:
    leaving = replace(
        PLAYING, phase=Phase.DELETING, changed_at=T0 - seconds(15), failures=2, fault="GHOST", retry_at=T0 + seconds(9)
    )
    room = a_room(observed_at=T0, **LEFT)
    assert any(isinstance(step, WriteOff) for step in planned(live(), room, a_stream(), leaving).steps)
    asked = replace(leaving, fault="DISCONNECTED")
    assert not any(isinstance(step, WriteOff) for step in planned(live(), room, a_stream(), asked).steps)


def test_since_when_it_is_so_is_kept() -> None:
    seen = RoomSeen(name="b", sid="RM", publishers=1, recorded=False)
    room: object = a_room(recorded=True, recorded_since=T0 - seconds(9))
    for moment in (T0, T0 + seconds(5)):
        assert isinstance(room, Room)
        [room] = room_seen(room, seen, moment).resources
        assert isinstance(room, Room)
        assert (room.recorded, room.recorded_since) == (False, T0)
