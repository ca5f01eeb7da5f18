"""The row as a queue, in Postgres and in memory: claims, lanes, leases, fences, wakes, duties."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from service.domain.broadcast import EndReason, Spec, State
from service.domain.errors import LeaseLost
from service.domain.lifecycle import Event, start, stop
from service.domain.reasons import EventReason
from service.store.leases import Claim
from tests.conformance.stage import LEASE, NOBODYS, Replica, Stage
from tests.integration.store_stage import T0, room, stream


async def test_the_longest_due_of_a_lane_comes_first(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        await stage.started(name)
        await stage.ground.time_passes(1)
    assert await stage.one.claimed_ids(1, limit=1) == ["a"]
    # Of several at once the order is not promised.
    assert sorted(await stage.two.claimed_ids(1, limit=2)) == ["b", "c"]
    assert await stage.two.claimed_ids(1) == []


async def test_lanes_are_apart(stage: Stage) -> None:
    for name in ("starts", "runs", "stops"):
        await stage.started(name)
    claims = {claim.broadcast_id: claim for claim in await stage.one.leases.claim(1, limit=3)}
    now = await stage.ground.now()
    await stage.one.passes.record(claims["runs"], [room(external_id="runs"), stream()])
    for claim in claims.values():
        await stage.one.passes.release(claim, now)
    await stage.broadcasts.change("stops", lambda stored, at: stop(stored, at, ""), NOBODYS)
    lanes = [await stage.two.claimed_ids(lane) for lane in (0, 1, 2)]
    assert lanes == [["stops"], ["starts"], ["runs"]]


async def test_a_claim_takes_the_next_fence_and_the_due_time(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    assert claim.fence == 1
    situation = await stage.one.passes.load(claim, LEASE)
    assert situation.broadcast.due_at is None
    await stage.ground.time_passes(LEASE.total_seconds() + 1)
    assert (await stage.two.claimed("first")).fence == 2


async def test_what_is_leased_is_nobody_elses_and_a_wake_changes_nothing_of_it(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.two.leases.wake(["first"])
    assert await stage.two.claimed_ids(1) == []
    await stage.one.passes.load(claim, LEASE)


async def test_a_load_renews_the_lease(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.ground.time_passes(15)
    await stage.one.passes.load(claim, LEASE)
    await stage.ground.time_passes(15)
    assert await stage.two.claimed_ids(1) == []


async def test_a_wake_during_a_pass_is_not_lost(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.load(claim, LEASE)
    await stage.two.leases.wake(["first"])
    await stage.one.passes.release(claim, None)
    again = await stage.two.claimed("first")
    situation = await stage.two.passes.load(again, LEASE)
    assert situation.broadcast.dirty_at is not None


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("due_in_s", [None, 60, -60])
async def test_a_release_keeps_the_earlier_due(stage: Stage, due_in_s: int | None, woken: bool) -> None:  # noqa: FBT001
    await stage.started("first")
    claim = await stage.one.claimed("first")
    now = await stage.ground.now()
    if woken:
        await stage.two.leases.wake(["first"])
    told = await stage.one.passes.release(claim, None if due_in_s is None else now + timedelta(seconds=due_in_s))
    due_now = woken or due_in_s == -60
    assert told is due_now
    wait = await stage.one.leases.next_due()
    assert (wait is None) is (due_in_s is None and not woken)
    assert (wait is not None and wait <= timedelta(seconds=1)) is due_now
    assert await stage.two.claimed_ids(1) == (["first"] if due_now else [])


async def test_a_turn_is_kept_for_the_next_pass(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    now = await stage.ground.now()
    await stage.one.passes.release(claim, now, turn=now)
    situation = await stage.two.passes.load(await stage.two.claimed("first"), LEASE)
    assert situation.broadcast.turn_at == now


TRACE, LATER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-another"


async def asked(stage: Stage, trace: str) -> None:
    await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    await stage.broadcasts.change("first", start, NOBODYS, trace_context=trace)


async def test_only_the_pass_that_serves_a_call_has_its_trace(stage: Stage) -> None:
    await asked(stage, TRACE)
    claim = await stage.one.claimed("first")
    assert claim.trace_context == TRACE
    now = await stage.ground.now()
    await stage.one.passes.release(claim, now, turn=now)
    put_off = await stage.two.claimed("first")
    assert put_off.trace_context == TRACE, "it did not get its turn yet"
    await stage.two.passes.release(put_off, now)
    later = await stage.one.claimed("first")
    assert later.trace_context is None
    await stage.one.passes.release(later, now, turn=now)
    assert (await stage.one.claimed("first")).trace_context is None


@pytest.mark.parametrize("put_off", [False, True])
async def test_a_call_during_a_pass_has_the_trace_of_the_next(stage: Stage, put_off: bool) -> None:  # noqa: FBT001
    await asked(stage, TRACE)
    claim = await stage.one.claimed("first")
    now = await stage.ground.now()
    await stage.broadcasts.change("first", lambda stored, at: stop(stored, at, ""), NOBODYS, trace_context=LATER)
    await stage.one.passes.release(claim, now, turn=now if put_off else None)
    assert (await stage.two.claimed("first", lane=0)).trace_context == LATER


WRITES: dict[str, Callable[[Replica, Claim], Awaitable[object]]] = {
    "load": lambda of, claim: of.passes.load(claim, LEASE),
    "intend": lambda of, claim: of.passes.intend(claim, room(), LEASE),
    "record": lambda of, claim: of.passes.record(claim, [stream()], events=[Event(reason=EventReason.STATUS_CHANGED)]),
    "record of nothing": lambda of, claim: of.passes.record(claim),
    "record of the end": lambda of, claim: of.passes.record(claim, end=EndReason.NO_HOST),
    "release": lambda of, claim: of.passes.release(claim, T0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_zombie_writes_nothing_and_is_told(
    stage: Stage, write: Callable[[Replica, Claim], Awaitable[object]]
) -> None:
    await stage.started("first")
    stale = await stage.one.claimed("first")
    await stage.ground.time_passes(LEASE.total_seconds() + 1)
    claim = await stage.two.claimed("first")
    await stage.two.passes.record(claim, [room(), stream(external_id="LS-of-two")])
    before = await stage.seen("first"), (await stage.two.passes.load(claim, LEASE)).resources
    with pytest.raises(LeaseLost):
        await write(stage.one, stale)
    assert (await stage.seen("first"), (await stage.two.passes.load(claim, LEASE)).resources) == before
    await write(stage.two, claim)


async def test_a_zombie_that_gives_up_takes_no_lease_away(stage: Stage) -> None:
    await stage.started("first")
    stale = await stage.one.claimed("first")
    await stage.ground.time_passes(LEASE.total_seconds() + 1)
    await stage.two.claimed("first")
    await stage.one.passes.give_up(stale, timedelta(seconds=-5))
    assert await stage.one.claimed_ids(1) == []


async def test_a_pass_that_gave_up_comes_back_after_its_wait(stage: Stage) -> None:
    await stage.started("first")
    await stage.one.passes.give_up(await stage.one.claimed("first"), timedelta(seconds=5))
    assert await stage.two.claimed_ids(1) == []
    await stage.ground.time_passes(6)
    assert await stage.two.claimed_ids(1) == ["first"]


async def test_an_expired_lease_that_nobody_took_is_still_its_owners(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.ground.time_passes(LEASE.total_seconds() + 1)
    await stage.one.passes.load(claim, LEASE)
    assert await stage.two.claimed_ids(1) == []


async def test_what_is_at_rest_is_moved_by_no_wake(stage: Stage) -> None:
    await stage.broadcasts.create("created", Spec(), {}, {}, NOBODYS)
    await stage.broadcasts.create("stopped", Spec(), {}, {}, NOBODYS)
    await stage.broadcasts.change("stopped", lambda stored, at: stop(stored, at, ""), NOBODYS)
    await stage.one.leases.wake(["created", "stopped", "nobody"])
    assert [await stage.one.claimed_ids(lane) for lane in (0, 1, 2)] == [[], [], []]
    assert await stage.one.leases.next_due() is None


async def test_what_woke_a_broadcast_on_the_way_to_its_end_wakes_it_no_more(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.two.leases.wake(["first"])
    over = await stage.one.passes.record(claim, end=EndReason.NO_HOST)
    assert over.broadcast.state is State.ENDED
    await stage.one.passes.release(claim, None)
    assert await stage.one.leases.next_due() is None


async def test_no_claim_of_before_a_failover_goes_on(stage: Stage) -> None:
    """Its pass does not know which commits were lost, and would act as if the providers had been told nothing since."""
    await stage.started("first")
    claim = await stage.one.claimed("first")
    head = await stage.changes.head()
    await stage.changes.begin_history((await stage.changes.bounds()).history)
    passes = stage.one.passes
    for write in (
        lambda: passes.load(claim, LEASE),
        lambda: passes.intend(claim, stream(), LEASE),
        lambda: passes.renew(claim, LEASE),
        lambda: passes.record(claim, [stream()], end=EndReason.STOPPED),
    ):
        with pytest.raises(LeaseLost):
            await write()
    assert await stage.changes.head() == head
    after = await stage.two.claimed("first")
    assert after.fence > claim.fence
    assert (await stage.two.passes.load(after, LEASE)).unverified_since is not None


async def test_a_duty_is_one_replicas_until_its_time_is_over(stage: Stage) -> None:
    minute = timedelta(minutes=1)
    assert await stage.one.leases.take_duty("sweep", minute)
    assert await stage.one.leases.take_duty("sweep", minute)
    assert not await stage.two.leases.take_duty("sweep", minute)
    assert await stage.two.leases.take_duty("observe", minute)
    await stage.ground.time_passes(61)
    assert await stage.two.leases.take_duty("sweep", minute)
    assert not await stage.one.leases.take_duty("sweep", minute)


async def test_a_person_who_wakes_it_is_remembered_and_the_observer_is_not(stage: Stage) -> None:
    """What failed before the first of the two is tried again without its back-off."""
    await stage.started("first")
    await stage.one.leases.wake(["first"])
    claim = await stage.one.claimed("first")
    assert (await stage.one.passes.load(claim, LEASE)).broadcast.retry_from is None
    await stage.one.passes.release(claim, None)
    await stage.one.leases.wake(["first", "nobody"], retry=True)
    claim = await stage.one.claimed("first")
    situation = await stage.one.passes.load(claim, LEASE)
    assert situation.broadcast.retry_from is not None
    assert situation.broadcast.retry_from <= situation.now
