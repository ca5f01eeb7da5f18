"""A Mux environment on this machine: REST API, webhooks, ingest and playback, for the real SDK to talk to.

`mux_python` reaches it by `Configuration(host=base_url)`; viewers by `{base_url}/playback/{playback_id}.m3u8` in
place of `https://stream.mux.com/{playback_id}.m3u8`; encoders by `{base_url}/_ingest/app/{stream_key}`.
"""

from aiohttp import web

from service.sandbox.clock import ScaledClock
from service.sandbox.effects import EffectLog
from service.sandbox.faults import FaultTable
from service.sandbox.mux_calls import MuxCalls
from service.sandbox.mux_control import MuxControl
from service.sandbox.mux_edge import MuxIngest, MuxPlayback
from service.sandbox.mux_events import MuxEvents
from service.sandbox.mux_life import MuxLife
from service.sandbox.mux_rest import MuxRest
from service.sandbox.mux_settings import MuxSimulatorSettings
from service.sandbox.mux_store import MuxStore
from service.sandbox.webhooks import WebhookSender

__all__ = ["MuxSimulator", "MuxSimulatorSettings"]


class MuxSimulator:
    """Start it once; a stopped simulator stays stopped."""

    def __init__(self, settings: MuxSimulatorSettings, *, clock: ScaledClock | None = None) -> None:
        self.settings = settings
        self.clock = clock or ScaledClock()
        self.effects = EffectLog("mux")
        self.faults = FaultTable()
        self.store = MuxStore()
        self.webhooks = WebhookSender(
            url=settings.webhook_url,
            clock=self.clock,
            faults=self.faults,
            retry_waits_s=settings.webhook_retry_waits_s,
            timeout_s=settings.webhook_timeout_s,
            retry_on=_not_accepted,
            hold_line=False,
        )
        self._life = MuxLife(
            settings=settings,
            clock=self.clock,
            effects=self.effects,
            faults=self.faults,
            events=MuxEvents(settings, self.webhooks),
            store=self.store,
        )
        self._rest = MuxRest(settings, MuxCalls(settings, self.store, self._life, self.effects), self.faults)
        self._runner: web.AppRunner | None = None
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """Empty before `start`."""
        return self._base_url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """The base url. Port 0 takes a free one."""
        await self.webhooks.start()
        self._runner = web.AppRunner(self._app(), shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound = self._runner.addresses[0][1]
        self._base_url = f"http://{host}:{bound}"
        return self._base_url

    async def stop(self) -> None:
        """Cuts every connection; undelivered webhooks and late effects are lost."""
        await self._rest.close()
        await self._life.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.webhooks.close()

    def _app(self) -> web.Application:
        app = web.Application()
        control = MuxControl(
            clock=self.clock,
            effects=self.effects,
            faults=self.faults,
            rest=self._rest,
            sender=self.webhooks,
            store=self.store,
            life=self._life,
        )
        playback = MuxPlayback(self.settings, self.store, self._life, self.clock)
        for part in (self._rest, MuxIngest(self._life), playback, control):
            part.add_to(app)
        return app


def _not_accepted(status: int) -> bool:
    return not 200 <= status < 300
