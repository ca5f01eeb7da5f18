"""One simulated world: replicas and broadcasts, chaos, then calm, then the checks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections import Counter, defaultdict
from contextvars import Context
from dataclasses import dataclass, field, replace

from service.domain.broadcast import Target
from service.domain.resource_set import backoff_s
from service.domain.timing import Timing
from service.providers.budget import Limit, Limits
from service.reconciler.act.requests import room_wanted
from tests.simulation.bodies import read
from tests.simulation.callers import Callers
from tests.simulation.calls import Provider
from tests.simulation.chaos import Chaos
from tests.simulation.deliveries import Deliveries
from tests.simulation.environment import Hint, environment
from tests.simulation.faults import Kind
from tests.simulation.invariants import STARTS, Invariants, Violation
from tests.simulation.livekit import LiveKit
from tests.simulation.lives import Life
from tests.simulation.loop import run
from tests.simulation.mux import Mux
from tests.simulation.replica import TAG, Availability, Replica, owner
from tests.simulation.showing import Shown
from tests.simulation.silence import errors_told
from tests.simulation.store import Tables
from tests.simulation.trace import LINES

SCARCE = Limits(mux_post=Limit(rate=0.5, burst=4), mux_other=Limit(rate=2.5, burst=6), livekit=Limit(rate=50, burst=50))
LONGEST_S = 7200.0
SEARCHED_EVERY = 10
"""Of so many worlds one has webhooks with bodies, and all that the service shows of it is searched for secrets."""
MENDED_S = 260.0 + backoff_s(STARTS - 1, Timing())
"""From the end of all faults until everything must be as it is wanted: the last late effect (88 s), a live stream that
waits for media in vain (75 s), a stop that is waited for (45 s), the next start, which may have to back off."""
BACK_S = {
    Kind.EGRESS_FAILED: 75.0,
    Kind.STREAM_STALLED: 110.0,
    Kind.EGRESS_GHOST: 110.0,
    Kind.EGRESS_DEAF: 250.0,
}
"""From what breaks in calm until viewers see pictures again. A deaf one falls silent too: the reconnect window is over
first."""
RECORDED_S = 75.0
LOOPS, LOOP_S = 0.1, 240.0
SILENT_S = 15.0
ENDED_S = 150.0
"""From a stop without faults to the end: an egress that answers no stop is written off, a start is waited for."""
SWEPT_S = 420.0
UPLOADS_SWEPT_S = 3600.0
"""The sweeper looks for uploads every ten minutes, and lets those be that are younger than a quarter of an hour."""


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
    back_in_s: dict[str, list[float]]
    """From what broke in calm until viewers saw pictures again."""


class World:
    def __init__(self, seed: int, *, lines: int | None = LINES, searched: bool = False) -> None:
        self.env = environment(seed, ends=LONGEST_S, lines=lines)
        self.shown = Shown() if searched else None
        env = self.env
        mux = Mux(env, tag=TAG)
        livekit = LiveKit(env, mux)
        timing = Timing()
        livekit.room_of = lambda name: room_wanted(name, TAG, timing)
        self.tables = Tables(env.now)
        self.shared = Availability(
            env=env,
            tables=self.tables,
            livekit=livekit,
            mux=mux,
            at_livekit=Provider("livekit", env),
            at_mux=Provider("mux", env),
            playback=Provider("playback", env),
            timing=timing,
            limits=SCARCE if env.rng.random() < 0.25 else Limits(),
            storage=env.rng.random() < 0.5,
        )
        self.replicas: list[Replica] = []
        self.callers = Callers(env, lambda: self.replicas)
        self.invariants = Invariants(self.shared, self.callers)
        self.lives: list[Life] = []
        self.back_in_s: defaultdict[str, list[float]] = defaultdict(list)
        """By what broke."""
        self._begun = 0
        env.loop.spawned = _adopt
        env.hint = self._hint
        self.tables.notify = self._notify
        self.shared.died = self._died
        self.webhooks = Deliveries(env, lambda: self.replicas, self.invariants.accepted)
        self.webhooks_arrive = env.rng.choice((0.0, 0.5, 1.0, 1.0))
        """The share that arrives."""
        self.notifications_arrive = env.rng.choice((0.0, 0.7, 1.0))

    # What connects the parts.

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
        if env.rng.random() >= self.webhooks_arrive:
            env.faults.counts[Kind.WEBHOOK_LOST] += env.faults.enabled
        else:
            self.webhooks.send(hint if self.shown is None else read(hint, env.canaries, tag=TAG))

    def deliver(self, hint: Hint) -> None:
        """Once."""
        self.webhooks.once(hint)

    # The course of things.

    async def live(self) -> None:
        env, rng = self.env, self.env.rng
        if rng.random() < 0.4:
            # Faults in a row and outages that are long enough are rare, and what a fallback does is not to be.
            self.shared.storage = True
            self.shared.timing = replace(self.shared.timing, fallback_faults=1, fallback_outage_s=15.0)
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
        await self._lose_one_of_two(120)
        self.invariants.check_ended(120)
        await self._mend()
        self.invariants.check_ended(SILENT_S)
        self.invariants.check_heard()
        await self._replace_one()
        if rng.random() < LOOPS:
            await self._fail_each()
        for life in self.lives:
            if life.created and life.stop_answered_at is None:
                await self._in_the_middle_of_a_pass(life.id)
                await life.stop()
        for _ in range(3):
            await self._pass(SILENT_S + 1)
            self.invariants.check_ended(SILENT_S)
        await self._pass(ENDED_S - 3 * (SILENT_S + 1))
        self.invariants.check_over()
        began = self.env.loop.time()
        while left := self.invariants.leftovers():
            patience = UPLOADS_SWEPT_S if all(each.startswith("upload") for each in left) else SWEPT_S
            if self.env.loop.time() - began > patience:
                break
            await self._pass(20)
        if left:
            self.invariants.violate("I-2", f"left at the providers: {', '.join(left)}")
        self.invariants.check_heard()
        self.invariants.check_history()

    async def _lose_one_of_two(self, within_s: float) -> None:
        """The last fault there is, where two egresses are in one room. What is to be recorded is recorded again."""
        env, livekit = self.env, self.shared.livekit
        ends = env.loop.time() + within_s
        lost = None
        while env.loop.time() < ends:
            await self._pass(10)
            if lost is None and (either := livekit.beside_another):
                lost = env.rng.choice(either)
                env.faults.count(Kind.ONE_OF_TWO, "egress")
                livekit.become_ghost(lost)
                ends = max(ends, env.loop.time() + RECORDED_S)
        if lost is not None and lost.room.hosts and self.invariants.records_nothing(self.tables.rows[lost.room.name]):
            self.invariants.violate("I-12", f"{lost.room.name} is to be recorded and is not, since {RECORDED_S:.0f} s")

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
        """With every webhook lost, something breaks: how long until viewers see pictures again."""
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
        waits = {name: self.invariants.next_start_waits_s(name) for name in live}
        broadcast_id = self.env.rng.choice([name for name in live if waits[name] == min(waits.values())])
        livekit, mux = self.shared.livekit, self.shared.mux
        inside = [egress for egress in livekit.egresses.values() if egress.room.name == broadcast_id and egress.runs]
        egress = next(egress for egress in inside if egress.session is not None)
        kind = self.env.rng.choice((Kind.EGRESS_FAILED, *BACK_S))
        if kind is Kind.STREAM_STALLED:
            mux.stall(next(s for s in mux.living if s.broadcast_id == broadcast_id and s.active))
        elif kind is Kind.EGRESS_DEAF:
            egress.deaf_s = LONGEST_S
            livekit.befall(egress, Kind.EGRESS_NO_MEDIA)
        else:
            livekit.befall(egress, kind)
        began, within_s = self.env.loop.time(), BACK_S[kind] + waits[broadcast_id]
        while not self.invariants.publishes(broadcast_id):
            await self._pass(1)
            if self.tables.rows[broadcast_id].broadcast.target is Target.ENDED:
                # By its test limit, which comes when it comes.
                return
            if self.env.loop.time() - began > within_s:
                self.invariants.violate("I-12", f"{kind}: {broadcast_id} is not back in {within_s:.0f} s")
                return
        if not waits[broadcast_id]:
            self.back_in_s[str(kind)].append(self.env.loop.time() - began)

    async def _fail_each(self) -> None:
        """A loop that costs money: of one broadcast, every egress fails as soon as it is connected."""
        live = [row.broadcast.id for row in self.tables.rows.values() if self.invariants.publishes(row.broadcast.id)]
        if not live:
            return
        broadcast_id, ends = self.env.rng.choice(live), self.env.loop.time() + LOOP_S
        while self.env.loop.time() < ends:
            for egress in [*self.shared.livekit.egresses.values()]:
                if egress.room.name == broadcast_id and egress.session is not None:
                    self.shared.livekit.end(egress, Kind.EGRESS_FAILED)
            await self._pass(1)

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
    world = World(seed, lines=lines, searched=seed % SEARCHED_EVERY == 0)
    env, shown = world.env, world.shown
    drawn = random.getstate()
    # What the reconciler itself draws: its back-offs.
    random.seed(seed)
    # A collection in the middle costs more than all the garbage of one world.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with contextlib.ExitStack() as stack:
            said = [] if shown is None else stack.enter_context(shown.all_that_is_said())
            stack.enter_context(
                errors_told(lambda event, rest: world.invariants.violate("a fault of ours", f"{event} {rest}"), said)
            )
            run(_to_its_end(world), env.loop)
        if shown is not None:
            world.invariants.check_secrets(shown)
    finally:
        random.setstate(drawn)
        if collecting:
            gc.enable()
    seen = world.invariants.seen
    seen["zombie write rejected"] += world.tables.zombies
    seen["ambiguous commit resolved"] += world.tables.replays
    seen["webhook doubled"] += world.tables.repeated
    seen["webhook sent again"] += world.webhooks.sent_again
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
        back_in_s=dict(world.back_in_s),
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
