"""JoinBroadcast: how a viewer watches, state by state, and the places in the room under many who come at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import grpc
import jwt
import msgspec
import pytest
from structlog.testing import capture_logs

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as calls
from broadcast.v1 import playback_service_pb2 as rpc
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceStub
from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from service.domain.broadcast import Condition, ConditionType, Fallback, FallbackMode, Status
from service.domain.reasons import ConditionReason, FallbackReason
from service.domain.resources import Recording, RecordingStatus
from service.domain.words import as_stored
from service.store.leases import Leases
from service.store.viewers import Full, Viewers
from tests.integration.api_stage import Behind, Beside, Stage, api, refused
from tests.integration.services_stage import KEY, SECRET, playback_api
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LEASE = timedelta(minutes=10)
IN_THE_ROOM = Fallback(
    modes=(FallbackMode.DIRECT_WEBRTC, FallbackMode.LOCAL_RECORDING), reason=FallbackReason.EGRESS_FAILING
)


def playback(behind: Behind) -> Beside:
    return Beside(playback=playback_api(behind))


@dataclass(slots=True, kw_only=True)
class Show:
    """A broadcast as a reconciler has left it, and its viewers."""

    stage: Stage
    stub: PlaybackServiceAsyncStub
    id: str = "show-1"

    async def is_now(
        self, state: str, *, fallback: Fallback | None = None, target: str = "LIVE", **status: Any
    ) -> None:
        stored = Status(**cast("Any", {"playback_id": "PB1", **status}))
        await self.stage.sql(
            "UPDATE broadcast SET state = $2, status = $3, fallback = $4, target = $5 WHERE id = $1",
            self.id,
            state,
            msgspec.to_builtins(stored),
            msgspec.to_builtins(fallback or Fallback()),
            target,
        )

    async def join(self, viewer_id: str = "ann") -> rpc.JoinBroadcastResponse:
        return await self.stub.JoinBroadcast(rpc.JoinBroadcastRequest(broadcast_id=self.id, viewer_id=viewer_id))

    async def places_expire(self, *viewer_ids: str) -> None:
        await self.stage.sql(
            "UPDATE viewer SET expire_time = now() - interval '1 ms' WHERE viewer_id = ANY($1)", list(viewer_ids)
        )

    async def held(self) -> int:
        return await self.stage.sql(
            "SELECT count(*) FROM viewer WHERE broadcast_id = $1 AND expire_time > now()", self.id
        )

    async def conditions(self, ago_s: float = 0.0, /, **facts: tuple[bool | None, str]) -> tuple[Condition, ...]:
        since = await self.stage.database.now() - timedelta(seconds=ago_s)
        given = {type_: facts.get(type_.lower(), (False, ConditionReason.ABSENT)) for type_ in ConditionType}
        return tuple(
            Condition(type=type_, met=met, reason=as_stored(ConditionReason, reason), transition_time=since)
            for type_, (met, reason) in given.items()
        )


@pytest.fixture
async def show(database_url: str) -> AsyncIterator[Show]:
    async with api(database_url, beside=playback) as stage:
        await stage.started("show-1", fallback_policy=pb.FallbackPolicy(max_webrtc_viewers=10))
        yield Show(stage=stage, stub=PlaybackServiceStub(stage.channel))


async def test_what_is_live_is_watched_by_hls(show: Show) -> None:
    await show.is_now("LIVE")
    answer = await show.join()
    assert (answer.state, answer.WhichOneof("handle")) == (pb.BROADCAST_STATE_LIVE, "hls")
    assert answer.hls.playback.playback_id == "PB1"
    assert answer.hls.playback.policy == pb.PLAYBACK_POLICY_PUBLIC
    assert answer.hls.playback.hls_url == "https://stream.mux.com/PB1.m3u8"
    assert answer.refresh_after.seconds == 20
    assert await show.held() == 0


async def test_nothing_to_watch_yet_says_why_and_when_where_that_is_known(show: Show) -> None:
    await show.stage.create("later")
    created = await show.stub.JoinBroadcast(rpc.JoinBroadcastRequest(broadcast_id="later", viewer_id="ann"))
    assert (created.state, created.starting.reason) == (pb.BROADCAST_STATE_CREATED, "NOT_STARTED")
    started = await show.join()
    assert (started.state, started.starting.reason) == (pb.BROADCAST_STATE_STARTING, "STARTING")
    assert not started.starting.HasField("eta")

    no_host = await show.conditions(host_publishing=(False, "NO_HOST"), playable=(False, "NO_HOST"))
    await show.is_now("READY", conditions=no_host)
    waiting = await show.join()
    assert (waiting.WhichOneof("handle"), waiting.starting.reason) == ("starting", "NO_HOST")
    assert not waiting.starting.HasField("eta")

    on_its_way = {
        "host_publishing": (True, "PUBLISHING"),
        "egress_running": (False, "STARTING"),
        "ingest_active": (False, "IDLE"),
        "playable": (False, "STARTING"),
    }
    await show.is_now("READY", conditions=await show.conditions(12, **on_its_way))
    soon = (await show.join()).starting
    assert soon.reason == "STARTING"
    assert 10 < soon.eta.seconds < 18
    for ago_s, changes in (
        (31, {}),
        (1, {"egress_running": (False, "START_LIMIT")}),
        (1, {"ingest_active": (None, "MUX_UNREACHABLE")}),
        (1, {"host_publishing": (None, "NOT_OBSERVED")}),
    ):
        await show.is_now("READY", conditions=await show.conditions(ago_s, **{**on_its_way, **changes}))
        assert not (await show.join()).starting.HasField("eta"), changes
    delivering = {**on_its_way, "egress_running": (True, "DELIVERING")}
    await show.is_now("READY", conditions=await show.conditions(5, **delivering))
    assert 5 < (await show.join()).starting.eta.seconds < 10

    await show.stage.started("manual", delivery_policy=pb.DELIVERY_POLICY_MANUAL)
    backstage = replace(show, id="manual")
    off_air = await show.conditions(1, **{**on_its_way, "egress_running": (False, "NOT_RUNNING")})
    await backstage.is_now("READY", conditions=off_air)
    assert not (await backstage.join()).starting.HasField("eta"), "it waits for SetOnAir"
    await show.stage.sql("UPDATE broadcast SET on_air = true WHERE id = 'manual'")
    assert (await backstage.join()).starting.HasField("eta")


async def test_an_interruption_is_a_slate_while_the_live_stream_waits(show: Show) -> None:
    lost = {"host_publishing": (False, "NO_HOST"), "playable": (False, "NO_HOST")}
    window_s = 120.0
    for ago_s, ingest, handle in (
        (1, (True, "ACTIVE"), "hls"),
        # Mux alone knows when its window ends, and says active until then.
        (window_s + 1, (True, "ACTIVE"), "hls"),
        (1, (False, "IDLE"), "starting"),
        (window_s - 10, (None, "MUX_UNREACHABLE"), "hls"),
        (window_s + 1, (None, "MUX_UNREACHABLE"), "starting"),
    ):
        conditions = await show.conditions(ago_s, ingest_active=ingest, **lost)
        await show.is_now("INTERRUPTED", conditions=conditions)
        answer = await show.join()
        assert answer.WhichOneof("handle") == handle, (ago_s, ingest)
        assert answer.refresh_after.seconds < 30, "it may be back any moment"
        if handle == "hls":
            assert answer.hls.playback.hls_url
        else:
            assert answer.starting.reason == "NO_HOST"


async def test_what_is_over_is_its_recordings_once_they_can_be_played(show: Show) -> None:
    ready = Recording(asset_id="A1", playback_id="PB2", status=RecordingStatus.READY, duration_s=61.5)
    preparing = Recording(asset_id="A2")
    unplayable = Recording(asset_id="A4", status=RecordingStatus.READY)
    broken = Recording(asset_id="A3", playback_id="PB3", status=RecordingStatus.ERRORED, message="no media")
    await show.is_now("STOPPING", target="ENDED")
    assert not (await show.join()).ended.recording_pending, "it was never live"
    await show.stage.sql("UPDATE broadcast SET live_time = now()")
    assert (await show.join()).ended.recording_pending

    await show.is_now("ENDED", target="ENDED", recordings=(preparing,))
    pending = await show.join()
    assert (pending.state, pending.WhichOneof("handle")) == (pb.BROADCAST_STATE_ENDED, "ended")
    assert pending.ended.recording_pending
    assert pending.refresh_after.seconds == 15

    await show.is_now("ENDED", target="ENDED", recordings=(ready, preparing, broken, unplayable))
    some = await show.join()
    assert [(each.mux_asset_id, each.playback_id) for each in some.recording.recordings] == [("A1", "PB2")]
    assert some.recording.recordings[0].duration.ToTimedelta() == timedelta(seconds=61.5)
    assert some.recording.recordings[0].hls_url == "https://stream.mux.com/PB2.m3u8"
    assert some.refresh_after.seconds == 15, "another is being prepared"

    await show.is_now("ENDED", target="ENDED", recordings=(broken,))
    none = await show.join()
    assert (none.WhichOneof("handle"), none.ended.recording_pending) == ("ended", False)
    assert none.refresh_after.seconds > 60, "nothing will change"


async def test_a_viewer_in_the_room_may_watch_and_nothing_else(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    before = await show.stage.database.now()
    with capture_logs() as logs:
        answer = await show.join("device:1@x")
    assert answer.WhichOneof("handle") == "webrtc"
    token = answer.webrtc.token
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims["video"] == {
        "roomJoin": True,
        "room": "show-1",
        "canSubscribe": True,
        "canPublish": False,
        "canPublishData": False,
        "canUpdateOwnMetadata": False,
        "roomCreate": False,
        "roomList": False,
        "roomRecord": False,
        "roomAdmin": False,
        "ingressAdmin": False,
        "hidden": False,
    }
    assert claims["sub"] == "viewer:device:1@x"
    assert claims["iss"] == KEY
    assert {"metadata", "attributes", "sip", "inference", "observability"} & {
        name for name, value in claims.items() if value
    } == set()
    assert timedelta(seconds=claims["exp"] - claims["nbf"]) == LEASE
    expires = answer.webrtc.expire_time.ToDatetime(tzinfo=before.tzinfo)
    assert timedelta(0) <= expires - (before + LEASE) < timedelta(seconds=5)
    assert answer.webrtc.livekit_url == "wss://livekit.test"
    assert token not in str(logs)


async def test_livekit_lets_a_viewer_in_and_not_publish(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    token = (await show.join()).webrtc.token
    settings = LiveKitSimulatorSettings(api_key=KEY, api_secret=SECRET)
    async with contextlib.AsyncExitStack() as opened:
        simulator = LiveKitSimulator(settings, clock=ScaledClock(1))
        url = await simulator.start()
        opened.push_async_callback(simulator.stop)
        http = await opened.enter_async_context(aiohttp.ClientSession())
        for publish, status in ((["camera"], 403), ([], 200)):
            async with http.post(f"{url}/_control/join", json={"token": token, "publish": publish}) as answer:
                assert answer.status == status, await answer.text()
        assert simulator.effects.of("track.published") == []


async def test_no_more_enter_than_there_are_places_however_many_come_at_once(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)

    async def outcome(viewer_id: str) -> str:
        try:
            return str((await show.join(viewer_id)).WhichOneof("handle"))
        except grpc.aio.AioRpcError as error:
            return error.code().name

    for wave in range(3):
        await show.places_expire(*(f"v{wave - 1}-{number}" for number in range(100)))
        outcomes = Counter(await asyncio.gather(*(outcome(f"v{wave}-{number}") for number in range(100))))
        assert outcomes == {"webrtc": 10, "RESOURCE_EXHAUSTED": 90}
        assert await show.held() == 10


async def test_the_last_place_is_given_once(show: Show) -> None:
    """Five have looked and found a place, and none has committed."""
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    for number in range(9):
        await show.join(f"v{number}")
    async with show.stage.database.transaction() as connection:
        # A new place refers to the broadcast, so none can be taken while this is held.
        await connection.execute("SELECT 1 FROM broadcast WHERE id = 'show-1' FOR UPDATE")
        viewers = Viewers(show.stage.database)
        taking = [
            asyncio.ensure_future(viewers.enter("show-1", f"w{number}", slots=10, lease=LEASE)) for number in range(5)
        ]
        await eventually(lambda: waits_for_locks(show, 5))
    results = await asyncio.gather(*taking)
    assert sum(not isinstance(result, Full) for result in results) == 1
    assert await show.held() == 10


async def test_a_place_is_kept_by_who_has_it_and_free_when_it_expires(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    for number in range(10):
        await show.join(f"v{number}")
    refusal = await refused(show.join("late"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "VIEWER_LIMIT")
    assert dict(refusal.info.metadata) == {"broadcast_id": "show-1", "limit": "10"}
    assert refusal.retry_after is not None
    assert 1 <= refusal.retry_after <= 45
    await asyncio.gather(*(show.join(f"v{number}") for number in range(10)))
    assert await show.held() == 10

    # One that is about to expire is kept as well, in the queue of those who want one.
    await show.stage.sql("UPDATE viewer SET expire_time = now() + interval '5 s' WHERE viewer_id = 'v3'")
    kept = await show.join("v3")
    assert kept.webrtc.expire_time.ToDatetime() - (await show.stage.database.now()).replace(tzinfo=None) > LEASE / 2

    await show.places_expire("v5")
    assert (await show.join("late")).WhichOneof("handle") == "webrtc"
    assert (await refused(show.join("v5"))).reason == "VIEWER_LIMIT"
    assert await show.held() == 10


async def test_a_place_that_expires_while_it_is_being_kept_is_given_once(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    for number in range(10):
        await show.join(f"v{number}")
    viewers = Viewers(show.stage.database)
    async with show.stage.database.transaction() as connection:
        await connection.execute("UPDATE viewer SET expire_time = now() + interval '300 ms' WHERE viewer_id = 'v0'")
    async with show.stage.database.transaction() as connection:
        await connection.execute("SELECT 1 FROM viewer WHERE viewer_id = 'v0' FOR UPDATE")
        keeping = asyncio.ensure_future(viewers.enter("show-1", "v0", slots=10, lease=LEASE))
        await eventually(lambda: waits_for_locks(show, 1))
        await eventually(lambda: show.stage.sql("SELECT expire_time < now() FROM viewer WHERE viewer_id = 'v0'"))
        taking = asyncio.ensure_future(viewers.enter("show-1", "late", slots=10, lease=LEASE))
        await eventually(lambda: _either(taking, show))
    results = await asyncio.gather(keeping, taking)
    assert sum(isinstance(result, Full) for result in results) == 1
    assert await show.held() == 10


async def _either(taking: asyncio.Future[Any], show: Show) -> bool:
    return taking.done() or await waits_for_locks(show, 2)


async def waits_for_locks(show: Show, count: int) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return await show.stage.sql(waiting) >= count


async def test_the_places_of_one_broadcast_are_none_of_anothers(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    await asyncio.gather(*(show.join(f"v{number}") for number in range(10)))
    await show.stage.started("show-2", fallback_policy=pb.FallbackPolicy(max_webrtc_viewers=10))
    other = replace(show, id="show-2")
    await other.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    for viewer_id in ("v0", "new"):
        assert (await other.join(viewer_id)).WhichOneof("handle") == "webrtc"
    assert (await show.held(), await other.held()) == (10, 2)


async def test_those_who_want_a_place_do_not_hold_up_the_passes(show: Show) -> None:
    """While one waits at the gate of a broadcast, its row can be claimed."""
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    await show.join("first")
    viewers = Viewers(show.stage.database)
    async with show.stage.database.transaction() as connection:
        await connection.execute("SELECT 1 FROM viewer WHERE viewer_id = '' FOR UPDATE")
        waiting = asyncio.ensure_future(viewers.enter("show-1", "second", slots=10, lease=LEASE))
        await eventually(lambda: waits_for_locks(show, 1))
        [claim] = await Leases(show.stage.database, owner="one", ttl=LEASE).claim(1, limit=1)
        assert claim.broadcast_id == "show-1"
        assert not waiting.done()
    assert not isinstance(await waiting, Full)


async def test_who_finds_no_place_has_hls_while_that_plays_too(show: Show) -> None:
    await show.is_now("LIVE", fallback=IN_THE_ROOM)
    handles = Counter([(await show.join(f"v{number}")).WhichOneof("handle") for number in range(12)])
    assert handles == {"webrtc": 10, "hls": 2}


async def test_only_the_mode_for_viewers_sends_them_into_the_room(show: Show) -> None:
    await show.is_now("LIVE", fallback=replace(IN_THE_ROOM, modes=(FallbackMode.LOCAL_RECORDING,)))
    assert (await show.join()).WhichOneof("handle") == "hls"
    await show.is_now("STOPPING", fallback=IN_THE_ROOM, target="ENDED")
    assert (await show.join()).WhichOneof("handle") == "ended", "nobody enters a room that is being closed"


async def test_places_are_forgotten_when_they_expired_long_ago(show: Show) -> None:
    await show.is_now("INTERRUPTED", fallback=IN_THE_ROOM)
    for viewer_id in ("gone", "back", "here"):
        await show.join(viewer_id)
    await show.stage.sql("UPDATE viewer SET expire_time = now() - interval '2 h' WHERE viewer_id = 'gone'")
    await show.places_expire("back")
    await Viewers(show.stage.database).forget()
    left = await show.stage.sql("SELECT array_agg(viewer_id ORDER BY viewer_id) FROM viewer WHERE viewer_id <> ''")
    assert left == ["back", "here"]


async def test_bad_requests_are_named(show: Show) -> None:
    for request, field in (
        (rpc.JoinBroadcastRequest(viewer_id="ann"), "broadcast_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="x" * 64, viewer_id="ann"), "broadcast_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="show-1"), "viewer_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id="x" * 101), "viewer_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id="a b"), "viewer_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id="a\n"), "viewer_id"),
        (rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id="a\0"), "viewer_id"),
    ):
        refusal = await refused(show.stub.JoinBroadcast(request))
        assert (refusal.code, refusal.reason, set(refusal.fields)) == (INVALID, "INVALID_FIELD", {field}), request
    unknown = await refused(show.stub.JoinBroadcast(rpc.JoinBroadcastRequest(broadcast_id="no", viewer_id="ann")))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "BROADCAST_NOT_FOUND")


async def test_no_host_goes_by_the_name_of_a_viewer(show: Show) -> None:
    stub = show.stage.stub
    issue = calls.IssueHostAccessRequest(broadcast_id="show-1", identity="viewer:ann")
    assert (await refused(stub.IssueHostAccess(issue))).fields == ["identity"]
    start = calls.StartBroadcastRequest(broadcast_id="show-1", host_identity="viewer:ann")
    assert (await refused(stub.StartBroadcast(start))).fields == ["host_identity"]
    issue.identity = "viewers"
    await stub.IssueHostAccess(issue)
