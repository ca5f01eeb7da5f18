import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from broadcast_sandbox.postgres.server import EmbeddedPostgres, PostgresError
from tests.waiting import eventually

OWNER = """
import asyncio, sys
from pathlib import Path
from broadcast_sandbox.postgres.server import EmbeddedPostgres

async def own() -> None:
    server = EmbeddedPostgres(data_dir=Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""


async def ask(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def alive(pid: int) -> bool:
    """Zombies are dead: nobody may be there to collect them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir=tmp_path / "postgres")
    await server.start()
    yield server
    await server.stop()


async def test_makes_and_drops_databases(server: EmbeddedPostgres) -> None:
    one = await server.create_database("one")
    await ask(one, "CREATE TABLE kept AS SELECT 7 AS number")
    two = await server.create_database("two", template="one")
    assert await ask(two, "SELECT number FROM kept") == 7

    held = await asyncpg.connect(two)
    await server.drop_database("two")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await ask(two, "SELECT 1")
    await held.close()


async def test_commits_survive_kill_9(server: EmbeddedPostgres) -> None:
    await ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS number")
    dsn, killed = server.dsn, server.pid
    busy = asyncio.create_task(ask(dsn, "SELECT pg_sleep(60)"))
    await eventually(lambda: ask(dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))

    await server.kill()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy
    with pytest.raises(OSError, match=r"Connect|connect|refused"):
        await ask(dsn, "SELECT 1")

    assert await server.start() == dsn
    assert server.pid != killed
    assert await ask(dsn, "SELECT number FROM kept") == 7


async def test_stop_leaves_no_process_and_no_files() -> None:
    server = EmbeddedPostgres()
    await server.start()
    pid, directory = server.pid, server.directory
    assert pid is not None
    assert directory is not None
    # A client in the middle of something must not hold up the end.
    connection = await asyncpg.connect(server.dsn)

    await asyncio.wait_for(server.stop(), 30)

    assert not alive(pid)
    assert not directory.exists()
    await connection.close()


async def test_starts_again_on_kept_data(server: EmbeddedPostgres) -> None:
    await ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS number")
    await server.stop()

    again = EmbeddedPostgres(data_dir=server.directory)
    await again.start()
    try:
        assert await ask(again.dsn, "SELECT number FROM kept") == 7
    finally:
        await again.stop()


async def test_refuses_data_in_use(server: EmbeddedPostgres) -> None:
    with pytest.raises(PostgresError, match="in use"):
        await EmbeddedPostgres(data_dir=server.directory).start()
    assert await ask(server.dsn, "SELECT 1") == 1


async def test_reused_pid_of_a_killed_server_neither_blocks_nor_dies(server: EmbeddedPostgres) -> None:
    assert server.directory is not None
    await server.kill()
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    remembered = server.directory / "data" / "postmaster.pid"
    remembered.write_text("\n".join([str(stranger.pid), *remembered.read_text().splitlines()[1:]]) + "\n")
    try:
        await server.start()
        assert await ask(server.dsn, "SELECT 1") == 1
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death signal exists on Linux alone")
async def test_dies_with_its_owner_and_lets_the_next_one_in(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path / "postgres"), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    assert alive(pid)

    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    successor = EmbeddedPostgres(data_dir=tmp_path / "postgres")
    await successor.start()
    try:
        await eventually(lambda: not alive(pid))
        assert await ask(successor.dsn, "SELECT 1") == 1
    finally:
        await successor.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to be somebody else")
@pytest.mark.parametrize("reachable", [True, False])
async def test_root_without_user_namespaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, reachable: bool
) -> None:
    def nobody(_: Path) -> str:
        return "65534:65534"

    monkeypatch.setattr("broadcast_sandbox.postgres.server.identity_for", nobody)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(data_dir=private) if not reachable else EmbeddedPostgres()
    await server.start()
    try:
        assert server.pid is not None
        assert user_of(server.pid) == 65534
        assert not server.kept
    finally:
        await server.stop()
    assert private.stat().st_mode & 0o777 == 0o700


async def test_without_binaries_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(PostgresError, match="set PG_BIN"):
        await EmbeddedPostgres().start()
