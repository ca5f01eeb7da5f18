"""The row as a queue: who may work on a broadcast, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from service.domain.broadcast import EndReason
from service.domain.errors import LeaseLost
from service.domain.lifecycle import Event
from service.domain.reasons import EventReason
from service.store.leases import Claim
from tests.integration.store_stage import T0, Store, room, store, stream
from tests.waiting import eventually

LEASE = timedelta(seconds=20)


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        yield opened


@pytest.fixture
async def two(database_url: str, one: Store) -> AsyncIterator[Store]:
    """Another replica on the same database."""
    async with store(database_url, owner="two") as opened:
        yield opened


async def claimed_ids(store: Store, lane: int, *, limit: int = 100) -> set[str]:
    return {claim.broadcast_id for claim in await store.leases.claim(lane, limit=limit)}


async def test_a_lane_gives_its_due_rows_the_longest_due_first(one: Store) -> None:
    for lane in (0, 1, 2):
        for n, due in enumerate((-1, -30, -10, 30, None)):
            await one.add(f"lane{lane}-{n}", due_in_s=due, lane=lane)
    for lane in (2, 0, 1):
        order = [await one.leases.claim(lane, limit=1) for _ in range(4)]
        assert [[claim.broadcast_id for claim in each] for each in order] == [
            [f"lane{lane}-1"],
            [f"lane{lane}-2"],
            [f"lane{lane}-0"],
            [],
        ]


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("rows", [2, 30, 1500])
async def test_no_more_are_claimed_than_asked_for_whatever_the_plan(one: Store, rows: int, analyzed: bool) -> None:  # noqa: FBT001
    """The sub-select of CLAIM, locked and limited, must not be run anew for every row of an outer loop."""
    await one.sql(
        "INSERT INTO broadcast (id, spec, target, state, due_at, lane) "
        "SELECT n::text, '{}', 'LIVE', 'STARTING', now() - make_interval(secs => n), 1 FROM generate_series(1, $1) n",
        rows,
    )
    if analyzed:
        await one.sql("ANALYZE broadcast")
    taken: list[str] = []
    for limit in (1, 3, 7):
        claims = await one.leases.claim(1, limit=limit)
        taken += [claim.broadcast_id for claim in claims]
        assert len(claims) == min(limit, rows - len(taken) + len(claims))
    assert len(taken) == len(set(taken)) == await one.sql("SELECT count(*) FROM broadcast WHERE lease_owner = 'one'")
    assert set(taken) == {str(n) for n in range(rows, max(rows - 11, 0), -1)}


async def test_two_replicas_never_claim_the_same_of_500(one: Store, two: Store) -> None:
    await one.sql(
        "INSERT INTO broadcast (id, spec, target, state, due_at, lane) "
        "SELECT n::text, '{}', 'LIVE', 'STARTING', now(), 1 FROM generate_series(1, 500) AS n"
    )

    async def drain(replica: Store) -> list[str]:
        taken: list[str] = []
        while claims := await replica.leases.claim(1, limit=7):
            taken += [claim.broadcast_id for claim in claims]
        return taken

    # Three loops each: claims of one replica overlap too.
    shares = await asyncio.gather(*(drain(replica) for replica in (one, two) for _ in range(3)))
    together = [broadcast_id for share in shares for broadcast_id in share]
    assert sorted(together, key=int) == [str(n) for n in range(1, 501)]
    assert await one.sql("SELECT count(*) FROM broadcast WHERE fence <> 1") == 0


async def test_a_row_that_somebody_has_locked_holds_up_no_claim(one: Store, database_url: str) -> None:
    await one.add("locked", due_in_s=-10)
    await one.add("free", due_in_s=-1)
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM broadcast WHERE id = 'locked' FOR UPDATE")
            assert await asyncio.wait_for(claimed_ids(one, 2), 30) == {"free"}
    finally:
        await other.close()
    assert await claimed_ids(one, 2) == {"locked"}


async def test_a_claim_carries_the_trace_and_a_fence_of_its_own(one: Store) -> None:
    await one.add("first", due_in_s=-1)
    await one.sql("UPDATE broadcast SET trace_context = '00-abc-def-01'")
    [claim] = await one.leases.claim(2, limit=1)
    assert (claim.fence, claim.trace_context) == (1, "00-abc-def-01")
    row = await one.row("first")
    assert (row["lease_owner"], row["due_at"]) == ("one", None)
    assert row["lease_until"] == claim.claimed_at + LEASE


async def test_a_wake_during_a_pass_is_not_lost(one: Store) -> None:
    await one.add("first", due_in_s=-1)
    claim = await one.claimed("first", lane=2)
    await one.leases.wake(["first"])
    await one.passes.release(claim, None)
    row = await one.row("first")
    assert row["due_at"] is not None
    assert row["dirty_at"] == row["due_at"]
    assert await claimed_ids(one, await one.sql("SELECT lane FROM broadcast")) == {"first"}


async def test_a_wake_never_starts_a_second_runner(one: Store, two: Store) -> None:
    await one.add("first", due_in_s=-1)
    await one.claimed("first", lane=2)
    before = await one.row("first")
    for _ in range(3):
        await two.leases.wake(["first"])
        assert await claimed_ids(two, 2) == set()
    after = await one.row("first")
    unmoved = ("lease_until", "lease_owner", "fence")
    assert [before[name] for name in unmoved] == [after[name] for name in unmoved]


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("due_in_s", [None, 60, -60])
async def test_a_release_keeps_the_earlier_due(one: Store, due_in_s: int | None, woken: bool) -> None:  # noqa: FBT001
    await one.add("first", due_in_s=-1)
    claim = await one.claimed("first", lane=2)
    now = await one.database.now()
    due = None if due_in_s is None else now + timedelta(seconds=due_in_s)
    if woken:
        await one.leases.wake(["first"])
    wake = (await one.row("first"))["due_at"]
    await one.passes.release(claim, due)
    row = await one.row("first")
    assert row["due_at"] == min((each for each in (due, wake) if each is not None), default=None)
    assert (row["lease_until"], row["lease_owner"]) == (None, None)


WRITES: dict[str, Callable[[Store, Claim], Awaitable[object]]] = {
    "load": lambda of, claim: of.passes.load(claim, LEASE),
    "intend": lambda of, claim: of.passes.intend(claim, room(), LEASE),
    "record": lambda of, claim: of.passes.record(claim, [stream()], events=[Event(reason=EventReason.STATUS_CHANGED)]),
    "record of nothing": lambda of, claim: of.passes.record(claim),
    "record of the end": lambda of, claim: of.passes.record(claim, end=EndReason.NO_HOST),
    "release": lambda of, claim: of.passes.release(claim, T0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_zombie_writes_nothing_and_is_told(
    one: Store, two: Store, write: Callable[[Store, Claim], Awaitable[object]]
) -> None:
    await one.started("first")
    stale = await one.claimed("first")
    await one.lease_ends("first")
    claim = await two.claimed("first")
    await two.passes.record(claim, [room(), stream(external_id="LS-of-two")])
    before = await one.everything()
    with pytest.raises(LeaseLost):
        await write(one, stale)
    assert await one.everything() == before
    # And the present owner goes on as if nothing had been.
    await write(two, claim)


async def test_a_zombie_that_gives_up_changes_nothing(one: Store, two: Store) -> None:
    """It does so while it handles a failure, so it is not told."""
    await one.add("first", due_in_s=-1)
    stale = await one.claimed("first", lane=2)
    await one.lease_ends("first")
    await two.claimed("first", lane=2)
    before = await one.everything()
    await one.passes.give_up(stale, timedelta(seconds=5))
    assert await one.everything() == before


async def test_an_expired_lease_nobody_took_is_still_its_owners(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.lease_ends("first")
    await one.passes.load(claim, LEASE)
    assert await claimed_ids(one, 1) == set()


async def test_the_end_of_a_lease_is_the_retry(database_url: str) -> None:
    async with store(database_url, ttl=timedelta(milliseconds=150)) as dying, store(database_url, owner="two") as two:
        await dying.add("first", due_in_s=-1)
        await dying.add("woken meanwhile", due_in_s=-1)
        assert await claimed_ids(dying, 2) == {"first", "woken meanwhile"}
        await two.leases.wake(["woken meanwhile"])
        assert await claimed_ids(two, 2) == set()
        taken: set[str] = set()

        async def both() -> bool:
            taken.update(await claimed_ids(two, 2))
            return len(taken) == 2

        await eventually(both)
        assert await two.sql("SELECT array_agg(DISTINCT (lease_owner, fence)::text) FROM broadcast") == ["(two,2)"]


async def test_a_pass_that_gave_up_comes_back_after_its_wait(one: Store) -> None:
    await one.add("first", due_in_s=-1)
    claim = await one.claimed("first", lane=2)
    await one.passes.give_up(claim, timedelta(seconds=5))
    assert await claimed_ids(one, 2) == set()
    wait = await one.leases.next_due()
    assert wait is not None
    assert timedelta(seconds=4) < wait <= timedelta(seconds=5)


@contextlib.asynccontextmanager
async def listening(dsn: str) -> AsyncGenerator[list[str]]:
    told: list[str] = []

    def hear(_connection: object, _pid: int, channel: str, _payload: object) -> None:
        told.append(channel)

    listener = await asyncpg.connect(dsn)
    try:
        await listener.add_listener("broadcast_due", hear)
        yield told
    finally:
        await listener.close()


AT_REST = [("CREATED", "CREATED"), ("ENDED", "ENDED"), ("ENDED", "FAILED")]


@pytest.mark.parametrize(("target", "state"), AT_REST)
async def test_what_is_at_rest_is_never_claimed_and_no_wake_moves_it(
    one: Store, database_url: str, target: str, state: str
) -> None:
    async with listening(database_url) as told:
        for lane in (0, 1, 2):
            await one.add(f"rest{lane}", lane=lane, target=target, state=state)
        before = await one.everything()
        await one.leases.wake([f"rest{lane}" for lane in (0, 1, 2)] + ["nobody"])
        assert await one.everything() == before
        assert [await claimed_ids(one, lane) for lane in (0, 1, 2)] == [set(), set(), set()]
        assert await one.leases.next_due() is None
        # What was sent before this arrives before this.
        await one.sql("SELECT pg_notify('broadcast_due', 'mark')")
        await eventually(lambda: told)
        assert len(told) == 1


async def test_a_wake_of_many_is_told_once_and_moves_those_alone(one: Store, database_url: str) -> None:
    async with listening(database_url) as told:
        for name in ("a", "b", "c"):
            await one.add(name)
        await one.leases.wake(["a", "b", "nobody"])
        await one.leases.wake([])
        await one.sql("SELECT pg_notify('broadcast_due', 'mark')")
        await eventually(lambda: len(told) == 2)
        assert await claimed_ids(one, 2) == {"a", "b"}


async def test_a_wake_does_not_put_off_what_is_due_already(one: Store) -> None:
    await one.add("first", due_in_s=-60)
    before = (await one.row("first"))["due_at"]
    await one.leases.wake(["first"])
    assert (await one.row("first"))["due_at"] == before


async def test_next_due_is_the_nearest_of_all_lanes_and_leases(one: Store) -> None:
    assert await one.leases.next_due() is None
    expected: list[float] = []
    for name, due, lane in (("a", 500, 2), ("b", 100, 0), ("c", 50, 1), ("d", -5, 2)):
        await one.add(name, due_in_s=due, lane=lane)
        expected.append(due)
        wait = await one.leases.next_due()
        assert wait is not None
        assert abs(wait.total_seconds() - min(expected)) < 2
    await one.leases.claim(2, limit=10)
    wait = await one.leases.next_due()
    assert wait is not None
    assert abs(wait.total_seconds() - 20) < 2, "the end of the lease of d"


async def test_a_duty_is_one_replicas_until_its_time_is_over(one: Store, two: Store) -> None:
    long, short = timedelta(minutes=1), timedelta(milliseconds=50)
    assert await one.leases.take_duty("sweep", long)
    assert await one.leases.take_duty("sweep", long)
    assert not await two.leases.take_duty("sweep", long)
    assert await two.leases.take_duty("observe", long)
    assert await one.leases.take_duty("sweep", short)
    await eventually(lambda: two.leases.take_duty("sweep", long))
    assert not await one.leases.take_duty("sweep", long)
