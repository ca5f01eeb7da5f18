"""What belongs to no broadcast, in Postgres and in memory: budgets, the owned_ids, outages."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from service.domain.broadcast import EndReason
from service.domain.errors import StateForbids
from service.domain.lifecycle import delete
from service.domain.provider import Provider
from service.domain.reasons import Fault
from service.domain.resources import EgressStatus, Kind, Phase, StreamStatus, Upload
from service.providers.budget import Bucket, Budget, Limit, Limits, Rank
from service.store.owned_ids import OwnedResource
from tests.conformance.stage import LEASE, NOBODYS, Stage
from tests.integration.store_stage import egress, room, stream

# As good as never refilled.
SLOW = 1e-6


async def drained(stage: Stage, *, floor: float, burst: float = 10, rate: float = SLOW) -> int:
    """How many tokens there are for one who leaves *floor* behind."""
    granted = 0
    while (await stage.budgets.take("b", rate=rate, burst=burst, floor=floor)).granted:
        granted += 1
    return granted


async def test_each_rank_leaves_tokens_to_those_above_it(stage: Stage) -> None:
    ranks = (Rank.SWEEP, Rank.HEAL, Rank.START, Rank.STOP)
    assert [await drained(stage, floor=rank) for rank in ranks] == [7, 1, 1, 1]


async def test_a_bucket_refills_to_its_burst_and_no_more(stage: Stage) -> None:
    assert await drained(stage, floor=0, burst=7) == 7
    await stage.ground.time_passes(86_400)
    assert (await stage.budgets.take("b", rate=0.1, burst=7, floor=0)).granted
    assert await drained(stage, floor=0, burst=7) == 6


async def test_who_waits_is_given_turns_one_token_apart(stage: Stage) -> None:
    turns = [await stage.budgets.take("b", rate=0.25, burst=0.5, floor=0) for _ in range(5)]
    assert not any(turn.granted for turn in turns)
    gaps = [later.come_back - earlier.come_back for earlier, later in pairwise(turns)]
    assert set(gaps) == {timedelta(seconds=4)}


async def test_who_waits_is_served_before_who_comes_later(stage: Stage) -> None:
    budget = Budget(stage.budgets.take, Limits(mux_post=Limit(rate=0.01, burst=5)))

    async def ask(rank: Rank = Rank.START, turn: datetime | None = None) -> datetime | None:
        return await budget.take(Bucket.STREAMS_POST, rank, turn=turn)

    while (first := await ask()) is None:
        continue
    second = await ask()
    assert second is not None
    assert second - first == timedelta(seconds=100)
    began = await stage.ground.now()
    await stage.ground.time_passes(110)
    # In a database that was set back, a turn is as much earlier as everything else.
    passed = timedelta() if await stage.ground.now() - began > timedelta(seconds=100) else timedelta(seconds=110)
    assert await ask() is not None
    assert await ask(turn=second - passed) is not None
    assert await ask(turn=first - passed) is None
    assert await ask(turn=first - passed) is not None
    assert await ask(Rank.STOP) is None


async def test_who_asks_before_his_turn_keeps_it_and_leaves_no_empty_one(stage: Stage) -> None:
    """A row that is woken before its turn asks again: each time it took a turn at the end, so a queue of sixty took
    three minutes.
    """
    budget = Budget(stage.budgets.take, Limits(mux_post=Limit(rate=0.01, burst=5)))

    async def ask(turn: datetime | None = None) -> datetime | None:
        return await budget.take(Bucket.STREAMS_POST, Rank.START, turn=turn)

    while (first := await ask()) is None:
        continue
    for _ in range(3):
        assert await ask(turn=first) == first
    second = await ask()
    assert second is not None
    assert second - first == timedelta(seconds=100)
    # No queue of this bucket goes so far: it is of another bucket, or of a clock that was set back.
    third = await ask(turn=second + timedelta(hours=1))
    assert third is not None
    assert third - second == timedelta(seconds=100)


async def test_who_would_rather_go_without_takes_no_turn(stage: Stage) -> None:
    budget = Budget(stage.budgets.take, Limits(mux_post=Limit(rate=0.01, burst=5)))
    spared = [await budget.spare(Bucket.STREAMS_POST, Rank.SWEEP) for _ in range(5)]
    assert spared == [True, True, False, False, False]
    assert await budget.take(Bucket.STREAMS_POST, Rank.STOP) is None


async def test_several_tokens_are_taken_at_once_as_far_as_there_are_any(stage: Stage) -> None:
    """Those of the ranks above are left, and a queue is neither overtaken nor joined."""
    limit = Limits(livekit=Limit(rate=SLOW, burst=10))
    budget = Budget(stage.budgets.take, limit)
    assert [await budget.spare_of(Bucket.ROOMS, Rank.SWEEP, wanted) for wanted in (3, 64, 64)] == [3, 4, 0]
    assert [await budget.spare_of(Bucket.ROOMS, Rank.HEAL, wanted) for wanted in (64, 1)] == [1, 0]
    taken = await stage.budgets.take("b", rate=SLOW, burst=10, floor=1, wanted=4)
    assert (taken.taken, taken.granted) == (4, True)
    await drained(stage, floor=1)
    turns = [await stage.budgets.take("b", rate=SLOW, burst=10, floor=1, wanted=4) for _ in range(2)]
    assert [turn.taken for turn in turns] == [0, 0]
    assert turns[1].come_back - turns[0].come_back == timedelta(seconds=1 / SLOW)


async def known(stage: Stage) -> list[OwnedResource]:
    return sorted(await stage.owned_ids.of_running(), key=lambda each: (each.broadcast_id, each.kind, each.external_id))


async def test_owned_ids_knows_what_is_held_of_all_that_run(stage: Stage) -> None:
    for name in ("first", "second"):
        await stage.started(name)
    claims = {claim.broadcast_id: claim for claim in await stage.one.leases.claim(1, limit=2)}
    held = [
        room(host_publishing=True, recorded=False),
        stream(status=StreamStatus.ACTIVE),
        egress(external_id="EG_1", phase=Phase.PRESENT, status=EgressStatus.ACTIVE, updated_ns=7),
        egress(external_id="EG_0", ordinal=1, phase=Phase.GONE),
        egress(external_id="EG_2", ordinal=2, phase=Phase.GONE, fault=Fault.GHOST, status=EgressStatus.ACTIVE),
    ]
    await stage.one.passes.record(claims["first"], held)
    unknown = stream(external_id="", phase=Phase.UNKNOWN)
    await stage.one.passes.record(claims["second"], [unknown])

    def one(kind: str, external_id: str, **facts: object) -> OwnedResource:
        empty = OwnedResource(
            broadcast_id="first",
            kind=kind,
            phase="present",
            external_id=external_id,
            status="",
            host_publishing=None,
            recorded=None,
            updated_ns=0,
        )
        return replace(empty, **facts)

    assert await known(stage) == [
        one("egress", "EG_1", status="ACTIVE", updated_ns=7),
        one("egress", "EG_2", phase="gone", status="ACTIVE"),
        one("room", "first", host_publishing=True, recorded=False),
        one("stream", "LS1", status="active"),
        one("stream", "", broadcast_id="second", phase="unknown"),
    ]
    assert await stage.owned_ids.owned(Kind.STREAM, ["LS1", "LS2", ""]) == {"LS1"}
    assert await stage.owned_ids.owned(Kind.UPLOAD, ["LS1"]) == set()
    assert await stage.owned_ids.started(["EG_1", "EG_2", "EG_3", ""]) == {"EG_1", "EG_2"}
    assert await stage.owned_ids.searching(Kind.STREAM, ["first", "second", "nobody"]) == {"second"}
    assert await stage.owned_ids.searching(Kind.UPLOAD, ["first", "second"]) == set()
    assert await stage.owned_ids.over(["first", "second", "nobody"]) == ({"first", "second"}, set())


async def test_what_is_over_holds_nothing(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.record(claim, [stream()])
    await stage.broadcasts.create("second", (await stage.broadcasts.get("first")).spec, {}, {}, NOBODYS)
    await stage.broadcasts.change("second", lambda stored, now: delete(stored, now, etag=""), NOBODYS)
    try:
        await stage.broadcasts.change("first", lambda stored, now: delete(stored, now, etag=""), NOBODYS)
    except StateForbids:
        await stage.one.passes.record(claim, [stream(phase=Phase.GONE)])
    assert await stage.owned_ids.of_running() == []
    assert await stage.owned_ids.owned(Kind.STREAM, ["LS1"]) == set()
    assert await stage.owned_ids.over(["first", "second"]) == ({"first", "second"}, {"second"})


async def test_a_deleted_broadcast_keeps_what_was_uploaded_and_looks_for_nothing(stage: Stage) -> None:
    """Its passes are over: nobody goes on with an upload that is under way."""
    began = await stage.owned_ids.now()
    await stage.started("first")
    assert not await stage.owned_ids.uploaded_since(began)
    claim = await stage.one.claimed("first")
    long_ago = began - timedelta(days=9)
    present = Upload(
        ordinal=0, external_id="A1", phase=Phase.PRESENT, intended_at=long_ago, changed_at=long_ago, attempt=2
    )
    leaving = replace(present, ordinal=1, external_id="A2", phase=Phase.DELETING)
    unknown = replace(present, ordinal=2, external_id="", phase=Phase.UNKNOWN, intended_at=began)
    await stage.one.passes.record(claim, [present, leaving, unknown, stream(phase=Phase.GONE)])
    assert await stage.owned_ids.owned(Kind.UPLOAD, ["A1", "A2", "A3"]) == {"A1", "A2"}
    assert await stage.owned_ids.searching(Kind.UPLOAD, ["first"]) == {"first"}
    assert await stage.owned_ids.uploaded_since(began)
    assert not await stage.owned_ids.uploaded_since(await stage.owned_ids.now() + timedelta(seconds=1))
    await stage.one.passes.record(claim, end=EndReason.STOPPED)
    await stage.one.passes.release(claim, None)
    await stage.broadcasts.change("first", lambda stored, now: delete(stored, now, etag=""), NOBODYS)
    assert await stage.owned_ids.owned(Kind.UPLOAD, ["A1", "A2"]) == {"A1"}
    assert await stage.owned_ids.searching(Kind.UPLOAD, ["first"]) == set()


async def test_two_failures_in_a_row_are_an_outage_and_one_answer_ends_it(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")

    async def outages() -> dict[str, str]:
        availability = (await stage.one.passes.load(claim, LEASE)).availability
        return {name: outage.code for name, outage in availability.outages.items()}

    await stage.outages.report(Provider.MUX, ("503", "away"))
    assert await outages() == {}
    await stage.ground.time_passes(10)
    await stage.outages.report(Provider.MUX, ("504", "still away"))
    assert await outages() == {"mux": "504"}
    await stage.outages.report(Provider.LIVEKIT, ("503", "away"))
    await stage.outages.report(Provider.MUX, None)
    assert await outages() == {}
    # Whoever runs is told of both.
    await stage.one.passes.release(claim, None)
    assert await stage.two.claimed_ids(1) == ["first"]


async def test_an_outage_that_nobody_looked_at_lately_is_none(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.outages.report(Provider.MUX, ("503", "away"))
    await stage.ground.time_passes(10)
    await stage.outages.report(Provider.MUX, ("503", "away"))
    await stage.ground.time_passes(61)
    assert (await stage.one.passes.load(claim, LEASE)).availability.outages == {}


async def test_since_when_a_provider_answers_is_told_and_begins_anew_after_a_gap(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")

    async def answering() -> dict[str, float | None]:
        known, now = (await stage.one.passes.load(claim, LEASE)).availability, await stage.ground.now()
        return {
            name: None if since is None else round((now - since).total_seconds(), -1)
            for name, since in known.answering_since.items()
        }

    assert await answering() == {}
    await stage.outages.report(Provider.LIVEKIT, None)
    await stage.ground.time_passes(30)
    await stage.outages.report(Provider.LIVEKIT, None)
    await stage.outages.report(Provider.MUX, ("503", "away"))
    assert await answering() == {"livekit": 30, "mux": None}
    await stage.outages.report(Provider.LIVEKIT, ("503", "away"))
    await stage.outages.report(Provider.MUX, None)
    assert await answering() == {"livekit": None, "mux": 0}
    await stage.ground.time_passes(61)
    await stage.outages.report(Provider.MUX, None)
    assert (await answering())["mux"] == 0


async def test_a_failure_after_a_gap_is_no_outage_of_the_gap(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.outages.report(Provider.MUX, ("503", "away"))
    await stage.ground.time_passes(61)
    await stage.outages.report(Provider.MUX, ("503", "away"))
    assert (await stage.one.passes.load(claim, LEASE)).availability.outages == {}


async def test_an_outage_wakes_what_is_over_and_waits(stage: Stage) -> None:
    """Its files can be uploaded when Mux answers again."""
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.record(claim, end=EndReason.STOPPED)
    await stage.one.passes.release(claim, await stage.ground.now() + timedelta(seconds=300))
    assert await stage.two.claimed_ids(0) == []
    await stage.outages.report(Provider.MUX, ("503", "away"))
    await stage.ground.time_passes(10)
    await stage.outages.report(Provider.MUX, ("503", "away"))
    assert await stage.two.claimed_ids(0) == ["first"]


async def test_owned_ids_tells_the_time_of_the_database(stage: Stage) -> None:
    before = await stage.ground.now()
    assert before <= await stage.owned_ids.now() <= await stage.ground.now()
