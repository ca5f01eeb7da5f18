"""How soon a bystander is answered while somebody attacks the replica, and what the replica holds afterwards."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

import grpc

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast_client import BroadcastClient
from tests.bench.attackers import ATTACKS
from tests.bench.figures import Figure
from tests.stack import Process, Stack

_ATTACK_S, _CALM_S, _PAUSE_S = 4.0, 2.0, 2.0
_EVERY_S = 0.01


async def attacks(stack: Stack, process: Process, run: int) -> list[Figure]:
    """GetBroadcast a hundred times a second over a connection of its own, without an attack and in each."""
    name = f"bystander-{run}"
    async with BroadcastClient(process.target) as client:
        await client.create(broadcast_id=name)
    figures: list[Figure] = []
    alone = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(process.target, options=alone) as channel:
        stub = cast("Any", BroadcastServiceStub(channel))
        await _bystander(stub, name, 1.0)
        calm, _ = await _bystander(stub, name, _CALM_S)
        before = _rss(process)
        for attack in ATTACKS:
            attacker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.attackers",
                attack,
                str(process.grpc_port),
                stack.environment["WEBHOOK_PORT"],
                str(_ATTACK_S),
            )
            # Its imports take a moment.
            await asyncio.sleep(0.7)
            waits, failed = await _bystander(stub, name, _ATTACK_S - 0.5)
            await attacker.wait()
            await asyncio.sleep(_PAUSE_S)
            for label, value, ceiling in (
                ("p50", _percentile(waits, 50), _percentile(calm, 50)),
                ("p99", _percentile(waits, 99), _percentile(calm, 99)),
            ):
                figures.append(
                    Figure(
                        name=f"GetBroadcast ({label}) under: {attack}",
                        value=value * 1000,
                        unit="ms",
                        ceiling=ceiling * 1000,
                        ceiling_name=f"calm ({label})",
                    )
                )
            figures.append(
                Figure(
                    name=f"not answered under: {attack}",
                    value=failed,
                    unit="",
                    ceiling=len(waits) + failed,
                    ceiling_name="calls",
                )
            )
            figures.append(
                Figure(
                    name=f"memory after: {attack}",
                    value=_rss(process),
                    unit="MiB",
                    ceiling=before,
                    ceiling_name="before all",
                )
            )
    return figures


async def _bystander(stub: Any, name: str, for_s: float) -> tuple[list[float], int]:
    """Seconds that each call took, and how many failed. A call begins when it is due, whatever became of the last."""
    request = rpc.GetBroadcastRequest(broadcast_id=name)
    waits: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        began = time.perf_counter()
        try:
            await stub.GetBroadcast(request, timeout=10)
        except grpc.aio.AioRpcError:
            failed += 1
        else:
            waits.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as calls:
        end = time.perf_counter() + for_s
        while time.perf_counter() < end:
            calls.create_task(one())
            await asyncio.sleep(_EVERY_S)
    return waits, failed


def _percentile(waits: list[float], percent: int) -> float:
    return statistics.quantiles(waits, n=100)[percent - 1]


def _rss(process: Process) -> float:
    """MiB."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
