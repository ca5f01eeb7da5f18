"""The HTTP side of the simulated Mux API: authentication, rate limits, faults, error bodies.

The two error shapes, the missing `Retry-After` and the headers are those of mux.com/api-spec.json and of the answers
recorded in github.com/muxinc/next-video/issues/309.
"""

import asyncio
import base64
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from broadcast_sandbox.faults import Fault, FaultTable
from broadcast_sandbox.frontend import cut, hang
from broadcast_sandbox.mux.api.calls import Call, Reply, Route
from broadcast_sandbox.mux.api.fields import RefusedError
from broadcast_sandbox.mux.faults import METHODS
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore

TOO_MANY = {"errors": ["Too many requests, retry later."]}
_TYPES = {
    400: "invalid_parameters",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    412: "precondition_failed",
}
_HTML = "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>{reason}</body>\r\n</html>\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, kw_only=True)
class TokenBucket:
    """A rate limit in real seconds."""

    rate: float
    """Tokens a second; 0 = no limit."""
    burst: float
    _tokens: float | None = None
    _at: float = 0.0

    def take(self) -> bool:
        now = time.monotonic()
        left = self.burst if self._tokens is None else self._tokens
        self._tokens = min(self.burst, left + (now - self._at) * self.rate)
        self._at = now
        if self.rate == 0:
            return True
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class MuxRest:
    def __init__(
        self, settings: MuxSimulatorSettings, routes: Sequence[Route], store: MuxStore, faults: FaultTable
    ) -> None:
        self.latency_ms = 0.0
        """Real milliseconds before every call."""
        self.posts = TokenBucket(rate=settings.post_rate, burst=settings.post_burst)
        self.others = TokenBucket(rate=settings.other_rate, burst=settings.other_burst)
        self._routes = routes
        self._store = store
        self._faults = faults
        self._authorization = base64.b64encode(f"{settings.token_id}:{settings.token_secret}".encode())
        self._late: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def add_to(self, app: web.Application) -> None:
        assert {route.operation for route in self._routes} == METHODS
        for route in self._routes:
            app.router.add_route(route.verb, route.path, self._handler(route))
        for prefix in ("video", "system", "data"):
            app.router.add_route("*", f"/{prefix}/{{tail:.*}}", self._unknown)

    async def close(self) -> None:
        """End hanging calls and drop late effects that are still to come."""
        self._stopping.set()
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not self._authorized(request):
                return _refusal(RefusedError(401, "unauthorized", "Unauthorized request"))
            try:
                call = await _call(request)
            except RefusedError as refused:
                return _refusal(refused)
            return await self._run(request, route, call)

        return handle

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        if not self._authorized(request):
            return _refusal(RefusedError(401, "unauthorized", "Unauthorized request"))
        return _refusal(RefusedError(404, "not_found", "Not found"))

    def _fault_target(self, call: Call) -> str:
        """Id and passthrough of the object that the call is about, as far as they are known before it runs."""
        given = call.path.get("id", "")
        if stream := self._store.streams.get(given):
            return stream.fault_target
        if asset := self._store.assets.get(given):
            return asset.fault_target
        return f"{given} {call.body.get('passthrough') or ''}"

    async def _run(self, request: web.Request, route: Route, call: Call) -> web.StreamResponse:
        target = self._fault_target(call)
        latency = self._faults.take(route.operation, target, "latency")
        await asyncio.sleep(self.latency_ms / 1000 + (latency.delay_s if latency is not None else 0))
        limited = self.posts if request.method == "POST" and request.path.startswith("/video/") else self.others
        if not limited.take():
            return _json(429, TOO_MANY)
        fault = self._faults.take(route.operation, target, "error", "hang", "reset", "late_effect")
        if fault is not None:
            return await self._fail(request, fault, route, call)
        response = _answer(route, call)
        if self._faults.take(route.operation, target, "lost_reply") is not None:
            return cut(request)
        return response

    async def _fail(self, request: web.Request, fault: Fault, route: Route, call: Call) -> web.StreamResponse:
        match fault.kind:
            case "error":
                return _error(fault)
            case "hang":
                await hang(request, self._stopping)
            case "late_effect":
                self._spawn(_run_late(route, call, fault.delay_s))
            case _:
                pass
        return cut(request)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode(), self._authorization)


async def _call(request: web.Request) -> Call:
    raw = await request.read()
    try:
        body: Any = json.loads(raw) if raw else {}
    except ValueError:
        raise RefusedError(400, "bad_request", "The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "bad_request", "The request body must be a JSON object")
    return Call(path=dict(request.match_info), query=dict(request.query), body=body)  # pyright: ignore[reportUnknownArgumentType]


def _answer(route: Route, call: Call) -> web.StreamResponse:
    try:
        reply: Reply = route.run(call)
    except RefusedError as refused:
        return _refusal(refused)
    return _json(reply.status, reply.body)


async def _run_late(route: Route, call: Call, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    _answer(route, call)


def _refusal(refused: RefusedError) -> web.Response:
    return _json(refused.status, {"error": {"type": refused.type, "messages": refused.messages}})


def _error(fault: Fault) -> web.Response:
    """`detail` may ask for `html` or `non_utf8` (a proxy answers in place of Mux) and for extra `headers`."""
    headers = {str(name): str(value) for name, value in fault.detail.get("headers", {}).items()}
    if fault.detail.get("non_utf8"):
        body = b"<html><body>\xff\xfe passerelle d\xe9faillante</body></html>"
        return web.Response(status=fault.status, body=body, content_type="text/html", headers=headers)
    if fault.detail.get("html"):
        text = _HTML.format(status=fault.status, reason=fault.message or "Bad Gateway")
        return web.Response(status=fault.status, text=text, content_type="text/html", headers=headers)
    if fault.status == 429:
        return _json(429, TOO_MANY, headers)
    type_ = _TYPES.get(fault.status, "internal_server_error" if fault.status >= 500 else "bad_request")
    return _json(fault.status, {"error": {"type": type_, "messages": [fault.message or "Simulated fault"]}}, headers)


def _json(status: int, body: Any | None, headers: dict[str, str] | None = None) -> web.Response:
    sent = {"x-request-id": secrets.token_urlsafe(15), "Server": "Mux API Server", **(headers or {})}
    if body is None:
        return web.Response(status=status, headers=sent)
    return web.json_response(body, status=status, headers=sent)
