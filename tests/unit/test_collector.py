"""The collector of viewers: when it tells the database, of whom, and what it keeps while there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.audience.collector import Collector
from service.domain.audience.rhythm import FLUSH_S, RECOVERY_S, keep_alive_s
from service.domain.broadcast import Broadcast, Spec, Target
from service.domain.errors import StoreUnavailable
from service.domain.timing import Timing
from service.store.audience.sketches import distinct
from service.store.audience.slots import SLOT, WINDOW, AudienceSlots, Flushed, Sighting
from tests.simulation import store
from tests.simulation.store.tables import Row
from tests.waiting import eventually

T0 = datetime(2026, 11, 1, tzinfo=UTC)
LENGTH = SLOT.total_seconds()


class Slots:
    """A database whose clock is moved by hand. It remembers what it was told."""

    def __init__(self) -> None:
        self.at = 0.0
        self.told: list[list[Sighting]] = []
        self.away = False
        self.busy: frozenset[str] = frozenset()
        self.left: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.behind_s = 0.0

    async def flush(self, replica: str, seen: list[Sighting]) -> Flushed:
        del replica
        await self.answers.wait()
        if self.away:
            raise StoreUnavailable("away")
        self.told.append(seen)
        now = T0 + timedelta(seconds=self.at - self.behind_s)
        slot = now - (now - T0) % SLOT
        return Flushed(slot=slot, lasts=slot + SLOT - now, busy=self.busy)

    async def leave(self, replica: str) -> None:
        self.left.append(replica)

    def counted(self, broadcast_id: str = "show") -> dict[datetime | None, int]:
        """What the rows of the broadcast would be by now: the last sighting of each slot."""
        rows = {each.slot: each for seen in self.told for each in seen if each.broadcast_id == broadcast_id}
        return {slot: each.viewers for slot, each in rows.items()}


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def collector(slots: Slots) -> Collector:
    return Collector(cast("AudienceSlots", slots), replica="one", clock=lambda: slots.at)


async def test_it_tells_all_viewers_of_the_slot_and_only_where_somebody_was_seen(
    slots: Slots, collector: Collector
) -> None:
    await collector.flush()
    for viewer in range(5):
        collector.saw("show", f"v{viewer}")
    collector.saw("other", "v0")
    await collector.flush()
    collector.saw("show", "v5")
    collector.saw("show", "v5")
    await collector.flush()
    await collector.flush()
    assert [{each.broadcast_id: each.viewers for each in seen} for seen in slots.told] == [
        {},
        {"show": 5, "other": 1},
        {"show": 6},
        {},
    ]
    assert {each.slot for seen in slots.told for each in seen} == {T0}


async def test_a_viewer_counts_in_the_slot_in_which_it_was_seen(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    slots.at = LENGTH - 0.1
    collector.saw("show", "early")
    slots.at = LENGTH + 0.1
    collector.saw("show", "late")
    await collector.flush()
    assert slots.counted() == {T0: 1, T0 + SLOT: 1}


async def test_slots_in_which_nobody_was_told_of_are_told_of_when_the_database_is_back(
    slots: Slots, collector: Collector
) -> None:
    await collector.flush()
    slots.away = True
    for n in range(3):
        slots.at = n * LENGTH + 1
        collector.saw("show", f"v{n}")
        collector.saw("show", "always")
        with pytest.raises(StoreUnavailable):
            await collector.flush()
    slots.away = False
    await collector.flush()
    assert slots.counted() == {T0: 2, T0 + SLOT: 2, T0 + 2 * SLOT: 2}
    assert distinct(each.sketch for each in slots.told[-1]) == 4


async def test_memory_does_not_grow_while_the_database_is_away(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    slots.away = True
    for n in range(1000):
        slots.at = n * LENGTH
        collector.saw("show", "ann")
        collector.saw(f"show {n}", "ann")
    assert collector.sketches <= 2 * (WINDOW / SLOT + 2)


async def test_a_flush_whose_answer_is_lost_is_made_good_by_the_next(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    collector.saw("show", "ann")
    slots.away = True
    with pytest.raises(StoreUnavailable):
        await collector.flush()
    slots.away = False
    slots.at = LENGTH + 1
    collector.saw("show", "bob")
    await collector.flush()
    assert slots.counted() == {T0: 1, T0 + SLOT: 1}


async def test_viewers_who_come_during_a_flush_are_told_of_by_the_next(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    collector.saw("show", "ann")
    slots.answers.clear()
    flushing = asyncio.create_task(collector.flush())
    await asyncio.sleep(0)
    collector.saw("show", "bob")
    slots.answers.set()
    await flushing
    assert slots.counted() == {T0: 1}
    await collector.flush()
    assert slots.counted() == {T0: 2}


async def test_a_slot_that_ends_during_a_flush_that_fails_is_told_of_later(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    collector.saw("show", "ann")
    slots.answers.clear()
    flushing = asyncio.create_task(collector.flush())
    await asyncio.sleep(0)
    slots.at = LENGTH + 1
    collector.saw("show", "bob")
    slots.away = True
    slots.answers.set()
    with pytest.raises(StoreUnavailable):
        await flushing
    slots.away = False
    await collector.flush()
    assert slots.counted() == {T0: 1, T0 + SLOT: 1}


async def test_a_broadcast_that_could_not_be_woken_is_told_of_again(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    collector.saw("show", "ann")
    slots.busy = frozenset({"show"})
    await collector.flush()
    slots.busy = frozenset()
    await collector.flush()
    await collector.flush()
    assert [len(seen) for seen in slots.told] == [0, 1, 1, 0]


async def test_a_clock_that_runs_ahead_opens_no_slot_twice(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    slots.behind_s = 0.01
    slots.at = LENGTH + 0.005
    collector.saw("show", "ann")
    await collector.flush()
    slots.at = LENGTH + 1
    collector.saw("show", "bob")
    await collector.flush()
    assert slots.counted() == {T0 + SLOT: 2}


async def test_a_database_clock_that_was_set_back_is_followed(slots: Slots, collector: Collector) -> None:
    slots.at = 10 * LENGTH
    await collector.flush()
    collector.saw("show", "ann")
    slots.behind_s = 5 * LENGTH
    await collector.flush()
    collector.saw("show", "bob")
    await collector.flush()
    assert slots.counted()[T0 + 5 * SLOT] == 2


async def test_a_replica_that_stood_still_counts_in_the_slot_of_now(slots: Slots, collector: Collector) -> None:
    await collector.flush()
    collector.saw("show", "ann")
    slots.at = 20 * LENGTH + 1
    collector.saw("show", "bob")
    await collector.flush()
    assert slots.counted() == {T0 + 20 * SLOT: 1}


@contextlib.contextmanager
def running(collector: Collector) -> Generator[None]:
    task = asyncio.create_task(collector.run())
    try:
        yield
    finally:
        task.cancel()


async def test_the_first_viewer_is_told_of_at_once_and_those_who_come_with_it_together(slots: Slots) -> None:
    """Ten thousand joins of one broadcast within a second, and they are a handful of statements."""
    collector = Collector(cast("AudienceSlots", slots), replica="one")
    with running(collector):
        await eventually(lambda: len(slots.told) == 1)
        began = asyncio.get_running_loop().time()
        for n in range(10_000):
            collector.saw("show", f"v{n}")
            if n % 100 == 0:
                await asyncio.sleep(0)
            if n == 5000:
                await eventually(lambda: bool(slots.counted()), within=0.9)
        await eventually(lambda: sum(slots.counted().values()) > 9_500)
        took = asyncio.get_running_loop().time() - began
    assert len(slots.told) <= 4 + took


async def test_new_broadcasts_all_the_time_are_at_most_ten_statements_a_second(slots: Slots) -> None:
    collector = Collector(cast("AudienceSlots", slots), replica="one")
    with running(collector):
        await eventually(lambda: len(slots.told) == 1)
        began = asyncio.get_running_loop().time()
        for n in range(200):
            collector.saw(f"show {n}", "ann")
            await asyncio.sleep(0.002)
        await eventually(lambda: all(slots.counted(f"show {n}") for n in range(200)))
        took = asyncio.get_running_loop().time() - began
    assert len(slots.told) <= 4 + took * 11


async def test_a_drain_tells_the_rest_and_says_good_bye_last(slots: Slots) -> None:
    collector = Collector(cast("AudienceSlots", slots), replica="one")
    with running(collector):
        await eventually(lambda: len(slots.told) == 1)
        collector.saw("show", "ann")
        await collector.drain()
        assert sum(slots.counted().values()) == 1
        assert slots.left == ["one"]
        told = len(slots.told)
        await asyncio.sleep(0.2)
        assert len(slots.told) == told, "a flush after it would say that the replica is alive"


async def test_a_drain_without_a_database_ends(slots: Slots, collector: Collector) -> None:
    collector.saw("show", "ann")
    slots.away = True
    await collector.drain()
    assert slots.left == []


async def test_no_error_ends_the_task(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(cast("AudienceSlots", slots), replica="one")
    failing = True
    flush = slots.flush

    async def broken(replica: str, seen: list[Sighting]) -> Flushed:
        if failing:
            raise ZeroDivisionError
        return await flush(replica, seen)

    monkeypatch.setattr(slots, "flush", broken)
    with running(collector):
        collector.saw("show", "ann")
        await asyncio.sleep(0.05)
        failing = False
        await eventually(lambda: sum(slots.counted().values()) == 1)


# --- the rhythm


class Clock:
    now = 0.0


def world(clock: Clock, window: timedelta) -> store.AudienceSlots:
    tables = store.Tables(lambda: T0 + timedelta(seconds=clock.now))
    show = Broadcast(id="show", spec=Spec(), create_time=T0, update_time=T0, target=Target.LIVE)
    tables.rows["show"] = Row(broadcast=show)
    return store.AudienceSlots(tables, store.Line(), window=window)


@settings(max_examples=150)
@given(
    window=st.floats(20, 150),
    wanted=st.floats(5, 100),
    starts=st.lists(st.floats(0, 40), min_size=1, max_size=6),
    lost=st.integers(2, 6),
    late=st.lists(st.floats(0, RECOVERY_S), min_size=6, max_size=6),
)
async def test_no_viewer_vanishes_although_a_replica_dies_with_one_flush(
    window: float, wanted: float, starts: list[float], lost: int, late: list[float]
) -> None:
    """Whatever the settings are: viewers give a sign as often as they are told to, and the replica that they all use
    dies with what it did not tell yet, which is sign *lost* of one of them. The next sign of each goes to another
    replica, late by what a caller needs.
    """
    every = keep_alive_s(Timing(audience_window_s=window, keep_alive_s=wanted))
    dies_after = starts[0] + lost * every + 0.001
    clock = Clock()
    slots = world(clock, timedelta(seconds=window))
    sized = cast("AudienceSlots", slots)
    replicas = [
        Collector(sized, replica=each, window=timedelta(seconds=window), clock=lambda: clock.now)
        for each in ("one", "two")
    ]
    signs = sorted(
        (start + n * every + (late[viewer] if start + n * every >= dies_after else 0.0), f"v{viewer}", n)
        for viewer, start in enumerate(starts)
        for n in range(lost + 4)
    )
    counted_from = max(starts) + 2 * FLUSH_S if max(starts) + 2 * FLUSH_S < dies_after else None
    for second in range(int(min(start for start in starts) + (lost + 2) * every)):
        while signs and signs[0][0] < second + 1:
            clock.now, viewer, _ = signs.pop(0)
            replicas[clock.now >= dies_after].saw("show", viewer)
        clock.now = float(second + 1)
        for n, replica in enumerate(replicas):
            if n == 1 or clock.now < dies_after:
                await replica.flush()
        if counted_from is not None and clock.now >= counted_from:
            present = await slots.present(["show"])
            assert present["show"].viewers == len(starts)


@given(window=st.floats(1, 1000), wanted=st.floats(0.1, 1000))
def test_the_rhythm_fits_twice_into_the_window(window: float, wanted: float) -> None:
    every = keep_alive_s(Timing(audience_window_s=window, keep_alive_s=wanted))
    assert every >= 1.0
    assert every <= max(wanted, 1.0)
    assert 2 * every + FLUSH_S + RECOVERY_S <= max(window, 8.0)


def test_by_default_a_viewer_gives_a_sign_every_twenty_seconds() -> None:
    assert keep_alive_s(Timing()) == 20.0
    assert keep_alive_s(Timing(audience_window_s=30.0)) == 12.0
