"""What a pass writes, in Postgres and in memory: with its intent, told as it is stored, forwards only."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.broadcast import EndReason, Fallback, FallbackMode, ProviderTrouble, Spec, State, Target
from service.domain.errors import LeaseLost, Overtaken
from service.domain.lifecycle import Event, stop
from service.domain.ports import Heard
from service.domain.provider import Provider
from service.domain.reasons import EventReason, FallbackReason, Operation
from service.domain.resources import Kind, Phase
from service.domain.situation import Situation
from tests.conformance.stage import LEASE, NOBODYS, Stage, in_memory, in_postgres
from tests.integration.store_stage import T0, egress, room, stream


async def told(stage: Stage, broadcast_id: str = "first") -> list[tuple[str, str, str, State]]:
    story = await stage.changes.story(broadcast_id, after=0, limit=1000)
    return [(each.reason, each.message, each.actor, each.state) for each in story]


async def test_what_is_recorded_is_told_with_it(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    said = [Event(reason=EventReason.ROOM_CREATED, message="RM_1"), Event(reason=EventReason.STREAM_CREATED)]
    situation = await stage.one.passes.record(claim, [room(), stream()], events=said)
    assert situation.broadcast.state is State.READY
    assert situation.broadcast.ready_time == situation.broadcast.update_time == situation.now
    assert (await told(stage))[-3:] == [
        ("ROOM_CREATED", "RM_1", "reconciler", State.READY),
        ("STREAM_CREATED", "", "reconciler", State.READY),
        ("STATE_READY", situation.broadcast.status.state_reason, "reconciler", State.READY),
    ]
    loaded = await stage.two.passes.load(claim, LEASE)
    assert (loaded.broadcast, loaded.resources) == (situation.broadcast, situation.resources)
    assert [(each.kind, each.ordinal) for each in loaded.resources] == [("room", 0), ("stream", 0)]


async def test_the_last_event_of_a_transaction_carries_what_was_and_what_is(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    before = await stage.changes.head()
    await stage.one.passes.record(
        claim,
        [room(), stream()],
        events=[Event(reason=EventReason.ROOM_CREATED), Event(reason=EventReason.STREAM_CREATED)],
    )
    [change], seen, floor, *_ = await stage.changes.after(before)
    assert (seen, floor) == (before + 3, 0)
    assert change.revision == before + 3
    assert change.broadcast == await stage.broadcasts.get("first")
    assert change.before is not None
    assert (change.before.state, change.before.deleted) == (State.STARTING, False)


async def test_what_changes_nothing_is_stored_and_not_told(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.record(claim, [room()])
    before = await told(stage)
    looked = replace(room(), observed_at=T0 + timedelta(milliseconds=1))
    assert (await stage.one.passes.record(claim, [looked])).resources == (looked,)
    assert await told(stage) == before
    assert (await stage.one.passes.load(claim, LEASE)).resources == (looked,)


async def untold(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    before = await stage.seen("first")
    with pytest.raises(RuntimeError):
        await stage.one.passes.record(
            claim, [room()], events=[Event(reason=EventReason.ROOM_CREATED)], end=EndReason.NO_HOST
        )
    assert await stage.seen("first") == before
    assert (await stage.one.passes.load(claim, LEASE)).resources == ()


def fails(situation: Situation) -> Any:
    raise RuntimeError(situation.broadcast.id)


async def test_a_record_that_cannot_be_told_stores_nothing(database_url: str) -> None:
    async with in_postgres(database_url, told=fails) as stage:
        await untold(stage)
    await untold(in_memory(told=fails))


async def test_an_intent_is_stored_and_covers_its_call(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    intended = replace(stream(), phase=Phase.INTENDED, external_id="")
    await stage.one.passes.intend(claim, intended, timedelta(seconds=60), planned_for=Target.LIVE)
    # A shorter one does not take away what another covers.
    await stage.one.passes.intend(claim, intended, timedelta(seconds=1))
    await stage.ground.time_passes(50)
    assert await stage.two.claimed_ids(1) == []
    assert (await stage.one.passes.load(claim, LEASE)).resources == (intended,)


async def test_a_lease_is_renewed_in_the_middle_of_a_call_and_says_what_is_wanted(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    assert await stage.one.passes.renew(claim, LEASE) is Target.LIVE
    await stage.broadcasts.change("first", lambda stored, at: stop(stored, at, "enough"), NOBODYS)
    assert await stage.one.passes.renew(claim, LEASE) is Target.ENDED
    for other in (replace(claim, fence=claim.fence + 1), replace(claim, broadcast_id="nobody")):
        with pytest.raises(LeaseLost):
            await stage.one.passes.renew(other, LEASE)


async def test_a_stop_between_the_plan_and_its_intent_overtakes_it(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.load(claim, LEASE)
    await stage.broadcasts.change("first", lambda stored, at: stop(stored, at, "enough"), NOBODYS)
    with pytest.raises(Overtaken):
        await stage.one.passes.intend(claim, room(), LEASE, planned_for=Target.LIVE)
    assert (await stage.one.passes.load(claim, LEASE)).resources == ()
    # What is not a create goes on.
    await stage.one.passes.intend(claim, room(), LEASE)


async def test_a_stop_between_load_and_record_is_kept(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.load(claim, LEASE)
    await stage.broadcasts.change("first", lambda stored, at: stop(stored, at, "enough"), NOBODYS)
    situation = await stage.one.passes.record(claim, [room()], events=[Event(reason=EventReason.ROOM_CREATED)])
    assert (situation.broadcast.target, situation.broadcast.state) == (Target.ENDED, State.STOPPING)
    await stage.one.passes.release(claim, None)
    assert await stage.two.claimed_ids(0) == ["first"]


async def test_the_end_is_set_once_and_its_first_reason_stays(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    await stage.one.passes.record(claim, [room()])
    await stage.one.passes.record(claim, end=EndReason.NO_HOST)
    again = await stage.one.passes.record(claim, end=EndReason.MAX_DURATION)
    assert again.broadcast.end_reason is EndReason.NO_HOST
    over = await stage.one.passes.record(claim, [replace(room(), phase=Phase.GONE)])
    assert (over.broadcast.state, over.broadcast.end_time) == (State.ENDED, over.now)
    later = await stage.one.passes.record(claim, events=[Event(reason=EventReason.STATUS_CHANGED)])
    assert (later.broadcast.state, later.broadcast.end_time) == (State.ENDED, over.now)


async def test_one_thing_of_a_provider_belongs_to_one_row(stage: Stage) -> None:
    for name in ("first", "second"):
        await stage.started(name)
    claims = {claim.broadcast_id: claim for claim in await stage.one.leases.claim(1, limit=2)}
    await stage.one.passes.record(claims["first"], [room(), stream(), egress(external_id="EG_1")])
    before = await stage.seen("second")
    for taken in (stream(), stream(ordinal=5, phase=Phase.GONE), egress(external_id="EG_1")):
        with pytest.raises(Exception, match=r"resource_external|belongs to"):
            await stage.one.passes.record(
                claims["second"], [room(), taken], events=[Event(reason=EventReason.STREAM_ADOPTED)]
            )
    assert await stage.seen("second") == before
    nameless = [room(), stream(external_id=""), egress(external_id="LS1"), egress(ordinal=1), egress(ordinal=2)]
    await stage.one.passes.record(claims["second"], nameless)


async def test_trouble_is_told_until_its_own_provider_is_well_again(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    trouble = ProviderTrouble(
        provider=Provider.MUX, operation=Operation.CREATE_STREAM, code="502", message="away", retryable=True, time=T0
    )
    assert (await stage.one.passes.record(claim, [room()], trouble=trouble)).broadcast.status.last_error == trouble
    assert (await stage.one.passes.record(claim, recovered=Provider.LIVEKIT)).broadcast.status.last_error == trouble
    assert (await stage.one.passes.record(claim, recovered=Provider.MUX)).broadcast.status.last_error is None


async def test_a_fallback_is_stored(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    fallback = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=T0)
    await stage.one.passes.record(
        claim, [room()], events=[Event(reason=EventReason.FALLBACK_ENTERED)], fallback=fallback
    )
    assert (await stage.two.passes.load(claim, LEASE)).broadcast.fallback == fallback


async def test_a_webhook_waits_for_the_pass_that_takes_it_into_account(stage: Stage) -> None:
    await stage.started("first", Spec())
    claim = await stage.one.claimed("first")
    heard = [
        Heard(event_id=f"e{n}", type="video.live_stream.active", provider_time=T0, stream_id="LS1") for n in (1, 2)
    ]
    assert [await stage.ground.deliver(each, "first") for each in (*heard, heard[0])] == [True, True, False]
    situation = await stage.one.passes.load(claim, LEASE)
    assert [each for _, each in situation.heard] == heard
    assert situation.broadcast.due_at is not None
    await stage.one.passes.record(claim, heard=[situation.heard[0][0]])
    assert [each for _, each in (await stage.one.passes.load(claim, LEASE)).heard] == heard[1:]


async def test_a_webhook_of_nobody_waits_for_no_pass(stage: Stage) -> None:
    await stage.started("first")
    claim = await stage.one.claimed("first")
    heard = Heard(event_id="e", type="room_started", provider_time=T0)
    await stage.ground.deliver(heard, "nobody")
    assert (await stage.one.passes.load(claim, LEASE)).heard == ()


async def test_a_load_moves_what_lies_ahead_of_the_clock(stage: Stage) -> None:
    """After the database's clock was set back by five minutes nothing waits for so long, and no later look is older."""
    await stage.started("first")
    claim = await stage.one.claimed("first")
    now = (await stage.one.passes.load(claim, LEASE)).now
    ahead = now + timedelta(seconds=300)
    looked = ahead + timedelta(seconds=20)
    rows = [replace(room(), intended_at=ahead, changed_at=ahead), replace(egress(), changed_at=now, observed_at=looked)]
    await stage.one.passes.record(claim, rows)
    loaded = await stage.one.passes.load(claim, LEASE)
    by_kind = {each.kind: each for each in loaded.resources}
    assert (by_kind[Kind.EGRESS].changed_at, by_kind[Kind.EGRESS].observed_at) == (now, loaded.now)
    assert by_kind[Kind.ROOM].intended_at == by_kind[Kind.ROOM].changed_at == loaded.now - timedelta(seconds=20)
    again = await stage.two.passes.load(claim, LEASE)
    assert again.resources == loaded.resources
