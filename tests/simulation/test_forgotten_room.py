"""A store of LiveKit that lost its data, while the server, its rooms and its egresses go on.

Measured with livekit-server 1.13.5 and a Redis without persistence: lists are empty, StartEgress and DeleteRoom answer
that there is no such room, and CreateRoom answers with the room that is there.
"""

from __future__ import annotations

import asyncio

import pytest

from service.domain.broadcast import Condition, ConditionType, State
from service.domain.reasons import ConditionReason
from service.domain.resources import Phase, Room
from tests.simulation.stage import HOST, ID, Stage, play


def rooms(stage: Stage) -> list[Room]:
    return [each for each in stage.row.sorted_resources() if isinstance(each, Room)]


def condition(stage: Stage, type_: ConditionType) -> Condition:
    return next(each for each in stage.broadcast.status.conditions if each.type is type_)


def empty(stage: Stage) -> None:
    """Nothing of the room is told to the store when everybody leaves: the worst that may be."""
    room = stage.livekit.rooms[ID]
    room.hosts.clear()
    room.silent.clear()


@pytest.mark.parametrize("webhooks", [False, True])
def test_a_broadcast_is_not_over_while_its_room_goes_on(webhooks: bool) -> None:  # noqa: FBT001
    """A room that no delete finds and every create answers with is there. ENDED was told after a second."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.livekit.forget()
        await stage.stop()
        await asyncio.sleep(120)
        assert ID in stage.livekit.rooms
        assert stage.broadcast.state is State.STOPPING
        ready = condition(stage, ConditionType.ROOM_READY)
        assert (ready.met, ready.reason) == (None, ConditionReason.FORGOTTEN)
        trouble = stage.broadcast.status.last_error
        assert trouble is not None
        assert (trouble.operation, trouble.code) == ("DeleteRoom", "forgotten_room")
        assert stage.reasons.count("ROOM_FORGOTTEN") == 1
        assert stage.reasons.count("CALL_FAILED") <= 1
        [room] = rooms(stage)
        assert room.failures < 15, "it is asked for with a back-off"
        empty(stage)
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 150)
        assert "ROOM_DESERTED" in stage.reasons

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("webhooks", [False, True])
def test_a_room_that_the_store_knows_again_is_deleted(webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.livekit.forget()
        await stage.stop()
        await asyncio.sleep(60)
        stage.livekit.leave(ID, HOST)
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 75)
        assert ID not in stage.livekit.rooms
        assert "ROOM_DELETED" in stage.reasons

    play(scene, webhooks=webhooks)


def test_a_room_that_closed_before_its_delete_leaves_none_behind() -> None:
    """The create that asks for it makes another one, which is deleted."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.livekit.rooms[ID].departure_s = 0.1
        await stage.stop()
        stage.livekit.leave(ID, HOST)
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 60)
        assert not stage.livekit.rooms

    play(scene)


@pytest.mark.parametrize("webhooks", [False, True])
def test_a_room_without_an_egress_is_not_lost_and_made_again_and_again(webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        stage.livekit.forget()
        await asyncio.sleep(300)
        assert stage.reasons.count("ROOM_LOST") <= 1
        assert stage.reasons.count("ROOM_CREATED") == 1
        assert stage.reasons.count("ROOM_FORGOTTEN") == 1
        sids = [each.sid for each in rooms(stage) if each.phase is Phase.PRESENT]
        assert sids == [stage.livekit.rooms[ID].sid]
        assert condition(stage, ConditionType.ROOM_READY).reason == ConditionReason.FORGOTTEN
        assert condition(stage, ConditionType.HOST_PUBLISHING).met is None
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)
        assert condition(stage, ConditionType.ROOM_READY).reason == ConditionReason.PRESENT

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("webhooks", [False, True])
def test_a_start_that_finds_no_room_is_no_new_room(webhooks: bool) -> None:  # noqa: FBT001
    """The host came before the store lost its data, the egress after."""

    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        life.host_comes()
        stage.livekit.forget()
        await asyncio.sleep(120)
        assert stage.reasons.count("ROOM_CREATED") == 1
        assert stage.reasons.count("ROOM_FORGOTTEN") == 1
        assert stage.broadcast.state is State.READY
        assert len(stage.egresses) <= 2

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("webhooks", [False, True])
def test_a_forgotten_room_that_closes_is_made_again(webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.begin()
        stage.livekit.forget()
        await asyncio.sleep(60)
        before = stage.livekit.rooms[ID].sid
        stage.livekit.delete_room(ID, "restart")
        await stage.until(lambda: stage.reasons.count("ROOM_CREATED") == 2, 30)
        room = rooms(stage)[-1]
        assert (room.phase, room.forgotten_at) == (Phase.PRESENT, None)
        assert room.sid == stage.livekit.rooms[ID].sid != before

    play(scene, webhooks=webhooks)


def test_viewers_of_a_live_show_notice_nothing() -> None:
    """Media arrive, so room and egress are there, whatever the store says."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        writes = stage.writes()
        stage.livekit.forget()
        stage.world.tables.wake([ID])
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, 300)
        assert (stage.running, writes) == ([running], [])

    play(scene)
