"""Thirty and more faults, put one at a time into the whole: what ExplainBroadcast says first is what was done.

Each fault hits one broadcast of its own, so most run at the same time; an outage hits all, and comes after them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from livekit import api

from broadcast.v1.broadcast_pb2 import (
    DELIVERY_POLICY_MANUAL,
    BroadcastSpec,
    Destination,
)
from broadcast.v1.health_pb2 import CONNECTION_QUALITY_POOR, HostStats
from broadcast_client import BroadcastClient, BroadcastError, state_name
from service.sandbox.faults import Fault, Kind
from service.store.database import Database
from tests.e2e.show import TAG, Show, webhook_replica
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, Stack, running_stack
from tests.waiting import eventually

WITHIN_S = 30.0
AT_ONCE = 16
TIMES = 3
"""So many answers in a row must be right: one may be a moment before the next thing happens."""
EXCEPTIONS: frozenset[str] = frozenset()
"""At most one fault whose true cause does not come first, and why. None."""
# Real seconds; the providers' time runs 40 times faster.
WAITS = {
    "BROADCAST_TIMING_EGRESS_START_S": "3",
    "BROADCAST_TIMING_INGEST_START_S": "3",
    "BROADCAST_TIMING_INGEST_LOST_S": "1",
    # A room closes by itself a minute after them, of the providers' time.
    "BROADCAST_TIMING_HOST_WAIT_S": "6000",
    "BROADCAST_TIMING_HOST_RETURN_S": "3000",
    "DATABASE_POOL": "30",
}


@dataclass
class Bench:
    stack: Stack
    client: BroadcastClient
    livekit: api.LiveKitAPI
    database: Database
    holding: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])

    async def show(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        return await Show.create(self.stack, self.client, spec, broadcast_id=name)

    async def ready(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        show = await self.show(name, spec)
        await show.ready()
        return show

    async def live(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        show = await self.show(name, spec)
        await show.live()
        return show

    def at_livekit(self, kind: Kind, operation: str, show: Show, **fields: Any) -> None:
        """For as long as it lasts, whatever is tried."""
        given: dict[str, Any] = {"times": -1, **fields}
        self.stack.livekit.add_fault(Fault(kind=kind, operation=operation, match=show.id, **given))

    def at_mux(self, kind: Kind, operation: str, show: Show, **fields: Any) -> None:
        given: dict[str, Any] = {"times": -1, **fields}
        self.stack.mux.add_fault(Fault(kind=kind, operation=operation, match=f"{TAG}{show.id}:", **given))

    async def mux(self, method: str, show: Show, path: str = "") -> None:
        """What somebody does in Mux's dashboard."""
        stream_id = (await show.get()).status.provider_ids.mux_live_stream_id
        url = f"{self.stack.mux.base_url}/video/v1/live-streams/{stream_id}{path}"
        headers = {"Authorization": aiohttp.encode_basic_auth("token", MUX_SECRET)}
        async with self.stack.http.request(method, url, headers=headers) as answer:
            assert answer.status < 300, await answer.text()


Inject = Callable[[Bench, str], Awaitable[Show]]


@dataclass(frozen=True, slots=True)
class Named:
    code: str
    inject: Inject
    alone: bool = False
    """It hits every broadcast there is."""
    slow: bool = False


FAULTS: dict[str, Named] = {}


def fault(code: str, *, alone: bool = False, slow: bool = False) -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        FAULTS[inject.__name__.replace("_", "-")] = Named(code, inject, alone, slow)
        return inject

    return add


# The host, and what callers want.


@fault("WAITING_FOR_HOST")
async def no_host_yet(bench: Bench, name: str) -> Show:
    return await bench.ready(name)


@fault("HOST_LEFT")
async def host_leaves(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("leave", room=name, identity="ann")
    return show


@fault("HOST_LEFT")
async def host_stops_publishing(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("unpublish", room=name, identity="ann", sources=["camera", "microphone"])
    return show


@fault("HOST_MUTED")
async def camera_muted(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("mute", room=name, identity="ann", source="camera", muted=True)
    return show


@fault("NO_VIDEO")
async def no_camera(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    await bench.stack.host_joins(name, publish=("microphone",))
    await show.until("LIVE")
    return show


@fault("HOST_UPLINK_POOR")
async def bad_uplink(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    stats = HostStats(connection_quality=CONNECTION_QUALITY_POOR, packet_loss_ratio=0.3)
    await bench.client.report_host_stats(name, "ann", stats)
    return show


@fault("NOT_ON_AIR")
async def never_put_on_air(bench: Bench, name: str) -> Show:
    show = await bench.ready(name, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
    await bench.stack.host_joins(name)
    return show


@fault("NOT_ON_AIR")
async def taken_off_air(bench: Bench, name: str) -> Show:
    show = await bench.show(name, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
    await bench.client.set_on_air(name, True)
    await show.live()
    await bench.client.set_on_air(name, False)
    return show


@fault("STOPPED_BY_CALLER")
async def stopped(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await show.ended()
    return show


@fault("TEST_LIMIT", slow=True)
async def cut_as_a_test(bench: Bench, name: str) -> Show:
    show = await bench.live(name, BroadcastSpec(test=True))
    await show.until("ENDED", within=WITHIN_S)
    return show


# Somebody else's hand.


@fault("ROOM_LOST")
async def room_deleted(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.livekit.room.delete_room(api.DeleteRoomRequest(room=name))
    return show


@fault("STREAM_DISABLED_OUTSIDE")
async def stream_disabled(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.mux("PUT", show, "/disable")
    return show


@fault("STREAM_DELETED_OUTSIDE")
async def stream_deleted(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.mux("DELETE", show)
    return show


@fault("KEY_RESET_OUTSIDE")
async def key_reset(bench: Bench, name: str) -> Show:
    """And the next one cannot start, so that there is time to ask."""
    show = await bench.live(name)
    bench.at_livekit("egress_stuck", "egress", show)
    await bench.mux("POST", show, "/reset-stream-key")
    bench.at_livekit("rtmp_drop", "publish", show, times=1)
    return show


# The egress.


@fault("EGRESS_REFUSED")
async def egress_refused(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("error", "StartRoomCompositeEgress", show, status=400)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_QUOTA")
async def too_many_egresses(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("error", "StartRoomCompositeEgress", show, status=429)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_NO_WORKER")
async def no_worker(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("worker_loss", "StartRoomCompositeEgress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_START_LOST")
async def start_not_answered(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("reset", "StartRoomCompositeEgress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_START_STUCK")
async def start_stuck(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("egress_stuck", "egress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_ABORTED")
async def egress_aborts(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("egress_abort", "egress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_FAILED")
async def egress_fails(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_fail", "egress", show)
    return show


@fault("EGRESS_ENDED_UNASKED")
async def worker_shut_down(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_complete", "egress", show, message="CPU exhausted")
    return show


@fault("EGRESS_LIMIT_REACHED")
async def session_limit(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_limit", "egress", show)
    return show


@fault("EGRESS_GHOST", slow=True)
async def worker_dies(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_ghost", "egress", show)
    return show


@fault("RTMP_REFUSED")
async def encoder_refused(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_refuse", "publish", show)
    await bench.stack.host_joins(name)
    return show


@fault("RTMP_LOST")
async def connection_breaks(bench: Bench, name: str) -> Show:
    """And the next one cannot start, so that there is time to ask."""
    show = await bench.live(name)
    egress_id = (await show.get()).status.provider_ids.livekit_egress_id
    bench.at_livekit("egress_stuck", "egress", show)
    bench.stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match=egress_id, times=-1))
    bench.at_livekit("rtmp_drop", "publish", show, times=1)
    return show


@fault("NO_MEDIA", slow=True)
async def connected_without_media(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_no_media", "publish", show)
    await bench.stack.host_joins(name)
    return show


@fault("INGEST_STALLED", slow=True)
async def rtmp_wedge(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("rtmp_wedge", "publish", show)
    return show


@fault("PLAYLIST_STALLED", slow=True)
async def playlist_stands_still(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_mux("hls_stall", "playback", show)
    return show


@fault("DESTINATION_FAILED")
async def destination_refuses(bench: Bench, name: str) -> Show:
    place = Destination(name="one", url="rtmps://93.184.216.34:443/app", stream_key="key-of-the-destination")
    show = await bench.show(name, BroadcastSpec(destinations=[place]))
    bench.stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match="93.184.216.34:443", times=-1))
    await show.live()
    return show


@fault("RECORDING_ERRORED", slow=True)
async def recording_without_content(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_no_media", "publish", show)
    await bench.stack.host_joins(name)
    await show.until_told("EGRESS_CONNECTED")
    await show.ended()
    return show


# The providers' APIs.


@fault("LIVEKIT_CREDENTIALS")
async def livekit_key_revoked(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("error", "CreateRoom", show, status=401)
    await bench.client.start(name)
    return show


@fault("LIVEKIT_THROTTLED")
async def livekit_throttles(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("error", "CreateRoom", show, status=429)
    await bench.client.start(name)
    return show


@fault("LIVEKIT_UNREACHABLE")
async def livekit_breaks_off(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("reset", "CreateRoom", show)
    await bench.client.start(name)
    return show


@fault("MUX_CREDENTIALS")
async def mux_token_revoked(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=401)
    await bench.client.start(name)
    return show


@fault("MUX_THROTTLED")
async def mux_throttles(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=429)
    await bench.client.start(name)
    return show


@fault("MUX_REFUSED")
async def mux_refuses(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=400, message="is not possible")
    await bench.client.start(name)
    return show


@fault("MUX_UNREACHABLE")
async def mux_fails_at_the_end(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_mux("error", "delete_live_stream", show, status=500)
    await bench.client.stop(name)
    return show


# What hits all.


@fault("MUX_UNREACHABLE", alone=True)
async def mux_is_away(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.mux.door.begin("error")
    return show


@fault("LIVEKIT_UNREACHABLE", alone=True)
async def livekit_is_away(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.livekit.door.begin("error")
    return show


@fault("SERVICE_BEHIND", alone=True)
async def nobody_takes_it_up(bench: Bench, name: str) -> Show:
    """Somebody's session holds the row: who claims skips it."""
    show = await bench.live(name)
    async with bench.database.connection() as connection:
        await connection.execute("UPDATE broadcast SET due_at = now() + interval '2 s' WHERE id = $1", name)
    bench.holding.append(asyncio.create_task(_hold(bench, name)))
    return show


async def _hold(bench: Bench, name: str) -> None:
    async with bench.database.transaction() as connection:
        await connection.execute("SELECT FROM broadcast WHERE id = $1 FOR UPDATE", name)
        while True:
            # What is idle in a transaction is ended after a while.
            await connection.execute("SELECT pg_sleep(1)")


@dataclass(frozen=True, slots=True)
class Asked:
    name: str
    wanted: str
    first: str
    took_s: float
    story: str = ""

    @property
    def right(self) -> bool:
        return self.wanted == self.first


async def ask(bench: Bench, name: str, named: Named) -> Asked:
    """Put the fault in, and ask until it was noticed and the answer stays the same."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers: list[list[str]] = []
    try:
        show = await named.inject(bench, name)
    except AssertionError as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        return Asked(name, named.code, "", loop.time() - began, f"{name} was not put in: {error}\n{notes}")

    async def noticed() -> bool:
        explanation = await bench.client.explain(show.id)
        assert "key-of-the-destination" not in str(explanation)
        answers.append([cause.code for cause in explanation.causes])
        return len(answers) >= TIMES and all(codes[:1] == [named.code] for codes in answers[-TIMES:])

    try:
        await eventually(noticed, within=WITHIN_S, every=0.2)
    except AssertionError:
        state = state_name((await show.get()).status.state)
        told = [codes for n, codes in enumerate(answers) if n == 0 or answers[n - 1] != codes]
        story = "\n".join([f"{name} {state} {told}", *(await show.story())[-60:]])
        return Asked(name, named.code, (answers[-1] or [""])[0], loop.time() - began, story)
    return Asked(name, named.code, named.code, loop.time() - began)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(running_stack(database_url, **cast("Any", WAITS)))
        replica = await webhook_replica(stack)
        database = await Database.connect(database_url, size=3)
        cleanup.push_async_callback(database.close)
        livekit = await cleanup.enter_async_context(
            api.LiveKitAPI(stack.livekit.base_url, api_key="sandbox", api_secret=LIVEKIT_SECRET)
        )
        bench = Bench(stack, await stack.client(replica.target), livekit, database)
        yield bench
        for task in bench.holding:
            task.cancel()
        await asyncio.gather(*bench.holding, return_exceptions=True)


async def _asked(bench: Bench, faults: dict[str, Named]) -> list[Asked]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, named: Named) -> Asked:
        async with places:
            asked = await ask(bench, name, named)
            # What keeps failing keeps two cores busy.
            with contextlib.suppress(BroadcastError):
                await bench.client.stop(name)
            return asked

    # Those that take their time go first.
    slow_first = sorted(faults.items(), key=lambda item: not item[1].slow)
    asked = list(await asyncio.gather(*(one(name, named) for name, named in slow_first if not named.alone)))
    for name, named in faults.items():
        if named.alone:
            asked.append(await ask(bench, name, named))
            for simulator in (bench.stack.livekit, bench.stack.mux):
                await simulator.door.end()
    return asked


def _check(asked: list[Asked]) -> None:
    for each in sorted(asked, key=lambda each: each.took_s):
        print(f"{each.name:<28} {each.wanted:<24} {each.first:<24} {each.took_s:5.1f} s")
    wrong = [each for each in asked if not each.right and each.name not in EXCEPTIONS]
    assert len(EXCEPTIONS) <= 1
    assert not wrong, "\n\n".join(each.story for each in wrong)


@pytest.mark.timeout(180)
async def test_the_true_cause_comes_first(bench: Bench) -> None:
    assert len(FAULTS) >= 30
    _check(await _asked(bench, FAULTS))
