"""More recordings of one live stream than a page of Mux's list holds: a flapping encoder makes them."""

from __future__ import annotations

from service.domain.broadcast import RecordingPolicy, Spec, State
from service.domain.reasons import EventReason
from service.domain.resources import Recording, RecordingStatus, Stream
from tests.simulation.providers.mux import Asset, LiveStream
from tests.simulation.stage import Stage, play

MANY = 325


def recorded(stage: Stage, stream: LiveStream, count: int) -> None:
    """So many recordings besides the one that is being made, all older."""
    newer = dict(stage.mux.assets)
    stage.mux.assets.clear()
    for n in range(count):
        recording = Recording(asset_id=f"old-{n:03}", playback_id=f"pb-{n}", status=RecordingStatus.READY)
        stage.mux.assets[recording.asset_id] = Asset(
            recording=recording,
            tag=stream.tag,
            created_at=stream.created_at,
            live_stream_id=stream.id,
            broadcast_id=stream.broadcast_id,
        )
    stage.mux.assets.update(newer)


def test_all_pages_are_kept() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        recorded(stage, stage.stream, MANY)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 60)
        ids = [recording.asset_id for recording in stage.broadcast.status.recordings]
        assert ids[:MANY] == [f"old-{n:03}" for n in range(MANY)]
        assert len(ids) == len(set(ids)) == MANY + 1
        [kept] = [event.message for event in stage.story if event.reason == EventReason.RECORDINGS_KEPT]
        assert kept == str(MANY + 1)

    play(scene)


def test_all_pages_are_discarded() -> None:
    """None is left that costs money and that nobody knows of."""

    async def scene(stage: Stage) -> None:
        await stage.live(Spec(title="A show", recording_policy=RecordingPolicy.DISCARD))
        recorded(stage, stage.stream, MANY)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 900)
        assert not stage.mux.assets
        [stream] = [each for each in stage.row.sorted_resources() if isinstance(each, Stream)]
        assert (stream.recordings_settled, stream.discarding, stream.pages_listed) == (True, (), 0)

    play(scene)
