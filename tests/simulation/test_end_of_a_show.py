"""The end of a show: nothing of it is lost where the egress can be trusted, nobody publishes where it cannot, and the
live stream stays until the slowest viewer has seen the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from service.domain import lifecycle
from service.domain.broadcast import Broadcast, LatencyMode, Spec, State
from service.domain.reasons import EventReason
from service.domain.resources import EgressStatus, Phase, Stream
from tests.simulation.faults import Kind
from tests.simulation.providers.egresses import PIPELINE_S
from tests.simulation.providers.mux import LiveStream
from tests.simulation.stage import ID, Stage, play


def kept(stage: Stage) -> Stream:
    [stream] = [each for each in stage.row.sorted_resources() if isinstance(each, Stream)]
    return stream


async def until_over(stage: Stage, within_s: float) -> float:
    return await stage.until(lambda: stage.broadcast.state is State.ENDED, within_s)


async def until_gone(stage: Stage, within_s: float = 60) -> None:
    await stage.until(lambda: not stage.world.invariants.convergence.leftovers(), within_s)
    await stage.until(lambda: stage.row.due is None, 60)
    assert kept(stage).phase is Phase.GONE


@pytest.mark.parametrize("webhooks", [True, False])
def test_the_take_down_of_a_healthy_show_loses_nothing(*, webhooks: bool) -> None:
    """The egress sends what it holds before the live stream refuses publishers, and that is deleted when the slowest
    viewer has seen the end: the playlist keeps its end mark until then.
    """

    async def scene(stage: Stage) -> None:
        await stage.live()
        writes, stream = stage.writes(), stage.stream
        [egress] = stage.running
        await stage.stop()
        await until_over(stage, 60)
        [ended] = [each.time for each in stage.world.env.effects.log if each.kind == "egress.ended"]
        assert stage.now - ended <= (2.5 if webhooks else 6)
        assert writes[0] == "StopEgress"
        assert sorted(writes[1:]) == ["DeleteRoom", "disable_live_stream"]
        assert egress.stopped_at is not None
        assert stream.disabled_at >= egress.stopped_at + PIPELINE_S
        # Over, and the viewers who are behind still see the end.
        viewers_s = stage.shared.timing.viewers_s(LatencyMode.REDUCED)
        left_s = stream.disabled_at + viewers_s - stage.now
        await stage.all_the_while(lambda: stage.mux.playlist(f"pb-{stream.id}").ended, left_s - 1)
        assert "delete_live_stream" not in writes
        await stage.until(lambda: stream.deleted, 10)
        assert stage.mux.playlist(f"pb-{stream.id}").status == 404
        assert stage.now - stream.disabled_at >= viewers_s
        await until_gone(stage)
        assert stage.broadcast.state is State.ENDED
        assert stage.reasons.index(EventReason.STREAM_DELETED) > stage.reasons.index(EventReason.STATE_ENDED)

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("mode", LatencyMode)
def test_the_live_stream_is_kept_as_long_as_its_viewers_are_behind(mode: LatencyMode) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(Spec(title="A show", latency_mode=mode))
        stream = stage.stream
        await stage.stop()
        await stage.until(lambda: stream.deleted, 90)
        after = stage.now - stream.disabled_at
        expected = stage.shared.timing.viewers_s(mode)
        assert expected <= after <= expected + 5
        await until_gone(stage)

    play(scene)


def deaf(stage: Stage) -> None:
    stage.livekit.befall(stage.running[0], Kind.EGRESS_DEAF)
    stage.running[0].deaf_s = 10_000.0


def stalled(stage: Stage) -> None:
    stage.mux.stall(stage.stream)


def silent(stage: Stage) -> None:
    """Wedged: connected, listed as active, and nothing arrives."""
    [egress] = stage.running
    assert egress.session is not None
    stage.mux.media_stopped(stage.stream, egress.session)


def ghost(stage: Stage) -> None:
    stage.livekit.become_ghost(stage.running[0])


@pytest.mark.parametrize("breaks", [stalled, silent, ghost])
def test_a_stop_that_cannot_trust_the_egress_disables_first(breaks: Callable[[Stage], None]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        breaks(stage)
        # It is known then, and nothing was done about it yet.
        await stage.until(lambda: stage.broadcast.state is not State.LIVE, 200)
        stream, disabled = stage.stream, stage.stream.disabled_at
        writes = stage.writes()
        await stage.stop()
        await stage.until(lambda: stream.disabled and stream.disabled_at > disabled, 3)
        assert writes[0] == "disable_live_stream"
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 90)
        await until_gone(stage)

    play(scene)


def test_an_egress_that_answers_no_stop_is_not_waited_for() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        deaf(stage)
        stream = stage.stream
        await stage.stop()
        await stage.until(lambda: stream.disabled, 10)
        await until_over(stage, 90)
        await until_gone(stage)

    play(scene)


def test_an_egress_that_drains_for_long_is_waited_for_with_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wedged one drains for 30 s and sends nothing."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stream, [egress] = stage.stream, stage.running

        def drains(_: object) -> None:
            egress.status, egress.stopped_at = EgressStatus.ENDING, stage.now
            end = partial(stage.livekit._end, egress, EgressStatus.COMPLETE, "")  # pyright: ignore[reportPrivateUsage]
            stage.world.env.loop.call_later(30, end)

        monkeypatch.setattr(stage.livekit, "_wind_down", drains)
        await stage.stop()
        took = await stage.until(lambda: stream.disabled, 30)
        drain_s = stage.shared.timing.drain_s
        assert drain_s - 1 <= took <= drain_s + 3
        await until_over(stage, 60)
        await until_gone(stage)

    play(scene)


@pytest.mark.parametrize("at", ["StopEgress", "disable_live_stream", "DeleteRoom", "delete_live_stream"])
def test_a_crash_at_any_call_of_the_end(at: str) -> None:
    """The replica that is about to make the call dies with it; the other one ends the show."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stream, called = stage.stream, stage.shared.called
        died: list[str] = []

        def dies(replica: object, call: object, subject: str) -> None:
            name = getattr(call, "name", "")
            if name == at and not died:
                died.append(name)
                for each in stage.world.replicas:
                    if each is replica:
                        each.crash()
            called(replica, call, subject)  # pyright: ignore[reportArgumentType]

        stage.shared.called = dies
        await stage.stop()
        await until_over(stage, 120)
        await stage.until(lambda: stream.deleted, 120)
        assert died == [at]
        assert stream.disabled
        await until_gone(stage, 120)

    play(scene)


def test_a_broadcast_that_is_deleted_meanwhile_still_deletes_its_live_stream() -> None:
    """And the sweeper does not take it for an orphan."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stream: LiveStream = stage.stream
        await stage.stop()
        await until_over(stage, 60)
        assert kept(stage).retired
        await stage.world.callers.change("DeleteBroadcast", ID, partial(lifecycle.delete, etag=""))
        await stage.until(lambda: stream.deleted, 60)
        await until_gone(stage)
        by = [each.detail for each in stage.world.env.effects.log if each.kind == "stream.deleted"]
        assert by == ["us"]

    play(scene)


def test_a_row_of_an_older_version_ends_as_it_began() -> None:
    """It was disabled first, and its time was not kept: nothing is waited for."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stream = stage.stream
        [row] = [each for each in stage.row.sorted_resources() if isinstance(each, Stream)]
        stage.world.tables.put_resources(stage.row, [replace(row, disabled=True)])
        stage.mux.disable(stream, "an older version")
        await stage.stop()
        await until_over(stage, 60)
        await stage.until(lambda: stream.deleted, 5)
        await until_gone(stage)

    play(scene)


def test_recordings_are_looked_at_while_the_live_stream_is_kept() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        stream = stage.stream
        await stage.stop()
        await until_over(stage, 60)

        def ready(broadcast: Broadcast) -> bool:
            return bool(broadcast.status.recordings) and all(each.settled for each in broadcast.status.recordings)

        await stage.until(lambda: ready(stage.broadcast) or stream.deleted, 60)
        assert not stream.deleted or stage.now - stream.disabled_at > 30
        await stage.until(lambda: ready(stage.broadcast), 60)
        await asyncio.sleep(1)

    play(scene)
