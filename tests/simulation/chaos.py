"""Faults that strike by themselves, beside calls that fail: replicas die and stand still, providers and the database
are away for minutes, somebody else deletes things, and egresses and playlists break.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation.faults import Kind
from tests.simulation.providers.egresses import FATES
from tests.simulation.providers.lies import LIES, LISTS, Lie
from tests.simulation.providers.network import Network, Outage
from tests.simulation.replica import PAUSE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.lives import Life
    from tests.simulation.replica import Replica, Shared

EVERY_S = 8.0
OUTAGE_MODES = ("refused", "unavailable", "silent", "mute")


def networks(shared: Shared) -> tuple[Network, Network]:
    return shared.at_livekit, shared.at_mux


def lie(shared: Shared, kind: Kind) -> Lie:
    """One source lies from now on, about some of its lists or about all."""
    env = shared.env
    network = env.rng.choice(networks(shared))
    names = [name for name in LISTS[network.name] if env.rng.random() < 0.6]
    network.lie = Lie(
        kind=kind,
        names=frozenset(names or LISTS[network.name]),
        until=env.loop.time() + env.rng.choice((1, 12, 60)) * env.rng.uniform(0.5, 1.2),
        rng=env.rng,
        strange=shared.strangers.own,
    )
    env.trace.add("lie", network.name, kind, *sorted(network.lie.names), f"until {network.lie.until:.0f}")
    return network.lie


class Chaos:
    def __init__(
        self, shared: Shared, replicas: list[Replica], restart: Callable[[Replica], None], lives: list[Life]
    ) -> None:
        self._shared = shared
        self._replicas = replicas
        self._restart = restart
        self._lives = lives
        rng = shared.env.rng
        kinds = (
            *FATES,
            Kind.CRASH,
            Kind.PAUSE,
            Kind.CREDENTIALS,
            Kind.OUTAGE,
            Kind.STORE_OUTAGE,
            Kind.CLOCK_BACK,
            Kind.ROOM_DELETED,
            Kind.STREAM_STALLED,
            Kind.STREAM_DISABLED,
            Kind.STREAM_DELETED,
            Kind.STALE_TOKEN,
            Kind.ONE_OF_TWO,
            Kind.STRANGER,
            *LIES,
        )
        self._kinds = [kind for kind in kinds if rng.random() < 0.5]

    async def run(self) -> None:
        rng = self._shared.env.rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / EVERY_S))
            if self._kinds:
                self._strike(rng.choice(self._kinds))

    def mend(self) -> None:
        """The end of it: everything is there again, nobody stands still, and who heard no stop hears the next one."""
        shared = self._shared
        for provider in networks(shared):
            provider.outage = provider.lie = None
        shared.database_away_until = 0.0
        for egress in shared.livekit.egresses.values():
            egress.deaf_s, egress.deaf_until = 0.0, None
        for replica in self._replicas:
            replica.refused_at = None
            replica.paused_until = min(replica.paused_until, shared.env.loop.time())
            if not replica.alive:
                self._restart(replica)

    def _strike(self, kind: Kind) -> None:
        shared, env = self._shared, self._shared.env
        match kind:
            case Kind.CRASH | Kind.PAUSE | Kind.CREDENTIALS:
                self._replica(kind)
            case Kind.OUTAGE:
                self._away()
            case Kind.STORE_OUTAGE:
                if shared.database_away_until < env.loop.time() - 60:
                    shared.database_away_until = env.loop.time() + env.rng.uniform(1, 25)
                    env.trace.add("outage", "database", f"until {shared.database_away_until:.0f}")
            case Kind.CLOCK_BACK:
                self._set_back()
            case Kind.STREAM_STALLED:
                self._stall()
            case Kind.STRANGER | Kind.LIST_EMPTY | Kind.LIST_STALE | Kind.LIST_SHORT | Kind.LIST_FOREIGN:
                self._deceive(kind)
            case Kind.ROOM_DELETED | Kind.STREAM_DISABLED | Kind.STREAM_DELETED | Kind.STALE_TOKEN:
                self._outside(kind)
            case _:
                livekit = shared.livekit
                beside = kind is Kind.ONE_OF_TWO
                running = livekit.beside_another if beside else [e for e in livekit.ours if e.runs]
                if running:
                    env.faults.count(kind, "egress")
                    livekit.befall(env.rng.choice(running), kind)

    def _replica(self, kind: Kind) -> None:
        env = self._shared.env
        alive = [replica for replica in self._replicas if replica.alive]
        if not alive:
            return
        replica = env.rng.choice(alive)
        env.faults.count(kind, replica.name)
        if kind is Kind.CRASH:
            replica.crash()
        elif kind is Kind.CREDENTIALS:
            # Those of the others are right.
            if len(alive) > 1 and all(each.refused_until < env.loop.time() for each in alive):
                replica.refused_at = env.rng.choice(networks(self._shared))
                replica.refused_until = env.loop.time() + env.rng.choice((20, 60, 240))
        else:
            replica.pause(env.rng.uniform(*PAUSE_S))

    def _away(self) -> None:
        shared, env = self._shared, self._shared.env
        provider = env.rng.choice(networks(shared))
        if provider.outage is None or provider.outage.until < env.loop.time() - 60:
            until = env.loop.time() + env.rng.choice((10, 40, 150)) * env.rng.uniform(0.5, 1.2)
            provider.outage = Outage(until=until, mode=env.rng.choice(OUTAGE_MODES))
            env.trace.add("outage", provider.name, provider.outage.mode, f"until {until:.0f}")

    def _set_back(self) -> None:
        """Once in a world: clocks that are wrong are set right and stay so."""
        env = self._shared.env
        if not env.set_back:
            env.faults.count(Kind.CLOCK_BACK, "database")
            env.set_back = timedelta(seconds=env.rng.choice((2, 30, 300)))
            env.trace.add("clock", f"set back by {env.set_back}")

    def _stall(self) -> None:
        shared, env = self._shared, self._shared.env
        active = [stream for stream in shared.mux.living if stream.active and not stream.stalled]
        if active:
            env.faults.count(Kind.STREAM_STALLED, "stream")
            shared.mux.stall(env.rng.choice(active), env.rng.choice((None, env.rng.uniform(5, 240))))

    def _deceive(self, kind: Kind) -> None:
        shared, env = self._shared, self._shared.env
        if kind is Kind.STRANGER:
            if shared.strangers.ids and shared.livekit.rooms:
                env.faults.count(kind, "egress")
                shared.strangers.record(env.rng.choice(list(shared.livekit.rooms.values())))
        elif all(network.lie is None or network.lie.until < env.loop.time() for network in networks(shared)):
            lie(shared, kind)

    def _outside(self, kind: Kind) -> None:
        shared, env = self._shared, self._shared.env
        if env.rng.random() < 0.7:
            # Few broadcasts outlive these, and what is over shows no other fault any more.
            return
        match kind:
            case Kind.ROOM_DELETED if shared.livekit.rooms:
                env.faults.count(kind, "room")
                shared.livekit.delete_room(env.rng.choice(list(shared.livekit.rooms)), "outside")
            case Kind.STREAM_DISABLED | Kind.STREAM_DELETED if shared.mux.living:
                env.faults.count(kind, "stream")
                stream = env.rng.choice(shared.mux.living)
                (shared.mux.disable if kind is Kind.STREAM_DISABLED else shared.mux.delete)(stream, "outside")
            case Kind.STALE_TOKEN:
                stopped = [life for life in self._lives if life.stop_answered_at is not None]
                if stopped:
                    env.faults.count(kind, "room")
                    env.rng.choice(stopped).host_comes()
            case _:
                pass
