"""The queries that run all the time, on ten thousand broadcasts of which most are at rest: by index, every one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from service.store.broadcasts import Filter
from service.store.database import Connection, Database
from service.store.leases import CLAIM
from tests.integration.store_stage import Store, store

RUNNING, EVENTS = 1_000, 30_000


# One in ten runs; of these one in ten is under a lease.
_FILL = (
    """
    INSERT INTO broadcast (id, spec, target, state, create_time, due_at, lease_until, lane)
    SELECT 'b' || n, '{}', CASE WHEN n % 10 = 0 THEN 'LIVE' ELSE 'ENDED' END,
           CASE WHEN n % 10 = 0 THEN 'LIVE' ELSE 'ENDED' END, now() - make_interval(secs => n),
           CASE WHEN n % 10 = 0 AND n % 100 <> 0 THEN now() + make_interval(secs => n % 600 - 60) END,
           CASE WHEN n % 100 = 0 THEN now() + interval '10 s' END, (n / 10 % 3)::smallint
    FROM generate_series(1, 10000) AS n
    """,
    """
    INSERT INTO event (revision, broadcast_id, reason, actor, state, snapshot)
    SELECT n, 'b' || n % 10000, 'SEEN', 'test', 'LIVE', to_jsonb(b)
    FROM generate_series(1, 30000) AS n, (SELECT * FROM broadcast WHERE id = 'b1') AS b
    """,
    "UPDATE head SET revision = 30000",
    "ANALYZE",
)


@dataclass(frozen=True, slots=True)
class Asked:
    query: str
    args: tuple[Any, ...]


class Listening(Database):
    """Remembers what it was asked, so that plans are those of the very queries of the service."""

    asked: list[Asked]

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        def note(record: asyncpg.connection.LoggedQuery) -> None:
            if record.query.lstrip().upper().startswith(("SELECT", "UPDATE", "WITH", "INSERT")):
                self.asked.append(Asked(record.query, tuple(record.args)))

        async with super().connection() as connection:
            with connection.query_logger(note):
                yield connection


@pytest.fixture
async def filled(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url, database=Listening) as opened:
        for statement in _FILL:
            await opened.sql(statement)
        yield opened


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def plans(of: Store, asked: Asked) -> list[list[dict[str, Any]]]:
    """The nodes of the plan for these very values, and of the one kept for any (which a prepared query may get)."""
    async with of.database.connection() as connection:
        found = [await connection.fetchval(f"EXPLAIN (FORMAT JSON) {asked.query}", *asked.args)]
        if asked.args and connection.get_server_version().major >= 16:
            # The only way to say parameters without values.
            [row] = await connection.fetch(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_typed(asked.query)}")
            found.append(row[0])
    return [list(nodes(json.loads(each)[0]["Plan"])) for each in found]


def _typed(query: str) -> str:
    # LIMIT says the type of its parameter, comparisons that of theirs; now() + $2 cannot.
    return re.sub(r"= ANY\((\$\d+)\)", r"= ANY(\1::text[])", query)


async def asked_by(of: Store, call: Callable[[Store], Awaitable[object]], about: str) -> Asked:
    assert isinstance(of.database, Listening)
    of.database.asked = []
    await call(of)
    found = [each for each in of.database.asked if re.search(rf"\b(FROM|UPDATE) {about}\b", each.query)]
    assert found, of.database.asked
    return found[-1]


async def head_minus(of: Store, revisions: int) -> object:
    return await of.changes.after(await of.changes.head() - revisions)


async def second_page(of: Store) -> object:
    rows, _ = await of.broadcasts.list(Filter(), limit=50)
    return await of.broadcasts.list(Filter(), limit=50, before=(rows[-1].create_time, rows[-1].id))


Call = Callable[[Store], Awaitable[object]]
CASES: dict[str, tuple[Call, str, str]] = {
    "claim": (lambda of: of.leases.claim(1, limit=16), "broadcast", "broadcast_due"),
    "next due": (lambda of: of.leases.next_due(), "broadcast", "broadcast_due"),
    "wake": (lambda of: of.leases.wake(["b10", "b20"]), "broadcast", "broadcast_pkey"),
    "changes of now": (lambda of: head_minus(of, 10), "event", "event_pkey"),
    "changes of ever": (lambda of: head_minus(of, EVENTS), "event", "event_pkey"),
    "story": (lambda of: of.changes.story("b10", after=0, limit=50), "event", "event_story"),
    "list": (lambda of: of.broadcasts.list(Filter(), limit=50), "broadcast", "broadcast_listed"),
    "next page": (second_page, "broadcast", "broadcast_listed"),
    "get": (lambda of: of.broadcasts.get("b10"), "broadcast", "broadcast_pkey"),
}


async def test_by_index(filled: Store) -> None:
    wrong: list[str] = []
    for name, (call, table, index) in CASES.items():
        for plan in await plans(filled, await asked_by(filled, call, table)):
            # The one row of head is read as it is.
            wrong += [f"{name}: scans {node['Relation Name']}" for node in plan if _reads_all(node)]
            # The order is the index's: a page reads its rows and no more.
            wrong += [f"{name}: {node['Node Type']}" for node in plan if "Sort" in node["Node Type"]]
            wrong += [f"{name}: not by {index}"] * (index not in [node.get("Index Name") for node in plan])
    assert not wrong


def _reads_all(node: dict[str, Any]) -> bool:
    return node["Node Type"] == "Seq Scan" and node["Relation Name"] != "head"


async def test_the_rows_of_a_lane_come_from_the_index_in_order(filled: Store) -> None:
    """The inner select of CLAIM stops at its limit: it sorts nothing, and reads no row that is at rest."""
    found = re.search(r"MATERIALIZED \((.*)\)\s*UPDATE", CLAIM, re.DOTALL)
    assert found is not None
    inner = found[1].replace("$3", "$1").replace("$4", "$2").replace("$5", "$3")
    [plan, *_] = await plans(filled, Asked(inner, (1, 16, timedelta())))
    assert [node["Node Type"] for node in plan] == ["Limit", "LockRows", "Index Scan"]
    assert plan[-1]["Index Name"] == "broadcast_due"
    # And nothing that is at rest is in the index to be read.
    await filled.sql("VACUUM ANALYZE broadcast")
    assert await filled.sql("SELECT reltuples FROM pg_class WHERE relname = 'broadcast_due'") == RUNNING
    # Old changes go by their key too.
    [plan, *_] = await plans(filled, Asked("DELETE FROM event WHERE revision <= $1", (100,)))
    assert "event_pkey" in [node.get("Index Name") for node in plan]
