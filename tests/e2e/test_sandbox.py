"""`python -m broadcast_sandbox`, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncGenerator

import aiohttp

from tests.ports import free_port


@contextlib.asynccontextmanager
async def sandbox(database_url: str) -> AsyncGenerator[tuple[dict[str, int], dict[str, str]]]:
    """Its ports, and what it prints for the service."""
    ports = {name: free_port() for name in ("livekit", "mux", "storage")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broadcast_sandbox", "--no-service"),
        *(part for name, port in ports.items() for part in (f"--{name}-port", str(port))),
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        printed = ""
        # The last that is printed.
        while "BROADCAST_TIMING_WATCH_S" not in printed:
            line = await process.stdout.readline()
            assert line, "it ended"
            printed += line.decode()
        yield ports, dict(re.findall(r"^export (\w+)='(.*)'$", printed, re.MULTILINE))
    finally:
        process.terminate()
        await process.wait()


async def test_two_stand_side_by_side(database_url: str) -> None:
    async with sandbox(database_url) as one, sandbox(database_url) as two, aiohttp.ClientSession() as http:
        for ports, environment in (one, two):
            assert environment["LIVEKIT_URL"] == f"http://127.0.0.1:{ports['livekit']}"
            assert environment["MUX_BASE_URL"] == f"http://127.0.0.1:{ports['mux']}"
            assert environment["BROADCAST_S3_ENDPOINT"] == f"http://127.0.0.1:{ports['storage']}"
            for port in ports.values():
                async with http.get(f"http://127.0.0.1:{port}/_state") as answer:
                    assert answer.status == 200
