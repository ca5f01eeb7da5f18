"""ListOrphans and ReapOrphans, and the sweeper, over both simulated providers and a real database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from structlog.testing import capture_logs

from broadcast.v1 import admin_service_pb2 as rpc
from broadcast.v1.admin_service_pb2_grpc import AdminServiceStub
from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import Fault
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from service.domain.broadcast import PRESETS, LatencyMode, PlaybackPolicy, seconds
from service.domain.ports import EgressWanted, Push, RoomWanted, StreamWanted, UploadWanted
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.budget import Budget, Limit, Limits
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.reconciler.act.requests import Providers
from service.reconciler.background.orphans import UPLOAD_GRACE, Reaper
from service.reconciler.background.sweeper import UPLOADS_EVERY, Sweeper
from service.store.budgets import Budgets
from service.store.leases import Leases
from service.store.owned_ids import OwnedIds
from tests.integration.api_stage import Behind, Beside, Stage, api, refused, running
from tests.integration.services_stage import admin_api
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

TAG = "bs1:test:"
SECRET = "a-livekit-secret-of-at-least-thirty-two-bytes"
HOUR = timedelta(hours=1)
NONE = timedelta(0)
ROOMY = Limits(mux_other=Limit(rate=100, burst=200))
DRY = Limits(mux_other=Limit(rate=0.001, burst=1))


@dataclass(slots=True, kw_only=True)
class World:
    """Both providers, and what of ours is there."""

    livekit_simulator: LiveKitSimulator
    mux_simulator: MuxSimulator
    livekit: LiveKit
    mux: Mux
    http: aiohttp.ClientSession

    async def stream(self, tag: str) -> str:
        return (
            await self.mux.streams.create(
                StreamWanted(
                    tag=tag,
                    title="",
                    playback_policy=PlaybackPolicy.PUBLIC,
                    latency_mode=LatencyMode.REDUCED,
                    reconnect_window_s=60,
                    max_duration_s=3600,
                    test=False,
                    audio_only=False,
                )
            )
        ).id

    async def upload(self, tag: str) -> str:
        wanted = UploadWanted(
            tag=tag, url=Secret("http://127.0.0.1:9/f.mp4"), title="", playback_policy=PlaybackPolicy.PUBLIC
        )
        return (await self.mux.uploads.create(wanted)).asset_id

    async def assets(self) -> set[str]:
        return set(self.mux_simulator.store.assets)

    async def room(self, name: str, tag: str | None = None) -> None:
        mark = f"{TAG}{name}" if tag is None else tag
        await self.livekit.rooms.create(
            RoomWanted(name=name, tag=mark, empty_timeout=HOUR, departure_timeout=HOUR),
        )

    async def egress(self, room: str) -> str:
        async with self.http.post(
            f"{self.livekit_simulator.base_url}/_control/join",
            json={"room": room, "identity": "ann", "publish": ["camera"]},
        ) as answer:
            assert answer.status == 200
        push = Push(name="", url=Secret("rtmp://nowhere.example.com/app/abcdefghi"))
        wanted = EgressWanted(
            room_name=room, encoding=PRESETS["480P_30"], audio_only=False, layout="grid", pushes=(push,)
        )
        return (await self.livekit.egresses.start(wanted)).id

    async def streams(self) -> set[str]:
        seen, _ = await self.mux.streams.list_tagged("bs1:", page=1)
        return {each.id for each in seen}

    async def rooms(self) -> set[str]:
        return {each.name for each in await self.livekit.rooms.list()}


@dataclass(slots=True, kw_only=True)
class Show:
    world: World
    stage: Stage
    stub: AdminServiceAsyncStub
    reaper: Reaper
    providers: Providers

    async def list(self) -> rpc.ListOrphansResponse:
        return await self.stub.ListOrphans(rpc.ListOrphansRequest())

    async def reap(self, *external_ids: str, dry_run: bool = False) -> rpc.ReapOrphansResponse:
        return await self.stub.ReapOrphans(rpc.ReapOrphansRequest(dry_run=dry_run, external_ids=external_ids))

    async def broadcast(self, broadcast_id: str, state: str = "LIVE", target: str = "LIVE") -> None:
        await self.stage.sql(
            "INSERT INTO broadcast (id, spec, target, state) VALUES ($1, '{}', $2, $3)", broadcast_id, target, state
        )

    async def owns_stream(self, broadcast_id: str, stream_id: str, phase: str = "present") -> None:
        await self.owns("stream", broadcast_id, stream_id, phase)

    async def owns(self, kind: str, broadcast_id: str, external_id: str, phase: str, *, age_s: float = 0) -> None:
        await self.stage.sql(
            "INSERT INTO resource (broadcast_id, kind, ordinal, phase, external_id, intended_at, changed_at) "
            "VALUES ($1, $4, 0, $2, $3, now() - make_interval(secs => $5), now())",
            broadcast_id,
            phase,
            external_id,
            kind,
            age_s,
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as opened:
        mux_simulator = MuxSimulator(
            MuxSimulatorSettings(
                token_id="token",
                token_secret="secret",
                webhook_url=None,
                webhook_secret="x",
                post_rate=0,
                other_rate=0,
            ),
            clock=ScaledClock(1),
        )
        mux_url = await mux_simulator.start()
        opened.push_async_callback(mux_simulator.stop)
        livekit_simulator = LiveKitSimulator(
            LiveKitSimulatorSettings(api_key="key", api_secret=SECRET), clock=ScaledClock(1)
        )
        livekit_url = await livekit_simulator.start()
        opened.push_async_callback(livekit_simulator.stop)
        mux = Mux(
            base_url=mux_url,
            token_id="token",
            token_secret=Secret("secret"),
            longest_call=timedelta(seconds=5),
            threads=4,
        )
        opened.push_async_callback(mux.close)
        livekit = LiveKit(url=livekit_url, api_key="key", api_secret=Secret(SECRET), longest_call=timedelta(seconds=5))
        opened.push_async_callback(livekit.close)
        yield World(
            livekit_simulator=livekit_simulator,
            mux_simulator=mux_simulator,
            livekit=livekit,
            mux=mux,
            http=await opened.enter_async_context(aiohttp.ClientSession()),
        )


@contextlib.asynccontextmanager
async def serving(
    dsn: str, world: World, *, grace: timedelta = NONE, upload_grace: timedelta = NONE, limits: Limits = ROOMY
) -> AsyncGenerator[Show]:
    built: list[tuple[Reaper, Providers]] = []

    def admin(behind: Behind) -> Beside:
        providers = Providers(
            rooms=world.livekit.rooms,
            egresses=world.livekit.egresses,
            streams=world.mux.streams,
            uploads=world.mux.uploads,
            budget=Budget(Budgets(behind.database).take, limits),
            tag=TAG,
        )
        reaper = Reaper(OwnedIds(behind.database), providers, grace=grace, upload_grace=upload_grace)
        built.append((reaper, providers))
        return Beside(admin=admin_api(behind, reaper))

    async with api(dsn, beside=admin) as stage:
        [(reaper, providers)] = built
        yield Show(world=world, stage=stage, stub=AdminServiceStub(stage.channel), reaper=reaper, providers=providers)


async def test_what_has_our_mark_and_no_owner_is_listed_and_nothing_else(database_url: str, world: World) -> None:
    async with serving(database_url, world, grace=HOUR) as show:
        assert await show.list() == rpc.ListOrphansResponse()
        await show.broadcast("live")
        await show.broadcast("searching")
        await show.broadcast("over", "ENDED", "ENDED")
        owned = await world.stream(f"{TAG}live:0")
        await show.owns_stream("live", owned)
        await world.stream(f"{TAG}searching:0")
        await show.owns_stream("searching", "", "unknown")
        gone = await world.stream(f"{TAG}over:0")
        await show.owns_stream("over", gone, "gone")
        unknown = await world.stream(f"{TAG}never-was:3")
        await world.stream("bs1:prod:x:0")
        await world.room("live")
        await world.room("over")
        await world.room("stranger")
        await world.room("prod-room", "bs1:prod:prod-room")
        await world.room("somebodys", "")
        egress = await world.egress("over")
        await show.owns("egress", "over", egress, "gone")
        await world.egress("over")
        await world.egress("live")
        await world.egress("somebodys")

        answer = await show.list()
        assert answer.incomplete == []
        found = {(each.provider, each.kind, each.external_id, each.broadcast_id) for each in answer.orphans}
        assert found == {
            ("mux", "stream", gone, "over"),
            ("mux", "stream", unknown, "never-was"),
            ("livekit", "room", "over", "over"),
            ("livekit", "room", "stranger", "stranger"),
            ("livekit", "egress", egress, "over"),
        }
        now = (await show.stage.database.now()).timestamp()
        assert all(abs(each.create_time.seconds - now) < 10 for each in answer.orphans)
        assert not any(each.removable for each in answer.orphans), "all are younger than an hour"


async def test_reaping_removes_what_is_old_enough_and_counts_it(database_url: str, world: World) -> None:
    stream = await world.stream(f"{TAG}gone:0")
    await world.room("gone")
    async with serving(database_url, world, grace=HOUR) as show:
        young = await show.reap()
        assert (len(young.removed), len(young.remaining)) == (0, 2)
    async with serving(database_url, world) as show:
        await show.broadcast("live")
        await world.room("live")
        with capture_logs() as logs:
            would = await show.reap(dry_run=True)
            assert {each.external_id for each in would.removed} == {stream, "gone"}
            assert not would.remaining
            assert not [entry for entry in logs if entry["event"] == "orphan_swept"]
            assert (await world.streams(), await world.rooms()) == ({stream}, {"gone", "live"})

            done = await show.reap()
        assert {each.external_id for each in done.removed} == {stream, "gone"}
        assert (await world.streams(), await world.rooms()) == (set(), {"live"})
        swept = {(entry["kind"], entry["external_id"]) for entry in logs if entry["event"] == "orphan_swept"}
        assert swept == {("stream", stream), ("room", "gone")}
        assert await show.reap() == rpc.ReapOrphansResponse()
        assert await show.stage.stored() == (1, 0, 0), "of no broadcast, so of no story"


async def test_an_upload_that_no_row_holds_is_an_orphan_and_no_other_asset_is(database_url: str, world: World) -> None:
    recorded = await world.upload(f"{TAG}live:0")
    of_live = await world.upload(f"{TAG}over:upload-0-0")
    # As Mux shows what it recorded from a live stream.
    world.mux_simulator.store.assets[of_live].live_stream_id = "LS1"
    foreign = await world.upload("bs1:prod:over:upload-0-0")
    stranger = await world.upload("a customer's")
    held, leaving, awaited, finished = [
        await world.upload(f"{TAG}{name}:upload-0-0") for name in ("live", "again", "searching", "deleted")
    ]
    late, given_up = await world.upload(f"{TAG}over:upload-0-0"), await world.upload(f"{TAG}dropped:upload-0-1")
    async with serving(database_url, world) as show:
        for name in ("live", "searching"):
            await show.broadcast(name)
        for name in ("over", "again", "deleted", "dropped"):
            await show.broadcast(name, "ENDED", "ENDED")
        await show.stage.sql("UPDATE broadcast SET deleted = true WHERE id IN ('deleted', 'dropped')")
        await show.owns("upload", "live", held, "present")
        await show.owns("upload", "again", leaving, "deleting")
        await show.owns("upload", "searching", "", "unknown")
        await show.owns("upload", "deleted", finished, "present")
        await show.owns("upload", "over", "", "gone")
        # Nobody goes on with what is deleted.
        await show.owns("upload", "dropped", given_up, "deleting")
        answer = await show.list()
        found = {(each.provider, each.kind, each.external_id, each.broadcast_id) for each in answer.orphans}
        assert found == {("mux", "upload", late, "over"), ("mux", "upload", given_up, "dropped")}
        assert {each.external_id for each in (await show.reap()).removed} == {late, given_up}
        assert await world.assets() == {recorded, of_live, foreign, stranger, held, leaving, awaited, finished}


async def test_an_upload_is_given_more_time_than_a_live_stream(database_url: str, world: World) -> None:
    stream, upload = await world.stream(f"{TAG}over:0"), await world.upload(f"{TAG}over:upload-0-0")
    async with serving(database_url, world, upload_grace=UPLOAD_GRACE) as show:
        await show.broadcast("over", "ENDED", "ENDED")
        await show.owns("upload", "over", "", "gone")
        answer = await show.reap()
        assert ([each.external_id for each in answer.removed], [each.external_id for each in answer.remaining]) == (
            [stream],
            [upload],
        )
    assert seconds(Timing().upload_grace_s) < UPLOAD_GRACE


async def test_where_nothing_was_uploaded_lately_no_assets_are_read(database_url: str, world: World) -> None:
    world.mux_simulator.faults.add(Fault(kind="error", operation="list_assets", times=-1, status=500))
    async with serving(database_url, world) as show:
        await show.broadcast("over", "ENDED", "ENDED")
        await show.owns("upload", "over", "", "gone", age_s=90_000)
        assert await show.list() == rpc.ListOrphansResponse()
        assert "error" not in world.mux_simulator.faults.hits
        await show.stage.sql("UPDATE resource SET intended_at = now()")
        assert (await show.list()).incomplete == ["mux"]


async def test_only_those_that_are_named_are_reaped(database_url: str, world: World) -> None:
    first, second = await world.stream(f"{TAG}gone:0"), await world.stream(f"{TAG}gone:1")
    async with serving(database_url, world) as show:
        answer = await show.reap(first, "LS-of-nobody")
        assert [each.external_id for each in answer.removed] == [first]
        assert not answer.remaining
        assert await world.streams() == {second}


async def test_no_more_than_twenty_at_a_time(database_url: str, world: World) -> None:
    for number in range(23):
        await world.room(f"gone-{number}")
    async with serving(database_url, world) as show:
        first = await show.reap()
        assert (len(first.removed), len(first.remaining)) == (20, 3)
        assert len(await world.rooms()) == 3
        second = await show.reap()
        assert (len(second.removed), len(second.remaining)) == (3, 0)


async def test_one_that_is_not_let_go_stays_and_does_not_hold_up_the_others(database_url: str, world: World) -> None:
    first, stubborn, last = [await world.stream(f"{TAG}{name}:0") for name in "abc"]
    world.mux_simulator.faults.add(
        Fault(kind="error", operation="delete_live_stream", match=stubborn, times=-1, status=500)
    )
    async with serving(database_url, world) as show:
        answer = await show.reap()
        assert {each.external_id for each in answer.removed} == {first, last}
        assert [each.external_id for each in answer.remaining] == [stubborn]
        assert world.mux_simulator.faults.hits["error"] >= 1


async def test_a_provider_that_does_not_answer_is_named(database_url: str, world: World) -> None:
    stream = await world.stream(f"{TAG}gone:0")
    world.livekit_simulator.add_fault(Fault(kind="error", operation="ListRooms", times=-1, status=503))
    async with serving(database_url, world) as show:
        answer = await show.list()
        assert [each.external_id for each in answer.orphans] == [stream]
        assert answer.incomplete == ["livekit"]
        assert (await show.reap(dry_run=True)).incomplete == ["livekit"]
        assert [each.external_id for each in (await show.reap()).removed] == [stream]
        refusal = await refused(show.reap())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert refusal.info.metadata["provider"] == "livekit"
        assert refusal.retry_after is not None
        world.mux_simulator.faults.add(Fault(kind="error", operation="list_live_streams", times=-1, status=500))
        assert (await show.list()).incomplete == ["livekit", "mux"]


async def test_without_a_token_of_the_budget_nothing_is_asked_and_that_is_said(database_url: str, world: World) -> None:
    await world.stream(f"{TAG}gone:0")
    await world.room("gone")
    async with serving(database_url, world, limits=DRY) as show:
        assert (await show.list()).incomplete == []
        answer = await show.list()
        assert answer.incomplete == ["mux"]
        assert [each.external_id for each in answer.orphans] == ["gone"]


async def test_what_was_read_before_a_provider_broke_off_is_judged(database_url: str, world: World) -> None:
    """Owners are looked up for it all the same: an owned stream on the first page is no orphan."""
    for number in range(99):
        await world.stream(f"bs1:prod:x{number}:0")
    owned, orphan = await world.stream(f"{TAG}live:0"), await world.stream(f"{TAG}gone:0")
    # A token for one page, and there are two.
    async with serving(database_url, world, limits=DRY) as show:
        await show.broadcast("live")
        await show.owns_stream("live", owned)
        answer = await show.list()
        assert answer.incomplete == ["mux"]
        assert [each.external_id for each in answer.orphans] == [orphan]


async def test_the_sweeper_removes_at_the_second_sight(database_url: str, world: World) -> None:
    stream = await world.stream(f"{TAG}gone:0")
    forgotten: list[str] = []

    async def forget() -> None:
        forgotten.append("once")

    async with serving(database_url, world) as show:
        database = show.stage.database
        leases = Leases(database, owner="one", ttl=timedelta(seconds=20))

        def sweeper(grace: timedelta) -> Sweeper:
            return Sweeper(
                leases,
                OwnedIds(database),
                show.stage.broadcasts,
                show.stage.changes,
                show.providers,
                every=timedelta(milliseconds=10),
                grace=grace,
                forget=[forget],
            )

        patient = sweeper(HOUR)
        assert [await patient.sweep(), await patient.sweep()] == [0, 0]
        quick = sweeper(NONE)
        assert await quick.sweep() == 0
        assert await world.streams() == {stream}
        assert await quick.sweep() == 1
        assert await world.streams() == set()

        again = await world.stream(f"{TAG}gone:1")
        async with running(quick.run()):
            await eventually(lambda: _left(world, again))
        assert forgotten


async def _left(world: World, stream_id: str) -> bool:
    return stream_id not in await world.streams()


async def test_the_sweeper_looks_for_uploads_rarely_and_removes_at_the_second_sight(
    database_url: str, world: World
) -> None:
    upload = await world.upload(f"{TAG}over:upload-0-0")
    async with serving(database_url, world) as show:
        await show.broadcast("over", "ENDED", "ENDED")
        await show.owns("upload", "over", "", "gone")
        database = show.stage.database
        sweeper = Sweeper(
            Leases(database, owner="one", ttl=timedelta(seconds=20)),
            OwnedIds(database),
            show.stage.broadcasts,
            show.stage.changes,
            show.providers,
            every=timedelta(seconds=60),
            grace=NONE,
            upload_grace=NONE,
        )
        swept = [await sweeper.sweep() for _ in range(UPLOADS_EVERY)]
        assert (sum(swept), await world.assets()) == (0, {upload})
        assert (await sweeper.sweep(), await world.assets()) == (1, set())
