"""The simulation itself, and a few of its worlds. Many: `make simulate`."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from itertools import count

import pytest

from tests.simulation.__main__ import regressions
from tests.simulation.loop import Deadlock, TooLong, VirtualLoop, run
from tests.simulation.museum import without
from tests.simulation.report import caught_at
from tests.simulation.world import simulate

SEEDS = (*regressions(), *range(1, 13))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_ends_well(seed: int) -> None:
    outcome = simulate(seed)
    trace = "\n".join(outcome.trace)
    assert not outcome.violations, f"seed {seed}: {outcome.violations[0]}\n{trace}"
    assert outcome.faults.total() > 20
    assert outcome.simulated_s > 240


def test_the_same_seed_makes_the_same_world() -> None:
    first, again, other = simulate(3), simulate(3), simulate(4)
    assert first.hash == again.hash
    assert (first.simulated_s, first.faults, first.seen) == (again.simulated_s, again.faults, again.seen)
    assert first.hash != other.hash


def test_another_process_makes_the_same_world() -> None:
    """Whatever order its sets have."""

    def hash_of(order: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "--trace", "--first", "3"]
        traced = subprocess.run(
            command, env={"PYTHONHASHSEED": order}, capture_output=True, text=True, check=True, timeout=50
        )
        return traced.stdout.splitlines()[-1]

    assert hash_of("1") == hash_of("2") == f"seed 3: {simulate(3).hash}"


@pytest.mark.parametrize("name", ["no fence in the writes", "no disable at the end", "request ids not stored"])
def test_a_protection_that_is_taken_away_is_missed(name: str) -> None:
    caught = caught_at(name, range(1, 11), jobs=1)
    assert caught is not None
    assert caught.trace
    # And only as long as it is away.
    assert not simulate(caught.seed).violations


def test_a_fault_of_ours_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass survives and logs would be missed otherwise."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("service.reconciler.steps.to_observe", broken)
    violation = simulate(1).violations[0]
    assert violation.invariant == "a fault of ours"
    assert re.search("pass_failed.*ZeroDivisionError", violation.text, re.DOTALL)


def test_time_passes_only_when_nothing_is_ready() -> None:
    loop = VirtualLoop(ends=10_000)

    async def waits() -> list[float]:
        moments: list[float] = []
        await asyncio.gather(*(_note(moments, after) for after in (3600, 0.1, 60)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        moments.append(loop.time())
        return moments

    async def _note(moments: list[float], after: float) -> None:
        await asyncio.sleep(after)
        moments.append(loop.time())

    assert run(waits(), loop) == [0.1, 60, 3600, 3605]


def test_what_can_never_happen_is_not_waited_for() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(waits(), VirtualLoop(ends=10))


def test_what_does_not_end_is_broken_off() -> None:
    async def goes_on() -> None:
        for _ in count():
            await asyncio.sleep(1)

    with pytest.raises(TooLong):
        run(goes_on(), VirtualLoop(ends=100))


def test_a_world_is_as_it_was_after_an_exhibit() -> None:
    before = simulate(2).hash
    with without("observer off"):
        assert simulate(2).hash != before
    assert simulate(2).hash == before
