"""Webhooks that are lost, doubled, reordered and delayed by hours change nothing of where a broadcast ends up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.domain.broadcast import State
from tests.simulation.environment import Hint
from tests.simulation.faults import Kind
from tests.simulation.stage import Stage, play

HOURS_S = 4 * 3600.0
Deliveries = Callable[[], list[float | None]]
"""For one webhook, the seconds after which each of its deliveries arrives. None: hours later, after everything."""


def schedule(seed: int) -> Deliveries:
    """One way in which deliveries go wrong: its own shares of lost, doubled, late and very late ones."""
    rng = random.Random(seed)
    lost, twice, late, very_late = (rng.choice((0.0, 0.1, 0.5, 1.0)) for _ in range(4))

    def deliveries() -> list[float | None]:
        if rng.random() < lost:
            return []
        times = rng.choice((2, 3, 10)) if rng.random() < twice else 1
        return [
            None if rng.random() < very_late else rng.uniform(0.0, 600.0 if rng.random() < late else 1.0)
            for _ in range(times)
        ]

    return deliveries


def outcome(deliveries: Deliveries) -> tuple[dict[str, Any], int]:
    """The final state of a broadcast with all that can happen in one, and how many webhooks were sent."""
    sent = 0
    very_late: list[Hint] = []

    async def scene(stage: Stage) -> None:
        loop, world = stage.world.env.loop, stage.world

        def hint(each: Hint) -> None:
            nonlocal sent
            sent += 1
            for after in deliveries():
                if after is None:
                    very_late.append(each)
                else:
                    loop.call_later(after, lambda: world.deliver(each))

        world.env.hint = hint
        life = await stage.live()
        stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 90)
        life.host_leaves()
        await asyncio.sleep(40)
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE, 30)
        await asyncio.sleep(30)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 90)
        await stage.until(lambda: all(each.settled for each in stage.broadcast.status.recordings), 200)
        await asyncio.sleep(600)
        # Hours in which replicas only poll say nothing, and cost the most.
        stage.shared.died = lambda _replica: None
        for replica in world.replicas:
            replica.crash()
        loop.ends = stage.now + 2 * HOURS_S
        await asyncio.sleep(HOURS_S)
        world.replicas.clear()
        world.begin()
        random.Random(len(very_late)).shuffle(very_late)
        for each in very_late:
            world.deliver(each)
        await asyncio.sleep(30)

    stage = play(scene)
    broadcast = stage.broadcast
    return {
        "state": broadcast.state,
        "target": broadcast.target,
        "end_reason": broadcast.end_reason,
        "generation": broadcast.generation,
        "fallback": replace(broadcast.fallback, since=None),
        "resources": [(each.kind, each.ordinal, each.phase) for each in stage.row.sorted_resources()],
        "faults": [egress.fault for egress in stage.egresses],
        "recordings": [recording.settled for recording in broadcast.status.recordings],
        "conditions": {each.type: (each.met, each.reason) for each in broadcast.status.conditions},
        "rests": stage.row.due is None,
        "left": [*stage.running, *stage.livekit.rooms, *stage.mux.living],
    }, sent


@pytest.fixture(scope="module")
def perfect() -> dict[str, Any]:
    final, sent = outcome(lambda: [0.1])
    assert sent > 15
    assert (final["state"], final["rests"], final["left"]) == (State.ENDED, True, [])
    return final


def test_without_any_webhook(perfect: dict[str, Any]) -> None:
    final, sent = outcome(list)
    assert sent > 15
    assert final == perfect


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_some_schedules(perfect: dict[str, Any], first: int) -> None:
    for seed in range(first, first + 10):
        assert outcome(schedule(seed))[0] == perfect, f"schedule {seed}"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_schedules(perfect: dict[str, Any]) -> None:
    for seed in range(1000):
        assert outcome(schedule(seed))[0] == perfect, f"schedule {seed}"
