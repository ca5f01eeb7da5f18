"""`make bench`: speed and memory as ratios against a ceiling measured in the same run.

    python -m tests.bench [--runs 5] [--only start|rpc|watch|webhook|health|attacks|retention|distance|audience]

Medians; no figure fails anything. The service is a process of its own, the simulators and the client are here, Postgres
is embedded: all share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broadcast.v1 import broadcast_pb2, broadcast_service_pb2, playback_service_pb2
from broadcast_client import BroadcastClient
from broadcast_sandbox.postgres.server import EmbeddedPostgres
from service.domain.broadcast import LatencyMode, PlaybackPolicy
from service.domain.ports import RoomWanted, StreamWanted
from service.domain.secret import Secret
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.store.migrate import migrate
from tests.bench.attacks import attacks
from tests.bench.audience import audience
from tests.bench.distance import distance
from tests.bench.figures import Figure
from tests.bench.health import health
from tests.bench.looks import looks
from tests.bench.retention import retention
from tests.bench.webhooks import webhook
from tests.stack import Process, Stack, running_stack, serving

LIVEKIT_MS, MUX_MS = 80, 250
STARTS = 25
CALLS, AT_ONCE = 1500, 16
WATCHERS, CHANGES = 200, 30


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


@contextlib.asynccontextmanager
async def service(database_url: str, output: Path) -> AsyncGenerator[tuple[Stack, Process]]:
    async with running_stack(database_url, scale=40, LOG_LEVEL="warning") as stack:
        process = await stack.process(output / "service.log", HTTP_PORT=stack.environment["WEBHOOK_PORT"])
        await serving(process)
        yield stack, process


async def start_to_ready(stack: Stack, process: Process, run: int) -> list[Figure]:
    """StartBroadcast(wait) against the slower provider's reply, and against making one after the other."""
    async with asyncio.timeout(120), BroadcastClient(process.target) as client:
        for simulator, latency in ((stack.livekit, LIVEKIT_MS), (stack.mux, MUX_MS)):
            async with stack.http.post(f"{simulator.base_url}/_control", json={"latency_ms": latency}) as answer:
                answer.raise_for_status()
        environment = stack.environment
        livekit = LiveKit(
            url=environment["LIVEKIT_URL"],
            api_key=environment["LIVEKIT_API_KEY"],
            api_secret=Secret(environment["LIVEKIT_API_SECRET"]),
            longest_call=timedelta(seconds=10),
        )
        mux = Mux(
            base_url=environment["MUX_BASE_URL"],
            token_id=environment["MUX_TOKEN_ID"],
            token_secret=Secret(environment["MUX_TOKEN_SECRET"]),
            longest_call=timedelta(seconds=10),
        )
        ready: list[float] = []
        slower: list[float] = []
        sequential: list[float] = []
        for n in range(STARTS):
            name = f"bench-{run}-{n}"
            room = RoomWanted(
                name=f"direct-{name}",
                tag="",
                empty_timeout=timedelta(seconds=60),
                departure_timeout=timedelta(seconds=60),
            )
            stream = StreamWanted(
                tag="",
                title="",
                playback_policy=PlaybackPolicy.PUBLIC,
                latency_mode=LatencyMode.REDUCED,
                reconnect_window_s=60,
                max_duration_s=3600,
                test=False,
                audio_only=False,
            )
            one = await timed(lambda room=room: livekit.rooms.create(room))
            other = await timed(lambda stream=stream: mux.streams.create(stream))
            slower.append(max(one, other))
            sequential.append(one + other)
            await client.create(broadcast_id=name, spec=broadcast_pb2.BroadcastSpec(title="bench"))
            began = time.perf_counter()
            answer = await client.start(name, wait=timedelta(seconds=10))
            ready.append(time.perf_counter() - began)
            assert answer.broadcast.status.state == broadcast_pb2.BROADCAST_STATE_READY, answer.broadcast.status
        await livekit.close()
        await mux.close()
        ceiling = statistics.median(slower) * 1000
        return [
            Figure(
                name=f"Start(wait READY), LiveKit {LIVEKIT_MS} ms, Mux {MUX_MS} ms",
                value=statistics.median(ready) * 1000,
                unit="ms",
                ceiling=ceiling,
                ceiling_name="slower provider",
            ),
            Figure(
                name="the same, one after the other, without a service",
                value=statistics.median(sequential) * 1000,
                unit="ms",
                ceiling=ceiling,
                ceiling_name="slower provider",
            ),
        ]


async def at_once(call: Callable[[int], Awaitable[object]], count: int, width: int) -> float:
    """Calls a second with *width* under way."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return count / (time.perf_counter() - began)


async def unary(stack: Stack, process: Process, run: int) -> list[Figure]:
    """GetBroadcast, JoinBroadcast and CreateBroadcast against an empty RPC of the same server, and a plain INSERT."""
    async with grpc.aio.insecure_channel(process.target) as channel:
        empty = health_pb2_grpc.HealthStub(channel).Check  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        get = channel.unary_unary(
            "/broadcast.v1.BroadcastService/GetBroadcast",
            request_serializer=broadcast_service_pb2.GetBroadcastRequest.SerializeToString,
            response_deserializer=broadcast_service_pb2.GetBroadcastResponse.FromString,
        )
        create = channel.unary_unary(
            "/broadcast.v1.BroadcastService/CreateBroadcast",
            request_serializer=broadcast_service_pb2.CreateBroadcastRequest.SerializeToString,
            response_deserializer=broadcast_service_pb2.CreateBroadcastResponse.FromString,
        )
        spec = broadcast_pb2.BroadcastSpec(title="bench")
        creates = await at_once(
            lambda n: create(
                broadcast_service_pb2.CreateBroadcastRequest(
                    request_id=f"{run}-{n}", broadcast_id=f"rpc-{run}-{n}", spec=spec
                )
            ),
            CALLS,
            AT_ONCE,
        )
        gets = await at_once(
            lambda n: get(broadcast_service_pb2.GetBroadcastRequest(broadcast_id=f"rpc-{run}-{n}")), CALLS, AT_ONCE
        )
        join = channel.unary_unary(
            "/broadcast.v1.PlaybackService/JoinBroadcast",
            request_serializer=playback_service_pb2.JoinBroadcastRequest.SerializeToString,
            response_deserializer=playback_service_pb2.JoinBroadcastResponse.FromString,
        )
        await plays(stack, f"rpc-{run}-0")
        joins = await at_once(
            lambda n: join(playback_service_pb2.JoinBroadcastRequest(broadcast_id=f"rpc-{run}-0", viewer_id=f"v{n}")),
            CALLS,
            AT_ONCE,
        )
        empties = await at_once(lambda _: empty(health_pb2.HealthCheckRequest()), CALLS, AT_ONCE)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    pool = await asyncpg.create_pool(stack.environment["DATABASE_URL"], min_size=10, max_size=10)
    await pool.execute("CREATE TABLE IF NOT EXISTS bench (id text PRIMARY KEY, body jsonb)")
    inserts = await at_once(lambda n: pool.execute("INSERT INTO bench VALUES ($1, '{}')", f"{run}-{n}"), CALLS, AT_ONCE)
    await pool.close()
    return [
        Figure(
            name="JoinBroadcast (HLS)",
            value=joins,
            unit="calls/s",
            ceiling=empties,
            ceiling_name="empty RPC, same server",
        ),
        Figure(name="GetBroadcast", value=gets, unit="calls/s", ceiling=empties, ceiling_name="empty RPC, same server"),
        Figure(
            name="CreateBroadcast",
            value=creates,
            unit="calls/s",
            ceiling=empties,
            ceiling_name="empty RPC, same server",
        ),
        Figure(name="CreateBroadcast", value=creates, unit="calls/s", ceiling=inserts, ceiling_name="plain INSERT"),
    ]


async def plays(stack: Stack, broadcast_id: str) -> None:
    """Let a broadcast be LIVE, and be watched by HLS, as a reconciler would leave it."""
    connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
    await connection.execute(
        "UPDATE broadcast SET target = 'LIVE', state = 'LIVE', due_at = NULL, status = status || jsonb_build_object("
        "'playback_id', 'P1', 'playback_handle', jsonb_build_object('kind', 'hls', 'playback_ids', '[\"P1\"]'::jsonb, "
        "'generation', 2, 'since', now())) WHERE id = $1",
        broadcast_id,
    )
    await connection.close()


async def watching(stack: Stack, process: Process, run: int) -> list[Figure]:
    """A change to many watchers against a change to one; and what an idle watcher holds in memory."""

    async def fan_out(watchers: int) -> float:
        arrived: list[float] = []
        async with contextlib.AsyncExitStack() as open_:
            clients = [await open_.enter_async_context(BroadcastClient(process.target)) for _ in range(8)]
            name = f"watched-{run}-{watchers}"
            await clients[0].create(broadcast_id=name, spec=broadcast_pb2.BroadcastSpec(title="0"))
            began = [0.0]
            seen = asyncio.Semaphore(0)

            async def watch(client: BroadcastClient) -> None:
                async for item in client.watch(filter=broadcast_service_pb2.BroadcastFilter(broadcast_ids=[name])):
                    if type(item).__name__ == "Change":
                        arrived.append(time.perf_counter() - began[0])
                    if type(item).__name__ in ("Change", "SnapshotComplete"):
                        seen.release()

            tasks = [asyncio.create_task(watch(clients[n % 8])) for n in range(watchers)]
            for _ in range(watchers):
                await seen.acquire()
            for n in range(CHANGES):
                began[0] = time.perf_counter()
                await clients[0].update(name, spec=broadcast_pb2.BroadcastSpec(title=str(n + 1)), mask=["spec.title"])
                for _ in range(watchers):
                    await seen.acquire()
            memory.append(rss(process))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return statistics.median(arrived) * 1000

    memory: list[float] = [rss(process)]
    one = await fan_out(1)
    many = await fan_out(WATCHERS)
    return [
        Figure(
            name=f"UpdateBroadcast to {WATCHERS} watchers, until it arrives",
            value=many,
            unit="ms",
            ceiling=one,
            ceiling_name="to 1 watcher",
        ),
        Figure(
            name=f"memory of the service with {WATCHERS} watchers",
            value=memory[-1],
            unit="MiB",
            ceiling=memory[0],
            ceiling_name="with none",
        ),
    ]


def rss(process: Process) -> float:
    """MiB."""
    for line in Path(f"/proc/{process.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


MEASURES = {
    "start": start_to_ready,
    "rpc": unary,
    "watch": watching,
    "webhook": webhook,
    "health": health,
    "attacks": attacks,
}
# They take minutes or need many connections: only when they are asked for.
APART = {"retention": retention, "distance": distance, "looks": looks, "audience": audience}


async def main(runs: int, only: str | None) -> int:
    postgres = EmbeddedPostgres()
    await postgres.start()
    collected: dict[tuple[str, str], list[Figure]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for run in range(runs):
                for name, measure in MEASURES.items() if only is None else [(only, (MEASURES | APART)[only])]:
                    database_url = await postgres.create_database(f"bench_{run}_{name}")
                    await migrate(database_url)
                    async with service(database_url, Path(folder)) as (stack, process):
                        for figure in await measure(stack, process, run):
                            collected.setdefault((figure.name, figure.ceiling_name), []).append(figure)
                    sys.stderr.write(f"run {run + 1} of {runs}: {name}\n")
    finally:
        await postgres.stop()
    print(f"{'what':<58} {'median':>12}  {'against':<24} {'median':>12}  {'ratio':>6}  range")
    for (name, ceiling_name), figures in collected.items():
        value = statistics.median(figure.value for figure in figures)
        ceiling = statistics.median(figure.ceiling for figure in figures)
        ratios = sorted(figure.ratio for figure in figures)
        unit = figures[0].unit
        print(
            f"{name:<58} {value:>7.1f} {unit:<7} {ceiling_name:<22} {ceiling:>7.1f} {unit:<7} "
            f"{statistics.median(ratios):>6.2f}  {ratios[0]:.2f}-{ratios[-1]:.2f}"
        )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=sorted(MEASURES | APART))
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.runs, arguments.only)))
