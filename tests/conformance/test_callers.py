"""What callers write and read, in Postgres and in memory: once for each request id, and in the order of the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from service.domain.broadcast import Broadcast, Spec, State, Target
from service.domain.errors import BroadcastExists, BroadcastNotFound, FieldImmutable, InvalidField, RequestIdReused
from service.domain.lifecycle import Change, Event, delete, start, stop, update
from service.domain.reasons import EventReason
from service.domain.schedule import provision_at
from service.store.broadcasts import Filter, Request
from tests.conformance.stage import NOBODYS, Stage

Decide = Callable[[Broadcast, datetime], Change | None]


def request(id: str, method: str = "Label", digest: bytes = b"one") -> Request:
    return Request(id=id, method=method, digest=digest)


def labelled(value: str) -> Decide:
    def decide(stored: Broadcast, now: datetime) -> Change | None:
        del now
        changed = replace(stored, labels={"n": value}, version=stored.version + 1)
        return Change(broadcast=changed, events=(Event(reason=EventReason.UPDATED, message=value),), wake=False)

    return decide


async def reasons(stage: Stage, broadcast_id: str = "first") -> list[str]:
    return [each.reason for each in await stage.changes.story(broadcast_id, after=0, limit=1000)]


async def test_a_request_that_is_sent_again_is_done_once(stage: Stage) -> None:
    create = request("c", "CreateBroadcast")
    made = [await stage.broadcasts.create("first", Spec(title="A"), {}, {}, create) for _ in range(2)]
    assert made[0] == made[1]
    for value in ("1", "2"):
        await stage.broadcasts.change("first", labelled(value), request(value))
    late = await stage.broadcasts.change("first", labelled("1"), request("1"))
    assert (late.labels, late.version) == ({"n": "2"}, 3)
    assert await reasons(stage) == ["CREATED", "UPDATED", "UPDATED"]


async def test_a_request_id_with_other_content_is_refused(stage: Stage) -> None:
    await stage.broadcasts.create("first", Spec(), {}, {}, request("r", "CreateBroadcast"))
    for other in (request("r", "CreateBroadcast", b"two"), request("r", "StartBroadcast")):
        with pytest.raises(RequestIdReused):
            await stage.broadcasts.change("first", start, other)
    assert await reasons(stage) == ["CREATED"]


async def test_a_schedule_queues_its_broadcast_until_it_is_moved_or_stopped(stage: Stage) -> None:
    scheduled = await stage.ground.now() + timedelta(hours=3)
    created = await stage.broadcasts.create(
        "first", Spec(scheduled_start_time=scheduled), {}, {}, request("c", "CreateBroadcast")
    )
    assert created.due_at == provision_at(created)
    assert created.status.state_reason == "SCHEDULED"
    assert await stage.broadcasts.get("first") == created
    assert await stage.one.claimed_ids(1) == []

    def moved(at: datetime | None) -> Decide:
        spec = Spec(scheduled_start_time=at)
        return partial(update, etag="", spec=spec, keys={}, labels=None, paths=["scheduled_start_time"])

    later = await stage.broadcasts.change("first", moved(scheduled + timedelta(hours=1)), NOBODYS)
    assert created.due_at is not None
    assert later.due_at == created.due_at + timedelta(hours=1)
    away = await stage.broadcasts.change("first", moved(None), NOBODYS)
    assert (away.due_at, away.status.state_reason) == (None, "")
    near = await stage.broadcasts.change("first", moved(await stage.ground.now() + timedelta(seconds=60)), NOBODYS)
    assert near.due_at is not None
    with pytest.raises(InvalidField):
        await stage.broadcasts.change("first", moved(scheduled - timedelta(hours=9)), NOBODYS)
    claim = await stage.one.claimed("first")
    begun = near.spec.scheduled_start_time
    situation = await stage.one.passes.record(claim, begun=begun)
    assert (situation.broadcast.target, situation.broadcast.state) == (Target.LIVE, State.STARTING)
    assert situation.broadcast.start_time == situation.now
    assert (await stage.broadcasts.get("first")).start_time == situation.now
    await stage.one.passes.release(claim, None)
    with pytest.raises(FieldImmutable):
        await stage.broadcasts.change("first", moved(scheduled), NOBODYS)
    assert (await reasons(stage))[-2:] == ["SCHEDULE_BEGUN", "STATE_STARTING"]


async def test_a_stop_takes_a_scheduled_broadcast_out_of_the_queue(stage: Stage) -> None:
    scheduled = await stage.ground.now() + timedelta(seconds=30)
    for name, write in (("first", partial(stop, note="")), ("second", partial(delete, etag=""))):
        await stage.broadcasts.create(name, Spec(scheduled_start_time=scheduled), {}, {}, NOBODYS)
        await stage.broadcasts.change(name, write, NOBODYS)
    assert [await stage.one.claimed_ids(lane) for lane in (0, 1, 2)] == [[], [], []]


async def test_a_schedule_in_the_past_stores_nothing(stage: Stage) -> None:
    with pytest.raises(InvalidField):
        await stage.broadcasts.create(
            "first", Spec(scheduled_start_time=await stage.ground.now()), {}, {}, request("c", "CreateBroadcast")
        )
    with pytest.raises(BroadcastNotFound):
        await stage.broadcasts.get("first")
    # Its request id is free again.
    await stage.broadcasts.create("first", Spec(), {}, {}, request("c", "CreateBroadcast", b"two"))


async def test_a_request_that_was_refused_is_not_remembered(stage: Stage) -> None:
    again = request("r", "StartBroadcast")
    with pytest.raises(BroadcastNotFound):
        await stage.broadcasts.change("first", start, again)
    await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    assert (await stage.broadcasts.change("first", start, again)).state is State.STARTING
    with pytest.raises(BroadcastExists):
        await stage.broadcasts.create("first", Spec(), {}, {}, request("other", "CreateBroadcast"))


async def test_requests_are_forgotten_when_they_are_old(stage: Stage) -> None:
    await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    await stage.broadcasts.change("first", labelled("1"), request("old"))
    await stage.ground.time_passes(3600)
    await stage.broadcasts.change("first", labelled("2"), request("new"))
    await stage.broadcasts.forget_requests(older_than=timedelta(minutes=30))
    for name in ("old", "new"):
        await stage.broadcasts.change("first", labelled(name), request(name))
    assert (await stage.broadcasts.get("first")).labels == {"n": "old"}


async def test_a_decision_for_nothing_writes_nothing(stage: Stage) -> None:
    started = await stage.started("first")
    before = await stage.seen("first")
    assert await stage.broadcasts.change("first", start, NOBODYS) == replace(started, due_at=started.due_at)
    assert await stage.seen("first") == before


async def test_what_is_deleted_is_found_by_nobody(stage: Stage) -> None:
    await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    await stage.broadcasts.change("first", lambda stored, now: delete(stored, now, etag=""), NOBODYS)
    with pytest.raises(BroadcastNotFound):
        await stage.broadcasts.get("first")
    with pytest.raises(BroadcastNotFound):
        await stage.broadcasts.change("first", start, NOBODYS)
    with pytest.raises(BroadcastExists):
        await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    assert (await stage.broadcasts.list(Filter(), limit=10))[0] == []
    assert await reasons(stage) == ["CREATED", "DELETED"]


async def test_a_list_is_newest_first_and_filtered(stage: Stage) -> None:
    for name in ("a", "b", "c"):
        await stage.broadcasts.create(name, Spec(owner_id=name), {}, {"of": name}, NOBODYS)
        await stage.ground.time_passes(1)
    await stage.broadcasts.change("b", start, NOBODYS)

    async def ids(filter: Filter, before: Broadcast | None = None) -> list[str]:
        cursor = (before.create_time, before.id) if before is not None else None
        found, revision = await stage.broadcasts.list(filter, limit=2, before=cursor)
        assert revision == await stage.changes.head()
        return [each.id for each in found]

    assert await ids(Filter()) == ["c", "b"]
    assert await ids(Filter(), before=await stage.broadcasts.get("b")) == ["a"]
    assert await ids(Filter(states=(State.STARTING,))) == ["b"]
    assert await ids(Filter(labels=(("of", "a"),))) == ["a"]
    assert await ids(Filter(owner_id="c", ids=("a", "c"))) == ["c"]


async def test_the_log_is_read_from_a_cursor_and_trimmed_at_its_end(stage: Stage) -> None:
    await stage.started("first")
    await stage.ground.time_passes(3600)
    await stage.started("second")
    everything, head, *_ = await stage.changes.after(0)
    assert [(each.revision, each.broadcast.id, each.before is None) for each in everything] == [
        (1, "first", True),
        (2, "first", False),
        (3, "second", True),
        (4, "second", False),
    ]
    assert head == await stage.changes.head() == 4
    assert [each.revision for each in (await stage.changes.after(1, limit=2))[0]] == [2, 3]
    assert (await stage.changes.after(1, limit=2))[1] == 3
    assert await stage.changes.trim(older_than=timedelta(minutes=30)) == 2
    assert (await stage.changes.bounds())[:2] == (2, 4)
    assert await stage.changes.floor() == 2
    assert [each.revision for each in (await stage.changes.after(0))[0]] == [3, 4]
    assert await stage.changes.trim(older_than=timedelta(minutes=30)) == 0


async def test_a_stop_before_the_start_is_the_end_at_once_and_for_ever(stage: Stage) -> None:
    await stage.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    ended = await stage.broadcasts.change("first", lambda stored, now: stop(stored, now, ""), NOBODYS)
    assert ended.state is State.ENDED

    def back(stored: Broadcast, now: datetime) -> Change:
        del now
        return Change(broadcast=replace(stored, state=State.LIVE), events=(Event(reason=EventReason.STATUS_CHANGED),))

    before = await stage.seen("first")
    with pytest.raises(Exception, match="for ever"):
        await stage.broadcasts.change("first", back, NOBODYS)
    assert await stage.seen("first") == before


async def test_a_target_moves_forward_only(stage: Stage) -> None:
    started = await stage.started("first")

    def back(stored: Broadcast, now: datetime) -> Change:
        del now
        created = replace(stored, target=type(started.target).CREATED)
        return Change(broadcast=created, events=(Event(reason=EventReason.STATUS_CHANGED),))

    before = await stage.seen("first")
    with pytest.raises(Exception, match="moves forward only"):
        await stage.broadcasts.change("first", back, NOBODYS)
    assert await stage.seen("first") == before
