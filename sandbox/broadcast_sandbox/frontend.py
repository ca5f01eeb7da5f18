"""The HTTP listener of a simulator, and its outages.

An outage is of the API alone while media go on (`error`: a load balancer's page; `hang`: no answer; `reset`: the
connection is cut), or of the whole provider (`refuse`: nothing listens, and connections that carry media are cut too).
A simulator may name further parts, each with outages of its own: Mux has `playback`.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import ANY, Fault, FaultTable, Site

How = Literal["refuse", "error", "hang", "reset"]
API = "api"
_ANSWER_S = 0.05
_HTML = "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n</html>\r\n"


@dataclass(slots=True, kw_only=True)
class _Outage:
    how: How
    status: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.Task[None] | None = None


class Frontend:
    """Listens for one web application. Paths that begin with `/_` are never part of an outage, except of `refuse`."""

    def __init__(
        self, clock: ScaledClock, parts: Mapping[str, tuple[str, ...]] | None = None, *, shutdown_s: float = 0.1
    ) -> None:
        """*parts*: name of a part -> beginnings of its paths; `api` is one of them. *shutdown_s*: real seconds that
        requests which hang on purpose may hold up `close`.
        """
        self._clock = clock
        self._parts = dict(parts or {API: ("/",)})
        self._shutdown_s = shutdown_s
        self._runner: web.AppRunner | None = None
        self._listener: web.TCPSite | None = None
        self._address = ("", 0)
        self._outages: dict[str, _Outage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @property
    def outage(self) -> How | None:
        """How the API fails at present; None: it has no outage."""
        return self._outages[API].how if API in self._outages else None

    async def open(self, app: web.Application, host: str, port: int) -> str:
        """The base url; port 0 takes a free one."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=self._shutdown_s)
        await self._runner.setup()
        self._address = (host, port)
        await self._listen()
        self._address = (host, int(self._runner.addresses[0][1]))
        self.url = f"http://{host}:{self._address[1]}"
        return self.url

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for part in list(self._outages):
            self._lift(part)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def middleware(self) -> Middleware:
        """Answers in place of the application during an outage."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            outage = self._outage_at(request.path)
            if outage is None:
                return await handler(request)
            match outage.how:
                case "error":
                    return web.Response(status=outage.status, text=_HTML, content_type="text/html")
                case "hang":
                    await hang(request, outage.over)
                case "reset" | "refuse":
                    # `refuse` comes here by a connection that was made before the listener was closed.
                    pass
            return cut(request)

        return middleware

    async def begin(self, how: How, seconds: float = 0.0, *, part: str = API, status: int = 503) -> None:
        """For *seconds* of the provider's time; 0: until `end`. *status* is the answer of `error`."""
        await self.end(part)
        self._outages[part] = outage = _Outage(how=how, status=status)
        if how == "refuse" and self._listener is not None and self._runner is not None:
            listener, self._listener = self._listener, None
            await listener.stop()
            server: Any = self._runner.server
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        if seconds > 0:
            outage.timer = self._spawn(self._end_after(seconds, part))

    async def end(self, part: str = API) -> None:
        self._lift(part)
        refused = any(outage.how == "refuse" for outage in self._outages.values())
        if self._listener is None and self._runner is not None and not refused:
            await self._listen()

    def fault_site(self) -> Site:
        """Where `outage` faults are taken."""
        return Site(operations=frozenset(self._parts), details=frozenset({"how", "status"}), check=_check)

    def take_faults(self, faults: FaultTable) -> None:
        """Begin the outages that *faults* holds."""
        for part in self._parts:
            while (fault := faults.take(part, "", "outage")) is not None:
                self._spawn(self._begin_soon(part, fault))

    def clear(self) -> None:
        """End all outages, soon."""
        for part in list(self._outages):
            self._spawn(self.end(part))

    def _outage_at(self, path: str) -> _Outage | None:
        if path.startswith("/_"):
            return None
        return next((outage for part, outage in self._outages.items() if path.startswith(self._parts[part])), None)

    def _lift(self, part: str) -> None:
        outage = self._outages.pop(part, None)
        if outage is None:
            return
        outage.over.set()
        if outage.timer is not None and outage.timer is not asyncio.current_task():
            outage.timer.cancel()

    async def _begin_soon(self, part: str, fault: Fault) -> None:
        how: How = fault.detail.get("how", "error")
        # The request for the fault came over the listener that `refuse` closes, and is still to be answered.
        await asyncio.sleep(_ANSWER_S if how == "refuse" else 0)
        await self.begin(how, fault.delay_s, part=part, status=fault.detail.get("status", 503))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_after(self, seconds: float, part: str) -> None:
        await self._clock.sleep(seconds)
        await self.end(part)

    async def _listen(self) -> None:
        if self._runner is not None:
            host, port = self._address
            self._listener = web.TCPSite(self._runner, host, port)
            await self._listener.start()


def _check(fault: Fault) -> None:
    how, status = fault.detail.get("how", "error"), fault.detail.get("status", 503)
    if how not in get_args(How):
        raise ValueError(f"detail.how: one of {', '.join(get_args(How))}")
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError("detail.status: 200 to 599")
    if how == "refuse" and fault.operation not in (API, ANY):
        raise ValueError(f"detail.how: refuse is for the operation {API} alone, it closes the one port of the provider")
    if how == "refuse" and fault.delay_s <= 0:
        # The request that would clear it could not reach the simulator.
        raise ValueError("delay_s: greater than 0 with refuse")
    if fault.match:
        raise ValueError("match: empty for an outage, which is of no single room or stream")
    if fault.times != 1:
        raise ValueError("times: 1 for an outage, which lasts for delay_s")


async def hang(request: web.Request, over: asyncio.Event | None = None) -> None:
    """Until the caller leaves (looked at every 50 ms, as aiohttp tells it only by the transport) or *over* is set."""
    over = over or asyncio.Event()
    while request.transport is not None and not request.transport.is_closing():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.05)
            return


def cut(request: web.Request) -> web.Response:
    """Abort the connection. The response that is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)
