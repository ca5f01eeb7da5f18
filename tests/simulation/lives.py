"""The lives of broadcasts: what their callers and their hosts do, drawn from the seed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from service.domain import lifecycle
from service.domain.broadcast import Carrier, DeliveryPolicy, Destination, RecordingPolicy, Spec, Target
from service.domain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from service.domain.broadcast import Broadcast
    from service.domain.lifecycle import Change
    from tests.simulation.callers import Callers
    from tests.simulation.environment import Environment
    from tests.simulation.providers.livekit import LiveKit

LAYOUTS = ("grid", "speaker", "single-speaker")


def some_spec(env: Environment) -> tuple[Spec, dict[str, Secret]]:
    rng = env.rng
    destinations: list[Destination] = []
    for name in ("tube", "tv")[: rng.choice((0, 0, 1, 2))]:
        carrier = Carrier.STREAM if rng.random() < 0.3 else Carrier.EGRESS
        destinations.append(Destination(name=name, url=f"rtmps://{name}.example/live", carrier=carrier))
    spec = Spec(
        title="A show",
        layout=rng.choice(LAYOUTS),
        # A longer one hides from every API for as long that a connection carries no media any more.
        reconnect_window_s=rng.choice((60.0, 120.0, 120.0)),
        recording_policy=rng.choice((RecordingPolicy.KEEP, RecordingPolicy.DISCARD)),
        delivery_policy=DeliveryPolicy.MANUAL if rng.random() < 0.2 else DeliveryPolicy.ON_PUBLISH,
        destinations=tuple(destinations),
        test=rng.random() < 0.05,
    )
    return spec, {each.name: Secret(env.canaries.make()) for each in destinations}


class Life:
    """One broadcast, its caller and its host."""

    def __init__(
        self, env: Environment, callers: Callers, livekit: LiveKit, broadcast_id: str, length_s: float
    ) -> None:
        self._env = env
        self._callers = callers
        self._livekit = livekit
        self._length_s = length_s
        self.id = broadcast_id
        self.spec, self.keys = some_spec(env)
        self.created = False
        self.started = False
        self.stop_answered_at: float | None = None
        self.on_air = False
        self._host = f"host of {broadcast_id}"

    async def run(self) -> None:
        """Until it is over, or is cut off."""
        rng, loop = self._env.rng, self._env.loop
        ends = loop.time() + self._length_s
        await asyncio.sleep(rng.uniform(0, 30))
        await self.create()
        if rng.random() < 0.1:
            if rng.random() < 0.5:
                await self.stop()
                await self._callers.change("DeleteBroadcast", self.id, partial(lifecycle.delete, etag=""))
            return
        await asyncio.sleep(rng.uniform(0, 5))
        await self.start()
        if rng.random() < 0.2:
            # While the room, the live stream or the egress are on their way.
            self._env.after(0, 3, self.host_comes)
            await asyncio.sleep(rng.uniform(0, 6))
            await self.stop()
            return
        host = asyncio.create_task(self._host_comes_and_goes(), name="host")
        try:
            while loop.time() < ends:
                await asyncio.sleep(rng.uniform(5, 80))
                await self._something()
            if rng.random() < 0.6:
                await self.stop()
        finally:
            host.cancel()

    async def create(self) -> None:
        self.created = await self._callers.create(self.id, self.spec, self.keys)

    async def start(self) -> None:
        self.started = await self._callers.change("StartBroadcast", self.id, lifecycle.start)
        if self.spec.delivery_policy is DeliveryPolicy.MANUAL:
            await self.set_on_air(on_air=True)

    async def stop(self) -> None:
        if await self._callers.change("StopBroadcast", self.id, partial(lifecycle.stop, note="enough")):
            self.stop_answered_at = self._env.loop.time()

    async def set_on_air(self, *, on_air: bool) -> None:
        if await self._callers.change("SetOnAir", self.id, partial(lifecycle.set_on_air, on_air=on_air)):
            self.on_air = on_air

    def learn(self, stored: Broadcast | None) -> None:
        """Its caller is told that commits were lost, and looks what is there."""
        self.created = stored is not None
        if stored is None:
            self.started, self.stop_answered_at = False, None
            return
        self.spec, self.on_air = stored.spec, stored.on_air
        self.started = stored.target is not Target.CREATED
        if stored.target is not Target.ENDED:
            self.stop_answered_at = None

    def host_comes(self) -> None:
        self._livekit.join(self.id, self._host)

    def host_leaves(self) -> None:
        """By leaving the room, or by staying in it without a picture."""
        self._env.rng.choice((self._livekit.leave, self._livekit.unpublish))(self.id, self._host)

    async def _host_comes_and_goes(self) -> None:
        rng = self._env.rng
        await asyncio.sleep(rng.uniform(0, 40))
        while True:
            if self.stop_answered_at is None:
                self.host_comes()
            await asyncio.sleep(rng.choice((20, 120, 400)) * rng.uniform(0.5, 1.5))
            self.host_leaves()
            await asyncio.sleep(rng.choice((1, 10, 60, 200)) * rng.uniform(0.5, 1.5))

    async def _something(self) -> None:
        rng = self._env.rng
        chance = rng.random()
        if chance < 0.25:
            await self._update({"layout"}, replace(self.spec, layout=rng.choice(LAYOUTS)), {})
        elif chance < 0.45:
            destinations = self._other_destinations()
            keys = {
                each.name: Secret(self._env.canaries.make()) for each in destinations[-1:] if each.name not in self.keys
            }
            await self._update({"destinations"}, replace(self.spec, destinations=destinations), keys)
        elif chance < 0.6 and self.spec.delivery_policy is DeliveryPolicy.MANUAL:
            await self.set_on_air(on_air=not self.on_air)
        elif chance < 0.75:
            # Two at once: each is done once, whatever becomes of their answers.
            await asyncio.gather(*(self._label(f"{rng.getrandbits(32):x}") for _ in range(2)))

    def _other_destinations(self) -> tuple[Destination, ...]:
        kept = tuple(each for each in self.spec.destinations if each.carrier is Carrier.STREAM)
        name = self._env.id("push-")
        added = (Destination(name=name, url=f"rtmps://{name}.example/live"),)
        return kept + (added if self._env.rng.random() < 0.6 else ())

    async def _update(self, paths: set[str], spec: Spec, keys: Mapping[str, Secret]) -> None:
        if await self._callers.change(
            "UpdateBroadcast",
            self.id,
            partial(lifecycle.update, etag="", spec=spec, keys=keys, labels=None, paths=paths),
        ):
            self.spec = spec

    async def _label(self, value: str) -> None:
        def labelled(stored: Broadcast, now: datetime) -> Change | None:
            return lifecycle.update(stored, now, etag="", spec=stored.spec, keys={}, labels={"n": value}, paths=())

        await self._callers.change("Label", self.id, labelled)
