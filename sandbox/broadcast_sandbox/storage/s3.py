"""One bucket of an S3-compatible storage, in memory: PUT, GET and HEAD of objects, by path, signatures checked."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.control_input import refuse_strangers
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import Fault, FaultTable, Kind, Site
from broadcast_sandbox.frontend import Frontend, cut, hang
from broadcast_sandbox.storage.signature import Keys, Request, SignatureError, check

__all__ = ["S3Simulator", "S3SimulatorSettings"]

_MAX_OBJECT_BYTES = 64 * 1024 * 1024
_STATUS = {
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "AuthorizationQueryParametersError": 400,
    "AuthorizationHeaderMalformed": 400,
    "InternalError": 500,
    "SlowDown": 503,
}
"""S3's error code -> HTTP status. Any other code is 403."""
_OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject"}
_CALL_KINDS: tuple[Kind, ...] = ("latency", "error", "hang", "reset", "lost_reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3SimulatorSettings:
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    content: bytes
    content_type: str
    put_at: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


class _RefusedError(Exception):
    """The text is S3's error code."""


class S3Simulator:
    def __init__(self, settings: S3SimulatorSettings, *, clock: ScaledClock | None = None) -> None:
        self.settings = settings
        self.clock = clock or ScaledClock()
        self.effects = EffectLog("s3")
        self.frontend = Frontend(self.clock)
        self.faults = FaultTable(_sites(self.frontend.fault_site()))
        self.objects: dict[str, Object] = {}
        self._keys = Keys(access_key=settings.access_key, secret_key=settings.secret_key, region=settings.region)

    @property
    def base_url(self) -> str:
        """The endpoint that the service is given. Empty before `start`."""
        return self.frontend.url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        app = web.Application(client_max_size=_MAX_OBJECT_BYTES, middlewares=[self.frontend.middleware()])
        app.router.add_get("/_state", self._state)
        app.router.add_get("/_effects", self._effects_after)
        app.router.add_post("/_faults", self._add_faults)
        app.router.add_get("/_faults", self._get_faults)
        app.router.add_delete("/_faults", self._clear_faults)
        for verb, act in (("PUT", self._put), ("GET", self._get), ("HEAD", self._get)):
            app.router.add_route(verb, "/{bucket}/{key:.+}", self._answering(act))
        return await self.frontend.open(app, host, port)

    async def stop(self) -> None:
        await self.frontend.close()

    def _answering(
        self, act: Callable[[web.Request, str], Awaitable[web.Response]]
    ) -> Callable[..., Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = request.match_info["key"]
            operation = _OPERATIONS[request.method]
            fault = self.faults.take(operation, key, "latency")
            if fault is not None:
                await asyncio.sleep(fault.delay_s)
            fault = self.faults.take(operation, key, "error", "hang", "reset")
            if fault is not None:
                return await _fail(request, fault)
            try:
                self._admit(request)
                response = await act(request, key)
            except (_RefusedError, SignatureError) as refused:
                self.effects.append("object.refused", key, operation=operation, code=str(refused))
                return _error(str(refused))
            if self.faults.take(operation, key, "lost_reply") is not None:
                return cut(request)
            return response

        return handle

    def _admit(self, request: web.Request) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.raw_path.partition("?")[0]
        sent = Request(method=request.method, path=path, query=tuple(request.query.items()), headers=headers)
        check(sent, self._keys, datetime.now(UTC))
        if request.match_info["bucket"] != self.settings.bucket:
            raise _RefusedError("NoSuchBucket")

    async def _put(self, request: web.Request, key: str) -> web.Response:
        content = await request.read()
        stored = Object(content=content, content_type=request.content_type, put_at=datetime.now(UTC))
        self.objects[key] = stored
        self.effects.append("object.put", key, bytes=len(content))
        return web.Response(headers={"ETag": stored.etag})

    async def _get(self, request: web.Request, key: str) -> web.Response:
        stored = self.objects.get(key)
        if stored is None:
            raise _RefusedError("NoSuchKey")
        self.effects.append("object.got" if request.method == "GET" else "object.looked_at", key)
        body = stored.content if request.method == "GET" else b""
        headers = {"ETag": stored.etag, "Content-Length": str(len(stored.content))}
        return web.Response(body=body, content_type=stored.content_type, headers=headers)

    def add_fault(self, fault: Fault) -> None:
        """As `POST /_faults`. Raises ValueError if the fault can never fire."""
        self.faults.add(fault)
        self.frontend.take_faults(self.faults)

    async def _add_faults(self, request: web.Request) -> web.Response:
        refuse_strangers(request)
        try:
            self.faults.add_json(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self.frontend.take_faults(self.faults)
        return self._shown_faults()

    async def _get_faults(self, request: web.Request) -> web.Response:
        refuse_strangers(request)
        return self._shown_faults()

    def _shown_faults(self) -> web.Response:
        return web.json_response({"faults": self.faults.as_json(), "hits": self.faults.hits})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        refuse_strangers(request)
        self.faults.clear()
        self.frontend.clear()
        return web.Response(status=204)

    async def _effects_after(self, request: web.Request) -> web.Response:
        refuse_strangers(request)
        after = request.query.get("after", "0")
        if not after.isdecimal():
            return web.json_response({"error": "after: a sequence number"}, status=400)
        return web.json_response([effect.as_json() for effect in self.effects.after(int(after))])

    async def _state(self, request: web.Request) -> web.Response:
        refuse_strangers(request)
        shown = [{"key": key, "bytes": len(stored.content)} for key, stored in self.objects.items()]
        return web.json_response({"objects": shown})


def _sites(outage: Site) -> dict[Kind, Site]:
    return {**dict.fromkeys(_CALL_KINDS, Site(operations=frozenset(_OPERATIONS.values()))), "outage": outage}


async def _fail(request: web.Request, fault: Fault) -> web.StreamResponse:
    if fault.kind == "error":
        return _error("SlowDown" if fault.status == 503 else "InternalError" if fault.status >= 500 else "AccessDenied")
    if fault.kind == "hang":
        await hang(request)
    return cut(request)


def _error(code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return web.Response(status=_STATUS.get(code, 403), text=text, content_type="application/xml")
