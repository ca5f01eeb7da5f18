from collections.abc import AsyncIterator

import pytest

from tests.conformance.stage import Stage, in_memory, in_postgres


@pytest.fixture
async def in_a_database(database_url: str) -> AsyncIterator[Stage]:
    async with in_postgres(database_url) as stage:
        yield stage


@pytest.fixture(params=["postgres", "memory"])
def stage(request: pytest.FixtureRequest) -> Stage:
    # Only who asks for a database waits for one.
    return in_memory() if request.param == "memory" else request.getfixturevalue("in_a_database")
