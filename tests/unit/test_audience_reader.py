"""The audience as callers read it: at most once a second, and together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from service.api.audience.reader import FRESH_S, AudienceReader
from service.domain.audience.audience import Audience
from service.domain.broadcast import Broadcast, Spec, Target
from service.domain.errors import StoreUnavailable
from service.store.audience.counts import AudienceCounts

T0 = datetime(2026, 11, 1, tzinfo=UTC)


class Counts:
    def __init__(self) -> None:
        self.at = 0.0
        self.asked: list[list[str]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails: Exception | None = None

    async def of(self, broadcast_ids: Sequence[str]) -> dict[str, Audience]:
        self.asked.append(list(broadcast_ids))
        await self.answers.wait()
        if self.fails is not None:
            raise self.fails
        return {each: Audience(viewers=len(self.asked), read_at=T0) for each in broadcast_ids}


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def reader(counts: Counts) -> AudienceReader:
    return AudienceReader(cast("AudienceCounts", counts), clock=lambda: counts.at)


def broadcast(id: str, target: Target = Target.LIVE) -> Broadcast:
    return Broadcast(id=id, spec=Spec(), create_time=T0, update_time=T0, target=target)


async def test_a_thousand_who_ask_within_a_second_are_one_reading(counts: Counts, reader: AudienceReader) -> None:
    for _ in range(10):
        await asyncio.gather(*(reader.of([broadcast("show")]) for _ in range(100)))
    assert counts.asked == [["show"]]
    counts.at += FRESH_S + 0.1
    assert (await reader.of([broadcast("show")]))["show"].viewers == 2


async def test_those_who_ask_during_a_reading_are_read_together_after_it(
    counts: Counts, reader: AudienceReader
) -> None:
    counts.answers.clear()
    first = asyncio.create_task(reader.of([broadcast("first")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(reader.of([broadcast(f"b{n % 10}")])) for n in range(50)]
    await asyncio.sleep(0)
    counts.answers.set()
    assert set(await first) == {"first"}
    assert [list(each) for each in await asyncio.gather(*others)] == [[f"b{n % 10}"] for n in range(50)]
    assert counts.asked == [["first"], sorted({f"b{n}" for n in range(10)})]


async def test_a_caller_who_is_cancelled_cuts_off_nobody(counts: Counts, reader: AudienceReader) -> None:
    counts.answers.clear()
    gone = asyncio.create_task(reader.of([broadcast("show")]))
    stays = asyncio.create_task(reader.of([broadcast("show")]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    counts.answers.set()
    assert set(await stays) == {"show"}


async def test_nothing_is_read_of_broadcasts_that_do_not_run(counts: Counts, reader: AudienceReader) -> None:
    assert await reader.of([broadcast("new", Target.CREATED), broadcast("over", Target.ENDED)]) == {}
    assert counts.asked == []


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ZeroDivisionError()])
async def test_a_reading_that_fails_leaves_the_audience_out_and_the_next_one_reads_again(
    counts: Counts, reader: AudienceReader, error: Exception
) -> None:
    counts.fails = error
    assert await reader.of([broadcast("show")]) == {}
    counts.fails = None
    assert set(await reader.of([broadcast("show")])) == {"show"}
