"""A primary with a standby, and an address that leads to one of them: for tests of failover and switch-over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from broadcast_sandbox.postgres.binaries import binaries
from broadcast_sandbox.postgres.directory import scratch_directory
from broadcast_sandbox.postgres.server import EmbeddedPostgres
from service.store.migrate import migrate
from tests.waiting import eventually


class Address:
    """A TCP port whose connections go to a server that can be changed, with a delay of each direction if wanted."""

    def __init__(self, to: int, *, delay_s: float = 0.0) -> None:
        self._to = to
        self._delay_s = delay_s
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def move(self, to: int) -> None:
        """New connections go to the port *to*. Open ones break."""
        self._to = to
        self.cut()

    def cut(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            away, back = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pipe(reader, back))
                    both.create_task(self._pipe(away, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            writer.close()
            self._pipes.discard(task)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                at, data = await late.get()
                await asyncio.sleep(max(at - loop.time(), 0))
                if not data:
                    raise ConnectionResetError
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(write())
            while True:
                data = await reader.read(1 << 16)
                late.put_nowait((loop.time() + self._delay_s, data))
                if not data:
                    return


class Pair:
    """The server that is used, the standby that follows it, and the address that leads to the one in use."""

    def __init__(self, primary: EmbeddedPostgres, standby: EmbeddedPostgres, address: Address, name: str) -> None:
        self.primary = primary
        self.standby = standby
        self.address = address
        self._name = name
        parts = urlsplit(primary.database(name))
        self.dsn = urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{address.port}"))

    async def follows(self) -> None:
        """Until the standby has every commit."""
        [at] = await _ask(self.primary, "SELECT pg_current_wal_lsn()::text")

        async def replayed() -> bool:
            return (await _ask(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{at}'"))[0]

        await eventually(replayed)

    async def falls_behind(self) -> None:
        """From here on the standby gets no commit."""
        await self.follows()
        await _ask(self.standby, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")

        async def alone() -> bool:
            return (await _ask(self.standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver"))[0]

        await eventually(alone)

    async def take_over(self) -> None:
        """The primary is lost, the standby takes writes, and the address leads to it."""
        await self.primary.kill()
        self.address.cut()
        await _ask(self.standby, "SELECT pg_promote(true, 30)")
        self.address.move(urlsplit(self.standby.dsn).port or 0)

    async def sql(self, statement: str, *, lost: bool = False) -> object:
        """Asks the database of the standby, or of the primary if *lost*."""
        server = self.primary if lost else self.standby
        connection = await asyncpg.connect(server.database(self._name))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def pair(name: str = "broadcast") -> AsyncGenerator[Pair]:
    """Skips the test loudly where no standby can be made: TEST_DATABASE_URL does not matter here."""
    program = binaries() / "pg_basebackup"
    if not os.access(program, os.X_OK):
        pytest.skip(f"NOT TESTED: failover. There is no {program}: set PG_BIN to the binaries of a whole Postgres")
    async with contextlib.AsyncExitStack() as cleanup:
        primary = EmbeddedPostgres()
        await primary.start()
        cleanup.push_async_callback(primary.stop)
        await migrate(await primary.create_database(name))
        standby = await _copy_of(primary, program, cleanup)
        address = Address(urlsplit(primary.dsn).port or 0)
        await address.start()
        cleanup.push_async_callback(address.stop)
        yield Pair(primary, standby, address, name)


async def _copy_of(primary: EmbeddedPostgres, program: Path, cleanup: contextlib.AsyncExitStack) -> EmbeddedPostgres:
    directory = scratch_directory()
    command = [program, "-D", directory / "data", "-d", primary.dsn, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    standby = EmbeddedPostgres(data_dir=directory)
    # It is deleted at the end as one that was made for nobody.
    standby.kept = False
    await standby.start()
    cleanup.push_async_callback(standby.stop)
    return standby


async def _ask(server: EmbeddedPostgres, *statements: str) -> Sequence[Any]:
    connection = await asyncpg.connect(server.dsn)
    try:
        return [await connection.fetchval(statement) for statement in statements]
    finally:
        await connection.close()
