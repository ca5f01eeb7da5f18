"""Who watches, in Postgres and in memory: counted over all replicas, and present for the window."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest

from service.domain.audience.watching import Watching
from service.domain.broadcast import Spec
from service.domain.lifecycle import stop
from service.store.audience.sketches import Sketch
from service.store.audience.slots import SLOT, WINDOW, Flushed, Sighting
from tests.conformance.stage import NOBODYS, Stage

SECONDS = SLOT.total_seconds()


def sighting(broadcast_id: str, viewers: Iterable[object], slot: datetime | None = None) -> Sighting:
    sketch = Sketch()
    for each in viewers:
        sketch.add(f"viewer {each}")
    return Sighting(broadcast_id=broadcast_id, slot=slot, sketch=bytes(sketch), viewers=sketch.viewers)


async def counted(stage: Stage, broadcast_id: str = "show") -> int:
    present = await stage.audience.present([broadcast_id])
    return present[broadcast_id].viewers if present else 0


async def begin_of_a_slot(stage: Stage, replica: str = "one") -> Flushed:
    """A flush in the first tenth of a slot, so that what follows is in the same one."""
    flushed = await stage.audience.flush(replica, [])
    if flushed.lasts > SLOT * 0.9:
        return flushed
    await stage.ground.time_passes(flushed.lasts.total_seconds())
    return await stage.audience.flush(replica, [])


@pytest.mark.parametrize("viewers", [1, 2, 50, 199, 200])
async def test_up_to_two_hundred_viewers_are_counted_exactly(stage: Stage, viewers: int) -> None:
    await stage.started("show")
    await stage.audience.flush("one", [sighting("show", range(viewers))])
    assert await counted(stage) == viewers


async def test_a_viewer_whom_two_replicas_saw_counts_once(stage: Stage) -> None:
    await stage.started("show")
    await stage.audience.flush("one", [sighting("show", range(150))])
    await stage.audience.flush("two", [sighting("show", range(50, 200))])
    assert await counted(stage) == 200


async def test_a_hundred_thousand_viewers_who_jump_between_two_replicas_are_counted_within_two_percent(
    stage: Stage,
) -> None:
    await stage.started("show")
    await stage.audience.flush("one", [sighting("show", range(0, 100_000, 2))])
    await stage.audience.flush("two", [sighting("show", range(1, 100_000, 2))])
    await stage.ground.time_passes(SECONDS)
    await stage.audience.flush("one", [sighting("show", range(1, 100_000, 2))])
    await stage.audience.flush("two", [sighting("show", range(0, 100_000, 2))])
    assert await counted(stage) == pytest.approx(100_000, rel=0.02)


async def test_a_flush_that_is_repeated_changes_nothing(stage: Stage) -> None:
    """Its answer was lost, so the replica tells the same again."""
    await stage.started("show")
    for _ in range(3):
        await stage.audience.flush("one", [sighting("show", range(7))])
    assert await counted(stage) == 7


async def test_a_viewer_is_present_for_the_window_and_at_most_a_slot_longer(stage: Stage) -> None:
    await stage.started("show")
    flushed = await begin_of_a_slot(stage)
    await stage.audience.flush("one", [sighting("show", ["one"])])
    left = (await stage.audience.flush("one", [])).lasts
    assert flushed.lasts >= left
    await stage.ground.time_passes(WINDOW.total_seconds())
    assert await counted(stage) == 1
    await stage.ground.time_passes(SECONDS)
    assert await counted(stage) == 0
    assert await stage.audience.present(["show", "another"]) == {}


async def test_viewers_of_a_slot_that_ended_stay_in_it(stage: Stage) -> None:
    """A replica tells of the last moments of a slot when the next one has begun. They do not count a slot longer."""
    await stage.started("show")
    flushed = await stage.audience.flush("one", [sighting("show", ["early"])])
    await stage.ground.time_passes(SECONDS)
    # In Postgres time passes by moving what is stored.
    moved = await stage.ground.now() - flushed.slot < SLOT
    slot = flushed.slot - SLOT if moved else flushed.slot
    await stage.audience.flush("one", [sighting("show", ["early", "late"], slot), sighting("show", ["new"])])
    assert await counted(stage) == 3
    await stage.ground.time_passes(WINDOW.total_seconds())
    assert await counted(stage) == 1


async def test_what_comes_too_late_to_count_is_left_out(stage: Stage) -> None:
    """A replica stood still for minutes. The slot may be in the total already, and would be added once more."""
    await stage.started("show")
    now = await stage.ground.now()
    await stage.audience.flush("one", [sighting("show", range(5), now - WINDOW - SLOT - timedelta(seconds=1))])
    assert (await stage.audience.watching("show")).last_seen is None


async def test_nobody_is_counted_of_what_is_over_deleted_or_unknown(stage: Stage) -> None:
    await stage.started("over")
    await stage.broadcasts.change("over", lambda stored, now: stop(stored, now, ""), NOBODYS)
    await stage.audience.flush("one", [sighting("over", range(5)), sighting("unknown", range(5))])
    assert await stage.audience.present(["over", "unknown"]) == {}


async def test_when_a_viewer_was_seen_last_and_up_to_when_that_is_known(stage: Stage) -> None:
    await stage.started("show")
    assert await stage.audience.watching("show") == Watching()
    before = await stage.ground.now()
    await stage.audience.flush("one", [sighting("show", range(5))])
    seen = await stage.audience.watching("show")
    assert seen.last_seen is not None
    assert seen.last_seen >= before
    assert seen.counted_up_to == seen.last_seen
    await stage.audience.flush("one", [])
    again = await stage.audience.watching("show")
    assert again.last_seen == seen.last_seen
    assert again.counted_up_to is not None
    assert again.counted_up_to > seen.last_seen


async def test_a_replica_that_died_keeps_back_for_a_minute_what_is_known(stage: Stage) -> None:
    """Its viewers may not have come to another one yet."""
    await stage.started("show")
    await stage.audience.flush("two", [])
    await stage.ground.time_passes(30)
    await stage.audience.flush("one", [])
    now = await stage.ground.now()
    up_to = (await stage.audience.watching("show")).counted_up_to
    assert up_to is not None
    assert now - up_to > timedelta(seconds=29)
    await stage.ground.time_passes(31)
    await stage.audience.flush("one", [])
    now = await stage.ground.now()
    up_to = (await stage.audience.watching("show")).counted_up_to
    assert up_to is not None
    assert now - up_to < timedelta(seconds=10)


async def test_a_replica_that_left_is_not_waited_for(stage: Stage) -> None:
    await stage.audience.flush("two", [])
    await stage.ground.time_passes(30)
    await stage.audience.flush("one", [])
    await stage.audience.leave("two")
    now = await stage.ground.now()
    up_to = (await stage.audience.watching("show")).counted_up_to
    assert up_to is not None
    assert now - up_to < timedelta(seconds=10)


async def test_since_when_replicas_count_without_a_gap(stage: Stage) -> None:
    """After the database was away signs of viewers are missing, and who decides by them must know it."""
    await stage.audience.flush("one", [])
    since = (await stage.audience.watching("show")).counted_since
    assert since is not None
    await stage.ground.time_passes(5)
    await stage.audience.flush("one", [])
    again = (await stage.audience.watching("show")).counted_since
    assert again is not None
    assert await stage.ground.now() - again > timedelta(seconds=4)
    await stage.ground.time_passes(30)
    await stage.audience.flush("one", [])
    after = (await stage.audience.watching("show")).counted_since
    assert after is not None
    assert await stage.ground.now() - after < timedelta(seconds=4)


async def test_viewers_wake_nothing_that_is_delivered_whoever_watches(stage: Stage) -> None:
    await stage.started("show", Spec())
    await stage.one.claimed("show")
    flushed = await stage.audience.flush("one", [sighting("show", range(5)), sighting("unknown", range(5))])
    assert flushed.busy == frozenset()
    assert (await stage.broadcasts.get("show")).due_at is None
