"""The Mux simulator with everyone who talks to it: the real SDK, encoders, a viewer, a webhook endpoint."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import aiohttp
import mux_python
import pytest
from aiohttp import web
from urllib3.util import Retry

from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from tests.awake import AwakeClock, awake_clock
from tests.waiting import eventually

TOKEN_SECRET = "token-secret"
SECRET = "whsec"


@dataclass
class Hook:
    raw: bytes
    signature: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.raw)

    @property
    def type(self) -> str:
        return self.json["type"].removeprefix("video.").replace("live_stream.simulcast_target", "simulcast")


@dataclass
class Receiver:
    """A webhook endpoint; `answers` are the statuses of the next deliveries, then 200."""

    url: str = ""
    hooks: list[Hook] = field(default_factory=list[Hook])
    answers: list[int] = field(default_factory=list[int])
    slow_s: float = 0.0

    async def receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.hooks.append(Hook(raw, request.headers.get("Mux-Signature", "")))
        slow, self.slow_s = self.slow_s, 0.0
        await asyncio.sleep(slow)
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    def types(self, prefix: str = "") -> list[str]:
        return [hook.type for hook in self.hooks if hook.type.startswith(prefix)]

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [hook.json for hook in self.hooks if hook.type == type_]


@dataclass
class Encoder:
    socket: aiohttp.ClientWebSocketResponse

    async def media(self, flowing: bool = True) -> None:  # noqa: FBT001, FBT002
        await self.socket.send_json({"media": flowing})

    async def cut(self) -> bool:
        """Waits until the server closes the connection."""
        message = await self.socket.receive(timeout=30)
        return message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    async def leave(self) -> None:
        await self.socket.close()


class Mux:
    """The simulator with everyone who talks to it."""

    def __init__(self, simulator: MuxSimulator, receiver: Receiver, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.receiver = receiver
        self.http = http
        self.base = simulator.base_url
        self.encoders: list[Encoder] = []
        # Any: the generated code has no types.
        self.client: Any = self.sdk(TOKEN_SECRET)
        self.streams: Any = mux_python.LiveStreamsApi(self.client)
        self.assets: Any = mux_python.AssetsApi(self.client)

    def sdk(self, secret: str) -> Any:
        configuration: Any = mux_python.Configuration(host=self.base, username="token", password=secret)
        configuration.retries = Retry(
            total=2, connect=2, read=0, status=0, redirect=0, other=0, respect_retry_after_header=False
        )
        return mux_python.ApiClient(configuration)

    async def raw(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        response = await asyncio.to_thread(method, *arguments, _preload_content=False, **options)
        return json.loads(response.data)["data"]

    async def create(self, **body: Any) -> dict[str, Any]:
        return await self.raw(self.streams.create_live_stream, body)

    async def get(self, stream_id: str) -> dict[str, Any]:
        return await self.raw(self.streams.get_live_stream, stream_id)

    async def refused(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[int, dict[str, Any]]:
        with pytest.raises(mux_python.ApiException) as caught:
            await asyncio.to_thread(method, *arguments, **options)
        error: Any = caught.value
        return error.status, json.loads(error.body)

    async def publish(self, key: str) -> Encoder:
        """The encoder stays connected until the test says otherwise."""
        encoder = Encoder(await self.http.ws_connect(f"{self.base}/_ingest/app/{key}"))
        self.encoders.append(encoder)
        return encoder

    async def publish_refused(self, key: str) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.http.ws_connect(f"{self.base}/_ingest/app/{key}")
        return caught.value.status

    async def go_live(self, stream: dict[str, Any]) -> Encoder:
        before = [effect for effect in self.simulator.effects.of("stream.active") if effect.id == stream["id"]]
        encoder = await self.publish(stream["stream_key"])
        await encoder.media()
        await self.effect("stream.active", stream["id"], len(before) + 1)
        return encoder

    async def effect(self, kind: str, of: str, count: int = 1) -> dict[str, Any]:
        """The detail of the *count*-th such effect, once it is there."""

        def found() -> list[dict[str, Any]] | None:
            details = [effect.detail for effect in self.simulator.effects.of(kind) if effect.id == of]
            return details if len(details) >= count else None

        return (await eventually(found))[count - 1]

    async def pass_time(self, seconds: float) -> None:
        """Lets *seconds* of the provider's time go by in about a tenth of a real second."""
        clock = self.simulator.clock
        scale, end = clock.scale, clock.now() + seconds
        clock.scale = seconds * 10
        await eventually(lambda: clock.now() >= end)
        clock.scale = scale

    def kinds(self, *prefixes: str) -> list[str]:
        return [effect.kind for effect in self.simulator.effects.after(0) if effect.kind.startswith(prefixes or "")]

    async def play(self, playback_id: str, **query: str) -> tuple[int, str]:
        """The first rendition, as a player finds it."""
        url = f"{self.base}/playback/{playback_id}.m3u8"
        async with self.http.get(url, params=query) as response:
            if response.status != 200:
                return response.status, await response.text()
            [rendition] = [line for line in (await response.text()).splitlines() if line and line[0] != "#"]
        async with self.http.get(urljoin(url, rendition)) as response:
            return response.status, await response.text()

    async def control(self, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(verb, f"{self.base}{path}", json=body) as response:
            return response.status, await response.json() if response.status != 204 else None


@contextlib.asynccontextmanager
async def running(scale: float = 100, **settings: Any) -> AsyncGenerator[Mux]:
    async with awake_clock(scale) as clock, _running(clock, **settings) as mux:
        yield mux


@contextlib.asynccontextmanager
async def _running(clock: AwakeClock, **settings: Any) -> AsyncGenerator[Mux]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    options: dict[str, Any] = {"webhook_url": receiver.url, "post_rate": 0, "other_rate": 0, **settings}
    simulator = MuxSimulator(
        MuxSimulatorSettings(token_id="token", token_secret=TOKEN_SECRET, webhook_secret=SECRET, **options),
        clock=clock,
    )
    await simulator.start()
    async with aiohttp.ClientSession() as http:
        mux = Mux(simulator, receiver, http)
        try:
            yield mux
        finally:
            mux.client.rest_client.pool_manager.clear()
            for encoder in mux.encoders:
                await encoder.leave()
            await simulator.stop()
            await runner.cleanup()
