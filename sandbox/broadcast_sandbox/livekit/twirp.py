"""Twirp over HTTP as livekit-server speaks it: routes, codecs, authorization, error shapes, API call faults.

Sources: twitchtv/twirp errors.go, livekit/livekit pkg/service/auth.go, livekit/protocol utils/xtwirp/errors.go.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from livekit import api

from broadcast_sandbox.faults import Fault
from broadcast_sandbox.frontend import cut, hang
from broadcast_sandbox.livekit.faults import EGRESS_METHODS, ROOM_METHODS
from broadcast_sandbox.livekit.world import World

PSRPC_PREFIX = "twirp error unknown: "

_STATUS = {
    "canceled": 408,
    "unknown": 500,
    "invalid_argument": 400,
    "malformed": 400,
    "deadline_exceeded": 408,
    "not_found": 404,
    "bad_route": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "unauthenticated": 401,
    "resource_exhausted": 429,
    "failed_precondition": 412,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "dataloss": 500,
}
_FAULT_ERRORS = {
    400: ("invalid_argument", PSRPC_PREFIX + "invalid argument"),
    401: ("unauthenticated", "permissions denied"),
    403: ("permission_denied", "permission denied"),
    404: ("not_found", PSRPC_PREFIX + "requested room does not exist"),
    408: ("deadline_exceeded", PSRPC_PREFIX + "request timed out"),
    409: ("already_exists", PSRPC_PREFIX + "egress already exists"),
    412: ("failed_precondition", "failed precondition"),
    429: ("resource_exhausted", PSRPC_PREFIX + "rate limit exceeded"),
    500: ("internal", PSRPC_PREFIX + "internal error"),
    501: ("unimplemented", PSRPC_PREFIX + "not implemented"),
    503: ("unavailable", PSRPC_PREFIX + "no response from servers"),
}
"""Status of an `error` fault -> code and message of its answer. Any other status is answered with a page of HTML, as a
load balancer does.
"""

NO_WORKER_TRIES = 3
NO_WORKER_TRY_S = (6.0, 9.0)
"""The client of livekit/protocol rpc/egress_client.go tries for 6 to 9 s, and the server repeats that three times: 21.7
to 24.3 s were measured.
"""
_LOOKS_EVERY_S = 0.05
"""aiohttp tells by the transport alone that the caller left."""
UNANSWERED_S = 3.0
"""A request of the internal bus that nobody answers is given up after this (measured, livekit-server 1.13.5)."""


class TwirpError(Exception):
    def __init__(self, code: str, message: str, *, meta: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.meta = dict(meta or {})

    def response(self) -> web.Response:
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        if self.meta:
            body["meta"] = self.meta
        return web.json_response(body, status=_STATUS[self.code])


def psrpc_error(code: str, message: str) -> TwirpError:
    """An error that came through psrpc keeps its code, and its message gets a prefix."""
    return TwirpError(code, PSRPC_PREFIX + message)


def no_response() -> TwirpError:
    return psrpc_error("unavailable", "no response from servers")


async def no_response_from_servers(world: World) -> TwirpError:
    """No worker, a full one or a lost one: in all cases this error, after the server has tried for 18 to 27 s."""
    for _ in range(NO_WORKER_TRIES):
        await no_worker_took_it(world)
    return no_response()


async def no_worker_took_it(world: World) -> None:
    """One of the tries to find a worker."""
    await world.clock.sleep(random.uniform(*NO_WORKER_TRY_S))


async def nobody_holds(world: World) -> TwirpError:
    """A request for a room or a participant that no server holds."""
    await world.clock.sleep(UNANSWERED_S)
    return no_response()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    request: type[Message]
    allowed: Callable[[api.VideoGrants, Any], bool]
    call: Callable[[Any], Coroutine[Any, Any, Message]]
    target: Callable[[Any], str]
    """The text that a fault's `match` has to occur in, made of the request."""


class _Unauthorized(Exception):
    """Answered in plain text by the middleware, before Twirp sees the request."""


class _CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class TwirpEndpoint:
    def __init__(self, world: World, methods: Mapping[str, Method]) -> None:
        """*methods*: `livekit.Egress/StopEgress` -> Method."""
        assert {name.rpartition("/")[2] for name in methods} == {*ROOM_METHODS, *EGRESS_METHODS}
        self._world = world
        self._methods = methods
        self._verifier = api.TokenVerifier(world.settings.api_key, world.settings.api_secret)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            grants = self._grants(request)
            method, message, as_json = await self._route(request)
            _check(method, grants, message)
            return await self._call(request, method, message, as_json=as_json)
        except _Unauthorized as error:
            return web.Response(status=401, text=str(error))
        except TwirpError as error:
            return error.response()

    def _grants(self, request: web.Request) -> api.VideoGrants:
        """livekit/livekit pkg/service/auth.go: no header at all means no grants, not a refusal."""
        header = request.headers.get("Authorization", "")
        if not header:
            return api.VideoGrants(can_publish=False, can_subscribe=False, can_publish_data=False)
        if not header.startswith("Bearer "):
            raise _Unauthorized("invalid authorization header. Must start with Bearer ")
        token = header.removeprefix("Bearer ")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            raise _Unauthorized("invalid authorization token") from None
        if issuer != self._world.settings.api_key:
            raise _Unauthorized(f"invalid API key: {issuer}")
        try:
            claims = self._verifier.verify(token)
        except jwt.PyJWTError as error:
            # The real server quotes the whole token too.
            raise _Unauthorized(f"invalid token: {token}, error: {_go_words(error)}") from None
        return claims.video or api.VideoGrants()

    async def _route(self, request: web.Request) -> tuple[Method, Message, bool]:
        route = {"twirp_invalid_route": f"{request.method} {request.path}"}
        if request.method != "POST":
            text = f'unsupported method "{request.method}" (only POST is allowed)'
            raise TwirpError("bad_route", text, meta=route)
        method = self._methods.get(request.path.removeprefix("/twirp/"))
        if method is None:
            raise TwirpError("bad_route", f'no handler for path "{request.path}"', meta=route)
        content_type = request.headers.get("Content-Type", "")
        kind = content_type.split(";")[0].strip().lower()
        if kind not in ("application/protobuf", "application/json"):
            raise TwirpError("bad_route", f'unexpected Content-Type: "{content_type}"', meta=route)
        return method, _decode(method.request, await request.read(), kind), kind == "application/json"

    async def _call(self, request: web.Request, method: Method, message: Message, *, as_json: bool) -> web.Response:
        world, operation, target = self._world, request.path.rsplit("/", 1)[-1], method.target(message)
        await self._wait(operation, target)
        refusal = world.faults.take(operation, target, "error", "hang", "reset", "late_effect")
        if refusal is None and operation == "StartRoomCompositeEgress":
            refusal = world.faults.take(operation, target, "worker_loss")
        if refusal is not None:
            return await self._refuse(request, refusal, method, message)
        try:
            answer = _encode(await _while_asked(request, method.call(message)), as_json=as_json)
        except _CallerLeft:
            return cut(request)
        except TwirpError as error:
            answer = error.response()
        if world.faults.take(operation, target, "lost_reply") is not None:
            return cut(request)
        return answer

    async def _wait(self, operation: str, target: str) -> None:
        seconds = self._world.latency_ms / 1000
        if fault := self._world.faults.take(operation, target, "latency"):
            seconds += fault.delay_s
        if seconds > 0:
            await asyncio.sleep(seconds)

    async def _refuse(self, request: web.Request, fault: Fault, method: Method, message: Message) -> web.Response:
        if fault.kind == "error":
            return fault_response(fault)
        if fault.kind == "worker_loss":
            raise await no_response_from_servers(self._world)
        if fault.kind == "hang":
            await hang(request)
        if fault.kind == "late_effect":
            self._world.background.spawn(_late(method, message, fault.delay_s))
        return cut(request)


def _go_words(error: jwt.PyJWTError) -> str:
    """golang-jwt's text for the two refusals that occur."""
    if isinstance(error, jwt.ExpiredSignatureError):
        return "token has invalid claims: token is expired"
    if isinstance(error, jwt.InvalidSignatureError):
        return "token signature is invalid: signature is invalid"
    return str(error)


def _check(method: Method, grants: api.VideoGrants, message: Message) -> None:
    if not method.allowed(grants, message):
        raise TwirpError("unauthenticated", "permissions denied")


async def _while_asked(request: web.Request, call: Coroutine[Any, Any, Message]) -> Message:
    """The answer of *call*. Raises _CallerLeft: the server gives up its tries when the caller hangs up, at once."""
    asked = asyncio.create_task(call)
    while not asked.done():
        await asyncio.wait((asked,), timeout=_LOOKS_EVERY_S)
        if not asked.done() and (request.transport is None or request.transport.is_closing()):
            asked.cancel()
            raise _CallerLeft
    return asked.result()


async def _late(method: Method, message: Message, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    try:
        await method.call(message)
    except TwirpError:
        # The caller is gone: there is no one to answer.
        return


def fault_response(fault: Fault) -> web.Response:
    """`detail` may say `{"text": true}`: a plain-text body, as for a refused API key."""
    known = _FAULT_ERRORS.get(fault.status)
    if fault.detail.get("text"):
        return web.Response(status=fault.status, text=(fault.message or "invalid API key") + "\n")
    if known is None:
        return web.Response(
            status=fault.status, text=f"<html>{fault.message or 'error'}</html>", content_type="text/html"
        )
    code, message = known
    return web.json_response({"code": code, "msg": fault.message or message}, status=fault.status)


def _decode(kind: type[Message], body: bytes, content_type: str) -> Message:
    message = kind()
    try:
        if content_type == "application/json":
            return json_format.Parse(body.decode(), message, ignore_unknown_fields=True)
        message.ParseFromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError):
        name = "json" if content_type == "application/json" else "protobuf"
        raise TwirpError("malformed", f"the {name} request could not be decoded") from None
    return message


def _encode(message: Message, *, as_json: bool) -> web.Response:
    if not as_json:
        return web.Response(body=message.SerializeToString(), content_type="application/protobuf")
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return web.Response(text=text, content_type="application/json")
