"""A simulator's front door, and the times at which nobody opens.

How an outage looks: `refuse` (nobody listens, connections are cut), or of the API alone, while media go on: `error`
(a load balancer's 503), `hang` (no answer), `reset`.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Literal, get_args

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import Fault

How = Literal["refuse", "error", "hang", "reset"]
_ANSWER_S = 0.05
_HTML = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n</html>\r\n"


class Door:
    def __init__(self, clock: ScaledClock, *, shutdown_s: float = 0.1) -> None:
        """*shutdown_s*: requests that hang on purpose must not hold up the end."""
        self._clock = clock
        self._shutdown_s = shutdown_s
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._at = ("", 0)
        self._how: How | None = None
        self._end: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @property
    def outage(self) -> How | None:
        return self._how

    async def open(self, app: web.Application, host: str, port: int) -> str:
        """The base url; port 0 takes a free one."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=self._shutdown_s)
        await self._runner.setup()
        self._at = (host, port)
        await self._listen()
        self._at = (host, int(self._runner.addresses[0][1]))
        self.url = f"http://{host}:{self._at[1]}"
        return self.url

    async def close(self) -> None:
        self._over.set()
        for task in [*self._tasks, *([self._end] if self._end else [])]:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def guard(self, *api: str) -> Middleware:
        """*api*: what the paths of the API begin with."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            # Whoever comes by a connection from before, or while the door is closing.
            if self._how is None or request.path.startswith("/_") or not request.path.startswith(api):
                return await handler(request)
            match self._how:
                case "error":
                    return web.Response(status=503, text=_HTML, content_type="text/html")
                case "hang":
                    await hang(request, self._over)
                case _:
                    pass
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)

        return middleware

    async def begin(self, how: How, seconds: float = 0.0) -> None:
        """For *seconds* of the provider's time; 0: until `end`."""
        await self.end()
        self._how = how
        self._over.clear()
        if how == "refuse" and self._site is not None and self._runner is not None:
            site, self._site = self._site, None
            await site.stop()
            server: Any = self._runner.server
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        if seconds > 0:
            self._end = asyncio.get_running_loop().create_task(self._end_after(seconds))

    async def end(self) -> None:
        if self._end is not None and self._end is not asyncio.current_task():
            self._end.cancel()
        self._end = None
        self._over.set()
        self._how = None
        if self._site is None and self._runner is not None:
            await self._listen()

    def take(self, fault: Fault) -> None:
        """An `outage` fault. Raises ValueError."""
        how = fault.detail.get("how", "error")
        if how not in get_args(How):
            raise ValueError(f"detail.how: one of {', '.join(get_args(How))}")
        if how == "refuse" and fault.delay_s <= 0:
            # Nobody could end it: that would have to come through the door.
            raise ValueError("delay_s: greater than 0 with refuse")
        self._spawn(self._begin_soon(how, fault.delay_s))

    def clear(self) -> None:
        if self._how is not None:
            self._spawn(self.end())

    async def _begin_soon(self, how: How, seconds: float) -> None:
        # Whoever asked for it may have come through the door, and is still to be answered.
        await asyncio.sleep(_ANSWER_S if how == "refuse" else 0)
        await self.begin(how, seconds)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self.end()

    async def _listen(self) -> None:
        if self._runner is not None:
            host, port = self._at
            self._site = web.TCPSite(self._runner, host, port)
            await self._site.start()


async def hang(request: web.Request, over: asyncio.Event | None = None) -> None:
    """Until the caller leaves (looked at every 50 ms) or *over*."""
    over = over or asyncio.Event()
    while request.transport is not None and not request.transport.is_closing():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.05)
            return
