"""A playlist that stands still: when it is believed, what is said of it, and what is done."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.domain.broadcast import ConditionType, FallbackMode, State, seconds
from service.domain.measurements import Probe, Unseen
from service.domain.observing.playlist import probed
from service.domain.planning.steps import EndBroadcast, ResetKey, SetFallback, StopEgress
from service.domain.ports import PlaylistSeen
from service.domain.reasons import Fault
from service.domain.reporting.status import status_of
from service.domain.resource_set import ResourceSet
from service.domain.resources import Egress, Phase, Stream, StreamStatus
from service.domain.timing import Timing
from tests.unit.test_fallback import STORAGE, TIMING, decided, failed, fallen, look_at
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, live, planned

PLAYLIST = PlaylistSeen(status=200, media_sequence=10, segments=6, target_duration_s=2)
ROOM = a_room(host_since=LONG_AGO)
EGRESS = an_egress(delivering_since=LONG_AGO)
STREAM = a_stream(status=StreamStatus.ACTIVE, status_since=LONG_AGO)


def ago(value: float) -> datetime:
    return T0 - seconds(value)


def stood(for_s: float, **fields: Any) -> Probe:
    given: dict[str, Any] = {"playlist": PLAYLIST, "playlist_at": T0, "standing_since": ago(for_s), **fields}
    return Probe(**given)


def held(stream: Stream, probe: Probe, *, room: Any = ROOM, egress: Egress = EGRESS) -> Stream:
    """The live stream, after a look of the prober."""
    learned = probed((room, stream, egress), probe, T0)
    return next((each for each in learned.resources if isinstance(each, Stream)), stream)


def test_a_playlist_without_a_new_segment_for_three_of_them_stands_still() -> None:
    assert held(STREAM, stood(6)).stalled_since is None
    assert held(STREAM, stood(6.1)).stalled_since == ago(6.1)


def test_one_that_viewers_are_refused_stands_still_too() -> None:
    refused = PlaylistSeen(status=412)
    assert held(STREAM, stood(10, playlist=refused)).stalled_since == ago(10)


@pytest.mark.parametrize(
    "resources",
    [
        {"room": replace(ROOM, host_since=ago(5))},
        {"egress": replace(EGRESS, delivering_since=ago(5))},
        {"stream": replace(STREAM, status_since=ago(5))},
    ],
)
def test_what_is_whole_only_now_is_given_its_time(resources: dict[str, Any]) -> None:
    given: dict[str, Any] = {"stream": STREAM, **resources}
    assert held(probe=stood(600), **given).stalled_since is None


@pytest.mark.parametrize(
    "resources",
    [
        {"room": replace(ROOM, host_publishing=False)},
        {"egress": replace(EGRESS, outputs=())},
        {"stream": replace(STREAM, status=StreamStatus.IDLE)},
        {"stream": replace(STREAM, phase=Phase.DELETING)},
    ],
)
def test_where_nothing_is_sent_nothing_is_expected(resources: dict[str, Any]) -> None:
    given: dict[str, Any] = {"stream": STREAM, **resources}
    assert held(probe=stood(600), **given).stalled_since is None


def test_what_nobody_looked_at_lately_is_not_known() -> None:
    old = stood(600, playlist_at=ago(31))
    assert held(STREAM, old).stalled_since is None
    forgotten = held(replace(STREAM, stalled_since=ago(100)), old)
    assert (forgotten.stalled_since, forgotten.resumed_at) == (None, T0)


UNSEEN = Unseen(since=ago(60), at=T0, code="500", message="the playback edge answers 500")


@pytest.mark.parametrize("status", [200, 403, 404, 500, 503])
def test_a_playlist_that_cannot_be_seen_does_not_stand_still(status: int) -> None:
    """Whatever the edge answers for however long: it is told, and no egress is touched for it."""
    seen = replace(PLAYLIST, status=status)
    stream = held(STREAM, stood(600, playlist=seen, playlist_at=ago(31), unseen=UNSEEN))
    assert (stream.stalled_since, stream.unseen_since, stream.unseen) == (None, ago(60), UNSEEN.message)
    broadcast = live(live_time=LONG_AGO)
    plan = planned(broadcast, ROOM, stream, EGRESS)
    assert plan.steps == ()
    state, status_now = status_of(broadcast, (ROOM, stream, EGRESS), plan, T0)
    assert (state, status_now.state_reason) == (State.LIVE, "PLAYBACK_UNREACHABLE")
    [playable] = [each for each in status_now.conditions if each.type is ConditionType.PLAYABLE]
    assert (playable.met, playable.reason) == (None, "PLAYBACK_UNREACHABLE")
    assert "answers 500" in playable.message


def test_an_answer_that_is_no_playlist_was_never_a_stall() -> None:
    """As the version before stored it: with its status, as if it were a playlist."""
    assert held(STREAM, stood(600, playlist=PlaylistSeen(status=500))).stalled_since is None


def test_one_look_that_fails_is_no_loss_of_sight() -> None:
    once = replace(UNSEEN, since=T0)
    assert held(STREAM, stood(3, playlist_at=ago(5), unseen=once)).unseen_since is None
    assert held(STREAM, Probe(unseen=once)).unseen_since == T0, "it was never seen"
    seen_again = held(replace(STREAM, unseen_since=ago(60), unseen="x"), stood(3))
    assert (seen_again.unseen_since, seen_again.unseen) == (None, "")


def test_viewers_are_not_sent_back_to_a_playlist_that_cannot_be_seen() -> None:
    moved = replace(STREAM, resumed_at=ago(TIMING.fallback_return_s), unseen_since=ago(10), unseen="x")
    assert decided(fallen(), ROOM, moved, EGRESS).fallback.modes


def test_it_is_over_with_a_new_segment_and_with_nothing_else() -> None:
    stalled = replace(STREAM, stalled_since=ago(40))
    fresh = replace(EGRESS, ordinal=1, delivering_since=ago(1))
    assert held(stalled, stood(50), egress=fresh) is stalled
    assert held(stalled, stood(50), egress=replace(EGRESS, outputs=())) is stalled
    moved = held(stalled, stood(2))
    assert (moved.stalled_since, moved.resumed_at) == (None, T0)


def test_it_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    [began] = probed((ROOM, STREAM, EGRESS), stood(20), T0).events
    assert began.reason == "PLAYBACK_STALLED"
    stalled = replace(STREAM, stalled_since=ago(20))
    assert probed((ROOM, stalled, EGRESS), stood(30), T0).events == ()
    [over] = probed((ROOM, stalled, EGRESS), stood(1), T0).events
    assert over.reason == "PLAYBACK_RESUMED"


def test_it_is_not_playable_and_that_is_said() -> None:
    stalled = replace(STREAM, stalled_since=ago(20))
    resources = (ROOM, stalled, EGRESS)
    broadcast = live(live_time=LONG_AGO)
    state, status = status_of(broadcast, resources, planned(broadcast, *resources), T0)
    assert (state, status.state_reason) == (State.INTERRUPTED, "PLAYLIST_STALLED")
    [playable] = [each for each in status.conditions if each.type is ConditionType.PLAYABLE]
    assert (playable.met, playable.reason) == (False, "PLAYLIST_STALLED")
    [ingest] = [each for each in status.conditions if each.type is ConditionType.INGEST_ACTIVE]
    assert ingest.met


def test_the_egress_that_feeds_it_is_replaced_after_its_time() -> None:
    broadcast = live(live_time=LONG_AGO)
    young = replace(STREAM, stalled_since=ago(29))
    waits = planned(broadcast, ROOM, young, EGRESS)
    assert (waits.steps, waits.wait_until) == ((), T0 + seconds(1))
    step, fence = planned(broadcast, ROOM, replace(STREAM, stalled_since=ago(30)), EGRESS).steps
    assert isinstance(step, StopEgress)
    assert step.fault == "STALLED"
    assert fence == ResetKey(ordinal=0)


def test_the_next_egress_has_its_time_too() -> None:
    stalled = replace(STREAM, stalled_since=ago(100))
    fresh = replace(EGRESS, delivering_since=ago(29))
    assert planned(live(live_time=LONG_AGO), ROOM, stalled, fresh).steps == ()


def test_what_is_known_of_it_is_planned_again_before_it_is_too_old() -> None:
    fresh = replace(EGRESS, delivering_since=T0)
    plan = planned(live(live_time=LONG_AGO), ROOM, replace(STREAM, stalled_since=ago(10)), fresh)
    assert plan.wait_until is not None
    assert plan.wait_until <= T0 + seconds(30)


def test_three_of_them_are_reason_enough_for_a_fallback() -> None:
    stalled = replace(STREAM, stalled_since=ago(200))
    three = [failed(n, fault=Fault.STALLED) for n in range(3)]
    decision = decided(live(live_time=LONG_AGO), ROOM, stalled, EGRESS, *three)
    assert FallbackMode.DIRECT_WEBRTC in decision.fallback.modes
    assert ResourceSet((ROOM, stalled, EGRESS)).playable is False


def test_the_return_waits_for_the_playlist_to_have_moved_for_long_enough() -> None:
    moved = replace(STREAM, resumed_at=ago(TIMING.fallback_return_s - 1))
    early = decided(fallen(), ROOM, moved, EGRESS, availability=replace(STORAGE, answering_since={"mux": LONG_AGO}))
    assert early.fallback.modes
    assert look_at(early) == T0 + seconds(1)
    moved = replace(STREAM, resumed_at=ago(TIMING.fallback_return_s))
    assert decided(fallen(), ROOM, moved, EGRESS).fallback.reason == "RETURNED"


def test_with_no_fallback_a_playlist_that_never_moves_is_the_end() -> None:
    spec = replace(live().spec, fallback_modes=())
    three = [failed(n, fault=Fault.STALLED) for n in range(3)]

    def steps(stalled_s: float) -> tuple[Any, ...]:
        stalled = replace(STREAM, stalled_since=ago(stalled_s))
        return planned(live(live_time=LONG_AGO, spec=spec), ROOM, stalled, EGRESS, *three).steps

    assert any(isinstance(step, EndBroadcast) for step in steps(Timing().hopeless_s))
    assert not any(isinstance(step, EndBroadcast | SetFallback) for step in steps(Timing().hopeless_s - 1))
