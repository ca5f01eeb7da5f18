"""The playback handle: its generation grows when, and only when, viewers have to do something else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.broadcast import (
    Broadcast,
    Fallback,
    FallbackMode,
    Spec,
    State,
    Status,
    Target,
)
from service.domain.playback_handle import HandleKind, PlaybackHandle
from service.domain.reporting.handle import handle_of, with_handle
from service.domain.resources import Recording, RecordingStatus
from tests.unit.health_facts import NOW

LATER = NOW + timedelta(seconds=7)
CREATED = Broadcast(id="show", spec=Spec(), create_time=NOW, update_time=NOW)
READY = Recording(asset_id="A1", playback_id="R1", status=RecordingStatus.READY)


def shown(state: State, *, before: Broadcast = CREATED, **status: object) -> Broadcast:
    told = replace(before.status, **status)  # pyright: ignore[reportArgumentType] - fields of the status
    target = Target.ENDED if state in (State.STOPPING, State.ENDED) else Target.LIVE
    return with_handle(before, replace(before, state=state, target=target, status=told), LATER)


def handle(broadcast: Broadcast) -> PlaybackHandle:
    found = broadcast.status.playback_handle
    assert found is not None
    return found


def test_one_that_was_not_started_has_no_handle_stored_and_answers_the_first() -> None:
    assert with_handle(CREATED, CREATED, LATER) is CREATED
    assert handle_of(CREATED, LATER) == PlaybackHandle(kind=HandleKind.STARTING, generation=1, since=NOW)


def test_the_generation_grows_with_the_handle_and_with_nothing_else() -> None:
    starting = shown(State.STARTING)
    assert handle(starting) == PlaybackHandle(kind=HandleKind.STARTING, generation=1, since=NOW)
    ready = shown(State.READY, before=starting, playback_id="P1")
    assert handle(ready) == handle(starting)
    live = shown(State.LIVE, before=ready)
    assert handle(live) == PlaybackHandle(kind=HandleKind.HLS, playback_ids=("P1",), generation=2, since=LATER)
    assert handle(shown(State.LIVE, before=live, room_sid="RM_2")) == handle(live)
    moved = shown(State.LIVE, before=live, playback_id="P2")
    assert (handle(moved).generation, handle(moved).playback_ids) == (3, ("P2",))
    stopping = shown(State.STOPPING, before=moved)
    assert (handle(stopping).generation, handle(stopping).kind) == (4, HandleKind.ENDED)
    ended = shown(State.ENDED, before=stopping)
    assert handle(ended) == handle(stopping)
    recorded = shown(State.ENDED, before=ended, recordings=(READY,))
    assert (handle(recorded).generation, handle(recorded).kind) == (5, HandleKind.RECORDING)
    more = shown(State.ENDED, before=recorded, recordings=(READY, replace(READY, asset_id="A2", playback_id="R2")))
    assert (handle(more).generation, handle(more).playback_ids) == (6, ("R1", "R2"))


def test_the_room_is_a_handle_of_its_own() -> None:
    live = shown(State.LIVE, before=shown(State.READY, playback_id="P1"))
    fallback = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,))
    in_the_room = with_handle(live, replace(live, state=State.INTERRUPTED, fallback=fallback), LATER)
    assert handle(in_the_room).kind is HandleKind.WEBRTC
    assert handle(in_the_room).generation == handle(live).generation + 1
    back = with_handle(in_the_room, replace(in_the_room, state=State.LIVE, fallback=Fallback()), LATER)
    assert (handle(back).kind, handle(back).generation) == (HandleKind.HLS, handle(live).generation + 2)


@pytest.mark.parametrize("state", [State.LIVE, State.STOPPING])
def test_a_row_of_a_version_without_handles_has_the_first_and_goes_on_from_it(state: State) -> None:
    old = replace(CREATED, state=State.LIVE, target=Target.LIVE, status=Status(playback_id="P1"))
    assert handle_of(old, LATER) == PlaybackHandle(kind=HandleKind.HLS, playback_ids=("P1",), generation=1, since=NOW)
    changes = state is State.STOPPING
    assert handle(shown(state, before=old)).generation == 1 + changes
