"""The queries of docs/operations.md say what is said of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from service.domain.broadcast import EndReason, State
from service.domain.lifecycle import Event
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Recording, Upload
from tests.integration.store_stage import T0, room, store

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
KEPT = Upload(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="A1",
    intended_at=T0,
    changed_at=T0,
    observed_at=T0,
    recording=Recording(asset_id="A1", uploaded=True),
)


async def test_nothing_is_left_of_what_is_over_but_recordings(database_url: str) -> None:
    [left] = [query for query in re.findall(r"```sql\n(.*?)```", OPERATIONS, re.DOTALL) if "FROM resource" in query]
    async with store(database_url) as one:
        await one.started("first")
        claim = await one.claimed("first")
        gone = replace(room(), phase=Phase.GONE)
        over = await one.passes.record(
            claim, [gone, KEPT], events=[Event(reason=EventReason.STATUS_CHANGED)], end=EndReason.STOPPED
        )
        assert over.broadcast.state is State.ENDED
        assert await one.all(left) == []
        await one.sql("UPDATE resource SET phase = 'present' WHERE kind = 'room'")
        assert [(row["broadcast_id"], row["kind"]) for row in await one.all(left)] == [("first", "room")]


async def test_the_queries_between_the_lines_run(database_url: str) -> None:
    queries = re.findall(r"`(SELECT [^`]*)`", OPERATIONS)
    assert queries
    async with store(database_url) as one:
        for query in queries:
            await one.all(query)
