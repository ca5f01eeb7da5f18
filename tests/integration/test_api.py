"""Every RPC over a real channel and a real database: what is answered, what is refused and why, and what is stored."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from service.api.transport.server import ApiOptions
from tests.integration.api_stage import KEY, Stage, api, refused, seconds
from tests.waiting import eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PUBLIC = pb.Destination(name="one", url="rtmps://live.example.com:443/app", stream_key=KEY)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


def spec(**fields: Any) -> pb.BroadcastSpec:
    return pb.BroadcastSpec(**fields)


def destination(url: str = PUBLIC.url, key: str = KEY, name: str = "one") -> pb.BroadcastSpec:
    return spec(destinations=[pb.Destination(name=name, url=url, stream_key=key)])


def custom(**fields: int) -> pb.BroadcastSpec:
    whole = {
        "width": 1280,
        "height": 720,
        "frame_rate": 30,
        "video_bitrate_bps": 2_500_000,
        "audio_bitrate_bps": 128_000,
    }
    return spec(encoding=pb.Encoding(custom=pb.CustomEncoding(**(whole | fields))))


async def test_create_answers_what_is_stored_with_the_defaults_that_apply(stage: Stage) -> None:
    made = await stage.create("show-1", title="A show", labels={"team": "a"}, destinations=[PUBLIC])
    assert (made.id, made.generation, made.etag, made.labels) == ("show-1", 1, "1", {"team": "a"})
    assert made.spec.encoding.preset == pb.ENCODING_PRESET_720P_30
    assert made.spec.layout == "grid"
    assert made.spec.latency_mode == pb.LATENCY_MODE_REDUCED
    assert (made.spec.reconnect_window.seconds, made.spec.max_duration.seconds) == (120, 43_200)
    assert made.status.state == made.status.target_state == pb.BROADCAST_STATE_CREATED
    assert not made.status.reconciling
    assert made.status.state_time == made.create_time
    assert [each.state for each in made.status.destinations] == [pb.DESTINATION_STATE_IDLE]
    assert made == await stage.get("show-1")
    assert KEY not in str(made)
    assert stage.woken == []
    assert await stage.stored() == (1, 1, 0)


async def test_ids_are_made_where_none_is_given(stage: Stage) -> None:
    ids = {(await stage.create()).id for _ in range(3)}
    assert len(ids) == 3
    assert all(each[0] == "b" and len(each) == 21 and each.isalnum() and each == each.lower() for each in ids)


BAD_SPECS: dict[str, tuple[pb.BroadcastSpec, str]] = {
    "enum of the future": (spec(latency_mode=cast("Any", 99)), "spec.latency_mode"),
    "preset of the future": (spec(encoding=pb.Encoding(preset=cast("Any", 99))), "spec.encoding.preset"),
    "4 Gb/s": (custom(video_bitrate_bps=4_000_000_000), "spec.encoding.custom.video_bitrate_bps"),
    "odd width": (custom(width=1279), "spec.encoding.custom.width"),
    "13 hours": (spec(max_duration=seconds(13 * 3600)), "spec.max_duration"),
    "half a second": (spec(max_duration=seconds(90.5)), "spec.max_duration"),
    "two seconds of nanos": (spec(reconnect_window={"seconds": 1, "nanos": 2_000_000_000}), "spec.reconnect_window"),
    "control character": (spec(title="a\x07b"), "spec.title"),
    "NUL": (spec(title="a\x00b"), "spec.title"),
    "1 MB title": (spec(title="x" * 1_000_000), "spec.title"),
    "layout": (spec(layout="Grid!"), "spec.layout"),
    "no key": (destination(key=""), "spec.destinations[0].stream_key"),
    "key with a space": (destination(key="a b"), "spec.destinations[0].stream_key"),
    "keys that look alike": (
        spec(
            destinations=[
                pb.Destination(name=name, url=PUBLIC.url, stream_key=f"studio-{name}-2026-stage")
                for name in ("main", "back")
            ]
        ),
        "spec.destinations[1].stream_key",
    ),
    "http": (destination("https://live.example.com/app"), "spec.destinations[0].url"),
    "no application": (destination("rtmp://live.example.com"), "spec.destinations[0].url"),
    "loopback": (destination("rtmp://127.0.0.1/app"), "spec.destinations[0].url"),
    "metadata service": (destination("rtmp://169.254.169.254/app"), "spec.destinations[0].url"),
    "name": (destination(name="One"), "spec.destinations[0].name"),
    "yesterday": (spec(scheduled_start_time={"seconds": 1_000_000_000}), "spec.scheduled_start_time"),
    "a time that is none": (spec(scheduled_start_time={"seconds": 400_000_000_000}), "spec.scheduled_start_time"),
    "captions in Klingon": (spec(captions_language="tlh"), "spec.captions_language"),
    "captions with low latency": (
        spec(captions_language="en", latency_mode=pb.LATENCY_MODE_LOW),
        "spec.captions_language",
    ),
    "a picture of sound": (
        spec(audio_only=True, static_rendition=pb.STATIC_RENDITION_HIGHEST),
        "spec.static_rendition",
    ),
    "slate of a neighbour": (spec(slate_url="http://169.254.169.254/latest/meta-data"), "spec.slate_url"),
    "same name twice": (spec(destinations=[PUBLIC, PUBLIC]), "spec.destinations"),
}


@pytest.mark.parametrize("case", BAD_SPECS)
async def test_a_bad_spec_is_refused_by_field_and_nothing_is_stored(stage: Stage, case: str) -> None:
    bad, field = BAD_SPECS[case]
    request = rpc.CreateBroadcastRequest(request_id="r", broadcast_id="show-1", spec=bad)
    refusal = await refused(stage.stub.CreateBroadcast(request))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD")
    assert refusal.fields == [field]
    assert refusal.info.metadata["field"] == field
    assert await stage.stored() == (0, 0, 0)


async def test_every_wrong_field_is_named(stage: Stage) -> None:
    request = rpc.CreateBroadcastRequest(
        broadcast_id="Show", spec=custom(width=15, frame_rate=0), labels={"A b": "x", "ok": "?"}
    )
    refusal = await refused(stage.stub.CreateBroadcast(request))
    where = "spec.encoding.custom"
    assert set(refusal.fields) == {
        "broadcast_id",
        f"{where}.width",
        f"{where}.frame_rate",
        'labels["A b"]',
        'labels["ok"]',
    }
    missing = await refused(stage.stub.CreateBroadcast(rpc.CreateBroadcastRequest()))
    assert missing.fields == ["spec"]


async def test_an_error_about_much_still_fits_into_the_answer(stage: Stage) -> None:
    labels = {"Ä" * 1000 + str(number): "?" for number in range(32)}
    refusal = await refused(stage.stub.CreateBroadcast(rpc.CreateBroadcastRequest(spec=spec(), labels=labels)))
    assert refusal.reason == "INVALID_FIELD"
    assert refusal.fields


async def test_bytes_that_are_no_request_are_the_callers_fault(stage: Stage) -> None:
    for raw in (b"\x1a\x04\x0a\x02\xff\xfe", b"\xff\xff\xff"):
        send = cast("Any", stage.channel).unary_unary("/broadcast.v1.BroadcastService/CreateBroadcast")
        refusal = await refused(send(raw))
        assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD")


async def test_nul_never_reaches_the_database(stage: Stage) -> None:
    get = await refused(stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="a\0b")))
    assert (get.reason, get.fields) == ("INVALID_FIELD", ["broadcast_id"])
    filter_ = rpc.BroadcastFilter(labels={"a\0": "b", "c": "\0"}, broadcast_ids=["x", "\0"], owner_id="o\0")
    listed = await refused(stage.stub.ListBroadcasts(rpc.ListBroadcastsRequest(filter=filter_)))
    assert set(listed.fields) == {
        'filter.labels["a\0"]',
        'filter.labels["c"]',
        "filter.broadcast_ids[1]",
        "filter.owner_id",
    }


async def test_a_name_that_leads_inside_is_refused_and_one_nobody_knows_is_not(stage: Stage) -> None:
    stage.names.known["live.example.com"] = ("93.184.216.34", "10.0.0.7")
    request = rpc.CreateBroadcastRequest(spec=destination())
    refusal = await refused(stage.stub.CreateBroadcast(request))
    assert refusal.fields == ["spec.destinations[0].url"]
    stage.names.known["live.example.com"] = ("93.184.216.34",)
    await stage.stub.CreateBroadcast(request)
    await stage.stub.CreateBroadcast(rpc.CreateBroadcastRequest(spec=destination("rtmp://nobody.example.org/app")))
    stage.names.known["images.example.com"] = ("10.0.0.8",)
    slate = rpc.CreateBroadcastRequest(spec=spec(slate_url="https://images.example.com/slate.png"))
    assert (await refused(stage.stub.CreateBroadcast(slate))).fields == ["spec.slate_url"]


async def test_an_update_is_judged_with_what_is_stored(stage: Stage) -> None:
    """Each half is right alone: captions were stored with another latency mode."""
    await stage.create("show-1", captions_language="en")
    low = rpc.UpdateBroadcastRequest(
        broadcast_id="show-1",
        spec=spec(latency_mode=pb.LATENCY_MODE_LOW),
        update_mask=FieldMask(paths=["spec.latency_mode"]),
    )
    assert (await refused(stage.stub.UpdateBroadcast(low))).fields == ["spec.captions_language"]
    both = rpc.UpdateBroadcastRequest(
        broadcast_id="show-1",
        spec=spec(latency_mode=pb.LATENCY_MODE_LOW),
        update_mask=FieldMask(paths=["spec.latency_mode", "spec.captions_language"]),
    )
    assert (await stage.stub.UpdateBroadcast(both)).broadcast.spec.latency_mode == pb.LATENCY_MODE_LOW


async def test_an_id_is_given_out_once(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.CreateBroadcastRequest(broadcast_id="show-1", spec=spec())
    refusal = await refused(stage.stub.CreateBroadcast(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "BROADCAST_EXISTS")
    about = refusal.detail(error_details_pb2.ResourceInfo)
    assert about is not None
    assert about.resource_name == "show-1"
    await stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="show-1"))
    assert (await refused(stage.stub.CreateBroadcast(request))).reason == "BROADCAST_EXISTS"


async def test_a_hundred_copies_of_a_create_are_one(stage: Stage) -> None:
    request = rpc.CreateBroadcastRequest(request_id="once", spec=spec(title="A"))
    answers = await asyncio.gather(*(stage.stub.CreateBroadcast(request) for _ in range(100)))
    assert all(answer == answers[0] for answer in answers)
    assert await stage.stored() == (1, 1, 1)


async def test_a_hundred_copies_of_a_start_are_one(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.StartBroadcastRequest(request_id="once", broadcast_id="show-1")
    answers = await asyncio.gather(*(stage.stub.StartBroadcast(request) for _ in range(100)))
    assert all(answer == answers[0] for answer in answers)
    assert await stage.stored() == (1, 2, 1)
    assert "show-1" in stage.woken


async def test_a_request_id_with_other_content_is_refused(stage: Stage) -> None:
    await stage.create("show-1", request_id="r")
    await stage.create("show-2")
    before = await stage.stored()
    calls: list[Any] = [
        stage.stub.CreateBroadcast(rpc.CreateBroadcastRequest(request_id="r", broadcast_id="show-3", spec=spec())),
        stage.stub.CreateBroadcast(
            rpc.CreateBroadcastRequest(request_id="r", broadcast_id="show-1", spec=spec(title="other"))
        ),
        stage.stub.StopBroadcast(rpc.StopBroadcastRequest(request_id="r", broadcast_id="show-1")),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (INVALID, "REQUEST_ID_REUSED")
        assert refusal.info.metadata["request_id"] == "r"
    assert await stage.stored() == before
    assert (await stage.get("show-1")).status.state == pb.BROADCAST_STATE_CREATED


async def test_a_retry_may_wait_differently(stage: Stage) -> None:
    await stage.create("show-1")
    first = rpc.StartBroadcastRequest(request_id="r", broadcast_id="show-1")
    again = rpc.StartBroadcastRequest(request_id="r", broadcast_id="show-1", wait=seconds(0.01), host_identity="ann")
    await stage.stub.StartBroadcast(first)
    assert (await stage.stub.StartBroadcast(again)).host_access.identity == "ann"


async def test_what_is_not_there_is_not_found(stage: Stage) -> None:
    mask = FieldMask(paths=["labels"])
    calls: list[Any] = [
        stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="none")),
        stage.stub.UpdateBroadcast(rpc.UpdateBroadcastRequest(broadcast_id="none", update_mask=mask)),
        stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="none", request_id="r")),
        stage.stub.SetOnAir(rpc.SetOnAirRequest(broadcast_id="none")),
        stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="none")),
        stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="none")),
        stage.stub.IssueHostAccess(rpc.IssueHostAccessRequest(broadcast_id="none", identity="ann")),
        stage.stub.ListBroadcastEvents(rpc.ListBroadcastEventsRequest(broadcast_id="none")),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "BROADCAST_NOT_FOUND")
        assert refusal.info.metadata["broadcast_id"] == "none"
    await stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="none", allow_missing=True))
    assert await stage.stored() == (0, 0, 0)


async def update(stage: Stage, paths: list[str], spec: pb.BroadcastSpec | None = None, **more: Any) -> pb.Broadcast:
    request = rpc.UpdateBroadcastRequest(broadcast_id="show-1", spec=spec, update_mask=FieldMask(paths=paths), **more)
    return (await stage.stub.UpdateBroadcast(request)).broadcast


async def test_update_changes_what_the_mask_names_and_nothing_else(stage: Stage) -> None:
    await stage.create("show-1", title="A", owner_id="o", reconnect_window=seconds(5), labels={"a": "b"})
    new = spec(
        title="B", owner_id="other", reconnect_window=seconds(0), destinations=[{"name": "x", "url": "not looked at"}]
    )
    changed = await update(stage, ["spec.title", "spec.reconnect_window"], new)
    assert (changed.spec.title, changed.spec.owner_id, changed.spec.reconnect_window.seconds) == ("B", "o", 0)
    assert (changed.generation, changed.etag, changed.labels) == (2, "2", {"a": "b"})
    changed = await update(stage, ["labels"], labels={"c": "d"})
    assert (changed.labels, changed.generation, changed.etag) == ({"c": "d"}, 2, "3")
    cleared = await update(stage, ["spec.title", "labels", "spec.encoding"])
    assert (cleared.spec.title, cleared.labels) == ("", {})
    assert cleared == await stage.get("show-1")


async def test_a_layout_that_no_viewer_would_see_is_refused_with_the_setting_that_allows_it(stage: Stage) -> None:
    """LiveKit's own template ignores it, and LiveKit answers as if it had been taken."""
    await stage.create("show-1")
    assert (await update(stage, ["spec.layout"], spec(layout="speaker"))).spec.layout == "speaker"
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1"))
    before = await stage.get("show-1")
    refusal = await refused(update(stage, ["spec.layout"], spec(layout="grid")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FIELD_IMMUTABLE")
    assert refusal.info.metadata == {"field": "spec.layout"}
    assert "EGRESS_TEMPLATE_URL" in refusal.message
    assert await stage.get("show-1") == before
    # One that is the same is no change, and others are changed as ever.
    await update(stage, ["spec.layout", "spec.title"], spec(layout="speaker", title="B"))
    assert (await stage.get("show-1")).spec.title == "B"


async def test_a_layout_is_changed_on_air_where_egresses_record_a_template_of_ours(database_url: str) -> None:
    async with api(database_url, options=ApiOptions(host="127.0.0.1", live_layouts=True)) as stage:
        await stage.started("show-1")
        assert (await update(stage, ["spec.layout"], spec(layout="speaker"))).spec.layout == "speaker"


async def test_update_that_changes_nothing_is_no_change(stage: Stage) -> None:
    await stage.create("show-1", title="A")
    same = await update(stage, ["spec.title"], spec(title="A"))
    assert (same.generation, same.etag) == (1, "1")
    assert await stage.stored() == (1, 1, 0)


@pytest.mark.parametrize(
    ("paths", "field"),
    [
        ([], "update_mask"),
        (["labels", "spec.nothing"], "update_mask.paths[1]"),
        (["spec"], "update_mask.paths[0]"),
        (["title"], "update_mask.paths[0]"),
        (["spec.encoding.preset"], "update_mask.paths[0]"),
        (["spec.max_duration_s"], "update_mask.paths[0]"),
        (["status.state"], "update_mask.paths[0]"),
    ],
)
async def test_update_mask(stage: Stage, paths: list[str], field: str) -> None:
    before = await stage.create("show-1")
    refusal = await refused(update(stage, paths, spec(title="B")))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", [field])
    assert await stage.get("show-1") == before


async def test_a_lost_race_is_told(stage: Stage) -> None:
    await stage.create("show-1")
    await update(stage, ["spec.title"], spec(title="B"), etag="1")
    refusal = await refused(update(stage, ["spec.title"], spec(title="C"), etag="1"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refusal.info.metadata == {"broadcast_id": "show-1", "etag": "2"}
    refusal = await refused(stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="show-1", etag="1")))
    assert refusal.reason == "ETAG_MISMATCH"
    assert (await stage.get("show-1")).spec.title == "B"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_mode", {"latency_mode": pb.LATENCY_MODE_LOW}),
        ("max_duration", {"max_duration": seconds(60)}),
        ("encoding", {"encoding": pb.Encoding(preset=pb.ENCODING_PRESET_480P_30)}),
        (
            "destinations",
            {
                "destinations": [
                    pb.Destination(name="m", url=PUBLIC.url, stream_key=KEY, carrier=pb.DESTINATION_CARRIER_MUX)
                ]
            },
        ),
    ],
)
async def test_what_is_fixed_since_the_start(stage: Stage, name: str, value: dict[str, Any]) -> None:
    await stage.started("show-1")
    before = await stage.get("show-1")
    refusal = await refused(update(stage, [f"spec.{name}"], spec(**value)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FIELD_IMMUTABLE")
    assert refusal.info.metadata == {"field": f"spec.{name}"}
    assert refusal.message.startswith(f"spec.{name}; ")
    failure = refusal.detail(error_details_pb2.PreconditionFailure)
    assert failure is not None
    assert [each.subject for each in failure.violations] == [f"spec.{name}"]
    assert await stage.get("show-1") == before


async def test_an_update_keeps_the_key_it_does_not_bring(stage: Stage) -> None:
    await stage.create("show-1", destinations=[PUBLIC])

    async def sealed() -> object:
        return await stage.sql("SELECT secrets FROM broadcast")

    assert KEY.encode() not in cast("bytes", await sealed())
    again = pb.Destination(name="one", url=PUBLIC.url)
    changed = await update(stage, ["spec.destinations", "spec.title"], spec(title="B", destinations=[again]))
    assert changed.spec.title == "B"
    for other in (pb.Destination(name="two", url=PUBLIC.url), pb.Destination(name="one", url=f"{PUBLIC.url}2")):
        refusal = await refused(update(stage, ["spec.destinations"], spec(destinations=[other])))
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["spec.destinations[0].stream_key"])
    inside = pb.Destination(name="one", url="rtmp://[::1]/app", stream_key=KEY)
    refusal = await refused(update(stage, ["spec.destinations"], spec(destinations=[inside])))
    assert refusal.fields == ["spec.destinations[0].url"]
    assert (await stage.get("show-1")).spec.destinations[0].url == PUBLIC.url


async def test_start_gives_a_web_backend_all_it_needs(stage: Stage) -> None:
    await stage.create("show-1")
    answer = await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1", host_identity="ann"))
    assert answer.broadcast.status.state == pb.BROADCAST_STATE_STARTING
    assert answer.broadcast.status.reconciling
    access = answer.host_access
    assert (access.room_name, access.identity, access.token) == ("show-1", "ann", "host-token")
    assert stage.tokens.issued[0].ttl == timedelta(minutes=10)
    assert stage.woken == ["show-1"]
    again = await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1"))
    assert again.broadcast == answer.broadcast
    assert not again.HasField("host_access")


async def test_start_waits_until_ready(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(30))
    starting = asyncio.ensure_future(stage.stub.StartBroadcast(request))
    await eventually(lambda: stage.woken)
    await stage.becomes("show-1", "READY")
    answer = await asyncio.wait_for(starting, 25)
    assert answer.broadcast.status.state == pb.BROADCAST_STATE_READY


async def test_stop_waits_until_over(stage: Stage) -> None:
    await stage.started("show-1")
    request = rpc.StopBroadcastRequest(broadcast_id="show-1", wait=seconds(60), note="that was it")
    stopping = asyncio.ensure_future(stage.stub.StopBroadcast(request))
    await eventually(lambda: len(stage.woken) == 2)
    await stage.becomes("show-1", "ENDED")
    answer = await asyncio.wait_for(stopping, 25)
    assert answer.broadcast.status.state == pb.BROADCAST_STATE_ENDED


async def test_a_wait_that_is_over_is_no_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.create("show-1")
    short = rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(0.1))
    assert (await stage.stub.StartBroadcast(short)).broadcast.status.state == pb.BROADCAST_STATE_STARTING
    # The caller's own deadline comes first, and it still gets an answer.
    monkeypatch.setattr("service.api.streams.waits._DEADLINE_MARGIN_S", 20)
    long = rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(30))
    assert (await stage.stub.StartBroadcast(long, timeout=21)).broadcast.status.state == pb.BROADCAST_STATE_STARTING


async def test_stop_is_never_refused_and_start_after_it_is(stage: Stage) -> None:
    await stage.started("show-1")
    stop = rpc.StopBroadcastRequest(broadcast_id="show-1", note="enough")
    first = (await stage.stub.StopBroadcast(stop)).broadcast
    assert (first.status.state, first.status.target_state) == (pb.BROADCAST_STATE_STOPPING, pb.BROADCAST_STATE_ENDED)
    assert (await stage.stub.StopBroadcast(stop)).broadcast == first
    start = rpc.StartBroadcastRequest(broadcast_id="show-1", request_id="r", host_identity="ann")
    refusal = await refused(stage.stub.StartBroadcast(start))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
    assert refusal.info.metadata == {"broadcast_id": "show-1", "state": "STOPPING", "method": "StartBroadcast"}
    failure = refusal.detail(error_details_pb2.PreconditionFailure)
    assert failure is not None
    assert [each.type for each in failure.violations] == ["STATE_FORBIDS"]
    assert await stage.get("show-1") == first
    assert await stage.stored() == (1, 3, 0)


async def test_a_late_retry_of_a_start_gets_no_token_for_what_is_stopped(stage: Stage) -> None:
    await stage.create("show-1")
    start = rpc.StartBroadcastRequest(broadcast_id="show-1", request_id="r", host_identity="ann")
    await stage.stub.StartBroadcast(start)
    await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1"))
    late = await stage.stub.StartBroadcast(start)
    assert late.broadcast.status.target_state == pb.BROADCAST_STATE_ENDED
    assert not late.HasField("host_access")
    assert len(stage.tokens.issued) == 1


async def test_stop_of_what_never_ran(stage: Stage) -> None:
    await stage.create("show-1")
    stopped = (await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1"))).broadcast
    assert stopped.status.state == pb.BROADCAST_STATE_ENDED
    assert stopped.status.HasField("end_time")


async def test_on_air_is_for_manual_delivery(stage: Stage) -> None:
    await stage.create("show-1", delivery_policy=pb.DELIVERY_POLICY_MANUAL)
    answer = await stage.stub.SetOnAir(rpc.SetOnAirRequest(broadcast_id="show-1", on_air=True))
    assert answer.broadcast.status.on_air
    await stage.create("show-2")
    refusal = await refused(stage.stub.SetOnAir(rpc.SetOnAirRequest(broadcast_id="show-2", on_air=True)))
    assert refusal.reason == "STATE_FORBIDS"


async def test_delete_is_for_what_is_at_rest(stage: Stage) -> None:
    await stage.started("show-1")
    delete = rpc.DeleteBroadcastRequest(broadcast_id="show-1")
    refusal = await refused(stage.stub.DeleteBroadcast(delete))
    assert (refusal.reason, refusal.info.metadata["state"]) == ("STATE_FORBIDS", "STARTING")
    await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1"))
    assert (await refused(stage.stub.DeleteBroadcast(delete))).reason == "STATE_FORBIDS"
    await stage.becomes("show-1", "ENDED")
    await stage.stub.DeleteBroadcast(delete)
    assert (await refused(stage.stub.DeleteBroadcast(delete))).reason == "BROADCAST_NOT_FOUND"
    assert not (await stage.stub.ListBroadcasts(rpc.ListBroadcastsRequest())).broadcasts


async def test_host_access_is_for_what_is_wanted_live(stage: Stage) -> None:
    await stage.create("show-1")
    request = rpc.IssueHostAccessRequest(broadcast_id="show-1", identity="ann", display_name="Ann", ttl=seconds(90))
    assert (await refused(stage.stub.IssueHostAccess(request))).reason == "STATE_FORBIDS"
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1"))
    access = (await stage.stub.IssueHostAccess(request)).host_access
    assert (access.livekit_url, access.room_name, access.identity) == ("wss://livekit.test", "show-1", "ann")
    assert (stage.tokens.issued[0].display_name, stage.tokens.issued[0].ttl) == ("Ann", timedelta(seconds=90))
    await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1"))
    refusal = await refused(stage.stub.IssueHostAccess(request))
    assert (refusal.reason, refusal.info.metadata["state"]) == ("STATE_FORBIDS", "STOPPING")


async def test_no_host_may_pass_for_an_egress(stage: Stage) -> None:
    await stage.create("show-1")
    start = rpc.StartBroadcastRequest(broadcast_id="show-1", host_identity="EG_abc")
    refusal = await refused(stage.stub.StartBroadcast(start))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["host_identity"])
    assert (await stage.get("show-1")).status.state == pb.BROADCAST_STATE_CREATED
    issue = rpc.IssueHostAccessRequest(broadcast_id="show-1", identity="EG_abc")
    assert (await refused(stage.stub.IssueHostAccess(issue))).fields == ["identity"]


async def test_a_retry_does_not_bring_back_what_is_deleted(stage: Stage) -> None:
    create = rpc.CreateBroadcastRequest(request_id="c", broadcast_id="show-1", spec=spec())
    stop = rpc.StopBroadcastRequest(request_id="s", broadcast_id="show-1")
    await stage.stub.CreateBroadcast(create)
    await stage.stub.StopBroadcast(stop)
    await stage.stub.DeleteBroadcast(rpc.DeleteBroadcastRequest(broadcast_id="show-1"))
    for call in (stage.stub.CreateBroadcast(create), stage.stub.StopBroadcast(stop)):
        assert (await refused(call)).reason == "BROADCAST_NOT_FOUND"


async def test_pages_hold_everything_once(stage: Stage) -> None:
    made = [(await stage.create(f"show-{number}", labels={"a": str(number % 2)})).id for number in range(7)]
    for filter_, expected in (
        (rpc.BroadcastFilter(), made),
        (rpc.BroadcastFilter(labels={"a": "1"}), made[1::2]),
        (rpc.BroadcastFilter(broadcast_ids=made[2:5]), made[2:5]),
    ):
        request = rpc.ListBroadcastsRequest(filter=filter_, page_size=2)
        seen: list[str] = []
        resume: set[str] = set()
        while True:
            page = await stage.stub.ListBroadcasts(request)
            assert len(page.broadcasts) <= 2
            seen += [each.id for each in page.broadcasts]
            resume.add(page.resume_token)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
            # What is written meanwhile moves neither the pages nor the moment to watch from.
            await stage.create()
        assert [each for each in seen if each in made] == expected[::-1]
        assert len(resume) == 1


async def test_a_page_token_belongs_to_its_filter(stage: Stage) -> None:
    for _ in range(3):
        await stage.create()
    page = await stage.stub.ListBroadcasts(rpc.ListBroadcastsRequest(page_size=1))
    filter_ = rpc.BroadcastFilter(owner_id="ann")
    bad = [
        rpc.ListBroadcastsRequest(filter=filter_, page_token=page.next_page_token),
        rpc.ListBroadcastsRequest(page_token=page.next_page_token[:-4]),
        rpc.ListBroadcastsRequest(page_token=page.resume_token),
        rpc.ListBroadcastsRequest(page_token="?"),
    ]
    for request in bad:
        refusal = await refused(stage.stub.ListBroadcasts(request))
        assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "PAGE_TOKEN_INVALID", ["page_token"])


async def test_filters(stage: Stage) -> None:
    await stage.create("show-1", owner_id="ann")
    second = await stage.started("show-2")

    async def ids(**fields: Any) -> list[str]:
        request = rpc.ListBroadcastsRequest(filter=rpc.BroadcastFilter(**fields))
        return [each.id for each in (await stage.stub.ListBroadcasts(request)).broadcasts]

    assert await ids(owner_id="ann") == ["show-1"]
    assert await ids(states=[pb.BROADCAST_STATE_STARTING, pb.BROADCAST_STATE_LIVE]) == ["show-2"]
    assert await ids(created_after=second.create_time) == ["show-2"]
    assert await ids() == ["show-2", "show-1"]
    for fields, field in (
        ({"states": [99]}, "filter.states[0]"),
        ({"created_after": {"seconds": 10**15}}, "filter.created_after"),
    ):
        request = rpc.ListBroadcastsRequest(filter=rpc.BroadcastFilter(**cast("dict[str, Any]", fields)))
        assert (await refused(stage.stub.ListBroadcasts(request))).fields == [field]


async def test_the_story_in_pages(stage: Stage) -> None:
    await stage.started("show-1")
    await stage.create("other")
    await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id="show-1", note="enough"))
    request = rpc.ListBroadcastEventsRequest(broadcast_id="show-1", page_size=2)
    first = await stage.stub.ListBroadcastEvents(request)
    second = await stage.stub.ListBroadcastEvents(
        rpc.ListBroadcastEventsRequest(broadcast_id="show-1", page_token=first.next_page_token)
    )
    events = [*first.events, *second.events]
    assert [each.reason for each in events] == ["CREATED", "START_REQUESTED", "STOP_REQUESTED"]
    assert (events[2].message, events[2].actor, events[2].state) == ("enough", "caller", pb.BROADCAST_STATE_STOPPING)
    assert not second.next_page_token
    wrong = rpc.ListBroadcastEventsRequest(broadcast_id="other", page_token=first.next_page_token)
    assert (await refused(stage.stub.ListBroadcastEvents(wrong))).reason == "PAGE_TOKEN_INVALID"
