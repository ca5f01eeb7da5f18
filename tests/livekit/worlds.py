"""Two LiveKits that can do the same: the real server with real hosts, and the sandbox's simulator.

A scenario is written once against `World` and run on both. What it sees goes into a `Trace`; traces are compared field
by field, after ids, times and versions were replaced by what they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import aiohttp
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from livekit import api

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from tests.livekit import server

KEY = "devkey"
SECRET = "a-secret-of-at-least-thirty-two-bytes"
_HOST = Path(__file__).with_name("host.py")
_T = TypeVar("_T")

_IDS = re.compile(r"^(RM|PA|TR|EG|EV)_.+$")
_TIMES = {"creationTime", "creationTimeMs", "joinedAt", "joinedAtMs", "createdAt"}
_COUNTS = {"version"}
_UNSAID = {"ssrc", "rid", "stream", "turnPassword", "sdpCid", "streamId", "packetTrailerFeatures"}
"""Their presence is compared, their value is the server's own."""
_OF_THE_HOST = {"width", "height", "bitrate", "cid", "mid"}
"""Their presence is compared, their value is the publisher's own."""
_LEFT_OUT = {
    # The host's SDK says these of itself, and the simulated host stands for a browser.
    "capabilities",
    "clientProtocol",
    # The real host calls its one layer LOW, a value that JSON leaves out. A browser calls its one layer HIGH.
    "quality",
}


class Host(Protocol):
    """A person in a room."""

    async def publish(self, source: str) -> None: ...
    async def unpublish(self, source: str) -> None: ...
    async def mute(self, source: str) -> None: ...
    async def leave(self) -> None: ...
    async def kill(self) -> None:
        """Gone without a word, as a browser whose machine loses power."""
        ...


@dataclass(slots=True, kw_only=True)
class Trace:
    """What one scenario saw, in order, with everything removed that may differ between two runs."""

    seen: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])

    def add(self, label: str, value: Any) -> None:
        self.seen.append((label, settled(value)))


class World(Protocol):
    name: str
    url: str
    api: api.LiveKitAPI
    webhooks: list[dict[str, Any]]

    async def host(self, token: str) -> Host:
        """Enter with *token*. Raises HostRefused."""
        ...


class HostRefused(Exception):
    """The server let nobody in with this token."""


@dataclass(slots=True)
class RealHost:
    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, url: str, token: str) -> RealHost:
        """A host on its way into the room of *token*, at the server at *url*; `answered` waits until it is inside."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, str(_HOST), url.replace("http", "ws", 1), token),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def _do(self, **command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.answered()

    async def answered(self) -> None:
        """Raises HostRefused where the command failed."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the host process ended"}
        if "error" in answer:
            raise HostRefused(answer["error"])

    async def publish(self, source: str) -> None:
        await self._do(do="publish", source=source)

    async def unpublish(self, source: str) -> None:
        await self._do(do="unpublish", source=source)

    async def mute(self, source: str) -> None:
        await self._do(do="mute", source=source)

    async def leave(self) -> None:
        await self._do(do="leave")

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass(slots=True)
class RealWorld:
    url: str
    api: api.LiveKitAPI
    webhooks: list[dict[str, Any]]
    name: str = "livekit-server"
    hosts: list[RealHost] = field(default_factory=list[RealHost])

    async def host(self, token: str) -> RealHost:
        host = await RealHost.start(self.url, token)
        self.hosts.append(host)
        await host.answered()
        return host


@dataclass(slots=True)
class SimulatedHost:
    world: SimulatedWorld
    room: str
    identity: str

    async def _do(self, path: str, **body: Any) -> None:
        status, answer = await self.world.post(path, room=self.room, identity=self.identity, **body)
        if status != 200:
            raise HostRefused(str(answer))

    async def publish(self, source: str) -> None:
        # As the real host, which sends one layer.
        await self._do("/_control/publish", sources=[source], simulcast=False)

    async def unpublish(self, source: str) -> None:
        await self._do("/_control/unpublish", sources=[source])

    async def mute(self, source: str) -> None:
        await self._do("/_control/mute", source=source, muted=True)

    async def leave(self) -> None:
        await self._do("/_control/leave")

    async def kill(self) -> None:
        await self._do("/_control/drop")


@dataclass(slots=True)
class SimulatedWorld:
    url: str
    api: api.LiveKitAPI
    webhooks: list[dict[str, Any]]
    http: aiohttp.ClientSession
    name: str = "simulator"

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def host(self, token: str) -> SimulatedHost:
        status, answer = await self.post("/_control/join", token=token)
        if status != 200:
            raise HostRefused(str(answer))
        return SimulatedHost(self, answer["room"], answer["identity"])


@contextlib.asynccontextmanager
async def _receiver() -> AsyncGenerator[tuple[str, list[dict[str, Any]]]]:
    """Where to send webhooks, and those that came with a signature that verifies."""
    came: list[dict[str, Any]] = []
    verifier = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))

    async def take(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        verifier.receive(body, request.headers["Authorization"])
        came.append(json.loads(body))
        return web.Response()

    app = web.Application()
    app.router.add_post("/livekit", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/livekit", came
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def real_world(executable: Path, log: Path) -> AsyncGenerator[RealWorld]:
    async with (
        _receiver() as (webhook_url, came),
        server.running(key=KEY, secret=SECRET, webhook_url=webhook_url, log=log, executable=executable) as url,
        api.LiveKitAPI(url, KEY, SECRET, failover=False) as livekit,
    ):
        world = RealWorld(url=url, api=livekit, webhooks=came)
        try:
            yield world
        finally:
            for host in world.hosts:
                await host.kill()


@contextlib.asynccontextmanager
async def simulated_world(scale: float = 20.0) -> AsyncGenerator[SimulatedWorld]:
    async with _receiver() as (webhook_url, came), aiohttp.ClientSession() as http:
        simulator = LiveKitSimulator(
            LiveKitSimulatorSettings(api_key=KEY, api_secret=SECRET, webhook_url=webhook_url, auto_create=False),
            clock=ScaledClock(scale),
        )
        url = await simulator.start()
        try:
            async with api.LiveKitAPI(url, KEY, SECRET, failover=False) as livekit:
                yield SimulatedWorld(url=url, api=livekit, webhooks=came, http=http)
        finally:
            await simulator.stop()


async def post(url: str, method: str, token: str) -> tuple[int, str]:
    """Status and text of the answer to an empty request, without the SDK, which shows no plain text."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/twirp/livekit.{method}", json={}) as response,
    ):
        return response.status, await response.text()


async def until(read: Callable[[], Awaitable[_T]], what: str, seconds: float = 30.0) -> _T:
    """The first truthy answer of *read*."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := await read()):
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)
    return value


def token(room: str, identity: str = "ann", *, secret: str = SECRET, **grants: Any) -> str:
    given: dict[str, Any] = {"room_join": True, "room": room, "can_publish": True, **grants}
    return api.AccessToken(KEY, secret).with_identity(identity).with_grants(api.VideoGrants(**given)).to_jwt()


def settled(value: Any) -> Any:
    """*value* as JSON, with ids, times and counts replaced by what they are."""
    if isinstance(value, Message):
        value = MessageToDict(value)
    if isinstance(value, Mapping):
        return {
            name: _named(name, each) for name, each in cast("Mapping[str, Any]", value).items() if name not in _LEFT_OUT
        }
    if isinstance(value, list | tuple):
        return [settled(each) for each in cast("Sequence[Any]", value)]
    return value


def _named(name: str, value: Any) -> Any:
    if name in _TIMES:
        return "a time"
    if name in _COUNTS:
        return "a number"
    if name in _UNSAID | _OF_THE_HOST:
        return "set"
    if isinstance(value, str) and (kind := _IDS.match(value)):
        return f"{kind[1]}_"
    return settled(value)


def differences(real: Any, simulated: Any, path: str = "") -> list[str]:
    """Where two settled values differ, a line each."""
    if isinstance(real, dict) and isinstance(simulated, dict):
        one, other = cast("dict[str, Any]", real), cast("dict[str, Any]", simulated)
        names = sorted({*one, *other})
        return [line for name in names for line in _differ(one, other, name, f"{path}.{name}" if path else name)]
    if isinstance(real, list) and isinstance(simulated, list):
        pairs = list(zip(cast("list[Any]", real), cast("list[Any]", simulated), strict=False))
        if len(pairs) == max(len(cast("list[Any]", real)), len(cast("list[Any]", simulated))):
            return [line for n, (each, twin) in enumerate(pairs) for line in differences(each, twin, f"{path}[{n}]")]
    return [] if real == simulated else [f"{path}: real {real!r}, simulated {simulated!r}"]


def _differ(real: dict[str, Any], simulated: dict[str, Any], name: str, path: str) -> list[str]:
    if name not in simulated:
        return [f"{path}: only the real server has it: {real[name]!r}"]
    if name not in real:
        return [f"{path}: only the simulator has it: {simulated[name]!r}"]
    return differences(real[name], simulated[name], path)
