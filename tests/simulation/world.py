"""One simulated world: replicas and broadcasts, chaos, then calm, then the checks."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from service.domain.broadcast import Target
from service.domain.timing import Timing
from service.providers.budget import Limit, Limits
from service.reconciler.asking import room_wanted
from tests.simulation.callers import Callers
from tests.simulation.calls import Provider
from tests.simulation.chaos import Chaos
from tests.simulation.environment import Hint, environment
from tests.simulation.faults import Kind
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.livekit import LiveKit
from tests.simulation.lives import Life
from tests.simulation.loop import run
from tests.simulation.mux import Mux
from tests.simulation.replica import TAG, Replica, Surroundings, owner
from tests.simulation.silence import errors_told
from tests.simulation.store import Tables
from tests.simulation.trace import LINES

SCARCE = Limits(mux_post=Limit(rate=0.5, burst=4), mux_other=Limit(rate=2.5, burst=6), livekit=Limit(rate=50, burst=50))
LONGEST_S = 7200.0
MENDED_S = 260.0
"""From the end of all faults until everything must be as it is wanted: the last late effect (88 s), a live stream that
waits for media in vain (75 s), a stop that is waited for (45 s), the next start."""
REPLACED_S = 75.0
SILENT_S = 15.0
ENDED_S = 150.0
"""From a stop without faults to the end: an egress that answers no stop is written off, a start is waited for."""
SWEPT_S = 420.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    seed: int
    violations: list[Violation]
    simulated_s: float
    cpu_s: float
    faults: Counter[str]
    seen: Counter[str]
    hash: str
    trace: list[str] = field(default_factory=list[str])
    replaced_in_s: list[float] = field(default_factory=list[float])


class World:
    def __init__(self, seed: int, *, lines: int | None = LINES) -> None:
        self.env = environment(seed, ends=LONGEST_S, lines=lines)
        env = self.env
        mux = Mux(env, tag=TAG)
        livekit = LiveKit(env, mux)
        timing = Timing()
        livekit.room_of = lambda name: room_wanted(name, TAG, timing)
        self.tables = Tables(env.now)
        self.shared = Surroundings(
            env=env,
            tables=self.tables,
            livekit=livekit,
            mux=mux,
            at_livekit=Provider("livekit", env),
            at_mux=Provider("mux", env),
            timing=timing,
            limits=SCARCE if env.rng.random() < 0.25 else Limits(),
            storage=env.rng.random() < 0.5,
        )
        self.replicas: list[Replica] = []
        self.callers = Callers(env, lambda: self.replicas)
        self.invariants = Invariants(self.shared, self.callers)
        self.lives: list[Life] = []
        self.replaced_in_s: list[float] = []
        self._begun = 0
        env.loop.spawned = _adopt
        env.hint = self._hint
        self.tables.notify = self._notify
        self.shared.died = self._died
        self.webhooks_arrive = env.rng.choice((0.0, 0.5, 1.0, 1.0))
        """The share that arrives."""
        self.notifications_arrive = env.rng.choice((0.0, 0.7, 1.0))

    # What connects the parts.

    def begin(self, replica: Replica | None = None) -> None:
        """A replica more, in the place of one that died."""
        if replica is not None and replica in self.replicas:
            self.replicas.remove(replica)
        self._begun += 1
        self.replicas.append(Replica(f"r{self._begun}", self.shared))

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
        if env.rng.random() >= self.webhooks_arrive:
            env.faults.counts[Kind.WEBHOOK_LOST] += env.faults.enabled
            return
        if env.faults.hits(Kind.WEBHOOK_LATE, "webhook"):
            env.after(2, 200, lambda: self.deliver(hint))
        else:
            env.after(0.05, 2.0, lambda: self.deliver(hint))
        if env.faults.hits(Kind.WEBHOOK_TWICE, "webhook"):
            env.after(0.05, 60.0, lambda: self.deliver(hint))

    def deliver(self, hint: Hint) -> None:
        alive = [replica for replica in self.replicas if replica.alive]
        if alive:
            self.env.rng.choice(alive).receive(hint)

    # The course of things.

    async def live(self) -> None:
        env, rng = self.env, self.env.rng
        for _ in range(rng.choice((2, 2, 3))):
            self.begin()
        chaos_s = rng.uniform(240, 600)
        for n in range(rng.choice((2, 3, 4))):
            self.lives.append(Life(env, self.callers, self.shared.livekit, f"b{n}", rng.uniform(0.4, 1.2) * chaos_s))
        chaos = Chaos(self.shared, self.replicas, self.begin, self.lives)
        env.faults.enabled = True
        running = [env.loop.create_task(life.run(), name=life.id) for life in self.lives]
        running.append(env.loop.create_task(chaos.run(), name="chaos"))
        await self._pass(chaos_s)
        env.faults.enabled = False
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        chaos.mend()
        env.trace.add("calm")
        await self._calm()

    async def _calm(self) -> None:
        rng = self.env.rng
        for life in self.lives:
            if life.started and life.stop_answered_at is None:
                (life.host_comes if rng.random() < 0.8 else life.host_leaves)()
        await self._pass(120)
        self.invariants.check_ended(120)
        await self._mend()
        self.invariants.check_ended(SILENT_S)
        await self._replace_one()
        for life in self.lives:
            if life.created and life.stop_answered_at is None:
                await self._in_the_middle_of_a_pass(life.id)
                await life.stop()
        for _ in range(3):
            await self._pass(SILENT_S + 1)
            self.invariants.check_ended(SILENT_S)
        await self._pass(ENDED_S - 3 * (SILENT_S + 1))
        self.invariants.check_over()
        ends = self.env.loop.time() + SWEPT_S
        while (left := self.invariants.leftovers()) and self.env.loop.time() < ends:
            await self._pass(20)
        if left:
            self.invariants.violate("I-2", f"left at the providers: {', '.join(left)}")
        self.invariants.check_history()
        self.invariants.check_log()

    async def _in_the_middle_of_a_pass(self, broadcast_id: str) -> None:
        await self.replicas[0].leases.wake([broadcast_id])
        for _ in range(300):
            await asyncio.sleep(0.005)
            if self.tables.rows[broadcast_id].lease_owner is not None:
                return

    async def _mend(self) -> None:
        """Until every broadcast was once as it is wanted."""
        ends = self.env.loop.time() + MENDED_S - 120
        amiss = {life.id: "" for life in self.lives}
        while True:
            now = self.invariants.amiss()
            amiss = {name: now[name] for name in amiss if name in now}
            if not amiss:
                return
            if self.env.loop.time() >= ends:
                break
            await self._pass(5)
        for name, why in amiss.items():
            self.invariants.violate("I-12", f"{name}: {why}")

    async def _replace_one(self) -> None:
        """With every webhook lost, an egress fails: how long until viewers see pictures again."""
        live = [
            row.broadcast.id
            for row in self.tables.rows.values()
            if row.broadcast.target is Target.LIVE
            and self.invariants.publishes(row.broadcast.id)
            and not self.invariants.starts_used_up(row.broadcast.id)
        ]
        if not live:
            return
        self.webhooks_arrive = 0.0
        broadcast_id = self.env.rng.choice(live)
        egress = next(
            e for e in self.shared.livekit.egresses.values() if e.session is not None and e.room.name == broadcast_id
        )
        self.shared.livekit.end(egress, Kind.EGRESS_FAILED)
        began = self.env.loop.time()
        while not self.invariants.publishes(broadcast_id):
            await self._pass(1)
            if self.tables.rows[broadcast_id].broadcast.target is Target.ENDED:
                # By its test limit, which comes when it comes.
                return
            if self.env.loop.time() - began > REPLACED_S:
                self.invariants.violate("I-12", f"the egress of {broadcast_id} is not replaced in {REPLACED_S:.0f} s")
                return
        self.replaced_in_s.append(self.env.loop.time() - began)

    async def _pass(self, for_s: float) -> None:
        """Time passes, until something is found wrong."""
        ends = self.env.loop.time() + for_s
        while (left := ends - self.env.loop.time()) > 0:
            if self.invariants.violations:
                raise Broken
            await asyncio.sleep(min(left, 5.0))
        if self.invariants.violations:
            raise Broken


class Broken(Exception):
    """An invariant does not hold: there is no use in going on."""


def _adopt(task: asyncio.Task[object]) -> None:
    replica = owner.get()
    if replica is not None:
        replica.adopt(task)


def simulate(seed: int, *, lines: int | None = LINES, keep: bool = False) -> Outcome:
    """Run the world of *seed*. *keep*: the trace of one without violations too, its last *lines* (None: all)."""
    began = time.process_time()
    world = World(seed, lines=lines)
    env = world.env
    drawn = random.getstate()
    # What the reconciler itself draws: its back-offs.
    random.seed(seed)
    # A collection in the middle costs more than all the garbage of one world.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with errors_told(lambda event, rest: world.invariants.violate("a fault of ours", f"{event} {rest}")):
            run(_to_its_end(world), env.loop)
    finally:
        random.setstate(drawn)
        if collecting:
            gc.enable()
    seen = world.invariants.seen
    seen["zombie write rejected"] += world.tables.zombies
    seen["ambiguous commit resolved"] += world.tables.replays
    violations = world.invariants.violations
    return Outcome(
        seed=seed,
        violations=violations,
        simulated_s=env.loop.time(),
        cpu_s=time.process_time() - began,
        faults=Counter({str(kind): count for kind, count in env.faults.counts.items()}),
        seen=seen,
        hash=env.trace.hash,
        trace=env.trace.last() if violations or keep else [],
        replaced_in_s=world.replaced_in_s,
    )


async def _to_its_end(world: World) -> None:
    try:
        await world.live()
    except Broken:
        pass
    finally:
        world.shared.died = lambda _replica: None
        for replica in world.replicas:
            replica.crash()
