"""A simulated LiveKit with the two things around it that a test looks at: an RTMP ingest and a webhook receiver."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from livekit import api
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from broadcast_sandbox.faults import Fault, Kind
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from tests.awake import AwakeClock, awake_clock

_T = TypeVar("_T")
PSRPC = "twirp error unknown: "
KEY = "devkey"
SECRET = "a-secret-of-at-least-thirty-two-bytes"
STREAM_KEY = "5bd28537-7491-4ffa-b726-bbb506401234"
REDACTED = "rtmps://global-live.mux.com:443/app/{5bd...234}"
OTHER = "rtmp://live.example.com/app/abcdefghi"
OTHER_REDACTED = "rtmp://live.example.com/app/{abc...ghi}"


async def until(read: Callable[[], _T], what: str = "the expected state", seconds: float = 30.0) -> _T:
    """The first truthy value of *read*."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := read()):
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.002)
    return value


@dataclass(slots=True, kw_only=True)
class Ingest:
    """Takes `valid` keys, refuses any other with 403."""

    valid: set[str] = field(default_factory=lambda: {STREAM_KEY})
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict[str, web.WebSocketResponse])
    messages: list[Any] = field(default_factory=list[Any])
    connections: int = 0

    async def take(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        if key not in self.valid:
            return web.Response(status=403)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        self.sockets[key] = socket
        async for message in socket:
            self.messages.append(json.loads(message.data))
        self.sockets.pop(key, None)
        return socket


@dataclass(slots=True, kw_only=True)
class Receiver:
    """Verifies every webhook as the service has to, and keeps it."""

    events: list[WebhookEvent] = field(default_factory=list[WebhookEvent])
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    answers: list[int] = field(default_factory=list[int])
    """Statuses of the next answers; then 200."""

    async def take(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        verifier = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
        event = verifier.receive(body, request.headers["Authorization"])
        self.headers.append(dict(request.headers))
        if self.answers and (status := self.answers.pop(0)) != 200:
            return web.Response(status=status)
        self.events.append(event)
        self.bodies.append(json.loads(body))
        return web.Response()

    def names(self, key: str) -> list[str]:
        """Event names of one queue: that of an egress id, or that of a room's name."""
        return [event.event for event in self.events if _queue(event) == key]

    def of(self, name: str) -> list[WebhookEvent]:
        return [event for event in self.events if event.event == name]


def _queue(event: WebhookEvent) -> str:
    return event.egress_info.egress_id or event.room.name


@dataclass(slots=True, kw_only=True)
class Stage:
    simulator: LiveKitSimulator
    livekit: api.LiveKitAPI
    ingest: Ingest
    receiver: Receiver
    http: aiohttp.ClientSession

    def fault(self, kind: Kind, operation: str = "*", **fields: Any) -> None:
        self.simulator.add_fault(Fault(kind=kind, operation=operation, **fields))

    def hits(self, kind: Kind) -> int:
        return self.simulator.faults.hits.get(kind, 0)

    def kinds(self, prefix: str = "") -> list[str]:
        return [effect.kind for effect in self.simulator.effects.after(0) if effect.kind.startswith(prefix)]

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.http.post(self.simulator.base_url + path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        async with self.http.get(self.simulator.base_url + path) as response:
            return await response.json()

    async def host(self, room: str, *sources: str, identity: str = "host") -> Any:
        publish = list(sources or ("camera", "microphone"))
        status, answer = await self.post("/_control/join", room=room, identity=identity, publish=publish)
        assert status == 200, answer
        return answer

    async def room(self, name: str = "bc-1", **fields: Any) -> models.Room:
        return await self.livekit.room.create_room(api.CreateRoomRequest(name=name, **fields))

    async def start(self, room: str = "bc-1", urls: tuple[str, ...] = (f"mux://{STREAM_KEY}",)) -> api.EgressInfo:
        return await self.livekit.egress.start_room_composite_egress(composite(room, *urls))

    async def stop(self, egress_id: str) -> api.EgressInfo:
        return await self.livekit.egress.stop_egress(api.StopEgressRequest(egress_id=egress_id))

    async def egress(self, egress_id: str) -> api.EgressInfo:
        listed = await self.livekit.egress.list_egress(api.ListEgressRequest(egress_id=egress_id))
        return listed.items[0]

    async def reaches(self, egress_id: str, status: int) -> api.EgressInfo:
        """The record, as soon as it has that status."""
        deadline = asyncio.get_running_loop().time() + 30
        while asyncio.get_running_loop().time() < deadline:
            if (info := await self.egress(egress_id)).status == status:
                return info
            await asyncio.sleep(0.005)
        raise AssertionError(f"status {status} was waited for in vain")

    async def ended(self, egress_id: str) -> api.EgressInfo:
        """The record as egress_ended told of it."""

        def told() -> list[api.EgressInfo]:
            events = self.receiver.of("egress_ended")
            return [event.egress_info for event in events if event.egress_info.egress_id == egress_id]

        return (await until(told, "egress_ended"))[0]

    async def live(self, room: str = "bc-1", urls: tuple[str, ...] = (f"mux://{STREAM_KEY}",)) -> str:
        """A room with a host and an egress whose outputs are all connected."""
        await self.room(room)
        await self.host(room)
        egress_id = (await self.start(room, urls)).egress_id
        await until(lambda: len(self.simulator.effects.of("egress.stream_connected")) >= len(urls))
        return egress_id


async def refusal(call: Awaitable[object]) -> tuple[int, str, str]:
    """Status, code and message of the error that the SDK makes of the answer."""
    with pytest.raises(api.ServerError) as caught:
        await call
    return caught.value.status, caught.value.code, caught.value.message


def composite(room: str, *urls: str, **fields: Any) -> api.RoomCompositeEgressRequest:
    output = api.StreamOutput(protocol=api.StreamProtocol.RTMP, urls=urls)
    return api.RoomCompositeEgressRequest(room_name=room, stream_outputs=[output], **fields)


@asynccontextmanager
async def staged(scale: float = 200.0, **settings: Any) -> AsyncGenerator[Stage, None]:
    async with awake_clock(scale) as clock, _staged(clock, **settings) as stage:
        yield stage


@asynccontextmanager
async def _staged(clock: AwakeClock, **settings: Any) -> AsyncGenerator[Stage, None]:
    ingest, receiver = Ingest(), Receiver()
    around = web.Application()
    around.router.add_get("/_ingest/app/{key}", ingest.take)
    around.router.add_post("/webhook", receiver.take)
    runner = web.AppRunner(around, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    simulator = LiveKitSimulator(
        LiveKitSimulatorSettings(
            api_key=KEY,
            api_secret=SECRET,
            webhook_url=f"{base}/webhook",
            ingests={"global-live.mux.com": f"{base}/_ingest"},
            **settings,
        ),
        clock=clock,
    )
    url = await simulator.start()
    livekit = api.LiveKitAPI(url=url, api_key=KEY, api_secret=SECRET, failover=False)
    try:
        async with aiohttp.ClientSession() as http:
            yield Stage(simulator=simulator, livekit=livekit, ingest=ingest, receiver=receiver, http=http)
    finally:
        await livekit.aclose()  # pyright: ignore[reportUnknownMemberType]
        await simulator.stop()
        await runner.cleanup()
