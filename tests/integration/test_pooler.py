"""Behind PgBouncer in transaction mode: right with the setting, and one line that names it without."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from broadcast_sandbox.postgres.server import PostgresServer
from service.domain.broadcast import Spec
from service.domain.errors import StoreUnavailable
from service.store.database import Database
from service.store.migrate import migrate
from tests.e2e.show import Show
from tests.integration.store_stage import NOBODYS, store
from tests.ports import free_port
from tests.stack import running_stack
from tests.waiting import eventually

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
{more}
"""


class Pooler:
    def __init__(self, directory: Path, server: str, *, more: str = "") -> None:
        self._directory = directory
        self._server = urlsplit(server)
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def dsn(self) -> str:
        return urlunsplit(self._server._replace(netloc=f"postgres@127.0.0.1:{self.port}"))

    async def start(self) -> None:
        program = shutil.which("pgbouncer")
        if program is None:
            pytest.skip("NOT TESTED: PgBouncer. There is no pgbouncer on the PATH (apt-get install pgbouncer)")
        configuration = self._directory / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(server_port=self._server.port, port=self.port, more=self._more), encoding="utf-8"
        )
        # It does not run as root. Its configuration is read before it becomes the other user.
        become = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (self._directory / "pgbouncer.log").open("wb") as log:
            self._process = subprocess.Popen([program, *become, str(configuration)], stdout=log, stderr=log)  # noqa: ASYNC220
        await eventually(self._answers)

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "pgbouncer.log").read_text()
        try:
            connection = await asyncpg.connect(self.dsn, timeout=2)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def pooler(database_url: str, tmp_path: Path) -> AsyncIterator[Pooler]:
    pooler = Pooler(tmp_path, database_url)
    await pooler.start()
    yield pooler
    pooler.stop()


@pytest.mark.parametrize("listens", ["to Postgres itself", "not at all"])
async def test_shows_run_behind_it(pooler: Pooler, database_url: str, listens: str) -> None:
    more: dict[str, Any] = {"DATABASE_LISTEN_URL": database_url} if listens == "to Postgres itself" else {}
    async with running_stack(pooler.dsn, webhooks=False, DATABASE_POOLER="true", **more) as stack:
        one, two = await stack.replica(BROADCAST_REPLICA="one"), await stack.replica(BROADCAST_REPLICA="two")
        clients = [await stack.client(one.target), await stack.client(two.target)]
        shows = [await Show.create(stack, clients[n % 2]) for n in range(4)]
        await asyncio.gather(*(show.live() for show in shows))
        for n, show in enumerate(shows):
            show.client = clients[(n + 1) % 2]
        await asyncio.gather(*(show.ended() for show in shows))
        assert stack.doubles() == []


class Behind(Database):
    @classmethod
    async def connect(cls, dsn: str, *, size: int = 10, **_: Any) -> Database:
        return await super().connect(dsn, size=size, pooler=True)


async def test_what_is_written_at_once_through_few_sessions_is_all_there(pooler: Pooler) -> None:
    async with store(pooler.dsn, size=20, database=Behind) as one:
        await asyncio.gather(*(one.broadcasts.create(f"show-{n}", Spec(), {}, {}, NOBODYS) for n in range(100)))
        assert (await one.changes.bounds()).head == 100
        assert len((await one.changes.after(0)).changes) == 100


async def test_it_migrates_through_it(postgres: PostgresServer, tmp_path: Path) -> None:
    name = f"pooled_{os.getpid()}"
    pooler = Pooler(tmp_path, await postgres.create_database(name))
    try:
        await pooler.start()
        done = await asyncio.gather(*(migrate(pooler.dsn) for _ in range(2)))
        applied = sorted(file for files in done for file in files)
        assert applied
        assert applied == sorted(set(applied))
        assert await migrate(pooler.dsn) == []
    finally:
        pooler.stop()
        await postgres.drop_database(name)


async def test_without_the_setting_one_line_names_it(pooler: Pooler, tmp_path: Path) -> None:
    async with running_stack(pooler.dsn, webhooks=False) as stack:
        process = await stack.process(tmp_path / "out", LOG_LEVEL="error")
        assert await asyncio.wait_for(process.process.wait(), 30) == 1
        [line] = process.output.read_text().splitlines()
        assert "DATABASE_POOLER=true" in line


async def test_a_pooler_that_takes_the_timeouts_is_named_at_the_first_statement_that_fails(
    database_url: str, tmp_path: Path
) -> None:
    ignored = "statement_timeout, lock_timeout, idle_in_transaction_session_timeout"
    pooler = Pooler(tmp_path, database_url, more=f"ignore_startup_parameters = {ignored}")
    await pooler.start()
    try:
        with pytest.raises(StoreUnavailable, match="DATABASE_POOLER=true"):
            await _used(pooler.dsn)
    finally:
        pooler.stop()


async def _used(dsn: str) -> None:
    async with store(dsn) as one:
        for n in range(50):
            await asyncio.gather(*(one.changes.bounds() for _ in range(10)))
            await one.started(f"show-{n}")
