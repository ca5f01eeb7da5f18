"""A real livekit-server for tests: found, or installed from the Go module proxy at the version that was measured.

Looked for as `LIVEKIT_SERVER_BIN`, as `livekit-server` on the PATH, then as `build/livekit/livekit-server`, which
`go install` makes where Go is there. Where none of these is to be had the tests skip, and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp

from tests.ports import free_port

VERSION = "v1.13.5"
"""The newest that `go install` takes: later ones have `replace` lines."""
_MODULE = f"github.com/livekit/livekit-server/cmd/server@{VERSION}"
_BUILT = Path(__file__).parents[2] / "build" / "livekit" / "livekit-server"
_INSTALL_S = 1800
_START_S = 30


class ServerMissing(Exception):
    """There is no livekit-server here, and none can be made. Says what was tried."""


def binary() -> Path:
    """The server's executable; installs it once, which takes about three minutes. Raises ServerMissing."""
    named = os.environ.get("LIVEKIT_SERVER_BIN")
    if named:
        if not os.access(named, os.X_OK):
            raise ServerMissing(f"LIVEKIT_SERVER_BIN={named} is no executable")
        return Path(named)
    found = shutil.which("livekit-server")
    if found is not None:
        return Path(found)
    if not _BUILT.exists():
        _install()
    return _BUILT


def _install() -> None:
    go = shutil.which("go")
    if go is None:
        raise ServerMissing("no livekit-server on the PATH, no LIVEKIT_SERVER_BIN, and no Go to install it with")
    _BUILT.parent.mkdir(parents=True, exist_ok=True)
    installed = subprocess.run(
        [go, "install", _MODULE],
        env={**os.environ, "GOBIN": str(_BUILT.parent), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        timeout=_INSTALL_S,
        check=False,
    )
    if installed.returncode != 0:
        raise ServerMissing(f"go install {_MODULE}: {installed.stderr.strip()[-300:]}")
    (_BUILT.parent / "server").rename(_BUILT)


def outside_address() -> str:
    """An address of this machine that is not loopback. WebRTC offers no loopback candidates. Raises ServerMissing."""
    address = "127.0.0.1"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # No packet is sent: connecting a datagram socket only chooses the interface.
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            raise ServerMissing(
                "this machine has no address but loopback, so no WebRTC connection can be made"
            ) from None
    if address.startswith("127."):
        raise ServerMissing("this machine has no address but loopback, so no WebRTC connection can be made")
    return address


@contextlib.asynccontextmanager
async def running(
    *,
    key: str,
    secret: str,
    webhook_url: str | None,
    log: Path,
    executable: Path,
    port: int | None = None,
    redis: str | None = None,
) -> AsyncGenerator[str]:
    """The server's url while the block runs. *webhook_url*: None sends no webhooks. *redis*: HOST:PORT; without one the
    server keeps rooms in memory, and has no egress.
    """
    port = port or free_port()
    config = {
        "port": port,
        "bind_addresses": ["127.0.0.1", outside_address()],
        "keys": {key: secret},
        "rtc": {"tcp_port": free_port(), "udp_port": free_port(), "use_external_ip": False},
        "webhook": {"api_key": key, "urls": [webhook_url] if webhook_url is not None else []},
        **({"redis": {"address": redis}} if redis is not None else {}),
        "room": {"auto_create": False},
        "logging": {"level": "warn"},
    }
    url = f"http://127.0.0.1:{port}"
    with log.open("a") as output:
        process = await asyncio.create_subprocess_exec(
            str(executable), "--config-body", json.dumps(config), stdout=output, stderr=output
        )
    try:
        await _healthy(url, process)
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def redis(log: Path) -> AsyncGenerator[str]:
    """The HOST:PORT of a Redis while the block runs: `REDIS_SERVER_BIN`, or `redis-server` on the PATH. Raises
    ServerMissing.
    """
    executable = os.environ.get("REDIS_SERVER_BIN") or shutil.which("redis-server")
    if executable is None:
        raise ServerMissing("no redis-server on the PATH, and no REDIS_SERVER_BIN")
    port = free_port()
    with log.open("a") as output:
        process = await asyncio.create_subprocess_exec(
            *(executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(_START_S):
            while not await _listens(port):
                assert process.returncode is None, "redis-server ended at its start"
                await asyncio.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _healthy(url: str, process: asyncio.subprocess.Process) -> None:
    deadline = asyncio.get_running_loop().time() + _START_S
    async with aiohttp.ClientSession() as http:
        while True:
            assert process.returncode is None, "livekit-server ended at its start"
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            assert asyncio.get_running_loop().time() < deadline, "livekit-server did not start"
            await asyncio.sleep(0.05)
