"""The playback edge answers wrongly while LiveKit and Mux say the truth: nothing that delivers is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.domain.broadcast import ConditionType, PlaybackPolicy, Spec, State
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import PlaylistSeen
from service.domain.provider import PLAYBACK
from service.domain.reasons import Operation
from tests.simulation.stage import ID, Stage, play

SIGNED = Spec(title="A show", playback_policy=PlaybackPolicy.SIGNED)
Edge = Callable[[PlaylistSeen], PlaylistSeen]


def _behind(edge: Edge, stage: Stage) -> Callable[[], None]:
    """From now on players get their playlists from *edge*. Answers how to end that."""
    truth = stage.mux.playlist
    stage.mux.playlist = lambda playback_id: edge(truth(playback_id))

    def end() -> None:
        stage.mux.playlist = truth

    return end


def _answered(status: int) -> Edge:
    return lambda _: PlaylistSeen(status=status)


def _failed(code: str) -> Edge:
    def instead(_: PlaylistSeen) -> PlaylistSeen:
        raise ProviderError(
            "no answer", provider=PLAYBACK, operation=Operation.LOOK_AT_PLAYLIST, outcome=Outcome.AMBIGUOUS, code=code
        )

    return instead


@pytest.mark.parametrize(
    "edge",
    [
        *(pytest.param(_answered(status), id=str(status)) for status in (403, 404, 500)),
        *(pytest.param(_failed(code), id=code) for code in ("no_playlist", "timeout", "elsewhere", "refused")),
    ],
)
def test_an_edge_that_fails_interrupts_nothing_and_is_told(edge: Edge) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        writes, told = stage.writes(), len(stage.reasons)
        end = _behind(edge, stage)
        await stage.until(lambda: stage.broadcast.status.state_reason == "PLAYBACK_UNREACHABLE", 35)
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, 300)
        [playable] = [each for each in stage.broadcast.status.conditions if each.type is ConditionType.PLAYABLE]
        assert (playable.met, playable.reason) == (None, "PLAYBACK_UNREACHABLE")
        end()
        await stage.until(lambda: stage.broadcast.status.state_reason == "", 15)
        assert stage.running == [running]
        assert writes == []
        assert set(stage.reasons[told:]) == {"STATUS_CHANGED"}

    play(scene)


@pytest.mark.parametrize("for_s", [1, 30])
def test_the_playlist_of_another_live_stream_is_no_stall(for_s: float) -> None:
    def ahead(seen: PlaylistSeen) -> PlaylistSeen:
        return replace(seen, media_sequence=(seen.media_sequence or 0) + 9000)

    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        end = _behind(ahead, stage)
        await stage.all_the_while(lambda: stage.broadcast.state is State.LIVE, for_s)
        end()
        await stage.all_the_while(lambda: stage.broadcast.state is State.LIVE, 120)
        assert stage.running == [running]

    play(scene)


@pytest.mark.parametrize("for_s", [1, 11])
def test_an_older_or_shorter_copy_of_the_playlist_is_no_stall(for_s: float) -> None:
    def shorter(seen: PlaylistSeen) -> PlaylistSeen:
        return replace(seen, segments=max(seen.segments - 5, 1))

    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        looks = 0

        def counted(seen: PlaylistSeen) -> PlaylistSeen:
            nonlocal looks
            looks += 1
            # One look in three meets it, at any time.
            return shorter(seen) if looks % 3 == 0 else seen

        end = _behind(counted, stage)
        await stage.all_the_while(lambda: stage.broadcast.state is State.LIVE, 60 * for_s)
        end()
        assert stage.running == [running]

    play(scene)


def test_whether_viewers_get_new_pictures_is_known_seconds_after_the_start() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE, 60)
        began = stage.world.tables.now()

        def known() -> bool:
            probe = stage.world.tables.probes.get(ID)
            return probe is not None and probe.advanced_at is not None and probe.advanced_at >= began

        assert await stage.until(known, 6) <= 6

    play(scene)


def test_a_signed_playlist_that_stands_still_is_noticed_and_healed_where_there_is_a_key() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(SIGNED)
        [first] = stage.running
        assert _playable(stage) == (True, "PLAYING")
        stage.mux.stall(stage.stream)
        await stage.until(lambda: stage.broadcast.state is State.INTERRUPTED, 35)
        assert "PLAYBACK_STALLED" in stage.reasons
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 110)
        assert stage.running != [first]

    play(scene, signing=True)


def test_without_a_key_nobody_claims_that_a_signed_broadcast_can_be_played() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(SIGNED)
        assert _playable(stage) == (None, "SIGNED")
        assert ID not in stage.world.tables.probes or stage.world.tables.probes[ID].playlist is None

    play(scene)


def test_a_key_that_the_provider_does_not_know_makes_playable_unknown() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(SIGNED)
        _behind(_answered(403), stage)
        await stage.until(lambda: _playable(stage) == (None, "PLAYBACK_UNREACHABLE"), 35)
        assert stage.broadcast.state is State.LIVE

    play(scene, signing=True)


def _playable(stage: Stage) -> tuple[bool | None, str]:
    [playable] = [each for each in stage.broadcast.status.conditions if each.type is ConditionType.PLAYABLE]
    return playable.met, playable.reason
