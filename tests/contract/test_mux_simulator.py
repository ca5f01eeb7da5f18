"""The simulated Mux API, as the real SDK sees it: shapes, rules, faults, control."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import mux_python
import pytest
import urllib3

from broadcast_sandbox.faults import Fault
from tests.contract.mux_bench import Mux, running
from tests.waiting import eventually

ID = re.compile(r"(?:[1-9A-Za-z]|0[012])+")


@pytest.fixture
async def mux() -> AsyncIterator[Mux]:
    async with running() as mux:
        yield mux


async def test_created_stream_has_the_shape_of_mux(mux: Mux) -> None:
    """Provider facts, Mux 10 and 16.1: ids, key, absent keys, one playback id per policy."""
    stream = await mux.create(playback_policies=["public", "signed"], passthrough="b/1")

    assert ID.fullmatch(stream["id"])
    assert len(stream["id"]) >= 32
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", stream["stream_key"])
    assert stream["status"] == "idle"
    assert isinstance(stream["created_at"], str)
    assert [one["policy"] for one in stream["playback_ids"]] == ["public", "signed"]
    assert not {"active_asset_id", "simulcast_targets", "active_ingest_protocol", "test", "connected"} & set(stream)
    assert await mux.get(stream["id"]) == stream
    assert "playback_ids" not in await mux.create()


async def test_ids_stay_in_the_alphabet(mux: Mux) -> None:
    """Provider facts, Mux 10: `0` is always followed by 0, 1 or 2."""
    for _ in range(20):
        stream = await mux.create(playback_policies=["public"])
        assert ID.fullmatch(stream["id"])
        assert ID.fullmatch(stream["playback_ids"][0]["id"])


async def test_defaults_of_a_dict_and_of_a_model_differ(mux: Mux) -> None:
    """Provider facts, Mux 0.2 and 16.2: the model always sends a reconnect window; Mux's own default depends."""
    standard = await mux.create()
    reduced = await mux.create(latency_mode="reduced")
    model: Any = mux_python.CreateLiveStreamRequest(latency_mode="reduced", playback_policies=["public"])
    by_model = await asyncio.to_thread(mux.streams.create_live_stream, model)

    assert standard["reconnect_window"] == 60
    assert standard["max_continuous_duration"] == 43_200
    assert "reconnect_window" not in reduced
    assert reduced["reduced_latency"] is True
    assert (await mux.get(by_model.data.id))["reconnect_window"] == 60


async def test_update_through_the_model_resets_what_it_does_not_name(mux: Mux) -> None:
    """Provider facts, Mux 0.1: a dict changes one field, the model four."""
    stream = await mux.create(reconnect_window=300, max_continuous_duration=3600)
    by_dict = await mux.raw(mux.streams.update_live_stream, stream["id"], {"passthrough": "x"})
    assert (by_dict["passthrough"], by_dict["reconnect_window"], by_dict["max_continuous_duration"]) == ("x", 300, 3600)

    request: Any = mux_python.UpdateLiveStreamRequest(passthrough="")
    by_model = await mux.raw(mux.streams.update_live_stream, stream["id"], request)
    assert (by_model["reconnect_window"], by_model["max_continuous_duration"]) == (60, 43_200)
    assert "passthrough" not in by_model
    await eventually(lambda: mux.receiver.types().count("live_stream.updated") == 2)


async def test_test_streams_take_no_maximum_duration(mux: Mux) -> None:
    """Provider facts, Mux 0.3 and 16.3."""
    message = {
        "error": {
            "type": "invalid_parameters",
            "messages": ["Cannot use max continuous duration with test live streams"],
        }
    }
    body = {"test": True, "max_continuous_duration": 43_200}
    assert await mux.refused(mux.streams.create_live_stream, body) == (400, message)
    stream = await mux.create(test=True)
    assert stream["test"] is True
    update = {"max_continuous_duration": 600}
    assert await mux.refused(mux.streams.update_live_stream, stream["id"], update) == (400, message)
    assert mux.kinds() == ["stream.created"]


@pytest.mark.parametrize(
    "body",
    [
        {"reconnect_window": 1801},
        {"reconnect_window": True},
        {"max_continuous_duration": 86_400},
        {"max_continuous_duration": 59},
        {"latency_mode": "ultra"},
        {"latency_mode": "low", "low_latency": True},
        {"passthrough": "x" * 256},
        {"meta": {"title": "x" * 513}},
        {"meta": {"creator_id": "ann"}},
        {"playback_policies": ["bogus"]},
        {"new_asset_settings": {"video_quality": "basic"}},
        {"new_asset_settings": {"meta": {"creator_id": "x" * 129}}},
        {"new_asset_settings": {"static_renditions": [{"resolution": "best"}]}},
        {"new_asset_settings": {"static_renditions": [{"passthrough": "file"}]}},
        {"generated_subtitles": [{"language_code": "tlh"}]},
        {"generated_subtitles": [{"language_code": "en"}, {"language_code": "de"}]},
        {"generated_subtitles": [{"language": "en"}]},
        {"generated_subtitles": [{"language_code": "en"}], "latency_mode": "low"},
        {"reconnect_slate_url": "ftp://images.example.com/slate.png"},
        {"reconnect_slate_url": "https://images.example.com/" + "x" * 2048},
        {"simulcast_targets": [{"stream_key": "k"}]},
        {"simulcast_targets": [{"url": "rtmp://a/b", "streamKey": "k"}]},
        {"simulcast_targets": [{"url": "https://a/b"}]},
        {"simulcast_targets": [{"url": "rtmp://a/b"}] * 7},
        {"reconnectWindow": 5},
    ],
    ids=lambda body: next(iter(body)),
)
async def test_bad_parameters_are_refused_without_effect(mux: Mux, body: dict[str, Any]) -> None:
    """Provider facts, Mux 13.4 and 16.4."""
    status, answer = await mux.refused(mux.streams.create_live_stream, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_parameters")
    assert answer["error"]["messages"]
    assert mux.kinds() == []


async def test_limits_themselves_are_accepted(mux: Mux) -> None:
    """Provider facts, Mux 13.4: the ends of the ranges."""
    stream = await mux.create(
        reconnect_window=1800, max_continuous_duration=60, passthrough="x" * 255, meta={"title": "x" * 512}
    )
    assert (stream["reconnect_window"], stream["max_continuous_duration"]) == (1800, 60)


async def test_simulcast_targets_change_only_while_idle_and_up_to_six(mux: Mux) -> None:
    """Provider facts, Mux 2.5 and 16.5."""
    stream = await mux.create()
    targets: list[str] = []
    for number in range(6):
        body = {"url": "rtmp://restream.test/live", "stream_key": f"k{number}"}
        made = await mux.raw(mux.streams.create_live_stream_simulcast_target, stream["id"], body)
        targets.append(made["id"])
    seventh = mux.streams.create_live_stream_simulcast_target, stream["id"], {"url": "rtmp://restream.test/live"}
    assert (await mux.refused(*seventh))[0] == 400
    await mux.raw(mux.streams.get_live_stream_simulcast_target, stream["id"], targets[0])

    encoder = await mux.go_live(stream)
    remove = mux.streams.delete_live_stream_simulcast_target
    assert (await mux.refused(remove, stream["id"], targets[0]))[0] == 400
    await eventually(lambda: mux.kinds("simulcast.broadcasting") == ["simulcast.broadcasting"] * 6)
    assert {one["status"] for one in (await mux.get(stream["id"]))["simulcast_targets"]} == {"broadcasting"}
    await asyncio.to_thread(mux.streams.signal_live_stream_complete, stream["id"])
    for target in targets:
        await asyncio.to_thread(remove, stream["id"], target)
    assert "simulcast_targets" not in await mux.get(stream["id"])
    await encoder.leave()


async def test_delete_is_final_and_leaves_the_recording(mux: Mux) -> None:
    """Provider facts, Mux 2.5 and 16.8: 204, then 404 not_found; the encoder is cut; assets stay."""
    stream = await mux.create(playback_policies=["public"])
    encoder = await mux.go_live(stream)
    asset = (await mux.get(stream["id"]))["active_asset_id"]

    assert await asyncio.to_thread(mux.streams.delete_live_stream, stream["id"]) is None
    assert await encoder.cut()
    for method in (mux.streams.delete_live_stream, mux.streams.get_live_stream):
        status, body = await mux.refused(method, stream["id"])
        assert (status, body["error"]["type"]) == (404, "not_found")
    assert (await mux.raw(mux.assets.get_asset, asset))["status"] == "ready"
    assert await mux.publish_refused(stream["stream_key"]) == 403
    assert (await mux.play(stream["playback_ids"][0]["id"]))[0] == 404
    assert mux.kinds("stream.")[-3:] == ["stream.deleted", "stream.disconnected", "stream.idle"]


async def test_list_pages_newest_first_and_filters(mux: Mux) -> None:
    """Provider facts, Mux 4.3 and 16.10."""
    made = [await mux.create(passthrough=str(number)) for number in range(101)]
    listing = mux.streams.list_live_streams
    assert [one["passthrough"] for one in await mux.raw(listing)] == [str(100 - index) for index in range(25)]
    assert [one["passthrough"] for one in await mux.raw(listing, limit=100, page=2)] == ["0"]
    assert len(await mux.raw(listing, limit=1000)) == 100
    assert [one["id"] for one in await mux.raw(listing, stream_key=made[3]["stream_key"])] == [made[3]["id"]]
    assert await mux.raw(listing, status="active") == []
    await mux.go_live(made[7])
    assert [one["id"] for one in await mux.raw(listing, status="active")] == [made[7]["id"]]


async def test_posts_and_other_calls_have_their_own_rate_limits() -> None:
    """Provider facts, Mux 0.7, 4.1 and 16.11: the other error shape, no Retry-After; a later try succeeds."""
    async with running(post_rate=1, post_burst=3, other_rate=1, other_burst=50) as mux:
        answers = await asyncio.gather(*(mux.create() for _ in range(10)), return_exceptions=True)
        refused: list[Any] = [answer for answer in answers if isinstance(answer, mux_python.ApiException)]
        assert 1 <= len(refused) <= 7
        assert refused[0].status == 429
        assert json.loads(refused[0].body) == {"errors": ["Too many requests, retry later."]}
        assert "Retry-After" not in refused[0].headers
        assert refused[0].headers["x-request-id"]
        await mux.raw(mux.streams.list_live_streams)

        async def try_again() -> dict[str, Any] | None:
            with contextlib.suppress(mux_python.ApiException):
                return await mux.create()
            return None

        await eventually(try_again)
        assert len(mux.kinds("stream.created")) == 11 - len(refused)


async def test_wrong_and_missing_credentials_are_unauthorized(mux: Mux) -> None:
    """Provider facts, Mux 16.12."""
    expected = 401, {"error": {"type": "unauthorized", "messages": ["Unauthorized request"]}}
    for client in (mux.sdk("wrong"), mux.sdk("")):
        unauthorized: Any = mux_python.LiveStreamsApi(client)
        assert await mux.refused(unauthorized.create_live_stream, {}) == expected
        client.rest_client.pool_manager.clear()
    assert mux.kinds() == []


async def test_whoami_names_the_environment(mux: Mux) -> None:
    """Provider facts, Mux 13.1: preflight through call_api, which the SDK has no method for."""
    answer = await asyncio.to_thread(
        mux.client.call_api,
        "/system/v1/whoami",
        "GET",
        auth_settings=["accessToken"],
        response_types_map={200: "object"},
        _return_http_data_only=True,
    )
    assert answer["data"]["environment_id"] == "sbx001"


async def test_playback_ids_come_and_go_and_lead_to_their_owner(mux: Mux) -> None:
    """Provider facts, Mux 1.2 and 1.6."""
    stream = await mux.create()
    made = await mux.raw(mux.streams.create_live_stream_playback_id, stream["id"], {"policy": "signed"})
    playback_ids: Any = mux_python.PlaybackIDApi(mux.client)
    resolve = playback_ids.get_asset_or_livestream_id
    found = await mux.raw(resolve, made["id"])
    assert found == {"id": made["id"], "policy": "signed", "object": {"type": "live_stream", "id": stream["id"]}}
    assert await mux.raw(mux.streams.get_live_stream_playback_id, stream["id"], made["id"]) == made
    await asyncio.to_thread(mux.streams.delete_live_stream_playback_id, stream["id"], made["id"])
    assert (await mux.refused(resolve, made["id"]))[0] == 404
    assert mux.kinds("playback_id.") == ["playback_id.created", "playback_id.deleted"]


async def test_assets_are_found_by_their_stream(mux: Mux) -> None:
    """Provider facts, Mux 1.6: list_assets by live_stream_id, cursor, asset playback ids, delete."""
    settings = {"playback_policies": ["public"], "passthrough": "b/7"}
    stream = await mux.create(reconnect_window=0, new_asset_settings=settings)
    other = await mux.create()
    for number in range(1, 4):
        encoder = await mux.go_live(stream)
        await encoder.leave()
        await mux.effect("asset.completed", stream["id"], number)
    await mux.go_live(other)

    recent = (await mux.get(stream["id"]))["recent_asset_ids"]
    listed = await asyncio.to_thread(mux.assets.list_assets, live_stream_id=stream["id"], limit=2)
    assert [asset.id for asset in listed.data] == [recent[2], recent[1]]
    rest = await asyncio.to_thread(
        mux.assets.list_assets, live_stream_id=stream["id"], limit=2, cursor=listed.next_cursor
    )
    assert [asset.id for asset in rest.data] == [recent[0]]
    assert rest.next_cursor is None
    asset = await asyncio.to_thread(mux.assets.get_asset, recent[0])
    assert (asset.data.passthrough, asset.data.live_stream_id) == ("b/7", stream["id"])
    assert asset.data.duration >= 10
    made = await mux.raw(mux.assets.create_asset_playback_id, recent[0], {"policy": "signed"})
    assert [one.policy for one in asset.data.playback_ids] == ["public"]
    assert made["policy"] == "signed"
    await asyncio.to_thread(mux.assets.delete_asset, recent[0])
    assert (await mux.refused(mux.assets.get_asset, recent[0]))[0] == 404
    assert mux.kinds("asset.deleted") == ["asset.deleted"]


async def test_unknown_ingest_protocol_breaks_the_model_but_not_the_raw_path() -> None:
    """Provider facts, Mux 0.5 and 16.15."""
    async with running(ingest_protocol="whip") as mux:
        stream = await mux.create()
        await mux.go_live(stream)
        with pytest.raises(ValueError, match="active_ingest_protocol"):
            await asyncio.to_thread(mux.streams.get_live_stream, stream["id"])
        assert (await mux.get(stream["id"]))["active_ingest_protocol"] == "whip"


async def test_lost_reply_of_a_create_leaves_exactly_one_stream(mux: Mux) -> None:
    """Provider facts, Mux 16.13: applied, then the connection is cut; a POST is not repeated by the SDK."""
    mux.simulator.faults.add(Fault(kind="lost_reply", operation="create_live_stream", match="b/1"))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        await mux.create(passthrough="b/1")
    found = await mux.raw(mux.streams.list_live_streams)
    assert [stream["passthrough"] for stream in found] == ["b/1"]


async def test_late_effect_comes_after_the_caller_gave_up(mux: Mux) -> None:
    """Provider facts, Mux 16.13."""
    mux.simulator.faults.add(Fault(kind="late_effect", operation="create_live_stream", delay_s=1))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        await mux.create()
    assert mux.kinds() == []
    await eventually(lambda: mux.kinds() == ["stream.created"])


@pytest.mark.parametrize("kind", ["hang", "reset"])
async def test_hang_and_reset_have_no_effect(mux: Mux, kind: Any) -> None:
    """Provider facts, Mux 16.14."""
    mux.simulator.faults.add(Fault(kind=kind, operation="create_live_stream"))
    with pytest.raises((urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError)):
        await mux.raw(mux.streams.create_live_stream, {}, _request_timeout=(20, 0.2))
    assert mux.kinds() == []
    assert mux.simulator.faults.hits == {kind: 1}
    await mux.create()


async def test_error_faults_have_the_bodies_of_mux_and_of_proxies(mux: Mux) -> None:
    """Provider facts, Mux 1.7."""
    add = mux.simulator.faults.add
    add(Fault(kind="error", operation="get_live_stream", status=429))
    assert await mux.refused(mux.streams.get_live_stream, "x") == (429, {"errors": ["Too many requests, retry later."]})
    add(Fault(kind="error", operation="get_live_stream", status=403, message="no"))
    expected = 403, {"error": {"type": "forbidden", "messages": ["no"]}}
    assert await mux.refused(mux.streams.get_live_stream, "x") == expected
    add(Fault(kind="error", operation="get_live_stream", status=502, detail={"html": True}))
    with pytest.raises(mux_python.ApiException, match="<html>"):
        await asyncio.to_thread(mux.streams.get_live_stream, "x")
    add(Fault(kind="error", operation="get_live_stream", status=502, detail={"non_utf8": True}))
    with pytest.raises(UnicodeDecodeError):
        await asyncio.to_thread(mux.streams.get_live_stream, "x")


async def test_fault_hits_only_its_target(mux: Mux) -> None:
    one, two = await mux.create(passthrough="b/1"), await mux.create(passthrough="b/2")
    mux.simulator.faults.add(Fault(kind="error", operation="disable_live_stream", match="b/2", times=-1))
    await asyncio.to_thread(mux.streams.disable_live_stream, one["id"])
    assert (await mux.refused(mux.streams.disable_live_stream, two["id"]))[0] == 500
    assert [effect.id for effect in mux.simulator.effects.of("stream.disabled")] == [one["id"]]


async def test_latency_is_added(mux: Mux) -> None:
    mux.simulator.faults.add(Fault(kind="latency", operation="list_live_streams", delay_s=0.2))
    at = time.monotonic()
    await mux.raw(mux.streams.list_live_streams)
    assert time.monotonic() - at >= 0.2
    await mux.control("POST", "/_control", {"latency_ms": 100})
    at = time.monotonic()
    await mux.raw(mux.streams.list_live_streams)
    assert time.monotonic() - at >= 0.1
    assert mux.simulator.faults.hits == {"latency": 1}, "the fault was for one call"


async def test_ingest_faults(mux: Mux) -> None:
    """Refused, cut after a while, and connected without media ever arriving."""
    stream = await mux.create(passthrough="b/1", reconnect_window=1800)
    mux.simulator.faults.add(Fault(kind="rtmp_refuse", operation="publish", match="b/1"))
    assert await mux.publish_refused(stream["stream_key"]) == 403
    mux.simulator.faults.add(Fault(kind="rtmp_drop", operation="publish", match=stream["id"], delay_s=20))
    encoder = await mux.go_live(stream)
    assert await encoder.cut()
    assert (await mux.effect("ingest.disconnected", stream["id"]))["reason"] == "fault"

    silent = await mux.create(passthrough="b/2")
    mux.simulator.faults.add(Fault(kind="rtmp_no_media", operation="publish", match="b/2"))
    encoder = await mux.publish(silent["stream_key"])
    await encoder.media()
    mux.simulator.clock.scale = 1000
    assert await encoder.cut()
    assert (await mux.effect("ingest.disconnected", silent["id"]))["reason"] == "no media"


async def test_faults_and_effects_over_http(mux: Mux) -> None:
    status, body = await mux.control("POST", "/_faults", {"kind": "nonsense"})
    assert status == 400
    assert "kind" in body["error"]
    faults = [{"kind": "error", "operation": "whoami", "status": 503}, {"kind": "reset", "times": 3}]
    assert (await mux.control("POST", "/_faults", faults))[0] == 200
    assert [fault["kind"] for fault in (await mux.control("GET", "/_faults"))[1]["faults"]] == ["error", "reset"]
    assert (await mux.control("DELETE", "/_faults"))[0] == 204
    assert (await mux.control("GET", "/_faults"))[1]["faults"] == []

    first, second = await mux.create(passthrough="b/1"), await mux.create()
    effects = (await mux.control("GET", "/_effects"))[1]
    assert [(effect["kind"], effect["id"]) for effect in effects] == [
        ("stream.created", first["id"]),
        ("stream.created", second["id"]),
    ]
    assert effects[0]["detail"] == {"passthrough": "b/1", "test": False}
    assert (await mux.control("GET", "/_effects?after=1"))[1] == effects[1:]


async def test_settings_over_http(mux: Mux) -> None:
    wanted = {"time_scale": 7.0, "latency_ms": 0.0, "webhooks": False, "post_rate": 3.0, "other_rate": 0.0}
    assert await mux.control("POST", "/_control", {"time_scale": 7, "webhooks": False, "post_rate": 3}) == (200, wanted)
    assert mux.simulator.clock.scale == 7
    bodies: list[Any] = [{"time_scale": 0}, {"webhooks": 1}, {"post_rate": -1}, {"nonsense": 1}, []]
    for bad in bodies:
        assert (await mux.control("POST", "/_control", bad))[0] == 400
    assert await mux.control("POST", "/_control", {}) == (200, wanted)
    await mux.create()
    await mux.control("POST", "/_control", {"webhooks": True})
    stream = await mux.create()
    hooks = await eventually(lambda: mux.receiver.hooks)
    assert [hook.json["data"]["id"] for hook in hooks] == [stream["id"]]


async def test_stop_is_quick_and_leaves_no_task() -> None:
    async with running(scale=1) as mux:
        mux.receiver.answers = [500] * 10
        stream = await mux.create()
        encoder = await mux.publish(stream["stream_key"])
        mux.simulator.faults.add(Fault(kind="hang", operation="get_live_stream"))
        mux.simulator.faults.add(Fault(kind="late_effect", operation="delete_live_stream", delay_s=600))
        hanging = asyncio.create_task(asyncio.to_thread(mux.streams.get_live_stream, stream["id"]))
        with pytest.raises(urllib3.exceptions.HTTPError):
            await asyncio.to_thread(mux.streams.delete_live_stream, stream["id"])
        await eventually(lambda: mux.simulator.faults.hits == {"hang": 1, "late_effect": 1})
        async with asyncio.timeout(20):
            await mux.simulator.stop()
        with pytest.raises(urllib3.exceptions.HTTPError):
            await hanging
        assert await encoder.cut()
        left = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        assert not [coroutine for coroutine in left if re.search(r"Timers|WebhookSender|_run_late|Mux", coroutine)]
