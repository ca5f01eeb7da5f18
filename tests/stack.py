"""Everything a test of the whole needs: a database, both simulators, and replicas of the service, in this process or
as their own.

The service is always built from an environment, as in production; only the waits are shorter.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broadcast_client import BroadcastClient
from broadcast_sandbox.effects import Effect
from broadcast_sandbox.environment import BUCKET, storage_environment
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from service.app.run import Ports, run
from service.settings.settings import from_environment
from tests.awake import awake_clock
from tests.ports import free_port
from tests.waiting import eventually

LIVEKIT_SECRET = "sandbox-secret-that-is-long-enough-for-hs256"
MUX_SECRET = "mux-token-secret-of-the-tests"
STORAGE_SECRET = "storage-secret-of-the-tests"
WEBHOOK_SECRET = "mux-webhook-secret-of-the-tests"

# Real seconds. Long enough for two cores under load, short enough for a suite.
WAITS = {
    "BROADCAST_PROBE_S": "0.5",
    "BROADCAST_OBSERVE_S": "0.3",
    "BROADCAST_SWEEP_S": "0.5",
    "BROADCAST_SWEEP_GRACE_S": "2",
    "BROADCAST_DRAIN_S": "1",
    "BROADCAST_LEASE_S": "4",
    "BROADCAST_TIMING_START_ANSWER_S": "3",
    "BROADCAST_TIMING_LIST_LAG_S": "0.3",
    "BROADCAST_TIMING_LOOKUP_S": "0.2",
    "BROADCAST_TIMING_WATCH_S": "0.3",
    "BROADCAST_TIMING_INGEST_WATCH_S": "0.5",
    "BROADCAST_TIMING_STREAM_GRACE_S": "2",
    "BROADCAST_TIMING_EGRESS_GRACE_S": "3",
    "BROADCAST_TIMING_EGRESS_STOP_S": "4",
    "BROADCAST_TIMING_DELETE_RETRY_S": "2",
    "BROADCAST_TIMING_VIEWERS_LOW_S": "0.3",
    "BROADCAST_TIMING_VIEWERS_REDUCED_S": "0.3",
    "BROADCAST_TIMING_VIEWERS_STANDARD_S": "0.3",
    "BROADCAST_TIMING_UPDATE_GRACE_S": "3.5",
    "BROADCAST_LIMIT_MUX_POST": "200/200",
    "BROADCAST_LIMIT_MUX_OTHER": "400/400",
    "BROADCAST_LIMIT_LIVEKIT": "1000/1000",
}


@dataclass
class Replica:
    """One running service in this process."""

    ports: Ports
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 40)


@dataclass
class Process:
    """One running service in a process of its own."""

    process: asyncio.subprocess.Process
    grpc_port: int
    output: Path

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def tell(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.tell(signal.SIGCONT)
        self.tell(number)
        await asyncio.wait_for(self.process.wait(), 40)


@dataclass
class Stack:
    livekit: LiveKitSimulator
    mux: MuxSimulator
    storage: S3Simulator
    environment: dict[str, str]
    http: aiohttp.ClientSession
    cleanup: contextlib.AsyncExitStack
    overrides: dict[str, str] = field(default_factory=dict[str, str])

    async def replica(self, **overrides: str) -> Replica:
        """A service in this process."""
        http_port = overrides.pop("HTTP_PORT", "0")
        settings = from_environment({**self.environment, "GRPC_PORT": "0", "HTTP_PORT": http_port, **overrides})
        stop = asyncio.Event()
        started: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(settings, stop=stop, started=started.set_result))
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        replica = Replica(started.result(), stop, task)

        async def end() -> None:
            if not task.done():
                await replica.end()

        self.cleanup.push_async_callback(end)
        return replica

    async def process(self, output: Path, **overrides: str) -> Process:
        """A service of its own, not yet serving: see `serving`."""
        port = free_port()
        environment = {
            **os.environ,
            **self.environment,
            "GRPC_PORT": str(port),
            "HTTP_PORT": "0",
            "HTTP_HOST": "127.0.0.1",
            **overrides,
        }
        with output.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service", "serve", env=environment, stdout=log, stderr=log
            )
        started = Process(process, port, output)

        async def end() -> None:
            if started.running:
                await started.end()

        self.cleanup.push_async_callback(end)
        return started

    async def client(self, target: str) -> BroadcastClient:
        return await self.cleanup.enter_async_context(BroadcastClient(target))

    async def host_joins(
        self, room: str, identity: str = "ann", publish: tuple[str, ...] = ("camera", "microphone")
    ) -> None:
        await self.control("join", room=room, identity=identity, publish=list(publish))

    async def control(self, what: str, **body: Any) -> None:
        async with self.http.post(f"{self.livekit.base_url}/_control/{what}", json=body) as answer:
            assert answer.status == 200, await answer.text()

    def effects(self) -> list[Effect]:
        return sorted([*self.livekit.effects.after(0), *self.mux.effects.after(0)], key=lambda effect: effect.time)

    def census(self) -> Counter[str]:
        """What exists at the simulated providers now."""
        counts: Counter[str] = Counter()
        livekit, mux = self.livekit.effects, self.mux.effects
        counts["rooms"] = len(livekit.of("room.created")) - len(livekit.of("room.deleted"))
        counts["egresses"] = (
            len(livekit.of("egress.started")) - len(livekit.of("egress.ended")) - len(livekit.of("egress.ghost"))
        )
        counts["streams"] = len(mux.of("stream.created")) - len(mux.of("stream.deleted"))
        return counts

    def doubles(self) -> list[Effect]:
        """Every moment at which two published to one live stream: there must be none."""
        return self.mux.effects.of("ingest.double")


@contextlib.asynccontextmanager
async def running_stack(
    database_url: str,
    *,
    scale: float = 40,
    webhooks: bool = True,
    livekit: Mapping[str, Any] | None = None,
    mux: Mapping[str, Any] | None = None,
    **overrides: str,
) -> AsyncGenerator[Stack]:
    webhook_port = free_port()
    async with contextlib.AsyncExitStack() as cleanup:
        clock = await cleanup.enter_async_context(awake_clock(scale))
        base = f"http://127.0.0.1:{webhook_port}/webhooks" if webhooks else None
        mux_simulator = MuxSimulator(
            MuxSimulatorSettings(
                token_id="token",
                token_secret=MUX_SECRET,
                webhook_url=f"{base}/mux" if base else None,
                webhook_secret=WEBHOOK_SECRET,
                **cast("Any", {"post_rate": 0, "other_rate": 0, **(mux or {})}),
            ),
            clock=clock,
        )
        mux_url = await mux_simulator.start()
        cleanup.push_async_callback(mux_simulator.stop)
        livekit_simulator = LiveKitSimulator(
            LiveKitSimulatorSettings(
                api_key="sandbox",
                api_secret=LIVEKIT_SECRET,
                webhook_url=f"{base}/livekit" if base else None,
                ingests={"global-live.mux.com": f"{mux_url}/_ingest"},
                **(livekit or {}),
            ),
            clock=clock,
        )
        livekit_url = await livekit_simulator.start()
        cleanup.push_async_callback(livekit_simulator.stop)
        storage = S3Simulator(
            S3SimulatorSettings(bucket=BUCKET, access_key="sandbox", secret_key=STORAGE_SECRET), clock=clock
        )
        storage_url = await storage.start()
        cleanup.push_async_callback(storage.stop)
        environment = {
            **WAITS,
            **storage_environment(storage_url, STORAGE_SECRET),
            # A template of ours takes a new layout on air.
            "EGRESS_TEMPLATE_URL": "https://template.example.com/stage",
            "DATABASE_URL": database_url,
            "LIVEKIT_URL": livekit_url,
            "LIVEKIT_API_KEY": "sandbox",
            "LIVEKIT_API_SECRET": LIVEKIT_SECRET,
            "MUX_BASE_URL": mux_url,
            "MUX_TOKEN_ID": "token",
            "MUX_TOKEN_SECRET": MUX_SECRET,
            "MUX_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "MUX_STATS_URL": mux_url,
            "PLAYBACK_BASE_URL": f"{mux_url}/playback",
            "BROADCAST_SECRET_KEYS": base64.b64encode(b"k" * 32).decode(),
            "BROADCAST_ENVIRONMENT": "test",
            "WEBHOOK_PORT": str(webhook_port),
            **overrides,
        }
        http = await cleanup.enter_async_context(aiohttp.ClientSession())
        yield Stack(livekit_simulator, mux_simulator, storage, environment, http, cleanup)


async def serving(process: Process, within: float = 60) -> None:
    """Until the process answers that it serves."""

    async def probe() -> bool:
        assert process.running, process.output.read_text()[-3000:]
        # A pool of its own: the back-off of a channel that failed would be shared.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(process.target, options=options) as channel:
            # grpcio-health-checking is not typed.
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            except grpc.aio.AioRpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    await eventually(probe, within=within, every=0.05)
