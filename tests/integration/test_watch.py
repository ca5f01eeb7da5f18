"""WatchBroadcasts: nothing lost, in order, resumable, and nobody is held up by anybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.transport.server import ApiOptions
from service.domain.errors import ResumeTokenExpired
from service.domain.reasons import EventReason
from service.domain.words import as_stored
from tests.integration.api_stage import Refusal, Stage, api, running, seconds
from tests.waiting import eventually

Told: TypeAlias = tuple[str, str]
Watch: TypeAlias = "grpc.aio.UnaryStreamCall[rpc.WatchBroadcastsRequest, rpc.WatchBroadcastsResponse]"


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


def watch(stage: Stage, token: str = "", *, heartbeat: float = 60, **filter_: Any) -> Watch:
    request = rpc.WatchBroadcastsRequest(
        filter=rpc.BroadcastFilter(**filter_), resume_token=token, heartbeat_interval=seconds(heartbeat)
    )
    return stage.stub.WatchBroadcasts(request)


async def read(call: Watch) -> rpc.WatchBroadcastsResponse:
    message = await asyncio.wait_for(call.read(), 30)
    assert isinstance(message, rpc.WatchBroadcastsResponse), "the stream ended"
    return message


async def take(call: Watch, count: int) -> list[rpc.WatchBroadcastsResponse]:
    return [await read(call) for _ in range(count)]


def told(message: rpc.WatchBroadcastsResponse) -> Told:
    if message.WhichOneof("message") != "change":
        return message.WhichOneof("message") or "", ""
    return rpc.ChangeType.Name(message.change.type).removeprefix("CHANGE_TYPE_"), message.change.broadcast.id


async def snapshot(call: Watch) -> tuple[list[str], str]:
    """Ids, and the token at the end of the snapshot."""
    ids: list[str] = []
    while (message := await read(call)).WhichOneof("message") == "change":
        assert (message.change.type, message.change.revision) == (rpc.CHANGE_TYPE_SNAPSHOT, 0)
        ids.append(message.change.broadcast.id)
    assert message.WhichOneof("message") == "snapshot_complete"
    return ids, message.resume_token


async def label(stage: Stage, broadcast_id: str, **labels: str) -> None:
    mask = FieldMask(paths=["labels"])
    await stage.stub.UpdateBroadcast(
        rpc.UpdateBroadcastRequest(broadcast_id=broadcast_id, labels=labels, update_mask=mask)
    )


async def failure(call: Watch) -> Refusal:
    """How a stream ends, whatever it says before."""
    async with asyncio.timeout(30):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return Refusal.of(error)
    raise AssertionError("it ended as if all had been told")


async def test_first_everything_then_every_change(stage: Stage) -> None:
    await stage.create("show-1", title="A")
    await stage.create("show-2")
    call = watch(stage)
    assert (await snapshot(call))[0] == ["show-2", "show-1"]
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1"))
    await stage.becomes("show-1", "READY")
    await stage.create("show-3")
    await stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="show-2"))
    changes = await take(call, 4)
    assert [told(each) for each in changes] == [
        ("UPDATED", "show-1"),
        ("UPDATED", "show-1"),
        ("ADDED", "show-3"),
        ("REMOVED", "show-2"),
    ]
    states = [each.change.broadcast.status.state for each in changes[:2]]
    assert states == [pb.BROADCAST_STATE_STARTING, pb.BROADCAST_STATE_READY]
    assert changes[0].change.broadcast.spec.title == "A"
    revisions = [each.change.revision for each in changes]
    assert revisions == sorted(set(revisions))
    got = await stage.get("show-1")
    # It is no part of the change log.
    got.status.ClearField("audience")
    assert changes[1].change.broadcast == got


async def test_who_enters_a_filter_is_added_and_who_leaves_it_removed(stage: Stage) -> None:
    await stage.create("show-1", labels={"team": "a"})
    await stage.create("show-2", labels={"team": "b"}, owner_id="ann")
    team_a = watch(stage, labels={"team": "a"})
    starting = watch(stage, states=[pb.BROADCAST_STATE_STARTING, pb.BROADCAST_STATE_READY])
    anns = watch(stage, owner_id="ann")
    assert [(await snapshot(call))[0] for call in (team_a, starting, anns)] == [["show-1"], [], ["show-2"]]
    await label(stage, "show-2", team="a", more="x")
    await label(stage, "show-1", team="c")
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-2"))
    await stage.becomes("show-2", "READY")
    await stage.becomes("show-2", "LIVE")
    mask = FieldMask(paths=["spec.owner_id"])
    given = rpc.UpdateBroadcastRequest(broadcast_id="show-1", spec=pb.BroadcastSpec(owner_id="ann"), update_mask=mask)
    await stage.stub.UpdateBroadcast(given)
    updated = ("UPDATED", "show-2")
    assert [told(each) for each in await take(team_a, 5)] == [
        ("ADDED", "show-2"),
        ("REMOVED", "show-1"),
        updated,
        updated,
        updated,
    ]
    assert [told(each) for each in await take(starting, 3)] == [("ADDED", "show-2"), updated, ("REMOVED", "show-2")]
    assert [told(each) for each in await take(anns, 5)] == [updated] * 4 + [("ADDED", "show-1")]


async def test_a_watch_goes_on_after_any_message(stage: Stage) -> None:
    for number in range(3):
        await stage.create(f"show-{number}")
    call = watch(stage)
    begin = await take(call, 4)
    for number in range(3):
        await label(stage, f"show-{number}", a="b")
    whole = [*begin, *await take(call, 3)]
    for index, message in enumerate(whole[:-1]):
        rest = await take(watch(stage, message.resume_token), len(whole) - index - 1)
        # Those that were not told yet come as they are by then, and their changes come as well.
        assert [told(each) for each in rest] == [told(each) for each in whole[index + 1 :]]
        assert rest[-1] == whole[-1]


async def test_a_listing_and_a_watch_have_no_gap_between_them(stage: Stage) -> None:
    ids = [(await stage.create(f"show-{number}")).id for number in range(6)]
    stop = asyncio.Event()

    async def write(broadcast_id: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await label(stage, broadcast_id, number=str(number))

    async def follow() -> dict[str, str]:
        known: dict[str, str] = {}
        request = rpc.ListBroadcastsRequest(page_size=2)
        while True:
            page = await stage.stub.ListBroadcasts(request)
            known |= {each.id: each.labels["number"] for each in page.broadcasts if "number" in each.labels}
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        call, revision = watch(stage, page.resume_token), 0
        while "end" not in known:
            change = (await read(call)).change
            assert change.revision > revision, "in order, and nothing twice"
            revision = change.revision
            known[change.broadcast.id] = change.broadcast.labels.get("number", "")
        return known

    writers = [asyncio.ensure_future(write(each)) for each in ids]
    followers = [asyncio.ensure_future(follow()) for _ in range(4)]
    head = await stage.changes.head()

    async def grown() -> bool:
        return await stage.changes.head() > head + 100

    await eventually(grown)
    stop.set()
    await asyncio.gather(*writers)
    await stage.create("end")
    truth = {each: (await stage.get(each)).labels.get("number", "") for each in [*ids, "end"]}
    assert await asyncio.gather(*followers) == [truth] * 4


async def test_all_see_the_same_order_under_concurrent_writes(stage: Stage) -> None:
    calls = [watch(stage) for _ in range(5)]
    for call in calls:
        await snapshot(call)
    await asyncio.gather(*(stage.create(f"show-{number}") for number in range(40)))
    seen = [[(each.change.revision, told(each)) for each in await take(call, 40)] for call in calls]
    assert seen[0] == sorted(seen[0])
    assert all(each == seen[0] for each in seen)


async def test_tokens_that_are_no_good(stage: Stage) -> None:
    await stage.create("show-1")
    _, token = await snapshot(watch(stage))
    await label(stage, "show-1", a="b")
    page = await stage.stub.ListBroadcasts(rpc.ListBroadcastsRequest(filter=rpc.BroadcastFilter(owner_id="ann")))
    for bad in ("?", token[:-3], token[:-1] + "!", page.resume_token):
        refusal = await failure(watch(stage, bad))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")
        assert refusal.fields == ["resume_token"]
    await stage.changes.trim(older_than=timedelta(0))
    refusal = await failure(watch(stage, token))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    _, fresh = await snapshot(watch(stage))
    await stage.sql("UPDATE head SET revision = 0, floor = 0")
    refusal = await failure(watch(stage, fresh))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")


async def test_a_filter_that_is_no_good(stage: Stage) -> None:
    refusal = await failure(watch(stage, states=cast("Any", [99])))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["filter.states[0]"])
    refusal = await failure(watch(stage, heartbeat=0.5))
    assert refusal.fields == ["heartbeat_interval"]


async def test_heartbeats_carry_the_token_past_what_the_filter_hides(stage: Stage) -> None:
    call = watch(stage, heartbeat=1, labels={"team": "a"})
    _, before = await snapshot(call)
    await stage.create("show-1")
    beat = await read(call)
    assert beat.WhichOneof("message") == "heartbeat"
    assert beat.heartbeat.HasField("server_time")
    assert beat.resume_token != before
    await stage.changes.trim(older_than=timedelta(0))
    assert told(await read(watch(stage, beat.resume_token, heartbeat=1, labels={"team": "a"}))) == ("heartbeat", "")
    assert (await failure(watch(stage, before, labels={"team": "a"}))).reason == "RESUME_TOKEN_EXPIRED"


async def test_all_of_it_without_a_single_notice(database_url: str) -> None:
    async with api(database_url, listen=False) as stage:
        await stage.create("show-1")
        call = watch(stage)
        await snapshot(call)
        await stage.becomes("show-1", "STARTING")
        assert told(await read(call)) == ("UPDATED", "show-1")


async def test_a_reader_who_does_not_read_holds_up_nobody_and_loses_nothing(stage: Stage) -> None:
    narrow = grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}", options=[("grpc.http2.bdp_probe", 0)])
    async with narrow:
        slow = BroadcastServiceStub(narrow).WatchBroadcasts(rpc.WatchBroadcastsRequest())
        await snapshot(slow)
        quick = [watch(stage) for _ in range(3)]
        for call in quick:
            await snapshot(call)
        await stage.create("show-1", labels={f"label-{number}": "x" * 128 for number in range(30)})
        # 5 KB each: many times the window of the slow one.
        for number in range(100):
            await stage.becomes("show-1", "CREATED", reason=as_stored(EventReason, f"NUMBER_{number}"))
        revisions = [[each.change.revision for each in await take(call, 101)] for call in quick]
        assert revisions[0] == revisions[1] == revisions[2]
        assert [each.change.revision for each in await take(slow, 101)] == revisions[0]


async def test_drain_sends_every_stream_away_at_once(stage: Stage) -> None:
    await stage.create("show-1", labels={f"label-{number}": "x" * 128 for number in range(30)})
    health = cast("Any", health_pb2_grpc).HealthStub(stage.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    calls = [watch(stage) for _ in range(20)]
    for call in calls:
        await snapshot(call)
    begun = time.monotonic()
    draining = asyncio.ensure_future(stage.server.drain(grace=50))
    refusals = [await failure(call) for call in calls]
    assert {(each.code, each.reason) for each in refusals} == {(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")}
    pauses = [cast("float", each.retry_after) for each in refusals]
    assert all(0 <= pause <= 5 for pause in pauses)
    assert len(set(pauses)) > 10, "they do not all come back at once"
    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await draining
    assert time.monotonic() - begun < 25


async def test_drain_does_not_wait_for_who_does_not_read(stage: Stage) -> None:
    await stage.create("show-1", labels={f"label-{number}": "x" * 128 for number in range(30)})
    narrow = grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}", options=[("grpc.http2.bdp_probe", 0)])
    async with narrow:
        slow = BroadcastServiceStub(narrow).WatchBroadcasts(rpc.WatchBroadcastsRequest())
        await snapshot(slow)
        for number in range(60):
            await stage.becomes("show-1", "CREATED", reason=as_stored(EventReason, f"NUMBER_{number}"))
        quick = watch(stage)
        await snapshot(quick)
        draining = asyncio.ensure_future(stage.server.drain(grace=50))
        assert (await failure(quick)).reason == "SHUTTING_DOWN"
        await asyncio.wait_for(draining, 25)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await take(slow, 100)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_database_that_goes_away_ends_the_watch(stage: Stage) -> None:
    call = watch(stage)
    await snapshot(call)
    await stage.database.close()
    refusal = await failure(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refusal.retry_after is not None


async def test_more_streams_than_a_replica_takes(database_url: str) -> None:
    async with api(database_url, options=ApiOptions(host="127.0.0.1", stream_limit=2)) as stage:
        calls = [watch(stage), watch(stage)]
        for call in calls:
            await snapshot(call)
        refusal = await failure(watch(stage))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refusal.retry_after
        calls[0].cancel()

        async def taken() -> bool:
            return told(await read(watch(stage))) == ("snapshot_complete", "")

        async def again() -> bool:
            try:
                return await taken()
            except grpc.aio.AioRpcError:
                return False

        await eventually(again)


async def test_many_watchers_read_the_log_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [watch(stage) for _ in range(100)]
    for call in calls:
        await snapshot(call)
    reads: list[int] = []
    after = stage.changes.after

    async def counted(revision: int, *, limit: int = 200, seen: datetime | None = None) -> Any:
        reads.append(revision)
        return await after(revision, limit=limit, seen=seen)

    monkeypatch.setattr(stage.changes, "after", counted)
    begun = time.monotonic()
    for number in range(5):
        await stage.create(f"show-{number}")
    for call in calls:
        assert len(await take(call, 5)) == 5
    # The notice of the writer, the one of the database, and a poll a second.
    assert len(reads) < 30 + (time.monotonic() - begun)


async def test_who_is_further_behind_than_the_tail_reads_the_log(stage: Stage) -> None:
    tail = Tail(stage.changes, Moved(), playback_base_url="https://play.test", capacity=3)
    async with running(tail.run()):
        for number in range(10):
            await stage.create(f"show-{number}")
        head, history = await stage.changes.head(), await tail.history()
        await eventually(lambda: tail.head == head)
        for cursor in range(head + 1):
            seen: list[int] = []
            at = cursor
            while at < head:
                entries, at = await tail.after(at, history, limit=2)
                seen += [entry.revision for entry in entries]
            assert seen == list(range(cursor + 1, head + 1))
        assert await tail.after(head, history) == ([], head)
        await stage.changes.trim(older_than=timedelta(0))
        with pytest.raises(ResumeTokenExpired):
            await tail.after(0, history)


async def test_a_notice_is_never_missed_and_one_waiter_is_not_another() -> None:
    moved = Moved()
    seen = moved.count
    moved.notify()
    assert await moved.wait(0, since=seen)
    assert not await moved.wait(0.01, since=moved.count)
    waiters: Sequence[asyncio.Task[bool]] = [asyncio.create_task(moved.wait(10)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    moved.notify()
    assert await asyncio.gather(*waiters[1:]) == [True, True]
    assert waiters[0].cancelled()


async def test_what_comes_while_draining_is_sent_away(stage: Stage) -> None:
    await stage.create("held")
    draining = asyncio.ensure_future(stage.server.drain(grace=30, notice=0.5))
    health = cast("Any", health_pb2_grpc).HealthStub(stage.channel)

    async def off() -> bool:
        status = (await health.Check(health_pb2.HealthCheckRequest())).status
        return status == health_pb2.HealthCheckResponse.NOT_SERVING

    await eventually(off)
    # Until the load balancers have seen it, all goes on.
    await stage.create("show-1")
    async with stage.database.transaction() as connection:
        await connection.execute("SELECT 1 FROM broadcast WHERE id = 'held' FOR UPDATE")
        working = asyncio.ensure_future(stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="held")))

        async def sent_away() -> bool:
            try:
                await stage.get("show-1")
            except grpc.aio.AioRpcError as error:
                return Refusal.of(error).reason == "SHUTTING_DOWN"
            return False

        await eventually(sent_away)
        assert (await failure(watch(stage))).reason == "SHUTTING_DOWN"
        assert not draining.done()
    assert (await working).broadcast.status.state == pb.BROADCAST_STATE_ENDED
    await asyncio.wait_for(draining, 25)
