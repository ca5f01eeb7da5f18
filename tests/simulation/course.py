"""The course of a world: chaos, then calm, then the checks."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import replace

from service.domain.broadcast import DeliveryPolicy, IdlePolicy, LatencyMode, PlaybackPolicy, Target
from service.domain.pool import Profile
from service.domain.resource_set import backoff_s
from service.domain.timing import Timing
from tests.simulation.chaos import Chaos, lie
from tests.simulation.checks.at_effects import STARTS
from tests.simulation.faults import Kind
from tests.simulation.lives import Life
from tests.simulation.providers.lies import LIES
from tests.simulation.store import Standby
from tests.simulation.viewers import LEAVES_S, Crowd
from tests.simulation.world import LONGEST_S, World

MENDED_S = 260.0 + backoff_s(STARTS - 1, Timing())
"""From the end of all faults until everything must be as it is wanted: the last late effect (88 s), a live stream that
waits for media in vain (75 s), a stop that is waited for (45 s), the next start, which may have to back off."""
BACK_S = {
    Kind.EGRESS_FAILED: 75.0,
    Kind.STREAM_STALLED: 110.0,
    Kind.EGRESS_GHOST: 75.0,
    Kind.EGRESS_DEAF: 250.0,
}
"""From what breaks in calm until viewers see pictures again. A deaf one falls silent too: the reconnect window is over
first."""
RECORDED_S = 75.0
LIE_ECHOES_S = 30.0
"""From the end of a lie until nobody acts on it any more. Seconds."""
INTERRUPTS = frozenset(
    {"egress.started", "egress.stopped", "key.reset", "room.deleted", "room.created", "stream.disabled"}
)
"""Effects at a broadcast that delivers for which there was no reason."""
NAMES_TAKEN = 0.2
"""The share of worlds with strangers in which another environment has a room with the name of one of ours."""
FAILOVERS = 0.2
"""The share of worlds whose database loses its last seconds."""
POOLS = 0.3
"""The share of worlds in which idle live streams are made ahead."""
LOOPS, LOOP_S = 0.1, 240.0
WATCHED = 0.7
"""The share of broadcasts of a watched world that are delivered while somebody watches."""
SILENT_S = 15.0
ENDED_S = 150.0
"""From a stop without faults to the end: an egress that answers no stop is written off, a start is waited for."""
SWEPT_S = 420.0
UPLOADS_SWEPT_S = 3600.0
"""The sweeper looks for uploads every ten minutes, and lets those be that are younger than a quarter of an hour."""
RESTS_S = 1800.0
"""From the end of everything until what became of each recording is known. A failed upload is made again
after 60 s, and after 300 s."""


class Broken(Exception):
    """An invariant does not hold: there is no use in going on."""


class Course:
    def __init__(self, world: World) -> None:
        self._world = world
        self._env = world.env
        self._shared = world.shared
        self._invariants = world.invariants
        self._convergence = world.invariants.convergence
        self.back_in_s: defaultdict[str, list[float]] = defaultdict(list)
        """Seconds from what broke in calm until viewers saw pictures again, by what broke."""

    async def run(self) -> None:
        """From chaos to calm. Raises Broken at the first violation."""
        env, rng = self._env, self._env.rng
        # Whoever heard no stop for long is told again before the checks of the calm.
        self._shared.timing = replace(self._shared.timing, stop_again_s=60.0)
        if rng.random() < 0.4:
            # Faults in a row and outages that are long enough are rare, and what a fallback does is not to be.
            self._shared.storage = True
            self._shared.timing = replace(self._shared.timing, fallback_faults=1, fallback_outage_s=15.0)
        self._shared.counts = self._world.watched
        if random.Random(f"pool of {self._world.seed}").random() < POOLS:
            profile = Profile(latency_mode=LatencyMode.REDUCED, playback_policy=PlaybackPolicy.PUBLIC)
            self._shared.pool = {profile: 2}
        for _ in range(rng.choice((2, 2, 3))):
            self._world.begin()
        chaos_s = rng.uniform(240, 600)
        if rng.random() < 0.5:
            self._shared.strangers.come()
            if rng.random() < NAMES_TAKEN:
                self._shared.strangers.take_name("b0")
        for n in range(rng.choice((2, 3, 4))):
            self._world.lives.append(
                Life(env, self._world.callers, self._shared.livekit, f"b{n}", rng.uniform(0.4, 1.2) * chaos_s)
            )
        self._let_viewers_in()
        chaos = Chaos(self._shared, self._world.replicas, self._world.begin, self._world.lives)
        env.faults.enabled = True
        running = [env.loop.create_task(life.run(), name=life.id) for life in self._world.lives]
        running.append(env.loop.create_task(chaos.run(), name="chaos"))
        running += [env.loop.create_task(crowd.come_and_go(), name="crowd") for crowd in self._world.crowds]
        await self._chaos(chaos_s)
        env.faults.enabled = False
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        chaos.mend()
        if self._world.invariants.seen["commits lost"]:
            # A change that was answered just then may have been among them.
            self._world.learn()
        self._invariants.last_seconds.calm_since = env.loop.time()
        env.trace.add("calm")
        for crowd in self._world.crowds:
            crowd.comes("who stays", LONGEST_S)
        await self._calm()

    def _let_viewers_in(self) -> None:
        if not self._world.watched:
            return
        for life in self._world.lives:
            crowd = Crowd(self._world, life.id, seed=self._world.seed)
            if crowd.rng.random() < WATCHED:
                life.spec = replace(
                    life.spec,
                    delivery_policy=DeliveryPolicy.ON_DEMAND,
                    idle_policy=crowd.rng.choice((IdlePolicy.STOP, IdlePolicy.STOP, IdlePolicy.KEEP_RECORDING)),
                )
                self._world.crowds.append(crowd)

    async def _let_viewers_go(self) -> None:
        """The last of them leaves. What nobody watches is not delivered any more, and then again."""
        if not self._world.crowds:
            return
        for crowd in self._world.crowds:
            crowd.all_leave()
        await self._pass(LEAVES_S + 5)
        for crowd in self._world.crowds:
            crowd.check_idle()

    async def _chaos(self, for_s: float) -> None:
        rng = self._env.rng
        if rng.random() >= FAILOVERS:
            await self._pass(for_s)
            return
        before_s, lost_s = rng.uniform(0.1, 0.9) * for_s, rng.choice((1.0, 5.0, 20.0))
        await self._pass(before_s)
        standby = Standby.of(self._world.tables)
        await self._pass(lost_s)
        self._world.fail_over(standby)
        await self._pass(for_s - before_s)

    async def _calm(self) -> None:
        rng = self._env.rng
        for life in self._world.lives:
            if life.started and life.stop_answered_at is None:
                (life.host_comes if rng.random() < 0.8 else life.host_leaves)()
        await self._lose_one_of_two(120)
        self._convergence.check_ended(120)
        await self._mend()
        self._convergence.check_ended(SILENT_S)
        self._invariants.check_heard()
        await self._believe_no_lie()
        await self._replace_one()
        await self._let_viewers_go()
        if rng.random() < LOOPS:
            await self._fail_each()
        for life in self._world.lives:
            if life.created and life.stop_answered_at is None:
                await self._in_the_middle_of_a_pass(life.id)
                await life.stop()
        for _ in range(3):
            await self._pass(SILENT_S + 1)
            self._convergence.check_ended(SILENT_S)
        await self._pass(ENDED_S - 3 * (SILENT_S + 1))
        self._convergence.check_over()
        await self._rest()
        self._invariants.check_history()

    async def _rest(self) -> None:
        """Until nothing is left at the providers and nobody waits for anything."""
        began = self._env.loop.time()
        while left := self._convergence.leftovers():
            patience = UPLOADS_SWEPT_S if all(each.startswith("upload") for each in left) else SWEPT_S
            # By the clock of the database everything at the providers is younger then.
            patience += self._env.set_back.total_seconds()
            if self._env.loop.time() - began > patience:
                break
            await self._pass(20)
        if left:
            self._invariants.violate("I-2", f"left at the providers: {', '.join(left)}")
        began = self._env.loop.time()
        while self._convergence.restless() and self._env.loop.time() - began < RESTS_S:
            await self._pass(20)
        self._convergence.check_rest()
        self._invariants.check_heard()

    async def _lose_one_of_two(self, within_s: float) -> None:
        """The last fault there is, where two egresses are in one room. What is to be recorded is recorded again."""
        env, livekit = self._env, self._shared.livekit
        ends = env.loop.time() + within_s
        lost = None
        while env.loop.time() < ends:
            await self._pass(10)
            if lost is None and (either := livekit.beside_another):
                lost = env.rng.choice(either)
                env.faults.count(Kind.ONE_OF_TWO, "egress")
                livekit.become_ghost(lost)
                ends = max(ends, env.loop.time() + RECORDED_S)
        if (
            lost is not None
            and lost.room.hosts
            and self._convergence.records_nothing(self._world.tables.rows[lost.room.name])
        ):
            self._invariants.violate("I-12", f"{lost.room.name} is to be recorded and is not, since {RECORDED_S:.0f} s")

    async def _in_the_middle_of_a_pass(self, broadcast_id: str) -> None:
        await self._world.replicas[0].leases.wake([broadcast_id])
        for _ in range(300):
            await asyncio.sleep(0.005)
            if self._world.tables.rows[broadcast_id].lease_owner is not None:
                return

    async def _mend(self) -> None:
        """Until every broadcast was once as it is wanted."""
        ends = self._env.loop.time() + MENDED_S - 120
        amiss = {life.id: "" for life in self._world.lives}
        while True:
            now = self._convergence.amiss()
            amiss = {name: now[name] for name in amiss if name in now}
            if not amiss:
                return
            if self._env.loop.time() >= ends:
                break
            await self._pass(5)
        for name, why in amiss.items():
            self._invariants.violate("I-12", f"{name}: {why}")

    async def _believe_no_lie(self) -> None:
        """I-20: in calm, one source lies for a while. What is published goes on as it is."""
        env, effects = self._env, self._env.effects
        live = {
            row.broadcast.id
            for row in self._world.tables.rows.values()
            if row.broadcast.target is Target.LIVE
            and not row.broadcast.spec.test
            and not row.broadcast.fallback.modes
            and self._convergence.publishes(row.broadcast.id)
        }
        if not live:
            return
        told = lie(self._shared, env.rng.choice(LIES))
        began = len(effects.log)
        while env.loop.time() < told.until + LIE_ECHOES_S:
            await self._pass(1)
            for broadcast_id in sorted(live):
                if not self._convergence.publishes(broadcast_id):
                    self._invariants.violate("I-20", f"{broadcast_id} is dark for a {told.kind}")
            for effect in effects.log[began:]:
                if effect.broadcast_id in live and effect.kind in INTERRUPTS:
                    self._invariants.violate(
                        "I-20", f"{effect.kind} {effect.id} of {effect.broadcast_id}, for a {told.kind}"
                    )

    async def _replace_one(self) -> None:
        """With every webhook lost, something breaks: how long until viewers see pictures again."""
        live = [
            row.broadcast.id
            for row in self._world.tables.rows.values()
            if row.broadcast.target is Target.LIVE
            and self._convergence.publishes(row.broadcast.id)
            and not self._convergence.starts_used_up(row.broadcast.id)
        ]
        if not live:
            return
        self._world.webhooks_arrive = 0.0
        waits = {name: self._convergence.next_start_waits_s(name) for name in live}
        broadcast_id = self._env.rng.choice([name for name in live if waits[name] == min(waits.values())])
        livekit, mux = self._shared.livekit, self._shared.mux
        inside = [egress for egress in livekit.ours if egress.room.name == broadcast_id and egress.runs]
        egress = next(egress for egress in inside if egress.session is not None)
        kind = self._env.rng.choice((Kind.EGRESS_FAILED, *BACK_S))
        if kind is Kind.STREAM_STALLED:
            mux.stall(next(s for s in mux.living if s.broadcast_id == broadcast_id and s.active))
        elif kind is Kind.EGRESS_DEAF:
            egress.deaf_s = LONGEST_S
            livekit.befall(egress, Kind.EGRESS_NO_MEDIA)
        else:
            livekit.befall(egress, kind)
        began, within_s = self._env.loop.time(), BACK_S[kind] + waits[broadcast_id]
        while not self._convergence.publishes(broadcast_id):
            await self._pass(1)
            if self._world.tables.rows[broadcast_id].broadcast.target is Target.ENDED:
                # By its test limit, which comes when it comes.
                return
            if self._env.loop.time() - began > within_s:
                self._invariants.violate("I-12", f"{kind}: {broadcast_id} is not back in {within_s:.0f} s")
                return
        if not waits[broadcast_id]:
            self.back_in_s[str(kind)].append(self._env.loop.time() - began)

    async def _fail_each(self) -> None:
        """A loop that costs money: of one broadcast, every egress fails as soon as it is connected."""
        live = [
            row.broadcast.id
            for row in self._world.tables.rows.values()
            if self._convergence.publishes(row.broadcast.id)
        ]
        if not live:
            return
        broadcast_id, ends = self._env.rng.choice(live), self._env.loop.time() + LOOP_S
        while self._env.loop.time() < ends:
            for egress in self._shared.livekit.ours:
                if egress.room.name == broadcast_id and egress.session is not None:
                    self._shared.livekit.end(egress, Kind.EGRESS_FAILED)
            await self._pass(1)

    async def _pass(self, for_s: float) -> None:
        """Time passes, until something is found wrong."""
        ends = self._env.loop.time() + for_s
        while (left := ends - self._env.loop.time()) > 0:
            if self._invariants.violations:
                raise Broken
            await asyncio.sleep(min(left, 5.0))
        if self._invariants.violations:
            raise Broken
