"""No egress worker is free: LiveKit looks for one for 22 s before it refuses a start."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.broadcast import Spec, State
from service.domain.reasons import Fault
from tests.simulation.stage import Stage, play


async def _without_workers(stage: Stage) -> None:
    life = await stage.begin(Spec(title="A show"))
    stage.livekit.workers = 0
    life.host_comes()
    await stage.until(lambda: bool(stage.egresses), 15)


def test_it_is_told_with_its_code_and_no_key_is_reset() -> None:
    """The wait for the refusal is longer than a lease, which is renewed: the pass goes on and hears it."""

    async def scene(stage: Stage) -> None:
        await _without_workers(stage)
        holder = stage.row.lease_owner
        await asyncio.sleep(21)
        assert stage.row.lease_owner == holder, "another replica took over in the middle of the call"
        await stage.until(lambda: stage.broadcast.status.last_error is not None, 5)
        assert not stage.world.tables.zombies
        trouble = stage.broadcast.status.last_error
        assert trouble is not None
        assert (trouble.code, trouble.outcome) == ("unavailable", "unavailable")
        await asyncio.sleep(120)
        assert {egress.fault for egress in stage.egresses[:-1]} == {Fault.UNAVAILABLE}
        assert "KEY_RESET" not in stage.reasons
        assert "EGRESS_WRITTEN_OFF" not in stage.reasons
        stage.livekit.workers = -1
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 110)
        assert len(stage.running) == 1

    play(scene)


@pytest.mark.parametrize("after_s", [0.2, 3, 12, 20])
def test_a_stop_does_not_wait_for_a_start_that_hangs(after_s: float) -> None:
    async def scene(stage: Stage) -> None:
        await _without_workers(stage)
        await asyncio.sleep(after_s)
        await stage.stop()
        took = await stage.until(lambda: stage.broadcast.state is State.ENDED, 10)
        assert took < 7
        await asyncio.sleep(120)
        assert not stage.running

    play(scene)


@pytest.mark.parametrize("after_s", [23, 24, 25, 26, 30])
def test_a_stop_after_a_refusal_does_not_wait_for_a_grace(after_s: float) -> None:
    async def scene(stage: Stage) -> None:
        await _without_workers(stage)
        await asyncio.sleep(after_s)
        await stage.stop()
        took = await stage.until(lambda: stage.broadcast.state is State.ENDED, 10)
        assert took < 7

    play(scene)


def test_a_worker_that_took_a_start_all_the_same_is_found() -> None:
    """LiveKit refused the start, and its list shows that it runs: it is ours, and no second one is started."""

    async def scene(stage: Stage) -> None:
        await _without_workers(stage)
        wanted = stage.world.shared.at_livekit
        await stage.until(lambda: stage.broadcast.status.last_error is not None, 30)
        [row] = stage.egresses
        stage.livekit.workers = -1
        wanted.land(lambda: stage.livekit.start(stage.wanted(row)))
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert len(stage.livekit.egresses) == 1
        assert "EGRESS_ADOPTED" in stage.reasons
        assert stage.egresses[0].fault is Fault.NONE

    play(scene)
