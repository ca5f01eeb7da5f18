"""Live streams that were made ahead: taken once, named later, kept from the sweeper, and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.broadcast import Carrier, Destination, LatencyMode, PlaybackPolicy, Spec, State
from service.domain.pool import PoolPhase, Profile
from service.domain.reasons import EventReason
from service.reconciler.act.tags import stream_tag
from service.reconciler.background import pool as keeper
from tests.simulation.lives import Life
from tests.simulation.providers.network import Outage
from tests.simulation.replica import TAG
from tests.simulation.stage import ID, Stage, play

PROFILE = Profile(latency_mode=LatencyMode.REDUCED, playback_policy=PlaybackPolicy.PUBLIC)


async def until(stage: Stage, what: Callable[[], bool], within_s: float) -> None:
    ends = stage.now + within_s
    while not what():
        assert stage.now < ends, [(row.phase, row.external_id) for row in stage.world.tables.pool.values()]
        await asyncio.sleep(0.5)


def idle(stage: Stage) -> list[str]:
    """Ids of the live streams that wait for a broadcast."""
    return [row.external_id for row in stage.world.tables.pool.values() if row.phase is PoolPhase.PRESENT]


async def filled(stage: Stage, count: int) -> None:
    await until(stage, lambda: len(idle(stage)) == count, 120)


def prepare(stage: Stage, count: int, spec: Spec | None = None) -> Life:
    stage.shared.pool = {PROFILE: count}
    return stage.prepare(spec)


def test_a_start_takes_one_and_names_it_and_it_is_made_again() -> None:
    async def scene(stage: Stage) -> None:
        life = prepare(stage, 2)
        await filled(stage, 2)
        waiting = idle(stage)
        await life.create()
        await life.start()
        await stage.until(lambda: stage.broadcast.state is State.READY, 3)
        assert stage.broadcast.status.stream_id in waiting
        assert EventReason.STREAM_TAKEN in stage.reasons
        await stage.until(lambda: EventReason.STREAM_NAMED in stage.reasons, 10)
        assert stage.stream.tag == stream_tag(TAG, ID, 0)
        assert stage.stream.wanted.title == "A show"
        await stage.until(lambda: len(idle(stage)) == 2, 60)
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 60)
        await asyncio.sleep(600)
        assert len(idle(stage)) == 2, "the sweeper took what waits"

    play(scene)


def test_with_mux_away_a_start_is_ready_and_is_named_when_mux_is_back() -> None:
    async def scene(stage: Stage) -> None:
        life = prepare(stage, 1)
        await filled(stage, 1)
        stage.shared.at_mux.outage = Outage(until=stage.now + 100, mode="refused")
        await life.create()
        await life.start()
        await stage.until(lambda: stage.broadcast.state is State.READY, 3)
        await asyncio.sleep(90)
        assert EventReason.STREAM_NAMED not in stage.reasons
        assert stage.broadcast.status.observed_generation < stage.broadcast.generation
        await stage.until(lambda: EventReason.STREAM_NAMED in stage.reasons, 90)
        assert stage.stream.tag == stream_tag(TAG, ID, 0)

    play(scene)


def test_ten_starts_take_each_another_one() -> None:
    async def scene(stage: Stage) -> None:
        prepare(stage, 5)
        await filled(stage, 5)
        names = [f"show-{n}" for n in range(10)]
        lives = [Life(stage.world.env, stage.world.callers, stage.livekit, name, 0.0) for name in names]
        for life in lives:
            life.spec, life.keys = Spec(title="A show"), {}
        stage.world.lives += lives
        await asyncio.gather(*(life.create() for life in lives))
        await asyncio.gather(*(life.start() for life in lives))
        rows = stage.world.tables.rows
        await until(stage, lambda: all(rows[name].broadcast.state is State.READY for name in names), 60)
        streams = [rows[name].broadcast.status.stream_id for name in names]
        assert len(set(streams)) == 10
        reasons = [event.reason for event in stage.world.tables.events]
        assert reasons.count(EventReason.STREAM_TAKEN) >= 5

    play(scene)


@pytest.mark.parametrize(
    "other",
    [
        {"latency_mode": LatencyMode.LOW},
        {"playback_policy": PlaybackPolicy.SIGNED},
        {"reconnect_window_s": 60.0},
        {"max_duration_s": 3600},
        {"audio_only": True},
        {"test": True},
        {"captions_language": "en"},
        {"slate_url": "https://images.example.com/slate.png"},
        {"destinations": (Destination(name="tv", url="rtmps://tv.example/live", carrier=Carrier.STREAM),)},
    ],
    ids=lambda each: next(iter(each)),
)
def test_another_profile_is_made_as_ever(other: dict[str, object]) -> None:
    async def scene(stage: Stage) -> None:
        life = prepare(stage, 1, replace(Spec(title="A show"), **other))  # pyright: ignore[reportArgumentType]
        await filled(stage, 1)
        await life.create()
        await life.start()
        await stage.until(lambda: stage.broadcast.state is State.READY, 20)
        assert EventReason.STREAM_TAKEN not in stage.reasons
        assert EventReason.STREAM_CREATED in stage.reasons
        assert len(idle(stage)) == 1

    play(scene)


def test_what_is_gone_at_mux_is_noticed_before_a_broadcast_takes_it() -> None:
    async def scene(stage: Stage) -> None:
        prepare(stage, 2)
        await filled(stage, 2)
        first, second = idle(stage)
        stage.mux.delete(stage.mux.streams[first], "outside")
        stage.mux.disable(stage.mux.streams[second], "outside")
        await until(stage, lambda: len(idle(stage)) == 2 and not {first, second} & set(idle(stage)), 400)
        assert stage.mux.get(second) is None, "a disabled one that nobody can use is deleted"

    play(scene)


def test_a_profile_that_is_not_wanted_any_more_and_what_is_too_old_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(stage: Stage) -> None:
        prepare(stage, 2)
        await filled(stage, 2)
        old = set(idle(stage))
        monkeypatch.setattr(keeper, "OLDEST", timedelta(seconds=300))
        await until(stage, lambda: len(idle(stage)) == 2 and not old & set(idle(stage)), 600)
        assert not any(stage.mux.get(stream_id) for stream_id in old)
        monkeypatch.setattr(keeper, "OLDEST", timedelta(hours=1))
        other = replace(PROFILE, latency_mode=LatencyMode.LOW)
        stage.shared.pool = {other: 1}
        for replica in list(stage.world.replicas):
            replica.crash()
        await until(
            stage,
            lambda: [row.profile for row in stage.world.tables.pool.values()] == [other.text] and len(idle(stage)) == 1,
            400,
        )
        assert len(stage.mux.living) == 1

    play(scene)


def test_starts_come_before_the_pool() -> None:
    """The pool takes only what no start would miss: it never waits in the queue."""

    async def scene(stage: Stage) -> None:
        stage.shared.pool = {PROFILE: 20}
        for _ in range(2):
            stage.world.begin()
        names = [f"show-{n}" for n in range(20)]
        lives = [Life(stage.world.env, stage.world.callers, stage.livekit, name, 0.0) for name in names]
        for life in lives:
            life.spec, life.keys = Spec(title="A show", latency_mode=LatencyMode.LOW), {}
        stage.world.lives += lives
        await asyncio.gather(*(life.create() for life in lives))
        await asyncio.gather(*(life.start() for life in lives))
        rows, began = stage.world.tables.rows, stage.now
        await until(stage, lambda: all(rows[name].broadcast.state is State.READY for name in names), 120)
        took = stage.now - began
        assert took <= 20 / stage.shared.limits.mux_post.rate + 10
        await filled(stage, 20)

    play(scene)
