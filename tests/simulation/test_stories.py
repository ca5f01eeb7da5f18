"""Properties of the plan that need one course of things: seeded stories of one broadcast, on the real reconciler.

Each story is built towards a case that is rare in worlds, and counts in how many of its seeds the case was met. All
invariants hold in each of them, at every effect, commit, call and plan.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from service.domain.broadcast import DeliveryPolicy, Spec, State
from tests.simulation.faults import Kind
from tests.simulation.lives import Life
from tests.simulation.providers.network import Network, Outage
from tests.simulation.stage import Stage, play

SEEDS = range(1, 31)


def played(story: Callable[[Stage, Random], Awaitable[None]], *, storage: bool = False) -> Counter[str]:
    """In how many seeds each case of `Findings.seen` was met."""
    met: Counter[str] = Counter()
    for seed in SEEDS:
        stage = play(
            lambda stage: story(stage, stage.world.env.rng), webhooks=seed % 2 == 0, storage=storage, seed=seed
        )
        met.update(name for name, count in stage.world.invariants.seen.items() if count)
    return met


def check_met(met: Counter[str], case: str, share: float) -> None:
    assert met[case] >= share * len(SEEDS), f"{case} in {met[case]} of {len(SEEDS)} seeds"


async def away(stage: Stage, network: Network, for_s: float) -> None:
    """The provider behind *network* does not answer."""
    mode = stage.world.env.rng.choice(("refused", "unavailable", "silent", "mute"))
    network.outage = Outage(until=stage.now + for_s, mode=mode)
    await asyncio.sleep(for_s)


async def over_and_at_rest(stage: Stage) -> None:
    """Everything of it is gone, and every recording is known."""
    convergence = stage.world.invariants.convergence
    await stage.until(lambda: stage.broadcast.state.over, 900)
    await stage.until(lambda: not convergence.leftovers(), 420)
    await stage.until(lambda: not convergence.restless(), 1800)
    convergence.check_over()
    convergence.check_rest()


def test_nothing_that_was_recorded_while_mux_was_away_is_lost() -> None:
    async def story(stage: Stage, rng: Random) -> None:
        await stage.live()
        stage.world.env.faults.enabled = rng.random() < 0.5
        for _ in range(rng.randrange(3)):
            await away(stage, stage.shared.at_mux, rng.choice((20, 100, 125, 300)))
            await asyncio.sleep(rng.choice((10, 60, 130)))
        # The end falls into an outage. Mux answers again when nothing runs any more but the live stream.
        stage.shared.at_mux.outage = Outage(until=stage.now + 400, mode="refused")
        await asyncio.sleep(200)
        if stage.broadcast.end_reason is None:
            await stage.stop()
        await asyncio.sleep(200)
        stage.world.env.faults.enabled = False
        await over_and_at_rest(stage)

    met = played(story, storage=True)
    check_met(met, "fallback entered", 0.5)
    check_met(met, "file recorded", 0.5)


def test_viewers_are_sent_back_when_all_is_well_for_long_enough() -> None:
    """Egresses fail in a row. While all may be well again, a provider falls silent now and then."""

    async def story(stage: Stage, rng: Random) -> None:
        await stage.live()
        for _ in range(rng.choice((2, 3, 3, 4))):
            await stage.until(lambda: any(egress.session is not None for egress in stage.running), 240)
            await asyncio.sleep(rng.choice((2, 10)))
            stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
            await stage.until(lambda: not stage.running or bool(stage.broadcast.fallback.modes), 30)
        for _ in range(rng.choice((0, 1, 2))):
            await asyncio.sleep(rng.choice((30, 100, 115, 119)))
            await away(stage, rng.choice((stage.shared.at_livekit, stage.shared.at_mux)), rng.choice((15, 30)))
        await stage.until(lambda: stage.plays and not stage.broadcast.fallback.modes, 500)
        await stage.all_the_while(lambda: not stage.broadcast.fallback.modes, 120)
        assert stage.broadcast.state is State.LIVE

    met = played(story)
    check_met(met, "fallback entered", 0.5)
    check_met(met, "fallback left", 0.5)


def test_what_answers_no_stop_and_stays_connected_is_cut_off_before_the_next() -> None:
    """Off air and on again, with a worker that LiveKit cannot reach."""

    async def story(stage: Stage, rng: Random) -> None:
        life = await stage.begin(Spec(title="A show", delivery_policy=DeliveryPolicy.MANUAL))
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)
        [deaf] = stage.running
        deaf.deaf_s = 10_000.0
        stage.world.env.faults.enabled = rng.random() < 0.7
        for n in range(rng.randrange(2, 6)):
            await life.set_on_air(on_air=n % 2 == 1)
            await asyncio.sleep(rng.choice((4, 20, 60, 150)))
        await life.set_on_air(on_air=True)
        stage.world.env.faults.enabled = False
        await live_again(stage, 600)
        assert len(stage.stream.sessions) <= 1

    met = played(story)
    check_met(met, "cut off", 0.5)
    check_met(met, "live again", 0.5)


def test_it_gets_live_whatever_failed_before() -> None:
    """From any trouble that ends, and whatever the host did: no end that nobody asked for, and pictures again."""

    async def story(stage: Stage, rng: Random) -> None:
        life = await stage.begin()
        stage.world.env.faults.enabled = True
        for _ in range(rng.randrange(2, 8)):
            await strike(stage, life, rng.choice(("host", "no host", "egress", "room", "mux", "livekit")))
            await asyncio.sleep(rng.choice((0, 1, 4, 15, 50, 100)))
        stage.world.env.faults.enabled = False
        if stage.broadcast.end_reason is None:
            life.host_comes()
            await live_again(stage, 460)

    check_met(played(story), "live again", 0.5)


async def strike(stage: Stage, life: Life, what: str) -> None:
    match what:
        case "host":
            life.host_comes()
        case "no host":
            life.host_leaves()
        case "egress":
            for egress in stage.running:
                stage.livekit.end(egress, Kind.EGRESS_FAILED)
        case "room":
            stage.livekit.delete_room(stage.broadcast.id, "outside")
        case "mux":
            await away(stage, stage.shared.at_mux, stage.world.env.rng.choice((15, 50)))
        case _:
            await away(stage, stage.shared.at_livekit, stage.world.env.rng.choice((15, 50)))


async def live_again(stage: Stage, within_s: float) -> None:
    """Unless the limit of starts is used up: then nothing is started for ten minutes."""
    invariants = stage.world.invariants
    await stage.until(
        lambda: (
            (stage.plays and stage.broadcast.state is State.LIVE)
            or invariants.convergence.starts_used_up(stage.broadcast.id)
        ),
        within_s,
    )
    invariants.seen["live again"] += stage.plays
