"""The warm pool, in Postgres and in memory: an idle live stream belongs to the pool or to one broadcast, never both."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from service.domain.broadcast import LatencyMode, PlaybackPolicy, State
from service.domain.errors import LeaseLost, Overtaken
from service.domain.lifecycle import stop
from service.domain.pool import PoolPhase, Profile
from service.domain.ports import StreamSeen
from service.domain.resources import Kind, Phase, Stream, StreamStatus
from service.domain.secret import Secret
from tests.conformance.stage import LEASE, NOBODYS, Stage
from tests.integration.store_stage import T0, room

PROFILE = Profile(latency_mode=LatencyMode.REDUCED, playback_policy=PlaybackPolicy.PUBLIC)
OTHER = Profile(latency_mode=LatencyMode.LOW, playback_policy=PlaybackPolicy.PUBLIC)


def seen(name: str) -> StreamSeen:
    return StreamSeen(
        id=f"LS-{name}",
        tag=f"bs1:test:pool.{name}:0",
        status=StreamStatus.IDLE,
        created_at=T0,
        key=Secret(f"key-of-{name}"),
        playback_id=f"PB-{name}",
    )


async def made(stage: Stage, name: str, profile: Profile = PROFILE) -> None:
    await stage.pool.intend(name, profile)
    await stage.pool.made(name, seen(name))


async def test_what_is_intended_is_there_and_is_not_taken_before_it_is_made(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.pool.intend("a", PROFILE)
    [entry] = await stage.pool.entries()
    assert (entry.id, entry.profile, entry.phase, entry.external_id) == ("a", "reduced:public", PoolPhase.INTENDED, "")
    assert await stage.owned_ids.pooled(["a", "b"]) == {"a"}
    assert not await stage.one.passes.take_pooled(claim, 0, PROFILE)
    await stage.pool.made("a", seen("a"))
    await stage.ground.time_passes(100)
    [entry] = await stage.pool.entries()
    assert (entry.phase, entry.external_id) == (PoolPhase.PRESENT, "LS-a")
    assert entry.age >= timedelta(seconds=99)
    assert entry.unseen >= timedelta(seconds=99)
    await stage.pool.looked("a")
    assert (await stage.pool.entries())[0].unseen < timedelta(seconds=90)


async def test_a_broadcast_takes_the_oldest_of_its_profile_with_its_key(stage: Stage) -> None:
    for name, profile in (("low", OTHER), ("a", PROFILE), ("b", PROFILE)):
        await made(stage, name, profile)
        await stage.ground.time_passes(1)
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.record(claim, [room()])
    assert await stage.one.passes.take_pooled(claim, 0, PROFILE)
    situation = await stage.one.passes.load(claim, LEASE)
    assert situation.broadcast.state is State.READY
    [stream] = [each for each in situation.resources if isinstance(each, Stream)]
    assert (stream.phase, stream.external_id, stream.playback_id) == (Phase.PRESENT, "LS-a", "PB-a")
    assert stream.key == Secret("key-of-a")
    assert stream.unnamed
    assert situation.broadcast.status.playback_id == "PB-a"
    assert {entry.id for entry in await stage.pool.entries()} == {"low", "b"}
    assert await stage.owned_ids.pooled(["a"]) == set()
    assert await stage.owned_ids.owned(Kind.STREAM, ["LS-a", "LS-b"]) == {"LS-a"}
    story = await stage.changes.story("first", after=0, limit=100)
    assert [(each.reason, each.message) for each in story if each.reason == "STREAM_TAKEN"] == [
        ("STREAM_TAKEN", "LS-a")
    ]


async def test_two_at_once_take_two(stage: Stage) -> None:
    for name in ("a", "b"):
        await made(stage, name)
    for name in ("first", "second"):
        await stage.started(name)
    one, two = [
        *await stage.one.leases.claim(1, limit=1),
        *await stage.two.leases.claim(1, limit=1),
    ]
    taken = await asyncio.gather(
        stage.one.passes.take_pooled(one, 0, PROFILE), stage.two.passes.take_pooled(two, 0, PROFILE)
    )
    assert taken == [True, True]
    ids = [
        each.external_id
        for claim in (one, two)
        for each in (await stage.one.passes.load(claim, LEASE)).resources
        if isinstance(each, Stream)
    ]
    assert sorted(ids) == ["LS-a", "LS-b"]
    assert await stage.pool.entries() == []


async def test_a_pass_that_lost_its_lease_and_one_that_is_stopped_take_none(stage: Stage) -> None:
    await made(stage, "a")
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.ground.time_passes(LEASE.total_seconds() + 1)
    later = await stage.two.claimed("first")
    with pytest.raises(LeaseLost):
        await stage.one.passes.take_pooled(claim, 0, PROFILE)
    await stage.broadcasts.change("first", lambda stored, now: stop(stored, now, ""), NOBODYS)
    with pytest.raises(Overtaken):
        await stage.two.passes.take_pooled(later, 0, PROFILE)
    assert [entry.id for entry in await stage.pool.entries()] == ["a"]


async def test_what_is_leaving_is_not_taken_and_what_is_present_is_not_dropped(stage: Stage) -> None:
    await made(stage, "a")
    await made(stage, "b")
    await stage.pool.drop("b")
    assert await stage.pool.leave("a")
    assert not await stage.pool.leave("gone")
    await stage.started("first")
    claim = await stage.one.claimed("first")
    assert await stage.one.passes.take_pooled(claim, 0, PROFILE)
    assert [(entry.id, entry.phase) for entry in await stage.pool.entries()] == [("a", PoolPhase.LEAVING)]
    await stage.pool.drop("a")
    assert await stage.pool.entries() == []
    # The answer of a create that comes after its row was dropped.
    await stage.pool.made("a", seen("a"))
    assert await stage.pool.entries() == []
