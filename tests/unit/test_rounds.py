"""The loop of the background tasks: an interval, one replica at a time, and no error that ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from service.domain.errors import StoreUnavailable
from service.domain.provider import Provider
from service.reconciler.background.observer import Observer
from service.reconciler.background.prober import Prober
from service.reconciler.background.rounds import RefusedHere, Rounds
from service.reconciler.background.sweeper import Sweeper
from service.store.leases import Leases

EVERY = timedelta(milliseconds=5)


class Duties:
    """Gives the duty, or not, in turn; from the last on always as the last."""

    def __init__(self, *given: bool | Exception) -> None:
        self.given = list(given)
        self.asked: list[tuple[str, timedelta]] = []
        self.given_up: list[str] = []

    async def give_up_duty(self, name: str) -> None:
        self.given_up.append(name)

    async def take_duty(self, name: str, ttl: timedelta) -> bool:
        self.asked.append((name, ttl))
        answer = self.given[min(len(self.asked), len(self.given)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Counting(Rounds):
    name = "counting"

    def __init__(self, duties: Duties, results: Sequence[Exception | None] = ()) -> None:
        super().__init__(cast("Leases", duties), every=EVERY)
        self.rounds = 0
        self._results = list(results)
        self.enough = asyncio.Event()

    async def round(self) -> None:
        self.rounds += 1
        if self.rounds > len(self._results):
            self.enough.set()
        elif (error := self._results[self.rounds - 1]) is not None:
            raise error


async def ran(task: Counting) -> None:
    running = asyncio.create_task(task.run())
    try:
        await asyncio.wait_for(task.enough.wait(), 10)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_no_error_of_a_round_ends_the_loop_and_a_bug_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    task = Counting(Duties(True), [StoreUnavailable("away"), ValueError("a bug"), None])
    await ran(task)
    assert task.rounds == 4
    told = "".join(capfd.readouterr())
    assert "counting_failed" in told
    assert "ValueError: a bug" in told


async def test_a_round_is_done_only_with_the_duty_which_outlasts_two_missed_rounds() -> None:
    duties = Duties(False, StoreUnavailable("away"), True)
    task = Counting(duties)
    await ran(task)
    assert task.rounds == 1
    assert duties.asked == [("counting", EVERY * 3)] * 3


async def test_a_replica_that_is_refused_gives_up_the_duty_and_leaves_it_to_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("service.reconciler.background.rounds.asyncio.sleep", sleep)
    duties = Duties(True)
    with pytest.raises(asyncio.CancelledError):
        await Counting(duties, [RefusedHere(Provider.MUX), None]).run()
    assert duties.given_up == ["counting"]
    assert slept == [pytest.approx(EVERY.total_seconds() * 1.5), EVERY.total_seconds()]
    told = "".join(capfd.readouterr())
    assert "duty_given_up" in told
    assert "MUX_TOKEN_SECRET" in told


async def test_a_task_that_is_shared_needs_no_duty() -> None:
    duties = Duties(False)
    task: Any = type("Task", (Counting,), {"shared": True})(duties)
    await ran(task)
    assert (task.rounds, duties.asked) == (1, [])


async def test_a_task_that_waits_first_does_nothing_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("service.reconciler.background.rounds.asyncio.sleep", sleep)
    for waits, rounds in ((False, 2), (True, 1)):
        slept.clear()
        task: Any = type("Task", (Counting,), {"waits_first": waits})(Duties(True))
        with pytest.raises(asyncio.CancelledError):
            await task.run()
        assert (task.rounds, slept) == (rounds, [EVERY.total_seconds()] * 2)


def test_names_are_those_of_the_duties_in_the_database() -> None:
    assert [each.name for each in (Observer, Prober, Sweeper)] == ["observer", "prober", "sweeper"]
    assert [each.waits_first for each in (Observer, Prober, Sweeper)] == [False, False, True]
    assert [each.shared for each in (Observer, Prober, Sweeper)] == [False, True, False]
