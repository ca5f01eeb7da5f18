"""The audience in Postgres: what a flush wakes and what it costs, and the totals of slots that are over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.domain.broadcast import Spec
from service.domain.delivery import Decided, Delivery
from service.store.audience import totals
from service.store.audience.sketches import Sketch
from service.store.audience.slots import LAST_SEEN, SLOT, WINDOW, AudienceSlots, Sighting
from service.store.audience.totals import LATE, AudienceTotals, watched_s
from service.store.upkeep import Upkeep
from tests.conformance.test_audience import sighting
from tests.integration.store_stage import Store, store
from tests.integration.test_query_plans import Asked, Listening, plans

T0 = datetime(2026, 11, 1, tzinfo=UTC)
OVER = WINDOW + 2 * SLOT + LATE


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        yield opened


async def an_idle_one(one: Store, broadcast_id: str = "show") -> None:
    await one.started(broadcast_id, Spec())
    await one.sql(
        """UPDATE broadcast SET due_at = NULL, spec = spec || '{"delivery_policy": "on_demand"}' WHERE id = $1""",
        broadcast_id,
    )


async def test_a_viewer_wakes_a_broadcast_that_is_delivered_on_demand(one: Store) -> None:
    """In the statement that tells of the viewer, with a NOTIFY, and without touching the lease."""
    slots = AudienceSlots(one.database)
    await an_idle_one(one)
    heard = asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    listener = await one.database.listen_connection()
    await listener.add_listener("broadcast_due", hear)
    await slots.flush("one", [])
    assert (await one.row("show"))["due_at"] is None
    await slots.flush("one", [sighting("show", ["ann"])])
    assert (await one.row("show"))["due_at"] is not None
    await asyncio.wait_for(heard.wait(), 5)
    await listener.close()

    running = msgspec.to_builtins(Delivery(decided=Decided(wanted=True)))
    await one.sql("UPDATE broadcast SET due_at = NULL, delivery = $1", running)
    await slots.flush("one", [sighting("show", ["ann"])])
    assert (await one.row("show"))["due_at"] is None, "it runs: there is nothing to decide"

    idle = msgspec.to_builtins(Delivery(decided=Decided(wanted=False)))
    await one.sql("UPDATE broadcast SET delivery = $1", idle)
    await one.sql("UPDATE broadcast SET due_at = NULL, lease_until = now() + interval '10 s', lease_owner = 'other'")
    await slots.flush("one", [sighting("show", ["ann"])])
    row = await one.row("show")
    assert row["due_at"] is not None
    assert row["lease_owner"] == "other"
    assert row["fence"] == 0


async def test_a_row_that_a_writer_holds_delays_no_flush_and_is_answered_as_busy(one: Store) -> None:
    slots = AudienceSlots(one.database)
    await an_idle_one(one)
    await an_idle_one(one, "another")
    seen = [sighting("show", ["ann"]), sighting("another", ["ann"])]
    async with one.database.transaction() as writer:
        await writer.execute("SELECT FROM broadcast WHERE id = 'show' FOR NO KEY UPDATE")
        flushed = await asyncio.wait_for(slots.flush("one", seen), 2)
    assert flushed.busy == {"show"}
    assert (await one.row("another"))["due_at"] is not None
    assert set(await slots.present(["show", "another"])) == {"show", "another"}


def about_audience(database: Listening) -> list[Asked]:
    """Without what the driver asks about types."""
    return [each for each in database.asked if "audience" in each.query]


async def test_a_flush_of_a_thousand_broadcasts_is_one_statement(database_url: str) -> None:
    async with store(database_url, database=Listening) as one:
        assert isinstance(one.database, Listening)
        await one.sql(
            "INSERT INTO broadcast (id, spec, target, state) SELECT 'b' || n, '{}', 'LIVE', 'LIVE' "
            "FROM generate_series(1, 1000) AS n"
        )
        seen = [sighting(f"b{n}", range(n % 10 + 1)) for n in range(1, 1001)]
        slots = AudienceSlots(one.database)
        one.database.asked = []
        await slots.flush("one", seen)
        assert len(about_audience(one.database)) == 1
        one.database.asked = []
        present = await slots.present([each.broadcast_id for each in seen])
        assert len(about_audience(one.database)) == 1
        assert [present[each.broadcast_id].viewers for each in seen] == [each.viewers for each in seen]


async def test_a_pass_and_a_reader_find_the_slots_of_a_broadcast_by_its_key(database_url: str) -> None:
    async with store(database_url, database=Listening) as one:
        assert isinstance(one.database, Listening)
        await one.sql(
            "INSERT INTO audience_slot SELECT 'b' || n, now() - make_interval(secs => 15 * s), 'one', '', now(), 1 "
            "FROM generate_series(1, 3000) AS n, generate_series(0, 7) AS s"
        )
        await one.sql("ANALYZE")
        one.database.asked = []
        await AudienceSlots(one.database).present(["b1", "b2"])
        [present] = (await plans(one, about_audience(one.database)[-1]))[:1]
        await one.sql("INSERT INTO broadcast (id, spec) VALUES ('b1', '{}')")
        passed = Asked(f"SELECT {LAST_SEEN} FROM broadcast WHERE id = $1", ("b1",))  # noqa: S608 - a constant
        for plan in (present, (await plans(one, passed))[0]):
            assert "Seq Scan" not in [
                node["Node Type"] for node in plan if node.get("Relation Name") == "audience_slot"
            ]
            assert "audience_slot_pkey" in [node.get("Index Name") for node in plan]


# --- totals


async def stored(one: Store, broadcast_id: str, slots: dict[int, Sequence[Iterable[object]]]) -> None:
    """By the number of the slot before now: the viewers that each replica saw in it."""
    for ago, replicas in slots.items():
        for replica, viewers in enumerate(replicas):
            seen = sighting(broadcast_id, viewers)
            await one.sql(
                "INSERT INTO audience_slot SELECT $1, slot, $4, $5, slot, $6 "
                "FROM (SELECT date_bin($2, now(), timestamptz '2000-01-01 00:00+00') - $2 * $3::float8 AS slot) AS at",
                broadcast_id, SLOT, float(ago), f"replica {replica}", seen.sketch, seen.viewers,
            )  # fmt: skip


async def the_rest(one: Store) -> int:
    return await one.sql("SELECT count(*) FROM audience_slot")


async def total(one: Store, broadcast_id: str = "show") -> float:
    watched = await AudienceTotals(one.database).of([broadcast_id])
    return watched[broadcast_id].viewer_s if watched else 0.0


async def test_slots_that_are_over_become_seconds_and_are_deleted(one: Store) -> None:
    await stored(one, "show", {ago: [range(10), range(5, 20)] for ago in range(20)})
    of = AudienceTotals(one.database)
    while await of.fold():
        pass
    left = await the_rest(one)
    assert OVER / SLOT * 2 <= left + 2 <= OVER / SLOT * 2 + 4
    folded = round(await total(one) / 20 / SLOT.total_seconds())
    assert folded == 20 - left / 2 + 1, "the last one that is folded stays, for its neighbour"


async def test_a_total_says_up_to_when_it_is_known_and_when_somebody_was_seen_last(one: Store) -> None:
    await stored(one, "show", {40: [["ann"]]})
    await AudienceTotals(one.database).fold()
    watched = (await AudienceTotals(one.database).of(["show", "other"]))["show"]
    assert watched.viewer_s == SLOT.total_seconds()
    seen = await AudienceSlots(one.database).watching("show")
    assert seen.last_seen is not None
    assert await the_rest(one) == 0
    assert watched.up_to > seen.last_seen


async def test_two_replicas_that_fold_at_once_add_each_slot_once(database_url: str) -> None:
    async with store(database_url) as one, store(database_url) as two:
        for n in range(30):
            await stored(one, f"b{n}", {ago: [range(3)] for ago in (12, 13, 14, 15)})
        folders = [AudienceTotals(each.database) for each in (one, two)]
        while sum(await asyncio.gather(*(each.fold() for each in folders * 4))):
            pass
        assert {await total(one, f"b{n}") for n in range(30)} == {4 * 3 * SLOT.total_seconds()}


async def test_a_fold_that_is_cut_off_adds_nothing_and_the_next_one_adds_it_once(
    one: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(one, "show", {ago: [range(3)] for ago in (12, 13, 14, 15)})
    of = AudienceTotals(one.database)
    with monkeypatch.context() as broken:
        broken.setattr(totals, "_DELETE", "DELETE FROM no_such_table WHERE $1::text[] IS NULL AND $2 < now()")
        with pytest.raises(Exception, match="no_such_table"):
            await of.fold()
    assert await total(one) == 0
    assert await the_rest(one) == 4
    await of.fold()
    await of.fold()
    assert await total(one) == 4 * 3 * SLOT.total_seconds()


async def test_what_comes_after_its_slot_was_folded_is_not_added_again(one: Store) -> None:
    """A replica stood still and tells what it saw minutes ago: the flush leaves it out."""
    await one.started("show")
    await stored(one, "show", {ago: [range(3)] for ago in (12, 13)})
    of = AudienceTotals(one.database)
    await of.fold()
    slot = await one.sql("SELECT date_bin($1, now(), timestamptz '2000-01-01 00:00+00') - $1 * 12", SLOT)
    await AudienceSlots(one.database).flush("late", [sighting("show", range(3), slot)])
    await of.fold()
    assert await total(one) == 2 * 3 * SLOT.total_seconds()


async def test_a_backlog_of_a_day_is_folded_piece_by_piece(one: Store) -> None:
    """No sweeper ran. A transaction reads no more than some minutes of slots."""
    await one.sql(
        "INSERT INTO audience_slot SELECT 'show', date_bin($1, now(), timestamptz '2000-01-01 00:00+00') - $1 * n, "
        "'one', $2, now() - $1 * n, 1 FROM generate_series(0, 5759) AS n",
        SLOT,
        sighting("show", ["ann"]).sketch,
    )
    of = AudienceTotals(one.database)
    assert await of.fold() <= 2 * totals.SLOTS
    while await of.fold():
        pass
    assert await total(one) == pytest.approx(86_400 - OVER.total_seconds(), abs=2 * SLOT.total_seconds())


async def test_a_clock_that_was_set_back_keeps_nobody_present(one: Store) -> None:
    await one.started("show")
    slots = AudienceSlots(one.database)
    await slots.flush("one", [sighting("show", range(3))])
    await stored(one, "show", {20: [range(3)]})
    await AudienceTotals(one.database).fold()
    # As the clock that goes back an hour would leave it.
    await one.sql("UPDATE audience_slot SET slot = slot + interval '1 h', seen_at = seen_at + interval '1 h'")
    await one.sql("UPDATE audience_total SET up_to = up_to + interval '1 h', seen_at = seen_at + interval '1 h'")
    await one.sql("UPDATE audience_replica SET alive_at = alive_at + interval '1 h'")
    await one.sql("UPDATE clock SET seen_at = now() + interval '1 h'")
    await Upkeep(one.database, lease=timedelta(seconds=20)).look_at_clock()
    assert await the_rest(one) == 0
    await slots.flush("two", [])
    now = await one.database.now()
    seen = await slots.watching("show")
    assert seen.last_seen is not None
    assert seen.last_seen <= now
    assert seen.counted_up_to is not None
    assert seen.counted_up_to <= now


def slots_with(viewers: dict[int, Iterable[object]]) -> dict[datetime, list[bytes]]:
    def sketch(of: Iterable[object]) -> bytes:
        made = Sketch()
        for each in of:
            made.add(str(each))
        return bytes(made)

    return {T0 + n * SLOT: [sketch(each)] for n, each in viewers.items()}


@pytest.mark.parametrize(
    ("viewers", "slots"),
    [
        ({0: "ab", 1: "ab", 2: "ab"}, 6),
        # Seen every 20 seconds: not in every slot of 15.
        ({0: "a", 1: "a", 2: "a", 4: "a", 5: "a", 6: "a"}, 7),
        # Gone for longer than a KeepAlive may be away.
        ({0: "a", 3: "a"}, 2),
        # One leaves, another comes.
        ({0: "a", 1: "b", 2: "b"}, 3),
        ({}, 0),
    ],
)
def test_a_viewer_counts_from_the_first_slot_to_the_last_with_gaps_of_one(viewers: Any, slots: int) -> None:
    assert watched_s(slots_with(viewers), None, T0 + 100 * SLOT, SLOT) == slots * SLOT.total_seconds()


def test_each_slot_counts_in_one_piece_wherever_the_pieces_are_cut() -> None:
    slots = slots_with({0: "ab", 1: "a", 2: "b", 4: "abc", 5: "c", 6: "a"})
    whole = watched_s(slots, None, T0 + 7 * SLOT, SLOT)
    for cut in range(8):
        first = watched_s(slots, None, T0 + cut * SLOT, SLOT)
        assert first + watched_s(slots, T0 + cut * SLOT, T0 + 7 * SLOT, SLOT) == whole


def test_a_sighting_is_a_set() -> None:
    assert isinstance(sighting("show", "aab"), Sighting)
    assert sighting("show", "aab").viewers == 2
