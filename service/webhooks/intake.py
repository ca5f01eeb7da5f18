"""The HTTP side: webhooks of both providers, and what an orchestrator asks.

A webhook is a hint. It is verified, the broadcast it is about is woken, and the pass looks for itself: nothing of its
content is believed, so lost, late, doubled and reordered ones cost time at worst. The answer is 2xx whatever the
content is; 5xx only when the hint could not be stored, because LiveKit takes any 4xx as delivered and Mux tries for a
day.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
import structlog
from aiohttp import web

from service import telemetry
from service.domain.errors import StoreUnavailable
from service.failpoints import failpoint
from service.webhooks.verify import from_livekit, from_mux

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from service.domain.secret import Secret

log = structlog.get_logger(__name__)

_LARGEST = 256 * 1024


class Intake:
    def __init__(
        self,
        *,
        wake: Callable[[Sequence[str]], Awaitable[None]],
        ready: Callable[[], Awaitable[bool]],
        livekit_secrets: Mapping[str, Secret],
        mux_secrets: Sequence[Secret],
        tag: str,
        host: str,
        port: int,
    ) -> None:
        self._wake = wake
        self._ready = ready
        self._livekit_secrets = livekit_secrets
        self._mux_secrets = mux_secrets
        self._tag = tag
        self._host = host
        self._port = port
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_post("/webhooks/livekit", self._livekit)
        app.router.add_post("/webhooks/mux", self._mux)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)

    async def start(self) -> int:
        """The port it listens on."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if await self._ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the database does not answer\n")

    async def _livekit(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not from_livekit(request.headers.get("Authorization", ""), body, self._livekit_secrets):
            return self._refused("livekit", request)
        return await self._accept("livekit", livekit_broadcast(_parse(body)))

    async def _mux(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not from_mux(request.headers.get("Mux-Signature", ""), body, self._mux_secrets, now=time.time()):
            return self._refused("mux", request)
        return await self._accept("mux", mux_broadcast(_parse(body), self._tag))

    def _refused(self, provider: str, request: web.Request) -> web.Response:
        telemetry.WEBHOOKS.add(1, {"provider": provider, "outcome": "refused"})
        log.warning("webhook_refused", provider=provider, remote=request.remote)
        return web.Response(status=401, text="the signature does not verify\n")

    async def _accept(self, provider: str, broadcast_id: str) -> web.Response:
        outcome = "accepted" if broadcast_id else "foreign"
        if broadcast_id:
            try:
                failpoint("webhook.before_wake")
                await self._wake([broadcast_id])
                failpoint("webhook.after_wake")
            except StoreUnavailable:
                telemetry.WEBHOOKS.add(1, {"provider": provider, "outcome": "not_stored"})
                return web.Response(status=503, text="try again\n", headers={"Retry-After": "1"})
        telemetry.WEBHOOKS.add(1, {"provider": provider, "outcome": outcome})
        log.debug("webhook", provider=provider, broadcast_id=broadcast_id, outcome=outcome)
        return web.Response(text="ok\n")


def livekit_broadcast(event: dict[str, Any]) -> str:
    """The room is named after the broadcast, in whichever shape of event it stands."""
    return _text(event, "room", "name") or _text(event, "egressInfo", "roomName")


def mux_broadcast(event: dict[str, Any], tag: str) -> str:
    """Live streams and their assets carry our mark; another environment's is none of ours."""
    mark = _text(event, "data", "passthrough")
    return mark.removeprefix(tag).rpartition(":")[0] if mark.startswith(tag) else ""


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _text(value: Any, *path: str) -> str:
    for name in path:
        value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) and value.isprintable() else ""
