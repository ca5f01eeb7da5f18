"""Egresses that do not end when they are told to: none is left to run, and nobody waits for one."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.broadcast import DeliveryPolicy, Spec, State
from service.domain.reasons import Fault
from tests.simulation.effects import Effect
from tests.simulation.lives import Life
from tests.simulation.stage import ID, Stage, play
from tests.simulation.test_two_egresses import beside_a_recording

OFF_AIR = Spec(title="A show", delivery_policy=DeliveryPolicy.MANUAL)


async def _off_air(life: Life) -> None:
    await life.set_on_air(on_air=False)


@pytest.mark.parametrize("webhooks", [False, True])
def test_an_egress_that_heard_no_stop_is_stopped_when_it_hears_again(webhooks: bool) -> None:  # noqa: FBT001 - a parameter
    """It was written off, and it is in the room still: it would run, and cost, as long as the broadcast goes on."""

    async def scene(stage: Stage) -> None:
        life = await stage.live(OFF_AIR)
        [deaf] = stage.running
        deaf.deaf_s = 150.0
        await _off_air(life)
        await stage.until(lambda: "EGRESS_WRITTEN_OFF" in stage.reasons, 60)
        assert stage.running == [deaf]
        await stage.until(lambda: not stage.running, 240)
        assert "EGRESS_STILL_RUNS" in stage.reasons
        await stage.until(lambda: "EGRESS_STOPPED" in stage.reasons, 15)
        told = [reason for reason in stage.reasons if reason.startswith("EGRESS")]
        await asyncio.sleep(600)
        assert [reason for reason in stage.reasons if reason.startswith("EGRESS")] == told

    play(scene, webhooks=webhooks)


def test_an_egress_that_never_came_into_its_room_is_stopped_when_it_hears_again() -> None:
    """It was starting when it was written off, so that no look finds it in the room shows nothing."""

    async def scene(stage: Stage) -> None:
        life = await stage.begin()

        def hold(effect: Effect) -> None:
            if effect.kind == "egress.started" and len(stage.livekit.egresses) == 1:
                held = stage.livekit.egresses[effect.id]
                held.stuck, held.deaf_s = True, 150.0

        stage.world.env.effects.watchers.append(hold)
        life.host_comes()
        await stage.until(lambda: "EGRESS_WRITTEN_OFF" in stage.reasons, 150)
        held = next(iter(stage.livekit.egresses.values()))
        assert held in stage.running
        assert held.id not in stage.livekit.recorders(ID)
        await stage.until(lambda: held not in stage.running, 240)
        assert "EGRESS_STILL_RUNS" in stage.reasons
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)

    play(scene)


def test_a_file_egress_that_heard_no_stop_is_stopped_when_it_hears_again() -> None:
    async def scene(stage: Stage) -> None:
        _, file = await beside_a_recording(stage)
        file.deaf_s = 150.0
        await stage.until(lambda: not stage.broadcast.fallback.modes, 300)
        await stage.until(lambda: "RECORDING_WRITTEN_OFF" in stage.reasons, 60)
        assert stage.recording == [file]
        await stage.until(lambda: not stage.recording, 240)
        # Its file is in the storage, and is handed over as any other.
        await stage.until(lambda: "UPLOAD_CREATED" in stage.reasons, 60)

    play(scene, storage=True)


def test_one_that_never_hears_costs_few_calls_and_few_events() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.live(OFF_AIR)
        stage.running[0].deaf_s = 100_000.0
        await _off_air(life)
        stops = stage.writes()
        await asyncio.sleep(6000)
        assert 5 <= stage.reasons.count("EGRESS_STILL_RUNS") <= 9
        assert stops.count("StopEgress") < 120
        # And it is in nobody's way.
        await life.set_on_air(on_air=True)
        took = await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert took < 40

    play(scene)


def test_a_wedged_egress_is_cut_off_and_its_successor_does_not_wait_for_its_end() -> None:
    """LiveKit says for ever that it is active, and when it is stopped it drains for 30 s."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        [wedged] = stage.running
        stage.livekit.wedge(wedged, monitored=False)
        await stage.until(lambda: "EGRESS_STOP_SENT" in stage.reasons, 150)
        dark = await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 30)
        assert dark < 20
        assert wedged.runs, "it drains still"
        await stage.until(lambda: "EGRESS_STOPPED" in stage.reasons, 40)
        assert len(stage.running) == 1

    play(scene)


def test_the_successor_of_a_ghost_does_not_wait_for_its_write_off() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.livekit.become_ghost(stage.running[0])
        await stage.until(lambda: stage.egresses[0].fault is Fault.GHOST, 60)
        dark = await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 30)
        assert dark < 15

    play(scene)
