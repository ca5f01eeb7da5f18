"""LiveKit behind its adapter: what is sent, and what every sort of answer and silence is taken for.

The real SDK over HTTP, against the simulator, or against a server that answers what the simulator cannot.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from livekit import api

from service.domain.broadcast import PRESETS
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import EgressWanted, Push, RoomWanted
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.resources import EgressStatus, OutputState
from service.domain.secret import Secret
from service.providers.livekit.client import LiveKit
from tests.contract.livekit_stage import KEY, SECRET, STREAM_KEY, Stage, staged, until
from tests.contract.provider_wire import Answer, Fate, Wire, refused_url, reply, self_signed, wire

ROOM = RoomWanted(
    name="first", tag="bs1:test:first", empty_timeout=timedelta(minutes=5), departure_timeout=timedelta(seconds=0.2)
)
OTHER_KEY = "key-of-a-destination-4711"
PUSHES = (
    Push(name="", url=Secret(f"mux://{STREAM_KEY}")),
    Push(name="tube", url=Secret(f"rtmps://a.example/live/{OTHER_KEY}")),
)


def egress_wanted(**changes: Any) -> EgressWanted:
    values: dict[str, Any] = {
        "room_name": "first",
        "encoding": PRESETS["1080P_60"],
        "audio_only": False,
        "layout": "speaker",
        "pushes": PUSHES,
    }
    return EgressWanted(**{**values, **changes})


@contextlib.asynccontextmanager
async def livekit_at(url: str, *, longest_s: float = 20, **options: Any) -> AsyncGenerator[LiveKit]:
    livekit = LiveKit(
        url=url, api_key=KEY, api_secret=Secret(SECRET), longest_call=timedelta(seconds=longest_s), **options
    )
    try:
        yield livekit
    finally:
        await livekit.close()


@contextlib.asynccontextmanager
async def answering(*answers: Answer, **options: Any) -> AsyncGenerator[tuple[LiveKit, Wire]]:
    async with wire(*answers) as provider, livekit_at(provider.url, **options) as livekit:
        yield livekit, provider


def message(of: Any) -> bytes:
    return reply(200, of.SerializeToString(), "application/protobuf")


def twirp(status: int, code: object, text: object = "") -> bytes:
    return reply(status, {"code": code, "msg": text})


async def refusal(call: Awaitable[object]) -> ProviderError:
    """What the call raises; no form in which it can be printed shows a secret."""
    with pytest.raises(ProviderError) as caught:
        await call
    error = caught.value
    assert error.provider is Provider.LIVEKIT
    assert error.operation in tuple(Operation), "it is not declared"
    assert isinstance(error.code, str)
    printed = "".join(traceback.format_exception(error))
    for shown in (str(error), repr(error), error.message, error.code, repr(error.args), printed):
        assert not any(secret in shown for secret in (SECRET, STREAM_KEY, OTHER_KEY, "Bearer ey", "eyJ"))
    return error


Call = Callable[[LiveKit], Awaitable[object]]
START: Call = lambda livekit: livekit.egresses.start(egress_wanted())  # noqa: E731
OTHERS: dict[str, Call] = {
    "CreateRoom": lambda livekit: livekit.rooms.create(ROOM),
    "ListRooms": lambda livekit: livekit.rooms.list(),
    "ListRooms of one": lambda livekit: livekit.rooms.get("first"),
    "DeleteRoom": lambda livekit: livekit.rooms.delete("first"),
    "ListParticipants": lambda livekit: livekit.rooms.people("first"),
    "RemoveParticipant": lambda livekit: livekit.rooms.remove("first", "ann"),
    "MutePublishedTrack": lambda livekit: livekit.rooms.mute("first", "ann", "TR_1", muted=True),
    "ListEgress": lambda livekit: livekit.egresses.list_active(),
    "ListEgress of one": lambda livekit: livekit.egresses.list_room("first"),
    "StopEgress": lambda livekit: livekit.egresses.stop("EG_1"),
    "UpdateLayout": lambda livekit: livekit.egresses.set_layout("EG_1", "grid"),
    "UpdateStream": lambda livekit: livekit.egresses.set_pushes("EG_1", add=PUSHES, remove=PUSHES[:1]),
}
CALLS = {"StartRoomCompositeEgress": START, **OTHERS}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


async def test_an_egress_is_started_in_kilobits_with_key_frames_every_two_seconds() -> None:
    async with answering(message(api.EgressInfo(egress_id="EG_1"))) as (livekit, provider):
        await livekit.egresses.start(egress_wanted())
    [sent] = provider.requests
    assert sent.path == "/twirp/livekit.Egress/StartRoomCompositeEgress"
    assert api.RoomCompositeEgressRequest.FromString(sent.body) == api.RoomCompositeEgressRequest(
        room_name="first",
        layout="speaker",
        advanced=api.EncodingOptions(
            width=1920,
            height=1080,
            framerate=60,
            video_codec=api.VideoCodec.H264_MAIN,
            video_bitrate=6000,
            audio_codec=api.AudioCodec.AAC,
            audio_bitrate=192,
            audio_frequency=48_000,
            key_frame_interval=2.0,
        ),
        stream_outputs=[
            api.StreamOutput(
                protocol=api.StreamProtocol.RTMP,
                urls=[f"mux://{STREAM_KEY}", f"rtmps://a.example/live/{OTHER_KEY}"],
            )
        ],
    )


async def test_an_egress_records_the_template_of_the_settings() -> None:
    url = "https://template.example/stage"
    async with answering(message(api.EgressInfo(egress_id="EG_1")), template_url=url) as (livekit, provider):
        await livekit.egresses.start(egress_wanted())
    sent = api.RoomCompositeEgressRequest.FromString(provider.requests[0].body)
    assert (sent.custom_base_url, sent.layout) == (url, "speaker")


@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_every_preset_is_sent_as_it_is(name: str) -> None:
    async with answering(message(api.EgressInfo(egress_id="EG_1"))) as (livekit, provider):
        await livekit.egresses.start(egress_wanted(encoding=PRESETS[name], audio_only=True))
    sent = api.RoomCompositeEgressRequest.FromString(provider.requests[0].body)
    preset, advanced = PRESETS[name], sent.advanced
    assert sent.audio_only
    assert (advanced.width, advanced.height, advanced.framerate) == (preset.width, preset.height, preset.frame_rate)
    assert advanced.video_bitrate * 1000 == preset.video_bitrate_bps
    assert advanced.audio_bitrate * 1000 == preset.audio_bitrate_bps


async def test_a_room_is_created_with_timeouts_that_are_never_the_servers_own() -> None:
    async with answering(message(api.Room(name="first", sid="RM_1"))) as (livekit, provider):
        await livekit.rooms.create(ROOM)
    assert api.CreateRoomRequest.FromString(provider.requests[0].body) == api.CreateRoomRequest(
        name="first", metadata="bs1:test:first", empty_timeout=300, departure_timeout=1
    )


@every_call
async def test_a_refused_connection_was_not_sent(call: Call) -> None:
    async with livekit_at(refused_url()) as livekit:
        assert (await refusal(call(livekit))).outcome is Outcome.NOT_SENT


@every_call
@pytest.mark.parametrize(
    "answer",
    [Fate.CLOSE, Fate.RESET, Fate.HALF, reply(200, "<html>Welcome to our portal</html>", "text/html")],
    ids=["closed", "reset", "half", "html"],
)
async def test_what_broke_or_cannot_be_read_is_ambiguous_and_sent_once(call: Call, answer: Answer) -> None:
    async with answering(answer) as (livekit, provider):
        assert (await refusal(call(livekit))).outcome is Outcome.AMBIGUOUS
        assert len(provider.requests) == 1


async def test_silence_is_ambiguous_in_time_and_nothing_is_sent_twice() -> None:
    async with answering(Fate.HANG, longest_s=0.2) as (livekit, provider):
        # The SDK's own limit is 60 s.
        async with asyncio.timeout(20):
            errors = await asyncio.gather(*(refusal(call(livekit)) for call in CALLS.values()))
        assert [error.outcome for error in errors] == [Outcome.AMBIGUOUS] * len(CALLS)
        assert sorted(sent.path.rsplit("/", 1)[1] for sent in provider.requests) == sorted(
            name.split()[0] for name in CALLS
        )


async def test_a_start_is_waited_for_longer_than_other_calls() -> None:
    """LiveKit refuses a start that no worker takes after 22 s, which may be longer than a lease."""
    async with (
        wire(Fate.HANG) as provider,
        livekit_at(provider.url, longest_s=0.1, longest_start=timedelta(seconds=1)) as livekit,
    ):
        began = asyncio.get_running_loop().time()
        await asyncio.gather(refusal(START(livekit)), refusal(OTHERS["CreateRoom"](livekit)))
        assert asyncio.get_running_loop().time() - began >= 1


def _on_the_cloud(failover: bool, *_: object) -> int:  # noqa: FBT001
    return 3 if failover else 1


@pytest.mark.parametrize("answer", [twirp(503, "unavailable"), twirp(500, "internal"), Fate.CLOSE])
async def test_a_start_is_never_sent_again_though_the_host_were_the_cloud(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livekit.api.twirp_client.failover_attempts", _on_the_cloud)
    async with answering(answer) as (livekit, provider):
        assert (await refusal(START(livekit))).outcome in (Outcome.AMBIGUOUS, Outcome.UNAVAILABLE)
        assert [sent.method for sent in provider.requests] == ["POST"]


async def test_the_sdk_left_to_itself_would_send_a_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above proves nothing."""
    monkeypatch.setattr("livekit.api.twirp_client.failover_attempts", _on_the_cloud)
    async with wire(Fate.CLOSE) as provider:
        eager = api.LiveKitAPI(provider.url, KEY, SECRET)
        with pytest.raises((api.ServerError, aiohttp.ClientError)):
            await eager.egress.start_room_composite_egress(api.RoomCompositeEgressRequest(room_name="first"))
        await eager.aclose()  # pyright: ignore[reportUnknownMemberType]
        assert [sent.method for sent in provider.requests].count("POST") == 3


@pytest.mark.parametrize("prefix", ["", "twirp error unknown: "])
@pytest.mark.parametrize(
    ("status", "code", "start", "other"),
    [
        (503, "unavailable", Outcome.UNAVAILABLE, Outcome.UNAVAILABLE),
        (429, "resource_exhausted", Outcome.THROTTLED, Outcome.THROTTLED),
        (400, "invalid_argument", Outcome.REFUSED, Outcome.REFUSED),
        (400, "malformed", Outcome.REFUSED, Outcome.REFUSED),
        (404, "bad_route", Outcome.REFUSED, Outcome.REFUSED),
        (404, "not_found", Outcome.MISSING, Outcome.MISSING),
        (412, "failed_precondition", Outcome.REFUSED, Outcome.REFUSED),
        (501, "unimplemented", Outcome.REFUSED, Outcome.REFUSED),
        (401, "unauthenticated", Outcome.CREDENTIALS, Outcome.CREDENTIALS),
        (403, "permission_denied", Outcome.CREDENTIALS, Outcome.CREDENTIALS),
        (408, "deadline_exceeded", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (408, "canceled", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (409, "already_exists", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (500, "internal", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (500, "unknown", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (500, "brand_new", Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
    ],
)
async def test_what_livekit_refuses(status: int, code: str, start: Outcome, other: Outcome, prefix: str) -> None:
    done = {
        "StopEgress": ("failed_precondition", "not_found"),
        "DeleteRoom": ("not_found",),
        "ListParticipants": ("not_found",),
    }
    async with answering(twirp(status, code, f"{prefix}said so")) as (livekit, provider):
        error = await refusal(START(livekit))
        assert (error.outcome, error.code) == (start, code)
        assert error.message.endswith("said so")
        for name, call in OTHERS.items():
            if code in done.get(name, ()):
                await call(livekit)
            else:
                assert (await refusal(call(livekit))).outcome is other
        assert len(provider.requests) == len(CALLS)


@pytest.mark.parametrize(
    ("answer", "outcome", "code", "message"),
    [
        (reply(401, "invalid API key: x", "text/plain"), Outcome.CREDENTIALS, "401", "401 Unauthorized"),
        (reply(403, "<html>Forbidden</html>", "text/html"), Outcome.CREDENTIALS, "403", "403 Forbidden"),
        (reply(502, "<html>Bad Gateway</html>", "text/html"), Outcome.AMBIGUOUS, "502", "502 Bad Gateway"),
        (reply(503, b"\xff\xfe", "text/plain"), Outcome.AMBIGUOUS, "503", "503 Service Unavailable"),
        (reply(500, b"\xff\xfe"), Outcome.AMBIGUOUS, "500", "500 Internal Server Error"),
        (reply(520, "", "text/plain"), Outcome.AMBIGUOUS, "520", "520"),
        (reply(204), Outcome.AMBIGUOUS, "unreadable", "an answer that is not LiveKit's"),
        (twirp(502, 502, "a gateway's own number"), Outcome.AMBIGUOUS, "502", "a gateway's own number"),
        (twirp(502, 502, "<b>one's</b> page &amp; more"), Outcome.AMBIGUOUS, "502", "one's page & more"),
        (twirp(503, "unavailable", "no " * 1000), Outcome.UNAVAILABLE, "unavailable", f"{'no ' * 66}n…"),
        (twirp(500, None, None), Outcome.AMBIGUOUS, "None", "None"),
        (twirp(500, {"deep": []}, ["text"]), Outcome.AMBIGUOUS, "{'deep': []}", "['text']"),
        (reply(502, ["bad gateway"]), Outcome.AMBIGUOUS, "unreadable", "an answer that is not LiveKit's"),
        (reply(502, "null"), Outcome.AMBIGUOUS, "unreadable", "an answer that is not LiveKit's"),
        (reply(502, "5"), Outcome.AMBIGUOUS, "unreadable", "an answer that is not LiveKit's"),
        (reply(502, "[" * 200_000), Outcome.AMBIGUOUS, "502", "502 Bad Gateway"),
    ],
)
async def test_what_stands_in_front_of_livekit_refuses(
    answer: bytes, outcome: Outcome, code: str, message: str
) -> None:
    async with answering(answer) as (livekit, provider):
        for name, call in CALLS.items():
            error = await refusal(call(livekit))
            assert error.outcome is outcome
            assert (error.code, error.message) == (code, message)
            # LiveKit's method names are the texts of our operations: they are stored in `last_error`.
            assert error.operation == name.removesuffix(" of one")
        assert len(provider.requests) == len(CALLS)


async def test_an_empty_200_is_no_egress_and_no_room() -> None:
    """Nothing at all is a valid message of every type."""
    async with answering(reply(200)) as (livekit, _):
        for call in (START, OTHERS["CreateRoom"], OTHERS["UpdateStream"]):
            assert (await refusal(call(livekit))).outcome is Outcome.AMBIGUOUS


async def test_a_certificate_nobody_trusts_is_an_error_of_the_provider(tmp_path: Path) -> None:
    async with wire(reply(200), tls=self_signed(tmp_path)) as provider, livekit_at(provider.url) as livekit:
        for call in CALLS.values():
            assert (await refusal(call(livekit))).outcome in (Outcome.NOT_SENT, Outcome.AMBIGUOUS)
        assert not provider.requests


async def test_numbers_of_tomorrow_are_unknown_today() -> None:
    # Field 3 is the status; 99 is none.
    future = api.EgressInfo(egress_id="EG_1", room_name="first").SerializeToString() + bytes([3 << 3, 99])
    listed = bytes([1 << 3 | 2, len(future)]) + future
    output = api.StreamInfo(url="rtmp://a/b/{...}").SerializeToString() + bytes([5 << 3, 99])
    with_output = future + bytes([15 << 3 | 2, len(output)]) + output
    answers = [reply(200, body, "application/protobuf") for body in (future, listed, with_output)]
    async with answering(*answers) as (livekit, _):
        first = await livekit.egresses.start(egress_wanted())
        [second] = await livekit.egresses.list_room("first")
        third = await livekit.egresses.start(egress_wanted())
    assert first.status is second.status is third.status is EgressStatus.UNKNOWN
    assert not first.status.terminal
    assert [each.state for each in third.outputs] == [OutputState.CONNECTING]


@contextlib.asynccontextmanager
async def simulated(**settings: Any) -> AsyncGenerator[tuple[Stage, LiveKit]]:
    async with staged(**settings) as stage, livekit_at(stage.simulator.base_url) as livekit:
        yield stage, livekit


URLS = [f"{base}{'k' * length}" for length in (1, 2, 3, 5, 6, 8, 9, 36) for base in ("mux://", "rtmp://a.example/b/")]


@pytest.mark.parametrize(
    "url",
    [
        *URLS,
        "rtmps://a.example:443/live/abcdefghi",
        "rtmps://a.example/live/app/abcdefghi",
        "rtmp://[2606:4700::1111]/live/abc?token=d,e}f'g&h",
        "rtmp://203.0.113.1:1935/x/live2_123-abc.def",
    ],
)
async def test_the_address_of_a_push_is_what_livekit_shows_of_it(url: str) -> None:
    async with simulated() as (stage, livekit):
        if url.startswith("mux://"):
            stage.ingest.valid.add(url.removeprefix("mux://"))
        await livekit.rooms.create(ROOM)
        await stage.host("first")
        push = Push(name="", url=Secret(url))
        started = await livekit.egresses.start(egress_wanted(pushes=(push,)))
        await until(lambda: stage.kinds("egress.stream_connected"))
        [seen] = await livekit.egresses.list_room("first")
        assert [output.address for output in seen.outputs] == [livekit.egresses.address_of(push)]
        assert seen.id == started.id
        assert seen.status is EgressStatus.ACTIVE
        assert seen.outputs[0].state is OutputState.ACTIVE


@pytest.mark.parametrize("url", ["", "mux", "http://a.example/b/c", "rtmp://a.example/key", "srt://a/b/c"])
async def test_what_livekit_would_not_push_to_has_no_address(url: str) -> None:
    async with livekit_at("http://127.0.0.1:1") as livekit:
        assert livekit.egresses.address_of(Push(name="", url=Secret(url))) == ""


async def test_the_life_of_a_room_and_its_egress() -> None:
    async with simulated() as (stage, livekit):
        assert await livekit.rooms.get("first") is None
        made = await livekit.rooms.create(ROOM)
        assert (made.name, made.tag, made.publishers) == ("first", "bs1:test:first", 0)
        assert (await livekit.rooms.create(ROOM)).sid == made.sid
        await stage.room("first-of-another")
        assert [room.name for room in await livekit.rooms.list()] == ["first", "first-of-another"]
        started = await livekit.egresses.start(egress_wanted(pushes=PUSHES[:1]))
        assert (started.status, started.outputs) == (EgressStatus.STARTING, started.outputs)
        await stage.host("first")
        await until(lambda: stage.kinds("egress.stream_connected"))
        room = await livekit.rooms.get("first")
        assert room is not None
        # The egress is in the room too, and is nobody who publishes.
        assert (room.sid, room.publishers) == (made.sid, 1)
        await livekit.egresses.set_pushes(started.id, add=PUSHES[1:], remove=PUSHES[:1])
        await livekit.egresses.set_layout(started.id, "grid")
        assert [seen.id for seen in await livekit.egresses.list_active()] == [started.id]
        await livekit.egresses.stop(started.id)
        await stage.ended(started.id)
        await livekit.egresses.stop(started.id)
        await livekit.egresses.stop("EG_of_nobody")
        assert await livekit.egresses.list_active() == []
        [ended] = await livekit.egresses.list_room("first")
        assert ended.status is EgressStatus.COMPLETE
        assert ended.updated_ns > started.updated_ns
        await livekit.rooms.delete("first")
        await livekit.rooms.delete("first")
        assert await livekit.rooms.get("first") is None


@pytest.mark.parametrize(
    ("kind", "happens"), [("lost_reply", True), ("late_effect", True), ("reset", False), ("hang", False)]
)
async def test_an_ambiguous_start_is_found_in_its_room_if_it_happened(kind: Any, happens: bool) -> None:  # noqa: FBT001
    async with simulated() as (stage, livekit), livekit_at(stage.simulator.base_url, longest_s=0.3) as hasty:
        await livekit.rooms.create(ROOM)
        stage.fault(kind, "StartRoomCompositeEgress", delay_s=0.05)
        assert (await refusal(START(hasty if kind == "hang" else livekit))).outcome is Outcome.AMBIGUOUS
        if happens:
            await until(lambda: stage.kinds("egress.started"))
        assert len(await livekit.egresses.list_room("first")) == happens


@pytest.mark.parametrize(
    "url", [f"rtmp://a.example/{OTHER_KEY}", f"rtmps://a.example/x/live/{OTHER_KEY}", f"mux://{OTHER_KEY}"]
)
async def test_a_refusal_that_echoes_the_url_does_not_carry_its_key_on(url: str) -> None:
    push = Push(name="", url=Secret(url))
    async with simulated() as (stage, livekit):
        await livekit.rooms.create(ROOM)
        for operation in ("StartRoomCompositeEgress", "UpdateStream"):
            stage.fault("error", operation, status=400, message=f"invalid url {url}: invalid scheme")
        for call in (
            lambda: livekit.egresses.start(egress_wanted(pushes=(push,))),
            lambda: livekit.egresses.set_pushes("EG_1", add=(push,), remove=()),
        ):
            assert (await refusal(call())).outcome is Outcome.REFUSED
        assert stage.hits("error") == 2


async def test_the_simulators_own_refusal_of_a_url_without_an_application_shows_no_key() -> None:
    push = Push(name="", url=Secret(f"rtmp://a.example/{OTHER_KEY}"))
    async with simulated() as (_, livekit):
        await livekit.rooms.create(ROOM)
        error = await refusal(livekit.egresses.start(egress_wanted(pushes=(push,))))
        assert "invalid url rtmp://a.example/***" in error.message


async def test_texts_of_an_egress_do_not_carry_keys_on() -> None:
    told = api.EgressInfo(egress_id="EG_1", error=f"invalid url rtmps://a.example/live/{OTHER_KEY}: no", details="x")
    told.stream_results.add(url="rtmp://a/b/{...}", error=f"cannot publish mux://{STREAM_KEY}")
    async with answering(message(told)) as (livekit, _):
        seen = await livekit.egresses.start(egress_wanted())
    assert OTHER_KEY not in repr(seen)
    assert STREAM_KEY not in repr(seen)
    assert seen.error.endswith(": x")


async def test_a_wrong_api_secret_is_a_matter_of_credentials() -> None:
    wrong = Secret("another-secret-of-at-least-thirty-two-bytes")
    async with staged() as stage:
        livekit = LiveKit(
            url=stage.simulator.base_url, api_key=KEY, api_secret=wrong, longest_call=timedelta(seconds=5)
        )
        try:
            error = await refusal(livekit.rooms.list())
            assert error.outcome is Outcome.CREDENTIALS
            # LiveKit's text quotes the whole token.
            assert "eyJ" not in f"{error} {error.code} {error.message} {error!r}"
        finally:
            await livekit.close()


async def test_a_hosts_token_says_every_grant() -> None:
    async with livekit_at("https://livekit.example", public_url="wss://public.example") as livekit:
        before = datetime.now(UTC)
        issued = livekit.tokens.issue(room_name="first", identity="ann", display_name="Ann", ttl=timedelta(minutes=10))
        after = datetime.now(UTC)
    claims = jwt.decode(issued.token.reveal(), SECRET, algorithms=["HS256"], issuer=KEY)
    assert claims["video"] == {
        "roomJoin": True,
        "room": "first",
        "canPublish": True,
        "canPublishSources": ["camera", "microphone", "screen_share", "screen_share_audio"],
        "canSubscribe": True,
        "canPublishData": True,
        "canUpdateOwnMetadata": False,
        "roomCreate": False,
        "roomList": False,
        "roomRecord": False,
        "roomAdmin": False,
        "ingressAdmin": False,
        "hidden": False,
    }
    assert (claims["sub"], claims["name"]) == ("ann", "Ann")
    assert set(claims) == {"sub", "name", "video", "iss", "nbf", "exp"}
    assert abs(claims["exp"] - issued.expire_time.timestamp()) <= 1 + (after - before).total_seconds()
    assert before <= issued.expire_time - timedelta(minutes=10) <= after
    assert issued.url == "wss://public.example"
    assert issued.token.reveal() not in repr(issued)
    assert base64.urlsafe_b64encode(SECRET.encode()).decode() not in issued.token.reveal()


@pytest.mark.parametrize(("url", "public"), [("http://a.example:7880", "ws://a.example:7880"), ("wss://a", "wss://a")])
async def test_browsers_connect_by_websocket(url: str, public: str) -> None:
    async with livekit_at(url) as livekit:
        issued = livekit.tokens.issue(room_name="r", identity="i", display_name="", ttl=timedelta(minutes=1))
    assert issued.url == public
