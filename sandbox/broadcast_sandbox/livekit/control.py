"""The control endpoints of the simulated LiveKit: people, ends of egresses, faults, settings, effects, state.

None of them is LiveKit's. Bad input is answered 400 with `{"error": text naming the field}`.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from google.protobuf.json_format import MessageToDict

from broadcast_sandbox.control_input import Body, ControlError, number, text, typed
from broadcast_sandbox.livekit.egress.egress import Egress
from broadcast_sandbox.livekit.egress.service import EgressService
from broadcast_sandbox.livekit.people import People, shown
from broadcast_sandbox.livekit.rooms import RefusedError, Rooms
from broadcast_sandbox.livekit.world import World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    def __init__(
        self,
        world: World,
        rooms: Rooms,
        egress: EgressService,
        *,
        changed: Callable[[], None],
        cleared: Callable[[], None],
    ) -> None:
        """*changed* is called after a fault was added, *cleared* after all were removed."""
        self._world = world
        self._rooms = rooms
        self._egress = egress
        self._changed = changed
        self._cleared = cleared
        self._people = People(world, rooms)

    def routes(self) -> list[web.RouteDef]:
        posts: dict[str, Callable[[Body], Any]] = {
            "/_control": self._set,
            **self._people.actions(),
            "/_control/egress": self._end_egress,
            "/_control/forget": self._forget,
            "/_faults": self._add_faults,
        }
        return [
            *(web.post(path, _answering(act)) for path, act in posts.items()),
            web.get("/_control", self._get(lambda _: self._settings())),
            web.get("/_faults", self._get(lambda _: self._faults())),
            web.delete("/_faults", self._get(lambda _: self._clear_faults())),
            web.get("/_effects", self._get(self._effects)),
            web.get("/_state", self._get(lambda _: self._state())),
        ]

    def _get(self, read: Callable[[web.Request], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return web.json_response(read(request))
            except ControlError as error:
                return web.json_response({"error": str(error)}, status=error.status)

        return handle

    def _set(self, body: Body) -> Any:
        unknown = set(body) - {"time_scale", "latency_ms", "webhooks", "workers"}
        if unknown:
            raise ControlError(f"unknown field(s): {', '.join(sorted(unknown))}")
        scale = number(body, "time_scale", self._world.clock.scale)
        latency_ms = number(body, "latency_ms", self._world.latency_ms)
        workers = typed(body, "workers", int, self._world.workers)
        webhooks = typed(body, "webhooks", bool, self._world.webhooks.sender.enabled)
        if scale <= 0:
            raise ControlError("time_scale: has to be greater than 0")
        if latency_ms < 0:
            raise ControlError("latency_ms: has to be 0 or more")
        self._world.clock.scale = scale
        self._world.latency_ms = latency_ms
        self._world.workers = workers
        self._world.webhooks.sender.enabled = webhooks
        return self._settings()

    def _settings(self) -> Any:
        return {
            "time_scale": self._world.clock.scale,
            "latency_ms": self._world.latency_ms,
            "webhooks": self._world.webhooks.sender.enabled,
            "workers": self._world.workers,
        }

    def _end_egress(self, body: Body) -> Any:
        """End an egress in a way that no caller asked for."""
        egress = self._egress.egresses.get(text(body, "egress_id"))
        if egress is None:
            raise ControlError("egress_id: egress does not exist", 404)
        ends: dict[str, Callable[[Egress], None]] = {
            "source_closed": lambda egress: egress.stop("Source closed"),
            "killed": lambda egress: egress.stop("Process killed"),
            "cpu_exhausted": lambda egress: egress.stop("CPU exhausted"),
            "limit_reached": Egress.limit_reached,
            "failed": lambda egress: egress.fail("Internal error", 500),
            "aborted": lambda egress: egress.abort("Start signal not received"),
            "ghost": Egress.become_ghost,
        }
        end = ends.get(text(body, "end"))
        if end is None:
            raise ControlError(f"end: one of {', '.join(ends)}")
        end(egress)
        return MessageToDict(egress.info(), preserving_proto_field_name=True)

    def _forget(self, _: Body) -> Any:
        """The store loses its data, as a Redis without persistence does that is restarted. Nothing ends by it."""
        self._rooms.forget()
        self._egress.forget()
        return {"rooms": len(self._rooms.living), "egresses": len(self._egress.egresses)}

    def _add_faults(self, body: Any) -> Any:
        try:
            self._world.faults.add_json(body)
        except ValueError as error:
            raise ControlError(str(error)) from None
        self._changed()
        return self._faults()

    def _clear_faults(self) -> Any:
        self._world.faults.clear()
        self._cleared()
        return self._faults()

    def _faults(self) -> Any:
        return {"faults": self._world.faults.as_json(), "hits": self._world.faults.hits}

    def _effects(self, request: web.Request) -> Any:
        after = request.query.get("after", "0")
        if not after.isdecimal():
            raise ControlError("after: a sequence number")
        return {"effects": [effect.as_json() for effect in self._world.effects.after(int(after))]}

    def _state(self) -> Any:
        return {
            "rooms": [
                {
                    **MessageToDict(room.info(), preserving_proto_field_name=True),
                    "participants": [shown(person) for person in room.participants.values()],
                }
                for room in self._rooms.living.values()
            ],
            "egresses": [
                {**MessageToDict(egress.info(), preserving_proto_field_name=True), "ghost": egress.ghost}
                for egress in self._egress.egresses.values()
            ],
        }


def _answering(act: Callable[[Any], Any]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(act(await _json(request)))
        except (ControlError, RefusedError) as error:
            return web.json_response({"error": str(error)}, status=error.status)

    return handle


async def _json(request: web.Request) -> Any:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise ControlError("body: not JSON") from None
    if not isinstance(body, dict) and request.path != "/_faults":
        raise ControlError("body: a JSON object")
    return cast("Any", body)
