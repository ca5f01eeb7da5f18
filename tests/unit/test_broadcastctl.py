"""broadcastctl against a real server: what is printed, what is not, and how it exits."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grpc
import pytest
from aiohttp import web

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1.health_pb2 import CHAIN_PART_DESTINATION, CHAIN_PART_EGRESS, BroadcastHealth
from broadcast_client.ctl import main, run
from broadcast_client.ctl.arguments import a_duration
from broadcast_client.ctl.broadcasts import SpecFields
from broadcast_client.ctl.chain import show_health
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.program import APP, parse
from broadcast_client.ctl.render import as_dict, human, plain
from broadcast_client.ctl.timeline import Timeline
from tests.fakes.broadcast_service import HOST_TOKEN, FakeServer, FakeService, Hang
from tests.ports import free_port
from tests.waiting import eventually

PARTS = ["room", "live stream", "host", "egress", "ingest", "playable", "ended"]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Ctl = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def service(server: FakeServer) -> FakeService:
    return server.service


@pytest.fixture
def ctl(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    monkeypatch.setenv("BROADCAST_TARGET", server.target)

    async def ctl(*argv: str) -> Result:
        code = await run(argv)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return ctl


async def test_create_makes_the_spec_of_the_options(ctl: Ctl, service: FakeService, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("key-of-b\n")
    result = await ctl(
        *("create", "--id", "show", "--title", "Evening", "--owner", "acme", "--label", "team=a", "--label", "env=x"),
        *("--encoding", "1080p_30", "--delivery", "MANUAL", "--latency", "low", "--layout", "speaker"),
        *("--destination", "a=rtmps://a.example/app,key-of-a", "--destination", f"b=rtmp://b.example/app,@{key}"),
        *("--reconnect-window", "120s", "--max-duration", "1h30m", "--test"),
    )
    assert result.code == 0
    [request] = service.requests("CreateBroadcast")
    spec = request.spec
    assert (request.broadcast_id, spec.title, spec.owner_id, spec.layout) == ("show", "Evening", "acme", "speaker")
    assert dict(request.labels) == {"team": "a", "env": "x"}
    assert spec.encoding.preset == pb.ENCODING_PRESET_1080P_30
    assert (spec.delivery_policy, spec.latency_mode) == (pb.DELIVERY_POLICY_MANUAL, pb.LATENCY_MODE_LOW)
    assert [(each.name, each.url, each.stream_key) for each in spec.destinations] == [
        ("a", "rtmps://a.example/app", "key-of-a"),
        ("b", "rtmp://b.example/app", "key-of-b"),
    ]
    assert (spec.reconnect_window.seconds, spec.max_duration.seconds, spec.test) == (120, 5400, True)
    assert "show" in result.out
    assert "1h30m" in result.out
    assert "key-of" not in result.out + result.err


async def test_create_from_a_file(ctl: Ctl, service: FakeService, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"title": "from file", "layout": "grid", "max_duration": "600s"}))
    result = await ctl("create", "--file", str(file), "--title", "from option", "--json")
    assert result.records[0]["spec"] == {"title": "from option", "layout": "grid", "max_duration": "600s"}

    file.write_text('{"titel": "wrong"}')
    result = await ctl("create", "--file", str(file))
    assert result.code == 2
    assert "titel" in result.err
    assert (await ctl("create", "--file", str(tmp_path / "none.json"))).code == 2
    assert len(service.requests("CreateBroadcast")) == 1


async def test_list_prints_a_table_or_lines_of_json(ctl: Ctl, service: FakeService) -> None:
    service.put("show", "LIVE", change=lambda each: each.labels.update(team="a"))
    service.put("other", change=lambda each: _title(each, "[red]not markup[/red]\x1b[31m"))

    result = await ctl("list")
    header, other, show = result.out.splitlines()
    assert header.split() == ["ID", "STATE", "FOR", "REASON", "TITLE", "OWNER", "LABELS"]
    assert other.split()[:2] == ["other", "CREATED"]
    assert "[red]not markup[/red]" in other
    assert "\x1b" not in other
    assert [each for each in show.split() if not each.endswith("s")] == ["show", "LIVE", "BECAME_LIVE", "team=a"]

    result = await ctl("--json", "list", "--state", "live", "--label", "team=a")
    [record] = result.records
    assert (record["id"], record["status"]["state"]) == ("show", "BROADCAST_STATE_LIVE")
    assert record["create_time"].endswith("Z")

    result = await ctl("list", "--limit", "1", "--json")
    assert [each["id"] for each in result.records] == ["other"]
    assert "more than 1" in result.err


def _title(broadcast: pb.Broadcast, title: str) -> None:
    broadcast.spec.title = title


async def test_get_tells_all_that_people_look_for(ctl: Ctl, service: FakeService) -> None:
    def detailed(broadcast: pb.Broadcast) -> None:
        broadcast.spec.destinations.add(name="tube", url="rtmp://tube.example/app")
        broadcast.status.destinations.add(name="tube", state=pb.DESTINATION_STATE_FAILED, message="refused")
        broadcast.status.playback.hls_url = "https://stream.example/abc.m3u8"
        broadcast.status.conditions.add(type=pb.CONDITION_TYPE_PLAYABLE, message="nobody knows")
        broadcast.status.conditions.add(type=99, met=False)  # type: ignore[arg-type]
        error = broadcast.status.last_error
        error.provider, error.operation, error.code, error.message = "mux", "CreateLiveStream", "429", "slow down"

    service.put("show", "INTERRUPTED", met=["ROOM_READY"], change=detailed)
    result = await ctl("get", "show")
    lines = [line.split() for line in re.sub(r"\b[\d.]+s\b", "SOME", result.out).splitlines()]
    assert ["id", "show"] in lines
    assert ["playback", "https://stream.example/abc.m3u8"] in lines
    assert ["ROOM_READY", "yes", "SOME"] in lines
    assert ["PLAYABLE", "unknown", "nobody", "knows"] in lines
    assert ["99", "no"] in lines
    assert ["tube", "FAILED", "rtmp://tube.example/app", "refused"] in lines
    assert "mux CreateLiveStream: 429: slow down (not tried again)" in result.out


async def test_start_prints_the_token_only_when_asked(ctl: Ctl, service: FakeService) -> None:
    service.put("show")
    result = await ctl("start", "show")
    assert result.code == 0
    assert "READY" in result.out
    assert not service.requests("StartBroadcast")[0].HasField("wait")

    service.put("two")
    result = await ctl("start", "two", "--wait", "20s", "--host", "ann")
    assert result.out.splitlines()[-1] == HOST_TOKEN
    assert service.requests("StartBroadcast")[1].wait.seconds == 20

    service.put("three")
    result = await ctl("start", "three", "--host", "ann", "--json")
    assert result.records[0]["host_access"]["token"] == HOST_TOKEN


async def test_start_that_waits_tells_how_it_ended(ctl: Ctl, service: FakeService) -> None:
    async def nothing(_: str) -> None: ...

    async def fails(broadcast_id: str) -> None:
        service.put(broadcast_id, "FAILED", reason="START_TIMEOUT")

    service.put("show")
    service.on_start = nothing
    result = await ctl("start", "show", "--wait", "1s")
    assert (result.code, result.err) == (3, "broadcastctl: show is CREATED, not READY, after 1 s\n")
    assert (await ctl("start", "show")).code == 0

    service.on_start = fails
    result = await ctl("start", "show", "--wait", "1s")
    assert (result.code, result.err) == (4, "broadcastctl: show is FAILED (START_TIMEOUT)\n")


async def test_stop_on_air_and_delete(ctl: Ctl, service: FakeService) -> None:
    service.put("show", change=_manual)
    result = await ctl("on-air", "show", "on")
    assert "MANUAL, on air" in result.out
    assert "MANUAL, backstage" in (await ctl("on-air", "show", "off")).out
    result = await ctl("stop", "show", "--note", "over", "--wait", "1s", "--json")
    assert result.records[0]["status"]["state"] == "BROADCAST_STATE_ENDED"
    assert service.requests("StopBroadcast")[0].note == "over"
    assert (await ctl("delete", "show")).out == "show is deleted\n"
    assert (await ctl("delete", "show")).code == 1
    assert (await ctl("delete", "show", "--allow-missing")).code == 0

    async def nothing(_: str) -> None: ...

    service.put("stuck", "STOPPING")
    service.on_stop = nothing
    assert (await ctl("stop", "stuck", "--wait", "1s")).code == 3
    assert (await ctl("stop", "stuck")).code == 0


def _manual(broadcast: pb.Broadcast) -> None:
    broadcast.spec.delivery_policy = pb.DELIVERY_POLICY_MANUAL


async def test_host_access_prints_the_token(ctl: Ctl, service: FakeService) -> None:
    service.put("show")
    result = await ctl("host-access", "show", "ann", "--ttl", "5m")
    assert result.out.splitlines()[-1] == HOST_TOKEN
    assert service.requests("IssueHostAccess")[0].ttl.seconds == 300
    result = await ctl("host-access", "show", "ann", "--json")
    assert result.records[0]["token"] == HOST_TOKEN


def test_secrets_are_left_out_of_json() -> None:
    broadcast = pb.Broadcast(id="show")
    broadcast.spec.destinations.add(name="a", url="rtmp://a", stream_key="secret-key")
    assert as_dict(broadcast)["spec"] == {"destinations": [{"name": "a", "url": "rtmp://a"}]}
    assert broadcast.spec.destinations[0].stream_key == "secret-key"


async def test_update_changes_what_is_named_and_keeps_the_rest(ctl: Ctl, service: FakeService) -> None:
    def detailed(broadcast: pb.Broadcast) -> None:
        broadcast.labels.update(team="a", env="x")
        broadcast.spec.destinations.add(name="a", url="rtmp://a")
        broadcast.spec.destinations.add(name="b", url="rtmp://b")

    service.put("show", change=detailed)
    assert (await ctl("update", "show", "--title", "Night", "--layout", "speaker")).code == 0
    assert list(service.requests("UpdateBroadcast")[0].update_mask.paths) == ["spec.title", "spec.layout"]
    await ctl("update", "show", "--label", "team=b", "--remove-label", "env")
    assert dict(service.broadcasts["show"].labels) == {"team": "b"}
    result = await ctl(
        "update", "show", "--add-destination", "c=rtmp://c,secret-of-c", "--remove-destination", "a", "--json"
    )
    request = service.requests("UpdateBroadcast")[-1]
    assert [(each.name, each.stream_key) for each in request.spec.destinations] == [("b", ""), ("c", "secret-of-c")]
    assert request.etag == "3", "of what was read: a change in between is refused"
    assert "secret-of-c" not in result.out
    assert service.broadcasts["show"].spec.title == "Night"

    result = await ctl("update", "show", "--remove-destination", "zzz")
    assert (result.code, result.err) == (2, "broadcastctl: show has no destination 'zzz'\n")
    assert (await ctl("update", "show")).code == 2


async def test_events_are_told_and_followed_to_the_end(ctl: Ctl, service: FakeService) -> None:
    service.put("show")
    service.put("show", "STARTING", reason="ROOM_CREATED")
    result = await ctl("events", "show")
    assert [line.split()[2:5] for line in result.out.splitlines()] == [
        ["reconciler", "CREATED", "BECAME_CREATED"],
        ["reconciler", "STARTING", "ROOM_CREATED"],
    ]

    following = asyncio.create_task(ctl("events", "show", "--follow", "--json"))
    await eventually(lambda: service.open_streams)
    service.put("show", "LIVE")
    service.put("show", "ENDED")
    records = (await following).records
    assert [each["reason"] for each in records] == ["BECAME_CREATED", "ROOM_CREATED", "BECAME_LIVE", "BECAME_ENDED"]
    assert [each["revision"] for each in records] == ["1", "2", "3", "4"]


async def test_watch_prints_changes_through_a_restart(
    server: FakeServer, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.put("show")
    told = ""

    def printed(text: str) -> bool:
        nonlocal told
        told += capsys.readouterr().out
        return text in told

    watching = asyncio.create_task(run(["--target", server.target, "watch", "--id", "show"]))
    await eventually(lambda: printed("CREATED"))
    await server.stop()
    service.put("show", "LIVE")
    service.put("other", "LIVE")
    await server.start()
    await eventually(lambda: printed("LIVE"))
    service.remove("show")
    await eventually(lambda: printed("removed"))
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert [re.findall("CREATED|LIVE|updated|removed", line) for line in told.splitlines()] == [
        ["CREATED", "CREATED"],
        ["updated", "LIVE", "LIVE"],
        ["removed", "LIVE", "LIVE"],
    ]


async def test_watch_as_json_has_tokens(
    server: FakeServer, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.put("show")
    lines: list[dict[str, Any]] = []

    def printed(count: int) -> bool:
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return len(lines) >= count

    watching = asyncio.create_task(run(["--target", server.target, "watch", "--json"]))
    await eventually(lambda: printed(2))
    service.put("show", "LIVE")
    await eventually(lambda: printed(3))
    service.compacted = 99
    service.put("show", "ENDED")
    await server.stop()
    await server.start()
    await eventually(lambda: printed(6))
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert lines[0]["change"]["type"] == "CHANGE_TYPE_SNAPSHOT"
    assert lines[1] == {"snapshot_complete": {}, "resume_token": "r1"}
    assert lines[2]["resume_token"] == "r2"
    assert {"reset": {"reason": "RESUME_TOKEN_EXPIRED"}} in lines


async def test_errors_are_one_line_with_reason_and_fields(ctl: Ctl, service: FakeService) -> None:
    service.fail(
        "CreateBroadcast",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        message="a field\nis wrong",
        fields={"spec.title": "too long"},
    )
    result = await ctl("create")
    assert (result.code, result.out) == (1, "")
    assert result.err == "broadcastctl: INVALID_FIELD: a field is wrong; spec.title: too long\n"

    service.fail("CreateBroadcast", grpc.StatusCode.INTERNAL, reason="INTERNAL", metadata={"trace_id": "4bf9"})
    assert (await ctl("create")).err == "broadcastctl: INTERNAL: told to fail; trace 4bf9\n"

    result = await ctl("get", "nobody")
    assert result == (1, "", "broadcastctl: BROADCAST_NOT_FOUND: there is no such broadcast\n")


async def test_an_error_tells_the_only_violation_once(ctl: Ctl, service: FakeService) -> None:
    service.fail(
        "CreateBroadcast",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        message="spec.title: too long",
        fields={"spec.title": "too long"},
    )
    assert (await ctl("create")).err == "broadcastctl: INVALID_FIELD: spec.title: too long\n"


async def test_errors_and_notices_are_json_where_the_output_is(ctl: Ctl, service: FakeService) -> None:
    result = await ctl("get", "nobody", "--json")
    assert (result.code, result.out) == (1, "")
    assert json.loads(result.err) == {
        "error": {
            "code": "NOT_FOUND",
            "reason": "BROADCAST_NOT_FOUND",
            "message": "there is no such broadcast",
            "method": "GetBroadcast",
            "metadata": {"broadcast_id": "nobody"},
            "violations": [],
            "retry_after_seconds": None,
            "exit_code": 1,
        }
    }
    service.put("show")
    service.put("other")
    result = await ctl("list", "--limit", "1", "--json")
    assert json.loads(result.err) == {"notice": "there are more than 1: --limit 0 shows all"}
    result = await ctl("update", "show", "--json")
    assert result.code == 2
    assert json.loads(result.err)["error"]["message"] == "nothing to change: see broadcastctl update --help"


def test_a_wrong_command_line_is_told_as_json_where_the_output_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["create", "--json", "--max-duration", "soon"])
    assert caught.value.code == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["exit_code"], "'soon' is no duration" in error["message"]) == (2, True)


async def test_a_call_that_takes_long_is_told_to_be_tried_again(
    ctl: Ctl, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody should look at a silent terminal for half a minute."""
    service.put("show")
    service.fail("GetBroadcast", grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE", message="frozen")
    assert (await ctl("get", "show")).err == "", "most calls are answered soon"
    monkeypatch.setattr("broadcast_client.ctl.output._PATIENCE_S", 0.0)
    service.fail("GetBroadcast", grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE", message="frozen")
    result = await ctl("get", "show")
    assert result.code == 0
    assert re.fullmatch(
        r"broadcastctl: GetBroadcast: STORE_UNAVAILABLE \(frozen\), again in 0\.\d\d s\n", result.err
    ), result.err


LONG_ID = "a-broadcast-with-an-id-of-sixty-three-characters-" + "x" * 14
LONG_REASON = "A_REASON_OF_A_PROVIDER_THAT_IS_RATHER_LONG"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a terminal of 80 columns."""
    monkeypatch.setattr("broadcast_client.ctl.output._UNLIMITED", 80)


@pytest.mark.usefixtures("narrow")
async def test_no_id_and_no_reason_is_cut_on_a_terminal_of_80_columns(ctl: Ctl, service: FakeService) -> None:
    def described(broadcast: pb.Broadcast) -> None:
        broadcast.spec.title = "a title that is long enough to be folded into several lines " * 3
        broadcast.labels["team"] = "x" * 100
        broadcast.status.conditions.add(
            type=pb.CONDITION_TYPE_PLAYABLE, met=False, reason=LONG_REASON, message="no segment " * 20
        )

    service.put(LONG_ID, "LIVE", reason=LONG_REASON, change=described)
    for command in (["list"], ["get", LONG_ID]):
        result = await ctl(*command)
        assert LONG_ID in result.out
        assert LONG_REASON in result.out
        assert "…" not in result.out
    listed = (await ctl("list")).out
    assert re.sub(r"\s", "", listed).count("x") >= 114, "a label is folded, not cut"


@pytest.mark.usefixtures("narrow")
async def test_a_table_that_fits_is_no_wider_than_the_terminal(ctl: Ctl, service: FakeService) -> None:
    service.put("show", "LIVE", change=lambda each: _title(each, "some words " * 30))
    result = await ctl("list")
    assert max(map(len, result.out.splitlines())) <= 80
    assert result.out.count("some words") >= 20


@pytest.mark.usefixtures("narrow")
def test_no_reason_of_health_is_cut_on_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    health = BroadcastHealth(broadcast_id=LONG_ID)
    for part in (CHAIN_PART_EGRESS, CHAIN_PART_DESTINATION):
        health.parts.add(part=part, name="d" * 63, reason=LONG_REASON, message="the egress does not send " * 10)
    show_health(Output(as_json=False), health)
    out = capsys.readouterr().out
    assert out.count(LONG_REASON) == 2
    assert "d" * 63 in out
    assert "…" not in out
    assert out.count("egress does not") >= 2


def test_the_version_is_that_of_the_installed_client(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"broadcastctl {version('broadcast-client')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = APP.generate_completion(shell=shell)
    assert {"watch-health", "host-access", "latency", "json"} <= set(re.findall(r"[a-z]+(?:-[a-z]+)*", script))


def test_every_field_of_the_spec_is_an_option_or_needs_a_file() -> None:
    """A field that is added to the contract becomes an option by itself."""
    options = {option.path[0]: option.name for option in SpecFields.options}
    fields = [field.name for field in pb.BroadcastSpec.DESCRIPTOR.fields]
    assert sorted({*fields} - {*options}) == ["cost_cap", "destinations", "fallback_policy"]
    assert options["title"] == "--title"
    assert (options["owner_id"], options["latency_mode"], options["delivery_policy"]) == (
        "--owner",
        "--latency",
        "--delivery",
    )


async def test_options_that_no_line_of_code_names_reach_the_spec(ctl: Ctl, service: FakeService) -> None:
    result = await ctl("create", "--playback", "signed", "--recording", "discard", "--audio-only")
    assert result.code == 0
    spec = service.requests("CreateBroadcast")[0].spec
    assert (spec.playback_policy, spec.recording_policy, spec.audio_only) == (
        pb.PLAYBACK_POLICY_SIGNED,
        pb.RECORDING_POLICY_DISCARD,
        True,
    )
    await ctl("update", "made-1", "--encoding", "480p_30", "--max-duration", "1h")
    request = service.requests("UpdateBroadcast")[0]
    assert list(request.update_mask.paths) == ["spec.encoding", "spec.max_duration"]
    assert (request.spec.encoding.preset, request.spec.max_duration.seconds) == (pb.ENCODING_PRESET_480P_30, 3600)


async def test_a_time_is_an_option_with_its_zone(ctl: Ctl, service: FakeService) -> None:
    result = await ctl("create", "--scheduled-start-time", "2026-12-24T21:00:00+01:00")
    assert result.code == 0
    spec = service.requests("CreateBroadcast")[0].spec
    assert spec.scheduled_start_time.ToJsonString() == "2026-12-24T20:00:00Z"


@pytest.mark.parametrize("wrong", ["tonight", "2026-12-24T20:00:00", "20:00Z"])
def test_a_time_without_its_zone_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["create", "--scheduled-start-time", wrong])
    assert "2026-12-24T20:00:00Z" in capsys.readouterr().err


def test_limits_in_the_help_are_those_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "create": ["at most 200 characters", "1m to 12h", "LOW, REDUCED or STANDARD"],
        "start": ["for READY, at most 30s"],
        "host-access": ["1m to 6h"],
        "webhooks": ["livekit or mux"],
    }
    for command, texts in told.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        out = capsys.readouterr().out
        assert [text for text in texts if text not in out] == []


def test_without_its_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_spec(name: str) -> object:
        return None if name == "cyclopts" else name

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert main(["list"]) == 2
    err = capsys.readouterr().err
    assert err == "broadcastctl: not installed whole: pip install 'cyclopts>=5.5' 'rich>=15' (the extra cli)\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "COMMAND"),
        (["get"], "ID"),
        (["create", "--max-duration", "soon"], "'soon' is no duration such as 20s"),
        (["create", "--label", "team"], "'team' is not key=value"),
        (["create", "--encoding", "9000P"], "is none of 480P_30, 720P_30"),
        (["create", "--destination", "a=rtmp://a,@/nowhere"], "the key of a"),
        (["list", "--state", "ALIVE"], "no such state: 'ALIVE'"),
        (["on-air", "show", "maybe"], "maybe"),
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert "exit codes:" in out
        assert "130  Ctrl-C" in out


def test_target_is_taken_from_before_and_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROADCAST_TARGET", "of-environment:1")
    assert parse(["list"]).target == "of-environment:1"
    assert parse(["--target", "a:1", "list"]).target == "a:1"
    assert parse(["list", "--target", "b:1", "--json"]).target == "b:1"
    assert parse(["--json", "list"]).json is True


@pytest.mark.parametrize(
    ("text", "seconds"), [("20s", 20), ("1h30m", 5400), ("500ms", 0.5), ("90", 90), ("1.5m", 90), ("2m5s", 125)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert a_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.04, "0.0s"), (3.21, "3.2s"), (42, "42s"), (59.7, "1m00s"), (65, "1m05s"), (7380, "2h03m")],
)
def test_durations_are_told(seconds: float, text: str) -> None:
    assert human(seconds) == text
    assert human(3 * 86400 + 4 * 3600) == "3d04h"


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\r\nc\u202ed") == "a [2Jb  c d"


def _broadcast(state: str, *, state_second: int = 0, **met: int) -> pb.Broadcast:
    broadcast = pb.Broadcast()
    broadcast.status.state = pb.BroadcastState.Value(f"BROADCAST_STATE_{state}")
    broadcast.status.start_time.seconds = 1000
    broadcast.status.state_time.seconds = 1000 + state_second
    for name, second in met.items():
        condition = broadcast.status.conditions.add(type=pb.ConditionType.Value(f"CONDITION_TYPE_{name}"), met=True)
        condition.transition_time.seconds = 1000 + second
    return broadcast


def test_timeline_counts_each_part_from_what_it_waited_for() -> None:
    timeline = Timeline()
    assert timeline.update(pb.Broadcast()) == []
    first = timeline.update(_broadcast("STARTING", STREAM_READY=3, ROOM_READY=1))
    assert [(each.name, each.took) for each in first] == [("room", 1), ("live stream", 3)]
    assert timeline.update(_broadcast("READY", STREAM_READY=3, ROOM_READY=1)) == []
    [host] = timeline.update(_broadcast("READY", HOST_PUBLISHING=10))
    assert (host.began, host.done) == (3, 10)
    [egress] = timeline.update(_broadcast("READY", EGRESS_RUNNING=14))
    assert egress.took == 4
    # A part that comes again is not told again: its first time is what counts.
    assert timeline.update(_broadcast("INTERRUPTED", EGRESS_RUNNING=60)) == []
    timeline.update(_broadcast("STOPPING", state_second=100))
    [ended] = timeline.update(_broadcast("ENDED", state_second=104))
    assert (ended.began, ended.done, ended.took) == (100, 104, 4)


class Simulator:
    """The control endpoint of the LiveKit simulator: a host that joins makes the broadcast LIVE."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.calls: list[tuple[str, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((request.path, await request.json()))
        if request.path == "/_control/join":
            [broadcast_id] = self.service.broadcasts
            await self.service.become_live(broadcast_id)
        return web.json_response({})


@pytest.fixture
async def simulator(service: FakeService) -> AsyncIterator[Simulator]:
    simulator = Simulator(service)
    application = web.Application()
    application.router.add_post("/_control/{what}", simulator.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    simulator.url = site.name
    yield simulator
    await runner.cleanup()


async def test_demo_runs_a_whole_broadcast(ctl: Ctl, service: FakeService, simulator: Simulator) -> None:
    result = await ctl("demo", "--id", "show", "--livekit-control", simulator.url, "--live-for", "10ms")
    assert (result.code, result.err) == (0, "")
    assert service.broadcasts["show"].status.state == pb.BROADCAST_STATE_ENDED
    assert simulator.calls == [
        ("/_control/join", {"token": HOST_TOKEN, "publish": ["camera", "microphone"]}),
        ("/_control/leave", {"room": "show", "identity": "demo-host"}),
    ]
    lines = result.out.splitlines()
    told = [line.split("s  ")[1].strip() for line in lines[:6]]
    assert told == PARTS[:6]
    assert lines[-8].split() == ["STAGE", "TOOK", "AT"]
    assert [line.rsplit(maxsplit=2)[0] for line in lines[-7:]] == PARTS
    assert HOST_TOKEN not in result.out


async def test_demo_misses_no_stage_though_its_watch_opens_late(
    ctl: Ctl, service: FakeService, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the show was over before the watch that draws it had begun."""
    started: list[int] = []
    watched = service._watched  # pyright: ignore[reportPrivateUsage]

    async def late(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.heartbeat_interval.seconds == 5:
            await asyncio.sleep(0.7)
            started.append(len(service.requests("StartBroadcast")))
        async for message in watched(request, context):
            yield message

    monkeypatch.setattr(service, "_watched", late)
    result = await ctl("demo", "--json", "--livekit-control", simulator.url, "--live-for", "0s")
    assert result.code == 0
    assert [each["stage"] for each in result.records] == PARTS
    assert started == [0], "it was started before anybody watched"


async def test_demo_as_json_tells_each_stage(ctl: Ctl, simulator: Simulator) -> None:
    result = await ctl("demo", "--json", "--livekit-control", simulator.url, "--live-for", "0s")
    assert result.code == 0
    assert [each["stage"] for each in result.records] == PARTS
    for each in result.records:
        assert each["broadcast_id"] == "made-1"
        assert each["took_seconds"] == pytest.approx(each["done_seconds"] - each["began_seconds"], abs=0.002)


async def test_demo_draws_bars_on_a_terminal(ctl: Ctl, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    result = await ctl("demo", "--id", "show", "--livekit-control", simulator.url, "--live-for", "300ms")
    assert result.code == 0
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.out)
    for part in PARTS[:6]:
        assert re.search(rf"^{part} +·*━+·* +\d+\.\d\ds", drawn, re.MULTILINE), part
    assert "\x1b[1;32mLIVE" in result.out


async def test_demo_of_manual_delivery_goes_on_air(ctl: Ctl, service: FakeService, simulator: Simulator) -> None:
    result = await ctl("demo", "--delivery", "MANUAL", "--livekit-control", simulator.url, "--live-for", "0s")
    assert result.code == 0
    assert [request.on_air for request in service.requests("SetOnAir")] == [True]


async def test_demo_without_simulator_asks_a_person(ctl: Ctl, service: FakeService) -> None:
    control = f"http://127.0.0.1:{free_port()}"
    running = asyncio.create_task(ctl("demo", "--id", "show", "--livekit-control", control, "--live-for", "0s"))
    # The second watch is that of the wait for LIVE, which begins after the person was asked.
    await eventually(lambda: len(service.requests("WatchBroadcasts")) >= 3)
    await service.become_live("show")
    result = await running
    assert result.code == 0
    assert f"https://meet.livekit.io/custom?liveKitUrl=ws%3A%2F%2F127.0.0.1%3A7880&token={HOST_TOKEN}" in result.out


async def test_demo_that_fails_stops_its_broadcast(ctl: Ctl, service: FakeService, simulator: Simulator) -> None:
    async def fails(broadcast_id: str) -> None:
        await service.become_ready(broadcast_id)
        service.put(broadcast_id, "FAILED", reason="QUOTA")

    service.on_start = fails
    result = await ctl("demo", "--livekit-control", simulator.url)
    assert (result.code, result.err) == (4, "broadcastctl: made-1 is FAILED (QUOTA)\n")

    async def nothing(_: str) -> None: ...

    service.on_start = nothing
    result = await ctl("demo", "--livekit-control", simulator.url, "--timeout", "1500ms")
    assert (result.code, result.err) == (3, "broadcastctl: made-2 is CREATED, not LIVE or READY, after 1.5 s\n")
    assert service.broadcasts["made-2"].status.state == pb.BROADCAST_STATE_ENDED


async def test_command_as_a_process(server: FakeServer, service: FakeService) -> None:
    service.put("show", "LIVE")
    code, out, err = await _process("--target", server.target, "get", "show", "--json")
    assert (code, json.loads(out)["id"], err) == (0, "show", "")
    await server.stop()
    code, out, err = await _process("--target", server.target, "get", "show")
    assert (code, out) == (1, "")
    assert err.startswith("broadcastctl: UNAVAILABLE: ")
    assert len(err.splitlines()) == 1


async def test_interrupt_is_quiet(server: FakeServer, service: FakeService) -> None:
    service.faults["GetBroadcast"].append(Hang())
    process = await _start("--target", server.target, "get", "show")
    await eventually(lambda: service.received)
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


async def test_closed_pipe_is_quiet(server: FakeServer, service: FakeService) -> None:
    ours, theirs = os.pipe()
    process = await _start("--target", server.target, "watch", "--json", stdout=theirs)
    os.close(theirs)
    assert b"snapshot_complete" in await asyncio.to_thread(os.read, ours, 1000)
    os.close(ours)
    service.put("show")
    assert await process.communicate() == (None, b"")
    assert process.returncode == 1


async def _start(*argv: str, stdout: int = subprocess.PIPE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broadcast_client.ctl", *argv, stdout=stdout, stderr=subprocess.PIPE
    )


async def _process(*argv: str) -> tuple[int | None, str, str]:
    process = await _start(*argv)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
