"""The providers' rate limits, shared by all replicas through one row."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from asyncpg.connection import LoggedQuery

from service.providers.budget import Bucket, Budget, Limit, Limits, Rank
from service.store.budgets import Budgets
from service.store.database import Database
from tests.integration.store_stage import Store, store
from tests.waiting import eventually

# As good as never refilled.
SLOW = 1e-6


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url, size=3) as opened:
        yield opened


async def clock(database: Database) -> datetime:
    async with database.connection() as connection:
        return await connection.fetchval("SELECT clock_timestamp()")


async def drained(budgets: Budgets, name: str, *, burst: float, floor: float, rate: float = SLOW) -> int:
    """How many tokens there are for one who leaves *floor* behind."""
    granted = 0
    while (await budgets.take(name, rate=rate, burst=burst, floor=floor)).granted:
        granted += 1
    return granted


async def test_the_rate_holds_however_many_ask_at_once(one: Store) -> None:
    budgets, rate, burst = Budgets(one.database), 20.0, 10.0
    granted, refused = 0, 0
    began = await clock(one.database)

    async def ask() -> None:
        nonlocal granted, refused
        while granted < 30 or not refused:
            if (await budgets.take("fast", rate=rate, burst=burst, floor=0)).granted:
                granted += 1
            else:
                refused += 1

    await asyncio.gather(*(ask() for _ in range(50)))
    elapsed = (await clock(one.database) - began).total_seconds()
    # The grants of 50 who ask all the time are all that the bucket has, and not one more.
    assert granted <= burst + rate * elapsed
    left = await one.sql("SELECT tokens FROM budget")
    assert -0.001 <= left < 1


async def test_at_no_moment_of_a_burst_are_more_granted_than_there_are(one: Store) -> None:
    budgets = Budgets(one.database)
    turns = await asyncio.gather(*(budgets.take("b", rate=SLOW, burst=10, floor=0) for _ in range(50)))
    assert sum(turn.granted for turn in turns) == 10


async def test_a_starved_bucket_still_serves_those_above(one: Store) -> None:
    budgets = Budgets(one.database)
    assert await drained(budgets, "b", burst=10, floor=Rank.SWEEP) == 10 - Rank.SWEEP
    assert await drained(budgets, "b", burst=10, floor=Rank.HEAL) == 1
    assert await drained(budgets, "b", burst=10, floor=Rank.START) == 1
    for rank in (Rank.START, Rank.HEAL, Rank.SWEEP):
        assert await drained(budgets, "b", burst=10, floor=rank) == 0
    assert await drained(budgets, "b", burst=10, floor=Rank.STOP) == 1
    assert await drained(budgets, "b", burst=10, floor=Rank.STOP) == 0


async def test_a_thousand_starts_leave_a_stop_its_token(one: Store) -> None:
    budget = Budget(Budgets(one.database).take, Limits(mux_post=Limit(rate=SLOW, burst=5)))
    starts = await asyncio.gather(*(budget.take(Bucket.STREAMS_POST, Rank.START) for _ in range(100)))
    assert starts.count(None) == 4
    assert await budget.take(Bucket.STREAMS_POST, Rank.STOP) is None
    put_off = await budget.take(Bucket.STREAMS_POST, Rank.STOP)
    assert put_off is not None
    # Buckets know nothing of each other.
    assert await budget.take(Bucket.STREAMS_OTHER, Rank.SWEEP) is None
    assert await budget.take(Bucket.ROOMS, Rank.SWEEP) is None


@pytest.mark.parametrize("rank", list(Rank))
async def test_the_smallest_bucket_serves_every_rank(one: Store, rank: Rank) -> None:
    budget = Budget(Budgets(one.database).take, Limits(mux_post=Limit(rate=SLOW, burst=1)))
    assert await budget.take(Bucket.STREAMS_POST, rank) is None
    assert await budget.take(Bucket.STREAMS_POST, Rank.STOP) is not None


async def test_who_waits_is_given_turns_one_token_apart(one: Store) -> None:
    budgets, rate = Budgets(one.database), 4.0
    # A burst of less than one token: nothing is ever granted, and nobody takes a turn away.
    before = await clock(one.database)
    turns = await asyncio.gather(*(budgets.take("b", rate=rate, burst=0.5, floor=0) for _ in range(40)))
    after = await clock(one.database)
    assert not any(turn.granted for turn in turns)
    come_back = sorted(turn.come_back for turn in turns)
    gaps = [later - earlier for earlier, later in itertools.pairwise(come_back)]
    assert set(gaps) == {timedelta(seconds=1 / rate)}
    assert before + timedelta(seconds=1 / rate) <= come_back[0] <= after + timedelta(seconds=1 / rate)


async def test_turns_of_long_ago_put_nobody_off(one: Store) -> None:
    budgets = Budgets(one.database)
    assert await drained(budgets, "b", burst=1, floor=0) == 1
    await one.sql("UPDATE budget SET next_turns = array_fill(now() - interval '1 day', ARRAY[4])")
    turn = await budgets.take("b", rate=0.001, burst=1, floor=0)
    assert timedelta(seconds=990) < turn.come_back - await clock(one.database) <= timedelta(seconds=1000)


async def test_a_long_rest_fills_the_bucket_and_no_more(one: Store) -> None:
    budgets = Budgets(one.database)
    assert await drained(budgets, "b", burst=7, floor=0) == 7
    await one.sql("UPDATE budget SET refilled_at = now() - interval '1 day'")
    # A day at this rate makes 8640 tokens.
    assert (await budgets.take("b", rate=0.1, burst=7, floor=0)).granted
    assert await drained(budgets, "b", burst=7, floor=0) == 6


async def test_a_token_is_there_when_its_turn_comes(one: Store) -> None:
    budgets, rate = Budgets(one.database), 20.0
    while (turn := await budgets.take("b", rate=rate, burst=1, floor=0)).granted:
        continue

    async def come() -> bool:
        return await clock(one.database) >= turn.come_back

    await eventually(come, every=0.005)
    assert (await budgets.take("b", rate=rate, burst=1, floor=0)).granted


async def test_a_request_is_one_statement(one: Store) -> None:
    """A round trip of the network between the lock and the commit would hold up all who ask for the same bucket."""
    budgets, statements = Budgets(one.database), list[str]()

    def logged(query: LoggedQuery) -> None:
        statements.append(query.query)

    assert (await budgets.take("b", rate=SLOW, burst=3, floor=0)).granted
    async with (
        one.database.connection() as first,
        one.database.connection() as second,
        one.database.connection() as third,
    ):
        for connection in (first, second, third):
            connection.add_query_logger(logged)
    for floor in (0, 0, 0, 2):
        await budgets.take("b", rate=SLOW, burst=3, floor=floor)
    await budgets.take("b", rate=SLOW, burst=3, floor=0, wanted=24)
    asked = [statement.split()[0] for statement in statements if "budget" in statement]
    assert asked == ["WITH"] * 5
    assert not {"BEGIN;", "COMMIT;"} & {statement.strip() for statement in statements}


async def test_replicas_share_one_bucket(one: Store, database_url: str) -> None:
    async with store(database_url, size=3) as two:
        shares = await asyncio.gather(
            *(drained(Budgets(replica.database), "b", burst=20, floor=1) for replica in (one, two) for _ in range(3))
        )
        assert sum(shares) == 19


async def test_a_new_limit_holds_at_once(one: Store) -> None:
    budgets = Budgets(one.database)
    assert (await budgets.take("b", rate=SLOW, burst=100, floor=0)).granted
    assert await drained(budgets, "b", burst=5, floor=0) == 5


async def pass_time(of: Store, seconds: float) -> timedelta:
    """As if everything in the buckets had happened so much earlier."""
    await of.sql(
        "UPDATE budget SET refilled_at = refilled_at - make_interval(secs => $1), "
        "next_turns = (SELECT array_agg(t - make_interval(secs => $1) ORDER BY n) "
        "FROM unnest(next_turns) WITH ORDINALITY AS each (t, n))",
        seconds,
    )
    return timedelta(seconds=seconds)


async def test_who_waits_is_served_before_who_comes_later(one: Store) -> None:
    budget = Budget(Budgets(one.database).take, Limits(mux_post=Limit(rate=0.01, burst=5)))

    async def ask(rank: Rank = Rank.START, turn: datetime | None = None) -> datetime | None:
        return await budget.take(Bucket.STREAMS_POST, rank, turn=turn)

    while (first := await ask()) is None:
        continue
    second, third = await ask(), await ask()
    assert second is not None
    assert third is not None
    assert third - second == second - first == timedelta(seconds=100)
    passed = await pass_time(one, 110)
    # A token has come, and it is that of the first: nobody else of this rank gets it, called or not.
    assert await ask() is not None
    assert await ask(turn=second - passed) is not None
    assert await ask(turn=first - passed) is None
    # It was the only one, but for the one that is left to stops.
    assert await ask(turn=first - passed) is not None
    assert await ask(Rank.STOP) is None


async def test_who_would_rather_go_without_takes_no_turn(one: Store) -> None:
    budget = Budget(Budgets(one.database).take, Limits(mux_post=Limit(rate=0.01, burst=5)))
    assert await budget.spare(Bucket.STREAMS_POST, Rank.SWEEP)
    assert await budget.spare(Bucket.STREAMS_POST, Rank.SWEEP)
    before = await one.sql("SELECT next_turns FROM budget")
    for _ in range(3):
        assert not await budget.spare(Bucket.STREAMS_POST, Rank.SWEEP)
    assert await one.sql("SELECT next_turns FROM budget") == before
    assert await budget.take(Bucket.STREAMS_POST, Rank.STOP) is None


async def test_a_turn_that_comes_to_an_empty_bucket_stays_a_turn(one: Store) -> None:
    """A stop took the token: the one whose turn it was does not go to the end of the queue."""
    budgets = Budgets(one.database)
    while (turn := await budgets.take("b", rate=0.1, burst=3, floor=1)).granted:
        continue
    await budgets.take("b", rate=0.1, burst=3, floor=1)
    queue = await one.sql("SELECT next_turns FROM budget")
    passed = await pass_time(one, 10.5)
    for _ in range(2):
        assert (await budgets.take("b", rate=0.1, burst=3, floor=0)).granted
    again = await budgets.take("b", rate=0.1, burst=3, floor=1, turn=turn.come_back - passed)
    assert not again.granted
    assert await one.sql("SELECT next_turns FROM budget") == [each - passed for each in queue]
