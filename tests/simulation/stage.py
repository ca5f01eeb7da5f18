"""A world in which one thing goes wrong at a time: two replicas, one broadcast, no chance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from service.domain import lifecycle
from service.domain.broadcast import Broadcast, Spec, State
from service.domain.ports import EgressWanted, Push
from service.domain.reporting.status import state_of
from service.domain.resources import Egress, EgressStatus, LocalRecording, Phase, Stream
from service.domain.secret import Secret
from tests.simulation.checks.at_plans import plans_shown
from tests.simulation.lives import Life
from tests.simulation.loop import run
from tests.simulation.providers.egresses import TrueEgress
from tests.simulation.providers.mux import LiveStream
from tests.simulation.providers.network import Call
from tests.simulation.replica import Replica
from tests.simulation.silence import errors_told
from tests.simulation.store.tables import Logged, Row
from tests.simulation.world import World

ID = "show"
HOST = "host of show"
STEP_S = 0.5


class Stage:
    def __init__(self, *, webhooks: bool, storage: bool = False, signing: bool = False, seed: int = 1) -> None:
        self.world = World(seed)
        self.world.webhooks_arrive = 1.0 if webhooks else 0.0
        self.world.notifications_arrive = 1.0
        self.shared = self.world.shared
        self.shared.storage = storage
        self.shared.signing = signing
        self.livekit = self.shared.livekit
        self.mux = self.shared.mux
        self.troubles: list[str] = []
        self.states: list[State] = []

    @property
    def now(self) -> float:
        return self.world.env.loop.time()

    @property
    def row(self) -> Row:
        return self.world.tables.rows[ID]

    @property
    def broadcast(self) -> Broadcast:
        return self.row.read()

    @property
    def story(self) -> list[Logged]:
        return [event for event in self.world.tables.events if event.broadcast_id == ID]

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.story]

    @property
    def egresses(self) -> list[Egress]:
        return [each for each in self.row.sorted_resources() if isinstance(each, Egress)]

    @property
    def recordings(self) -> list[LocalRecording]:
        return [each for each in self.row.sorted_resources() if isinstance(each, LocalRecording)]

    @property
    def running(self) -> list[TrueEgress]:
        """Egresses that really run, without file egresses."""
        return [egress for egress in self.livekit.ours if egress.runs and not egress.file]

    @property
    def recording(self) -> list[TrueEgress]:
        """File egresses that really write."""
        return [e for e in self.livekit.ours if e.runs and e.file and e.status is EgressStatus.ACTIVE]

    @property
    def stream(self) -> LiveStream:
        return next(each for each in self.mux.living if each.broadcast_id == ID)

    @property
    def plays(self) -> bool:
        """Whether a viewer really sees moving pictures."""
        return self.world.invariants.publishes(ID)

    @property
    def true(self) -> bool:
        """Whether the state and the rows are as the providers are."""
        rows = self.row.sorted_resources()
        streams = [each for each in rows if isinstance(each, Stream) and each.phase is Phase.PRESENT]
        said = state_of(self.broadcast, rows)[0]
        return (said is State.LIVE) is self.plays and all(
            self.mux.streams[each.external_id].status is each.status for each in streams
        )

    def prepare(self, spec: Spec | None = None, *, replicas: int = 2) -> Life:
        """Replicas, and a caller who did nothing yet."""
        for _ in range(replicas):
            self.world.begin()
        life = Life(self.world.env, self.world.callers, self.livekit, ID, 0.0)
        life.spec = spec or Spec(title="A show")
        life.keys = {each.name: Secret(f"key-of-{each.name}") for each in life.spec.destinations}
        self.world.lives.append(life)
        return life

    async def begin(self, spec: Spec | None = None, *, replicas: int = 2) -> Life:
        """Waits until the broadcast is READY. Nobody is in the room."""
        life = self.prepare(spec, replicas=replicas)
        await life.create()
        await life.start()
        await self.until(lambda: self.broadcast.state is State.READY, 10)
        return life

    async def live(self, spec: Spec | None = None) -> Life:
        life = await self.begin(spec)
        life.host_comes()
        await self.until(lambda: self.broadcast.state is State.LIVE and self.plays, 60)
        await asyncio.sleep(60)
        return life

    async def stop(self) -> None:
        await self.world.callers.change("StopBroadcast", ID, partial(lifecycle.stop, note="enough"))

    def wanted(self, egress: Egress) -> EgressWanted:
        """The request that started *egress*."""
        spec = self.broadcast.spec
        return EgressWanted(
            room_name=ID,
            encoding=spec.encoding,
            audio_only=spec.audio_only,
            layout=egress.layout,
            pushes=tuple(Push(name=name, url=url) for name, url in egress.pushes.items()),
        )

    def writes(self) -> list[str]:
        """Names of the calls that change something at a provider, from now on, as they are begun."""
        names: list[str] = []
        before = self.shared.called

        def called(replica: Replica, call: Call, subject: str) -> None:
            if call.writes:
                names.append(call.name)
            before(replica, call, subject)

        self.shared.called = called
        return names

    async def until(self, what: Callable[[], bool], within_s: float) -> float:
        """Waits until *what* is so. Answers the seconds it took. Fails after *within_s* or at the first violation."""
        began = self.now
        while not what():
            assert not self.troubles, self.troubles
            violations = self.world.invariants.violations
            assert not violations, violations
            said = f"{self.broadcast.state} {self.reasons[-12:]}" if ID in self.world.tables.rows else "nothing yet"
            assert self.now - began <= within_s, f"not within {within_s:g} s: {said}"
            await asyncio.sleep(STEP_S)
        return self.now - began

    async def all_the_while(self, what: Callable[[], bool], for_s: float) -> None:
        ends = self.now + for_s
        while self.now < ends:
            assert what(), f"not so at {self.now:.1f} s: {self.broadcast.state} {self.reasons[-8:]}"
            await asyncio.sleep(STEP_S)


def play(
    scene: Callable[[Stage], Awaitable[None]],
    *,
    webhooks: bool = False,
    storage: bool = False,
    signing: bool = False,
    seed: int = 1,
) -> Stage:
    """Play *scene* on virtual time, to its end. Raises AssertionError where an invariant did not hold."""
    stage = Stage(webhooks=webhooks, storage=storage, signing=signing, seed=seed)
    drawn = random.getstate()
    random.seed(seed)

    async def to_its_end() -> None:
        try:
            await scene(stage)
        finally:
            stage.shared.died = lambda _replica: None
            for replica in stage.world.replicas:
                replica.crash()

    try:
        with plans_shown(), errors_told(lambda event, rest: stage.troubles.append(f"{event} {rest}")):
            run(to_its_end(), stage.world.env.loop)
    finally:
        random.setstate(drawn)
    assert not stage.troubles, stage.troubles
    assert not stage.world.invariants.violations, stage.world.invariants.violations
    return stage
