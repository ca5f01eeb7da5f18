"""The audience as callers are told it, by GetBroadcast and ListBroadcasts, and the reports of callers who count."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as calls
from broadcast.v1 import playback_service_pb2 as rpc
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceStub
from service.api.audience import reader
from service.api.audience.collector import Collector
from service.domain.ports import RoomPeople
from service.store.audience.slots import AudienceSlots
from service.store.measurements.probes import ProbeResults, Probes
from tests.conformance.test_audience import sighting
from tests.integration.api_stage import Behind, Beside, Stage, api, refused, running
from tests.integration.services_stage import playback_api
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub


@dataclass(slots=True, kw_only=True)
class Show:
    stage: Stage
    slots: AudienceSlots
    stub: PlaybackServiceAsyncStub

    async def audience(self) -> pb.Audience | None:
        got = await self.stage.stub.GetBroadcast(calls.GetBroadcastRequest(broadcast_id="show-1"))
        status = got.broadcast.status
        return status.audience if status.HasField("audience") else None

    async def report(self, viewers: int, broadcast_id: str = "show-1") -> None:
        await self.stub.ReportAudience(rpc.ReportAudienceRequest(broadcast_id=broadcast_id, viewers=viewers))


@pytest.fixture
async def show(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Show]:
    # What is read is not kept: the tests ask more often than once a second.
    monkeypatch.setattr(reader, "FRESH_S", 0.0)
    async with api(database_url, beside=lambda behind: Beside(playback=playback_api(behind))) as stage:
        await stage.started("show-1")
        yield Show(stage=stage, slots=AudienceSlots(stage.database), stub=PlaybackServiceStub(stage.channel))


def by_source(audience: pb.Audience | None) -> Mapping[str, int]:
    assert audience is not None
    return {
        pb.AudienceSource.Name(each.source).removeprefix("AUDIENCE_SOURCE_"): each.viewers for each in audience.counts
    }


async def test_nobody_measured_is_no_number(show: Show) -> None:
    audience = await show.audience()
    assert audience is not None
    assert not audience.HasField("viewers")
    assert audience.rule == pb.AUDIENCE_SOURCE_UNSPECIFIED
    assert not audience.counts
    # A replica that counts and never saw a viewer of it: nobody may have been told to give signs.
    await show.slots.flush("one", [])
    audience = await show.audience()
    assert audience is not None
    assert not audience.HasField("viewers")


async def test_viewers_who_give_signs_are_counted_with_the_age_of_the_count(show: Show) -> None:
    await show.slots.flush("one", [sighting("show-1", range(150))])
    await show.slots.flush("two", [sighting("show-1", range(50, 200))])
    audience = await show.audience()
    assert by_source(audience) == {"SESSIONS": 200}
    assert audience is not None
    assert audience.viewers == 200
    assert audience.rule == pb.AUDIENCE_SOURCE_SESSIONS
    assert 0 <= audience.counts[0].age.ToTimedelta().total_seconds() < 30
    assert audience.counts[0].count_time.seconds > 0

    listed = await show.stage.stub.ListBroadcasts(calls.ListBroadcastsRequest())
    assert [each.status.audience.viewers for each in listed.broadcasts] == [200]


async def test_zero_is_told_when_those_who_watched_have_left(show: Show) -> None:
    await show.slots.flush("one", [sighting("show-1", range(3))])
    await show.stage.sql("UPDATE audience_slot SET slot = slot - interval '80 s', seen_at = seen_at - interval '80 s'")
    await show.slots.flush("one", [])
    audience = await show.audience()
    assert audience is not None
    assert audience.HasField("viewers")
    assert audience.viewers == 0


async def test_where_no_replica_counts_any_more_there_is_no_number(show: Show) -> None:
    await show.slots.flush("one", [sighting("show-1", range(3))])
    await show.stage.sql("UPDATE audience_replica SET alive_at = alive_at - interval '80 s'")
    audience = await show.audience()
    assert audience is not None
    assert not audience.HasField("viewers")


async def test_people_in_the_room_stand_beside_and_are_never_added(show: Show) -> None:
    await show.slots.flush("one", [sighting("show-1", range(3))])
    await Probes(show.stage.database).saw(ProbeResults(people={"show-1": RoomPeople(viewers=9, watching=5)}))
    audience = await show.audience()
    assert by_source(audience) == {"SESSIONS": 3, "ROOM": 5}
    assert audience is not None
    assert (audience.viewers, audience.rule) == (5, pb.AUDIENCE_SOURCE_ROOM)


async def test_a_report_is_the_number_until_it_is_a_minute_old(show: Show) -> None:
    await show.slots.flush("one", [sighting("show-1", range(3))])
    await show.report(1000)
    await show.report(700)
    audience = await show.audience()
    assert by_source(audience) == {"SESSIONS": 3, "REPORTED": 700}
    assert audience is not None
    assert (audience.viewers, audience.rule) == (700, pb.AUDIENCE_SOURCE_REPORTED)
    await show.stage.sql("UPDATE audience_count SET counted_at = counted_at - interval '61 s'")
    audience = await show.audience()
    assert by_source(audience) == {"SESSIONS": 3}
    assert audience is not None
    assert audience.viewers == 3


async def test_reports_that_are_refused(show: Show) -> None:
    assert (await refused(show.report(1, "nothing"))).code is grpc.StatusCode.NOT_FOUND
    assert (await refused(show.report(-1))).code is grpc.StatusCode.INVALID_ARGUMENT
    await show.stage.stub.StopBroadcast(calls.StopBroadcastRequest(broadcast_id="show-1"))
    refusal = await refused(show.report(1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
    assert await show.audience() is None


async def test_what_is_counted_goes_through_no_change_log(show: Show) -> None:
    """A watcher of a thousand broadcasts would get a thousand changes a second."""
    before = await show.stage.changes.head()
    await show.slots.flush("one", [sighting("show-1", range(3))])
    await show.report(7)
    await show.audience()
    assert await show.stage.changes.head() == before


async def test_a_viewer_is_seen_whenever_it_joins_until_the_broadcast_is_over(database_url: str) -> None:
    """Also who waits for the start. The next sign is due before the window is over."""
    seen: list[tuple[str, str]] = []

    def saw(broadcast_id: str, viewer_id: str) -> None:
        seen.append((broadcast_id, viewer_id))

    async with api(database_url, beside=lambda behind: Beside(playback=playback_api(behind, saw))) as stage:
        await stage.started("show-1")
        stub: PlaybackServiceAsyncStub = PlaybackServiceStub(stage.channel)
        for state in ("STARTING", "READY", "LIVE", "INTERRUPTED", "ENDED"):
            target = "ENDED" if state == "ENDED" else "LIVE"
            await stage.sql("UPDATE broadcast SET state = $1, target = $2 WHERE id = 'show-1'", state, target)
            answer = await stub.JoinBroadcast(rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id=state))
            assert state == "ENDED" or 0 < answer.refresh_after.seconds <= 20
        assert seen == [("show-1", state) for state in ("STARTING", "READY", "LIVE", "INTERRUPTED")]


async def test_joins_become_the_audience_within_two_seconds(database_url: str) -> None:
    """The whole way: the call, the collector of the replica, one statement, and the number that GetBroadcast tells."""
    async with contextlib.AsyncExitStack() as opened:
        collectors: list[Collector] = []

        def beside(behind: Behind) -> Beside:
            collectors.append(Collector(AudienceSlots(behind.database), replica="one"))
            return Beside(playback=playback_api(behind, collectors[0].saw))

        stage = await opened.enter_async_context(api(database_url, beside=beside))
        await opened.enter_async_context(running(collectors[0].run()))
        await stage.started("show-1")
        stub: PlaybackServiceAsyncStub = PlaybackServiceStub(stage.channel)
        for viewer in range(40):
            request = rpc.JoinBroadcastRequest(broadcast_id="show-1", viewer_id=f"v{viewer % 20}")
            await stub.JoinBroadcast(request)

        async def all_of_them() -> bool:
            got = await stage.stub.GetBroadcast(calls.GetBroadcastRequest(broadcast_id="show-1"))
            return got.broadcast.status.audience.viewers == 20

        await eventually(all_of_them, within=10)
