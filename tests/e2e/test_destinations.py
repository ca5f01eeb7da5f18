"""A destination that refuses for ever, beside one that works, at the whole service with its sandbox."""

from __future__ import annotations

from broadcast.v1.broadcast_pb2 import (
    DESTINATION_STATE_ACTIVE,
    DESTINATION_STATE_FAILED,
    DESTINATION_STATE_STOPPED,
    Broadcast,
    BroadcastSpec,
    Destination,
    DestinationStatus,
)
from broadcast_sandbox.faults import Fault
from tests.e2e.show import Referee, Show, Viewer, in_background, webhook_replica
from tests.stack import running_stack
from tests.waiting import eventually

QUICK = {"BROADCAST_TIMING_DESTINATION_PAUSE_S": "0.05", "BROADCAST_TIMING_DESTINATION_LONGEST_PAUSE_S": "0.2"}
OTHER = "rtmps://93.184.215.14:443/app"
GOOD = Destination(name="good", url=OTHER, stream_key="god-0123456789")
BAD = Destination(name="bad", url=OTHER, stream_key="bad-0123456789")


def status(broadcast: Broadcast, name: str) -> DestinationStatus:
    return next(each for each in broadcast.status.destinations if each.name == name)


async def test_one_that_refuses_is_stopped_and_disturbs_nothing(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack, **QUICK)).target)
        referee = Referee(stack)
        stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match="{bad", times=-1))
        show = await Show.create(stack, client, BroadcastSpec(destinations=[GOOD]))
        viewer = Viewer(show)
        await show.live()
        await show.until_destination("good", DESTINATION_STATE_ACTIVE)
        async with in_background(viewer.watch):
            await client.add_destination(show.id, BAD)
            failed = status(await show.until_destination("bad", DESTINATION_STATE_FAILED), "bad")
            assert failed.last_error
            assert failed.last_error_time.seconds > 0
            stopped = status(await show.until_destination("bad", DESTINATION_STATE_STOPPED), "bad")
            assert stopped.failure_count == 10
            assert BAD.stream_key not in str(stopped)
            told = await show.reasons()
            assert told.count("DESTINATION_STOPPED") == 1
            assert told.count("DESTINATION_RETRIED") == 9
            explained = await client.explain(show.id)
            assert "DESTINATION_STOPPED" in [cause.code for cause in explained.causes]
            assert status(await show.get(), "good").state == DESTINATION_STATE_ACTIVE

            # A person mends it and has it tried again.
            stack.livekit.faults.clear()
            await client.admin.wake(show.id)
            await show.until_destination("bad", DESTINATION_STATE_ACTIVE)
            kept = status(await show.get(), "bad")
            assert kept.last_error == stopped.last_error
        assert not viewer.wrong
        assert viewer.live_samples > 0
        assert "INTERRUPTED" not in await show.reasons()
        connected = [each.id for each in stack.livekit.effects.of("destination.connected")]
        assert sorted(connected) == [f"{OTHER}/{{bad...789}}", f"{OTHER}/{{god...789}}"], "each once"
        assert show.count("egress.started") == 1
        await show.ended()
        show.assert_once()
        referee.check()


async def test_removed_and_added_again_it_is_tried_anew(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack, **QUICK)).target)
        stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match="{bad", times=10))
        show = await Show.create(stack, client, BroadcastSpec(destinations=[BAD]))
        await show.live()
        await show.until_destination("bad", DESTINATION_STATE_STOPPED)
        await client.remove_destination(show.id, "bad")
        added = await client.add_destination(show.id, BAD)
        assert status(added, "bad").failure_count == 0
        await show.until_destination("bad", DESTINATION_STATE_ACTIVE)
        assert await show.state() == "LIVE"
        await client.remove_destination(show.id, "bad")
        await eventually(lambda: stack.livekit.effects.of("destination.disconnected"))
        assert await show.state() == "LIVE"
        await show.ended()
