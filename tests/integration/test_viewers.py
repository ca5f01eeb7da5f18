"""Sessions of viewers over a real channel: joining, keeping alive, leaving, revoking, and the stream of handles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import grpc
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as calls
from broadcast.v1 import playback_service_pb2 as rpc
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceStub
from service.api.playback.sessions import Sessions
from service.domain.broadcast import Fallback, FallbackMode, Status
from service.domain.errors import Outcome, ProviderError
from service.domain.playback_handle import HandleKind, PlaybackHandle
from service.domain.provider import Provider
from service.domain.reasons import FallbackReason, Operation
from service.domain.resources import Recording, RecordingStatus
from service.store.past_starts import PastStarts
from tests.integration.api_stage import Behind, Beside, Stage, api, refused
from tests.integration.services_stage import Watching
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub

INVALID, EXPIRED, REVOKED, OVER = (
    rpc.SESSION_STATUS_INVALID,
    rpc.SESSION_STATUS_EXPIRED,
    rpc.SESSION_STATUS_REVOKED,
    rpc.SESSION_STATUS_OVER,
)
NEW_HANDLE, RENEWED = rpc.SESSION_STATUS_NEW_HANDLE, rpc.SESSION_STATUS_RENEWED
READY = Recording(asset_id="A1", playback_id="R1", status=RecordingStatus.READY)
IN_THE_ROOM = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING)


@dataclass(slots=True, kw_only=True)
class Show:
    stage: Stage
    stub: PlaybackServiceAsyncStub
    watching: Watching
    generations: dict[str, int] = field(default_factory=dict[str, int])

    async def is_now(
        self,
        broadcast_id: str,
        state: str,
        kind: HandleKind,
        *,
        target: str = "LIVE",
        fallback: Any = None,
        **status: Any,
    ) -> int:
        """What a reconciler would commit. Answers the generation of the handle."""
        generation = self.generations[broadcast_id] = self.generations.get(broadcast_id, 1) + 1
        since = await self.stage.database.now()
        handle = PlaybackHandle(kind=kind, generation=generation, since=since)
        stored = Status(**cast("Any", {"playback_id": f"P-{broadcast_id}", "playback_handle": handle, **status}))
        await self.stage.sql(
            "UPDATE broadcast SET status = $2, target = $3, fallback = $4 WHERE id = $1",
            broadcast_id,
            msgspec.to_builtins(stored),
            target,
            msgspec.to_builtins(fallback or Fallback()),
        )
        await self.stage.becomes(broadcast_id, state)
        return generation

    async def live(self, broadcast_id: str, **spec: Any) -> int:
        await self.stage.started(broadcast_id, **spec)
        return await self.is_now(broadcast_id, "LIVE", HandleKind.HLS)

    async def join(self, broadcast_id: str = "show", viewer_id: str = "ann") -> rpc.JoinBroadcastResponse:
        return await self.stub.JoinBroadcast(rpc.JoinBroadcastRequest(broadcast_id=broadcast_id, viewer_id=viewer_id))

    async def keep(self, *sessions: tuple[str, int] | rpc.LiveSession) -> list[rpc.SessionResult]:
        return list((await self.kept(*sessions)).results)

    async def kept(self, *sessions: tuple[str, int] | rpc.LiveSession) -> rpc.KeepAliveResponse:
        given = [
            each if isinstance(each, rpc.LiveSession) else rpc.LiveSession(session=each[0], handle_generation=each[1])
            for each in sessions
        ]
        return await self.stub.KeepAlive(rpc.KeepAliveRequest(sessions=given))

    async def revoke(self, viewer_id: str = "ann", *, broadcast_id: str = "show", reinstate: bool = False) -> None:
        await self.stub.RevokeViewer(
            rpc.RevokeViewerRequest(broadcast_id=broadcast_id, viewer_id=viewer_id, reinstate=reinstate)
        )

    async def log_is_read(self) -> None:
        """Until this replica has read every change there is."""
        newest = await self.stage.sql("SELECT revision FROM head")
        await eventually(lambda: self.stage.tail.head >= newest)

    def counted(self) -> list[str]:
        """Who was counted since the last time this was asked."""
        counted = [viewer_id for _, viewer_id in self.watching.audience.viewers]
        self.watching.audience.viewers.clear()
        return counted

    async def issued(self, viewer_id: str = "ann", *, ago: timedelta = timedelta(), broadcast_id: str = "show") -> str:
        """A session as it was issued *ago*."""
        return self.watching.sessions.issue(broadcast_id, viewer_id, await self.stage.database.now() - ago)[0]


@pytest.fixture
async def show(database_url: str) -> AsyncIterator[Show]:
    async with showing(database_url) as found:
        yield found


@asynccontextmanager
async def showing(database_url: str, **options: Any) -> AsyncGenerator[Show]:
    made: list[Watching] = []

    def beside(behind: Behind) -> Beside:
        made.append(Watching(behind, **options))
        return Beside(playback=made[0].api)

    async with api(database_url, beside=beside) as stage:
        yield Show(stage=stage, stub=PlaybackServiceStub(stage.channel), watching=made[0])


async def test_a_viewer_gets_a_session_that_says_nothing_new_while_nothing_is(show: Show) -> None:
    generation = await show.live("show")
    joined = await show.join()
    assert joined.handle_generation == generation
    assert joined.keep_alive_interval.seconds == 20
    assert joined.session
    left = joined.session_expire_time.ToDatetime() - (await show.stage.database.now()).replace(tzinfo=None)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    assert show.counted() == ["ann"]
    kept = await show.kept((joined.session, joined.handle_generation))
    assert list(kept.results) == []
    assert kept.keep_alive_interval.seconds == 20
    assert show.counted() == ["ann"]
    assert await show.stage.sql("SELECT count(*) FROM viewer") == 0, "nothing is stored for it"


async def test_a_change_of_the_handle_is_told_once_a_broadcast_and_to_each_viewer(show: Show) -> None:
    await show.live("show")
    joined = [await show.join(viewer_id=viewer_id) for viewer_id in ("ann", "bob")]
    sessions = [(each.session, each.handle_generation) for each in joined]
    generation = await show.is_now("show", "STOPPING", HandleKind.ENDED, target="ENDED")
    kept = await show.kept(*sessions)
    assert [(each.index, each.status, each.viewer_id) for each in kept.results] == [
        (0, NEW_HANDLE, "ann"),
        (1, NEW_HANDLE, "bob"),
    ]
    [told] = kept.handles
    assert (told.broadcast_id, told.handle_generation, told.WhichOneof("handle")) == ("show", generation, "ended")
    assert await show.keep(*((session, generation) for session, _ in sessions)) == [], "it may be recorded still"


async def test_bad_sessions_are_answered_one_by_one_and_nobody_of_them_is_counted(show: Show) -> None:
    generation = await show.live("show")
    good = (await show.join()).session
    other = Sessions([b"k" * 32], environment="prod", life=timedelta(hours=2))
    now = await show.stage.database.now()
    await show.revoke("eve")
    await show.stage.started("deleted")
    await show.is_now("deleted", "ENDED", HandleKind.ENDED, target="ENDED")
    late = await show.issued("late", broadcast_id="deleted")
    await show.stage.stub.DeleteBroadcast(calls.DeleteBroadcastRequest(broadcast_id="deleted"))
    show.counted()
    bad = {
        "": INVALID,
        "forged": INVALID,
        good[:-1]: INVALID,
        good[:40]: INVALID,
        "B" + good[1:]: INVALID,
        "x" * 2000: INVALID,
        "\u2603": INVALID,
        other.issue("show", "ann", now)[0]: INVALID,
        await show.issued("old", ago=timedelta(hours=2, seconds=1)): EXPIRED,
        await show.issued("eve"): REVOKED,
        late: OVER,
        await show.issued("nobody", broadcast_id="never-was"): OVER,
    }
    results = await show.keep(*((session, generation) for session in bad), (good, generation))
    assert [(each.index, each.status) for each in results] == list(enumerate(bad.values()))
    assert all(not each.viewer_id for each in results if each.status == INVALID)
    assert show.counted() == ["ann"]


async def test_a_thousand_sessions_are_one_statement_and_one_more_is_refused(show: Show) -> None:
    generations = {f"show-{n}": await show.live(f"show-{n}") for n in range(3)}
    sessions = [
        (await show.issued(f"v{n}", broadcast_id=id_), generations[id_])
        for n, id_ in enumerate(list(generations) * 334)
    ]
    show.watching.shown.reads.clear()
    assert await show.keep(*sessions[:1000]) == []
    assert show.watching.shown.reads == [["show-0", "show-1", "show-2"]]
    assert len(show.counted()) == 1000
    refusal = await refused(show.keep(*sessions[:1001]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.fields == ["sessions"]
    assert (await refused(show.keep())).fields == ["sessions"]
    assert show.counted() == []


async def test_who_waits_is_counted_where_the_broadcast_is_wanted_and_not_before_or_after(show: Show) -> None:
    await show.stage.create("show")
    waiting = await show.join()
    assert (waiting.WhichOneof("handle"), waiting.handle_generation) == ("starting", 1)
    assert await show.keep((waiting.session, 1)) == []
    assert show.counted() == []
    await show.stage.stub.StartBroadcast(calls.StartBroadcastRequest(broadcast_id="show"))
    assert await show.keep((waiting.session, 1)) == [], "started, and there is nothing to watch yet"
    assert show.counted() == ["ann"]
    stopped = await show.stage.stub.StopBroadcast(calls.StopBroadcastRequest(broadcast_id="show"))
    assert stopped.broadcast.status.playback_handle.kind == pb.PLAYBACK_HANDLE_KIND_ENDED
    assert stopped.broadcast.status.playback_handle.generation == 2
    [told] = await show.keep((waiting.session, 1))
    assert told.status == NEW_HANDLE
    assert show.counted() == []


async def test_what_is_over_for_good_ends_its_sessions_once_the_last_handle_was_told(show: Show) -> None:
    await show.live("show")
    joined = await show.join()
    pending = Recording(asset_id="A1")
    ended = await show.is_now("show", "ENDED", HandleKind.ENDED, target="ENDED", recordings=(pending,))
    assert [each.status for each in await show.keep((joined.session, joined.handle_generation))] == [NEW_HANDLE]
    assert await show.keep((joined.session, ended)) == [], "the recording comes"
    recorded = await show.is_now("show", "ENDED", HandleKind.RECORDING, target="ENDED", recordings=(READY,))
    kept = await show.kept((joined.session, ended))
    assert [each.status for each in kept.results] == [NEW_HANDLE]
    assert [each.playback_id for each in kept.handles[0].recording.recordings] == ["R1"]
    assert [each.status for each in await show.keep((joined.session, recorded))] == [OVER]


async def test_a_session_is_renewed_after_half_of_its_life(show: Show) -> None:
    generation = await show.live("show")
    young, older = await show.issued(ago=timedelta(minutes=59)), await show.issued(ago=timedelta(minutes=61))
    kept = await show.kept((young, generation), (older, generation))
    [renewed] = kept.results
    assert (renewed.index, renewed.status) == (1, RENEWED)
    session = show.watching.sessions.read(renewed.session)
    assert session is not None
    assert (session.broadcast_id, session.viewer_id) == ("show", "ann")
    assert session.expires == renewed.session_expire_time.seconds
    assert [each.hls.playback.playback_id for each in kept.handles] == ["P-show"]
    assert await show.keep((renewed.session, generation)) == []


async def test_signed_playback_hands_out_tokens_that_outlive_the_session(database_url: str) -> None:
    signed = pb.PLAYBACK_POLICY_SIGNED
    async with showing(database_url, signing=True) as show:
        await show.live("public")
        assert not (await show.join("public")).hls.HasField("tokens")
        await show.stage.started("show")
        await show.stage.sql(
            "UPDATE broadcast SET spec = jsonb_set(spec, '{playback_policy}', $1) WHERE id = 'show'", "signed"
        )
        await show.is_now("show", "LIVE", HandleKind.HLS)
        joined, again = await show.join(), await show.join(viewer_id="bob")
        tokens = joined.hls.tokens
        assert joined.hls.playback.policy == signed
        assert joined.hls.playback.hls_url == f"https://stream.mux.com/P-show.m3u8?token={tokens.playback}"
        assert len({tokens.playback, tokens.thumbnail, tokens.storyboard}) == 3
        assert tokens.expire_time.seconds >= joined.session_expire_time.seconds
        assert again.hls.tokens.playback == tokens.playback, "all viewers share it"
        old = await show.issued(ago=timedelta(minutes=61))
        kept = await show.kept((old, joined.handle_generation))
        assert kept.handles[0].hls.tokens.expire_time.seconds >= kept.results[0].session_expire_time.seconds
        await show.is_now("show", "ENDED", HandleKind.RECORDING, target="ENDED", recordings=(READY,))
        recording = (await show.join()).recording
        assert recording.tokens["R1"].playback
        assert recording.recordings[0].hls_url.endswith(f"/R1.m3u8?token={recording.tokens['R1'].playback}")


async def test_a_revoked_viewer_is_refused_told_and_put_out_until_reinstated(show: Show) -> None:
    generation = await show.live("show", fallback_policy=pb.FallbackPolicy(max_webrtc_viewers=10))
    await show.is_now("show", "INTERRUPTED", HandleKind.WEBRTC, fallback=IN_THE_ROOM, room_sid="RM_1")
    joined = await show.join()
    assert joined.webrtc.token
    show.counted()
    for _ in range(2):
        await show.revoke()
    assert show.watching.rooms.put_out == [("show", "viewer:ann")] * 2
    assert await show.stage.sql("SELECT count(*) FROM viewer WHERE viewer_id = 'ann'") == 0
    refusal = await refused(show.join())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "VIEWER_REVOKED")
    assert dict(refusal.info.metadata) == {"broadcast_id": "show", "viewer_id": "ann"}
    assert [each.status for each in await show.keep((joined.session, generation))] == [REVOKED]
    assert show.counted() == []
    await show.join(viewer_id="bob")
    await show.revoke(reinstate=True)
    assert (await show.join()).webrtc.token
    unknown = await refused(show.revoke(broadcast_id="no"))
    assert unknown.reason == "BROADCAST_NOT_FOUND"


async def test_a_viewer_is_revoked_although_the_room_does_not_answer(show: Show) -> None:
    await show.live("show")
    await show.is_now("show", "LIVE", HandleKind.HLS, room_sid="RM_1")
    failure = ProviderError(
        "no answer", provider=Provider.LIVEKIT, operation=Operation.REMOVE_PARTICIPANT, outcome=Outcome.AMBIGUOUS
    )
    for fails, limited in ((failure, False), (None, True)):
        show.watching.rooms.fails, show.watching.rooms.limited = fails, limited
        refusal = await refused(show.revoke())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert (await refused(show.join())).reason == "VIEWER_REVOKED"
    missing = ProviderError(
        "", provider=Provider.LIVEKIT, operation=Operation.REMOVE_PARTICIPANT, outcome=Outcome.MISSING
    )
    show.watching.rooms.fails, show.watching.rooms.limited = missing, False
    await show.revoke()


async def test_who_leaves_gives_the_place_in_the_room_back(show: Show) -> None:
    await show.live("show", fallback_policy=pb.FallbackPolicy(max_webrtc_viewers=1))
    await show.is_now("show", "INTERRUPTED", HandleKind.WEBRTC, fallback=IN_THE_ROOM)
    joined = await show.join()
    assert (await refused(show.join(viewer_id="bob"))).reason == "VIEWER_LIMIT"
    for _ in range(2):
        await show.stub.LeaveBroadcast(rpc.LeaveBroadcastRequest(session=joined.session))
    await show.join(viewer_id="bob")
    refusal = await refused(show.stub.LeaveBroadcast(rpc.LeaveBroadcastRequest(session=joined.session[:-2])))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "SESSION_INVALID")
    expired = await show.issued("bob", ago=timedelta(hours=3))
    await show.stub.LeaveBroadcast(rpc.LeaveBroadcastRequest(session=expired))
    await show.join(viewer_id="cid")


async def test_many_who_join_at_once_are_one_statement_and_see_every_change(database_url: str) -> None:
    async with showing(database_url, fresh=timedelta(hours=1)) as show:
        await show.live("show")
        await show.log_is_read()
        await show.join()
        show.watching.shown.reads.clear()
        await asyncio.gather(*(show.join(viewer_id=f"v{n}") for n in range(100)))
        assert show.watching.shown.reads == [], "it was read a moment ago"
        await show.is_now("show", "STOPPING", HandleKind.ENDED, target="ENDED")

        async def ended() -> bool:
            return (await show.join()).WhichOneof("handle") == "ended"

        await eventually(ended)
        await show.revoke()
        assert (await refused(show.join())).reason == "VIEWER_REVOKED", "what this replica writes it sees at once"


async def test_reports_of_players_are_taken(show: Show) -> None:
    generation = await show.live("show")
    session = (await show.join()).session
    report = rpc.PlaybackReport(position=Duration(seconds=9), rebuffering=Duration(nanos=5), error="decode")
    assert await show.keep(rpc.LiveSession(session=session, handle_generation=generation, report=report)) == []


def watch(show: Show, **request: Any) -> Any:
    return show.stub.WatchPlayback(rpc.WatchPlaybackRequest(**request))


async def told(stream: Any, *, heartbeats: bool = False) -> rpc.WatchPlaybackResponse:
    async with asyncio.timeout(20):
        while True:
            message = await stream.read()
            if heartbeats or message.handles or message.removed_broadcast_ids or message.snapshot_complete:
                return message


async def test_a_backend_holds_one_stream_of_handles(show: Show) -> None:
    await show.live("one", labels={})
    await show.stage.create("two")
    stream = watch(show)
    snapshot = await told(stream)
    assert snapshot.snapshot_complete
    assert {each.broadcast_id: each.WhichOneof("handle") for each in snapshot.handles} == {
        "one": "hls",
        "two": "starting",
    }
    await show.stage.becomes("one", "LIVE")
    generation = await show.is_now("one", "STOPPING", HandleKind.ENDED, target="ENDED")
    [ended] = (await told(stream)).handles
    assert (ended.broadcast_id, ended.handle_generation, ended.WhichOneof("handle")) == ("one", generation, "ended")
    await show.is_now("one", "ENDED", HandleKind.ENDED, target="ENDED")
    message = await told(stream)
    await show.stage.stub.DeleteBroadcast(calls.DeleteBroadcastRequest(broadcast_id="one"))
    removed = await told(stream)
    assert list(removed.removed_broadcast_ids) == ["one"]
    stream.cancel()

    resumed = watch(show, resume_token=message.resume_token)
    assert list((await told(resumed)).removed_broadcast_ids) == ["one"], "it goes on where it was"
    resumed.cancel()
    refusal = await refused(watch(show, resume_token="x").read())
    assert refusal.reason == "RESUME_TOKEN_INVALID"


async def test_a_slow_reader_gets_the_newest_handle_and_the_number_of_those_left_out(show: Show) -> None:
    await show.live("show")
    stream = watch(show, heartbeat_interval=Duration(seconds=1))
    token = (await told(stream)).resume_token
    stream.cancel()
    generations = [await show.is_now("show", "LIVE", HandleKind.HLS, playback_id=f"P{n}") for n in range(5)]
    await show.log_is_read()
    slow = watch(show, resume_token=token)
    message = await told(slow)
    assert [(each.handle_generation, each.hls.playback.playback_id) for each in message.handles] == [
        (generations[-1], "P4")
    ]
    assert message.skipped_count == 4
    slow.cancel()


async def test_a_change_that_is_none_of_the_handle_is_no_message(show: Show) -> None:
    await show.live("show")
    stream = watch(show, heartbeat_interval=Duration(seconds=1))
    await told(stream)
    await show.stage.becomes("show", "LIVE")
    heartbeat = await told(stream, heartbeats=True)
    assert not heartbeat.handles
    assert heartbeat.resume_token
    stream.cancel()


async def test_a_replica_that_drains_sends_its_watchers_away(show: Show) -> None:
    await show.live("show")
    stream = watch(show)
    await told(stream)
    draining = asyncio.ensure_future(show.stage.server.drain(grace=5))
    refusal = await refused(told(stream))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert refusal.retry_after is not None
    await draining


async def test_the_expected_time_is_learnt_from_ten_starts(show: Show) -> None:
    async def start(number: int, took_s: float) -> None:
        await show.stage.create(f"past-{number}")
        await show.stage.sql(
            "UPDATE broadcast SET live_time = now() - $2::int * interval '1 min' WHERE id = $1",
            f"past-{number}",
            number,
        )
        await show.stage.sql(
            "INSERT INTO resource (broadcast_id, kind, ordinal, phase, intended_at, changed_at, detail) "
            "SELECT id, 'egress', 0, 'gone', live_time - $2 * interval '1 s', live_time, "
            "jsonb_build_object('delivering_since', live_time - $2 / 4 * interval '1 s') FROM broadcast WHERE id = $1",
            f"past-{number}",
            took_s,
        )

    for number in range(9):
        await start(number, 8.0)
    usual = await show.watching.past_starts.takes()
    assert (usual.whole.total_seconds(), usual.ingest.total_seconds()) == (30, 15)
    await start(9, 200.0)
    learnt = await PastStarts(show.stage.database).takes()
    assert (learnt.whole.total_seconds(), learnt.ingest.total_seconds()) == (8, 2), "one that took long moves no median"
