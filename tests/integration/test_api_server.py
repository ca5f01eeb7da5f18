"""What holds for every call: faults, logs, traces, limits, health, and how the server ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from service.api.transport.server import ApiOptions, CannotListen
from tests.integration.api_stage import KEY, Refusal, Stage, api, refused, seconds
from tests.waiting import eventually


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


def destination(url: str) -> pb.Destination:
    return pb.Destination(name="one", url=url, stream_key=KEY)


def fails(text: str) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError(text)

    return fail


async def test_a_fault_of_ours_tells_nothing_but_its_trace(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.started("show-1")
    monkeypatch.setattr(stage.tokens, "issue", fails("the-inner-secret"))
    monkeypatch.setattr(stage.broadcasts, "list", fails("the-inner-secret"))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
    issue = rpc.IssueHostAccessRequest(broadcast_id="show-1", identity="ann")
    with capture_logs() as logs:
        unary = await refused(stage.stub.IssueHostAccess(issue, metadata=metadata))
        streaming = await refused(stage.stub.WatchBroadcasts(rpc.WatchBroadcastsRequest(), metadata=metadata).read())
    for refusal in (unary, streaming):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert refusal.info.metadata == {"trace_id": trace}
        assert "secret" not in str(refusal)
    assert sum(entry["event"] == "rpc_failed" and entry["trace_id"] == trace for entry in logs) == 2
    assert (await refused(stage.stub.IssueHostAccess(issue))).info.metadata["trace_id"] != trace


async def test_a_cancellation_from_inside_is_a_fault_and_one_from_outside_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.create("show-1")
    start = rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(30))
    with capture_logs() as logs:
        call = stage.stub.StartBroadcast(start)
        await eventually(lambda: stage.woken)
        call.cancel()
        await eventually(lambda: [entry["code"] for entry in logs if entry["event"] == "rpc"] == ["CANCELLED"])
    # What was asked for is stored all the same.
    assert (await stage.get("show-1")).status.target_state == pb.BROADCAST_STATE_LIVE

    async def cancelled(_: str) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(stage.broadcasts, "get", cancelled)
    refusal = await refused(stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="show-1"), timeout=5))
    assert refusal.reason == "INTERNAL"


async def test_the_trace_goes_on_with_the_work(stage: Stage) -> None:
    await stage.create("show-1")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1"), metadata=metadata)
    assert trace in await stage.sql("SELECT trace_context FROM broadcast")


async def test_one_line_a_call_and_no_secret_in_it(stage: Stage) -> None:
    bad = pb.BroadcastSpec(destinations=[destination("http://x/y")])
    with capture_logs() as logs:
        await stage.create("show-1", request_id="r", destinations=[destination("rtmps://live.example.com/app")])
        await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1", host_identity="ann"))
        await refused(stage.stub.CreateBroadcast(rpc.CreateBroadcastRequest(spec=bad)))
        made = await stage.create()
    lines = [entry for entry in logs if entry["event"] == "rpc"]
    told = [(entry["method"], entry["code"], entry.get("broadcast_id"), entry.get("reason")) for entry in lines]
    assert told == [
        ("CreateBroadcast", "OK", "show-1", None),
        ("StartBroadcast", "OK", "show-1", None),
        ("CreateBroadcast", "INVALID_ARGUMENT", None, "INVALID_FIELD"),
        ("CreateBroadcast", "OK", made.id, None),
    ]
    assert lines[0]["request_id"] == "r"
    assert KEY not in str(logs)
    assert "host-token" not in str(logs)


async def test_a_database_that_is_gone_is_unavailable(stage: Stage) -> None:
    await stage.database.close()
    refusal = await refused(stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="show-1")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refusal.retry_after is not None
    assert 1 <= refusal.retry_after <= 1.5


async def test_a_burst_is_shed_in_words_and_stop_gets_through(database_url: str) -> None:
    options = ApiOptions(host="127.0.0.1", unary_limit=1)
    async with api(database_url, options=options) as stage:
        await stage.create("held")
        await stage.create("show-1")
        async with stage.database.transaction() as connection:
            await connection.execute("SELECT 1 FROM broadcast WHERE id = 'held' FOR UPDATE")
            waiting = asyncio.ensure_future(stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="held")))
            blocked = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            await eventually(lambda: stage.sql(blocked))
            refusal = await refused(stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="show-1")))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refusal.info.metadata == {"limit": "1"}
            assert refusal.retry_after
            await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1"))
        await waiting
        # A call that only waits takes no place.
        long = rpc.StartBroadcastRequest(broadcast_id="held", wait=seconds(30))
        waiting = asyncio.ensure_future(stage.stub.StartBroadcast(long))
        await eventually(lambda: stage.woken.count("held") == 2)
        assert (await stage.get("held")).status.state == pb.BROADCAST_STATE_STARTING
        await stage.becomes("held", "READY")
        await waiting


async def test_no_call_of_a_burst_is_cancelled(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.GetBroadcastRequest(broadcast_id="show-1")

    async def code() -> tuple[grpc.StatusCode, str]:
        try:
            await stage.stub.GetBroadcast(request)
        except grpc.aio.AioRpcError as error:
            return error.code(), Refusal.of(error).reason
        return grpc.StatusCode.OK, ""

    codes = set(await asyncio.gather(*(code() for _ in range(1500))))
    assert (grpc.StatusCode.OK, "") in codes
    assert codes <= {(grpc.StatusCode.OK, ""), (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")}


async def test_health_says_whether_this_replica_serves(stage: Stage) -> None:
    health = cast("Any", health_pb2_grpc).HealthStub(stage.channel)
    statuses = health_pb2.HealthCheckResponse

    async def check(service: str) -> int:
        return (await health.Check(health_pb2.HealthCheckRequest(service=service))).status

    names = ("", "broadcast.v1.BroadcastService")
    assert [await check(name) for name in names] == [statuses.SERVING] * 2
    await stage.server.set_serving(False)
    assert [await check(name) for name in names] == [statuses.NOT_SERVING] * 2
    await stage.server.set_serving(True)
    assert await check("") == statuses.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check("nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_describes_the_service(stage: Stage) -> None:
    reflection = cast("Any", reflection_pb2_grpc).ServerReflectionStub(stage.channel)
    call = reflection.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    services = {each.name for each in answer.list_services_response.service}
    assert {"broadcast.v1.BroadcastService", "grpc.health.v1.Health"} <= services


async def test_a_second_server_on_the_port_fails(stage: Stage, database_url: str) -> None:
    with pytest.raises(CannotListen, match=str(stage.port)):
        async with api(database_url, options=ApiOptions(host="127.0.0.1", port=stage.port)):
            pass
    await stage.create("show-1")


async def test_drain_answers_those_who_wait(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(30))
    waiting = asyncio.ensure_future(stage.stub.StartBroadcast(request))
    await eventually(lambda: stage.woken)
    begun = time.monotonic()
    await stage.server.drain(grace=50)
    assert (await waiting).broadcast.status.state == pb.BROADCAST_STATE_STARTING
    assert time.monotonic() - begun < 25
