"""The life of a simulated egress against the real SDK: start, list, stop, layout.

Every expectation is a fact of livekit-server, egress or protocol (public sources of August 2026), named by the section
of the provider facts.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import api
from livekit.protocol import models
from livekit.protocol.egress import EgressStatus, StreamInfo

from broadcast_sandbox.livekit.egress.stream_url import redact_identifier, redact_request_url
from tests.contract.livekit_stage import (
    OTHER,
    OTHER_REDACTED,
    PSRPC,
    REDACTED,
    STREAM_KEY,
    Stage,
    composite,
    refusal,
    staged,
    until,
)

MUX = f"mux://{STREAM_KEY}"

STARTING = EgressStatus.EGRESS_STARTING
ACTIVE = EgressStatus.EGRESS_ACTIVE
ENDING = EgressStatus.EGRESS_ENDING
COMPLETE = EgressStatus.EGRESS_COMPLETE
FAILED = EgressStatus.EGRESS_FAILED
ABORTED = EgressStatus.EGRESS_ABORTED
LIMIT = EgressStatus.EGRESS_LIMIT_REACHED


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


def by_url(info: api.EgressInfo) -> dict[str, StreamInfo]:
    return {stream.url: stream for stream in info.stream_results}


class TestStarting:
    async def test_no_room(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.2."""
        assert await refusal(stage.start()) == (404, "not_found", PSRPC + "requested room does not exist")

    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            (composite("bc-1", MUX, advanced=api.EncodingOptions(width=1281)), "width"),
            (composite("bc-1", MUX, advanced=api.EncodingOptions(height=14)), "height"),
            (composite("bc-1", MUX, audio_only=True, video_only=True), "audio_only and video_only"),
            (composite("bc-1"), "stream url"),
            (api.RoomCompositeEgressRequest(room_name="bc-1"), "output"),
            (
                api.RoomCompositeEgressRequest(
                    room_name="bc-1",
                    stream_outputs=[api.StreamOutput(urls=[MUX]), api.StreamOutput(urls=[OTHER])],
                ),
                "multiple stream outputs",
            ),
        ],
    )
    async def test_invalid_requests(self, stage: Stage, request_: api.RoomCompositeEgressRequest, text: str) -> None:
        """Provider facts, LiveKit 4.2."""
        await stage.room()
        refused = await refusal(stage.livekit.egress.start_room_composite_egress(request_))
        message = PSRPC + f"request has missing or invalid field: {text}"
        assert refused == (400, "invalid_argument", message)
        assert "egress.started" not in stage.kinds()

    @pytest.mark.parametrize("url", ["rtmp://host/secret-key", "http://host/app/secret-key", "srt://host:9000"])
    async def test_an_invalid_url_is_echoed(self, stage: Stage, url: str) -> None:
        """Provider facts, LiveKit 4.2 and 4.8: with the stream key."""
        await stage.room()
        status, code, message = await refusal(stage.start(urls=(url,)))
        assert (status, code) == (400, "invalid_argument")
        assert message.startswith(f"{PSRPC}invalid url {url}: ")

    async def test_a_preset_and_odd_bit_rates_are_taken(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.7: 2500000 kbps is no error, only wrong."""
        await stage.room()
        odd = composite("bc-1", MUX, advanced=api.EncodingOptions(width=1280, height=720, video_bitrate=2500000))
        await stage.livekit.egress.start_room_composite_egress(odd)
        preset = composite("bc-1", MUX, preset=api.EncodingOptionsPreset.H264_1080P_30)
        await stage.livekit.egress.start_room_composite_egress(preset)
        # Each call is a new egress: nothing makes StartEgress idempotent.
        assert len({effect.id for effect in stage.simulator.effects.of("egress.started")}) == 2

    async def test_two_forms_of_redaction(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.8."""
        await stage.room()
        info = await stage.start(urls=(MUX, OTHER))
        assert list(info.room_composite.stream_outputs[0].urls) == ["mux://{5bd...234}", OTHER_REDACTED]
        assert set(by_url(info)) == {REDACTED, OTHER_REDACTED}
        assert (info.status, bool(info.started_at)) == (STARTING, True)
        [effect] = stage.simulator.effects.of("egress.started")
        assert (effect.detail["room"], set(effect.detail["urls"])) == ("bc-1", {REDACTED, OTHER_REDACTED})

    def test_redacted_identifiers(self) -> None:
        """The vectors of livekit/protocol utils/redact_test.go."""
        assert [redact_identifier("x" * n) for n in (2, 3, 5, 6, 8, 9)] == [
            "{...}",
            "{x...x}",
            "{x...x}",
            "{xx...xx}",
            "{xx...xx}",
            "{xxx...xxx}",
        ]
        assert redact_request_url("rtmp://a/b/c/abcdefghi live=1") == "rtmp://a/b/c/{abc...ghi} live=1"

    async def test_the_order_of_results_is_random(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.8."""
        await stage.room()
        egress_id = (await stage.start(urls=(MUX, OTHER))).egress_id
        orders = {tuple(stream.url for stream in (await stage.egress(egress_id)).stream_results) for _ in range(40)}
        assert len(orders) == 2

    async def test_it_waits_for_a_track_and_is_not_counted(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.3 and 4.9."""
        await stage.room()
        egress_id = (await stage.start()).egress_id
        await stage.room("clock", empty_timeout=20)
        await until(lambda: stage.simulator.effects.of("room.deleted"))
        assert (await stage.egress(egress_id)).status == STARTING
        [recorder] = (await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))).participants
        assert (recorder.identity, recorder.kind) == (egress_id, models.ParticipantInfo.EGRESS)
        [room] = (await stage.livekit.room.list_rooms(api.ListRoomsRequest(names=["bc-1"]))).rooms
        assert (room.num_participants, room.active_recording) == (0, True)
        await stage.host("bc-1", "microphone")
        await stage.reaches(egress_id, ACTIVE)

    async def test_no_start_signal(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.3, 4.5 and 8.4: ABORTED at once, told as an end without an update."""
        await stage.room()
        egress_id = (await stage.start()).egress_id
        info = await stage.stop(egress_id)
        assert (info.status, info.error, info.error_code) == (ABORTED, "Start signal not received", 412)
        assert (await stage.ended(egress_id)).status == ABORTED
        assert stage.receiver.names(egress_id) == ["egress_started", "egress_ended"]

    async def test_the_room_ends_while_starting(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.3."""
        await stage.room()
        egress_id = (await stage.start()).egress_id
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        over = await stage.ended(egress_id)
        assert (over.status, over.error_code, over.details) == (ABORTED, 412, "End reason: Source closed")

    async def test_stuck(self, stage: Stage) -> None:
        """Provider facts, LiveKit 7.1."""
        stage.fault("egress_stuck", "egress", match="bc-1")
        await stage.room()
        await stage.host("bc-1")
        egress_id = (await stage.start()).egress_id
        await stage.room("clock", empty_timeout=30)
        await until(lambda: stage.simulator.effects.of("room.deleted"))
        assert (await stage.egress(egress_id)).status == STARTING
        assert (await stage.stop(egress_id)).status == ABORTED


class TestListing:
    async def test_filters(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5."""
        await stage.room("bc-1")
        await stage.room("bc-2")
        one, other = (await stage.start("bc-1")).egress_id, (await stage.start("bc-2")).egress_id
        await stage.stop(one)

        async def ids(**filters: Any) -> set[str]:
            listed = await stage.livekit.egress.list_egress(api.ListEgressRequest(**filters))
            return {info.egress_id for info in listed.items}

        assert await ids() == {one, other}
        assert await ids(active=True) == {other}
        assert await ids(room_name="bc-1") == {one}
        assert await ids(room_name="bc-1", active=True) == set()
        assert await ids(egress_id=one, active=True) == {one}
        unknown = stage.livekit.egress.list_egress(api.ListEgressRequest(egress_id="EG_nothing"))
        assert await refusal(unknown) == (404, "not_found", PSRPC + "egress does not exist")

    async def test_a_list_that_lags(self) -> None:
        async with staged(list_lag_s=100.0) as stage:
            await stage.room()
            egress_id = (await stage.start()).egress_id
            assert (await stage.stop(egress_id)).status == ABORTED
            assert (await stage.egress(egress_id)).status == STARTING
            await stage.reaches(egress_id, ABORTED)


class TestStopping:
    async def test_twice(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5: 200 while ENDING, and no second update."""
        stage.simulator.clock.scale = 10
        egress_id = await stage.live()
        assert [(await stage.stop(egress_id)).status, (await stage.stop(egress_id)).status] == [ENDING, ENDING]
        await stage.ended(egress_id)
        assert stage.receiver.names(egress_id).count("egress_ended") == 1
        assert [event.egress_info.status for event in stage.receiver.of("egress_updated")].count(ENDING) == 1

    async def test_after_the_end(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5: after the server has looked for a worker for 3 s; no prefix."""
        egress_id = await stage.live()
        await stage.stop(egress_id)
        await stage.ended(egress_id)
        began = stage.simulator.clock.now()
        refused = await refusal(stage.stop(egress_id))
        assert stage.simulator.clock.now() - began >= 3
        assert refused == (412, "failed_precondition", "egress with status EGRESS_COMPLETE cannot be stopped")
        update = stage.livekit.egress.update_stream(api.UpdateStreamRequest(egress_id=egress_id, add_output_urls=[MUX]))
        refused = await refusal(update)
        assert refused == (412, "failed_precondition", "egress with status EGRESS_COMPLETE cannot be updated")

    async def test_an_unknown_one(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5."""
        assert await refusal(stage.stop("EG_nothing")) == (404, "not_found", PSRPC + "egress does not exist")

    async def test_it_stops_pushing(self, stage: Stage) -> None:
        egress_id = await stage.live()
        await until(lambda: stage.ingest.messages)
        assert stage.ingest.messages == [{"media": True, "behind_s": 3.0}]
        await stage.stop(egress_id)
        await stage.reaches(egress_id, COMPLETE)
        await until(lambda: not stage.ingest.sockets)

    async def test_a_lost_reply(self, stage: Stage) -> None:
        egress_id = await stage.live()
        stage.fault("lost_reply", "StopEgress", match=egress_id)
        with pytest.raises(Exception, match="disconnected"):
            await stage.stop(egress_id)
        assert (await stage.ended(egress_id)).status == COMPLETE
        assert len(stage.simulator.effects.of("egress.stopped")) == 1

    async def test_a_start_that_comes_late(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.2: the caller has given up, the egress runs all the same."""
        await stage.room()
        await stage.host("bc-1")
        stage.fault("late_effect", "StartRoomCompositeEgress", match="bc-1", delay_s=1)
        with pytest.raises(Exception, match="disconnected"):
            await stage.start()
        assert "egress.started" not in stage.kinds()
        [effect] = await until(lambda: stage.simulator.effects.of("egress.started"))
        await stage.reaches(effect.id, ACTIVE)

    @pytest.mark.parametrize(
        ("end", "status", "details", "code"),
        [
            ("killed", COMPLETE, "Process killed", 0),
            ("cpu_exhausted", COMPLETE, "CPU exhausted", 0),
            ("source_closed", COMPLETE, "Source closed", 0),
            ("failed", FAILED, "Failure", 500),
            ("limit_reached", LIMIT, "Session limit reached", 413),
        ],
    )
    async def test_ends_nobody_asked_for(
        self, stage: Stage, end: str, status: EgressStatus, details: str, code: int
    ) -> None:
        """Provider facts, LiveKit 4.1: COMPLETE is not `as intended`."""
        egress_id = await stage.live()
        await stage.post("/_control/egress", egress_id=egress_id, end=end)
        over = await stage.ended(egress_id)
        assert (over.status, over.details, over.error_code) == (status, f"End reason: {details}", code)

    async def test_a_session_limit(self) -> None:
        """Provider facts, LiveKit 4.6."""
        async with staged(session_limit_s=10.0) as stage:
            egress_id = await stage.live()
            over = await stage.ended(egress_id)
            assert (over.status, over.error, over.error_code) == (LIMIT, "Session limit reached", 413)

    async def test_an_identity_that_throws_the_recorder_out(self, stage: Stage) -> None:
        """Provider facts, LiveKit 2: Chrome loses the room, which reads as the end of the source."""
        egress_id = await stage.live()
        await stage.host("bc-1", identity=egress_id)
        assert (await stage.ended(egress_id)).details == "End reason: Source closed"


class TestLayout:
    async def test_it_is_the_metadata_of_the_recorder(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.10."""
        egress_id = await stage.live()
        request = api.UpdateLayoutRequest(egress_id=egress_id, layout="speaker")
        assert (await stage.livekit.egress.update_layout(request)).egress_id == egress_id
        identity = api.RoomParticipantIdentity(room="bc-1", identity=egress_id)
        assert (await stage.livekit.room.get_participant(identity)).metadata == '{"layout":"speaker"}'
        [effect] = stage.simulator.effects.of("egress.layout")
        assert effect.detail == {"room": "bc-1", "layout": "speaker"}

    async def test_not_before_the_recorder_is_there(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.10."""
        stage.simulator.clock.scale = 0.01
        await stage.room()
        egress_id = (await stage.start()).egress_id
        request = api.UpdateLayoutRequest(egress_id=egress_id, layout="speaker")
        refused = await refusal(stage.livekit.egress.update_layout(request))
        assert refused == (404, "not_found", PSRPC + "participant does not exist")
