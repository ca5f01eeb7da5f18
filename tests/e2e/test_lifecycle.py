"""Whole broadcasts, judged by what the simulators did."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from broadcast.v1.broadcast_pb2 import (
    CONDITION_TYPE_HOST_PUBLISHING,
    DELIVERY_POLICY_MANUAL,
    DESTINATION_CARRIER_MUX,
    DESTINATION_STATE_ACTIVE,
    DESTINATION_STATE_FAILED,
    DESTINATION_STATE_IDLE,
    RECORDING_POLICY_DISCARD,
    RECORDING_POLICY_KEEP,
    Broadcast,
    BroadcastSpec,
    Destination,
)
from broadcast_client import InvalidField, state_name
from broadcast_sandbox.faults import Fault
from tests.e2e.show import Referee, Show, Viewer, in_background, watching, webhook_replica
from tests.stack import running_stack
from tests.waiting import eventually

OTHER = "rtmps://93.184.215.14:443/app"
TAKE_DOWN = ("egress.stopped", "egress.ended", "stream.disabled", "stream.deleted")


@pytest.mark.parametrize("how", ["webhooks", "no webhooks", "no notifications", "two replicas"])
async def test_a_broadcast_from_its_creation_to_its_end(database_url: str, how: str) -> None:
    async with running_stack(database_url, webhooks=how != "no webhooks") as stack:
        overrides = {"DATABASE_LISTEN": "false"} if how == "no notifications" else {}
        replica = await webhook_replica(stack, **overrides)
        other = await stack.replica(**overrides) if how == "two replicas" else replica
        client, second = await stack.client(replica.target), await stack.client(other.target)
        referee = Referee(stack)
        show = await Show.create(stack, client)
        assert show.effects() == []
        viewer = Viewer(show)
        async with watching(second, show.id) as watched, in_background(viewer.watch):
            ready = await show.ready()
            url = ready.status.playback.hls_url
            assert (await viewer.playlist(url))[0] == 412
            access = await second.issue_host_access(show.id, "ann")
            await stack.control("join", token=access.token, publish=["camera", "microphone"])
            live = await show.until("LIVE")
            assert live.status.playback.hls_url == url
            assert all(condition.met for condition in live.status.conditions)
            await viewer.sees_moving_pictures()
            egress = show.effects("egress.started")[0]
            assert live.status.provider_ids.livekit_egress_id == egress.id
            stopped = await second.stop(show.id, wait=20)
            assert state_name(stopped.status.state) == "ENDED"
            assert show.running() == []
            await eventually(lambda: watched.states[-1] == "ENDED")
            await show.gone()
        assert watched.states == ["CREATED", "STARTING", "READY", "LIVE", "STOPPING", "ENDED"]
        assert watched.revisions == sorted(set(watched.revisions))
        assert stopped.status.state_reason == "STOPPED"
        assert not stopped.status.HasField("playback")
        show.assert_once()
        show.assert_order(*TAKE_DOWN)
        assert viewer.live_samples > 0
        assert not viewer.wrong
        late = [each.kind for each in show.effects() if each.time > stopped.status.end_time.ToNanoseconds() / 1e9]
        assert late == ["stream.deleted"], "something else happened after the end"
        referee.check()

        async def at_rest() -> bool:
            ended = await show.get()
            assert not ended.status.reconciling
            return not ended.status.HasField("next_attempt_time")

        await eventually(at_rest)
        await client.delete(show.id)


async def test_a_manual_broadcast_is_delivered_only_while_on_air(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        referee = Referee(stack)
        show = await Show.create(stack, client, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
        await show.ready()
        await stack.host_joins(show.id)
        await show.until_told("HOST_PUBLISHING")
        assert await show.state() == "READY"
        assert show.count("egress.started") == 0
        await client.set_on_air(show.id, True)
        await show.until("LIVE")
        first = show.effects("egress.started")[0].id
        await client.set_on_air(show.id, False)
        assert (await show.until_effect("egress.ended")).id == first
        off_air = await show.until("INTERRUPTED")
        assert not off_air.status.on_air
        await client.set_on_air(show.id, True)
        await show.until("LIVE")
        assert show.count("egress.started") == 2
        await show.ended()
        assert show.count("stream.created") == show.count("room.created") == 1
        referee.check()


async def test_layout_and_destinations_change_on_air(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        referee = Referee(stack)
        stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match="{bad", times=-1))
        spec = BroadcastSpec(destinations=[Destination(name="first", url=OTHER, stream_key="fst-0123456789")])
        show = await Show.create(stack, client, spec)
        viewer = Viewer(show)
        await show.live()
        await show.until_destination("first", DESTINATION_STATE_ACTIVE)
        async with in_background(viewer.watch):
            # Nothing that a provider would have to be told.
            await client.update(show.id, mask=["spec.title"], spec=BroadcastSpec(title="Another show"))
            assert (await show.settled()).spec.title == "Another show"

            spec.layout = "speaker"
            await client.update(show.id, mask=["spec.layout"], spec=spec)
            await show.until_effect("egress.layout")
            assert show.effects("egress.layout")[0].detail["layout"] == "speaker"

            spec.destinations.append(Destination(name="second", url=OTHER, stream_key="sec-0123456789"))
            spec.destinations.append(Destination(name="refused", url=OTHER, stream_key="bad-0123456789"))
            await client.update(show.id, mask=["spec.destinations"], spec=spec)
            await show.until_destination("second", DESTINATION_STATE_ACTIVE)
            failed = await show.until_destination("refused", DESTINATION_STATE_FAILED)
            assert next(each for each in failed.status.destinations if each.name == "refused").message
            await show.until_destination("first", DESTINATION_STATE_ACTIVE)
            assert await show.state() == "LIVE"

            del spec.destinations[0]
            await client.update(show.id, mask=["spec.destinations"], spec=spec)
            removed = await eventually(lambda: stack.livekit.effects.of("destination.disconnected"))
            assert [each.id for each in removed] == [f"{OTHER}/{{fst...789}}"]
            left = await show.settled()
            assert {each.name for each in left.status.destinations} == {"second", "refused"}

            # LiveKit has forgotten the one that failed, and answers its removal with "not found".
            del spec.destinations[1]
            await client.update(show.id, mask=["spec.destinations"], spec=spec)
            left = await show.settled()
            assert [each.name for each in left.status.destinations] == ["second"]
            assert not left.status.HasField("last_error")
        assert not viewer.wrong
        assert viewer.live_samples > 0
        connected = [each.id for each in stack.livekit.effects.of("destination.connected")]
        assert sorted(connected) == [f"{OTHER}/{{fst...789}}", f"{OTHER}/{{sec...789}}"], "each once"
        assert "INTERRUPTED" not in await show.reasons()
        await show.ended()
        show.assert_once()
        referee.check()


async def test_destinations_whose_keys_look_alike_are_refused(database_url: str) -> None:
    """LiveKit shows three characters at both ends of a key: the wrong one of the two could be told to have failed."""
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        keys = ("live_1111_xyz", "live_2222_xyz")
        alike = [Destination(name=f"place-{n}", url=OTHER, stream_key=key) for n, key in enumerate(keys)]
        with pytest.raises(InvalidField, match=r"destinations\[1\].stream_key"):
            await Show.create(stack, client, BroadcastSpec(destinations=alike))
        show = await Show.create(stack, client, BroadcastSpec(destinations=alike[:1]))
        await show.live()
        await show.until_destination("place-0", DESTINATION_STATE_ACTIVE)
        with pytest.raises(InvalidField, match=r"destinations\[1\].stream_key"):
            await client.update(show.id, mask=["spec.destinations"], spec=BroadcastSpec(destinations=alike))
        assert await show.state() == "LIVE"
        assert show.count("egress.urls_added") == 0


async def test_destinations_by_mux_are_made_with_the_live_stream(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        stack.mux.faults.add(Fault(kind="rtmp_refuse", operation="simulcast", match="/refused"))
        spec = BroadcastSpec(
            destinations=[
                Destination(name=name, url=f"{OTHER}/{name}", stream_key=f"{name}-key", carrier=DESTINATION_CARRIER_MUX)
                for name in ("relayed", "refused")
            ]
        )
        show = await Show.create(stack, client, spec)
        ready = await show.ready()
        assert {each.name: each.state for each in ready.status.destinations} == {
            "relayed": DESTINATION_STATE_IDLE,
            "refused": DESTINATION_STATE_IDLE,
        }
        [stream] = stack.mux.store.streams.values()
        targets = [(target.passthrough, target.url, target.stream_key) for target in stream.simulcast_targets]
        assert targets == [
            ("relayed", f"{OTHER}/relayed", "relayed-key"),
            ("refused", f"{OTHER}/refused", "refused-key"),
        ]
        await show.live()
        await show.until_destination("relayed", DESTINATION_STATE_ACTIVE)
        await show.until_destination("refused", DESTINATION_STATE_FAILED)
        assert await show.state() == "LIVE"
        assert show.effects("egress.started")[0].detail["urls"] == [
            f"rtmps://global-live.mux.com:443/app/{{{stream.stream_key[:3]}...{stream.stream_key[-3:]}}}"
        ]
        await show.ended()
        show.assert_once()


async def test_a_recording_is_kept_or_discarded(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        kept = await Show.create(stack, client, BroadcastSpec(recording_policy=RECORDING_POLICY_KEEP))
        gone = await Show.create(stack, client, BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD))
        for show in (kept, gone):
            await show.live()
        ended, discarded = await kept.ended(), await gone.ended()
        [made] = kept.effects("asset.created")
        [recording] = ended.status.recordings
        assert recording.mux_asset_id == made.detail["asset"]
        base = stack.environment["PLAYBACK_BASE_URL"]
        status, segments = await Viewer(kept).playlist(f"{base}/{recording.playback_id}.m3u8")
        assert (status, segments > 0) == (200, True)
        assert not discarded.status.recordings
        assert gone.count("asset.created") == gone.count("asset.deleted") == 1
        assert [asset.id for asset in stack.mux.store.assets.values()] == [recording.mux_asset_id]


async def test_a_broadcast_that_nobody_enters_ends(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack, BROADCAST_TIMING_HOST_WAIT_S="0.6")).target)
        show = await Show.create(stack, client)
        await show.ready()
        ended = await show.over()
        assert ended.status.state_reason == "NO_HOST"
        assert show.count("egress.started") == 0
        assert show.count("room.created") == show.count("stream.created") == 1


async def test_a_host_who_comes_back_goes_on_with_the_same_egress(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        show = await Show.create(stack, client)
        async with watching(client, show.id) as watched:
            before = await show.live()
            await stack.control("leave", room=show.id, identity="ann")
            interrupted = await show.until("INTERRUPTED")
            assert interrupted.status.state_reason == "NO_HOST"
            await stack.host_joins(show.id)
            after = await show.until("LIVE")
            assert after.status.provider_ids == before.status.provider_ids
            # A network that breaks and is back before anybody notices is nothing to the viewers.
            await stack.control("drop", room=show.id, identity="ann")
            await stack.host_joins(show.id)
            assert await show.state() == "LIVE"
            await show.ended()
            await eventually(lambda: watched.states[-1] == "ENDED")
        assert watched.states[3:] == ["LIVE", "INTERRUPTED", "LIVE", "STOPPING", "ENDED"]
        show.assert_once()


async def test_a_host_who_does_not_come_back_ends_it(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack, BROADCAST_TIMING_HOST_RETURN_S="0.8")).target)
        show = await Show.create(stack, client)
        await show.live()
        await stack.control("leave", room=show.id, identity="ann")
        ended = await show.over()
        assert ended.status.state_reason == "HOST_LEFT"
        show.assert_once()


async def test_a_broadcast_ends_after_its_time_on_air(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        spec = BroadcastSpec()
        spec.max_duration.FromSeconds(3600)
        show = await Show.create(stack, client, spec)
        await show.live()
        assert [stream.max_continuous_duration_s for stream in stack.mux.store.streams.values()] == [3600]
        connection = await asyncpg.connect(database_url)
        try:
            # An hour would be long: it went on air 3599 s ago.
            await connection.execute(
                "UPDATE broadcast SET live_time = now() - interval '3599 s', due_at = now() WHERE id = $1", show.id
            )
        finally:
            await connection.close()
        ended = await show.over()
        assert ended.status.state_reason == "MAX_DURATION"
        show.assert_once()
        show.assert_order(*TAKE_DOWN)


async def test_a_test_broadcast_is_cut_by_mux(database_url: str) -> None:
    async with running_stack(database_url, mux={"test_limit_s": 120.0}) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        show = await Show.create(stack, client, BroadcastSpec(test=True))
        await show.live()
        [stream] = stack.mux.store.streams.values()
        assert stream.test
        ended = await show.over()
        assert ended.status.state_reason == "TEST_LIMIT"
        assert show.effects("stream.disabled")[0].detail["reason"] == "test_limit"
        show.assert_once()


async def test_an_audio_broadcast_sends_no_video(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        show = await Show.create(stack, client, BroadcastSpec(audio_only=True))
        await show.ready()
        await stack.host_joins(show.id, publish=("microphone",))
        await show.until("LIVE")
        [stream] = stack.mux.store.streams.values()
        assert stream.extra["audio_only"] is True
        async with stack.http.get(f"{stack.livekit.base_url}/_state") as answer:
            [egress] = (await answer.json())["egresses"]
        assert egress["room_composite"]["audio_only"] is True
        await show.ended()
        show.assert_once()


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no webhooks"])
async def test_a_host_who_unpublishes_and_stays_is_told_and_so_is_his_return(database_url: str, webhooks: bool) -> None:  # noqa: FBT001
    """LiveKit goes on to count him as a publisher, and its counts are late: neither is believed."""
    async with running_stack(database_url, webhooks=webhooks) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        show = await Show.create(stack, client)
        await show.live()
        both = {"room": show.id, "identity": "ann", "sources": ["camera", "microphone"]}
        loop = asyncio.get_running_loop()
        for what, publishing in (("unpublish", False), ("publish", True)):
            began = loop.time()
            await stack.control(what, **both)
            await show.until_so(lambda seen, now=publishing: _host_publishes(seen) is now, what, within=12)
            took = loop.time() - began
            assert took < (1.0 if webhooks else 12.0), f"{what} took {took:.1f} s"
            await show.until("LIVE" if publishing else "INTERRUPTED")
        await show.ended()


def _host_publishes(broadcast: Broadcast) -> bool:
    [condition] = [each for each in broadcast.status.conditions if each.type == CONDITION_TYPE_HOST_PUBLISHING]
    return condition.met
