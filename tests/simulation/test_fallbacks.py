"""Nothing mends it: viewers are served another way, are sent back, or are told that it is over. Every webhook is lost.

Beside test_failures.py, whose table in docs/failures.md has them too.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from service.domain.broadcast import EndReason, FallbackMode, Spec, State
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.resources import EgressStatus
from tests.simulation.faults import Kind
from tests.simulation.providers.network import Outage
from tests.simulation.stage import Stage, play


async def _fail_each_egress(stage: Stage, times: int) -> None:
    for _ in range(times):
        await stage.until(lambda: any(egress.session is not None for egress in stage.running), 120)
        await asyncio.sleep(5)
        stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        await stage.until(lambda: not stage.running or bool(stage.broadcast.fallback.modes), 30)


def test_the_egress_cannot_be_kept_up() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        began = stage.now
        await _fail_each_egress(stage, 3)
        await stage.until(lambda: FallbackMode.DIRECT_WEBRTC in stage.broadcast.fallback.modes, 30)
        assert stage.now - began < 200
        assert stage.broadcast.state is State.INTERRUPTED
        assert stage.broadcast.status.state_reason == "DIRECT_WEBRTC"
        assert stage.broadcast.fallback.reason == "EGRESS_FAILING"
        assert "FALLBACK_ENTERED" in stage.reasons
        # The normal way is tried on beside it; viewers are sent back when it was healthy for two minutes.
        await stage.until(lambda: stage.plays, 90)
        await stage.all_the_while(lambda: bool(stage.broadcast.fallback.modes), 100)
        await stage.until(lambda: not stage.broadcast.fallback.modes, 45)
        assert stage.broadcast.state is State.LIVE
        await stage.all_the_while(lambda: not stage.broadcast.fallback.modes, 120)

    play(scene)


def test_at_most_five_starts_in_ten_minutes() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        began = stage.now
        while stage.now - began < 590:
            for egress in stage.running:
                if egress.status is EgressStatus.ACTIVE:
                    stage.livekit.end(egress, Kind.EGRESS_FAILED)
            await asyncio.sleep(2)
        starts = [
            each for each in stage.world.env.effects.log if each.kind == "egress.started" and each.time > began - 60
        ]
        assert len(starts) <= 6
        assert "START_LIMIT" in {each.reason for each in stage.broadcast.status.conditions}
        await stage.until(lambda: stage.plays, 400)

    play(scene)


@pytest.mark.parametrize("storage", [True, False], ids=["storage", "no storage"])
def test_mux_cannot_be_reached(storage: bool) -> None:  # noqa: FBT001 - a parameter
    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.shared.at_mux.outage = Outage(until=stage.now + 400, mode="refused")
        if not storage:
            await asyncio.sleep(300)
            # Nothing to do: the media flows, and there is nowhere to record to.
            assert not stage.broadcast.fallback.modes
            assert stage.plays
            return
        await stage.until(lambda: stage.broadcast.fallback.modes == (FallbackMode.LOCAL_RECORDING,), 150)
        assert stage.broadcast.state is State.LIVE
        await stage.until(lambda: any(each.status is EgressStatus.ACTIVE for each in stage.recordings), 30)
        assert stage.plays
        await stage.until(lambda: not stage.broadcast.fallback.modes, 420)
        await stage.until(lambda: any(each.uploaded for each in stage.broadcast.status.recordings), 90)
        await stage.until(lambda: all(each.settled for each in stage.broadcast.status.recordings), 400)
        assert stage.broadcast.state is State.LIVE

    play(scene, storage=storage)


def test_mux_is_away_and_the_egress_fails() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.shared.at_mux.outage = Outage(until=stage.now + 300, mode="silent")
        stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        both = (FallbackMode.DIRECT_WEBRTC, FallbackMode.LOCAL_RECORDING)
        # A new egress may be started with the key that is known, and plays: then nobody needs to be moved.
        await stage.until(lambda: bool(stage.broadcast.fallback.modes), 170)
        assert set(stage.broadcast.fallback.modes) <= set(both)
        assert stage.broadcast.fallback.reason == "MUX_UNREACHABLE"
        await stage.until(lambda: not stage.broadcast.fallback.modes, 500)
        assert stage.plays

    play(scene, storage=True)


def test_a_playlist_that_moves_on_by_itself() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        [egress] = stage.running
        stage.mux.stall(stage.stream, 20)
        await stage.until(lambda: stage.broadcast.state is State.INTERRUPTED, 35)
        assert stage.broadcast.status.state_reason == "PLAYLIST_STALLED"
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 30)
        await asyncio.sleep(60)
        assert stage.running == [egress]

    play(scene)


def test_a_playlist_that_no_egress_moves() -> None:
    """Mux hangs, so a new egress does not help. Viewers are moved into the room, and later back."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        began = stage.now

        async def hang() -> None:
            while stage.now - began < 400:
                if not stage.stream.stalled:
                    stage.mux.stall(stage.stream)
                await asyncio.sleep(0.2)
            stage.stream.stalled = False

        hanging = asyncio.ensure_future(hang())
        await stage.until(lambda: FallbackMode.DIRECT_WEBRTC in stage.broadcast.fallback.modes, 300)
        assert stage.broadcast.fallback.reason == "EGRESS_FAILING"
        await hanging
        assert stage.broadcast.fallback.modes
        await stage.until(lambda: not stage.broadcast.fallback.modes, 450)
        assert stage.plays
        assert stage.broadcast.state is State.LIVE

    play(scene)


def test_nothing_is_left() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(Spec(title="A show", fallback_modes=()))
        began = stage.now
        while stage.broadcast.end_reason is None and stage.now - began < 1500:
            for egress in stage.running:
                if egress.status is EgressStatus.ACTIVE:
                    stage.livekit.end(egress, Kind.EGRESS_FAILED)
            await asyncio.sleep(1)
        assert stage.broadcast.end_reason is EndReason.EGRESS_FAILED
        await stage.until(lambda: stage.broadcast.state is State.FAILED, 60)
        assert not stage.running

    play(scene)


@pytest.mark.parametrize("modes", [(), (FallbackMode.DIRECT_WEBRTC,)], ids=["no fallback", "fallback"])
@pytest.mark.parametrize("live", [True, False], ids=["live", "never live"])
def test_a_start_is_lost_and_the_key_cannot_be_reset(
    live: bool,  # noqa: FBT001 - a parameter
    modes: tuple[FallbackMode, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No egress fails any more, and none can be started: it must not wait for ever."""

    def no(*_: object) -> NoReturn:
        raise ProviderError("no", provider=Provider.MUX, operation=Operation.GET_STREAM, outcome=Outcome.AMBIGUOUS)

    async def scene(stage: Stage) -> None:
        spec = Spec(title="A show", fallback_modes=modes)
        life = await (stage.live(spec) if live else stage.begin(spec))
        monkeypatch.setattr(stage.mux, "reset_key", no)
        monkeypatch.setattr(stage.livekit, "start", no)
        if live:
            stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        else:
            life.host_comes()
        # The live stream is idle when its reconnect window is over, and hopeless after that.
        within = 120 + 900 + 30
        if modes:
            await stage.until(lambda: stage.broadcast.fallback.modes == modes, within)
        else:
            await stage.until(lambda: stage.broadcast.end_reason is EndReason.EGRESS_FAILED, within)
            await stage.until(lambda: stage.broadcast.state is State.FAILED, 120)

    play(scene)
