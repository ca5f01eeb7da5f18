"""Scheduled starts: sixty at one minute, a provider that is away meanwhile, and callers who change their minds."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial

import pytest

from service.domain import lifecycle
from service.domain.broadcast import Spec, State, Target, seconds
from service.domain.reasons import EventReason
from service.domain.schedule import LEAD_S, SPREAD_S
from service.providers.budget import Limits
from tests.simulation.lives import Life
from tests.simulation.providers.network import Outage
from tests.simulation.stage import ID, Stage, play

CROWD = 60


def at(stage: Stage, in_s: float) -> datetime:
    return stage.world.env.now() + seconds(in_s)


async def schedule(stage: Stage, broadcast_id: str, scheduled: datetime) -> Life:
    life = Life(stage.world.env, stage.world.callers, stage.livekit, broadcast_id, 0.0)
    life.spec, life.keys = Spec(title="A show", scheduled_start_time=scheduled), {}
    stage.world.lives.append(life)
    await life.create()
    return life


async def until(stage: Stage, wanted: dict[str, State], within_s: float) -> None:
    rows, ends = stage.world.tables.rows, stage.now + within_s
    while not all(rows[name].broadcast.state is state for name, state in wanted.items()):
        assert stage.now < ends, {name: rows[name].broadcast.state for name in wanted}
        await asyncio.sleep(0.5)


def most_within(times: list[float], window_s: float) -> int:
    """The largest number of *times* in any *window_s* seconds."""
    return max(sum(1 for other in times if each <= other < each + window_s) for each in times)


@pytest.mark.parametrize("ahead_s", [3600.0, 90.0])
def test_sixty_at_one_minute_are_ready_before_it_within_the_budget(ahead_s: float) -> None:
    """Those that are created long before are spread. Those that are created 90 s before find their turns, one a
    second.
    """

    async def scene(stage: Stage) -> None:
        stage.shared.limits = Limits()
        post = stage.shared.limits.mux_post
        for _ in range(2):
            stage.world.begin()
        scheduled = at(stage, ahead_s)
        names = [f"show-{n}" for n in range(CROWD)]
        await asyncio.gather(*(schedule(stage, name, scheduled) for name in names))
        rows = stage.world.tables.rows
        if ahead_s > LEAD_S + SPREAD_S:
            await asyncio.sleep(ahead_s - LEAD_S - SPREAD_S - 60)
            assert {rows[name].broadcast.state for name in names} == {State.CREATED}
        await asyncio.sleep((scheduled - stage.world.env.now()).total_seconds() - 1)
        assert [name for name in names if rows[name].broadcast.state is not State.READY] == []
        made = [effect.time for effect in stage.world.env.effects.log if effect.kind == "stream.created"]
        assert len(made) == CROWD, "one live stream each"
        for window_s in (1.0, 10.0, 30.0):
            # A call may take some seconds longer than the one before it.
            assert most_within(made, window_s) <= post.burst + post.rate * window_s + 3
        told = [event.reason for event in stage.world.tables.events]
        assert told.count(EventReason.SCHEDULE_BEGUN) == CROWD
        assert EventReason.START_REQUESTED not in told

    play(scene)


def test_an_outage_of_mux_before_its_time_does_not_fail_it() -> None:
    async def scene(stage: Stage) -> None:
        stage.prepare()
        stage.shared.at_mux.outage = Outage(until=stage.now + 400, mode="refused")
        await schedule(stage, ID, at(stage, 420))
        await stage.until(lambda: stage.broadcast.target is Target.LIVE, 420)
        await stage.until(lambda: stage.broadcast.state is State.READY, 500)

    play(scene)


def test_nobody_is_missed_before_its_time() -> None:
    async def scene(stage: Stage) -> None:
        stage.prepare()
        await schedule(stage, ID, scheduled := at(stage, 600))
        await stage.until(lambda: stage.broadcast.state is State.READY, 600)
        wait_s = stage.shared.timing.host_wait_s
        while stage.world.env.now() < scheduled + seconds(wait_s - 5):
            await asyncio.sleep(5)
            assert stage.broadcast.state is State.READY
        await stage.until(lambda: stage.broadcast.status.state_reason == "NO_HOST", 60)

    play(scene)


def test_it_is_moved_started_and_stopped_by_its_callers() -> None:
    async def scene(stage: Stage) -> None:
        stage.prepare()
        callers = stage.world.callers
        first = at(stage, 1000)
        for name in ("moved", "started", "stopped", "taken-away"):
            await schedule(stage, name, first)
        rows = stage.world.tables.rows

        def change(scheduled: datetime | None) -> partial[lifecycle.Change | None]:
            spec = Spec(scheduled_start_time=scheduled)
            return partial(lifecycle.update, etag="", spec=spec, keys={}, labels=None, paths=["scheduled_start_time"])

        assert await callers.change("UpdateBroadcast", "moved", change(first + timedelta(seconds=2000)))
        assert await callers.change("UpdateBroadcast", "taken-away", change(None))
        assert await callers.change("StartBroadcast", "started", lifecycle.start)
        assert await callers.change("StopBroadcast", "stopped", partial(lifecycle.stop, note=""))
        await until(stage, {"started": State.READY, "stopped": State.ENDED}, 20)
        await asyncio.sleep(1000)
        assert rows["moved"].broadcast.state is State.CREATED
        assert rows["taken-away"].broadcast.state is State.CREATED
        assert not await callers.change("UpdateBroadcast", "moved", change(at(stage, -1)))
        await until(stage, {"moved": State.READY}, 2000)
        assert stage.world.env.now() < first + timedelta(seconds=2000)

    play(scene)
