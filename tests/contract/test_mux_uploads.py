"""Assets that Mux makes of files, and what becomes of recordings: sent, read, and in a simulated Mux that fetches."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web

from broadcast_sandbox.faults import Fault
from broadcast_sandbox.mp4 import mp4
from service.domain.broadcast import PlaybackPolicy, StaticRendition
from service.domain.errors import Outcome
from service.domain.ports import PlaylistSeen, UploadSeen, UploadWanted
from service.domain.resources import Recording, RecordingStatus
from service.domain.secret import Secret
from service.providers.hls import Hls
from service.providers.mux.client import Mux, Uploads, heard
from tests.contract.mux_bench import TOKEN_SECRET, running
from tests.contract.mux_bench import Mux as Bench
from tests.contract.provider_wire import Answer, Fate, Wire, reply, wire
from tests.contract.test_mux_adapter import mux_at, refusal
from tests.waiting import eventually

SIGNED = "https://shows.s3.amazonaws.com/r/1.mp4?X-Amz-Credential=AKIA&X-Amz-Signature=sig-of-the-file"
TAG = "bs1:test:first:upload:0"
WHEN = datetime(2026, 11, 1, tzinfo=UTC)
WANTED = UploadWanted(tag=TAG, url=Secret(SIGNED), title="First light", playback_policy=PlaybackPolicy.SIGNED)


def asset(**changes: Any) -> dict[str, Any]:
    values = {"id": "AS1", "created_at": str(int(WHEN.timestamp())), "status": "preparing", "passthrough": TAG}
    return {**values, **changes}


OK = reply(201, {"data": asset()})


@contextlib.asynccontextmanager
async def answering(*answers: Answer, **options: Any) -> AsyncGenerator[tuple[Mux, Wire]]:
    async with wire(*answers) as provider, mux_at(provider.url, **options) as mux:
        yield mux, provider


async def test_create_sends_the_address_the_mark_and_nothing_that_the_models_would_add() -> None:
    """inputs[].url is fetched by Mux; without a playback policy an asset has no playback id."""
    async with answering(OK) as (mux, provider):
        made = await mux.uploads.create(WANTED)
    assert made == Recording(asset_id="AS1", status=RecordingStatus.PREPARING)
    [sent] = provider.requests
    assert (sent.method, sent.path) == ("POST", "/video/v1/assets")
    assert sent.json == {
        "inputs": [{"url": SIGNED}],
        "playback_policies": ["signed"],
        "passthrough": TAG,
        "meta": {"title": "First light"},
    }


async def test_a_file_to_download_is_made_of_an_upload_too() -> None:
    async with answering(OK) as (mux, provider):
        await mux.uploads.create(replace(WANTED, static_rendition=StaticRendition.HIGHEST))
    [sent] = provider.requests
    assert sent.json["static_renditions"] == [{"resolution": "highest"}]


CALLS: dict[str, Callable[[Uploads], Awaitable[object]]] = {
    "POST create": lambda uploads: uploads.create(WANTED),
    "GET find": lambda uploads: uploads.find(TAG, since=WHEN),
    "GET tagged": lambda uploads: uploads.list_tagged("bs1:", since=WHEN, page=1),
    "GET one": lambda uploads: uploads.get("AS1"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply(400, {"error": {"type": "invalid_parameters", "messages": [f"no {SIGNED}"]}}), Outcome.REFUSED),
        (reply(401, {"error": {"type": "unauthorized", "messages": ["no"]}}), Outcome.CREDENTIALS),
        (reply(429, {"errors": ["Too many requests, retry later."]}), Outcome.THROTTLED),
        (reply(500, {"error": {"type": "x", "messages": []}}), Outcome.AMBIGUOUS),
        (reply(200, "<html>", "text/html"), Outcome.AMBIGUOUS),
        (reply(201, {"data": {}}), Outcome.AMBIGUOUS),
        (reply(201, {"data": [{"id": "AS1", "playback_ids": [7]}]}), Outcome.AMBIGUOUS),
        (Fate.CLOSE, Outcome.AMBIGUOUS),
        (Fate.HANG, Outcome.AMBIGUOUS),
    ],
)
async def test_failures(call: Callable[[Uploads], Awaitable[object]], answer: Answer, outcome: Outcome) -> None:
    async with answering(answer, longest_s=0.5 if answer is Fate.HANG else 20) as (mux, provider):
        error = await refusal(call(mux.uploads))
        assert error.outcome is outcome
        assert "sig-of-the-file" not in f"{error!r} {error.message} {error.args}"
        assert len(provider.requests) == 1


async def test_find_looks_back_to_the_intent_and_takes_only_what_was_uploaded() -> None:
    """The list cannot be filtered by passthrough, is newest first, and has the recordings of live streams in it."""
    newer = [asset(id=f"N{n}", passthrough="another") for n in range(97)]
    ours = [asset(id="U2", created_at=str(int(WHEN.timestamp()) + 9)), asset(id="U1", status="ready")]
    live = [asset(id="L1", live_stream_id="LS1")]
    old = [asset(id="OLD", created_at=str(int((WHEN - timedelta(hours=1)).timestamp()))) for _ in range(100)]
    pages = [[*newer, *ours, *live], old, [asset(id="NEVER")]]
    async with answering(*(reply(200, {"data": page}) for page in pages)) as (mux, provider):
        found = await mux.uploads.find(TAG, since=WHEN)
    assert [each.asset_id for each in found] == ["OLD"] * 100 + ["U1", "U2"]
    queries = [dict(parse_qsl(urlsplit(sent.path).query)) for sent in provider.requests]
    assert queries == [{"limit": "100", "page": "1"}, {"limit": "100", "page": "2"}]


async def test_pages_of_what_was_uploaded_end_at_the_time_that_is_asked_for() -> None:
    """What Mux recorded from a live stream is none, with whatever tag; nor is what another environment uploaded."""
    ours, live = asset(id="U1"), asset(id="L1", live_stream_id="LS1")
    foreign = [asset(id=f"F{n}", passthrough="bs1:prod:x:upload-0-0") for n in range(97)]
    old = asset(id="OLD", created_at=str(int((WHEN - timedelta(hours=1)).timestamp())))
    new = asset(id="NEW", created_at=str(int((WHEN - timedelta(minutes=1)).timestamp())))
    pages = ([ours, live, *foreign, new], [ours, live, *foreign, old], [ours])
    async with answering(*(reply(200, {"data": page}) for page in pages)) as (mux, provider):
        answers = [await mux.uploads.list_tagged("bs1:test:", since=WHEN, page=page) for page in (1, 2, 3)]
    assert [([seen.id for seen in found], more) for found, more in answers] == [
        (["U1", "NEW"], True),
        (["U1", "OLD"], False),
        (["U1"], False),
    ]
    assert answers[0][0][0] == UploadSeen(id="U1", tag=TAG, created_at=WHEN)
    queries = [dict(parse_qsl(urlsplit(sent.path).query)) for sent in provider.requests]
    assert queries == [{"limit": "100", "page": str(page)} for page in (1, 2, 3)]


@pytest.mark.parametrize("of", ["uploads", "streams"])
async def test_what_is_not_there_is_none(of: str) -> None:
    missing = reply(404, {"error": {"type": "not_found", "messages": ["no"]}})
    async with answering(missing) as (mux, provider):
        assert await (mux.uploads.get("AS1") if of == "uploads" else mux.streams.recording("AS1")) is None
    assert provider.requests[0].path == "/video/v1/assets/AS1"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, Recording(asset_id="AS1")),
        (
            {"status": "ready", "duration": 61.5, "playback_ids": [{"id": "PB1"}, {"id": "PB2"}]},
            Recording(asset_id="AS1", playback_id="PB1", status=RecordingStatus.READY, duration_s=61.5),
        ),
        (
            {"status": "errored", "errors": {"type": "invalid_input", "messages": ["no video", f"at {SIGNED}"]}},
            Recording(
                asset_id="AS1",
                status=RecordingStatus.ERRORED,
                message="no video; at https://shows.s3.amazonaws.com/r/1.mp4?***",
            ),
        ),
        (
            {"status": "errored", "errors": {"type": "invalid_input"}},
            Recording(asset_id="AS1", status=RecordingStatus.ERRORED, message="invalid_input"),
        ),
        ({"status": "of next year", "playback_ids": None, "errors": None}, Recording(asset_id="AS1")),
    ],
    ids=["new", "ready", "errored", "errored without a word", "unknown"],
)
async def test_a_recording_is_read(data: dict[str, Any], expected: Recording) -> None:
    """Keys that are unset are absent; a status may be newer than this."""
    async with answering(reply(200, {"data": asset(**data)})) as (mux, _):
        seen = await mux.streams.recording("AS1")
    assert seen == expected


def wanted(files: Files) -> UploadWanted:
    return UploadWanted(tag=TAG, url=Secret(files.url), title="", playback_policy=PlaybackPolicy.PUBLIC)


async def becomes(mux: Mux, recording: Recording, status: RecordingStatus) -> Recording:
    async def there() -> Recording | None:
        seen = await mux.uploads.get(recording.asset_id)
        return seen if seen is not None and seen.status is status else None

    return await eventually(there)


class Files:
    """A web server with one file, for Mux to fetch."""

    def __init__(self) -> None:
        self.content = mp4(12.5)
        self.status = 200
        self.asked = 0
        self.url = ""

    async def serve(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, body=self.content)


@contextlib.asynccontextmanager
async def uploading(**settings: Any) -> AsyncGenerator[tuple[Bench, Mux, Files]]:
    files = Files()
    app = web.Application()
    app.router.add_get("/file.mp4", files.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    files.url = f"http://127.0.0.1:{runner.addresses[0][1]}/file.mp4"
    try:
        async with running(**settings) as bench:
            mux = Mux(
                base_url=bench.base,
                token_id="token",
                token_secret=Secret(TOKEN_SECRET),
                longest_call=timedelta(seconds=20),
            )
            yield bench, mux, files
            await mux.close()
    finally:
        await runner.cleanup()


async def test_a_file_becomes_an_asset_that_plays() -> None:
    """preparing, then ready, with the webhooks video.asset.created and ready."""
    async with uploading() as (bench, mux, files):
        made = await mux.uploads.create(wanted(files))
        assert (made.status, bool(made.playback_id)) == (RecordingStatus.PREPARING, True)
        assert [each.asset_id for each in await mux.uploads.find(TAG, since=datetime.now(UTC))] == [made.asset_id]
        ready = await becomes(mux, made, RecordingStatus.READY)
        assert (ready.duration_s, ready.playback_id, files.asked) == (12.5, made.playback_id, 1)
        await eventually(lambda: "asset.ready" in bench.receiver.types())
        told = [heard(hook.raw) for hook in bench.receiver.hooks]
        assert [(each.type, each.broadcast_hint, each.stream_id) for each in told] == [
            ("video.asset.created", TAG, ""),
            ("video.asset.ready", TAG, ""),
        ]
        assert told[-1].recording == ready
        hls = Hls(longest_call=timedelta(seconds=20))
        seen = await hls.look(f"{bench.base}/playback/{ready.playback_id}.m3u8")
        await hls.close()
        assert seen == PlaylistSeen(
            status=200,
            media_sequence=0,
            last_segment=f"{ready.playback_id}/5.ts",
            segments=6,
            ended=True,
            target_duration_s=2,
        )


@pytest.mark.parametrize("wrong", ["status", "content", "nobody", "fault"])
async def test_a_file_that_cannot_be_had_is_errored_with_a_reason(wrong: str) -> None:
    async with uploading() as (bench, mux, files):
        match wrong:
            case "status":
                files.status = 403
            case "content":
                files.content = b"<html>no video</html>"
            case "nobody":
                files.url = "http://127.0.0.1:9/file.mp4"
            case _:
                bench.simulator.add_fault(Fault(kind="upload_fail", match=TAG))
        made = await mux.uploads.create(wanted(files))
        errored = await becomes(mux, made, RecordingStatus.ERRORED)
        assert errored.message
        await eventually(lambda: "asset.errored" in bench.receiver.types())
        assert bench.receiver.of("asset.errored")[0]["data"]["errors"]["type"] == "invalid_input"


async def test_a_lost_reply_leaves_an_asset_to_be_found() -> None:
    async with uploading() as (bench, mux, files):
        bench.simulator.add_fault(Fault(kind="lost_reply", operation="create_asset"))
        began = datetime.now(UTC)
        assert (await refusal(mux.uploads.create(wanted(files)))).outcome is Outcome.AMBIGUOUS
        [found] = await mux.uploads.find(TAG, since=began)
        await becomes(mux, found, RecordingStatus.READY)
        assert bench.kinds("upload.created") == ["upload.created"]


async def test_a_deleted_upload_is_gone_and_says_no_more() -> None:
    async with uploading() as (bench, mux, files):
        made = await mux.uploads.create(wanted(files))
        await mux.streams.delete_recording(made.asset_id)
        assert await mux.uploads.get(made.asset_id) is None
        await eventually(lambda: files.asked)
        await bench.pass_time(10)
        assert bench.kinds("upload.ready", "upload.errored") == []


NOTHING: list[dict[str, Any]] = [{}, {"inputs": []}, {"inputs": [{"url": "ftp://x"}]}, {"inputs": [{}], "x": 1}]


@pytest.mark.parametrize("body", NOTHING)
async def test_an_asset_of_nothing_is_refused(body: dict[str, Any]) -> None:
    async with running() as bench:
        status, told = await bench.refused(bench.assets.create_asset, body)
    assert (status, told["error"]["type"]) == (400, "invalid_parameters")


async def test_the_recording_of_a_live_stream_is_preparing_then_ready() -> None:
    async with uploading() as (bench, mux, _):
        stream = await bench.create(
            passthrough=TAG, reconnect_window=0, new_asset_settings={"playback_policies": ["public"]}
        )
        encoder = await bench.publish(stream["stream_key"])
        await eventually(lambda: bench.kinds("asset.created"))
        [recording], _ = await mux.streams.list_recordings(stream["id"], page=1)
        assert recording.status is RecordingStatus.PREPARING
        await encoder.media()
        await bench.effect("asset.ready", stream["id"])
        await encoder.leave()
        await bench.effect("asset.completed", stream["id"])
        [recording], _ = await mux.streams.list_recordings(stream["id"], page=1)
        assert recording == await mux.streams.recording(recording.asset_id)
        assert recording.status is RecordingStatus.READY
        assert recording.duration_s is not None
        assert recording.playback_id
        assert await mux.uploads.find(TAG, since=datetime.now(UTC)) == []


async def test_a_recording_without_media_is_errored_with_a_reason() -> None:
    async with uploading() as (bench, mux, _):
        stream = await bench.create(passthrough=TAG, reconnect_window=0)
        encoder = await bench.publish(stream["stream_key"])
        await bench.effect("asset.created", stream["id"])
        await encoder.leave()
        await bench.effect("asset.errored", stream["id"])
        [recording], _ = await mux.streams.list_recordings(stream["id"], page=1)
        assert recording.status is RecordingStatus.ERRORED
        assert "before any media" in recording.message
