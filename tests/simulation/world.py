"""One simulated world: its parts and what connects them."""

from __future__ import annotations

import asyncio
from contextvars import Context

from service.domain.timing import Timing
from service.providers.budget import Limit, Limits
from service.reconciler.act.requests import room_wanted
from tests.simulation.bodies import read
from tests.simulation.callers import Callers
from tests.simulation.deliveries import Deliveries
from tests.simulation.environment import Hint, environment
from tests.simulation.faults import Kind
from tests.simulation.invariants import Invariants
from tests.simulation.lives import Life
from tests.simulation.providers.livekit import LiveKit
from tests.simulation.providers.mux import Mux
from tests.simulation.providers.network import Network
from tests.simulation.providers.strangers import Strangers
from tests.simulation.replica import TAG, Replica, Shared, owner
from tests.simulation.showing import Shown
from tests.simulation.store import Standby
from tests.simulation.store.tables import Tables
from tests.simulation.trace import LINES
from tests.simulation.viewers import Crowd

SCARCE = Limits(mux_post=Limit(rate=0.5, burst=4), mux_other=Limit(rate=2.5, burst=6), livekit=Limit(rate=50, burst=50))
LONGEST_S = 7200.0
WATCHED_EVERY = 4
"""One world in so many has viewers, and broadcasts that are delivered while somebody watches."""


class World:
    def __init__(self, seed: int, *, lines: int | None = LINES, searched: bool = False) -> None:
        self.seed = seed
        self.env = environment(seed, ends=LONGEST_S, lines=lines)
        self.shown = Shown() if searched else None
        env = self.env
        mux = Mux(env, tag=TAG)
        livekit = LiveKit(env, mux)
        timing = Timing()
        livekit.room_of = lambda name: room_wanted(name, TAG, timing)
        self.tables = Tables(env.database_now)
        self.shared = Shared(
            env=env,
            tables=self.tables,
            livekit=livekit,
            mux=mux,
            at_livekit=Network("livekit", env),
            at_mux=Network("mux", env),
            playback=Network("playback", env),
            timing=timing,
            strangers=Strangers(env, livekit, mux),
            limits=SCARCE if env.rng.random() < 0.25 else Limits(),
            storage=env.rng.random() < 0.5,
        )
        self.tables.taken = mux.give
        self.shared.at_livekit.worker_is_free = livekit.worker_is_free
        self.replicas: list[Replica] = []
        self.callers = Callers(env, lambda: self.replicas)
        self.invariants = Invariants(self.shared, self.callers)
        self.lives: list[Life] = []
        self.crowds: list[Crowd] = []
        self.watched = seed % WATCHED_EVERY == WATCHED_EVERY - 1
        """Whether there are viewers who are counted."""
        self.seed = seed
        self._begun = 0
        env.loop.spawned = adopt
        env.hint = self._hint
        self.tables.notify = self._notify
        self.shared.died = self._died
        self.webhooks = Deliveries(env, lambda: self.replicas, self.invariants.accepted)
        self.webhooks_arrive = env.rng.choice((0.0, 0.5, 1.0, 1.0))
        """The share that arrives."""
        self.notifications_arrive = env.rng.choice((0.0, 0.7, 1.0))

    def begin(self, replica: Replica | None = None) -> None:
        """A replica more, in the place of one that died."""
        if replica is not None and replica in self.replicas:
            self.replicas.remove(replica)
        self._begun += 1
        # Its tasks are in no transaction, wherever the one before it died.
        self.replicas.append(Context().run(Replica, f"r{self._begun}", self.shared))

    def _died(self, replica: Replica) -> None:
        def again() -> None:
            if replica in self.replicas:
                self.begin(replica)

        self.env.after(2, 40, again)

    def _notify(self, channel: str) -> None:
        if channel != "broadcast_due":
            return
        env = self.env
        for replica in self.replicas:
            if env.rng.random() >= self.notifications_arrive:
                env.faults.counts[Kind.NOTIFY_LOST] += env.faults.enabled
            elif env.faults.hits(Kind.NOTIFY_LATE, "notify"):
                env.after(0.2, 10, replica.loop.wake)
            else:
                env.loop.call_soon(replica.loop.wake)

    def _hint(self, hint: Hint) -> None:
        env = self.env
        if not hint.broadcast_id:
            # It carries a mark that is not ours, and the reader of webhooks lets it be.
            return
        if env.rng.random() >= self.webhooks_arrive:
            env.faults.counts[Kind.WEBHOOK_LOST] += env.faults.enabled
        else:
            self.webhooks.send(hint if self.shown is None else read(hint, env.canaries, tag=TAG))

    def fail_over(self, standby: Standby) -> None:
        """A standby takes over that lacks the last commits, some seconds after the primary is gone."""
        env = self.env
        env.faults.count(Kind.FAILOVER, "database")
        standby.take_over(self.tables)
        self.shared.database_away_until = env.loop.time() + env.rng.uniform(1, 10)
        self.invariants.lose_commits()
        self.learn()

    def learn(self) -> None:
        """Every caller looks what is stored."""
        for life in self.lives:
            row = self.tables.rows.get(life.id)
            life.learn(None if row is None else row.broadcast)

    def deliver(self, hint: Hint) -> None:
        """Once."""
        self.webhooks.once(hint)


def adopt(task: asyncio.Task[object]) -> None:
    """A task belongs to the replica that began it."""
    replica = owner.get()
    if replica is not None:
        replica.adopt(task)
