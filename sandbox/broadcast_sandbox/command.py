"""Runs the sandbox: Postgres, the simulators, and on top the service as in production.

The service is a process of its own with its environment pointed at the simulators; it does not know that they are
simulated. Everything ends with the sandbox, in whatever way that ends.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from broadcast_sandbox.banner import banner, exports
from broadcast_sandbox.child import bound
from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.environment import BUCKET, MUX_TOKEN_ID, Secrets, environment_of
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from broadcast_sandbox.ports import PortTaken, SandboxPorts, check_free
from broadcast_sandbox.postgres.server import EmbeddedPostgres, PostgresError
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from service.store.migrate import MigrationFailed, migrate

_PATIENCE_S = 2.2
"""Real seconds for the service to end by itself. It drains for 2 s, and all has to be over 3 s after Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    time_scale: float
    with_service: bool
    database_url: str | None = field(repr=False)
    """None: an embedded Postgres. The sandbox writes to this database, so the environment alone never names it."""
    ports: SandboxPorts


class CannotStart(Exception):
    """The text says why, in one line, without any secret."""


async def run_sandbox(options: Options) -> int:
    """Until SIGINT, SIGTERM or SIGHUP. The exit code: 0 after a signal, 1 if something did not start or ended."""
    running = asyncio.ensure_future(_run(options))
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        # A second signal would cut off the cleanup that the first one began.
        nonlocal stopping
        if not stopping:
            stopping = True
            running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await running
    except asyncio.CancelledError:
        return 0
    except (CannotStart, PortTaken, PostgresError, MigrationFailed, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return 1


async def _run(options: Options) -> int:
    began = time.monotonic()
    ports = options.ports
    check_free((*ports.of_simulators, *(ports.of_service if options.with_service else ())))
    if "DATABASE_URL" in os.environ and options.database_url is None:
        sys.stderr.write("sandbox: DATABASE_URL of this shell is not used; --database-url names a database of yours\n")
    async with contextlib.AsyncExitStack() as cleanup:
        database_url = await _database(cleanup, options.database_url)
        environment = await _simulators(cleanup, database_url, options)
        if not options.with_service:
            _say(exports(environment))
            await asyncio.Event().wait()
        command = bound([sys.executable, "-m", "service", "serve"], signal.SIGKILL)
        service = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment})
        cleanup.push_async_callback(_end, service)
        if await _serving(environment, service):
            _say(banner(environment, ports, time_scale=options.time_scale, took_s=time.monotonic() - began))
            await service.wait()
        sys.stderr.write(f"sandbox: the service ended with code {service.returncode}\n")
        return 1


async def _database(cleanup: contextlib.AsyncExitStack, given: str | None) -> str:
    """The url of a database that is up to date."""
    if given is None:
        postgres = EmbeddedPostgres()
        cleanup.push_async_callback(postgres.stop)
        database_url = await postgres.start()
        await migrate(database_url)
        return database_url
    try:
        await migrate(given)
    except (ValueError, MigrationFailed, asyncpg.InterfaceError) as error:
        # The text of a malformed url may hold a piece of the password.
        text = str(error) if isinstance(error, MigrationFailed) else f"not a url of Postgres ({type(error).__name__})"
        raise CannotStart(f"--database-url: {text}") from None
    return given


async def _simulators(cleanup: contextlib.AsyncExitStack, database_url: str, options: Options) -> dict[str, str]:
    """Start them. The environment that points the service at them."""
    ports, clock = options.ports, ScaledClock(options.time_scale)
    # A database that is kept must open with the key of the run before.
    made = Secrets() if options.database_url is None else Secrets(service_key=_key_of(options.database_url))
    webhooks = f"http://127.0.0.1:{ports.http.number}/webhooks"
    mux = MuxSimulator(
        MuxSimulatorSettings(
            token_id=MUX_TOKEN_ID,
            token_secret=made.mux,
            webhook_url=f"{webhooks}/mux",
            webhook_secret=made.mux_webhook,
        ),
        clock=clock,
    )
    environment = environment_of(
        made,
        database_url=database_url,
        livekit_url=f"http://127.0.0.1:{ports.livekit.number}",
        mux_url=f"http://127.0.0.1:{ports.mux.number}",
        storage_url=f"http://127.0.0.1:{ports.storage.number}",
        signing_key=mux.make_signing_key(),
    )
    storage = S3Simulator(
        S3SimulatorSettings(bucket=BUCKET, access_key=environment["BROADCAST_S3_ACCESS_KEY"], secret_key=made.storage),
        clock=clock,
    )
    livekit = LiveKitSimulator(
        LiveKitSimulatorSettings(
            api_key=environment["LIVEKIT_API_KEY"],
            api_secret=made.livekit,
            webhook_url=f"{webhooks}/livekit",
            ingests={"global-live.mux.com": f"{environment['MUX_BASE_URL']}/_ingest"},
        ),
        clock=clock,
    )
    for simulator, port in ((storage, ports.storage), (mux, ports.mux), (livekit, ports.livekit)):
        cleanup.push_async_callback(simulator.stop)
        await simulator.start(port=port.number)
    return environment


def _key_of(database_url: str) -> str:
    """Always the same for one database. It protects nothing: the secrets of a sandbox are simulated."""
    return base64.b64encode(hashlib.sha256(database_url.encode()).digest()).decode()


async def _serving(environment: Mapping[str, str], service: asyncio.subprocess.Process) -> bool:
    """Until the service serves. False: it ended instead."""
    while service.returncode is None:
        probe = await asyncio.create_subprocess_exec(
            *bound([sys.executable, "-m", "service", "probe"], signal.SIGKILL),
            env={**os.environ, **environment},
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await probe.wait() == 0:
            return True
        await asyncio.sleep(0.1)
    return False


async def _end(service: asyncio.subprocess.Process) -> None:
    if service.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        service.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(service.wait(), _PATIENCE_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            service.kill()
        await service.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
