"""Delivery while somebody watches, on the real reconciler: many viewers, none, replicas that die, a day of flapping."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from unittest.mock import patch

import pytest

from service.domain.audience.decide import decide
from service.domain.broadcast import DeliveryPolicy, IdlePolicy, Spec, State
from service.domain.timing import Timing
from tests.simulation.stage import ID, Stage, play
from tests.simulation.viewers import Crowd

ON_DEMAND = Spec(title="A show", delivery_policy=DeliveryPolicy.ON_DEMAND)
TIMING = Timing()


async def opened(stage: Stage, spec: Spec = ON_DEMAND) -> Crowd:
    """READY, with a host who publishes and without a viewer."""
    stage.shared.counts = True
    crowd = Crowd(stage.world, ID, seed=1)
    life = await stage.begin(spec)
    life.host_comes()
    await asyncio.sleep(60)
    return crowd


def started(stage: Stage) -> int:
    return sum(effect.kind == "egress.started" for effect in stage.world.env.effects.log)


def decisions(stage: Stage) -> list[str]:
    """The reasons of the decisions, in their order. Each stored one replays to itself."""
    found: list[str] = []
    for event in stage.story:
        if event.reason.startswith("DELIVERY_") and event.snapshot is not None:
            delivery = event.snapshot.delivery
            assert delivery.inputs is not None
            assert decide(delivery.inputs).decided == delivery.decided
            assert event.message.startswith(delivery.decided.reason)
            found.append(delivery.decided.reason)
    return found


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no webhook"])
def test_the_egress_runs_while_somebody_watches(*, webhooks: bool) -> None:
    async def scene(stage: Stage) -> None:
        crowd = await opened(stage)
        assert (started(stage), stage.broadcast.state) == (0, State.READY)
        assert stage.broadcast.status.state_reason == "NO_VIEWER"
        for n in range(200):
            crowd.comes(f"v{n}", 300)
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        await asyncio.sleep(200)
        assert started(stage) == 1
        await stage.until(lambda: not crowd.watches, 120)
        took = await stage.until(lambda: not stage.running, TIMING.linger_s + 60)
        assert took > TIMING.linger_s - 21
        assert stage.broadcast.state is State.READY
        assert decisions(stage) == ["NO_VIEWER", "VIEWERS", "NO_VIEWER"]
        crowd.comes("again", 60)
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert started(stage) == 2

    play(scene, webhooks=webhooks)


def test_a_viewer_who_comes_while_the_egress_drains_gets_the_next_one() -> None:
    async def scene(stage: Stage) -> None:
        crowd = await opened(stage)
        crowd.comes("one", 200)
        await stage.until(lambda: stage.plays, 60)
        await stage.until(lambda: not stage.broadcast.delivery.wanted, 400)
        crowd.comes("two", 300)
        await stage.until(lambda: len(stage.egresses) == 2 and stage.plays, 120)
        assert len(stage.stream.sessions) == 1

    play(scene)


def test_one_unbroken_recording_is_kept_if_it_is_wanted() -> None:
    async def scene(stage: Stage) -> None:
        spec = Spec(title="A show", delivery_policy=DeliveryPolicy.ON_DEMAND, idle_policy=IdlePolicy.KEEP_RECORDING)
        crowd = await opened(stage, spec)
        crowd.comes("one", 100)
        await stage.until(lambda: stage.plays, 60)
        await asyncio.sleep(900)
        assert stage.plays
        assert decisions(stage) == ["NO_VIEWER", "VIEWERS", "RECORDING"]

    play(scene)


def test_after_the_database_was_away_nothing_is_stopped_before_its_viewers_were_counted_again() -> None:
    """No replica takes a sign for three minutes: for each viewer the last one is far too old when it is back."""

    async def scene(stage: Stage) -> None:
        crowd = await opened(stage)
        crowd.comes("one", 3000)
        await stage.until(lambda: stage.plays, 60)
        faults = stage.world.env.faults
        with patch.object(faults, "draw", return_value=None):
            faults.enabled = True
            stage.shared.database_away_until = stage.now + 180
            await asyncio.sleep(181)
            faults.enabled = False
        await stage.all_the_while(lambda: bool(stage.running), 400)
        assert started(stage) == 1

    play(scene)


def test_all_replicas_die_with_their_signs() -> None:
    async def scene(stage: Stage) -> None:
        crowd = await opened(stage)
        crowd.comes("one", 3000)
        await stage.until(lambda: stage.plays, 60)
        for _ in range(3):
            for replica in list(stage.world.replicas):
                replica.crash()
            await stage.all_the_while(lambda: bool(stage.running), 150)
        crowd.all_leave()
        await stage.until(lambda: not stage.running, 400)
        assert started(stage) == 1

    play(scene)


@dataclass(slots=True)
class Bill:
    needed_s: float = 0.0
    """Somebody watched."""
    paid_s: float = 0.0
    """An egress ran."""
    always_s: float = 0.0
    """An egress would have run with the policy ON_PUBLISH: a host published."""
    starts: int = 0


SHOWS, SHOW_S = 12, 7000.0
"""A day of shows, as many one after the other as a world is long."""


def flapping_day(linger_s: float | None = None, *, busy_s: float = 1500.0, seed: int = 1) -> Bill:
    """Twelve shows of nearly two hours. Audiences come for *busy_s* on the average and stay away for as long; while one
    is there it falls to nobody every few minutes, for some seconds, as the last viewer reloads the page.
    """
    bill = Bill()
    for show in range(SHOWS):
        rng = Random(f"day {seed}, show {show}")

        async def scene(stage: Stage, rng: Random = rng) -> None:
            spec = Spec(title="A show", delivery_policy=DeliveryPolicy.ON_DEMAND, linger_s=linger_s)
            crowd = await opened(stage, spec)
            begins = stage.now
            plays = stage.world.env.loop.create_task(_audiences(stage, crowd, rng, busy_s))
            while stage.now - begins < SHOW_S - 200:
                await asyncio.sleep(1)
                bill.needed_s += crowd.watches
                bill.paid_s += bool(stage.running)
                bill.always_s += 1
            plays.cancel()
            bill.starts += started(stage)

        play(scene, seed=seed * 100 + show)
    return bill


async def _audiences(stage: Stage, crowd: Crowd, rng: Random, busy_s: float) -> None:
    n = 0
    while True:
        await asyncio.sleep(rng.expovariate(1 / busy_s))
        ends = stage.now + rng.uniform(0.3, 1.7) * busy_s
        while stage.now < ends:
            n += 1
            crowd.comes(f"{n}", min(rng.uniform(120, 400), ends - stage.now))
            await stage.until(lambda: not crowd.watches, 500)
            await asyncio.sleep(rng.choice((1, 3, 8)))


@pytest.mark.long
def test_a_day_of_flapping_audiences_costs_at_most_a_tenth_more_than_it_needs() -> None:
    bill = flapping_day()
    assert bill.paid_s <= 1.10 * bill.needed_s, bill
    assert bill.always_s >= 1.5 * bill.paid_s, bill
