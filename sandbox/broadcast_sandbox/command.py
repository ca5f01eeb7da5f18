"""`broadcast-sandbox`: everything a broadcast needs, on this machine alone, and on top the service as in production.

The service is a process of its own with its environment pointed at the simulators; it does not know that they are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from broadcast_sandbox.postgres import EmbeddedPostgres
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from service.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Mapping

LIVEKIT_KEY = "sandbox"
BUCKET = "recordings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Those of the simulators. The service's own are in its environment."""

    livekit: int
    mux: int
    storage: int


def environment_of(
    *,
    database_url: str,
    livekit_url: str,
    livekit_secret: str,
    mux_url: str,
    mux_secret: str,
    webhook_secret: str,
    storage_url: str,
    storage_secret: str,
) -> dict[str, str]:
    """What points the service at a sandbox: its addresses and secrets, and waits that suit providers in a hurry."""
    return {
        "DATABASE_URL": database_url,
        "LIVEKIT_URL": livekit_url,
        "LIVEKIT_API_KEY": LIVEKIT_KEY,
        "LIVEKIT_API_SECRET": livekit_secret,
        "MUX_BASE_URL": mux_url,
        "MUX_TOKEN_ID": "sandbox",
        "MUX_TOKEN_SECRET": mux_secret,
        "MUX_WEBHOOK_SECRETS": webhook_secret,
        "PLAYBACK_BASE_URL": f"{mux_url}/playback",
        **storage_environment(storage_url, storage_secret),
        "BROADCAST_SECRET_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
        "BROADCAST_ENVIRONMENT": "sandbox",
        "BROADCAST_OBSERVE_S": "2",
        "BROADCAST_SWEEP_S": "10",
        "BROADCAST_SWEEP_GRACE_S": "20",
        "BROADCAST_DRAIN_S": "2",
        "BROADCAST_TIMING_LIST_LAG_S": "0.5",
        "BROADCAST_TIMING_LOOKUP_S": "0.5",
        "BROADCAST_TIMING_WATCH_S": "0.5",
    }


def storage_environment(url: str, secret_key: str) -> dict[str, str]:
    return {
        "BROADCAST_S3_ENDPOINT": url,
        "BROADCAST_S3_BUCKET": BUCKET,
        "BROADCAST_S3_ACCESS_KEY": "sandbox",
        "BROADCAST_S3_SECRET_KEY": secret_key,
        "BROADCAST_S3_FORCE_PATH_STYLE": "true",
    }


async def run_sandbox(*, time_scale: float, with_service: bool, ports: Ports) -> int:
    began = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as running:
        try:
            environment = await _foundations(running, time_scale, ports)
        except OSError as error:
            sys.stderr.write(f"sandbox: {error}\n")
            return 1
        if not with_service:
            _say("\n".join(f"export {name}='{value}'" for name, value in environment.items()))
            await stop.wait()
            return 0
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "serve", env={**os.environ, **environment}
        )
        running.push_async_callback(_end, service)
        if not await _serving(environment, service, stop):
            return 0 if stop.is_set() else 1
        _say(_banner(environment, time_scale, time.monotonic() - began))
        ended = asyncio.create_task(service.wait())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if stop.is_set():
            return 0
        sys.stderr.write(f"sandbox: the service ended with code {service.returncode}\n")
        return 1


async def _foundations(running: contextlib.AsyncExitStack, time_scale: float, ports: Ports) -> dict[str, str]:
    """Postgres and the simulators. Raises OSError where a port is taken or Postgres does not start."""
    database_url = os.environ.get("DATABASE_URL", "")
    if not database_url:
        postgres = EmbeddedPostgres()
        database_url = await postgres.start()
        running.push_async_callback(postgres.stop)
    await migrate(database_url)
    webhooks = f"http://127.0.0.1:{os.environ.get('HTTP_PORT', '8080')}/webhooks"
    environment = environment_of(
        database_url=database_url,
        livekit_url=f"http://127.0.0.1:{ports.livekit}",
        livekit_secret=secrets.token_hex(24),
        mux_url=f"http://127.0.0.1:{ports.mux}",
        mux_secret=secrets.token_hex(24),
        webhook_secret=secrets.token_hex(16),
        storage_url=f"http://127.0.0.1:{ports.storage}",
        storage_secret=secrets.token_hex(20),
    )
    clock = ScaledClock(time_scale)
    storage = S3Simulator(
        S3SimulatorSettings(
            bucket=BUCKET,
            access_key=environment["BROADCAST_S3_ACCESS_KEY"],
            secret_key=environment["BROADCAST_S3_SECRET_KEY"],
        ),
        clock=clock,
    )
    await storage.start(port=ports.storage)
    running.push_async_callback(storage.stop)
    mux = MuxSimulator(
        MuxSimulatorSettings(
            token_id=environment["MUX_TOKEN_ID"],
            token_secret=environment["MUX_TOKEN_SECRET"],
            webhook_url=f"{webhooks}/mux",
            webhook_secret=environment["MUX_WEBHOOK_SECRETS"],
        ),
        clock=clock,
    )
    await mux.start(port=ports.mux)
    running.push_async_callback(mux.stop)
    livekit = LiveKitSimulator(
        LiveKitSimulatorSettings(
            api_key=LIVEKIT_KEY,
            api_secret=environment["LIVEKIT_API_SECRET"],
            webhook_url=f"{webhooks}/livekit",
            ingests={"global-live.mux.com": f"{environment['MUX_BASE_URL']}/_ingest"},
        ),
        clock=clock,
    )
    await livekit.start(port=ports.livekit)
    running.push_async_callback(livekit.stop)
    return environment


async def _serving(environment: Mapping[str, str], service: asyncio.subprocess.Process, stop: asyncio.Event) -> bool:
    while service.returncode is None and not stop.is_set():
        probe = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            "probe",
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
        await asyncio.wait_for(service.wait(), 3.5)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            service.kill()
        await service.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _banner(environment: Mapping[str, str], time_scale: float, took: float) -> str:
    grpc_port = os.environ.get("GRPC_PORT", "50051")
    api = f"http://127.0.0.1:{grpc_port}/broadcast.v1.BroadcastService"
    # What broadcastctl takes for granted need not be said.
    target = "" if grpc_port == "50051" else f"BROADCAST_TARGET=127.0.0.1:{grpc_port} "
    control = environment["LIVEKIT_URL"]
    demo = f" --livekit-control {control}" if control != "http://127.0.0.1:7880" else ""
    curl = "buf curl --http2-prior-knowledge --protocol grpc"
    return f"""
The sandbox is up ({took:.1f} s).

  gRPC        127.0.0.1:{grpc_port}   broadcast.v1.BroadcastService, reflection, health
  HTTP        127.0.0.1:{os.environ.get("HTTP_PORT", "8080")}    /webhooks/livekit /webhooks/mux /livez /readyz
  LiveKit     {environment["LIVEKIT_URL"]}   simulated: /_state /_effects /_faults /_control/join ...
  Mux         {environment["MUX_BASE_URL"]}   simulated: /_state /_effects /_faults /playback/<id>.m3u8
  Storage     {environment["BROADCAST_S3_ENDPOINT"]}   simulated S3: /_state /_effects /_faults
  Postgres    {environment["DATABASE_URL"]}
  The providers' time runs {time_scale:g} times as fast as yours (ARGS="--time-scale 1" for real waits).

A whole broadcast, drawn as it happens:

  {target}.venv/bin/broadcastctl demo{demo}

The same by hand:

  export PATH="$PWD/.venv/bin:$PATH"
  {curl} {api}/CreateBroadcast -d '{{"broadcast_id": "first", "spec": {{"title": "First light"}}}}'
  {curl} {api}/StartBroadcast  -d '{{"broadcast_id": "first", "wait": "10s"}}'
  curl -s {environment["LIVEKIT_URL"]}/_control/join -d '{{"room": "first", "identity": "ann", "publish": ["camera"]}}'
  {curl} {api}/GetBroadcast    -d '{{"broadcast_id": "first"}}'
  {curl} {api}/StopBroadcast   -d '{{"broadcast_id": "first", "wait": "30s"}}'

Ctrl-C ends all of it.
"""
