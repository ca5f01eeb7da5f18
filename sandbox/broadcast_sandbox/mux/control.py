"""The control endpoints of the simulated Mux, for this machine alone: faults, effects, settings, state."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.control_input import refuse_strangers
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.mux.api.rest import MuxRest
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.model import Json, redacted
from broadcast_sandbox.mux.store import MuxStore
from broadcast_sandbox.webhooks import WebhookSender


class MuxControl:
    def __init__(
        self,
        *,
        clock: ScaledClock,
        effects: EffectLog,
        faults: FaultTable,
        rest: MuxRest,
        sender: WebhookSender,
        store: MuxStore,
        life: MuxLife,
        changed: Callable[[], None],
        cleared: Callable[[], None],
    ) -> None:
        """*changed* is called after a fault was added, *cleared* after all were removed."""
        self._clock = clock
        self._effects = effects
        self._faults = faults
        self._rest = rest
        self._sender = sender
        self._store = store
        self._life = life
        self._changed = changed
        self._cleared = cleared

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/_faults", self._add_faults)
        app.router.add_get("/_faults", self._get_faults)
        app.router.add_delete("/_faults", self._clear_faults)
        app.router.add_get("/_effects", self._get_effects)
        app.router.add_post("/_control", self._control)
        app.router.add_get("/_state", self._get_state)

    async def _add_faults(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        try:
            self._faults.add_json(await request.json())
        except ValueError as error:
            return _bad(str(error))
        self._changed()
        return web.json_response(self._faults.as_json())

    async def _get_faults(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        return web.json_response({"faults": self._faults.as_json(), "hits": self._faults.hits})

    async def _clear_faults(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        self._faults.clear()
        self._cleared()
        return web.Response(status=204)

    async def _get_effects(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        try:
            after = int(request.query.get("after", "0"))
        except ValueError:
            return _bad("after: an integer")
        return web.json_response([effect.as_json() for effect in self._effects.after(after)])

    async def _control(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        try:
            self._apply(await request.json())
        except ValueError as error:
            return _bad(str(error))
        return web.json_response(self._settings())

    def _apply(self, body: Any) -> None:
        """All or nothing. Raises ValueError."""
        known = set(self._settings())
        if not isinstance(body, dict) or not set(body) <= known:  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"an object with some of {', '.join(sorted(known))}")
        wanted: Json = self._settings() | body
        webhooks = wanted.pop("webhooks")
        if not isinstance(webhooks, bool):
            raise ValueError("webhooks: true or false")  # noqa: TRY004
        numbers = {name: _amount(name, value) for name, value in wanted.items()}
        if numbers["time_scale"] == 0:
            raise ValueError("time_scale: greater than 0")
        self._clock.scale = numbers["time_scale"]
        self._rest.latency_ms = numbers["latency_ms"]
        self._rest.posts.rate = numbers["post_rate"]
        self._rest.others.rate = numbers["other_rate"]
        self._sender.enabled = webhooks

    def _settings(self) -> Json:
        return {
            "time_scale": self._clock.scale,
            "latency_ms": self._rest.latency_ms,
            "webhooks": self._sender.enabled,
            "post_rate": self._rest.posts.rate,
            "other_rate": self._rest.others.rate,
        }

    async def _get_state(self, request: web.Request) -> web.StreamResponse:
        refuse_strangers(request)
        streams = [
            {
                "id": stream.id,
                "status": stream.status,
                "passthrough": stream.passthrough,
                "connected": stream.connected,
                "publishers": [publisher.number for publisher in self._life.publishers(stream)],
                "recording": stream.recording,
                "key": redacted(stream.stream_key),
                "playback_ids": [playback_id.as_json() for playback_id in stream.playback_ids],
                "active_asset_id": stream.active_asset_id,
                "test": stream.test,
            }
            for stream in self._store.streams.values()
        ]
        assets = [asset.as_json() for asset in self._store.assets.values()]
        return web.json_response({"streams": streams, "assets": assets})


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name}: a number, 0 or more")
    return float(value)


def _bad(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)
