"""The normal way fails: viewers are served another way, are sent back, or are told that it is over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadcast.v1.broadcast_pb2 import (
    DELIVERY_POLICY_MANUAL,
    FALLBACK_MODE_DIRECT_WEBRTC,
    FALLBACK_MODE_LOCAL_RECORDING,
    RECORDING_ORIGIN_UPLOAD,
    RECORDING_STATE_READY,
    Broadcast,
    BroadcastSpec,
    FallbackPolicy,
    Recording,
)
from broadcast_client import state_name
from broadcast_sandbox.faults import Fault, Kind
from tests.e2e.show import TAG, Referee, Show, Viewer, webhook_replica
from tests.stack import Stack, running_stack

# Real seconds. An outage is what two looks have found that were 5 s apart.
WAITS = {
    "BROADCAST_TIMING_FALLBACK_OUTAGE_S": "6",
    "BROADCAST_TIMING_FALLBACK_RETURN_S": "2",
    "BROADCAST_TIMING_HOPELESS_S": "3",
    "BROADCAST_TIMING_REPLAN_S": "2",
    "BROADCAST_TIMING_STARTS_LIMIT": "20",
    "BROADCAST_TIMING_STARTS_BACKOFF_S": "0.5",
}
WEBRTC, RECORDING = FALLBACK_MODE_DIRECT_WEBRTC, FALLBACK_MODE_LOCAL_RECORDING
NONE = FallbackPolicy(modes=[])
WITHIN_S = 40.0


async def begun(stack: Stack, spec: BroadcastSpec | None = None, **overrides: str) -> Show:
    replica = await webhook_replica(stack, **{**WAITS, **overrides})
    return await Show.create(stack, await stack.client(replica.target), spec)


def at_livekit(show: Show, kind: Kind, operation: str = "publish", **fields: Any) -> None:
    show.stack.livekit.add_fault(Fault(kind=kind, operation=operation, match=show.id, **fields))


def modes(broadcast: Broadcast) -> list[int]:
    return list(broadcast.status.fallback.modes)


async def until_modes(show: Show, *wanted: int) -> Broadcast:
    return await show.until_so(lambda broadcast: modes(broadcast) == list(wanted), f"in {wanted}", within=WITHIN_S)


async def handle(show: Show, viewer: str = "eve") -> str | None:
    return (await show.client.playback.join(show.id, viewer)).WhichOneof("handle")


# The egress.


async def test_three_egresses_that_fail_send_viewers_into_the_room_and_back(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        referee = Referee(stack)
        at_livekit(show, "rtmp_refuse", times=3)
        await show.ready()
        assert await handle(show) == "starting"
        await stack.host_joins(show.id)
        fallen = await until_modes(show, WEBRTC, RECORDING)
        assert fallen.status.fallback.reason == "EGRESS_FAILING"
        answer = await show.client.playback.join(show.id, "eve")
        assert answer.WhichOneof("handle") == "webrtc"
        assert (answer.webrtc.livekit_url, bool(answer.webrtc.token)) == (
            stack.livekit.base_url.replace("http", "ws"),
            True,
        )
        # The fourth one holds; and the normal way has to prove itself.
        live = await show.until("LIVE", within=WITHIN_S)
        assert modes(live) == [WEBRTC, RECORDING]
        assert await handle(show) == "webrtc"
        back = await until_modes(show)
        assert state_name(back.status.state) == "LIVE"
        assert await handle(show) == "hls"
        await Viewer(show).sees_moving_pictures()
        reasons = await show.reasons()
        assert (reasons.count("FALLBACK_ENTERED"), reasons.count("FALLBACK_LEFT")) == (1, 1)
        # What was recorded meanwhile becomes a recording beside that of the live stream.
        await show.until_told("UPLOAD_CREATED")
        await show.ended()
        assert show.stack.livekit.faults.hits["rtmp_refuse"] == 3
        referee.check()


async def test_two_that_fail_are_replaced_and_nobody_is_moved(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        at_livekit(show, "rtmp_refuse", times=2)
        await show.live()
        assert "FALLBACK_ENTERED" not in await show.reasons()
        await show.ended()


async def test_stops_that_callers_ask_for_are_no_failures(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
        await show.client.set_on_air(show.id, True)
        await show.live()
        for _ in range(4):
            stopped = show.count("egress.ended")
            await show.client.set_on_air(show.id, False)
            await show.until_effect("egress.ended", stopped + 1)
            await show.client.set_on_air(show.id, True)
            await show.until("LIVE")
        assert "FALLBACK_ENTERED" not in await show.reasons()
        await show.ended()


async def test_off_air_leaves_the_room(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
        await show.client.set_on_air(show.id, True)
        at_livekit(show, "rtmp_refuse", times=-1)
        await show.ready()
        await stack.host_joins(show.id)
        await until_modes(show, WEBRTC, RECORDING)
        await show.client.set_on_air(show.id, False)
        await until_modes(show)
        assert await handle(show) == "starting"
        await show.ended()


@pytest.mark.parametrize("policy", [NONE, FallbackPolicy(modes=[RECORDING])], ids=["none allowed", "none possible"])
async def test_with_nothing_left_it_fails_and_says_why(database_url: str, policy: FallbackPolicy) -> None:
    async with running_stack(database_url) as stack:
        if policy.modes:
            for name in [name for name in stack.environment if name.startswith("BROADCAST_S3_")]:
                del stack.environment[name]
        show = await begun(stack, BroadcastSpec(fallback_policy=policy))
        at_livekit(show, "rtmp_refuse", times=-1)
        await show.ready()
        await stack.host_joins(show.id)
        over = await show.over("FAILED", within=WITHIN_S)
        assert over.status.state_reason == "EGRESS_FAILED"
        assert "FALLBACK_ENTERED" not in await show.reasons()
        assert await handle(show) == "ended"


# Mux.


async def test_an_outage_of_mux_is_recorded_and_uploaded_and_moves_nobody(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        await show.live()
        viewer = Viewer(show)
        await stack.mux.frontend.begin("error")
        told = await show.until_so(
            lambda broadcast: broadcast.status.state_reason == "MUX_UNREACHABLE", "unconfirmed", within=WITHIN_S
        )
        assert state_name(told.status.state) == "LIVE"
        ingest = {each.reason for each in told.status.conditions}
        assert "MUX_UNREACHABLE" in ingest
        fallen = await until_modes(show, RECORDING)
        assert fallen.status.fallback.reason == "MUX_UNREACHABLE"
        assert await handle(show) == "hls", "the media flow"
        await show.until_effect("egress.active", 2)
        await stack.mux.frontend.end()
        await viewer.sees_moving_pictures()
        await until_modes(show)
        done = await show.until_so(ready_upload, "an upload that can be played", within=WITHIN_S)
        [upload] = uploads(done)
        assert upload.playback_id
        [file] = stack.storage.objects
        assert file == f"recordings/test/{show.id}/0.mp4"
        assert state_name(done.status.state) == "LIVE"
        assert show.count("egress.started") == 2, "one for the live stream, one for the file"
        await show.ended()


async def test_mux_that_comes_back_after_the_end_gets_the_file_all_the_same(database_url: str) -> None:
    """Nothing runs any more, nobody watches the providers, and the row is all that knows of the file."""
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        await show.live()
        await stack.mux.frontend.begin("error")
        await until_modes(show, RECORDING)
        await show.until_effect("egress.active", 2)
        await show.client.stop(show.id)
        await show.until_told("RECORDING_WRITTEN")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        done = await show.until_so(ready_upload, "an upload that can be played", within=WITHIN_S)
        assert state_name(done.status.state) == "ENDED"
        [created] = stack.mux.effects.of("upload.created")
        assert created.detail["passthrough"] == f"{TAG}{show.id}:upload-0-0"
        assert await handle(show) == "recording"


async def test_an_outage_with_nothing_to_see_sends_viewers_into_the_room(database_url: str) -> None:
    # Webhooks would tell that it is taken.
    async with running_stack(database_url, webhooks=False) as stack:
        show = await begun(stack)
        await show.ready()
        await stack.mux.frontend.begin("error")
        await stack.host_joins(show.id)
        fallen = await until_modes(show, WEBRTC, RECORDING)
        assert fallen.status.fallback.reason == "MUX_UNREACHABLE"
        assert state_name(fallen.status.state) == "INTERRUPTED"
        assert await handle(show) == "webrtc"
        await stack.mux.frontend.end()
        await until_modes(show)
        assert await handle(show) == "hls"
        await show.ended()


async def test_an_outage_with_no_mode_left_ends_what_nobody_sees(database_url: str) -> None:
    async with running_stack(database_url, webhooks=False) as stack:
        show = await begun(stack, BroadcastSpec(fallback_policy=NONE), BROADCAST_TIMING_FALLBACK_OUTAGE_S="1")
        await show.ready()
        await stack.mux.frontend.begin("error")
        await stack.host_joins(show.id)
        stopping = await show.until("STOPPING", "FAILED", within=WITHIN_S)
        assert stopping.status.state_reason == "MUX_UNREACHABLE"
        # The live stream cannot be taken down, and FAILED promises that it is.
        await asyncio.wait_for(show.until_effect("egress.ended"), WITHIN_S)
        assert await show.state() == "STOPPING"
        await stack.mux.frontend.end()
        over = await show.over("FAILED", within=WITHIN_S)
        assert over.status.state_reason == "MUX_UNREACHABLE"


async def test_a_mux_that_is_back_has_to_stay(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack, BROADCAST_TIMING_FALLBACK_RETURN_S="4")
        await show.live()
        await stack.mux.frontend.begin("error")
        await until_modes(show, RECORDING)
        await stack.mux.frontend.end()
        await show.until_so(lambda broadcast: not broadcast.status.state_reason, "confirmed again")
        await stack.mux.frontend.begin("error")
        again = await show.until_so(lambda broadcast: bool(broadcast.status.state_reason), "away again")
        assert modes(again) == [RECORDING]
        await stack.mux.frontend.end()
        await until_modes(show)
        reasons = await show.reasons()
        assert (reasons.count("FALLBACK_ENTERED"), reasons.count("FALLBACK_LEFT")) == (1, 1)
        assert reasons.count("RECORDING_STARTED") == 1
        await show.ended()


def uploads(broadcast: Broadcast) -> list[Recording]:
    return [each for each in broadcast.status.recordings if each.origin == RECORDING_ORIGIN_UPLOAD]


def ready_upload(broadcast: Broadcast) -> bool:
    return any(each.state == RECORDING_STATE_READY for each in uploads(broadcast))
