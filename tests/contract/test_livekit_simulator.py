"""The simulated LiveKit against the real SDK: authorization, transport, rooms, people.

Every expectation is a fact of livekit-server, egress or protocol (public sources of August 2026), named by the section
of the provider facts.
"""

import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import api
from livekit.protocol import models

from tests.contract.livekit_stage import (
    KEY,
    PSRPC,
    SECRET,
    Stage,
    refusal,
    staged,
    until,
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def _recounted(stage: Stage) -> None:
    """The counts in ListRooms are refreshed every 5 s at best."""
    began = stage.simulator.clock.now()
    await until(lambda: stage.simulator.clock.now() - began > 10)


def token(identity: str = "host", *, secret: str = SECRET, ttl_s: float = 600, **grants: Any) -> str:
    wanted: dict[str, Any] = {"room_join": True, "room": "bc-1", **grants}
    video = api.VideoGrants(**wanted)
    made = api.AccessToken(KEY, secret).with_identity(identity).with_grants(video)
    return made.with_ttl(datetime.timedelta(seconds=ttl_s)).to_jwt()


async def raw(stage: Stage, path: str, *, method: str = "POST", **request: Any) -> tuple[int, str, str]:
    async with stage.http.request(method, stage.simulator.base_url + path, **request) as response:
        return response.status, response.content_type, await response.text()


class TestAuthorization:
    async def test_a_wrong_secret_is_refused_in_plain_text(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.2: the SDK makes code `unknown` and an empty message of it."""
        other = api.LiveKitAPI(stage.simulator.base_url, KEY, SECRET[::-1], failover=False)
        assert await refusal(other.room.list_rooms(api.ListRoomsRequest())) == (401, "unknown", "")
        await other.aclose()  # pyright: ignore[reportUnknownMemberType]

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            ("nonsense", "invalid authorization header. Must start with Bearer "),
            ("Bearer nonsense", "invalid authorization token"),
            ("Bearer " + api.AccessToken("other", SECRET).to_jwt(), "invalid API key: other"),
        ],
    )
    async def test_what_the_middleware_refuses(self, stage: Stage, header: str, text: str) -> None:
        """Provider facts, LiveKit 8.2."""
        path = "/twirp/livekit.RoomService/ListRooms"
        headers = {"Authorization": header}
        assert await raw(stage, path, json={}, headers=headers) == (401, "text/plain", text)

    async def test_an_expired_token_is_refused_after_a_minute_of_leeway(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.2."""
        path = "/twirp/livekit.RoomService/ListRooms"
        good = {"Authorization": "Bearer " + token(ttl_s=-30, room_list=True)}
        bad = {"Authorization": "Bearer " + token(ttl_s=-70, room_list=True)}
        assert (await raw(stage, path, json={}, headers=good))[0] == 200
        status, kind, text = await raw(stage, path, json={}, headers=bad)
        assert (status, kind) == (401, "text/plain")
        # The real server quotes the whole token, so the text must never be passed on.
        sent = bad["Authorization"].removeprefix("Bearer ")
        assert text == f"invalid token: {sent}, error: token has invalid claims: token is expired"

    @pytest.mark.parametrize(
        ("method", "body", "grants", "status"),
        [
            ("RoomService/CreateRoom", {"name": "bc-1"}, {"room_create": True}, 200),
            ("RoomService/CreateRoom", {"name": "bc-1"}, {"room_admin": True, "room_list": True}, 401),
            ("RoomService/DeleteRoom", {"room": "bc-1"}, {"room_admin": True}, 401),
            ("RoomService/ListRooms", {}, {"room_list": True}, 200),
            ("RoomService/ListRooms", {}, {"room_create": True}, 401),
            ("RoomService/ListParticipants", {"room": "bc-1"}, {"room_admin": True}, 200),
            ("RoomService/ListParticipants", {"room": "bc-2"}, {"room_admin": True}, 401),
            ("Egress/ListEgress", {}, {"room_record": True}, 200),
            ("Egress/ListEgress", {}, {"room_admin": True}, 401),
        ],
    )
    async def test_each_method_has_its_grant(
        self, stage: Stage, method: str, body: dict[str, Any], grants: dict[str, Any], status: int
    ) -> None:
        """Provider facts, LiveKit 8.2: a missing grant is `unauthenticated`, never `permission_denied`."""
        headers = {"Authorization": "Bearer " + token(**grants)}
        answer = await raw(stage, f"/twirp/livekit.{method}", json=body, headers=headers)
        assert answer[0] == status
        if status == 401:
            assert answer[1:] == ("application/json", '{"code": "unauthenticated", "msg": "permissions denied"}')

    async def test_no_authorization_at_all_is_a_missing_grant(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.2."""
        status, kind, text = await raw(stage, "/twirp/livekit.RoomService/ListRooms", json={})
        assert (status, kind) == (401, "application/json")
        assert "permissions denied" in text


class TestTransport:
    @pytest.mark.parametrize(
        ("method", "path", "headers", "text"),
        [
            ("GET", "/twirp/livekit.Egress/ListEgress", {}, r"only POST is allowed"),
            ("POST", "/twirp/livekit.Egress/Nothing", {"Content-Type": "application/json"}, "no handler for path"),
            ("POST", "/twirp/livekit.Egress/ListEgress", {"Content-Type": "text/plain"}, "unexpected Content-Type"),
        ],
    )
    async def test_a_bad_route(self, stage: Stage, method: str, path: str, headers: dict[str, str], text: str) -> None:
        """Provider facts, LiveKit 8.1."""
        async with stage.http.request(method, stage.simulator.base_url + path, headers=headers, data=b"{}") as response:
            body = await response.json()
        assert (response.status, body["code"]) == (404, "bad_route")
        assert text in body["msg"]
        assert body["meta"] == {"twirp_invalid_route": f"{method} {path}"}

    @pytest.mark.parametrize(("kind", "body"), [("protobuf", b"\xff\xff"), ("json", b"{")])
    async def test_a_body_that_cannot_be_decoded(self, stage: Stage, kind: str, body: bytes) -> None:
        """Provider facts, LiveKit 8.1."""
        headers = {"Content-Type": f"application/{kind}", "Authorization": "Bearer " + token(room_list=True)}
        status, _, text = await raw(stage, "/twirp/livekit.RoomService/ListRooms", data=body, headers=headers)
        assert status == 400
        assert text == f'{{"code": "malformed", "msg": "the {kind} request could not be decoded"}}'

    async def test_json_answers_have_proto_names_and_defaults(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.1."""
        headers = {"Authorization": "Bearer " + token(room_create=True)}
        async with stage.http.post(
            stage.simulator.base_url + "/twirp/livekit.RoomService/CreateRoom",
            json={"name": "bc-1"},
            headers=headers,
        ) as response:
            room = await response.json()
        assert room["num_participants"] == 0
        assert room["empty_timeout"] == 300

    async def test_health(self, stage: Stage) -> None:
        assert await raw(stage, "/", method="GET") == (200, "text/plain", "OK")

    async def test_what_is_not_simulated_says_so(self, stage: Stage) -> None:
        call = stage.livekit.egress.start_web_egress(api.WebEgressRequest(url="https://example.com"))
        status, code, _ = await refusal(call)
        assert (status, code) == (501, "unimplemented")


class TestRooms:
    async def test_the_same_name_is_the_same_room_and_nothing_changes(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5."""
        first = await stage.room(metadata="a", empty_timeout=60, departure_timeout=30)
        second = await stage.room(metadata="b", empty_timeout=61, departure_timeout=31)
        assert second == first
        assert (first.empty_timeout, first.departure_timeout, first.metadata) == (60, 30, "a")
        assert first.sid.startswith("RM_")
        assert stage.kinds() == ["room.created"]

    async def test_zero_means_the_defaults_of_the_server(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5."""
        room = await stage.room()
        assert (room.empty_timeout, room.departure_timeout, room.max_participants) == (300, 20, 0)

    async def test_limits(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5: 256 bytes of name, 512 KiB of metadata."""
        await stage.room("é" * 128)
        assert (await refusal(stage.room("é" * 128 + "x")))[:2] == (400, "invalid_argument")
        await stage.room("bc-1", metadata="x" * 512 * 1024)
        assert (await refusal(stage.room("bc-2", metadata="x" * (512 * 1024 + 1))))[:2] == (400, "invalid_argument")

    async def test_deleting(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5 and 1.6: a missing room is 404, with the prefix of psrpc."""
        await stage.room()
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        again = stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        assert await refusal(again) == (404, "not_found", PSRPC + "requested room does not exist")
        assert [effect.detail["reason"] for effect in stage.simulator.effects.of("room.deleted")] == ["api"]

    async def test_a_deleted_name_is_a_new_room(self, stage: Stage) -> None:
        first = await stage.room()
        await stage.livekit.room.delete_room(api.DeleteRoomRequest(room="bc-1"))
        assert (await stage.room()).sid != first.sid

    async def test_listing(self, stage: Stage) -> None:
        """Provider facts, LiveKit 4.9: an egress is no participant of the count."""
        await stage.live()
        await stage.room("bc-2")
        await _recounted(stage)
        everything = (await stage.livekit.room.list_rooms(api.ListRoomsRequest())).rooms
        one = (await stage.livekit.room.list_rooms(api.ListRoomsRequest(names=["bc-1", "nothing"]))).rooms
        assert [room.name for room in everything] == ["bc-1", "bc-2"]
        assert [(room.num_participants, room.num_publishers, room.active_recording) for room in one] == [(1, 1, True)]

    async def test_the_flag_and_the_count_of_publishers_outlive_the_tracks(self, stage: Stage) -> None:
        """As livekit-server 1.13.5: nothing clears the flag at an unpublish, and ListRooms counts by it."""
        await stage.host("bc-1")
        await stage.post("/_control/unpublish", room="bc-1", identity="host", sources=["camera", "microphone"])

        async def counts() -> tuple[int, int]:
            [room] = (await stage.livekit.room.list_rooms(api.ListRoomsRequest(names=["bc-1"]))).rooms
            return room.num_participants, room.num_publishers

        asked = api.ListParticipantsRequest(room="bc-1")
        [person] = (await stage.livekit.room.list_participants(asked)).participants
        assert (list(person.tracks), person.is_publisher) == ([], True)
        await _recounted(stage)
        assert await counts() == (1, 1), "by the flag"
        await stage.post("/_control/leave", room="bc-1", identity="host")
        assert await counts() == (0, 0), "a leave is counted at once"

    async def test_counts_are_late(self, stage: Stage) -> None:
        """As livekit-server 1.13.5: refreshed every 5 s at best, in ListRooms and in webhooks."""
        stage.simulator.clock.scale = 0.01
        await stage.room()
        await stage.host("bc-1")
        [room] = (await stage.livekit.room.list_rooms(api.ListRoomsRequest(names=["bc-1"]))).rooms
        assert (room.num_participants, room.num_publishers) == (0, 0)
        stage.simulator.clock.scale = 200
        await until(lambda: stage.simulator.clock.now() > 20)
        [room] = (await stage.livekit.room.list_rooms(api.ListRoomsRequest(names=["bc-1"]))).rooms
        assert (room.num_participants, room.num_publishers) == (1, 1)

    async def test_metadata(self, stage: Stage) -> None:
        await stage.room()
        request = api.UpdateRoomMetadataRequest(room="bc-1", metadata="new")
        assert (await stage.livekit.room.update_room_metadata(request)).metadata == "new"
        request.room = "bc-2"
        assert (await refusal(stage.livekit.room.update_room_metadata(request)))[1] == "not_found"

    async def test_an_empty_room_closes_after_its_empty_timeout(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5."""
        await stage.room(empty_timeout=20, departure_timeout=100000)
        await until(lambda: stage.simulator.effects.of("room.deleted"))
        [effect] = stage.simulator.effects.of("room.deleted")
        assert effect.detail["reason"] == "empty"
        finished = await until(lambda: stage.receiver.of("room_finished"))
        assert not finished[0].room_end_reason, "livekit-server 1.13.5 has none"

    async def test_a_newer_server_names_the_reason_of_the_end(self) -> None:
        async with staged(room_end_reason=True) as stage:
            await stage.room(empty_timeout=20, departure_timeout=100000)
            finished = await until(lambda: stage.receiver.of("room_finished"))
            assert finished[0].room_end_reason == models.RoomEndReason.ROOM_END_IDLE_TIMEOUT

    async def test_a_recorder_does_not_count_as_the_first_to_join(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5."""
        await stage.room(empty_timeout=20)
        egress_id = (await stage.start()).egress_id
        [effect] = await until(lambda: stage.simulator.effects.of("room.deleted"))
        assert effect.detail["reason"] == "empty"
        assert [who.detail["identity"] for who in stage.simulator.effects.of("participant.left")] == [egress_id]

    async def test_a_left_room_closes_after_its_departure_timeout(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5 and 4.6: the recorder does not keep it open and is let go with ROOM_CLOSED."""
        await stage.room(empty_timeout=60, departure_timeout=20)
        await stage.host("bc-1")
        await stage.start()
        await until(lambda: stage.simulator.effects.of("egress.active"))
        assert "room.deleted" not in stage.kinds()
        await stage.post("/_control/leave", room="bc-1", identity="host")
        [effect] = await until(lambda: stage.simulator.effects.of("room.deleted"))
        assert effect.detail["reason"] == "departure"
        left = {
            e.detail["participant_kind"]: e.detail["reason"] for e in stage.simulator.effects.of("participant.left")
        }
        assert left == {"STANDARD": "CLIENT_INITIATED", "EGRESS": "ROOM_CLOSED"}

    async def test_who_comes_back_in_time_keeps_the_room(self, stage: Stage) -> None:
        stage.simulator.clock.scale = 50
        await stage.room(departure_timeout=20)
        await stage.host("bc-1")
        await stage.post("/_control/leave", room="bc-1", identity="host")
        await stage.host("bc-1", identity="viewer")
        await stage.room("clock", empty_timeout=40)
        await until(lambda: stage.simulator.effects.of("room.deleted"))
        assert [effect.id for effect in stage.simulator.effects.of("room.deleted")] == ["clock"]


class TestPeople:
    async def test_a_token_of_the_service_lets_in(self, stage: Stage) -> None:
        await stage.room()
        status, answer = await stage.post("/_control/join", token=token(), publish=["camera"], name="Ann")
        assert status == 200
        [person] = (await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))).participants
        assert (person.sid, person.identity, person.name) == (answer["sid"], "host", "Ann")
        assert person.state == models.ParticipantInfo.ACTIVE
        assert [(t.source, t.type) for t in person.tracks] == [(models.TrackSource.CAMERA, models.TrackType.VIDEO)]

    @pytest.mark.parametrize(
        ("made", "publish", "status"),
        [
            ({"secret": SECRET[::-1]}, [], 401),
            ({"ttl_s": -70}, [], 401),
            ({"room_join": False}, [], 401),
            ({"can_publish": False}, ["camera"], 403),
            ({"can_publish_sources": ["microphone"]}, ["camera"], 403),
            ({"can_publish_sources": ["microphone"]}, ["microphone"], 200),
            ({"can_publish": False}, [], 200),
        ],
    )
    async def test_a_token_has_to_allow_it(
        self, stage: Stage, made: dict[str, Any], publish: list[str], status: int
    ) -> None:
        """Provider facts, LiveKit 2."""
        assert (await stage.post("/_control/join", token=token(**made), publish=publish))[0] == status
        assert ("track.published" in stage.kinds()) == (status == 200 and bool(publish))

    async def test_no_trace_of_a_token_in_the_effects(self, stage: Stage) -> None:
        jwt = token()
        await stage.post("/_control/join", token=jwt, publish=["camera"])
        assert jwt not in str(await stage.get("/_effects"))

    async def test_a_join_creates_the_room(self, stage: Stage) -> None:
        await stage.host("bc-9")
        assert stage.kinds()[:2] == ["room.created", "participant.joined"]

    async def test_or_not(self) -> None:
        """Provider facts, LiveKit 1.5: `room.auto_create: false`."""
        async with staged(auto_create=False) as stage:
            status, answer = await stage.post("/_control/join", room="bc-9", identity="host")
            assert (status, answer) == (404, {"error": "room: requested room does not exist"})
            assert stage.kinds() == []

    async def test_the_same_identity_evicts_the_first(self, stage: Stage) -> None:
        """Provider facts, LiveKit 2."""
        first, second = await stage.host("bc-1"), await stage.host("bc-1")
        assert first["sid"] != second["sid"]
        await until(lambda: len(stage.receiver.of("participant_joined")) == 2)
        assert [event for event in stage.receiver.names("bc-1") if event.startswith("participant")] == [
            "participant_joined",
            "participant_left",
            "participant_joined",
        ]
        [left] = stage.receiver.of("participant_left")
        assert left.participant.sid == first["sid"]
        assert left.participant.disconnect_reason == models.DisconnectReason.DUPLICATE_IDENTITY

    async def test_a_lost_connection_is_noticed_later(self, stage: Stage) -> None:
        stage.simulator.clock.scale = 20
        await stage.host("bc-1")
        await stage.post("/_control/drop", room="bc-1", identity="host")
        assert "participant.left" not in stage.kinds()
        [left] = await until(lambda: stage.receiver.of("participant_left"))
        assert left.participant.disconnect_reason == models.DisconnectReason.CONNECTION_TIMEOUT
        assert stage.receiver.names("bc-1")[-3:] == ["track_unpublished", "track_unpublished", "participant_left"]

    async def test_who_is_back_in_time_is_not_thrown_out(self, stage: Stage) -> None:
        stage.simulator.clock.scale = 20
        await stage.host("bc-1")
        await stage.post("/_control/drop", room="bc-1", identity="host")
        back = await stage.host("bc-1")
        await stage.room("clock", empty_timeout=25)
        await until(lambda: stage.simulator.effects.of("room.deleted"))
        person = await stage.livekit.room.get_participant(api.RoomParticipantIdentity(room="bc-1", identity="host"))
        assert person.sid == back["sid"]

    async def test_removing(self, stage: Stage) -> None:
        """Provider facts, LiveKit 1.5: the token is not revoked."""
        await stage.host("bc-1")
        request = api.RoomParticipantIdentity(room="bc-1", identity="host")
        await stage.livekit.room.remove_participant(request)
        missing = (404, "not_found", PSRPC + "participant does not exist")
        assert await refusal(stage.livekit.room.remove_participant(request)) == missing
        assert await refusal(stage.livekit.room.get_participant(request)) == missing
        [left] = await until(lambda: stage.receiver.of("participant_left"))
        assert left.participant.disconnect_reason == models.DisconnectReason.PARTICIPANT_REMOVED
        await stage.host("bc-1")

    async def test_muting(self, stage: Stage) -> None:
        """Provider facts, LiveKit 8.6: a server does not unmute anybody."""
        await stage.host("bc-1", "microphone")
        identity = api.RoomParticipantIdentity(room="bc-1", identity="host")
        track = (await stage.livekit.room.get_participant(identity)).tracks[0]
        request = api.MuteRoomTrackRequest(room="bc-1", identity="host", track_sid=track.sid, muted=True)
        assert (await stage.livekit.room.mute_published_track(request)).track.muted
        request.muted = False
        refused = await refusal(stage.livekit.room.mute_published_track(request))
        assert refused == (412, "failed_precondition", PSRPC + "remote unmute not enabled")
        status, person = await stage.post(
            "/_control/mute", room="bc-1", identity="host", source="microphone", muted=False
        )
        assert (status, person["tracks"][0].get("muted")) == (200, None)

    async def test_who_may_no_longer_publish_loses_the_tracks(self, stage: Stage) -> None:
        await stage.host("bc-1")
        request = api.UpdateParticipantRequest(
            room="bc-1",
            identity="host",
            metadata="m",
            permission=api.ParticipantPermission(can_publish=True, can_publish_sources=[models.TrackSource.MICROPHONE]),
        )
        person = await stage.livekit.room.update_participant(request)
        assert person.metadata == "m"
        assert [track.source for track in person.tracks] == [models.TrackSource.MICROPHONE]
        assert (await stage.post("/_control/publish", room="bc-1", identity="host", sources=["camera"]))[0] == 403

    async def test_an_unknown_room_has_no_participants(self, stage: Stage) -> None:
        """Provider facts, LiveKit 5: an empty list, not 404."""
        listed = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="nothing"))
        assert list(listed.participants) == []

    async def test_a_full_room(self, stage: Stage) -> None:
        await stage.room(max_participants=1)
        await stage.host("bc-1")
        assert (await stage.post("/_control/join", room="bc-1", identity="viewer"))[0] == 403
        await stage.host("bc-1")
