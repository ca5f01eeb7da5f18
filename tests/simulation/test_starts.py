"""Which starts count, and whose turn it is where there is one slot."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from service.domain.broadcast import DeliveryPolicy, Spec, State
from service.domain.errors import Outcome
from service.domain.ports import EgressSeen, EgressWanted
from service.domain.reasons import Operation
from tests.simulation.providers.egresses import failure
from tests.simulation.stage import Stage, play


def test_going_on_and_off_air_six_times_in_ten_minutes_is_done_at_once_each_time() -> None:
    """Only starts that fail count against their limit: these were stopped because the caller wanted so."""

    async def scene(stage: Stage) -> None:
        life = await stage.live(Spec(title="A show", delivery_policy=DeliveryPolicy.MANUAL))
        for _ in range(10):
            await life.set_on_air(on_air=False)
            await stage.until(lambda: not stage.running, 40)
            await life.set_on_air(on_air=True)
            took = await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 30)
            assert took < 25
        assert not any(egress.fault for egress in stage.egresses)
        assert stage.now < 600

    play(scene)


def test_somebody_who_never_stops_going_on_and_off_air_is_stopped() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.live(Spec(title="A show", delivery_policy=DeliveryPolicy.MANUAL))
        began = stage.now
        while stage.now - began < 500:
            for on_air in (False, True):
                await life.set_on_air(on_air=on_air)
                await asyncio.sleep(4)
        assert len(stage.egresses) <= 31

    play(scene)


@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.UNAVAILABLE])
def test_a_recording_of_ours_gives_its_slot_to_delivery(outcome: Outcome) -> None:
    """Starts are refused until the fallback is on; then there is one slot, and the recording of the fallback has it."""

    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        livekit, start = stage.livekit, stage.livekit.start

        def if_there_is_a_slot(wanted: EgressWanted) -> EgressSeen:
            busy = any(egress.runs for egress in livekit.egresses.values())
            if busy or not stage.recordings:
                raise failure(Operation.START_EGRESS, outcome, outcome)
            return start(wanted)

        livekit.start = if_there_is_a_slot
        life.host_comes()
        await stage.until(lambda: bool(stage.recording), 1000)
        took = await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 180)
        assert took < 100
        assert stage.recordings[0].end_seen
        # What was recorded until then is handed over.
        await stage.until(lambda: "UPLOAD_CREATED" in stage.reasons, 60)

    play(scene, storage=True)


def test_a_recording_gives_way_once_where_others_hold_the_slots() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.begin()

        def full(wanted: EgressWanted) -> EgressSeen:
            del wanted
            raise failure(Operation.START_EGRESS, Outcome.THROTTLED, "resource_exhausted")

        slots = patch.object(stage.livekit, "start", full)
        slots.start()
        life.host_comes()
        await stage.until(lambda: bool(stage.recording), 1000)
        await asyncio.sleep(500)
        assert stage.recording
        assert len(stage.recordings) == 2
        slots.stop()
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 120)

    play(scene, storage=True)
