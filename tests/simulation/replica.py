"""One replica of the service: the real loop, reconciler, observer and sweeper, on a store and providers in memory.

It dies and it stands still where a real one does: anywhere between two things it does to the outside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from service.api.audience.collector import Collector
from service.domain.errors import StoreUnavailable
from service.domain.pool import Profile
from service.domain.timing import Timing
from service.providers.budget import Budget, Limits
from service.reconciler.act.requests import Providers
from service.reconciler.background.observer import Observer
from service.reconciler.background.pool import PoolKeeper
from service.reconciler.background.prober import Prober
from service.reconciler.background.sweeper import Sweeper
from service.reconciler.loop import Loop
from service.reconciler.reconciler import Reconciler, derive
from tests.simulation import store
from tests.simulation.faults import Kind
from tests.simulation.providers.calls import Egresses, PlaybackTokens, Playlists, Rooms, Storage, Streams, Uploads

if TYPE_CHECKING:
    from service.store.audience.slots import AudienceSlots
    from service.store.broadcasts import Broadcasts
    from service.store.changes import Changes
    from service.store.leases import Leases
    from service.store.measurements.outages import Outages
    from service.store.measurements.probes import Probes
    from service.store.owned_ids import OwnedIds
    from service.store.passes import Passes
    from service.store.pool import Pool
    from tests.simulation.checks.plan_rules import Planned
    from tests.simulation.environment import Environment, Hint
    from tests.simulation.providers.livekit import LiveKit
    from tests.simulation.providers.mux import Mux
    from tests.simulation.providers.network import Call, Network
    from tests.simulation.providers.strangers import Strangers

_T = TypeVar("_T")
TAG = "bs1:sim:"
LEASE = timedelta(seconds=20)
OBSERVE_EVERY = PROBE_EVERY = timedelta(seconds=10)
SWEEP_EVERY, SWEEP_GRACE = timedelta(seconds=60), timedelta(seconds=120)
PAUSE_S = (15.0, 90.0)
SWEEPER, KEEPER = "sweeper", "pool"
CLOCK_EVERY_S = 2.0
_QUICK = frozenset({"claim", "next_due", "take_duty", "take", "look_at_clock"})
"""Statements that wait for no time of their own, because there are very many of them."""

owner: ContextVar[Replica | None] = ContextVar("owner", default=None)


@dataclass(slots=True, kw_only=True)
class Shared:
    """The parts of a world that all replicas share."""

    env: Environment
    tables: store.Tables
    livekit: LiveKit
    mux: Mux
    at_livekit: Network
    at_mux: Network
    playback: Network
    """Where viewers play, which is not Mux's API."""
    timing: Timing
    limits: Limits
    strangers: Strangers
    storage: bool
    """Whether there is one for local recordings."""
    signing: bool = False
    """Whether there is a key for playback tokens."""
    counts: bool = False
    """Whether replicas count viewers. Without viewers they need not, and draw nothing for it."""
    pool: Mapping[Profile, int] = field(default_factory=dict[Profile, int])
    """Idle live streams that are made ahead."""
    database_away_until: float = 0.0
    called: Callable[[Replica, Call, str], None] = lambda _replica, _call, _subject: None
    """Told of every call as it is begun."""
    planned: Callable[[Planned], None] = lambda _planned: None
    """Told of every plan as it is made."""
    died: Callable[[Replica], None] = lambda _replica: None


class ReplicaLine(store.Line):
    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def begin(self, operation: str) -> None:
        replica, shared = self._replica, self._replica.shared
        env = shared.env
        if replica.halted:
            await replica.gate()
        if not env.faults.enabled:
            if operation not in _QUICK:
                await asyncio.sleep(env.rng.uniform(0.001, 0.01))
            return
        if env.loop.time() < shared.database_away_until:
            env.faults.count(Kind.STORE_OUTAGE, operation)
            await asyncio.sleep(0.3)
            raise StoreUnavailable("simulated: away")
        await replica.suffer(env.faults.before(f"store.{operation}"))
        match env.faults.of_statement(f"store.{operation}"):
            case Kind.STORE_ERROR:
                raise StoreUnavailable("simulated")
            case Kind.STORE_SLOW:
                await asyncio.sleep(env.rng.uniform(0.1, 4.0))
            case _ if operation not in _QUICK:
                await asyncio.sleep(env.rng.uniform(0.001, 0.01))
            case _:
                pass

    async def commit(self, operation: str) -> None:
        replica, env = self._replica, self._replica.shared.env
        if env.faults.enabled:
            if env.faults.of_commit(f"store.{operation}") is not None:
                raise StoreUnavailable("simulated: committed, and the answer is lost")
            await replica.suffer(env.faults.after(f"store.{operation}"))
        if replica.halted:
            await replica.gate()


class Replica:
    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.shared = shared
        self.alive = True
        self.paused_until = 0.0
        self.refused_at: Network | None = None
        """The provider that does not accept its credentials, for as long as `refused_until`."""
        self.refused_until = 0.0
        self.halted = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._enough = 64
        line = ReplicaLine(self)
        tables, env = shared.tables, shared.env
        # The parts of a replica know only the interface, to which `tests/conformance` holds both stores.
        self.leases = cast("Leases", store.Leases(tables, line, owner=name, ttl=LEASE))
        self.broadcasts = cast("Broadcasts", store.Broadcasts(tables, line))
        passes = cast(
            "Passes",
            store.Passes(tables, line, derive=derive(shared.timing), storage=shared.storage, signing=shared.signing),
        )
        owned_ids = cast("OwnedIds", store.OwnedIds(tables, line))
        outages = cast("Outages", store.Outages(tables, line))
        changes = cast("Changes", store.Changes(tables, line))
        self.providers = Providers(
            rooms=Rooms(self, shared.at_livekit, shared.livekit),
            egresses=Egresses(self, shared.at_livekit, shared.livekit),
            streams=Streams(self, shared.at_mux, shared.mux),
            budget=Budget(store.Budgets(tables, line).take, shared.limits),
            tag=TAG,
            uploads=Uploads(self, shared.at_mux, shared.mux),
            storage=Storage(env.canaries.make()) if shared.storage else None,
            files="shows/sim/",
            pooled=bool(shared.pool),
        )
        self._inbox = store.Inbox(tables, line)
        reconciler = Reconciler(passes, self.providers, shared.timing, lease=LEASE)
        self.loop = Loop(self.leases, reconciler, self.providers.refusals)
        observer = Observer(self.leases, owned_ids, outages, self.providers, every=OBSERVE_EVERY)
        sweeper = Sweeper(
            self.leases,
            owned_ids,
            self.broadcasts,
            changes,
            self.providers,
            every=SWEEP_EVERY,
            grace=SWEEP_GRACE,
            forget=[self._inbox.forget],
        )
        prober = Prober(
            self.leases,
            cast("Probes", store.Probes(tables, line)),
            self.providers,
            Playlists(self, shared.playback, shared.mux),
            playback_base_url="",
            every=PROBE_EVERY,
            tokens=PlaybackTokens() if shared.signing else None,
        )
        env.trace.add("replica begins", name)
        self._upkeep = store.Upkeep(tables, line, lease=LEASE)
        self.spawn(self.loop.run(), "loop")
        self.spawn(self._look_at_clock(), "clock")
        self.spawn(observer.run(), "observer")
        if shared.pool:
            keeper = PoolKeeper(
                self.leases,
                cast("Pool", store.Pool(tables, line)),
                owned_ids,
                self.providers,
                shared.pool,
                every=OBSERVE_EVERY,
                grace=timedelta(seconds=shared.timing.stream_grace_s),
            )
            self.spawn(keeper.run(), KEEPER)
        self.spawn(prober.run(), "prober")
        self.spawn(sweeper.run(), SWEEPER)
        self.collector: Collector | None = None
        if shared.counts:
            slots = cast("AudienceSlots", store.AudienceSlots(tables, line))
            self.collector = Collector(slots, replica=name, clock=env.loop.time)
            self.spawn(self.collector.run(), "audience")

    async def _look_at_clock(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self._upkeep.look_at_clock()
            await asyncio.sleep(CLOCK_EVERY_S)

    @property
    def doing(self) -> str:
        """Which of its parts is at work: the sweeper, the keeper of the pool, or one of its passes."""
        task = asyncio.current_task()
        return task.get_name() if task is not None and task.get_name() in (SWEEPER, KEEPER) else "us"

    def spawn(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        context = copy_context()
        context.run(owner.set, self)
        return self.shared.env.loop.create_task(work, name=name, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of this replica: it dies with it."""
        self._tasks[task] = None
        if len(self._tasks) > self._enough:
            self._tasks = {each: None for each in self._tasks if not each.done()}
            self._enough = 2 * len(self._tasks) + 64

    def receive(self, hint: Hint) -> asyncio.Task[bool]:
        """A webhook, its signature verified and its body read. Answers whether it is answered with success."""
        return self.spawn(self._receive(hint), "webhook")

    async def _receive(self, hint: Hint) -> bool:
        try:
            await self._inbox.store(hint.provider, hint.heard, hint.broadcast_id, hint.redacted)
        except StoreUnavailable:
            return False
        return True

    def crash(self) -> None:
        """As kill -9: none of its tasks does anything any more."""
        if not self.alive:
            return
        self.alive = False
        self.halted = True
        self.shared.env.trace.add("replica dies", self.name)
        for task in self._tasks:
            task.cancel()
        self.shared.died(self)

    def pause(self, for_s: float) -> None:
        """As SIGSTOP, or a virtual machine that is moved: it does not run for *for_s* seconds, and does not notice."""
        env = self.shared.env
        self.paused_until = max(self.paused_until, env.loop.time() + for_s)
        self.halted = True
        env.trace.add("replica stands still", self.name, f"{for_s:.1f}")

    async def suffer(self, kind: Kind | None) -> None:
        if kind is Kind.CRASH:
            self.crash()
            await self.gate()
        elif kind is Kind.PAUSE:
            self.pause(self.shared.env.rng.uniform(*PAUSE_S))
            await self.gate()

    async def gate(self) -> None:
        """Where it stands while it stands still. Nothing of a dead one comes through."""
        if not self.alive:
            raise asyncio.CancelledError
        loop = self.shared.env.loop
        # It may be stopped again, or let go, meanwhile.
        while self.paused_until > loop.time():  # noqa: ASYNC110
            await asyncio.sleep(self.paused_until - loop.time())
        self.halted = not self.alive
        if not self.alive:
            raise asyncio.CancelledError

    async def call(self, network: Network, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        if self.halted:
            await self.gate()
        shared = self.shared
        faults = shared.env.faults
        shared.called(self, call, subject)
        where = f"{call.provider}.{call.name}"
        if faults.enabled:
            await self.suffer(faults.before(where))
        try:
            if self.refused_at is network and shared.env.loop.time() < self.refused_until:
                await asyncio.sleep(0.05)
                raise network.refusal(call)
            return await network.ask(call, subject, effect)
        finally:
            if self.halted and self.alive:
                await self.gate()
            if faults.enabled and self.alive:
                await self.suffer(faults.after(where))
