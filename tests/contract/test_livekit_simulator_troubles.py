"""Ways in which a simulated egress ends or hangs that nobody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import api
from livekit.protocol.egress import EgressStatus, StreamInfo

from tests.contract.livekit_stage import OTHER, OTHER_REDACTED, STREAM_KEY, Stage, staged, until

MUX = f"mux://{STREAM_KEY}"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def later(stage: Stage, seconds: float) -> None:
    """*seconds* of the provider's time."""
    end = stage.simulator.clock.now() + seconds
    await until(lambda: stage.simulator.clock.now() >= end)


ENDS: list[tuple[Any, str, tuple[int, str, str, int]]] = [
    ("egress_complete", "", (EgressStatus.EGRESS_COMPLETE, "Source closed", "", 0)),
    ("egress_complete", "CPU exhausted", (EgressStatus.EGRESS_COMPLETE, "CPU exhausted", "", 0)),
    ("egress_fail", "OOM", (EgressStatus.EGRESS_FAILED, "Failure", "OOM", 500)),
    (
        "egress_limit",
        "",
        (EgressStatus.EGRESS_LIMIT_REACHED, "Session limit reached", "Session limit reached", 413),
    ),
]


@pytest.mark.parametrize(("kind", "message", "expected"), ENDS)
@pytest.mark.parametrize("early", [True, False])
async def test_it_ends_and_nobody_asked(
    stage: Stage, kind: Any, message: str, expected: tuple[int, str, str, int], *, early: bool
) -> None:
    """COMPLETE does not mean as intended: the room closed, Chrome lost it, the worker shed load; LIMIT_REACHED is
    413. The fault comes before the egress starts, or while it runs.
    """
    if early:
        stage.fault(kind, "egress", delay_s=5, message=message)
    egress_id = await stage.live()
    if not early:
        stage.fault(kind, "egress", delay_s=5, message=message, match=egress_id)
    ended = await stage.ended(egress_id)
    status, details, error, code = expected
    assert (ended.status, ended.details, ended.error, ended.error_code) == (
        status,
        f"End reason: {details}",
        error,
        code,
    )
    assert stage.hits(kind) == 1
    assert not stage.simulator.effects.of("egress.stopped")


async def test_it_is_aborted_before_it_was_active(stage: Stage) -> None:
    """ABORTED is 412."""
    stage.fault("egress_abort", "egress")
    await stage.room()
    await stage.host("bc-1")
    ended = await stage.ended((await stage.start()).egress_id)
    assert (ended.status, ended.error_code) == (EgressStatus.EGRESS_ABORTED, 412)
    assert ended.error == "Session limit reached before start signal"
    assert not stage.simulator.effects.of("egress.active")
    assert stage.ingest.connections == 0


async def test_a_start_without_an_end_is_aborted_by_control(stage: Stage) -> None:
    await stage.room()
    egress_id = (await stage.start()).egress_id
    status, _ = await stage.post("/_control/egress", egress_id=egress_id, end="aborted")
    assert status == 200
    assert (await stage.ended(egress_id)).status == EgressStatus.EGRESS_ABORTED


async def test_a_connection_that_is_never_made(stage: Stage) -> None:
    """EGRESS_ACTIVE says that the pipeline plays; only a stream's started_at says that RTMP is connected."""
    stage.fault("rtmp_hang", "publish")
    await stage.room()
    await stage.host("bc-1")
    egress_id = (await stage.start()).egress_id
    await stage.reaches(egress_id, EgressStatus.EGRESS_ACTIVE)
    await until(lambda: stage.hits("rtmp_hang"))
    await later(stage, 120)
    info = await stage.egress(egress_id)
    assert info.status == EgressStatus.EGRESS_ACTIVE
    [stream] = info.stream_results
    assert (stream.status, stream.started_at) == (StreamInfo.ACTIVE, 0)
    assert stage.ingest.connections == 0
    await stage.stop(egress_id)
    assert (await stage.ended(egress_id)).status == EgressStatus.EGRESS_COMPLETE


async def test_a_wedge_is_noticed_after_30_s_and_not_tried_again(stage: Stage) -> None:
    """The liveness monitor of egress 1.14: "no outbound progress for 30s", FAILED."""
    egress_id = await stage.live()
    stage.fault("rtmp_wedge", "publish", match="bc-1")
    await until(lambda: stage.ingest.messages[-1:] == [{"media": False}])
    wedged = stage.simulator.clock.now()
    ended = await stage.ended(egress_id)
    assert stage.simulator.clock.now() - wedged > 25
    assert (ended.status, ended.error) == (EgressStatus.EGRESS_FAILED, "no outbound progress for 30s")
    [stream] = ended.stream_results
    assert (stream.status, stream.retries) == (StreamInfo.FAILED, 0)
    assert stage.ingest.connections == 1


async def test_an_older_egress_stays_wedged_for_ever(stage: Stage) -> None:
    stage.fault("rtmp_wedge", "publish", detail={"monitor": False})
    egress_id = await stage.live()
    await until(lambda: stage.ingest.messages[-1:] == [{"media": False}])
    await later(stage, 300)
    info = await stage.egress(egress_id)
    assert (info.status, info.stream_results[0].status) == (EgressStatus.EGRESS_ACTIVE, StreamInfo.ACTIVE)


async def test_a_wedged_egress_that_is_stopped_drains_for_30_s(stage: Stage) -> None:
    """Measured with egress 1.14.1: it waits for the end of a stream that does not come. A healthy one takes 3 s."""
    stage.fault("rtmp_wedge", "publish", detail={"monitor": False})
    egress_id = await stage.live()
    await until(lambda: stage.ingest.messages[-1:] == [{"media": False}])
    stopped = stage.simulator.clock.now()
    assert (await stage.stop(egress_id)).status == EgressStatus.EGRESS_ENDING
    assert (await stage.ended(egress_id)).status == EgressStatus.EGRESS_COMPLETE
    assert stage.simulator.clock.now() - stopped >= 30


async def test_a_worker_that_failed_with_500_takes_no_more_work(stage: Stage) -> None:
    """Measured with egress 1.14.1: it exits. Other failures leave it there."""
    await stage.post("/_control", workers=2)
    for status, left in ((503, 2), (500, 1)):
        egress_id = await stage.live()
        stage.fault("egress_fail", "egress", match=egress_id, status=status)
        await stage.ended(egress_id)
        assert (await stage.get("/_control"))["workers"] == left


async def test_of_two_destinations_one_is_wedged_and_the_other_goes_on(stage: Stage) -> None:
    """One of several failing is that stream's FAILED; the egress stays ACTIVE."""
    egress_id = await stage.live(urls=(MUX, OTHER))
    stage.fault("rtmp_wedge", "publish", match="global-live.mux.com")

    def failed() -> bool:
        updates = stage.receiver.of("egress_updated")
        return any(each.status == StreamInfo.FAILED for event in updates for each in event.egress_info.stream_results)

    await until(failed)
    info = await stage.egress(egress_id)
    assert info.status == EgressStatus.EGRESS_ACTIVE
    assert {each.url: each.status for each in info.stream_results}[OTHER_REDACTED] == StreamInfo.ACTIVE


async def test_a_ghosts_stop_is_never_answered_well(stage: Stage) -> None:
    """The record of a worker that died stays ACTIVE; a stop is 408."""
    egress_id = await stage.live()
    stage.fault("egress_ghost", "egress")
    await until(lambda: stage.simulator.effects.of("egress.ghost"))
    with pytest.raises(api.ServerError) as caught:
        await asyncio.wait_for(stage.stop(egress_id), 30)
    assert caught.value.status == 408
    assert (await stage.egress(egress_id)).status == EgressStatus.EGRESS_ACTIVE
    listed = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))
    assert egress_id not in {each.identity for each in listed.participants}
