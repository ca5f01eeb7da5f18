"""A store that lost its data, as a Redis without persistence that is restarted, while the server and its rooms live on.

Measured with livekit-server 1.13.5: CreateRoom answers with the room in memory, lists are empty, StartEgress and
DeleteRoom are 404, and host and recorder go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from livekit import api

from tests.contract.livekit_stage import PSRPC, Stage, refusal, staged
from tests.waiting import eventually


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def forgotten(stage: Stage) -> tuple[str, str]:
    """The sid of a room with a host in it, and the id of the egress that records it; the store knows neither."""
    egress_id = await stage.live()
    # The last change of the counts is written.
    await eventually(lambda: recounted(stage))
    sid = (await stage.room()).sid
    status, answer = await stage.post("/_control/forget")
    assert (status, answer) == (200, {"rooms": 1, "egresses": 1})
    return sid, egress_id


async def recounted(stage: Stage) -> bool:
    return bool((await stage.get("/_state"))["rooms"][0].get("active_recording"))


async def listed(stage: Stage) -> list[str]:
    return [room.name for room in (await stage.livekit.room.list_rooms(api.ListRoomsRequest())).rooms]


async def people(stage: Stage) -> list[str]:
    answer = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))
    return [person.identity for person in answer.participants]


async def test_only_a_create_shows_the_room(stage: Stage) -> None:
    sid, egress_id = await forgotten(stage)
    assert (await listed(stage), await people(stage)) == ([], [])
    assert not (await stage.livekit.egress.list_egress(api.ListEgressRequest(room_name="bc-1"))).items
    room = await stage.room()
    assert (room.sid, room.num_participants) == (sid, 1)
    missing = (404, "not_found", f"{PSRPC}requested room does not exist")
    assert await refusal(stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))) == missing
    assert await refusal(stage.start()) == missing
    assert (await refusal(stage.egress(egress_id)))[:2] == (404, "not_found")
    assert await listed(stage) == []


async def test_host_and_egress_go_on(stage: Stage) -> None:
    _, egress_id = await forgotten(stage)
    state = await stage.get("/_state")
    assert {each["identity"] for each in state["rooms"][0]["participants"]} == {"host", egress_id}
    assert not {"participant.left", "egress.ended", "room.deleted"} & set(stage.kinds())


async def test_a_stop_reaches_the_worker_which_writes_the_record_again(stage: Stage) -> None:
    _, egress_id = await forgotten(stage)
    await stage.stop(egress_id)
    await stage.ended(egress_id)
    assert (await stage.egress(egress_id)).status == api.EgressStatus.EGRESS_COMPLETE


async def test_a_participant_that_comes_brings_the_room_back(stage: Stage) -> None:
    """The server writes a room when its counts change, and each participant when it changes."""
    await forgotten(stage)
    await stage.host("bc-1", identity="second")
    assert await people(stage) == ["second"]
    await eventually(lambda: listed(stage))
    assert await listed(stage) == ["bc-1"]
    await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
    assert stage.simulator.effects.of("room.deleted")
