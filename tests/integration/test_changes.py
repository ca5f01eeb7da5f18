"""The change log when transactions end in another order than they began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.domain.lifecycle import Event
from service.domain.reasons import Actor, EventReason
from service.store.changes import Changes, append
from service.store.database import Database
from service.store.rows import Rows
from service.store.sealing import Sealer
from tests.waiting import eventually


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url)
    async with database.connection() as connection:
        await connection.execute("INSERT INTO broadcast (id, spec) VALUES ('one', '{}'), ('two', '{}')")
    yield database
    await database.close()


async def log(connection: asyncpg.Connection[asyncpg.Record], broadcast_id: str) -> None:
    await append(connection, broadcast_id, [Event(reason=EventReason.STATUS_CHANGED)], actor=Actor.CALLER, before=None)


async def waits(database: Database) -> bool:
    async with database.connection() as connection:
        return await connection.fetchval(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )


@pytest.mark.parametrize("first_ends", ["commit", "rollback"])
async def test_no_reader_sees_a_revision_without_those_before_it(
    database: Database, database_url: str, first_ends: str
) -> None:
    changes = Changes(database, Rows(Sealer([b"k" * 32])))
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    seen: list[int] = []
    cursor = 0

    async def read_on() -> bool:
        nonlocal cursor
        found, cursor, *_ = await changes.after(cursor)
        seen.extend(each.revision for each in found)
        return bool(found)

    try:
        begun_first, begun_second = first.transaction(), second.transaction()
        await begun_first.start()
        await begun_second.start()
        # The one that began last is the first to log, so revision 1 is of the transaction that began later. Logging is
        # a part of the commit; here it is done before, so that the commit can be watched in its midst.
        await log(first, "one")
        await log(second, "two")
        await second.execute("SET CONSTRAINTS ALL IMMEDIATE")
        waiting = asyncio.ensure_future(begun_first.commit())
        await eventually(lambda: waits(database))
        assert not waiting.done()
        assert not await read_on()
        assert cursor == 0
        await (begun_second.commit() if first_ends == "commit" else begun_second.rollback())
        await read_on()
        await waiting
        await read_on()
    finally:
        await first.close()
        await second.close()
    # What was rolled back leaves no hole: its revision goes to the next.
    assert seen == ([1, 2] if first_ends == "commit" else [1])
    assert cursor == await changes.head() == len(seen)


async def test_writers_and_readers_at_once_miss_nothing(database: Database, database_url: str) -> None:
    changes = Changes(database, Rows(Sealer([b"k" * 32])))
    each_writes, writers = 25, 4

    async def write() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            for _ in range(each_writes):
                async with connection.transaction():
                    await log(connection, "one")
        finally:
            await connection.close()

    async def follow() -> list[int]:
        seen: list[int] = []
        cursor = 0
        while len(seen) < each_writes * writers:
            found, cursor, *_ = await changes.after(cursor, limit=7)
            seen += [change.revision for change in found]
        return seen

    readers = [asyncio.ensure_future(follow()) for _ in range(2)]
    await asyncio.gather(*(write() for _ in range(writers)))
    whole = list(range(1, each_writes * writers + 1))
    assert await asyncio.wait_for(asyncio.gather(*readers), 20) == [whole, whole]


async def test_nobody_waits_for_a_transaction_that_has_logged_and_is_not_committed(
    database: Database, database_url: str
) -> None:
    """Between the two may be a round trip of a hundred milliseconds, or a process that stands still."""
    changes = Changes(database, Rows(Sealer([b"k" * 32])))
    slow, quick = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        begun = slow.transaction()
        await begun.start()
        await log(slow, "one")
        async with asyncio.timeout(2), quick.transaction():
            await log(quick, "two")
        assert [each.broadcast.id for each in (await changes.after(0)).changes] == ["two"]
        await begun.commit()
        read = await changes.after(0)
        assert [(each.revision, each.broadcast.id) for each in read.changes] == [(1, "two"), (2, "one")]
    finally:
        await slow.close()
        await quick.close()


async def test_several_changes_of_one_transaction_are_logged_in_their_order(
    database: Database, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            for broadcast_id in ("two", "one", "two"):
                await log(connection, broadcast_id)
        found = await connection.fetch("SELECT revision, broadcast_id FROM event ORDER BY revision")
        assert [tuple(row) for row in found] == [(1, "two"), (2, "one"), (3, "two")]
        assert await connection.fetchval("SELECT count(*) FROM pending_change") == 0
    finally:
        await connection.close()
