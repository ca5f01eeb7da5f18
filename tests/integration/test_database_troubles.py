"""A database that cannot serve: callers are told, loops go on, readiness says so, and all is well again by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast_client import BroadcastClient, RetryPolicy, Unavailable
from broadcast_client.ctl import run
from broadcast_sandbox.postgres.server import PostgresServer
from service.domain.broadcast import Spec
from service.domain.errors import StoreUnavailable
from service.store.database import UNAVAILABLE, Database
from tests.integration.api_stage import api, refused
from tests.integration.store_stage import NOBODYS, store
from tests.stack import Replica, Stack, running_stack
from tests.waiting import eventually

_SERVICE_CLASSES = ("08", "28", "3D", "40", "53", "57", "58", "F0", "XX")


def test_every_error_that_the_server_is_to_blame_for_is_tried_again() -> None:
    """Whole classes of SQLSTATE: a member that nobody thought of must not end a loop."""
    found = [each for each in vars(asyncpg.exceptions).values() if isinstance(each, type)]
    blamed = [each for each in found if str(getattr(each, "sqlstate", "") or "").startswith(_SERVICE_CLASSES)]
    assert len(blamed) > 30
    assert [each.__name__ for each in blamed if not issubclass(each, UNAVAILABLE)] == []
    for each in (
        asyncpg.InsufficientPrivilegeError,
        asyncpg.LockNotAvailableError,
        asyncpg.ReadOnlySQLTransactionError,
    ):
        assert issubclass(each, UNAVAILABLE)
    for each in (asyncpg.CheckViolationError, asyncpg.UndefinedColumnError, asyncpg.DivisionByZeroError):
        assert not issubclass(each, UNAVAILABLE)


class Role:
    """A user of the test's database that is no superuser, so that rights can be taken from it."""

    def __init__(self, owner: str, name: str) -> None:
        self._owner = owner
        self.name = name
        parts = urlsplit(owner)
        self.dsn = urlunsplit(parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}"))

    async def sql(self, *statements: str) -> None:
        """As the owner of the database."""
        connection = await asyncpg.connect(self._owner)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def cut_off(self) -> None:
        await self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.name}'")  # noqa: S608


@pytest.fixture
async def role(database_url: str) -> AsyncIterator[Role]:
    role = Role(database_url, f"plain_{os.getpid()}_{urlsplit(database_url).path.rpartition('_')[2]}")
    await role.sql(
        f"CREATE ROLE {role.name} LOGIN",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role.name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role.name}",
    )
    yield role
    await role.cut_off()
    await role.sql(f"DROP OWNED BY {role.name}", f"DROP ROLE {role.name}")


_RAISES = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$
"""
_FULL = (
    _RAISES,
    *(
        f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()"
        for table in ("broadcast", "event", "resource", "duty", "budget", "provider", "request")
    ),
)
_TROUBLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "the disk is full": (_FULL, ("DROP FUNCTION full_disk CASCADE",)),
    "a right is revoked": (
        ("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM {role}",),
        ("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",),
    ),
    "the server itself fails": (
        tuple(each.replace("disk_full", "internal_error") for each in _FULL),
        ("DROP FUNCTION full_disk CASCADE",),
    ),
}


async def _ready(stack: Stack, replica: Replica) -> int:
    async with stack.http.get(f"http://127.0.0.1:{replica.ports.http}/readyz") as answer:
        return answer.status


@pytest.mark.parametrize("trouble", _TROUBLES)
async def test_reads_go_on_and_no_replica_ends_while_writes_are_refused(role: Role, trouble: str) -> None:
    begin, end = _TROUBLES[trouble]
    async with running_stack(role.dsn, webhooks=False) as stack:
        replica = await stack.replica()
        client = await stack.cleanup.enter_async_context(BroadcastClient(replica.target, retry=RetryPolicy(attempts=1)))
        await client.create(broadcast_id="show")
        await role.sql(*(each.format(role=role.name) for each in begin))
        with pytest.raises(Unavailable) as caught:
            await client.create(broadcast_id="other")
        assert "STORE_UNAVAILABLE" in repr(caught.value) or "database" in str(caught.value)
        # Long enough for every loop to have met the trouble.
        await asyncio.sleep(2.5)
        assert not replica.task.done()
        if trouble != "the server itself fails":
            await eventually(lambda: _is_not_ready(stack, replica))
        assert (await client.get("show")).id == "show"
        await role.sql(*(each.format(role=role.name) for each in end))

        async def made() -> bool:
            with contextlib.suppress(Unavailable):
                return bool((await client.create(broadcast_id="third", timeout=2)).id)
            return False

        await eventually(made)
        await eventually(lambda: _is_ready(stack, replica))


async def test_what_reads_or_deletes_does_not_show_that_writes_are_taken(role: Role) -> None:
    """Readiness went back and forth on a full disk: the sweeper, which found nothing to delete, committed."""
    async with store(role.dsn) as one:
        await role.sql(*_FULL)
        with pytest.raises(StoreUnavailable):
            await one.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
        assert not await one.database.writable()
        await one.changes.trim(older_than=timedelta(days=30))
        assert not await one.database.writable()
        await role.sql("DROP FUNCTION full_disk CASCADE")
        await one.broadcasts.create("second", Spec(), {}, {}, NOBODYS)
        assert await one.database.writable()


async def _is_ready(stack: Stack, replica: Replica) -> bool:
    return await _ready(stack, replica) == 200


async def test_a_user_that_may_not_log_in_any_more_is_no_end_of_the_replica(role: Role) -> None:
    """As after the rotation of a password: open connections end, and no new one is let in."""
    async with running_stack(role.dsn, webhooks=False) as stack:
        replica = await stack.replica()
        client = await stack.client(replica.target)
        await client.create(broadcast_id="show")
        await role.sql(f"ALTER ROLE {role.name} NOLOGIN")
        await role.cut_off()
        with pytest.raises(Unavailable):
            await client.get("show", timeout=2)
        await asyncio.sleep(2.5)
        assert not replica.task.done()
        assert await _ready(stack, replica) == 503
        await role.sql(f"ALTER ROLE {role.name} LOGIN")
        await eventually(lambda: _is_ready(stack, replica))
        assert (await client.get("show")).id == "show"


class Freezing:
    """A way to the database on which nothing moves while it is frozen, as to a server that was stopped by SIGSTOP."""

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._moves = asyncio.Event()
        self._moves.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.dsn = ""

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[Freezing]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user, _, _ = self._parts.netloc.rpartition("@")
        self.dsn = urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        try:
            yield self
        finally:
            self._moves.set()
            server.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    def freeze(self) -> None:
        self._moves.clear()

    def thaw(self) -> None:
        self._moves.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        for source, sink in ((reader, back), (there, writer)):
            self._pumps.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._moves.wait()
                sink.write(data)
        sink.close()


async def test_a_frozen_database_is_told_before_callers_give_up(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE with a sentence within seconds, of the first call too: the client waits for ten. broadcastctl tells
    each try, and ends with that answer.
    """
    async with Freezing(database_url).opened() as way, api(way.dsn) as stage:
        await stage.create("show")
        way.freeze()
        for call in (
            stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="show")),
            stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show")),
        ):
            began = time.monotonic()
            refusal = await refused(call)
            assert (refusal.reason, refusal.message) == ("STORE_UNAVAILABLE", "the database does not answer")
            assert time.monotonic() - began < 9
        monkeypatch.setattr("broadcast_client.ctl.output._PATIENCE_S", 0.0)
        monkeypatch.setattr("broadcast_client.client.RetryPolicy", partial(RetryPolicy, attempts=2))
        assert await run(["--target", f"127.0.0.1:{stage.port}", "get", "show"]) == 1
        tried, ended = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r".*STORE_UNAVAILABLE \(the database does not answer\), again in \d\.\d\d s", tried), tried
        assert ended.startswith("broadcastctl: STORE_UNAVAILABLE: the database does not answer")
        way.thaw()
        assert (await stage.get("show")).id == "show"


async def test_a_connection_that_turned_read_only_leaves_the_pool(database_url: str) -> None:
    async with store(database_url) as one:
        for _ in range(4):
            await one.sql("SELECT set_config('default_transaction_read_only', 'on', false)")
        with pytest.raises(StoreUnavailable, match="read-only"):
            await one.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
        await one.broadcasts.create("first", Spec(), {}, {}, NOBODYS)


async def test_readiness_finds_a_read_only_server_before_any_write_does(database_url: str) -> None:
    database = await Database.connect(database_url, size=2)
    try:
        assert await database.writable()
        async with database.connection() as one, database.connection() as two:
            for connection in (one, two):
                await connection.execute("SET default_transaction_read_only = on")
        assert not await database.writable()
        assert await database.writable()
    finally:
        await database.close()


async def test_a_server_that_takes_no_writes_is_not_used(postgres: PostgresServer, database_url: str) -> None:
    """The former primary after a failover, while the address still leads to it; and 5 s after the address is right."""
    name = urlsplit(database_url).path[1:]
    async with running_stack(database_url, webhooks=False) as stack:
        replica = await stack.replica()
        client = await stack.client(replica.target)
        admin = await asyncpg.connect(postgres.dsn)
        try:
            await admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await eventually(lambda: _is_not_ready(stack, replica))
            with pytest.raises(Unavailable):
                await client.create(broadcast_id="show", timeout=1)
            await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        finally:
            await admin.close()

        async def made() -> bool:
            with contextlib.suppress(Unavailable):
                return bool((await client.create(broadcast_id="show", timeout=2)).id)
            return False

        await asyncio.wait_for(eventually(made), 5)
        await asyncio.wait_for(eventually(lambda: _is_ready(stack, replica)), 5)


async def _is_not_ready(stack: Stack, replica: Replica) -> bool:
    return await _ready(stack, replica) == 503


@pytest.mark.parametrize("variable", ["GRPC_PORT", "HTTP_PORT"])
async def test_a_port_that_is_taken_is_one_line(database_url: str, tmp_path: Path, variable: str) -> None:
    async with running_stack(database_url, webhooks=False) as stack:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            process = await stack.process(tmp_path / "out", **{variable: port, "LOG_LEVEL": "error"})
            assert await asyncio.wait_for(process.process.wait(), 30) == 1
        [line] = process.output.read_text().splitlines()
        assert line.startswith(f"cannot listen on 127.0.0.1:{port}")
        assert variable in line
