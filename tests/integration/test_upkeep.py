"""Old rows go in batches that no writer waits for, and a clock that was set back stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from service.domain.errors import StoreUnavailable
from service.domain.provider import Provider
from service.reconciler.background.sweeper import Sweeper
from service.store import broadcasts
from service.store.budgets import Budgets
from service.store.database import AT_ONCE
from service.store.measurements.outages import Outages
from service.store.sealing import Sealer
from service.store.upkeep import Upkeep
from service.store.viewers import Full, Viewers
from service.store.webhooks.inbox import Inbox
from tests.integration.store_stage import KEYS, Store, store
from tests.integration.test_query_plans import Asked, Listening, plans

LEASE = timedelta(seconds=20)
MONTH = timedelta(days=30)
BACKLOG = 200_000
STEP = "interval '300 s'"


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url, ttl=LEASE) as opened:
        yield opened


async def a_backlog(one: Store) -> None:
    # Over a connection of its own: the time limits of the service's are for its own statements.
    connection = await asyncpg.connect(one.database.dsn)
    try:
        await connection.execute(
            "INSERT INTO event (revision, broadcast_id, time, reason, actor, state) SELECT n, 'b' || n % 1000, "
            "now() - interval '31 days' + make_interval(secs => n / 1000), 'SEEN', 'x', 'LIVE' "
            "FROM generate_series(1, $1::bigint) AS n",
            BACKLOG,
        )
        await connection.execute(
            "INSERT INTO event (revision, broadcast_id, reason, actor, state) "
            "SELECT $1::bigint + n, 'young', 'SEEN', 'test', 'LIVE' FROM generate_series(1, 100) AS n",
            BACKLOG,
        )
        await connection.execute("UPDATE head SET revision = $1::bigint + 100", BACKLOG)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def test_a_batch_of_old_events_is_bounded_and_found_by_key(database_url: str) -> None:
    """However large the backlog is: neither the reading nor the deleting goes over the whole table."""
    async with store(database_url, database=Listening) as one:
        assert isinstance(one.database, Listening)
        await a_backlog(one)
        one.database.asked = []
        assert await one.changes.trim(older_than=MONTH) == AT_ONCE
        assert await one.changes.floor() == AT_ONCE
        [reads] = [each for each in one.database.asked if "FROM event" in each.query]
        for plan in await plans(one, reads):
            assert "event_pkey" in [node.get("Index Name") for node in plan]
            assert not [node for node in plan if node["Node Type"] in ("Seq Scan", "Sort")]
        for n in range(2, 5):
            assert await one.changes.trim(older_than=MONTH) == AT_ONCE
            assert await one.changes.floor() == n * AT_ONCE


async def test_a_whole_backlog_goes_in_one_round_and_the_young_stay(one: Store) -> None:
    await a_backlog(one)
    rounds = sweeper(one)
    await rounds.round()
    assert await one.sql("SELECT count(*) FROM event") == 100
    assert await one.sql("SELECT min(revision) - 1 = (SELECT floor FROM head) FROM event")


async def test_writers_do_not_wait_while_old_events_are_deleted(one: Store) -> None:
    """The counter row is free until the delete is done: a delete that waits for a lock holds up no writer."""
    await a_backlog(one)
    async with one.database.transaction() as reader:
        await reader.execute("SELECT 1 FROM event WHERE revision = 1 FOR KEY SHARE")
        trimming = asyncio.create_task(one.changes.trim(older_than=MONTH))
        await asyncio.sleep(0.3)
        assert not trimming.done()
        # A write, which takes the counter row, while the trim stands in the middle of its delete.
        await asyncio.wait_for(one.started("first"), 2)
    assert await trimming == AT_ONCE


def sweeper(one: Store, **more: Any) -> Sweeper:
    made = Sweeper(
        one.leases,
        cast("Any", None),
        one.broadcasts,
        one.changes,
        cast("Any", SimpleNamespace(refusals=SimpleNamespace(refused=()))),
        every=timedelta(seconds=60),
        grace=timedelta(0),
        **more,
    )

    async def swept() -> int:
        return 0

    # Orphans are another test's.
    made.sweep = swept
    return made


async def test_one_table_that_cannot_be_cleaned_up_keeps_no_other_from_it(
    one: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def away(**_: object) -> int:
        raise StoreUnavailable("a statement took too long")

    async def broken() -> int:
        raise ValueError("a bug")

    async def cleaned() -> int:
        done.append("cleaned")
        return 0

    async def oldest() -> dict[str, timedelta]:
        done.append("measured")
        return {"event": MONTH}

    monkeypatch.setattr(one.changes, "trim", away)
    monkeypatch.setattr(one.broadcasts, "forget_requests", away)
    rounds = sweeper(one, forget=[broken, cleaned], oldest=oldest)
    rounds.sweep = away
    await rounds.round()
    assert done == ["cleaned", "measured"]


async def test_request_ids_go_in_batches_by_their_index(database_url: str) -> None:
    async with store(database_url, database=Listening) as one:
        assert isinstance(one.database, Listening)
        await one.sql(
            "INSERT INTO request (request_id, method, digest, broadcast_id, create_time) "
            "SELECT 'r' || n, 'Test', '', 'b', now() - make_interval(mins => n) FROM generate_series(1, 30000) AS n"
        )
        await one.sql("ANALYZE request")
        week = timedelta(days=7)
        removed = [await one.broadcasts.forget_requests(older_than=week) for _ in range(5)]
        assert removed[:3] == [AT_ONCE] * 3
        assert sum(removed) == 30_000 - 7 * 24 * 60 + 1
        [plan, *_] = await plans(one, Asked(broadcasts._FORGET_REQUESTS, (week, AT_ONCE)))  # pyright: ignore[reportPrivateUsage]
        assert "request_age" in [node.get("Index Name") for node in plan]


async def test_what_was_deleted_long_ago_is_removed_with_all_that_hangs_on_it(one: Store) -> None:
    for broadcast_id in ("gone", "left", "uploading", "kept", "queued", "fresh"):
        await one.add(broadcast_id, target="ENDED", state="ENDED", due_in_s=9 if broadcast_id == "queued" else None)
        await one.sql(
            "INSERT INTO resource (broadcast_id, kind, ordinal, phase, intended_at, changed_at) "
            "VALUES ($1, 'room', 0, 'gone', now(), now())",
            broadcast_id,
        )
    await one.sql("INSERT INTO probe (broadcast_id) VALUES ('gone')")
    await one.sql("INSERT INTO host_stats (broadcast_id, identity, stats) VALUES ('gone', 'ann', '{}')")
    await one.sql("INSERT INTO viewer (broadcast_id, viewer_id, expire_time) VALUES ('gone', 'v', now())")
    await one.sql(
        "INSERT INTO resource (broadcast_id, kind, ordinal, phase, intended_at, changed_at) VALUES "
        "('left', 'stream', 0, 'deleting', now(), now()), ('uploading', 'upload', 0, 'present', now(), now()), "
        "('gone', 'upload', 0, 'present', now() - interval '40 days', now())"
    )
    await one.sql("UPDATE broadcast SET deleted = id <> 'kept', update_time = now() - interval '31 days'")
    await one.sql("UPDATE broadcast SET update_time = now() - interval '29 days' WHERE id = 'fresh'")
    assert await one.broadcasts.forget_deleted(older_than=MONTH) == 1
    assert {row["id"] for row in await one.all("SELECT id FROM broadcast")} == {
        "left",
        "uploading",
        "kept",
        "queued",
        "fresh",
    }
    for table in ("resource", "probe", "host_stats", "viewer"):
        assert await one.sql(f"SELECT count(*) FROM {table} WHERE broadcast_id = 'gone'") == 0  # noqa: S608
    assert await one.broadcasts.forget_deleted(older_than=MONTH) == 0
    # The id may be used again.
    await one.started("gone")


async def test_the_age_of_the_oldest_row_is_told_by_table(one: Store) -> None:
    upkeep = Upkeep(one.database, lease=LEASE)
    assert await upkeep.oldest() == {}
    await one.started("first")
    await one.sql("UPDATE event SET time = time - interval '3 days'")
    ages = await upkeep.oldest()
    assert list(ages) == ["event"]
    assert timedelta(days=3) <= ages["event"] < timedelta(days=3, minutes=5)


# A clock that was set back by 300 s: what was stored before is 300 s ahead.


async def test_no_time_counts_as_passed_for_a_budget(one: Store) -> None:
    budgets = Budgets(one.database)
    assert (await budgets.take("mux", rate=100, burst=5, floor=0)).granted
    await one.sql(f"UPDATE budget SET refilled_at = refilled_at + {STEP}")  # noqa: S608 - a constant
    taken = await budgets.take("mux", rate=100, burst=5, floor=0)
    assert taken.granted
    assert 0 <= await one.sql("SELECT tokens FROM budget") <= 5
    await one.sql("UPDATE budget SET tokens = -29505")
    await asyncio.sleep(0.05)
    assert (await budgets.take("mux", rate=100, burst=5, floor=0)).granted


async def test_turns_at_a_budget_are_as_far_away_as_they_were(one: Store) -> None:
    take = partial(Budgets(one.database).take, "mux", rate=0.5, burst=1.0, floor=0)
    assert (await take()).granted
    assert not (await take()).granted
    await one.sql(
        f"UPDATE budget SET refilled_at = refilled_at + {STEP}, "  # noqa: S608 - a constant
        f"next_turns = ARRAY(SELECT turn + {STEP} FROM unnest(next_turns) AS turn)"
    )
    after = await take()
    assert after.come_back - await one.database.now() < timedelta(seconds=10)


async def test_due_times_turns_and_leases_come_back_with_the_clock(one: Store) -> None:
    for broadcast_id in ("due", "leased", "later", "rest", "now"):
        await one.add(broadcast_id, due_in_s={"due": 2, "later": 1000, "now": -5}.get(broadcast_id))
    await one.sql("UPDATE broadcast SET lease_until = now() + interval '15 s', fence = 7 WHERE id = 'leased'")
    upkeep = Upkeep(one.database, lease=LEASE)
    assert await upkeep.look_at_clock() == timedelta()
    await one.sql(
        f"UPDATE broadcast SET due_at = due_at + {STEP}, lease_until = lease_until + {STEP} "  # noqa: S608 - a constant
        "WHERE id <> 'now'"
    )
    await one.sql(f"UPDATE clock SET seen_at = seen_at + {STEP}")  # noqa: S608 - a constant
    back = await upkeep.look_at_clock()
    assert timedelta(seconds=290) < back <= timedelta(seconds=300)
    rows = {
        row["id"]: row["due_in"]
        for row in await one.all("SELECT id, extract(epoch FROM due_at - now())::float AS due_in FROM broadcast")
    }
    assert rows["due"] < 12
    assert 900 < rows["later"] < 1012
    assert rows["rest"] is None
    assert rows["now"] < 0
    # Who held the lease writes nothing any more once another has claimed the row.
    assert "leased" in {claim.broadcast_id for claim in await one.leases.claim(2, limit=10)}
    assert (await one.row("leased"))["fence"] == 8
    assert await upkeep.look_at_clock() == timedelta()


async def test_a_clock_that_goes_on_moves_nothing(one: Store) -> None:
    await one.add("due", due_in_s=100)
    before = await one.row("due")
    upkeep = Upkeep(one.database, lease=LEASE)
    for _ in range(3):
        assert await upkeep.look_at_clock() == timedelta()
    await one.sql("UPDATE clock SET seen_at = now() - interval '1 hour'")
    assert await upkeep.look_at_clock() == timedelta()
    assert await one.row("due") == before


async def test_a_duty_from_before_the_step_is_taken_over(one: Store) -> None:
    ttl = timedelta(seconds=30)
    await one.sql("INSERT INTO duty (name, owner, lease_until) VALUES ('sweeper', 'dead', now() + interval '20 s')")
    assert not await one.leases.take_duty("sweeper", ttl)
    await one.sql(f"UPDATE duty SET lease_until = lease_until + {STEP}")  # noqa: S608 - a constant
    assert await one.leases.take_duty("sweeper", ttl)


async def test_a_duty_is_as_far_away_as_it_was(one: Store) -> None:
    """Nobody asked for it in the first seconds after the step. Its owner is dead, and no provider would be observed for
    five minutes.
    """
    await one.sql(
        "INSERT INTO duty (name, owner, lease_until) VALUES "
        "('observer', 'dead', now() + interval '20 s'), ('sweeper', 'dead', now() - interval '1 s')"
    )
    upkeep = Upkeep(one.database, lease=LEASE)
    await upkeep.look_at_clock()
    await one.sql(f"UPDATE duty SET lease_until = lease_until + {STEP} - interval '60 s'")  # noqa: S608 - a constant
    await one.sql(f"UPDATE clock SET seen_at = seen_at + {STEP}")  # noqa: S608 - a constant
    assert not await one.leases.take_duty("observer", LEASE)
    await upkeep.look_at_clock()
    assert await one.sql("SELECT max(lease_until) < now() + interval '1 s' FROM duty")
    assert await one.leases.take_duty("observer", LEASE)


async def test_an_outage_is_noticed_although_its_begin_is_ahead(one: Store) -> None:
    outages, away = Outages(one.database), ("UNAVAILABLE", "no answer")
    await outages.report(Provider.MUX, away)
    await one.sql(f"UPDATE provider SET unreachable_since = now() + {STEP}, checked_at = now() + {STEP}")  # noqa: S608
    await outages.report(Provider.MUX, away)
    assert await one.sql("SELECT unreachable_since <= now() FROM provider")


async def test_a_write_is_no_obstacle_for_the_look(one: Store) -> None:
    """Replicas that look at once wait for each other only for a moment, and one of them moves the rows."""
    upkeep = Upkeep(one.database, lease=LEASE)
    await one.sql(f"UPDATE clock SET seen_at = seen_at + {STEP}")  # noqa: S608 - a constant
    backs = await asyncio.gather(*(upkeep.look_at_clock() for _ in range(6)))
    assert len([back for back in backs if back]) == 1


async def test_slots_of_viewers_expire_when_they_would_have(one: Store) -> None:
    await one.add("show")
    viewers, minute = Viewers(one.database), timedelta(minutes=1)
    await viewers.enter("show", "left", slots=1, lease=minute)
    upkeep = Upkeep(one.database, lease=LEASE)
    await upkeep.look_at_clock()
    await one.sql(f"UPDATE viewer SET expire_time = expire_time + {STEP}")  # noqa: S608 - a constant
    await one.sql(f"UPDATE clock SET seen_at = seen_at + {STEP}")  # noqa: S608 - a constant
    await upkeep.look_at_clock()
    full = await viewers.enter("show", "next", slots=1, lease=minute)
    assert isinstance(full, Full)
    assert full.next_free <= minute


async def test_a_wake_from_before_the_step_is_no_reason_to_look_for_ever(one: Store) -> None:
    await one.add("show", due_in_s=5)
    upkeep = Upkeep(one.database, lease=LEASE)
    await upkeep.look_at_clock()
    await one.sql(f"UPDATE broadcast SET dirty_at = now() + {STEP}")  # noqa: S608 - a constant
    await one.sql(f"UPDATE clock SET seen_at = seen_at + {STEP}")  # noqa: S608 - a constant
    await upkeep.look_at_clock()
    assert await one.sql("SELECT dirty_at <= now() FROM broadcast")


async def test_what_is_ahead_of_the_clock_keeps_nothing_older_from_its_removal(one: Store) -> None:
    week = timedelta(days=7)
    for number, age in enumerate((f"- {STEP}", "interval '8 days'")):
        await one.sql(
            "INSERT INTO webhook (provider, event_id, type, outcome, receive_time, body) "  # noqa: S608 - constants
            f"VALUES ('mux', $1, 'x', 'foreign', now() - ({age}), '')",
            str(number),
        )
        await one.sql(
            "INSERT INTO request (request_id, method, digest, broadcast_id, create_time) "  # noqa: S608 - constants
            f"VALUES ($1, 'Test', '', 'b', now() - ({age}))",
            str(number),
        )
    inbox = Inbox(one.database, Sealer(KEYS), cast("Any", None))
    assert (await inbox.forget(older_than=week), await inbox.forget(older_than=week)) == (1, 0)
    assert await one.broadcasts.forget_requests(older_than=week) == 1
    # Events that were written after the step are older by their time than those before it.
    for revision, age in enumerate(
        ("interval '40 days'", f"interval '31 days' - {STEP}", "interval '31 days'", "-" + STEP), 1
    ):
        await one.sql(
            "INSERT INTO event (revision, broadcast_id, time, reason, actor, state) "  # noqa: S608 - constants
            f"VALUES ($1, 'b', now() - ({age}), 'SEEN', 'x', 'LIVE')",
            revision,
        )
    await one.sql("UPDATE head SET revision = 4")
    assert await one.changes.trim(older_than=MONTH) == 3
    assert (await one.changes.floor(), await one.sql("SELECT min(revision) FROM event")) == (3, 4)
    assert await one.changes.trim(older_than=MONTH) == 0
