"""Who is in a room: what ListParticipants answers, told as publishers with their tracks and a number of viewers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from livekit import api
from livekit.protocol import models

from service.domain.errors import Outcome
from service.domain.ports import (
    HostRole,
    LayerSeen,
    ParticipantKind,
    PublisherSeen,
    RoomInside,
    RoomPeople,
    TrackKind,
    TrackSeen,
)
from tests.contract.livekit_stage import KEY, SECRET, staged, until
from tests.contract.provider_wire import wire
from tests.contract.test_livekit_adapter import livekit_at, message, refusal
from tests.waiting import eventually

Kind = models.ParticipantInfo.Kind


def person(identity: str, *, kind: int = 0, tracks: tuple[models.TrackInfo, ...] = (), **permission: Any) -> Any:
    return models.ParticipantInfo(
        identity=identity,
        name=identity.title(),
        kind=kind,  # pyright: ignore[reportArgumentType]
        state=models.ParticipantInfo.ACTIVE,
        joined_at=1793491200,
        tracks=tracks,
        permission=models.ParticipantPermission(**permission),
    )


def track(**changes: Any) -> models.TrackInfo:
    values: dict[str, Any] = {"sid": "TR_VC1", "type": models.TrackType.VIDEO, "source": models.TrackSource.CAMERA}
    return models.TrackInfo(**{**values, **changes})


async def people_of(*participants: Any) -> RoomPeople:
    answer = message(api.ListParticipantsResponse(participants=participants))
    async with wire(answer) as provider, livekit_at(provider.url) as livekit:
        people = await livekit.rooms.people("first")
        [sent] = provider.requests
        assert sent.path == "/twirp/livekit.RoomService/ListParticipants"
        assert api.ListParticipantsRequest.FromString(sent.body).room == "first"
        claims = jwt.decode(sent.headers["authorization"].removeprefix("Bearer "), SECRET, ["HS256"])
        assert claims["video"]["roomAdmin"] is True
        assert claims["video"]["room"] == "first"
        return people


async def test_people_are_counted_and_machines_are_not() -> None:
    """An egress is a participant of kind EGRESS, hidden; agents and recorders are none of the viewers either."""
    camera = (track(),)
    people = await people_of(
        person("ann", tracks=camera),
        person("sip", kind=Kind.SIP, tracks=camera),
        person("whip", kind=Kind.INGRESS, tracks=camera),
        person("viewer"),
        person("another"),
        person("EG_1", kind=Kind.EGRESS, hidden=True, recorder=True),
        person("EG_2", kind=Kind.EGRESS),
        person("helper", kind=Kind.AGENT, tracks=camera),
        person("watcher", hidden=True),
        person("hidden host", tracks=camera, hidden=True),
        person("old recorder", recorder=True),
    )
    assert [publisher.identity for publisher in people.publishers] == ["ann", "sip", "whip"]
    assert people.viewers == 2
    assert people.watching == 2


async def test_a_host_who_publishes_nothing_and_a_machine_are_no_audience() -> None:
    """Who may publish is a host, or will be one."""
    host = person("ann")
    host.permission.can_publish = True
    people = await people_of(host, person("bob"), person("sip", kind=Kind.SIP), person("whip", kind=Kind.INGRESS))
    assert people.viewers == 4
    assert people.watching == 1


async def test_who_has_left_is_not_there() -> None:
    gone = person("ann", tracks=(track(),))
    gone.state = models.ParticipantInfo.DISCONNECTED
    assert await people_of(gone) == RoomPeople()


async def test_egresses_are_told_by_their_ids() -> None:
    """An egress enters with its id as identity; one that has left may be shown for a moment."""
    left = person("EG_3", kind=Kind.EGRESS, hidden=True, recorder=True)
    left.state = models.ParticipantInfo.DISCONNECTED
    answer = message(
        api.ListParticipantsResponse(
            participants=[
                person("ann", tracks=(track(),)),
                person("EG_1", kind=Kind.EGRESS, hidden=True, recorder=True),
                person("EG_2", kind=Kind.EGRESS),
                left,
                person("old recorder", recorder=True),
            ]
        )
    )
    async with wire(answer) as provider, livekit_at(provider.url) as livekit:
        assert (await livekit.rooms.inside("first")).recorders == {"EG_1", "EG_2"}
        [sent] = provider.requests
        assert sent.path == "/twirp/livekit.RoomService/ListParticipants"


async def test_tracks_with_the_layers_that_were_declared() -> None:
    """layers[].bitrate is what the client declared at publish, in bits a second; nobody measures it."""
    layers = [
        models.VideoLayer(quality=models.VideoQuality.LOW, width=320, height=180, bitrate=160_000),
        models.VideoLayer(quality=models.VideoQuality.HIGH, width=1280, height=720, bitrate=1_700_000),
    ]
    camera = track(
        muted=True,
        width=1280,
        height=720,
        mime_type="video/VP8",
        codecs=[models.SimulcastCodecInfo(mime_type="video/VP8", layers=layers)],
    )
    microphone = track(sid="TR_AM1", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
    data = track(sid="TR_D", type=models.TrackType.DATA)
    [ann] = (await people_of(person("ann", tracks=(camera, microphone, data)))).publishers
    assert ann == PublisherSeen(
        identity="ann",
        name="Ann",
        joined_at=datetime.fromtimestamp(1793491200, UTC),
        tracks=(
            TrackSeen(
                sid="TR_VC1",
                source="camera",
                kind=TrackKind.VIDEO,
                muted=True,
                simulcast=True,
                width=1280,
                height=720,
                mime_type="video/VP8",
                layers=(
                    LayerSeen(quality="low", width=320, height=180, bitrate_bps=160_000),
                    LayerSeen(quality="high", width=1280, height=720, bitrate_bps=1_700_000),
                ),
            ),
            TrackSeen(
                sid="TR_AM1",
                source="microphone",
                kind=TrackKind.AUDIO,
                muted=False,
                simulcast=False,
                width=0,
                height=0,
                mime_type="",
            ),
        ),
    )


async def test_layers_in_the_deprecated_place_and_names_that_are_new() -> None:
    screen = track(
        source=models.TrackSource.SCREEN_SHARE, layers=[models.VideoLayer(width=1920, height=1080, bitrate=3_000_000)]
    )
    # A source that this SDK has no name for.
    screen.MergeFromString(b"\x48\x63")
    [ann] = (await people_of(person("ann", tracks=(screen,)))).publishers
    assert (ann.tracks[0].source, ann.tracks[0].simulcast) == ("unknown", False)
    assert ann.tracks[0].layers == (LayerSeen(quality="low", width=1920, height=1080, bitrate_bps=3_000_000),)


async def test_a_room_that_is_not_there_has_nobody() -> None:
    """The server's store answers an empty list; where it asks the node instead, 404."""
    async with staged() as stage, livekit_at(stage.simulator.base_url) as livekit:
        assert await livekit.rooms.people("nowhere") == RoomPeople()
        stage.fault("error", "ListParticipants", status=404)
        assert await livekit.rooms.people("nowhere") == RoomPeople()
        stage.fault("error", "ListParticipants", status=404)
        assert await livekit.rooms.inside("nowhere") == RoomInside()
        assert stage.hits("error") == 2


async def test_people_of_a_simulated_show() -> None:
    async with staged() as stage, livekit_at(stage.simulator.base_url) as livekit:
        await stage.live("bc-1")
        token = livekit.tokens.issue_viewer(room_name="bc-1", identity="v1", ttl=timedelta(minutes=1))
        assert (await stage.post("/_control/join", token=token.token.reveal()))[0] == 200
        people = await livekit.rooms.people("bc-1")
        assert people.viewers == 1
        [host] = people.publishers
        camera, microphone = host.tracks
        assert (camera.source, camera.simulcast, len(camera.layers), camera.muted) == ("camera", True, 3, False)
        assert [layer.quality for layer in camera.layers] == ["low", "medium", "high"]
        assert (microphone.kind, microphone.layers) == (TrackKind.AUDIO, ())

        await stage.post("/_control/mute", room="bc-1", identity="host", source="camera", muted=True)
        [host] = (await livekit.rooms.people("bc-1")).publishers
        assert [each.muted for each in host.tracks] == [True, False]

        await stage.post("/_control/unpublish", room="bc-1", identity="host", sources=["camera", "microphone"])
        assert await livekit.rooms.people("bc-1") == RoomPeople(viewers=2, watching=1)
        await stage.post("/_control/publish", room="bc-1", identity="host", sources=["camera"], simulcast=False)
        [host] = (await livekit.rooms.people("bc-1")).publishers
        assert (host.tracks[0].simulcast, len(host.tracks[0].layers)) == (False, 1)


async def test_a_viewer_may_watch_and_nothing_else() -> None:
    """The SDK's grants let everybody publish unless it is forbidden."""
    async with staged() as stage, livekit_at(stage.simulator.base_url) as livekit:
        before = datetime.now(UTC)
        ticket = livekit.tokens.issue_viewer(room_name="bc-1", identity="v1", ttl=timedelta(minutes=5))
        assert before + timedelta(minutes=5) <= ticket.expire_time <= datetime.now(UTC) + timedelta(minutes=5)
        claims = jwt.decode(ticket.token.reveal(), SECRET, ["HS256"])
        assert (claims["iss"], claims["sub"]) == (KEY, "v1")
        assert claims["video"] == {
            "roomJoin": True,
            "room": "bc-1",
            "canPublish": False,
            "canSubscribe": True,
            "canPublishData": False,
            "canUpdateOwnMetadata": False,
            "roomCreate": False,
            "roomList": False,
            "roomRecord": False,
            "roomAdmin": False,
            "ingressAdmin": False,
            "hidden": False,
        }
        await stage.room("bc-1")
        token = ticket.token.reveal()
        status, answer = await stage.post("/_control/join", token=token, publish=["camera"])
        assert (status, "may not publish" in str(answer)) == (403, True)
        assert await livekit.rooms.people("bc-1") == RoomPeople(viewers=1, watching=1)


@pytest.mark.parametrize("kind", ["latency", "lost_reply"])
async def test_faults_of_the_list(kind: Any) -> None:
    async with (
        staged() as stage,
        livekit_at(stage.simulator.base_url) as livekit,
        livekit_at(stage.simulator.base_url, longest_s=0.5) as hasty,
    ):
        await stage.room("bc-1")
        stage.fault(kind, "ListParticipants", delay_s=30)
        assert (await refusal(hasty.rooms.people("bc-1"))).outcome is Outcome.AMBIGUOUS
        assert await livekit.rooms.people("bc-1") == RoomPeople()
        await until(lambda: stage.hits(kind))


async def test_an_egress_in_the_room_is_nobody() -> None:
    async with staged() as stage, livekit_at(stage.simulator.base_url) as livekit:
        egress_id = await stage.live("bc-1")
        listed = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room="bc-1"))
        assert egress_id in {each.identity for each in listed.participants}

        async def alone() -> bool:
            people = await livekit.rooms.people("bc-1")
            return (len(people.publishers), people.viewers) == (1, 0)

        await eventually(alone)


async def test_every_participant_has_a_kind_and_what_it_may_publish() -> None:
    answer = message(
        api.ListParticipantsResponse(
            participants=[
                person("ann", tracks=(track(),), can_publish=True),
                person(
                    "bob",
                    can_publish=True,
                    can_publish_sources=[models.TrackSource.CAMERA, models.TrackSource.MICROPHONE],
                ),
                person("viewer"),
                person("sip", kind=Kind.SIP),
                person("whip", kind=Kind.INGRESS),
                person("EG_1", kind=Kind.EGRESS, hidden=True, recorder=True),
                person("old recorder", recorder=True),
                person("helper", kind=Kind.AGENT, hidden=True),
                person("old agent", agent=True),
                person("monitor", hidden=True, can_publish=True),
                person("of the future", kind=99),
                models.ParticipantInfo(identity="gone", state=models.ParticipantInfo.DISCONNECTED),
            ]
        )
    )
    async with wire(answer) as provider, livekit_at(provider.url) as livekit:
        there = {each.identity: each for each in await livekit.rooms.participants("first")}
    assert {identity: each.kind for identity, each in there.items()} == {
        "ann": ParticipantKind.PERSON,
        "bob": ParticipantKind.PERSON,
        "viewer": ParticipantKind.PERSON,
        "sip": ParticipantKind.SIP,
        "whip": ParticipantKind.INGRESS,
        "EG_1": ParticipantKind.RECORDER,
        "old recorder": ParticipantKind.RECORDER,
        "helper": ParticipantKind.AGENT,
        "old agent": ParticipantKind.AGENT,
        "monitor": ParticipantKind.HIDDEN,
        "of the future": None,
    }
    assert there["ann"].may_publish == ("camera", "microphone", "screen_share", "screen_share_audio")
    assert there["bob"].may_publish == ("camera", "microphone")
    assert there["viewer"].may_publish == ()
    assert [each.source for each in there["ann"].tracks] == ["camera"]


async def test_a_co_host_publishes_camera_and_microphone_and_nothing_else() -> None:
    async with livekit_at("https://livekit.example") as livekit:
        issued = livekit.tokens.issue(
            room_name="bc-1", identity="bob", display_name="", ttl=timedelta(minutes=5), role=HostRole.CO_HOST
        )
    grants = jwt.decode(issued.token.reveal(), SECRET, ["HS256"])["video"]
    assert grants["canPublishSources"] == ["camera", "microphone"]
    assert (grants["canPublish"], grants["canPublishData"], grants["canSubscribe"]) == (True, False, True)
    assert not any(grants[name] for name in ("roomAdmin", "roomCreate", "roomList", "roomRecord", "hidden"))


async def test_moderation_of_a_simulated_room() -> None:
    async with staged() as stage, livekit_at(stage.simulator.base_url) as livekit:
        await stage.host("bc-1", "camera", "microphone")
        [host] = await livekit.rooms.participants("bc-1")
        _, microphone = host.tracks
        assert await livekit.rooms.mute("bc-1", "host", microphone.sid, muted=True)
        [host] = await livekit.rooms.participants("bc-1")
        assert [each.muted for each in host.tracks] == [False, True]
        refused = await refusal(livekit.rooms.mute("bc-1", "host", microphone.sid, muted=False))
        assert refused.outcome is Outcome.REFUSED
        assert not await livekit.rooms.mute("bc-1", "host", "TR_none", muted=True)
        await livekit.rooms.remove("bc-1", "host")
        assert await livekit.rooms.participants("bc-1") == ()
        assert (await refusal(livekit.rooms.remove("bc-1", "host"))).outcome is Outcome.MISSING
        assert (await refusal(livekit.rooms.remove("nowhere", "host"))).outcome is Outcome.MISSING
        assert await livekit.rooms.participants("nowhere") == ()
