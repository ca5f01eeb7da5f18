"""One RTMP output of a simulated egress, and its push from the first connection until it is cancelled or gives up.

Source: livekit/egress pkg/pipeline/builder/stream.go.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from livekit.protocol import egress as proto

from broadcast_sandbox.livekit.egress.stream_url import StreamUrl
from broadcast_sandbox.livekit.world import World

RECONNECT_FOR_S = 30.0
"""Counted from the first disconnect (pkg/pipeline/builder/stream.go, livenessIdleTimeout)."""
_RECONNECT_PAUSE_S = 0.5
"""The real loop has no backoff, but an attempt takes a round trip."""

_CLOSING = aiohttp.ClientWSTimeout(ws_close=0.2)  # pyright: ignore[reportCallIssue]


class _PublishRefused(Exception):
    """The text is the error of an output that was refused at first."""


class _NoProgress(Exception):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PushEvents:
    """Callbacks of a push to its egress. None of them may block."""

    connected: Callable[[], None]
    retried: Callable[[], None]
    lost: Callable[[], None]
    failed: Callable[[str], None]


class Push:
    """One publisher at one url, from the first connection until it is cancelled or gives up."""

    def __init__(
        self, world: World, session: aiohttp.ClientSession, url: StreamUrl, *, owner: str, events: PushEvents
    ) -> None:
        """*owner*: room name and egress id. A fault may match them or the redacted url."""
        self._world = world
        self._session = session
        self._url = url
        self._events = events
        self._cut = asyncio.Event()
        self._stuck = False
        self._troubles: list[asyncio.Task[None]] = []
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.wedged = False
        """The connection stands and carries nothing."""
        self.target = f"{url.redacted} {owner}"
        self.connected = False

    async def run(self) -> None:
        """An error before anything got through is final; after that it reconnects for 30 s, without backoff."""
        error = "Connection error"
        try:
            await self._publish()
            while await self._reconnect():
                continue
        except _PublishRefused as refused:
            error = str(refused)
        except _NoProgress:
            error = "no outbound progress for 30s"
        return self._events.failed(error)

    async def _reconnect(self) -> bool:
        """Publish again, and return True when that push is lost. False: 30 s have passed without success."""
        window = asyncio.create_task(self._world.clock.sleep(RECONNECT_FOR_S))
        try:
            while not window.done():
                self._events.retried()
                with contextlib.suppress(_PublishRefused):
                    await self._publish()
                    return True
                await self._world.clock.sleep(_RECONNECT_PAUSE_S)
            return False
        finally:
            window.cancel()

    async def _publish(self) -> None:
        """Returns when an established push was lost."""
        if self._world.faults.take("publish", self.target, "rtmp_refuse") is not None:
            raise self._refused()
        if self._world.faults.take("publish", self.target, "rtmp_hang") is not None:
            await asyncio.Event().wait()
        base = self._world.settings.ingests.get(self._url.host)
        if base is None:
            await self._to_destination()
        else:
            await self._to_ingest(f"{base.rstrip('/')}/app/{quote(self._url.key, safe='')}")
        self._events.lost()

    async def _to_ingest(self, address: str) -> None:
        try:
            socket = await self._session.ws_connect(address, timeout=_CLOSING)
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise self._refused() from None
        async with socket:
            no_media = self._world.faults.take("publish", self.target, "rtmp_no_media") is not None
            behind_s = self._world.settings.egress_holds_s
            await socket.send_str(json.dumps({"media": not no_media, "behind_s": behind_s}))
            self._socket = socket
            try:
                await self._established(self._until_closed(socket))
            finally:
                self._socket = None

    def _refused(self) -> _PublishRefused:
        """As GStreamer says it (measured, egress 1.14.1)."""
        return _PublishRefused(f"Connection refused: Could not connect to {self._url.redacted}")

    async def _to_destination(self) -> None:
        self._world.effects.append("destination.connected", self._url.redacted)
        try:
            await self._established(asyncio.Event().wait())
        finally:
            self._world.effects.append("destination.disconnected", self._url.redacted)

    async def _established(self, closed: Awaitable[object]) -> None:
        """Until *closed*, or until a fault cuts the connection."""
        self.connected = True
        self.wedged = False
        self._cut.clear()
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(closed), asyncio.ensure_future(self._cut.wait())]
        self.take_faults()
        self._events.connected()
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.connected = False
            for wait in waits:
                wait.cancel()
            for trouble in self._troubles:
                trouble.cancel()
            self._troubles.clear()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._stuck:
            raise _NoProgress

    def take_faults(self) -> None:
        """Take the faults of an established push."""
        if fault := self._world.faults.take("publish", self.target, "rtmp_drop"):
            self._troubles.append(self._world.background.spawn(self._drop(fault.delay_s)))
        if fault := self._world.faults.take("publish", self.target, "rtmp_wedge"):
            monitored = fault.detail.get("monitor", True) is not False
            self._troubles.append(self._world.background.spawn(self._wedge(fault.delay_s, monitored=monitored)))

    async def _drop(self, delay_s: float) -> None:
        await self._world.clock.sleep(delay_s)
        self._cut.set()

    async def _wedge(self, delay_s: float, *, monitored: bool) -> None:
        """The connection stays open and carries nothing. Egresses since 1.14 notice after 30 s and do not try again;
        older ones stayed ACTIVE for ever (livekit/egress pull request 1244).
        """
        await self._world.clock.sleep(delay_s)
        self.wedged = True
        if self._socket is not None:
            await self._socket.send_str(json.dumps({"media": False}))
        if monitored:
            await self._world.clock.sleep(RECONNECT_FOR_S)
            self._stuck = True
            self._cut.set()

    async def _until_closed(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in socket:
            continue


@dataclass(slots=True, kw_only=True)
class RtmpOutput:
    """Its url, its part of the record, and the push that serves it."""

    url: StreamUrl
    info: proto.StreamInfo
    push: Push | None = None
    """None before the egress is ACTIVE."""
    task: asyncio.Task[None] | None = None
    """Runs the push."""
    retry_told: bool = False
    """A retry was told within the last minute."""

    @property
    def connecting(self) -> bool:
        return self.info.status == proto.StreamInfo.ACTIVE and self.info.started_at == 0

    def finish(self, status: proto.StreamInfo.Status) -> None:
        """An output that never started is said to have started when it ended (pkg/config/output_stream.go)."""
        if self.info.ended_at:
            return
        self.info.status = status
        self.info.ended_at = time.time_ns()
        if self.info.started_at == 0:
            self.info.started_at = self.info.ended_at
        else:
            self.info.duration = self.info.ended_at - self.info.started_at
