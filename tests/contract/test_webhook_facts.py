"""What a verified webhook says, and that one which is wrong can do nothing but be refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import api

from service.domain.ports import Heard, Unreadable
from service.domain.resources import EgressStatus, Output, OutputState, Recording, RecordingStatus, StreamStatus
from service.domain.secret import NO_SECRET
from service.providers.livekit import client as livekit
from service.providers.mux import client as mux
from service.providers.text.redaction import redacted
from tests.contract.livekit_stage import KEY, OTHER, REDACTED, STREAM_KEY, staged, until
from tests.contract.mux_bench import running
from tests.waiting import eventually

STREAM = {
    "id": "LS1",
    "created_at": 1793491200,
    "status": "active",
    "stream_key": "5bd28537-9a3b-1f2e-bbb5-bbb506401234",
    "srt_passphrase": "pass-of-the-srt",
    "passthrough": "bs1:test:first:0",
    "playback_ids": [{"id": "PB1", "policy": "public"}],
    "active_asset_id": "AS1",
    "connected": True,
    "recording": True,
    "simulcast_targets": [
        {
            "id": "T1",
            "passthrough": "tube",
            "status": "errored",
            "error_severity": "fatal",
            "url": "rtmp://live.example/app",
            "stream_key": "key-of-a-relay-4711",
        }
    ],
}
ASSET = {
    "id": "AS1",
    "created_at": 1793491200,
    "status": "errored",
    "live_stream_id": "LS1",
    "passthrough": "bs1:test:first:0",
    "playback_ids": [{"id": "PB2", "policy": "public"}],
    "duration": 61.5,
    "errors": {"type": "invalid_input", "messages": ["no media in https://u:pw@b.example/x", "and no sound"]},
}


def of_mux(kind: str, data: Any, **changes: Any) -> bytes:
    event: dict[str, Any] = {
        "type": kind,
        "id": "8a3c9f9e-0000-4000-8000-000000000001",
        "created_at": "2026-11-01T19:00:37.613000Z",
        "object": {"type": "live", "id": "LS1"},
        "environment": {"name": "prod", "id": "j29sb4"},
        "data": data,
        "attempts": [],
    }
    return json.dumps({**event, **changes}).encode()


def of_livekit(**fields: Any) -> bytes:
    return json.dumps({"id": "EV_000000000001", "createdAt": "1793491200", **fields}).encode()


EGRESS = {
    "egressId": "EG_1",
    "roomId": "RM_1",
    "roomName": "first",
    "status": "EGRESS_ACTIVE",
    "startedAt": "1793491200000000000",
    "updatedAt": "1793491200000000007",
    "streamResults": [{"url": REDACTED, "startedAt": "1793491200000000001"}],
}


def test_livekit_room_events_name_the_room() -> None:
    """Protojson: 64 bit numbers are texts, and fields that are newer than the SDK are ignored."""
    room = {"sid": "RM_1", "name": "first", "numParticipants": 3, "newerThanUs": {"a": 1}}
    assert livekit.heard(of_livekit(event="room_started", room=room, newerThanUs=1)) == Heard(
        event_id="EV_000000000001",
        type="room_started",
        provider_time=datetime.fromtimestamp(1793491200, UTC),
        broadcast_hint="first",
        room_sid="RM_1",
    )


def test_livekit_egress_events_carry_the_egress() -> None:
    heard = livekit.heard(of_livekit(event="egress_updated", egressInfo=EGRESS))
    assert (heard.broadcast_hint, heard.room_sid) == ("first", "RM_1")
    assert heard.egress is not None
    assert (heard.egress.id, heard.egress.status, heard.egress.updated_ns) == (
        "EG_1",
        EgressStatus.ACTIVE,
        1793491200000000007,
    )
    [output] = heard.egress.outputs
    assert (output.address, output.state) == (REDACTED, OutputState.ACTIVE)


@pytest.mark.parametrize(
    ("event", "status", "expected"),
    [
        ("egress_started", None, EgressStatus.STARTING),
        ("egress_started", "EGRESS_STARTING", EgressStatus.STARTING),
        ("egress_ended", "EGRESS_ABORTED", EgressStatus.ABORTED),
        ("egress_updated", "EGRESS_OF_NEXT_YEAR", EgressStatus.UNKNOWN),
        ("egress_ended", "EGRESS_OF_NEXT_YEAR", EgressStatus.UNKNOWN),
        ("egress_ended", None, EgressStatus.UNKNOWN),
        ("egress_updated", 99, EgressStatus.UNKNOWN),
    ],
)
def test_a_status_that_is_newer_than_the_sdk_is_unknown_and_not_starting(
    event: str, status: Any, expected: EgressStatus
) -> None:
    """STARTING is zero and therefore absent; the SDK's reader drops names that it does not know, to zero."""
    info = {name: value for name, value in EGRESS.items() if name != "status"}
    if status is not None:
        info["status"] = status
    egress = livekit.heard(of_livekit(event=event, egressInfo=info)).egress
    assert egress is not None
    assert egress.status is expected


def test_a_file_egress_says_where_its_file_is() -> None:
    info = {
        **EGRESS,
        "status": "EGRESS_COMPLETE",
        "roomComposite": {"roomName": "first", "fileOutputs": [{"filepath": "recordings/first/0.mp4"}]},
        "fileResults": [{"filename": "recordings/first/0.mp4", "size": "12345", "duration": "61500000000"}],
        "streamResults": [],
    }
    egress = livekit.heard(of_livekit(event="egress_ended", egressInfo=info)).egress
    assert egress is not None
    assert (egress.file, egress.file_bytes, egress.file_duration_s) == ("recordings/first/0.mp4", 12345, 61.5)


def test_a_file_is_named_before_there_is_a_result() -> None:
    info = {**EGRESS, "roomComposite": {"fileOutputs": [{"filepath": "recordings/first/0.mp4"}]}, "streamResults": []}
    egress = livekit.heard(of_livekit(event="egress_started", egressInfo=info)).egress
    assert egress is not None
    assert (egress.file, egress.file_bytes, egress.outputs) == ("recordings/first/0.mp4", 0, ())


def test_mux_stream_events_carry_the_stream_without_its_key() -> None:
    heard = mux.heard(of_mux("video.live_stream.active", STREAM))
    assert (heard.type, heard.environment, heard.broadcast_hint) == (
        "video.live_stream.active",
        "j29sb4",
        "bs1:test:first:0",
    )
    assert heard.provider_time == datetime(2026, 11, 1, 19, 0, 37, 613000, tzinfo=UTC)
    assert (heard.stream_id, heard.connected, heard.recording, heard.egress) == ("LS1", True, None, None)
    assert heard.stream is not None
    assert (heard.stream.status, heard.stream.key, heard.stream.active_asset_id) == (
        StreamStatus.ACTIVE,
        NO_SECRET,
        "AS1",
    )
    assert heard.stream.relays == (Output(name="tube", state=OutputState.FAILED, message="fatal"),)


def test_mux_asset_events_carry_the_recording() -> None:
    """Asset events name their live stream, and the passthrough of its new_asset_settings."""
    heard = mux.heard(of_mux("video.asset.errored", ASSET))
    assert (heard.broadcast_hint, heard.stream_id, heard.stream) == ("bs1:test:first:0", "LS1", None)
    assert heard.recording == Recording(
        asset_id="AS1",
        playback_id="PB2",
        status=RecordingStatus.ERRORED,
        message="no media in https://u:***@b.example/x; and no sound",
        duration_s=61.5,
    )


@pytest.mark.parametrize("kind", ["video.live_stream.deleted", "video.live_stream.warning", "video.asset.deleted"])
def test_what_is_gone_or_told_in_part_is_named_and_not_shown(kind: str) -> None:
    heard = mux.heard(of_mux(kind, ASSET if "asset" in kind else STREAM))
    assert (heard.stream, heard.recording, heard.stream_id) == (None, None, "LS1")
    assert heard.broadcast_hint == "bs1:test:first:0"


def test_of_a_simulcast_target_the_live_stream_is_named_and_the_passthrough_is_no_tag() -> None:
    target = {"id": "T1", "live_stream_id": "LS1", "passthrough": "tube", "status": "errored", "url": "rtmp://x/app"}
    heard = mux.heard(of_mux("video.live_stream.simulcast_target.errored", target))
    assert (heard.stream_id, heard.broadcast_hint, heard.stream, heard.recording) == ("LS1", "", None, None)


@pytest.mark.parametrize(
    "kind", ["video.asset.track.ready", "video.delivery.high_traffic", "video.shots.created", "robots.are.here"]
)
@pytest.mark.parametrize("data", [None, [], {}, {"id": 7}])
def test_other_types_of_mux_are_heard_and_say_nothing(kind: str, data: Any) -> None:
    heard = mux.heard(of_mux(kind, data))
    assert (heard.type, heard.stream, heard.recording, heard.stream_id) == (kind, None, None, "")


def of_both(data: Any, **changes: Any) -> bytes:
    """Readable as an event of either."""
    event: dict[str, Any] = {
        "id": "E1",
        "type": "video.x",
        "event": "room_started",
        "name": "prod",
        "attempts": [],
        "data": data,
    }
    return json.dumps({**event, **changes}).encode()


DEEP = b"[" * 20_000 + b"]" * 20_000
WRONG: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "an empty object": b"{}",
    "20,000 deep": DEEP,
    "20,000 deep inside": b'{"id": "E", "event": "room_started", "type": "video.x", "room": ' + DEEP + b"}",
    "20,000 deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "100 deep": of_both(json.loads("[" * 100 + "]" * 100)),
    "NaN": of_both({}).replace(b'"attempts"', b'"n": NaN, "attempts"'),
    "infinite": of_both({}).replace(b'"attempts"', b'"n": 1e999, "attempts"'),
    "a number of 5,000 digits": of_both({}).replace(b"[]", b"9" * 5000),
    "a number of 40 digits": of_both({}).replace(b"[]", b"9" * 40),
    "a name twice": of_both({}).replace(b'"type"', b'"id": "other", "type"', 1),
    "not UTF-8": of_both({}).replace(b"prod", b"\xff\xfe"),
    "NUL": of_both({"a": "b\0c"}),
    "NUL in a name": of_both({"b\0c": 1}),
    "half a character": of_both({"a": "\ud800"}),
    "a BOM": b"\xef\xbb\xbf" + of_both({}),
    "cut short": of_both({})[:-1],
    "two in one": of_both({}) * 2,
    "no type": json.dumps({"id": "1", "data": {}, "room": {"name": "first"}}).encode(),
    "no id": of_both({}, id=""),
    "an id that is none": of_both({}, id={"a": 1}),
    "an endless id": of_both({}, id="x" * 10_000),
    "an id of several lines": of_both({}, id="a\nb"),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("provider", ["livekit", "mux"])
def test_what_is_no_event_is_unreadable(provider: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        (livekit if provider == "livekit" else mux).heard(body)


def test_the_wrong_ones_are_wrong_for_the_reason_they_name() -> None:
    """What they were made of is readable by both."""
    right = of_both({})
    assert livekit.heard(right).type == "room_started"
    assert mux.heard(right).type == "video.x"


@pytest.mark.parametrize(
    "body",
    [
        of_livekit(event="egress_updated", egressInfo={**EGRESS, "updatedAt": "many"}),
        of_livekit(event="egress_updated", egressInfo={**EGRESS, "egressId": ""}),
        of_livekit(event="egress_updated", egressInfo=[]),
        of_livekit(event="egress_updated", egressInfo={**EGRESS, "streamResults": {}}),
        of_livekit(event="room_started", room={"name": ["first"]}),
        of_livekit(event="room_started", createdAt="9" * 18),
        of_livekit(event=7),
    ],
)
def test_an_event_of_another_shape_is_unreadable_livekit(body: bytes) -> None:
    with pytest.raises(Unreadable):
        livekit.heard(body)


@pytest.mark.parametrize(
    "body",
    [
        of_mux("video.live_stream.active", None),
        of_mux("video.live_stream.active", []),
        of_mux("video.live_stream.active", {**STREAM, "id": None}),
        of_mux("video.live_stream.active", {**STREAM, "status": {}}),
        of_mux("video.live_stream.active", {**STREAM, "created_at": 10**30}),
        of_mux("video.live_stream.active", {**STREAM, "playback_ids": "PB1"}),
        of_mux("video.live_stream.active", {**STREAM, "passthrough": ["bs1"]}),
        of_mux("video.asset.ready", {**ASSET, "duration": "long"}),
        of_mux("video.asset.ready", {**ASSET, "errors": []}),
        of_mux("video.asset.ready", {}, created_at="yesterday"),
        of_mux("video.asset.ready", {}, created_at=1793491200),
        of_mux("video.asset.ready", {}, environment=["j29sb4"]),
    ],
)
def test_an_event_of_another_shape_is_unreadable_mux(body: bytes) -> None:
    with pytest.raises(Unreadable):
        mux.heard(body)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
WHOLE: list[dict[str, Any]] = [
    json.loads(of_mux("video.live_stream.active", STREAM)),
    json.loads(of_mux("video.asset.ready", ASSET)),
    json.loads(of_livekit(event="egress_ended", egressInfo=EGRESS, room={"name": "first", "sid": "RM_1"})),
    json.loads(of_livekit(event="track_published", room={"name": "first"}, track={"layers": [{"bitrate": 1}]})),
]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A true event with something else in one or two of its places."""
    event = json.loads(json.dumps(draw(st.sampled_from(WHOLE))))
    for _ in range(draw(st.integers(1, 2))):
        places = [(event, name) for name in event]
        for value in list(event.values()):
            if isinstance(value, dict):
                places += [(value, name) for name in value]  # pyright: ignore[reportUnknownVariableType]
        holder, name = draw(st.sampled_from(places))
        if draw(st.booleans()):
            holder[name] = draw(ANYTHING)
        else:
            del holder[name]
    return json.dumps(event).encode(errors="replace")


@settings(max_examples=400)
@given(st.one_of(changed(), st.binary(max_size=200), ANYTHING.map(lambda value: json.dumps(value).encode())))
def test_nothing_but_unreadable_comes_of_any_body(body: bytes) -> None:
    for heard in (livekit.heard, mux.heard):
        try:
            said = heard(body)
        except Unreadable:
            continue
        assert said.event_id
        assert said.type
        # Both end in Postgres, which takes neither.
        for text in (said.event_id, said.type, said.environment, said.broadcast_hint, said.room_sid, said.stream_id):
            assert "\0" not in text
            text.encode()
    assert json.loads(redacted(body)) is not None


def test_redacted_shows_everything_but_the_secrets() -> None:
    data = {
        **STREAM,
        "master": {"status": "ready", "url": "https://master.mux.com/a/b.mp4?signature=sigsigsig"},
        "drm_token": "tok-1",
    }
    shown = redacted(of_mux("video.live_stream.active", data))
    for secret in (STREAM["stream_key"], "pass-of-the-srt", "key-of-a-relay-4711", "sigsigsig", "tok-1"):
        assert str(secret) not in shown
    read = json.loads(shown)
    assert (read["type"], read["data"]["id"], read["data"]["connected"]) == ("video.live_stream.active", "LS1", True)
    assert read["data"]["simulcast_targets"][0]["error_severity"] == "fatal"
    assert read["data"]["master"]["url"] == "https://master.mux.com/a/b.mp4?***"


def test_redacted_hides_storage_keys_and_tokens_of_livekit() -> None:
    s3 = {"accessKey": "AKIASECRET", "secret": "s3cr3t/+", "sessionToken": "sess", "bucket": "b"}
    info = {**EGRESS, "roomComposite": {"fileOutputs": [{"filepath": "r/first.mp4", "s3": s3}], "layout": "grid"}}
    room = {"name": "first", "turnPassword": "turn-pw"}
    body = of_livekit(event="egress_updated", egressInfo=info, room=room, note=f"rtmps://x.example/app/{STREAM_KEY}")
    shown = redacted(body)
    for secret in ("AKIASECRET", "s3cr3t", '"sess"', "turn-pw", STREAM_KEY):
        assert secret not in shown
    composite = json.loads(shown)["egressInfo"]["roomComposite"]
    assert composite["fileOutputs"][0]["s3"]["bucket"] == "b"
    assert composite["fileOutputs"][0]["filepath"] == "r/first.mp4"
    assert REDACTED in shown


@pytest.mark.parametrize("body", [b'{"stream_key": "k1", "stream_key": "k2"}', b"\xffstream_key=k1", DEEP])
def test_what_cannot_be_read_is_not_shown(body: bytes) -> None:
    shown = json.loads(redacted(body))
    assert set(shown) == {"unreadable", "bytes"}
    assert shown["bytes"] == len(body)


async def test_every_webhook_of_a_simulated_livekit_is_heard() -> None:
    async with staged() as stage:
        egress_id = await stage.live(urls=(f"mux://{STREAM_KEY}", OTHER))
        await stage.stop(egress_id)
        await stage.ended(egress_id)
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        await until(lambda: stage.receiver.of("room_finished"))
        bodies = [json.dumps(body).encode() for body in stage.receiver.bodies]
    heard = [livekit.heard(body) for body in bodies]
    assert {each.broadcast_hint for each in heard} == {"bc-1"}
    assert len({each.room_sid for each in heard}) == 1
    assert len({each.event_id for each in heard}) == len(heard)
    told = [each.egress.status for each in heard if each.egress]
    assert told[0] is EgressStatus.STARTING
    assert told[-1] is EgressStatus.COMPLETE
    assert not any(STREAM_KEY in redacted(body) for body in bodies)
    assert KEY not in "".join(map(redacted, bodies))


async def test_every_webhook_of_a_simulated_mux_is_heard() -> None:
    async with running() as mux_world:
        stream = await mux_world.create(
            passthrough="bs1:test:first:0",
            playback_policies=["public"],
            new_asset_settings={"playback_policies": ["public"], "passthrough": "bs1:test:first:0"},
            simulcast_targets=[{"url": "rtmp://live.example/app", "stream_key": "key-of-a-relay", "passthrough": "t"}],
            reconnect_window=0,
        )
        encoder = await mux_world.go_live(stream)
        await encoder.leave()
        await eventually(lambda: "asset.live_stream_completed" in mux_world.receiver.types())
        hooks = list(mux_world.receiver.hooks)
    heard = {hook.type: mux.heard(hook.raw) for hook in hooks}
    assert {each.stream_id for each in heard.values()} == {stream["id"]}
    assert {each.environment for each in heard.values()} == {"sbx001"}
    active, completed = heard["live_stream.active"], heard["asset.live_stream_completed"]
    assert active.stream is not None
    assert (active.stream.status, active.connected) == (StreamStatus.ACTIVE, True)
    assert completed.recording is not None
    assert completed.recording.status is RecordingStatus.READY
    assert completed.recording.duration_s is not None
    assert heard["live_stream.disconnected"].connected is False
    shown = "".join(redacted(hook.raw) for hook in hooks)
    assert stream["stream_key"] not in shown
    assert "key-of-a-relay" not in shown
