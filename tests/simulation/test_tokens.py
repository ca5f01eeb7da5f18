"""Each call to Mux has a token of its own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from service.domain.broadcast import RecordingPolicy, Spec, State
from service.domain.resources import Recording
from service.providers.budget import Bucket, Budget
from tests.simulation.faults import Kind
from tests.simulation.providers.mux import Asset
from tests.simulation.stage import Stage, play

if TYPE_CHECKING:
    from tests.simulation.providers.network import Call
    from tests.simulation.replica import Replica

POSTS = ("create_live_stream", "reset_stream_key", "create_asset")


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Tokens that were granted, by bucket."""
    granted: Counter[str] = Counter()
    ask: Any = Budget._ask  # pyright: ignore[reportPrivateUsage]

    async def counted(budget: Budget, bucket: Bucket, *args: Any, **kwargs: Any) -> Any:
        given = await ask(budget, bucket, *args, **kwargs)
        granted[bucket] += given.taken
        return given

    monkeypatch.setattr(Budget, "_ask", counted)
    return granted


def counting(stage: Stage) -> Counter[str]:
    """Calls from now on, by their name."""
    calls: Counter[str] = Counter()
    before = stage.shared.called

    def called(replica: Replica, call: Call, subject: str) -> None:
        calls[call.name] += call.provider == "mux"
        before(replica, call, subject)

    stage.shared.called = called
    return calls


def check(calls: Counter[str], tokens: Counter[str]) -> None:
    posts = sum(calls[name] for name in POSTS)
    assert posts <= tokens[Bucket.STREAMS_POST], calls
    assert calls.total() - posts <= tokens[Bucket.STREAMS_OTHER], calls


def test_of_recordings_that_are_discarded_one_by_one(tokens: Counter[str]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(Spec(title="A show", recording_policy=RecordingPolicy.DISCARD))
        stream = stage.stream
        for n in range(30):
            recording = Recording(asset_id=f"more-{n}")
            stage.mux.assets[recording.asset_id] = Asset(
                recording=recording, tag=stream.tag, created_at=stage.world.env.now(), live_stream_id=stream.id
            )
        calls = counting(stage)
        tokens.clear()
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 120)
        assert not stage.mux.recordings(stream.id)
        assert calls["delete_asset"] == 31
        check(calls, tokens)
        assert stage.reasons.count("RECORDINGS_DISCARDED") == 31

    play(scene)


def test_of_what_mux_recorded_that_is_asked_for_after_the_end(tokens: Counter[str]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        stream = stage.stream
        for n in range(8):
            recording = Recording(asset_id=f"more-{n}")
            stage.mux.assets[recording.asset_id] = Asset(
                recording=recording, tag=stream.tag, created_at=stage.world.env.now(), live_stream_id=stream.id
            )
        calls = counting(stage)
        tokens.clear()
        await stage.stop()
        await stage.until(lambda: calls["get_asset"] > 20, 300)
        check(calls, tokens)

    play(scene)


def test_of_a_cut(tokens: Counter[str]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(Spec(title="A show", reconnect_window_s=1800))
        calls = counting(stage)
        tokens.clear()
        for _ in range(3):
            [*_, egress] = stage.running
            stage.livekit.befall(egress, Kind.EGRESS_GHOST)
            seen = stage.reasons.count("STREAM_CUT")
            await stage.until(lambda seen=seen: stage.reasons.count("STREAM_CUT") > seen, 300)
            await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 300)
        assert (calls["disable_live_stream"], calls["enable_live_stream"]) == (3, 3)
        check(calls, tokens)

    play(scene)
