"""The simulated LiveKit server and egress: real HTTP, used by the real SDK, moved by `/_control` and `/_faults`.

Twirp API, room and egress life, RTMP pushes to simulated ingests, signed webhooks. Behaviour follows livekit-server
1.13, egress 1.14 and protocol of August 2026, from their public sources.
"""

import aiohttp
from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import Fault, FaultTable
from broadcast_sandbox.frontend import API, Frontend
from broadcast_sandbox.livekit.control import Control
from broadcast_sandbox.livekit.egress.service import EgressService
from broadcast_sandbox.livekit.faults import sites
from broadcast_sandbox.livekit.room_service import RoomService
from broadcast_sandbox.livekit.rooms import Rooms
from broadcast_sandbox.livekit.twirp import TwirpEndpoint
from broadcast_sandbox.livekit.webhooks import LiveKitWebhooks
from broadcast_sandbox.livekit.world import Background, LiveKitSimulatorSettings, World, new_id

__all__ = ["LiveKitSimulator", "LiveKitSimulatorSettings"]

_MAX_BODY_BYTES = 10 * 1024 * 1024


class LiveKitSimulator:
    def __init__(self, settings: LiveKitSimulatorSettings, *, clock: ScaledClock | None = None) -> None:
        self.clock = clock or ScaledClock()
        self.frontend = Frontend(self.clock, {API: ("/twirp/",)})
        self.faults = FaultTable(sites(self.frontend.fault_site()))
        self.effects = EffectLog("livekit")
        self.webhooks = LiveKitWebhooks(
            url=settings.webhook_url,
            api_key=settings.api_key,
            api_secret=settings.api_secret,
            clock=self.clock,
            faults=self.faults,
            id_factory=lambda: new_id("EV_"),
        )
        self._world = World(
            settings=settings,
            clock=self.clock,
            faults=self.faults,
            effects=self.effects,
            webhooks=self.webhooks,
            background=Background(),
            workers=settings.workers,
        )
        self._session: aiohttp.ClientSession | None = None
        self._egress: EgressService | None = None

    @property
    def base_url(self) -> str:
        """Empty before `start`."""
        return self.frontend.url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Returns the base url; port 0 takes a free one."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        await self.webhooks.sender.start()
        return await self.frontend.open(self._app(self._session), host, port)

    async def stop(self) -> None:
        """Everything under way is cut off, without a last webhook."""
        await self._world.background.close()
        await self.frontend.close()
        await self._world.background.close()
        await self.webhooks.sender.close()
        if self._session is not None:
            await self._session.close()

    def add_fault(self, fault: Fault) -> None:
        """As `POST /_faults`: egresses that are ACTIVE already may take it. `faults.add` is for those to come.

        Raises ValueError if the fault can never fire.
        """
        self.faults.add(fault)
        self._take_faults()

    def _take_faults(self) -> None:
        self.frontend.take_faults(self.faults)
        if self._egress is not None:
            self._egress.take_faults()

    def _app(self, session: aiohttp.ClientSession) -> web.Application:
        rooms = Rooms(self._world)
        self._egress = egress = EgressService(self._world, rooms, session)
        twirp = TwirpEndpoint(self._world, {**RoomService(self._world, rooms, egress).methods(), **egress.methods()})
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self.frontend.middleware()])
        control = Control(self._world, rooms, egress, changed=self._take_faults, cleared=self.frontend.clear)
        app.add_routes(control.routes())
        app.router.add_get("/", _health)
        app.router.add_route("*", "/twirp/{route:.*}", twirp.handle)
        return app


async def _health(_: web.Request) -> web.Response:
    return web.Response(text="OK")
