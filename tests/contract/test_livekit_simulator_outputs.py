"""The simulated LiveKit against the real SDK: webhooks, RTMP outputs of an egress, faults of the world.

Every expectation is a fact of livekit-server, egress or protocol (public sources of August 2026), named by the section
of the provider facts.
"""

from collections.abc import AsyncIterator

import pytest
from livekit import api
from livekit.protocol import models
from livekit.protocol.egress import EgressStatus, StreamInfo

from tests.contract.livekit_stage import (
    KEY,
    OTHER,
    OTHER_REDACTED,
    PSRPC,
    REDACTED,
    SECRET,
    STREAM_KEY,
    Stage,
    refusal,
    staged,
    until,
)

MUX = f"mux://{STREAM_KEY}"
BAD_KEY = "mux://00000000-0000-0000-0000-000000000000"
_REFUSED = "Connection refused: Could not connect to rtmps://global-live.mux.com:443/app/{000...000}"

STARTING = EgressStatus.EGRESS_STARTING
ACTIVE = EgressStatus.EGRESS_ACTIVE
ENDING = EgressStatus.EGRESS_ENDING
COMPLETE = EgressStatus.EGRESS_COMPLETE
FAILED = EgressStatus.EGRESS_FAILED


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


def by_url(info: api.EgressInfo) -> dict[str, StreamInfo]:
    return {stream.url: stream for stream in info.stream_results}


class TestWebhooks:
    async def test_the_happy_path(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.4: exactly this, per queue."""
        egress_id = await stage.live()
        await until(lambda: len(stage.receiver.of("egress_updated")) == 2)
        await stage.stop(egress_id)
        await stage.ended(egress_id)
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        await until(lambda: stage.receiver.of("room_finished"))

        assert stage.receiver.names("bc-1") == [
            "room_started",
            "participant_joined",
            "track_published",
            "track_published",
            "participant_joined",
            "participant_left",
            "track_unpublished",
            "track_unpublished",
            "participant_left",
            "room_finished",
        ]
        assert stage.receiver.names(egress_id) == [
            "egress_started",
            "egress_updated",
            "egress_updated",
            "egress_updated",
            "egress_ended",
        ]
        host, recorder = (event.participant for event in stage.receiver.of("participant_joined"))
        assert (host.identity, host.kind, host.state) == (
            "host",
            models.ParticipantInfo.STANDARD,
            models.ParticipantInfo.ACTIVE,
        )
        assert (recorder.identity, recorder.kind) == (egress_id, models.ParticipantInfo.EGRESS)
        assert recorder.permission.hidden
        assert recorder.permission.recorder
        left = [event.participant for event in stage.receiver.of("participant_left")]
        assert [(who.identity, who.disconnect_reason) for who in left] == [
            (egress_id, models.DisconnectReason.CLIENT_INITIATED),
            ("host", models.DisconnectReason.ROOM_DELETED),
        ]
        [finished] = stage.receiver.of("room_finished")
        assert not finished.room_end_reason, "livekit-server 1.13.5 has none"

        started, active, connected, ending, over = (
            event.egress_info for event in stage.receiver.events if event.egress_info.egress_id
        )
        assert [info.status for info in (started, active, connected, ending, over)] == [
            STARTING,
            ACTIVE,
            ACTIVE,
            ENDING,
            COMPLETE,
        ]
        assert [bool(info.stream_results[0].started_at) for info in (started, active, connected)] == [
            False,
            False,
            True,
        ]
        assert ending.details == over.details == "End reason: StopEgress API"
        stamps = [info.updated_at for info in (started, active, connected, ending, over)]
        assert stamps == sorted(set(stamps))
        assert over.stream_results[0].status == StreamInfo.FINISHED
        assert over.stream_results[0].duration > 0
        assert over.ended_at >= over.started_at > 10**18

    async def test_the_shapes(self, stage: Stage) -> None:
        """Provider facts, LiveKit 3.2: zero values are absent, int64 are strings, track events name ids only."""
        await stage.live()
        await until(lambda: len(stage.receiver.of("egress_updated")) == 2)
        await until(lambda: len(stage.receiver.of("participant_joined")) == 2)
        bodies = {body["event"]: body for body in reversed(stage.receiver.bodies)}
        started = bodies["egress_started"]
        assert started.keys() == {"event", "egressInfo", "id", "createdAt"}, "no room"
        assert "status" not in started["egressInfo"]
        assert started["egressInfo"]["streamResults"] == [{"url": REDACTED}]
        assert isinstance(started["egressInfo"]["startedAt"], str)
        assert "numParticipants" not in bodies["room_started"]["room"]
        assert bodies["room_started"]["room"]["emptyTimeout"] == 300
        assert bodies["track_published"]["room"].keys() == {"sid", "name"}
        assert bodies["track_published"]["participant"].keys() == {"sid", "identity"}
        assert all(body["id"].startswith("EV_") and body["createdAt"] for body in stage.receiver.bodies)
        assert STREAM_KEY not in str(stage.receiver.bodies)

    async def test_the_headers(self, stage: Stage) -> None:
        """Provider facts, LiveKit 3.3: no Bearer, and a token that a stranger's secret does not verify."""
        await stage.room()
        await until(lambda: stage.receiver.headers)
        headers = stage.receiver.headers[0]
        assert headers["Content-Type"] == "application/webhook+json"
        claims = api.TokenVerifier(KEY, SECRET).verify(headers["Authorization"])
        assert claims.sha256

    async def test_a_server_error_is_tried_again_with_the_same_id(self, stage: Stage) -> None:
        """Provider facts, LiveKit 3.3: 4 retries; any 4xx but 429 counts as delivered."""
        stage.receiver.answers = [500, 503, 429, 502]
        await stage.room()
        deliveries = stage.simulator.webhooks.sender.deliveries
        # The receiver has the event a moment before the sender has its answer.
        await until(lambda: len(deliveries) == 5)
        assert [delivery.status for delivery in deliveries] == [500, 503, 429, 502, 200]
        assert len({delivery.event_id for delivery in deliveries}) == 1

    async def test_a_refusal_loses_the_event(self, stage: Stage) -> None:
        """Provider facts, LiveKit 3.3."""
        stage.receiver.answers = [401, 501]
        await stage.host("bc-1", "camera")
        await until(lambda: stage.receiver.names("bc-1") == ["track_published"])

    async def test_dropped_ones(self, stage: Stage) -> None:
        stage.fault("webhook_drop", "egress_started", match="bc-1")
        egress_id = await stage.live()
        await until(lambda: len(stage.receiver.names(egress_id)) == 2)
        assert "egress_started" not in stage.receiver.names(egress_id)
        assert stage.hits("webhook_drop") == 1

    async def test_the_room_ends_first(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.4 and 4.1."""
        egress_id = await stage.live()
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        over = await stage.ended(egress_id)
        assert (over.status, over.details, over.error) == (COMPLETE, "End reason: Source closed", "")
        assert stage.receiver.names(egress_id)[-2:] == ["egress_updated", "egress_ended"]
        await until(lambda: stage.receiver.of("room_finished"))
        left = [event.participant for event in stage.receiver.of("participant_left")]
        assert {who.disconnect_reason for who in left} == {models.DisconnectReason.ROOM_DELETED}
        assert len(left) == 2


class TestOutputs:
    async def test_a_bad_key_fails_fast(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.4 and 8.4."""
        await stage.room()
        await stage.host("bc-1")
        egress_id = (await stage.start(urls=(BAD_KEY,))).egress_id
        over = await stage.ended(egress_id)
        assert (over.status, over.error, over.error_code) == (FAILED, _REFUSED, 503)
        [stream] = over.stream_results
        assert (stream.status, stream.error, stream.retries) == (StreamInfo.FAILED, _REFUSED, 0)
        assert stage.receiver.names(egress_id) == ["egress_started", "egress_updated", "egress_ended"]
        assert stage.ingest.connections == 0
        people = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))
        assert [person.identity for person in people.participants] == ["host"]

    async def test_one_of_several_fails(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.4: one update, when all have either started or failed."""
        await stage.room()
        await stage.host("bc-1")
        egress_id = (await stage.start(urls=(MUX, BAD_KEY, OTHER))).egress_id
        await until(lambda: len(stage.receiver.of("egress_updated")) == 2)
        info = stage.receiver.of("egress_updated")[1].egress_info
        streams = by_url(info)
        assert info.status == ACTIVE
        assert streams[REDACTED].status == streams[OTHER_REDACTED].status == StreamInfo.ACTIVE
        assert streams[REDACTED].started_at
        assert [stream.status for stream in info.stream_results].count(StreamInfo.FAILED) == 1
        assert (await stage.egress(egress_id)).status == ACTIVE

    async def test_another_host_is_a_destination(self, stage: Stage) -> None:
        egress_id = await stage.live(urls=(OTHER,))
        assert [effect.id for effect in stage.simulator.effects.of("destination.connected")] == [OTHER_REDACTED]
        await stage.stop(egress_id)
        await until(lambda: stage.simulator.effects.of("destination.disconnected"))
        assert stage.ingest.connections == 0

    async def test_a_destination_that_refuses(self, stage: Stage) -> None:
        stage.fault("rtmp_refuse", "publish", match=OTHER_REDACTED)
        await stage.room()
        await stage.host("bc-1")
        egress_id = (await stage.start(urls=(OTHER, MUX))).egress_id
        await until(lambda: len(stage.receiver.of("egress_updated")) == 2)
        streams = by_url(await stage.egress(egress_id))
        assert streams[OTHER_REDACTED].status == StreamInfo.FAILED
        assert streams[REDACTED].status == StreamInfo.ACTIVE

    async def test_it_reconnects_when_the_ingest_drops_it(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.4: at once; the retry is counted and told, the start stays what it was."""
        egress_id = await stage.live()
        before = (await stage.egress(egress_id)).stream_results[0].started_at
        await stage.ingest.sockets[STREAM_KEY].close()
        await until(lambda: stage.ingest.connections == 2)
        await until(lambda: len(stage.receiver.of("egress_updated")) == 3)
        info = await stage.egress(egress_id)
        [stream] = info.stream_results
        assert (info.status, stream.started_at, stream.status) == (ACTIVE, before, StreamInfo.ACTIVE)
        assert stream.retries >= 1
        assert stream.last_retry_at > before

    async def test_it_gives_up_after_thirty_seconds(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.4."""
        egress_id = await stage.live()
        stage.ingest.valid.clear()
        began = stage.simulator.clock.now()
        await stage.ingest.sockets[STREAM_KEY].close()
        over = await stage.ended(egress_id)
        assert stage.simulator.clock.now() - began >= 30
        assert (over.status, over.error_code) == (FAILED, 503)
        assert over.stream_results[0].retries > 1
        # At most one update a minute tells of retries.
        assert stage.receiver.names(egress_id).count("egress_updated") == 3

    async def test_a_drop_that_was_asked_for(self, stage: Stage) -> None:
        stage.fault("rtmp_drop", "publish", match="global-live", delay_s=5)
        await stage.live()
        await until(lambda: len(stage.simulator.effects.of("egress.stream_connected")) == 2)
        assert stage.hits("rtmp_drop") == 1
        stage.fault("rtmp_drop", "publish", match="bc-1")
        await until(lambda: stage.ingest.connections == 3)

    async def test_no_media(self, stage: Stage) -> None:
        stage.fault("rtmp_no_media", "publish", match="bc-1")
        await stage.live()
        await until(lambda: stage.ingest.messages)
        assert stage.ingest.messages == [{"media": False, "behind_s": 3.0}]

    async def test_adding_and_removing(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.3 and 4.5."""
        egress_id = await stage.live()
        update = stage.livekit.egress.update_stream
        await update(api.UpdateStreamRequest(egress_id=egress_id, add_output_urls=[OTHER]))
        await until(lambda: stage.simulator.effects.of("destination.connected"))
        assert set(by_url(await stage.egress(egress_id))) == {REDACTED, OTHER_REDACTED}

        info = await update(api.UpdateStreamRequest(egress_id=egress_id, remove_output_urls=[OTHER]))
        assert by_url(info)[OTHER_REDACTED].status == StreamInfo.FINISHED
        await until(lambda: stage.simulator.effects.of("destination.disconnected"))
        assert (await stage.egress(egress_id)).status == ACTIVE
        assert [effect.detail["urls"] for effect in stage.simulator.effects.after(0) if ".urls_" in effect.kind] == [
            [OTHER_REDACTED],
            [OTHER_REDACTED],
        ]

    async def test_removing_the_last_ends_it(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5."""
        egress_id = await stage.live()
        request = api.UpdateStreamRequest(egress_id=egress_id, remove_output_urls=[MUX])
        info = await stage.livekit.egress.update_stream(request)
        assert (info.status, info.stream_results[0].status) == (ENDING, StreamInfo.FINISHED)
        over = await stage.ended(egress_id)
        assert (over.status, over.details) == (COMPLETE, "End reason: All streams stopped")

    async def test_an_update_is_partial(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5: what can be done is done, what cannot is named with its stream key."""
        egress_id = await stage.live()
        request = api.UpdateStreamRequest(
            egress_id=egress_id,
            add_output_urls=["rtmp://host/secret", OTHER],
            remove_output_urls=["rtmp://a/b/unknown"],
        )
        status, code, message = await refusal(stage.livekit.egress.update_stream(request))
        assert (status, code) == (400, "invalid_argument")
        assert message.startswith(PSRPC + "invalid url rtmp://host/secret: ")
        assert message.endswith("\nstream rtmp://a/b/unknown not found")
        await until(lambda: stage.simulator.effects.of("destination.connected"))
        assert STREAM_KEY not in str(await stage.get("/_effects"))


class TestFaultsOfTheWorld:
    async def test_a_ghost(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.5: ACTIVE for ever, and 408 after 3 s for whoever stops it."""
        stage.fault("egress_ghost", "egress", match="bc-1", delay_s=3)
        egress_id = await stage.live()
        await until(lambda: stage.simulator.effects.of("egress.ghost"))
        await until(lambda: not stage.ingest.sockets)
        people = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))
        assert [person.identity for person in people.participants] == ["host"]
        began = stage.simulator.clock.now()
        assert await refusal(stage.stop(egress_id)) == (408, "deadline_exceeded", PSRPC + "request timed out")
        assert stage.simulator.clock.now() - began >= 3
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        assert (await stage.egress(egress_id)).status == ACTIVE
        assert "egress_ended" not in stage.receiver.names(egress_id)

    async def test_a_running_egress_may_become_one(self, stage: Stage) -> None:
        await stage.live()
        await stage.post("/_faults", kind="egress_ghost", operation="egress", match="bc-1")
        await until(lambda: stage.simulator.effects.of("egress.ghost"))

    async def test_a_failure(self, stage: Stage) -> None:
        stage.fault("egress_fail", "egress", match="bc-1", delay_s=3, message="OOM: 4.00 GB used", status=403)
        egress_id = await stage.live()
        over = await stage.ended(egress_id)
        assert (over.status, over.error, over.error_code) == (FAILED, "OOM: 4.00 GB used", 403)
        assert over.details == "End reason: Failure"
        await until(lambda: not stage.ingest.sockets)

    async def test_a_fault_of_another_room_does_not_hit(self, stage: Stage) -> None:
        stage.fault("egress_fail", "egress", match="bc-2")
        egress_id = await stage.live("bc-1")
        assert (await stage.egress(egress_id)).status == ACTIVE
        assert stage.hits("egress_fail") == 0
