"""The simulated Mux environment: REST API, webhooks, ingest and playback, used by the real SDK.

`mux_python` reaches it by `Configuration(host=base_url)`; viewers by `{base_url}/playback/{playback_id}.m3u8` in
place of `https://stream.mux.com/{playback_id}.m3u8`, and `{base_url}/image/...` in place of
`https://image.mux.com/...`; encoders by `{base_url}/_ingest/app/{stream_key}`.
"""

from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import Fault, FaultTable
from broadcast_sandbox.frontend import API, Frontend
from broadcast_sandbox.mux.api.asset_calls import AssetCalls
from broadcast_sandbox.mux.api.rest import MuxRest
from broadcast_sandbox.mux.api.signing_key_calls import SigningKeyCalls
from broadcast_sandbox.mux.api.stream_calls import LiveStreamCalls
from broadcast_sandbox.mux.assets import MuxAssets
from broadcast_sandbox.mux.control import MuxControl
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.faults import sites
from broadcast_sandbox.mux.ingest import MuxIngest
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.playback import MuxPlayback
from broadcast_sandbox.mux.recording import Timers
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore
from broadcast_sandbox.mux.uploads import MuxUploads
from broadcast_sandbox.webhooks import WebhookSender

__all__ = ["MuxSimulator", "MuxSimulatorSettings"]


class MuxSimulator:
    """Start it once; a stopped simulator stays stopped."""

    def __init__(self, settings: MuxSimulatorSettings, *, clock: ScaledClock | None = None) -> None:
        self.settings = settings
        self.clock = clock or ScaledClock()
        self.effects = EffectLog("mux")
        parts = {API: ("/video/", "/system/", "/data/"), "playback": ("/playback/", "/image/")}
        self.frontend = Frontend(self.clock, parts, shutdown_s=0.2)
        self.faults = FaultTable(sites(self.frontend.fault_site()))
        self.store = MuxStore(signing_keys=dict(settings.signing_keys))
        self.webhooks = WebhookSender(
            url=settings.webhook_url,
            clock=self.clock,
            faults=self.faults,
            retry_waits_s=settings.webhook_retry_waits_s,
            timeout_s=settings.webhook_timeout_s,
            retry_on=_not_accepted,
            hold_line=False,
        )
        events, timers = MuxEvents(settings, self.webhooks), Timers(self.clock)
        assets = MuxAssets(settings=settings, effects=self.effects, events=events, store=self.store, timers=timers)
        self._life = MuxLife(
            settings=settings,
            clock=self.clock,
            effects=self.effects,
            faults=self.faults,
            events=events,
            store=self.store,
            timers=timers,
            assets=assets,
        )
        self._uploads = MuxUploads(
            settings=settings,
            clock=self.clock,
            effects=self.effects,
            faults=self.faults,
            store=self.store,
            emit=events.emit_asset,
        )
        streams = LiveStreamCalls(settings, self.store, self._life, events, self.effects)
        others = AssetCalls(settings, self.store, assets, self._uploads, self.effects)
        self._signing_keys = SigningKeyCalls(self.store)
        routes = [*streams.routes(), *others.routes(), *self._signing_keys.routes()]
        self._rest = MuxRest(settings, routes, self.store, self.faults)

    @property
    def base_url(self) -> str:
        """Empty before `start`."""
        return self.frontend.url

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """The base url. Port 0 takes a free one."""
        await self.webhooks.start()
        return await self.frontend.open(self._app(), host, port)

    async def stop(self) -> None:
        """Cut every connection. Undelivered webhooks and late effects are lost."""
        await self._rest.close()
        await self._life.close()
        await self._uploads.close()
        await self.frontend.close()
        await self.webhooks.close()

    def make_signing_key(self) -> tuple[str, str]:
        """Make and register a signing key, as `POST /system/v1/signing-keys`: its id, and its private key in base64."""
        return self._signing_keys.make()

    def add_fault(self, fault: Fault) -> None:
        """As `POST /_faults`. Raises ValueError if the fault can never fire."""
        self.faults.add(fault)
        self._take_faults()

    def _take_faults(self) -> None:
        self.frontend.take_faults(self.faults)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self.frontend.middleware()])
        control = MuxControl(
            clock=self.clock,
            effects=self.effects,
            faults=self.faults,
            rest=self._rest,
            sender=self.webhooks,
            store=self.store,
            life=self._life,
            changed=self._take_faults,
            cleared=self.frontend.clear,
        )
        playback = MuxPlayback(self.store, self._life, self.clock, self.faults)
        for part in (self._rest, MuxIngest(self._life), playback, control):
            part.add_to(app)
        return app


def _not_accepted(status: int) -> bool:
    return not 200 <= status < 300
