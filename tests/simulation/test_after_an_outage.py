"""What was refused in an outage is tried again when the outage is over, and when a person asks for it."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from service.domain.broadcast import State
from service.domain.errors import Outcome
from service.domain.reasons import Operation
from tests.simulation.providers.egresses import failure
from tests.simulation.providers.network import Outage
from tests.simulation.stage import ID, Stage, play


def test_the_end_of_an_outage_ends_the_back_off() -> None:
    """LiveKit is away for 80 s: the back-off of the room is half a minute by then."""

    async def scene(stage: Stage) -> None:
        life = stage.prepare(replicas=2)
        await asyncio.sleep(15)
        ends = stage.now + 80
        stage.shared.at_livekit.outage = Outage(until=ends, mode="refused")
        await life.create()
        await life.start()
        await stage.until(lambda: stage.now >= ends, 81)
        # One round of the observer, and a pass.
        await stage.until(lambda: stage.broadcast.state is State.READY, 13)

    for seed in range(1, 6):
        play(scene, seed=seed)


def test_a_person_who_wakes_it_ends_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service cannot know that what a person mended is mended: the lists were answered all the time."""

    async def scene(stage: Stage) -> None:
        def refused(*_: object) -> NoReturn:
            raise failure(Operation.CREATE_ROOM, Outcome.UNAVAILABLE, "unavailable")

        create = stage.livekit.create_room
        life = stage.prepare(replicas=2)
        monkeypatch.setattr(stage.livekit, "create_room", refused)
        await life.create()
        await life.start()
        await asyncio.sleep(70)
        monkeypatch.setattr(stage.livekit, "create_room", create)
        await stage.world.replicas[0].leases.wake([ID])
        await asyncio.sleep(2)
        assert stage.broadcast.state is State.STARTING
        await stage.world.replicas[0].leases.wake([ID], retry=True)
        await stage.until(lambda: stage.broadcast.state is State.READY, 3)

    play(scene)
