"""The simulated LiveKit under faults of API calls and the control endpoint.

Every expectation is a fact of livekit-server, egress or protocol (public sources of August 2026), named by the section
of the provider facts.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from livekit import api

from tests.contract.livekit_stage import (
    PSRPC,
    Stage,
    composite,
    refusal,
    staged,
    until,
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


class TestFaultsOfCalls:
    async def test_an_error_has_the_shape_of_its_status(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.6 and 8.1."""
        call = stage.livekit.room.list_rooms
        seen: list[tuple[int, str, str]] = []
        for status in (429, 503, 500, 412, 502):
            stage.fault("error", "ListRooms", status=status)
            seen.append(await refusal(call(api.ListRoomsRequest())))
        assert seen == [
            (429, "resource_exhausted", PSRPC + "rate limit exceeded"),
            (503, "unavailable", PSRPC + "no response from servers"),
            (500, "internal", PSRPC + "internal error"),
            (412, "failed_precondition", "failed precondition"),
            (502, "unknown", ""),
        ]
        await call(api.ListRoomsRequest())

    async def test_a_lost_reply_has_had_its_effect(self, stage: Stage) -> None:
        stage.fault("lost_reply", "CreateRoom", match="bc-1")
        with pytest.raises(aiohttp.ClientError):
            await stage.room()
        assert stage.kinds() == ["room.created"]
        assert stage.hits("lost_reply") == 1

    async def test_a_reset_has_none(self, stage: Stage) -> None:
        stage.fault("reset", "CreateRoom")
        with pytest.raises(aiohttp.ClientError):
            await stage.room()
        assert stage.kinds() == []

    async def test_a_late_effect_comes_when_the_caller_is_gone(self, stage: Stage) -> None:
        stage.fault("late_effect", "CreateRoom", delay_s=1)
        with pytest.raises(aiohttp.ClientError):
            await stage.room()
        assert stage.kinds() == []
        await until(lambda: stage.kinds() == ["room.created"])

    async def test_a_hang_is_over_when_the_caller_leaves(self, stage: Stage) -> None:
        stage.fault("hang", "CreateRoom")
        hanging = asyncio.create_task(stage.room())
        await until(lambda: stage.hits("hang"))
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert stage.kinds() == []
        await stage.room()

    async def test_stopping_does_not_wait_for_a_hang(self) -> None:
        async with staged() as stage:
            stage.fault("hang", "CreateRoom")
            hanging = asyncio.create_task(stage.room())
            await until(lambda: stage.hits("hang"))
            async with asyncio.timeout(20):
                await stage.simulator.stop()
            with pytest.raises(aiohttp.ClientError):
                await hanging

    async def test_latency_of_one_call_and_of_all(self, stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        stage.fault("latency", "ListRooms", delay_s=0.2)
        began = loop.time()
        await stage.livekit.room.list_rooms(api.ListRoomsRequest())
        assert loop.time() - began >= 0.2
        await stage.livekit.room.list_rooms(api.ListRoomsRequest())
        assert stage.hits("latency") == 1, "the fault was for one call"
        await stage.post("/_control", latency_ms=60)
        began = loop.time()
        await stage.livekit.room.list_rooms(api.ListRoomsRequest())
        assert loop.time() - began >= 0.06

    async def test_a_fault_is_for_one_room(self, stage: Stage) -> None:
        await stage.room("bc-1")
        await stage.room("bc-2")
        stage.fault("error", "DeleteRoom", match="bc-1", status=500)
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-2"))
        assert (await refusal(stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))))[0] == 500

    async def test_a_lost_worker_takes_eighteen_to_twenty_seven_seconds(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.2."""
        await stage.room()
        stage.fault("worker_loss", "StartRoomCompositeEgress", match="bc-1")
        began = stage.simulator.clock.now()
        refused = await refusal(stage.start())
        took_s = stage.simulator.clock.now() - began
        assert refused == (503, "unavailable", PSRPC + "no response from servers")
        assert took_s >= 18
        assert "egress.started" not in stage.kinds()

    async def test_so_do_workers_that_are_all_busy(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.2."""
        await stage.post("/_control", workers=1)
        egress_id = await stage.live()
        assert (await refusal(stage.start()))[:2] == (503, "unavailable")
        await stage.stop(egress_id)
        await until(lambda: stage.simulator.effects.of("egress.ended"))
        await stage.start()

    async def test_a_worker_that_becomes_free_takes_the_request(self, stage: Stage) -> None:
        await stage.post("/_control", workers=0)
        await stage.room()
        asked = asyncio.create_task(stage.start())
        await asyncio.sleep(0.05)
        await stage.post("/_control", workers=1)
        assert (await asked).egress_id

    async def test_a_caller_who_hangs_up_ends_the_search(self, stage: Stage) -> None:
        """As livekit-server 1.13.5: 408 canceled in its log, and nothing is started later."""
        await stage.post("/_control", workers=0)
        await stage.room()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stage.start(), 0.01)
        # aiohttp tells of a caller who left within 50 ms.
        stage.simulator.clock.scale = 1
        await asyncio.sleep(0.2)
        await stage.post("/_control", workers=1, time_scale=200)
        began = stage.simulator.clock.now()
        await until(lambda: stage.simulator.clock.now() - began > 30)
        assert "egress.started" not in stage.kinds()


class TestControl:
    async def test_settings(self, stage: Stage) -> None:
        status, answer = await stage.post("/_control", time_scale=50, webhooks=False)
        assert (status, answer) == (
            200,
            {"time_scale": 50.0, "latency_ms": 0.0, "webhooks": False, "workers": -1},
        )
        assert stage.simulator.clock.scale == 50

    @pytest.mark.parametrize(
        ("path", "body", "named"),
        [
            ("/_control", {"time_scale": 0}, "time_scale"),
            ("/_control", {"latency_ms": "1"}, "latency_ms"),
            ("/_control", {"wokers": 1}, "wokers"),
            ("/_control/join", {"room": "bc-1"}, "identity"),
            ("/_control/join", {"room": "bc-1", "identity": "host", "publish": ["kamera"]}, "publish"),
            ("/_control/egress", {"egress_id": 7}, "egress_id"),
            ("/_faults", {"kind": "nonsense"}, "kind"),
            ("/_faults", {"kind": "hang", "when": 1}, "when"),
        ],
    )
    async def test_bad_input_names_the_field(self, stage: Stage, path: str, body: dict[str, Any], named: str) -> None:
        status, answer = await stage.post(path, **body)
        assert status == 400
        assert named in answer["error"]
        assert stage.kinds() == []

    async def test_faults_over_http(self, stage: Stage) -> None:
        await stage.post("/_faults", kind="error", operation="ListRooms", status=503)
        assert [fault["kind"] for fault in (await stage.get("/_faults"))["faults"]] == ["error"]
        async with stage.http.delete(stage.simulator.base_url + "/_faults") as response:
            assert (await response.json())["faults"] == []
        await stage.livekit.room.list_rooms(api.ListRoomsRequest())

    async def test_effects_after_a_number(self, stage: Stage) -> None:
        await stage.room("bc-1")
        await stage.room("bc-2")
        effects = (await stage.get("/_effects?after=1"))["effects"]
        assert [(effect["sequence"], effect["kind"], effect["id"]) for effect in effects] == [
            (2, "room.created", "bc-2")
        ]

    async def test_the_state_shows_no_stream_key(self, stage: Stage) -> None:
        url = "rtmp://live.example.com/app/key-of-the-stream"
        await stage.live(urls=(url,))
        state = await stage.get("/_state")
        assert [room["name"] for room in state["rooms"]] == ["bc-1"]
        assert state["rooms"][0]["participants"][0]["identity"] == "host"
        assert state["egresses"][0]["stream_results"][0]["url"] == "rtmp://live.example.com/app/{key...eam}"
        assert "key-of-the-stream" not in str(state) + str(await stage.get("/_effects"))

    async def test_a_fast_start_is_not_a_request_for_a_missing_room(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.2: the room is looked at before any worker."""
        await stage.post("/_control", workers=0)
        call = stage.livekit.egress.start_room_composite_egress(composite("nothing", "rtmp://a/b/c"))
        assert await refusal(call) == (404, "not_found", PSRPC + "requested room does not exist")
