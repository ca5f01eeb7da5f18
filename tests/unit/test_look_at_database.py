"""The look that readiness rests on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from service.app.shared import answers

if TYPE_CHECKING:
    from service.store.database import Database


class Slow:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def writable(self) -> bool:
        return await self.told


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_in_the_moment_of_the_answer_is_not_lost(steps: int) -> None:
    """Or a replica that is told to stop in that moment never ends."""
    database = Slow()
    looking = asyncio.create_task(answers(cast("Database", database)))
    await asyncio.sleep(0.01)
    database.told.set_result(True)
    for _ in range(steps):
        await asyncio.sleep(0)
    cancelled = looking.cancel()
    [result] = await asyncio.gather(looking, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError) is cancelled
