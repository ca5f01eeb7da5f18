"""The last seconds of a show, at the speed at which they pass: every time here is a real second."""

from __future__ import annotations

import time
from typing import Any

from broadcast.v1.broadcast_pb2 import LATENCY_MODE_LOW, BroadcastSpec
from broadcast_client import state_name
from broadcast_sandbox.faults import Fault
from service.domain.timing import Timing
from tests.e2e.show import Show, Viewer, webhook_replica
from tests.stack import Stack, running_stack

HOLDS_S = 3.0
"""The media that an egress holds."""
REAL_TIMES: dict[str, Any] = {
    "BROADCAST_TIMING_VIEWERS_LOW_S": f"{Timing().viewers_low_s:g}",
    "BROADCAST_TIMING_DRAIN_S": f"{Timing().drain_s:g}",
    "BROADCAST_TIMING_EGRESS_STOP_S": f"{Timing().egress_stop_s:g}",
}


async def on_air(stack: Stack) -> Show:
    client = await stack.client((await webhook_replica(stack)).target)
    show = await Show.create(stack, client, BroadcastSpec(latency_mode=LATENCY_MODE_LOW))
    await show.live()
    return show


async def test_the_last_frame_is_in_the_recording_and_the_last_viewer_sees_the_end(database_url: str) -> None:
    async with running_stack(database_url, scale=1, **REAL_TIMES) as stack:
        show = await on_air(stack)
        viewer = Viewer(show)
        url = (await show.get()).status.playback.hls_url
        began = time.time()
        ended = await show.client.stop(show.id, wait=20)
        assert state_name(ended.status.state) == "ENDED"
        # About a second of clean take-down, and what the egress holds.
        assert time.time() - began < HOLDS_S + 2.5
        show.assert_order("egress.stopped", "egress.ended", "stream.disabled")
        assert show.running() == []
        [stopped] = show.effects("egress.stopped")
        [recorded] = show.effects("asset.completed")
        last_frame = recorded.time - float(recorded.detail["last_frame_s_ago"])
        assert last_frame >= stopped.time - 0.1, f"{stopped.time - last_frame:.1f} s are lost"
        [disabled] = show.effects("stream.disabled")
        statuses: list[int] = []
        while time.time() < disabled.time + Timing().viewers_low_s - 1:
            statuses.append(await end_shown(viewer, url))
            assert statuses[-1] == 200, f"{statuses[-1]} after {time.time() - disabled.time:.1f} s"
        assert len(statuses) > 20
        waiting = await show.get()
        assert waiting.status.provider_ids.mux_live_stream_id == disabled.id
        assert waiting.status.HasField("next_attempt_time")
        await show.gone()
        [deleted] = show.effects("stream.deleted")
        assert 0 <= deleted.time - disabled.time - Timing().viewers_low_s <= 3
        assert (await viewer.playlist(url))[0] == 404
        assert state_name((await show.get()).status.state) == "ENDED"


async def end_shown(viewer: Viewer, url: str) -> int:
    """The status of the playlist, which has its end mark if it is 200."""
    async with viewer._show.stack.http.get(url.replace(".m3u8", "/rendition.m3u8")) as answer:  # pyright: ignore[reportPrivateUsage]
        text = await answer.text()
    assert answer.status != 200 or "#EXT-X-ENDLIST" in text
    return answer.status


async def test_a_stop_with_a_wedged_egress_does_not_wait_for_its_end(database_url: str) -> None:
    """Nobody noticed the wedge yet: the live stream is disabled when the egress drains for too long."""
    times: dict[str, Any] = {**REAL_TIMES, "BROADCAST_TIMING_DRAIN_S": "4"}
    async with running_stack(database_url, scale=1, livekit={"drain_cap_s": 12.0}, **times) as stack:
        show = await on_air(stack)
        stack.livekit.add_fault(Fault(kind="rtmp_wedge", operation="publish"))
        await show.client.stop(show.id)
        disabled = await show.until_effect("stream.disabled")
        [stopped] = show.effects("egress.stopped")
        assert 3.5 <= disabled.time - stopped.time <= 7
        assert not show.effects("egress.ended")
        assert await show.state() == "STOPPING"
        await show.over(within=40)
