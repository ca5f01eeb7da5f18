"""The client and broadcastctl, on the API as it is served."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from broadcast.v1 import health_pb2 as health_pb
from broadcast.v1.broadcast_pb2 import Destination
from broadcast_client import BroadcastClient, BroadcastNotFound, HealthNews, InvalidField, RetryPolicy, broadcast_filter
from broadcast_client.ctl import run
from service.api.transport.server import ApiOptions
from service.domain.resources import Output, OutputState
from tests.integration.api_stage import Stage, api
from tests.integration.health_stage import Written
from tests.unit.health_facts import EGRESS, EMPTY, ROOM
from tests.waiting import eventually


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


@pytest.fixture
def written(stage: Stage) -> Written:
    return Written(stage)


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[BroadcastClient]:
    async with BroadcastClient(f"127.0.0.1:{stage.port}") as client:
        yield client


class Result(NamedTuple):
    code: int
    out: str
    err: str


Ctl = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
def ctl(stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    monkeypatch.setenv("BROADCAST_TARGET", f"127.0.0.1:{stage.port}")

    async def ctl(*argv: str) -> Result:
        capsys.readouterr()
        code = await run(argv)
        captured = capsys.readouterr()
        # What the replica logs goes the same way.
        lines = [line for line in captured.out.splitlines() if "[info" not in line]
        return Result(code, "\n".join(lines), captured.err)

    return ctl


async def test_the_client_asks_and_reports(client: BroadcastClient, written: Written) -> None:
    await written.live("show")
    await written.plays("show")
    stats = health_pb.HostStats(connection_quality=health_pb.CONNECTION_QUALITY_POOR, frame_rate=12.5)
    assert await client.report_host_stats("show", "ann", stats) == 5
    health = await client.get_health("show")
    [publisher] = health.publishers
    assert publisher.stats.frame_rate == 12.5
    explanation = await client.explain("show")
    assert [cause.code for cause in explanation.causes] == ["HOST_UPLINK_POOR"]
    with pytest.raises(BroadcastNotFound):
        await client.explain("never")
    with pytest.raises(InvalidField) as caught:
        await client.report_host_stats("show", "ann", health_pb.HostStats(packet_loss_ratio=2))
    assert caught.value.violations[0][0] == "stats.packet_loss_ratio"


async def next_news(watch: Any) -> HealthNews:
    return await asyncio.wait_for(anext(watch), 15)


async def test_a_watch_tells_what_is_new(client: BroadcastClient, written: Written) -> None:
    await written.live("show")
    async with client.watch_health(broadcast_filter(ids=["show"]), interval=1) as watch:
        first = await next_news(watch)
        assert (first.begins, [each.broadcast_id for each in first.healths]) == (True, ["show"])
        assert first.complete
        await written.moves("show")
        while not (news := await next_news(watch)).healths:
            pass
        assert (news.begins, news.complete, news.skipped) == (False, False, 0)
        assert news.time > first.time


async def test_a_watch_outlives_the_replica_and_begins_anew(database_url: str) -> None:
    policy = RetryPolicy(max_backoff=0.2)
    async with api(database_url) as first:
        port = first.port
        await Written(first).ready("show")
        client = BroadcastClient(f"127.0.0.1:{port}", retry=policy)
        watch = client.watch_health(interval=1)
        assert (await next_news(watch)).begins
    async with api(database_url, options=ApiOptions(host="127.0.0.1", port=port)) as second:
        await second.create("another")
        again = await next_news(watch)
        assert again.begins
        assert again.complete
        assert {each.broadcast_id for each in again.healths} == {"show", "another"}
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        await client.close()


async def test_a_watch_that_is_refused_is_over(client: BroadcastClient) -> None:
    watch = client.watch_health(interval=0.5)
    with pytest.raises(InvalidField):
        await next_news(watch)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_ctl_draws_the_chain(ctl: Ctl, written: Written) -> None:
    await written.live("show")
    await written.plays("show")
    result = await ctl("health", "show")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "show  LIVE  overall OK"
    assert "● host ── ● room ── ● egress ── ● ingest ── ● playback" in result.out
    [recording] = [line for line in lines if " recording " in line]
    assert re.search(r"● +recording +OK +[\ddhms.]+ +[\d.]+s ago +RECORDING", recording), recording
    assert "ann        unknown" in result.out
    assert "camera 1280x720 2 layers, microphone" in result.out
    assert re.search(r"next  END_BROADCAST  when its maximum duration is over  in 1[12]h", result.out)


async def test_ctl_marks_what_is_wrong(ctl: Ctl, written: Written) -> None:
    await written.live("show")
    gone = replace(EGRESS, external_id="EG_show", outputs=())
    await written.record("show", EMPTY, gone)
    result = await ctl("health", "show")
    assert "✗ host ── ● room ── ◌ egress ── ● ingest ── ? playback" in result.out


async def test_ctl_explains_with_commands_to_paste(ctl: Ctl, stage: Stage, written: Written) -> None:
    await written.ready("show")
    result = await ctl("explain", "show")
    assert result.code == 0
    assert result.out.splitlines()[:2] == [
        "show  READY",
        "Room and live stream are ready, and no host publishes yet.",
    ]
    assert "1. WAITING_FOR_HOST (host)" in result.out
    assert re.search(r"host_publishing +no +[\d.]+s ago", result.out)
    assert "→  Let a host enter the room and publish." in result.out
    assert re.search(r"next  WAIT_FOR_HOST  .* in 29m5\ds|30m", result.out)
    assert f"broadcastctl --target 127.0.0.1:{stage.port} host-access show host" in result.out
    assert "$ADDRESS" not in result.out


async def test_what_removes_a_destination_can_be_pasted(ctl: Ctl, stage: Stage, written: Written) -> None:
    places = [Destination(name=name, url=f"rtmps://93.184.216.34/{name}", stream_key="k") for name in ("one", "two")]
    await written.ready("show", destinations=places)
    failed = [Output(name="one", state=OutputState.FAILED), Output(name="two", state=OutputState.ACTIVE)]
    await written.record("show", ROOM, replace(EGRESS, outputs=(*EGRESS.outputs, *failed)))
    explained = json.loads((await ctl("--json", "explain", "show")).out)
    assert "DESTINATION_FAILED" in [cause["code"] for cause in explained["causes"]]
    [command] = [each["command"] for each in explained["overrides"] if "destination" in each["command"]]
    program, *argv = shlex.split(command.replace("$ADDRESS", f"127.0.0.1:{stage.port}"))
    assert program == "broadcastctl"
    assert (await ctl(*argv)).code == 0
    kept = json.loads((await ctl("--json", "get", "show")).out)["spec"]["destinations"]
    assert [each["name"] for each in kept] == ["two"]


async def test_ctl_prints_json_for_programs(ctl: Ctl, written: Written) -> None:
    await written.ready("show")
    explained = json.loads((await ctl("--json", "explain", "show")).out)
    assert explained["causes"][0]["code"] == "WAITING_FOR_HOST"
    assert explained["overrides"][0]["command"].count("$ADDRESS") == 1
    health = json.loads((await ctl("health", "show", "--json")).out)
    assert [part["part"] for part in health["parts"]][:2] == ["CHAIN_PART_ROOM", "CHAIN_PART_HOST"]


async def test_ctl_follows_the_health(
    ctl: Ctl, stage: Stage, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    await written.ready("show")
    task = asyncio.create_task(run(["watch-health", "--id", "show", "--interval", "1s"]))
    told = ""

    def shown(pattern: str) -> bool:
        nonlocal told
        told += capsys.readouterr().out
        return re.search(pattern, told) is not None

    await eventually(lambda: shown(r"READY +○●○○○  show"))
    await written.record("show", ROOM)
    await eventually(lambda: shown(r"READY +●●◌○○  show  egress STARTING"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_ctl_says_what_is_missing(ctl: Ctl) -> None:
    result = await ctl("explain", "never")
    assert (result.code, result.out) == (1, "")
    assert "BROADCAST_NOT_FOUND" in result.err
