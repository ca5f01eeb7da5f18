"""What became of what was recorded: told until it is known, after the end too."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from broadcast.v1.broadcast_pb2 import (
    RECORDING_ORIGIN_LIVE_STREAM,
    RECORDING_ORIGIN_UPLOAD,
    RECORDING_POLICY_DISCARD,
    RECORDING_STATE_ERRORED,
    RECORDING_STATE_PREPARING,
    RECORDING_STATE_READY,
    Broadcast,
    BroadcastSpec,
    Recording,
)
from broadcast_client import state_name
from broadcast_sandbox.faults import Fault
from tests.e2e.show import TAG, Show, webhook_replica
from tests.stack import MUX_SECRET, Stack, running_stack
from tests.waiting import eventually

WITHIN_S = 40.0
WAITS = {"BROADCAST_TIMING_FALLBACK_OUTAGE_S": "5.5", "BROADCAST_TIMING_REPLAN_S": "2"}


async def begun(stack: Stack, spec: BroadcastSpec | None = None, **overrides: str) -> Show:
    replica = await webhook_replica(stack, **{**WAITS, **overrides})
    return await Show.create(stack, await stack.client(replica.target), spec)


def settled(broadcast: Broadcast) -> bool:
    recordings = broadcast.status.recordings
    return bool(recordings) and all(each.state != RECORDING_STATE_PREPARING for each in recordings)


async def until_settled(show: Show) -> list[Recording]:
    broadcast = await show.until_so(settled, "recordings that are settled", within=WITHIN_S)
    return list(broadcast.status.recordings)


async def at_mux(stack: Stack, verb: str, path: str) -> int:
    """Somebody else at Mux's API."""
    headers = {"Authorization": aiohttp.encode_basic_auth("token", MUX_SECRET)}
    async with stack.http.request(verb, f"{stack.mux.base_url}/video/v1/{path}", headers=headers) as answer:
        return answer.status


async def rests(show: Show) -> None:
    """Nothing is waited for any more."""

    async def at_rest() -> bool:
        broadcast = await show.get()
        assert not broadcast.status.HasField("next_attempt_time"), broadcast.status
        return True

    await eventually(at_rest)


@pytest.mark.parametrize("webhooks", [True, False])
async def test_a_recording_is_waited_for_after_the_end(database_url: str, webhooks: bool) -> None:  # noqa: FBT001
    async with running_stack(database_url, webhooks=webhooks) as stack:
        show = await begun(stack)
        live = await show.live()
        over = await show.ended()
        ready = await until_settled(show)
        [recording] = ready
        assert recording.mux_asset_id == live.status.provider_ids.mux_asset_id
        assert (recording.state, recording.origin) == (RECORDING_STATE_READY, RECORDING_ORIGIN_LIVE_STREAM)
        assert recording.playback_id
        assert recording.duration.ToSeconds() > 0
        now = await show.get()
        assert (state_name(now.status.state), now.status.end_time) == ("ENDED", over.status.end_time)
        answer = await show.client.playback.join(show.id, "eve")
        assert [each.playback_id for each in answer.recording.recordings] == [recording.playback_id]
        assert "RECORDING_READY" in await show.reasons() or over.status.recordings == [recording]
        await rests(show)


async def test_a_recording_that_was_discarded_is_not_waited_for(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack, BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD))
        live = await show.live()
        over = await show.ended()
        assert not over.status.recordings
        assert await at_mux(stack, "GET", f"assets/{live.status.provider_ids.mux_asset_id}") == 404
        await rests(show)


@pytest.mark.parametrize("discard", [False, True])
async def test_what_a_stream_recorded_is_known_although_somebody_deleted_it(
    database_url: str,
    discard: bool,  # noqa: FBT001
) -> None:
    async with running_stack(database_url) as stack:
        spec = BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD) if discard else None
        show = await begun(stack, spec)
        live = await show.live()
        ids = live.status.provider_ids
        assert await at_mux(stack, "DELETE", f"live-streams/{ids.mux_live_stream_id}") == 204
        failed = await show.over("FAILED")
        assert failed.status.state_reason == "STREAM_LOST"
        if not discard:
            recordings = await until_settled(show)
            assert [each.mux_asset_id for each in recordings] == [ids.mux_asset_id]
        await rests(show)
        assert await at_mux(stack, "GET", f"assets/{ids.mux_asset_id}") == (404 if discard else 200)


async def recorded_locally(show: Show, stack: Stack) -> None:
    await show.live()
    await stack.mux.frontend.begin("error")
    await show.until_so(lambda broadcast: bool(broadcast.status.fallback.modes), "in a fallback", within=WITHIN_S)
    # What is stopped before it is active makes no file.
    await show.until_effect("egress.active", 2)


def uploads(recordings: list[Recording]) -> list[Recording]:
    return [each for each in recordings if each.origin == RECORDING_ORIGIN_UPLOAD]


@pytest.mark.parametrize("fault", ["lost_reply", "late_effect", "error"])
async def test_a_file_is_uploaded_once_whatever_becomes_of_the_answer(database_url: str, fault: Any) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        await recorded_locally(show, stack)
        stack.mux.add_fault(Fault(kind=fault, operation="create_asset", delay_s=0.5, status=429))
        await show.client.stop(show.id)
        await show.until_told("RECORDING_WRITTEN")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        ready = await show.until_so(
            lambda broadcast: bool(uploads(list(broadcast.status.recordings))) and settled(broadcast),
            "an upload that is settled",
            within=WITHIN_S,
        )
        [upload] = uploads(list(ready.status.recordings))
        assert (upload.state, bool(upload.playback_id)) == (RECORDING_STATE_READY, True)
        assert stack.mux.faults.hits[fault] == 1
        assert [each.detail["passthrough"] for each in stack.mux.effects.of("upload.created")] == [
            # What was refused for now made nothing, and the next has a mark of its own all the same.
            f"{TAG}{show.id}:upload-0-{int(fault == 'error')}"
        ]
        await rests(show)


async def assets_there(stack: Stack) -> list[bool]:
    """Of every upload, in their order: whether it is still at Mux."""
    made = [each.id for each in stack.mux.effects.of("upload.created")]
    return [await at_mux(stack, "GET", f"assets/{asset_id}") == 200 for asset_id in made]


@pytest.mark.parametrize("webhooks", [True, False])
async def test_a_file_that_mux_could_not_fetch_is_handed_over_again(database_url: str, webhooks: bool) -> None:  # noqa: FBT001
    async with running_stack(database_url, webhooks=webhooks) as stack:
        show = await begun(stack, BROADCAST_TIMING_UPLOAD_RETRY_S="0.2")
        stack.storage.add_fault(Fault(kind="error", operation="GetObject", status=503, times=2))
        await recorded_locally(show, stack)
        await show.client.stop(show.id)
        await show.until_told("RECORDING_WRITTEN")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        broadcast = await show.until_so(
            lambda broadcast: bool(uploads(list(broadcast.status.recordings))) and settled(broadcast),
            "an upload that is settled",
            within=WITHIN_S,
        )
        [upload] = uploads(list(broadcast.status.recordings))
        assert (upload.state, bool(upload.playback_id)) == (RECORDING_STATE_READY, True)
        assert (await show.reasons()).count("UPLOAD_ERRORED") == 2
        assert [each.detail["passthrough"] for each in stack.mux.effects.of("upload.created")] == [
            f"{TAG}{show.id}:upload-0-{attempt}" for attempt in range(3)
        ]
        assert await assets_there(stack) == [False, False, True]
        await rests(show)


async def test_a_file_that_mux_cannot_use_is_told_and_stays_in_the_storage(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack, BROADCAST_TIMING_UPLOAD_RETRY_S="0.2")
        stack.mux.add_fault(Fault(kind="upload_fail", operation="upload", times=-1))
        await recorded_locally(show, stack)
        await show.client.stop(show.id)
        await show.until_told("RECORDING_WRITTEN")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        broadcast = await show.until_so(
            lambda broadcast: bool(uploads(list(broadcast.status.recordings))) and settled(broadcast),
            "an upload that is settled",
            within=WITHIN_S,
        )
        [upload] = uploads(list(broadcast.status.recordings))
        assert (upload.state, upload.message) == (RECORDING_STATE_ERRORED, "The input could not be processed")
        assert await assets_there(stack) == [False, False, True]
        assert (await show.reasons()).count("RECORDING_ERRORED") == 1
        assert list(stack.storage.objects) == [f"recordings/test/{show.id}/0.mp4"]
        assert state_name(broadcast.status.state) == "ENDED"
        await rests(show)


async def test_a_storage_that_refuses_the_file_costs_nothing_but_the_file(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        show = await begun(stack)
        stack.storage.add_fault(Fault(kind="error", operation="PutObject", status=403, times=-1))
        await recorded_locally(show, stack)
        await show.client.stop(show.id)
        await show.until_told("RECORDING_FAILED")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        recordings = await until_settled(show)
        assert [each.origin for each in recordings] == [RECORDING_ORIGIN_LIVE_STREAM]
        assert not stack.mux.effects.of("upload.created")
        await rests(show)


async def test_an_upload_that_somebody_deletes_is_told_as_lost(database_url: str) -> None:
    """Mux takes its time to prepare it."""
    async with running_stack(database_url, mux={"upload_s": 4000.0}) as stack:
        show = await begun(stack)
        await recorded_locally(show, stack)
        await show.client.stop(show.id)
        await show.until_told("RECORDING_WRITTEN")
        await stack.mux.frontend.end()
        await show.over(within=WITHIN_S)
        broadcast = await show.until_so(
            lambda broadcast: bool(uploads(list(broadcast.status.recordings))), "an upload", within=WITHIN_S
        )
        [upload] = uploads(list(broadcast.status.recordings))
        assert upload.state == RECORDING_STATE_PREPARING
        assert broadcast.status.HasField("next_attempt_time"), "it is looked at again"
        assert await at_mux(stack, "DELETE", f"assets/{upload.mux_asset_id}") == 204
        [upload] = uploads(await until_settled(show))
        assert (upload.state, bool(upload.message)) == (RECORDING_STATE_ERRORED, True)
        assert "RECORDING_ERRORED" in await show.reasons()
        assert await show.state() == "ENDED"
        await rests(show)
