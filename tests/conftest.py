import itertools
import os
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_asyncio

from broadcast_sandbox.postgres.server import EmbeddedPostgres, PostgresServer

# A test is red for everybody or for nobody: neither the machine's pace nor the day's luck decides.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

TEMPLATE = "template_broadcast"
# The process id keeps two runs on one TEST_DATABASE_URL apart.
_names = (f"test_{os.getpid()}_{number}" for number in itertools.count(1))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    """The server of TEST_DATABASE_URL (a role that may create databases), or one of our own."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield PostgresServer(given)
        return
    server = EmbeddedPostgres()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_database(postgres: PostgresServer) -> AsyncIterator[str]:
    """The name of a database with every migration applied and nothing in it."""
    # Not at the top: tests that need no database run while the store does not even import.
    from service.store.migrate import migrate  # noqa: PLC0415

    name = f"{TEMPLATE}_{os.getpid()}" if "TEST_DATABASE_URL" in os.environ else TEMPLATE
    await postgres.drop_database(name)
    await migrate(await postgres.create_database(name))
    yield name
    await postgres.drop_database(name)


@pytest.fixture
async def database_url(postgres: PostgresServer, template_database: str) -> AsyncIterator[str]:
    """The DSN of a migrated database of this test's own."""
    name = next(_names)
    yield await postgres.create_database(name, template=template_database)
    await postgres.drop_database(name)
