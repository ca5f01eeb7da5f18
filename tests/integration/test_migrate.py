"""The database, brought up to date: once, whoever else tries, and never past a change of what was applied."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from broadcast_sandbox.postgres.server import PostgresServer
from service.store import migrate as module
from service.store.migrate import MigrationChanged, MigrationFailed, migrate, pending
from service.store.migrations.digest import DIGESTS_OF_FILES
from tests.ports import free_port
from tests.waiting import eventually

_numbers = itertools.count(1)
FILES = [("0001_a.sql", "CREATE TABLE a (n int)"), ("0002_b.sql", "CREATE TABLE b (n int); INSERT INTO b VALUES (1)")]


@pytest.fixture
async def empty_url(postgres: PostgresServer) -> AsyncIterator[str]:
    name = f"migrate_{os.getpid()}_{next(_numbers)}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What there is to apply; tests change it in place."""
    given = list(FILES)
    monkeypatch.setattr(module, "_files", lambda: sorted(given))
    return given


async def ask(dsn: str, query: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def is_pending(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return await pending(connection)
    finally:
        await connection.close()


async def tables(dsn: str) -> set[str]:
    return set(await ask(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))


async def test_the_real_migrations_are_applied_once(empty_url: str) -> None:
    missing = await is_pending(empty_url)
    assert missing[0] == "0001_initial.sql"
    assert await migrate(empty_url) == missing == sorted(missing)
    assert {"broadcast", "resource", "event", "head", "request", "budget", "duty"} <= await tables(empty_url)
    before = await ask(empty_url, "SELECT row::text FROM migration AS row ORDER BY name")
    assert await migrate(empty_url) == []
    assert await ask(empty_url, "SELECT row::text FROM migration AS row ORDER BY name") == before
    assert await is_pending(empty_url) == []


async def test_of_many_at_once_one_applies_and_all_end_well(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url) for _ in range(6)))
    assert sorted(bool(each) for each in done) == [False] * 5 + [True]
    assert await ask(empty_url, "SELECT revision::text FROM head") == ["0"]


async def test_a_new_file_is_applied_after_the_old(empty_url: str, files: list[tuple[str, str]]) -> None:
    last = files.pop()
    assert await migrate(empty_url) == ["0001_a.sql"]
    files.append(last)
    assert await is_pending(empty_url) == ["0002_b.sql"]
    assert await migrate(empty_url) == ["0002_b.sql"]
    assert await ask(empty_url, "SELECT n::text FROM b") == ["1"]


async def test_a_changed_file_is_refused_and_nothing_after_it_applied(
    empty_url: str, files: list[tuple[str, str]]
) -> None:
    last = files.pop()
    await migrate(empty_url)
    files[0] = ("0001_a.sql", FILES[0][1].replace("int", "bigint"))
    files.append(last)
    with pytest.raises(MigrationChanged, match=r"0001_a\.sql"):
        await migrate(empty_url)
    assert "b" not in await tables(empty_url)
    files[0] = FILES[0]
    assert await migrate(empty_url) == ["0002_b.sql"]


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ("SELECT 1", "-- why\nSELECT /* a /* nested */ one */ 1 -- end", True),
        ("SELECT (1)", "\n SELECT\t( 1 )\n", True),
        ("SELECT 1", "SELECT 2", False),
        ("SELECT 1 -- ; DROP TABLE a", "SELECT 1 ; DROP TABLE a", False),
        ("SELECT 'a--b'", "SELECT 'a'", False),
        ("SELECT 'a--b'", "SELECT 'a--c'", False),
        ("SELECT 'a  b'", "SELECT 'a b'", False),
        ("SELECT 'it''s -- one'", "SELECT 'it''s'", False),
        ("SELECT E'it\\'s -- one'", "SELECT E'it\\'s -- two'", False),
        ("SELECT date '2020-01-01' -- x", "SELECT date '2020-01-01'", True),
        ('SELECT 1 AS "a--b"', 'SELECT 1 AS "a--c"', False),
        ("DO $$ BEGIN NULL; -- a\nEND $$", "DO $$ BEGIN NULL; -- b\nEND $$", False),
        ("DO $a$ BEGIN PERFORM '$$ -- a'; END $a$", "DO $a$ BEGIN PERFORM '$$ -- b'; END $a$", False),
        ("DO $a$ BEGIN NULL; END $a$ -- x", "DO $a$ BEGIN NULL; END $a$", True),
        ("SELECT 1 - -1", "SELECT 1 --1", False),
        ("SELECT 1 <> 2", "SELECT 1 <> 2 /* ' */", True),
        ("SELECT a b FROM (SELECT 1 AS a) AS c", "SELECT ab FROM (SELECT 1 AS a) AS c", False),
    ],
)
async def test_comments_and_blanks_may_change_and_nothing_else(
    empty_url: str, files: list[tuple[str, str]], old: str, new: str, *, accepted: bool
) -> None:
    files[:] = [("0001_a.sql", old)]
    assert await migrate(empty_url) == ["0001_a.sql"]
    files[:] = [("0001_a.sql", new)]
    if accepted:
        assert await migrate(empty_url) == []
    else:
        with pytest.raises(MigrationChanged):
            await migrate(empty_url)


async def test_a_database_that_knows_the_digest_of_the_whole_file_is_recognised(
    empty_url: str, files: list[tuple[str, str]]
) -> None:
    await migrate(empty_url)
    await ask(
        empty_url, "UPDATE migration SET digest = encode(sha256('CREATE TABLE a (n int)'), 'hex') WHERE name ~ 'a'"
    )
    assert await migrate(empty_url) == []
    files[0] = ("0001_a.sql", "CREATE TABLE a (n bigint)")
    with pytest.raises(MigrationChanged, match=r"0001_a\.sql"):
        await migrate(empty_url)


async def test_databases_of_earlier_versions_are_recognised_by_the_digests_that_those_stored(empty_url: str) -> None:
    await migrate(empty_url)
    for name, (of_file, of_sql) in DIGESTS_OF_FILES.items():
        assert await ask(empty_url, f"SELECT digest FROM migration WHERE name = '{name}'") == [of_sql]  # noqa: S608 - ours
        await ask(empty_url, f"UPDATE migration SET digest = '{of_file}' WHERE name = '{name}'")  # noqa: S608 - ours
    assert await migrate(empty_url) == []


async def test_a_file_that_fails_leaves_nothing_of_itself(empty_url: str, files: list[tuple[str, str]]) -> None:
    files[1] = ("0002_b.sql", "CREATE TABLE b (n int); SELECT 1 / 0; CREATE TABLE c (n int)")
    with pytest.raises(MigrationFailed, match="DivisionByZero"):
        await migrate(empty_url)
    assert await tables(empty_url) == {"a", "migration"}
    assert await is_pending(empty_url) == ["0002_b.sql"]
    files[1] = FILES[1]
    assert await migrate(empty_url) == ["0002_b.sql"]


async def test_who_died_in_the_middle_holds_up_nobody(empty_url: str, files: list[tuple[str, str]]) -> None:
    """The lock goes with the connection."""
    holder = await asyncpg.connect(empty_url)
    await holder.execute("SELECT pg_advisory_lock($1)", module._LOCK)  # pyright: ignore[reportPrivateUsage]
    waiting = asyncio.create_task(migrate(empty_url))
    locks = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    async def waits() -> bool:
        return await ask(empty_url, locks) == ["1"]

    await eventually(waits)
    assert not waiting.done()
    holder.terminate()
    assert await asyncio.wait_for(waiting, 30) == [name for name, _ in files]


@pytest.mark.parametrize("where", ["nobody listens", "no such database", "wrong user"])
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(empty_url: str, where: str) -> None:
    address = urlsplit(empty_url)
    dsn = {
        "nobody listens": f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x",
        "no such database": f"{empty_url}_not",
        "wrong user": f"postgresql://nobody_of_that_name:hunter2@{address.hostname}:{address.port}/x",
    }[where]
    with pytest.raises(MigrationFailed) as caught:
        await migrate(dsn)
    assert "hunter2" not in str(caught.value)
    assert "cannot connect" in str(caught.value)


async def test_a_migration_behind_a_long_reader_gives_way_and_tries_again(
    empty_url: str, files: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits for its lock, all who come later wait behind it."""
    monkeypatch.setattr(module, "_PAUSE_S", (0.2, 0.3))
    await migrate(empty_url)
    reader, caller = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    files.append(("0003_c.sql", "ALTER TABLE a ADD COLUMN more int"))
    try:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM a")
        migrating = asyncio.create_task(migrate(empty_url))
        await asyncio.sleep(0.1)
        # Behind the migration's lock for its second at most, and not until the reader is done.
        for _ in range(3):
            await asyncio.wait_for(caller.fetch("SELECT * FROM a"), 5)
        await asyncio.sleep(1.5)
        assert not migrating.done()
        await reading.rollback()
        assert await asyncio.wait_for(migrating, 30) == ["0003_c.sql"]
    finally:
        await reader.close()
        await caller.close()


async def test_a_migration_that_never_gets_its_lock_says_what_to_look_for(
    empty_url: str, files: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", (0.0, 0.0))
    monkeypatch.setattr(module, "_LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(module, "_TRIES", 2)
    await migrate(empty_url)
    reader = await asyncpg.connect(empty_url)
    files.append(("0003_c.sql", "ALTER TABLE a ADD COLUMN more int"))
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM a")
            with pytest.raises(MigrationFailed, match=r"0003_c\.sql: a long transaction holds a lock"):
                await migrate(empty_url)
    finally:
        await reader.close()
    assert await is_pending(empty_url) == ["0003_c.sql"]


def test_no_two_migrations_have_one_number() -> None:
    """Two changes that were made beside each other would be applied in the order of their names, and seem one."""
    numbers = [name.partition("_")[0] for name, _ in module._files()]  # pyright: ignore[reportPrivateUsage]
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]
