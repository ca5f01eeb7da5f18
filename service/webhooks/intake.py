"""The HTTP port: webhooks of all providers, and the two probes of an orchestrator (/livez, /readyz).

The port is open to anybody, so a request must cost little until its signature was verified: its size, its time and the
number of requests at once are limited before. `connections` limits those that send no request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from service import telemetry
from service.domain.errors import StoreUnavailable, WebhookRefused
from service.domain.provider import WEBHOOK_SENDERS, Provider
from service.webhooks.connections import Connections, listening
from service.webhooks.delivery import LARGEST, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp.typedefs import Handler

    from service.store.webhooks.inbox import Delivered

log = structlog.get_logger(__name__)

_BODY_WITHIN_S = 5.0
_AT_ONCE = 64
"""Requests under way. Each may hold LARGEST bytes in memory."""


class Intake:
    def __init__(
        self,
        *,
        deliver: Callable[[Provider, Iterable[tuple[str, str]], bytes], Awaitable[Delivered]],
        ready: Callable[[], Awaitable[bool]],
        refused: Callable[[], Iterable[Provider]] = tuple,
        host: str,
        port: int,
        connections: Connections,
    ) -> None:
        """*refused*: the providers that refuse the credentials of this replica. It is ready all the same, because
        callers need none, and says so.
        """
        self._refused = refused
        self._connections = connections
        self._listener: asyncio.Server | None = None
        self._deliver = deliver
        self._ready = ready
        self._host = host
        self._port = port
        self._under_way = 0
        self._draining = False
        app = web.Application(middlewares=[self._with_headers])
        app.router.add_post(f"/webhooks/{{provider:{'|'.join(WEBHOOK_SENDERS)}}}", self._webhook)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        # auto_decompress: a few bytes could unpack to any size before the body is checked. lingering_time: the rest of
        # a refused body is read for a second, or the sender would see a reset instead of the answer.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1, auto_decompress=False, lingering_time=1
        )

    async def start(self) -> int:
        """Listen, and answer the port. Raises OSError if the port is taken."""
        listens = listening(self._host, self._port)
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - for the type checker: it is set up
        accepting = self._connections.accepting(self._runner.server)
        self._listener = await asyncio.get_running_loop().create_server(accepting, sock=listens)
        return int(listens.getsockname()[1])

    def drain(self) -> None:
        """Answer /readyz with 503 from now on. Webhooks are taken in as before, because a provider sends them to
        whatever address it has.
        """
        self._draining = True

    async def stop(self) -> None:
        """Close the port. Requests under way get one second. Does nothing if the port was not opened."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    @web.middleware
    async def _with_headers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every request, whose headers are complete by now."""
        connection = self._connections.of(request.protocol)
        if connection is None:
            return await handler(request)
        connection.request_begins()
        try:
            return await handler(request)
        finally:
            connection.request_ends()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._draining:
            return web.Response(status=503, text="the replica is draining\n")
        if await self._ready():
            notices = [
                f"{provider.display_name} refuses the credentials of this replica ({', '.join(provider.credentials)})\n"
                for provider in self._refused()
            ]
            return web.Response(text="".join(["ok\n", *notices]))
        return web.Response(status=503, text="the database does not answer, or takes no writes\n")

    async def _webhook(self, request: web.Request) -> web.Response:
        provider = Provider(request.match_info["provider"])
        if SIGNATURE[provider] not in request.headers:
            # A request without a signature is refused at once and does not count against the limit.
            return _refused(provider, 401, "not signed")
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            return _refused(provider, 415, "no encoding is accepted")
        if (request.content_length or 0) > LARGEST:
            return _refused(provider, 413, "too large")
        if self._under_way >= _AT_ONCE:
            return _not_now(provider, "too many at once")
        self._under_way += 1
        try:
            return await self._taken(provider, request)
        finally:
            self._under_way -= 1

    async def _taken(self, provider: Provider, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                body = await _body(request)
        except TimeoutError:
            return _refused(provider, 408, "the body did not come")
        except HttpProcessingError:
            # Only aiohttp's parser in Python raises this. The parser in C waits until the time runs out.
            return _refused(provider, 400, "not HTTP")
        if body is None:
            return _refused(provider, 413, "too large")
        try:
            await self._deliver(provider, request.headers.items(), body)
        except WebhookRefused as refused:
            return web.Response(status=401, text=f"{refused.message}\n")
        except StoreUnavailable:
            return web.Response(status=503, text="try again\n", headers={"Retry-After": "1"})
        return web.Response(text="ok\n")


async def _body(request: web.Request) -> bytes | None:
    """The whole body. None: it is larger than LARGEST. The bytes are counted: a Content-Length may be wrong."""
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > LARGEST:
            return None
    return bytes(body)


def _refused(provider: Provider, status: int, why: str) -> web.Response:
    telemetry.WEBHOOKS.add(1, {"provider": provider, "outcome": "refused"})
    telemetry.WEBHOOKS_REFUSED.add(1, {"provider": provider, "reason": str(status)})
    log.warning("webhook_refused", provider=provider, status=status)
    return web.Response(status=status, text=f"{why}\n")


def _not_now(provider: Provider, why: str) -> web.Response:
    telemetry.WEBHOOKS.add(1, {"provider": provider, "outcome": "not_stored"})
    log.warning("webhook_not_taken", provider=provider, why=why)
    return web.Response(status=503, text=f"{why}\n", headers={"Retry-After": "1"})
