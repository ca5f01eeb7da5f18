"""Who is on stage, and moderation: the API over a real channel, with the simulated LiveKit behind the adapter."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import participant_pb2 as participant
from broadcast.v1.participant_pb2 import Participant
from broadcast_client.ctl import run
from service.domain.ports import HostRole
from service.providers.livekit.client import LiveKit
from tests.contract.livekit_stage import Stage as Providers
from tests.contract.livekit_stage import staged
from tests.contract.test_livekit_adapter import livekit_at
from tests.integration.api_stage import Stage, api, refused

SHOW = "show-1"


@dataclass(slots=True, kw_only=True)
class OnStage:
    api: Stage
    providers: Providers
    livekit: LiveKit
    limit: Limit

    async def list(self, **fields: bool) -> list[Participant]:
        request = rpc.ListParticipantsRequest(broadcast_id=SHOW, **fields)
        return list((await self.api.stub.ListParticipants(request)).participants)

    async def enter(self, identity: str, *sources: str, role: HostRole = HostRole.HOST) -> tuple[int, object]:
        token = self.livekit.tokens.issue(
            room_name=SHOW, identity=identity, display_name="", ttl=timedelta(minutes=5), role=role
        )
        return await self.providers.post("/_control/join", token=token.token.reveal(), publish=list(sources))

    async def story(self) -> list[tuple[str, str, str]]:
        answer = await self.api.stub.ListBroadcastEvents(rpc.ListBroadcastEventsRequest(broadcast_id=SHOW))
        told = [(each.reason, each.actor, each.message) for each in answer.events]
        return [each for each in told if each[0].endswith("REQUESTED") and each[0] != "START_REQUESTED"]

    def done(self, kind: str) -> int:
        return len(self.providers.simulator.effects.of(kind))


@dataclass(slots=True)
class Limit:
    left: int = 1000
    asked: list[int] = field(default_factory=list[int])

    async def __call__(self) -> bool:
        self.left -= 1
        self.asked.append(self.left)
        return self.left >= 0


@contextlib.asynccontextmanager
async def on_stage(database_url: str, *, url: str = "") -> AsyncGenerator[OnStage]:
    limit = Limit()
    async with (
        staged() as providers,
        livekit_at(url or providers.simulator.base_url, longest_s=4) as livekit,
        api(database_url, moderation=livekit.rooms, spare=limit) as stage,
    ):
        await stage.started(SHOW)
        yield OnStage(api=stage, providers=providers, livekit=livekit, limit=limit)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[OnStage]:
    async with on_stage(database_url) as stage:
        yield stage


def remove(identity: str, *, note: str = "", allow_missing: bool = False) -> rpc.RemoveParticipantRequest:
    return rpc.RemoveParticipantRequest(broadcast_id=SHOW, identity=identity, note=note, allow_missing=allow_missing)


def mute(identity: str, *sids: str, unmute: bool = False, note: str = "") -> rpc.MuteParticipantRequest:
    return rpc.MuteParticipantRequest(broadcast_id=SHOW, identity=identity, track_sids=sids, unmute=unmute, note=note)


async def test_everybody_is_listed_with_kind_and_tracks_and_no_recorder_is_a_person(stage: OnStage) -> None:
    await stage.providers.live(SHOW)
    await stage.enter("bob", role=HostRole.CO_HOST)
    viewer = stage.livekit.tokens.issue_viewer(room_name=SHOW, identity="viewer:v1", ttl=timedelta(minutes=5))
    await stage.providers.post("/_control/join", token=viewer.token.reveal())
    there = {each.identity: each for each in await stage.list()}
    recorder = next(identity for identity in there if identity.startswith("EG_"))
    assert set(there) == {"host", "bob", "viewer:v1", recorder}
    assert there[recorder].kind == participant.PARTICIPANT_KIND_RECORDER
    assert {there[each].kind for each in ("host", "bob", "viewer:v1")} == {participant.PARTICIPANT_KIND_PERSON}
    assert list(there["bob"].publishable_sources) == ["camera", "microphone"]
    assert not there["viewer:v1"].publishable_sources
    camera, microphone = there["host"].tracks
    assert (camera.source, camera.kind, camera.muted, camera.width, camera.height) == (
        "camera",
        "video",
        False,
        1280,
        720,
    )
    assert (microphone.source, microphone.kind) == ("microphone", "audio")
    assert there["host"].joined_time.seconds > 0
    assert (await stage.list())[0].identity == "host", "who publishes comes first"
    assert [each.identity for each in await stage.list(publishers_only=True)] == ["host"]


async def test_a_co_host_publishes_no_screen(stage: OnStage) -> None:
    assert (await stage.enter("ann", "camera", "microphone", "screen_share"))[0] == 200
    assert (await stage.enter("bob", "camera", "microphone", role=HostRole.CO_HOST))[0] == 200
    assert (await stage.enter("cid", "screen_share", role=HostRole.CO_HOST))[0] == 403


async def test_access_is_issued_for_the_role_that_was_asked_for(stage: OnStage) -> None:
    for role in (rpc.HOST_ROLE_UNSPECIFIED, rpc.HOST_ROLE_HOST, rpc.HOST_ROLE_CO_HOST):
        request = rpc.IssueHostAccessRequest(broadcast_id=SHOW, identity="ann", role=role)
        await stage.api.stub.IssueHostAccess(request)
    assert [each.role for each in stage.api.tokens.issued] == [HostRole.HOST, HostRole.HOST, HostRole.CO_HOST]
    of_the_future = rpc.IssueHostAccessRequest(broadcast_id=SHOW, identity="ann")
    of_the_future.MergeFromString(b"\x28\x63")
    assert (await refused(stage.api.stub.IssueHostAccess(of_the_future))).fields == ["role"]


async def test_who_is_removed_is_gone_and_may_come_back(stage: OnStage) -> None:
    await stage.enter("ann", "camera")
    await stage.api.stub.RemoveParticipant(remove("ann", note="desk 4, spam"))
    assert await stage.list() == []
    assert await stage.story() == [("REMOVAL_REQUESTED", "caller", "ann: desk 4, spam")]
    assert (await stage.enter("ann", "camera"))[0] == 200


async def test_a_removal_may_be_repeated(stage: OnStage) -> None:
    await stage.enter("ann")
    await stage.api.stub.RemoveParticipant(remove("ann", allow_missing=True))
    await stage.api.stub.RemoveParticipant(remove("ann", allow_missing=True))
    again = await refused(stage.api.stub.RemoveParticipant(remove("ann")))
    assert (again.code, again.reason) == (grpc.StatusCode.NOT_FOUND, "PARTICIPANT_NOT_FOUND")
    assert dict(again.info.metadata) == {"broadcast_id": SHOW, "identity": "ann"}
    resource = again.detail(error_details_pb2.ResourceInfo)
    assert resource is not None
    assert (resource.resource_type, resource.resource_name) == ("broadcast.v1.Participant", "ann")
    # Nothing was done to her the second time, and nothing is told of it.
    assert len(await stage.story()) == stage.done("participant.left") == 1


async def test_a_lost_answer_of_a_removal_is_unavailable_and_the_next_try_finds_nobody(stage: OnStage) -> None:
    await stage.enter("ann")
    stage.providers.fault("lost_reply", "RemoveParticipant")
    lost = await refused(stage.api.stub.RemoveParticipant(remove("ann")))
    assert (lost.code, lost.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert "may have had its effect" in lost.message
    assert lost.retry_after is not None
    await stage.api.stub.RemoveParticipant(remove("ann", allow_missing=True))
    assert stage.done("participant.left") == 1


async def test_one_who_left_between_the_look_and_the_removal_was_not_found(stage: OnStage) -> None:
    await stage.enter("ann")
    stage.providers.fault("error", "RemoveParticipant", status=404)
    assert (await refused(stage.api.stub.RemoveParticipant(remove("ann")))).reason == "PARTICIPANT_NOT_FOUND"


async def test_an_egress_is_not_removed_as_a_person_is(stage: OnStage) -> None:
    egress_id = await stage.providers.live(SHOW)
    refusal = await refused(stage.api.stub.RemoveParticipant(remove(egress_id)))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["identity"])
    assert egress_id in {each.identity for each in await stage.list()}
    assert await stage.story() == []


async def test_a_mute_is_of_all_sound_unless_tracks_are_named(stage: OnStage) -> None:
    await stage.enter("ann", "camera", "microphone", "screen_share", "screen_share_audio")
    muted = (await stage.api.stub.MuteParticipant(mute("ann", note="echo"))).tracks
    assert [(each.source, each.muted) for each in muted] == [("microphone", True), ("screen_share_audio", True)]
    [ann] = await stage.list()
    assert [(each.source, each.muted) for each in ann.tracks] == [
        ("camera", False),
        ("microphone", True),
        ("screen_share", False),
        ("screen_share_audio", True),
    ]
    camera = ann.tracks[0]
    await stage.api.stub.MuteParticipant(mute("ann", camera.sid))
    [ann] = await stage.list()
    assert ann.tracks[0].muted
    sids = [track.sid for track in ann.tracks]
    assert await stage.story() == [
        ("MUTE_REQUESTED", "caller", f"ann (microphone {sids[1]}, screen_share_audio {sids[3]}): echo"),
        ("MUTE_REQUESTED", "caller", f"ann (camera {sids[0]})"),
    ]
    # A repetition changes nothing, asks LiveKit for nothing and is no event.
    await stage.api.stub.MuteParticipant(mute("ann"))
    assert (stage.done("track.muted"), len(await stage.story())) == (3, 2)


async def test_an_unmute_is_refused_and_the_refusal_names_the_setting(stage: OnStage) -> None:
    await stage.enter("ann", "microphone")
    await stage.api.stub.MuteParticipant(mute("ann"))
    refusal = await refused(stage.api.stub.MuteParticipant(mute("ann", unmute=True)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNMUTE_REFUSED")
    assert "room.enable_remote_unmute" in refusal.message
    [ann] = await stage.list()
    assert ann.tracks[0].muted


async def test_a_mute_of_nobody_or_of_no_such_track_is_not_found_and_not_waited_for(stage: OnStage) -> None:
    """LiveKit answers a mute of somebody who is not there with 503 after 3 s, so it is not asked."""
    await stage.enter("ann", "camera")
    for request in (mute("nobody"), mute("ann", "TR_none")):
        assert (await refused(stage.api.stub.MuteParticipant(request))).reason == "PARTICIPANT_NOT_FOUND"
    assert (await stage.api.stub.MuteParticipant(mute("ann"))).tracks == []
    assert await stage.story() == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refuses the credentials"), (429, "takes no more calls"), (503, "did not find"), (500, "did not answer")],
)
async def test_a_provider_that_does_not_answer_is_no_fault_of_the_service(
    stage: OnStage, status: int, words: str
) -> None:
    await stage.enter("ann", "microphone")
    stage.providers.fault("error", "ListParticipants", status=status, times=3)
    list_ = rpc.ListParticipantsRequest(broadcast_id=SHOW)
    for call in (
        stage.api.stub.ListParticipants(list_),
        stage.api.stub.RemoveParticipant(remove("ann", allow_missing=True)),
        stage.api.stub.MuteParticipant(mute("ann")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert words in refusal.message
        assert refusal.info.metadata["provider"] == "livekit"
        assert refusal.retry_after is not None
        assert "eyJ" not in f"{refusal.status}"
    assert await stage.story() == []


async def test_a_hanging_provider_is_given_up_in_time(stage: OnStage) -> None:
    await stage.enter("ann")
    stage.providers.fault("hang", "RemoveParticipant")
    async with asyncio.timeout(20):
        refusal = await refused(stage.api.stub.RemoveParticipant(remove("ann")))
    assert refusal.reason == "PROVIDER_UNAVAILABLE"
    # She may be gone or not, and the story says that it was asked for.
    assert [reason for reason, _, _ in await stage.story()] == ["REMOVAL_REQUESTED"]


async def test_every_call_takes_a_token_of_the_limit_and_none_is_made_without(stage: OnStage) -> None:
    await stage.enter("ann", "microphone")
    await stage.api.stub.MuteParticipant(mute("ann"))
    assert len(stage.limit.asked) == 2
    stage.limit.left = 0
    refusal = await refused(stage.api.stub.RemoveParticipant(remove("ann")))
    assert (refusal.reason, stage.done("participant.left")) == ("PROVIDER_UNAVAILABLE", 0)


async def test_a_broadcast_without_a_room_has_no_participants(stage: OnStage) -> None:
    for state, why in (("CREATED", "was not started"), ("ENDED", "is over"), ("FAILED", "is over")):
        other = state.lower()
        await stage.api.create(other)
        await stage.api.becomes(other, state)
        list_ = rpc.ListParticipantsRequest(broadcast_id=other)
        refusal = await refused(stage.api.stub.ListParticipants(list_))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
        assert why in refusal.message
    nowhere = rpc.ListParticipantsRequest(broadcast_id="nowhere")
    assert (await refused(stage.api.stub.ListParticipants(nowhere))).reason == "BROADCAST_NOT_FOUND"
    assert stage.limit.asked == []


async def test_a_broadcast_that_is_being_stopped_still_tells_who_is_there(stage: OnStage) -> None:
    await stage.enter("ann")
    await stage.api.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id=SHOW))
    assert [each.identity for each in await stage.list()] == ["ann"]
    await stage.api.stub.RemoveParticipant(remove("ann"))
    assert await stage.list() == []


async def test_moderation_changes_nothing_of_the_broadcast(stage: OnStage) -> None:
    await stage.enter("ann", "microphone")
    before = await stage.api.get(SHOW)
    await stage.api.stub.MuteParticipant(mute("ann"))
    await stage.api.stub.RemoveParticipant(remove("ann"))
    after = await stage.api.get(SHOW)
    assert (after.spec, after.etag, after.generation) == (before.spec, before.etag, before.generation)
    assert stage.api.woken == [SHOW], "by the start alone"


async def test_who_does_not_fit_is_counted_and_not_left_out_in_silence(
    stage: OnStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.messages.pages.PAGE_BYTES", 300)
    for n in range(4):
        await stage.enter(f"{n}{'n' * 100}")
    answer = await stage.api.stub.ListParticipants(rpc.ListParticipantsRequest(broadcast_id=SHOW))
    assert (len(answer.participants), answer.participant_count) == (1, 4)


async def test_broadcastctl_shows_mutes_and_removes(stage: OnStage, capsys: pytest.CaptureFixture[str]) -> None:
    async def ctl(*argv: str) -> tuple[int, str, str]:
        code = await run(["--target", f"127.0.0.1:{stage.api.port}", *argv])
        told = capsys.readouterr()
        return code, told.out, told.err

    code, out, _ = await ctl("participants", SHOW)
    assert (code, out.strip().splitlines()[-1]) == (0, "nobody is there")
    await stage.enter("ann", "camera", "microphone")
    await stage.enter("guest", role=HostRole.CO_HOST)
    code, out, _ = await ctl("participants", SHOW)
    assert code == 0
    assert "person" in out
    assert "1280x720" in out
    assert "nothing now" in out
    code, out, _ = await ctl("mute", SHOW, "ann", "--note", "echo")
    assert code == 0
    assert "microphone" in out
    assert "is muted" in out
    code, out, err = await ctl("mute", SHOW, "ann", "--unmute")
    assert code != 0
    assert "UNMUTE_REFUSED" in err
    code, out, _ = await ctl("participants", SHOW, "--publishers", "--json")
    [answer] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [each["identity"] for each in answer["participants"]] == ["ann"]
    code, out, _ = await ctl("remove", SHOW, "ann", "--note", "spam")
    assert (code, "ann is not in the room" in out) == (0, True)
    code, out, err = await ctl("remove", SHOW, "ann")
    assert "PARTICIPANT_NOT_FOUND" in err
    assert (await ctl("remove", SHOW, "ann", "--allow-missing"))[0] == 0
    code, out, _ = await ctl("host-access", SHOW, "bob", "--role", "co_host")
    assert (code, stage.api.tokens.issued[-1].role) == (0, HostRole.CO_HOST)
